"""Gradient descent on several devices: each step is that of `manual_bptt.jitted.parallel`.

Source: docs/derivation.md, sections 7 and 15.
"""

from collections.abc import Callable
from math import gcd
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Shaped

from manual_bptt import training
from manual_bptt.activations import Array
from manual_bptt.inputs import arguments
from manual_bptt.jitted import parallel
from manual_bptt.training import Descent, Params, Run


def descend(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Shaped[Array, "B H"] | None = None,
    c0: Shaped[Array, "B H"] | None = None,
    *,
    mesh: Mesh,
    model: str = "rnn",
    learning_rate: float,
    steps: int,
    target: float | None = None,
    activation: str | None = None,
    progress: Callable[[int, float], None] = lambda steps, loss: None,
) -> Run:
    """`manual_bptt.training.descend` of the mean squared error, on the devices of a mesh.

    The batch is repeated until the devices share it evenly, which changes no mean. (Q18)
    Raises what `manual_bptt.training.descend` and `parallel.value_and_grad` raise.
    """
    own: dict[str, Any] = training.options_of(model, c0, activation)
    cell = training.CELLS[model]
    weights, x, y, *_ = arguments(
        params, x, y, h0, c0=c0, gates=cell.CELL.gates, fields=cell.Params._fields, loss="mse",
        also=("bfloat16",),
    )  # fmt: skip
    parallel.require_mesh(mesh)
    B = x.shape[1]
    times = mesh.size // gcd(B, mesh.size)
    given: dict[str, Any] = {  # (Q18)  k copies of every sequence
        "x": np.concatenate([x] * times, axis=1),
        "y": np.concatenate([y] * times),
        "h0": None if h0 is None else np.concatenate([h0] * times),
        "c0": None if c0 is None else np.concatenate([c0] * times),
    }

    def evaluate(point: Params) -> tuple[Any, Params]:
        found = parallel.value_and_grad(point, **(own | given), mesh=mesh)
        value, gradient = jax.tree.map(np.asarray, found)
        return value[()], gradient

    return Descent(evaluate, cell.Params(*weights)).descend(learning_rate, steps, target, progress)
