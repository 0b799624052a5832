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


def evaluate(closed: ClosedJaxpr, given: Sequence[Any], form: Format, salt: Array) -> list[Any]:
    """Evaluate a jaxpr whose operations round to the format."""
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= zip(closed.jaxpr.invars, given, strict=True)

    def short(value: Any) -> Any:
        return rounded(value, form, salt) if value.dtype == jnp.float64 else value

    for equation in closed.jaxpr.eqns:
        name = equation.primitive.name
        operands = [a.val if isinstance(a, Literal) else values[a] for a in equation.invars]
        if name in INLINED:
            inner = equation.params[INLINED[name]]
            inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            results = evaluate(inner, operands, form, salt)
        elif name == "scan":
            results = evaluate_scan(equation, operands, form, salt)
        else:
            if form.factors and name == "dot_general":
                operands = [short(value) for value in operands]
            primitive: Any = equation.primitive
            bound = primitive.bind(*operands, **equation.params)
            results = list(bound) if primitive.multiple_results else [bound]
            if not form.factors and name not in EXACT:
                results = [short(value) for value in results]
        values |= zip(equation.outvars, results, strict=True)
    return [a.val if isinstance(a, Literal) else values[a] for a in closed.jaxpr.outvars]


def evaluate_scan(equation: Any, given: Sequence[Any], form: Format, salt: Array) -> list[Any]:
    """Evaluate a scan whose steps round to the format."""
    params = equation.params
    consts, carried = constant_and_carried(equation)
    fixed, first, sliced = (
        list(part) for part in (given[:consts], given[consts:][:carried], given[consts + carried :])
    )

    def step(carry: list[Any], each: list[Any]) -> tuple[list[Any], list[Any]]:
        results = evaluate(params["jaxpr"], [*fixed, *carry, *each], form, salt)
        return results[:carried], results[carried:]

    last, stacked = lax.scan(
        step, first, sliced, reverse=params["reverse"], length=params["length"]
    )
    return [*last, *stacked]


def in_format(function: Callable[..., Any], form: Format) -> Callable[..., Any]:
    """Turn `function(*arguments)` into a function of (salt, *arguments) that rounds to the format.

    `salt`, a uint64, chooses the random errors. The arguments are float64 and are taken as they
    are. JAX must be able to trace the function.
    """

    def run(salt: Array, *arguments: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = evaluate(closed, jax.tree.leaves(arguments), form, salt)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return run
