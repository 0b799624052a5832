"""A loss in plain NumPy, `loss(params)`, as a function that JAX traces."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.decisions import CURRENT, UntraceableError, note_decisions
from bptt_verifier.program.numpy_arrays import join_traced, trace_of, wrap
from bptt_verifier.program.user_objects import replace_numpy


def trace_arrays(
    function: Callable[[dict[str, Any]], Any], point: Mapping[str, Array]
) -> Callable[[Mapping[str, Any]], Any]:
    """Turn a function in NumPy into one of JAX arrays, traced at this point.

    It runs the user's code, unmodified, on arrays that know their numbers at the point and their
    traced values. Raises UntraceableError where the code does what JAX cannot trace.
    """

    def in_jax(params: Mapping[str, Any]) -> Any:
        arrays = {name: wrap(np.array(point[name]), params[name]) for name in params}
        noting = note_decisions() if CURRENT.get(None) is None else nullcontext()
        with noting, replace_numpy(function):
            return trace_of(function(arrays))

    return in_jax


def over_jax(
    loss: Callable[[dict[str, Any]], Any], point: Mapping[str, Array]
) -> Callable[[Mapping[str, Any]], Any]:
    """Turn a loss in NumPy into a scalar function of JAX arrays, traced at this point."""
    in_jax = trace_arrays(loss, point)

    def scalar(params: Mapping[str, Any]) -> Any:
        traced = join_traced(in_jax(params))
        shape = np.shape(traced)
        if prod(shape) != 1:
            raise UntraceableError(f"the loss is no scalar: its shape is {shape}")
        return jnp.asarray(traced) if not shape else jnp.reshape(traced, ())

    return scalar
