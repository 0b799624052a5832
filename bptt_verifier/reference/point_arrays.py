"""Arrays of a stated function at several points: in float64, stacked, and of its outputs."""

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import convert_to_numpy, read_outputs
from bptt_verifier.program.trees import replace_leaves
from bptt_verifier.tolerance.formats import is_floating

Arrays = Mapping[str, Array]


class Pulled(NamedTuple):
    """The outputs and the gradients at several points, by name, stacked over the points.

    `kept` are the points at which autodiff gives NaN, and zeros were kept in its place (N8).
    """

    outputs: dict[str, Array]
    gradients: dict[str, Array]
    kept: Sequence[int] = ()

    @property
    def named(self) -> dict[str, Array]:
        """Outputs and gradients together."""
        return self.gradients | name_outputs(self.outputs, self.gradients)


def name_outputs(outputs: dict[str, Array], gradients: Container[str]) -> dict[str, Array]:
    """Name outputs apart from gradients: a state h may be an argument and an output."""
    return {f"output {n}" if n in gradients else n: each for n, each in outputs.items()}


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
