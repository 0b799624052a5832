"""The gradient of a function in which a cotangent of zero stays zero, whatever the slope is.

Autodiff multiplies a cotangent of zero by an infinite slope, as that of a square root at a number
that a mask leaves out, and gets NaN. docs/derivation.md, section 10, (N8), says when zero is right.
Quotients are differentiated without the square of the divisor, which may overflow: section 17,
(V16).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr

from bptt_verifier.program.by_jax import bind
from bptt_verifier.program.rounding import is_inexact
from bptt_verifier.program.trace import Program, body_of, has_own_derivative
from bptt_verifier.tolerance.noise import (
    ARITHMETIC,
    BY_EXPONENTIALS,
    ELEMENTWISE,
    INLINED,
    constant_and_carried,
)

# Operations of single entries, so that the cotangent of an entry of the result is all that counts.
ENTRY_BY_ENTRY = (ARITHMETIC | ELEMENTWISE | BY_EXPONENTIALS | {"neg", "abs", "max", "min"}) - {
    "reduce_prod"
}


# Evaluates an operation of single entries with another derivative.
Apply = Callable[[Any, Sequence[Any]], Any]


def keep_zeros(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function with the same values, whose derivative passes cotangents of zero as zeros."""
    return replace_derivatives(function, keep_zeros_of_entries)


def divide_by_divisors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function with the same values, whose derivative squares no divisor. (V16)"""
    return replace_derivatives(function, bind_entry_by_entry)


def replace_derivatives(function: Callable[..., Any], apply: Apply) -> Callable[..., Any]:
    """Make a function with the same values and other derivatives of operations of entries."""

    def replaced(*given: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*given)
        results = run(closed, jax.tree.leaves(given), apply)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return replaced


def keep_zeros_of(program: Program) -> Program:
    """Make the program whose backward pass passes cotangents of zero as zeros."""
    kept = (
        operation._replace(keeps_zeros=operation.name in ENTRY_BY_ENTRY)
        for operation in program.operations
    )
    return program._replace(operations=tuple(kept))


def run(closed: ClosedJaxpr, given: Sequence[Any], apply: Apply) -> list[Any]:
    """Evaluate a jaxpr with another derivative of its operations of single entries."""
    known: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known |= zip(closed.jaxpr.invars, given, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else known[atom]

    for equation in closed.jaxpr.eqns:
        results = run_equation(equation, [read(atom) for atom in equation.invars], apply)
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in closed.jaxpr.outvars]


def run_equation(equation: Any, given: Sequence[Any], apply: Apply) -> Sequence[Any]:
    """Evaluate one equation, and what is inside it."""
    name, params = equation.primitive.name, equation.params
    if name in INLINED:
        with jax.ensure_compile_time_eval():  # it computes with numbers, inside a trace
            own = has_own_derivative(equation)
        if own:
            return bind(equation.primitive, params, *given)
        return run(body_of(equation), given, apply)
    if name == "cond":
        branches = [make_run(branch, apply) for branch in params["branches"]]
        results: Sequence[Any] = lax.switch(given[0], branches, *given[1:])
        return results
    if name == "scan":
        return run_scan(equation, given, apply)
    if name in ENTRY_BY_ENTRY and is_inexact(equation.outvars[0].aval.dtype):
        return [apply(equation, given)]
    return bind(equation.primitive, params, *given)


def make_run(closed: ClosedJaxpr, apply: Apply) -> Callable[..., Any]:
    """Make the function of the operands of a branch."""
    return lambda *given: run(closed, given, apply)


def run_scan(equation: Any, given: Sequence[Any], apply: Apply) -> list[Any]:
    """Evaluate a scan whose body is evaluated so, too."""
    consts, carried = constant_and_carried(equation)
    params, split = equation.params, consts + carried

    def step(carry: Any, each: Any) -> Any:
        results = run(params["jaxpr"], [*given[:consts], *carry, *each], apply)
        return results[:carried], results[carried:]

    length, reverse = params["length"], params["reverse"]
    carry, collected = lax.scan(step, given[consts:split], given[split:], length, reverse)
    return [*carry, *collected]


def keep_zeros_of_entries(equation: Any, given: Sequence[Any]) -> Any:
    """Evaluate an operation of single entries; a cotangent of zero is passed back as zero. (N8)"""
    shape = equation.outvars[0].aval.shape

    def function(*operands: Any) -> Any:
        return bind_entry_by_entry(equation, operands)

    @jax.custom_vjp
    def kept(*operands: Any) -> Any:
        return function(*operands)

    def pull_back(operands: Sequence[Any], ct: Any) -> tuple[Any, ...]:
        _, pull = jax.vjp(function, *operands)
        return tuple(keep(ct, each) for each in pull(ct))

    kept.defvjp(lambda *operands: (function(*operands), operands), pull_back)
    return kept(*(jnp.broadcast_to(each, shape) for each in given))


def keep(ct: Any, passed: Any) -> Any:
    """Replace by zero what a cotangent of zero became; None for integers, which have none."""
    if passed.dtype == jax.dtypes.float0:
        return None
    return jnp.where(ct == 0, jnp.zeros_like(passed), passed)


def bind_entry_by_entry(equation: Any, given: Sequence[Any]) -> Any:
    """Evaluate an operation of single entries; a quotient has the derivative (V16)."""
    if equation.primitive.name == "div":
        return divide(*given)
    return bind(equation.primitive, equation.params, *given)[0]


@jax.custom_jvp
def divide(x: Any, y: Any) -> Any:
    """The quotient z = x / y of arrays of one shape, with dz = (dx − z dy) w, w = 1 / y. (V16)"""
    return lax.div(x, y)


@jax.custom_jvp
def invert(y: Any) -> Any:
    """The inverse w = 1 / y, with dw = −(w dy) w. (V16)"""
    return lax.div(jnp.ones_like(y), y)


@divide.defjvp
def differentiate_quotient(given: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Differentiate a quotient: autodiff's rule has y⁻², which is zero for a large y."""
    (x, y), (dx, dy) = given, tangents
    z = divide(x, y)
    return z, (dx - z * dy) * invert(y)


@invert.defjvp
def differentiate_inverse(given: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Differentiate an inverse, for second derivatives of a quotient."""
    w = invert(*given)
    return w, -(w * tangents[0]) * w
