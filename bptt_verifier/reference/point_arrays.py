"""Arrays of a stated function at several points: in float64, stacked, and of its outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import convert_to_numpy, read_outputs
from bptt_verifier.program.trees import replace_leaves
from bptt_verifier.tolerance.formats import is_floating

Arrays = Mapping[str, Array]


def widen(arrays: Arrays) -> dict[str, Array]:
    """Convert arrays to float64, which changes no number."""
    return {name: np.asarray(value).astype(np.float64) for name, value in arrays.items()}


def stack(points: Sequence[Arrays]) -> dict[str, Any]:
    """Stack the arrays of several points by name, in float64."""
    wide = [widen(point) for point in points]
    return {name: jnp.asarray(np.stack([each[name] for each in wide])) for name in wide[0]}


def to_jax(arrays: Arrays) -> dict[str, Any]:
    """Convert arrays to those of JAX."""
    return {name: jnp.asarray(value) for name, value in arrays.items()}


def select_traced(result: Any) -> dict[str, Any]:
    """Select the floating outputs of a traced forward pass, by name."""
    outputs = {name: jnp.asarray(each) for name, each in read_outputs(result).items()}
    return {name: each for name, each in outputs.items() if is_floating(each.dtype)}


def select_floating(result: Any) -> dict[str, Array]:
    """Select the floating outputs of a forward pass as arrays of NumPy, by name."""
    outputs = {name: convert_to_numpy(each) for name, each in read_outputs(result).items()}
    return {name: each for name, each in outputs.items() if is_floating(each.dtype)}


def rebuild_outputs(result: Any, arrays: Mapping[str, Any]) -> Any:
    """Make the structure of the outputs with arrays for the floating ones, and zeros for data."""
    outputs = read_outputs(result)
    zeros = {n: np.zeros(x.shape, x.dtype) for n, x in outputs.items() if n not in arrays}
    return replace_leaves(result, (arrays[n] if n in arrays else zeros[n] for n in outputs))
