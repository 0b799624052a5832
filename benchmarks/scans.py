"""Forward passes for autodiff, as a user of JAX writes them.

The scan of `jax_reference` also carries the data for verification: the time, a perturbation of
every pre-activation, all pre-activations and all states. A baseline must not include their cost,
so the scans here contain the steps of `jax_reference` alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jax_reference import gru, lstm, rnn
from jax_reference.unrolled import State, output

Loss = Callable[[Any, Array, Array], Array]

STEPS = {"rnn": rnn.step, "lstm": lstm.step, "gru": gru.step}
STATES = {"rnn": 1, "lstm": 2, "gru": 1}


def first(cell: str, params: Any, x: Float[Array, "T B D"]) -> State:
    """The initial states, all zero."""
    return (jnp.zeros((x.shape[1], params.W.shape[1]), x.dtype),) * STATES[cell]


def predicted(cell: str, option: Any) -> Callable[[Any, Array], Array]:
    """ŷ (B, O) as a function of (params, x), with U x_t computed inside the scan."""
    step: Any = STEPS[cell]

    def prediction(params: Any, x: Float[Array, "T B D"]) -> Float[Array, "B O"]:
        def advance(state: State, x_t: Array) -> tuple[State, None]:
            return step(params, state, x_t, 0.0, option)[1], None

        (h, *_), _ = jax.lax.scan(advance, first(cell, params, x), x)
        return output(params, h)

    return prediction


def predicted_hoisted(cell: str, option: Any, turn: int = 1) -> Callable[[Any, Array], Array]:
    """ŷ (B, O) as a function of (params, x), with U x_t for all t as one product before the scan.

    The step gets inputs of width zero, and U x_t as the term that it adds to a_t. `turn` is the
    number of steps in one turn of the loop.
    """
    step: Any = STEPS[cell]

    def prediction(params: Any, x: Float[Array, "T B D"]) -> Float[Array, "B O"]:
        without, nothing = params._replace(U=params.U[:, :0]), x[0, :, :0]

        def advance(state: State, Ux_t: Array) -> tuple[State, None]:
            return step(without, state, nothing, Ux_t, option)[1], None

        Ux = x @ params.U.T
        (h, *_), _ = jax.lax.scan(advance, first(cell, params, x), Ux, unroll=turn)
        return output(params, h)

    return prediction


def mean_squared_error(prediction: Callable[[Any, Array], Array]) -> Loss:
    """L as a function of (params, x, y): the mean of (ŷ − y)² over batch and outputs."""

    def loss(params: Any, x: Array, y: Array) -> Array:
        error: Array = jnp.mean((prediction(params, x) - y) ** 2)
        return error

    return loss
