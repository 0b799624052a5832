"""Shorter formats, emulated in float64: TF32 rounds factors, bfloat16 rounds every result.

A format as short as these rounds a fixed weight to the same number at every step, and drops what is
added to a far larger number. Random errors do neither, so the operations themselves are rounded.
Source: docs/derivation.md, section 10.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Literal

from bptt_verifier.tolerance.noise import EXACT, INLINED, constant_and_carried, uniform

EXPONENT_BITS = 8  # of both formats, as of float32
# The largest error of tanh in the float32 kernels that cuDNN 9.19 has for few hidden units, ÷ u and
# tanh, at 65,536 arguments from 0.001 to 3, on an H100. Its kernels for H = 512 are at 3.
CUDNN_TANH = 184
DITHER = 4  # random errors before rounding are at most u / DITHER


class Format(NamedTuple):
    """A format: the bits of its significand after the point, and what is rounded to it."""

    bits: int
    factors: bool  # True: the factors of products alone; False: the result of every operation

    @property
    def roundoff(self) -> float:
        """The unit roundoff u."""
        return float(2.0 ** -(self.bits + 1))


TF32 = Format(bits=10, factors=True)
BFLOAT16 = Format(bits=7, factors=False)


def rounded(values: Array, form: Format, salt: Array) -> Array:
    """The values in the format, after a random error that depends on value and salt alone."""
    moved = values * (1 + form.roundoff / DITHER * uniform(values, salt))
    shortened: Array = lax.reduce_precision(moved, EXPONENT_BITS, form.bits)
    return shortened


Apply = Callable[[Any, list[Any]], list[Any]]  # (equation, operands) -> results


def evaluate(closed: ClosedJaxpr, given: Sequence[Any], apply: Apply) -> list[Any]:
    """Evaluate a jaxpr with other operations in place of its own."""
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= zip(closed.jaxpr.invars, given, strict=True)
    for equation in closed.jaxpr.eqns:
        name = equation.primitive.name
        operands = [a.val if isinstance(a, Literal) else values[a] for a in equation.invars]
        if name in INLINED:
            inner = equation.params[INLINED[name]]
            inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            results = evaluate(inner, operands, apply)
        elif name == "scan":
            results = evaluate_scan(equation, operands, apply)
        else:
            results = apply(equation, operands)
        values |= zip(equation.outvars, results, strict=True)
    return [a.val if isinstance(a, Literal) else values[a] for a in closed.jaxpr.outvars]


def evaluate_scan(equation: Any, given: Sequence[Any], apply: Apply) -> list[Any]:
    """Evaluate a scan with other operations in place of its own."""
    params = equation.params
    consts, carried = constant_and_carried(equation)
    fixed, first, sliced = (
        list(part) for part in (given[:consts], given[consts:][:carried], given[consts + carried :])
    )

    def step(carry: list[Any], each: list[Any]) -> tuple[list[Any], list[Any]]:
        results = evaluate(params["jaxpr"], [*fixed, *carry, *each], apply)
        return results[:carried], results[carried:]

    last, stacked = lax.scan(
        step, first, sliced, reverse=params["reverse"], length=params["length"]
    )
    return [*last, *stacked]


def rewritten(function: Callable[..., Any], apply: Apply, *arguments: Any) -> Any:
    """The function of the arguments, with other operations in place of its own."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    results = evaluate(closed, jax.tree.leaves(arguments), apply)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def unchanged(equation: Any, operands: list[Any]) -> list[Any]:
    """The results of an operation."""
    primitive: Any = equation.primitive
    results = primitive.bind(*operands, **equation.params)
    return list(results) if primitive.multiple_results else [results]


def in_format(function: Callable[..., Any], form: Format) -> Callable[..., Any]:
    """Turn `function(*arguments)` into a function of (salt, *arguments) that rounds to the format.

    `salt`, a uint64, chooses the random errors. The arguments are float64 and are taken as they
    are. JAX must be able to trace the function.
    """

    def run(salt: Array, *arguments: Any) -> Any:
        def short(values: list[Any]) -> list[Any]:
            return [
                rounded(value, form, salt) if value.dtype == jnp.float64 else value
                for value in values
            ]

        def apply(equation: Any, operands: list[Any]) -> list[Any]:
            name = equation.primitive.name
            if form.factors and name == "dot_general":
                operands = short(operands)
            results = unchanged(equation, operands)
            return results if form.factors or name in EXACT else short(results)

        return rewritten(function, apply, *arguments)

    return run


def with_coarse_tanh(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn `function(*arguments)` into a function of (salt, size, *arguments) with cuDNN's tanh.

    Its error is at most `CUDNN_TANH` of the result, in units of `size`.
    """

    def run(salt: Array, size: Array, *arguments: Any) -> Any:
        def apply(equation: Any, operands: list[Any]) -> list[Any]:
            results = unchanged(equation, operands)
            if equation.primitive.name != "tanh":
                return results
            return [h * (1 + CUDNN_TANH * size * uniform(h, salt)) for h in results]

        return rewritten(function, apply, *arguments)

    return run
