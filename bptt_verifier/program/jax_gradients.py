"""The gradient of a loss by JAX, compiled by XLA or interpreted in NumPy.

To compile a long program takes longer than to evaluate its operations one by one a hundred times.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.decisions import note_decisions
from bptt_verifier.program.precision import list_inner
from bptt_verifier.program.trace import Program, Site, Tracing, forward
from bptt_verifier.tolerance.noise import UNOPTIMISED

# Fusion copies an operation into each kernel that reads it. In long traces, such as those of
# unrolled loops, the copies take most of the compilation; in short ones fewer kernels take less.
UNFUSED = UNOPTIMISED | {"xla_disable_hlo_passes": "fusion"}
LONG = 1000  # operations
# The operations whose derivative asks which operand equals the result.
EXTREMA = frozenset("eq max min reduce_max reduce_min cummax cummin".split())


def compile_gradient(
    loss: Callable[[Any], Any],
    transform: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
    forget: Callable[[], None] = lambda: None,
    *,
    interpreted: bool = False,
) -> Callable[..., Any]:
    """Make the function that computes a loss, its gradient and its decisions, in 64 bit.

    The loss gets its parameters in the order given; JAX would sort the names of a dict. It is
    compiled at the first call with each set of shapes, unless it is to be `interpreted`, and keeps
    no trace: a trace would keep the user's arrays in 64 bit. What is differentiated is the loss, or
    a `transform` of it. A compiled gradient with a maximum that is not finite is computed `again`,
    which takes long. Before a trace it is told to `forget` what JAX keeps in another precision.
    """
    compiled: dict[Any, Any] = {}

    def gradient(params: Mapping[str, Array], *, again: bool = True) -> Any:
        names, values = [*params], [*params.values()]
        shapes = tuple((name, np.shape(value)) for name, value in params.items())

        def in_order(values: Sequence[Any]) -> Any:
            with note_decisions() as decisions:
                value = loss(dict(zip(names, values, strict=True)))
            return value, decisions.values

        if shapes not in compiled:
            forget()
            differentiated = jax.value_and_grad(transform(in_order), has_aux=True)
            traced = jax.jit(differentiated).trace(values)
            jaxpr = traced.jaxpr.jaxpr
            if interpreted:
                compiled[shapes] = interpret(traced), False
            else:
                options = UNFUSED if count_operations(jaxpr) > LONG else UNOPTIMISED
                compiled[shapes] = traced.lower().compile(options), has_extremum(jaxpr)
        run, extremum = compiled[shapes]
        (value, decided), slopes = run(values)
        if (
            again
            and extremum
            and np.isfinite(value)
            and not all(np.isfinite(g).all() for g in slopes)
        ):
            # Compiled, the operand of a maximum may be computed twice with different rounding.
            # Then no entry equals the maximum, and its derivative is 0/0.
            forget()
            found = attempt(jax.value_and_grad(transform(in_order), has_aux=True), values)
            if not isinstance(found, Failure):
                (value, decided), slopes = found
        return value, dict(zip(names, slopes, strict=True)), decided

    return gradient


def interpret(traced: Any) -> Callable[..., Any]:
    """Make the function that evaluates what JAX has traced in NumPy, one operation at a time."""
    tracing = Tracing(placed=False)
    inputs = tracing.slots(len(traced.jaxpr.jaxpr.invars))
    outputs = tracing.inline(traced.jaxpr, inputs, Site())
    operations, leaves = tuple(tracing.operations), {str(slot): slot for slot in inputs}
    program = Program(operations, tracing.constants, leaves, outputs[0], tracing.used, {})
    structure = jax.tree.structure(traced.out_info)

    def run(values: Sequence[Any]) -> Any:
        found = forward(program, dict(zip(leaves, values, strict=True)))
        return jax.tree.unflatten(structure, [found[slot][0] for slot in outputs])

    return run


def has_extremum(jaxpr: Any) -> bool:
    """Tell whether a jaxpr, or one inside it, compares with a maximum or minimum of entries."""
    return any(
        equation.primitive.name in EXTREMA or any(map(has_extremum, list_inner(equation)))
        for equation in jaxpr.eqns
    )


def count_operations(jaxpr: Any) -> int:
    """Count the operations of a jaxpr, and of those inside it."""
    inner = (each for equation in jaxpr.eqns for each in list_inner(equation))
    return len(jaxpr.eqns) + sum(map(count_operations, inner))
