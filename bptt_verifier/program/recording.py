"""A recording of a user's function: the value of every operation, with its place in the source.

The function runs once, unmodified, on arrays that JAX traces, and its operations are evaluated in
NumPy. The backward pass of a submission is recorded so; nothing depends on what it returns.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple

import jax
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.idle_calls import has_threads, interrupt_idle
from bptt_verifier.program.operations import Operation
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.trace import Program, Site, Tracing, forward


class Recorded(NamedTuple):
    """One operation of a function, with the values of its operands and of its result."""

    operation: Operation
    given: tuple[Array, ...]
    value: Array

    @property
    def place(self) -> Place | None:
        """The expression that computes it."""
        return self.operation.where[0] if self.operation.where else None


def discard_results(function: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Make the function that returns nothing, since results may have no traced values."""

    @wraps(function)
    def call(given: Any) -> None:
        function(given)

    return call


def record(function: Callable[[Any], Any], params: Mapping[str, Array]) -> list[Recorded]:
    """Record the operations of a function in NumPy that depend on its parameters.

    `params` are arrays in float64, by name, and the function takes them as such, or is one
    `over_arrays`. Whatever it raises on traced arrays passes through. Needs 64-bit JAX. Raises
    UntraceableError where the user's code has threads, which a traced array may end.
    """
    if has_threads():
        raise UntraceableError("it hands arrays to threads")
    # Most verdicts need no recording, and so nothing of what stands in for NumPy and PyTorch.
    if hasattr(function, "make_tensors"):  # `over_arrays`
        from bptt_verifier.program.torch_trace import trace_tensors  # noqa: PLC0415

        run = trace_tensors(discard_results(function), params)
    else:
        from bptt_verifier.program.numpy_code import trace_arrays  # noqa: PLC0415

        run = trace_arrays(function, params)

    def in_order(values: Any) -> list[Any]:
        run(dict(zip(params, values, strict=True)))
        return []

    with interrupt_idle():
        closed = jax.make_jaxpr(in_order)([*params.values()])
    tracing = Tracing()
    leaves = dict(zip(params, tracing.slots(len(params)), strict=True))
    tracing.inline(closed, [*leaves.values()], Site())
    shapes = {name: np.shape(value) for name, value in params.items()}
    program = Program(
        tuple(tracing.operations), tracing.constants, leaves, -1, tracing.used, shapes
    )
    values = forward(program, params)
    return [
        Recorded(each, tuple(values[slot][0] for slot in each.inputs), values[slot][0])
        for each in program.operations
        for slot in each.outputs
    ]
