"""The many-to-one LSTM, forward only. JAX computes every gradient.

    a_t = U x_t + W h_{t-1} (+ b),    i, f, g, o = σ, σ, tanh, σ of the four blocks of a_t,
    c_t = f ⊙ c_{t-1} + i ⊙ g,    h_t = o ⊙ tanh(c_t),    ŷ = V h_T (+ c)

The gates' rows are packed in PyTorch's order. Sources: Hochreiter & Schmidhuber 1997; for the
forget gate, Gers, Schmidhuber & Cummins 2000.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Shaped

from jax_reference import losses, unrolled
from jax_reference.inputs import Parameters, arguments, precision, require_truncation
from jax_reference.unrolled import Derivatives, Model, State

P = TypeVar("P", bound=Parameters)
GATES = 4
STATES = ("h0", "c0")


def step(
    params: Parameters, state: State, x_t: Array, perturbation: Array, option: None
) -> tuple[Array, State]:
    """One step, with ε_t added to the a_t of all gates."""
    h, cell = state
    a = x_t @ params.U.T + h @ params.W.T + perturbation
    if params.b is not None:
        a = a + params.b
    i, f, g, o = jnp.split(a, GATES, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return a, (jax.nn.sigmoid(o) * jnp.tanh(cell), cell)


def predict(
    params: Parameters,
    x: Float[Array, "T B D"],
    h0: Float[Array, "B H"] | None = None,
    c0: Float[Array, "B H"] | None = None,
    *,
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> Float[Array, "*T B O"]:
    """The prediction ŷ, (B, O), or (T, B, O) for outputs="every".

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    given = arguments(
        params, x, h0=h0, c0=c0, gates=GATES, states=STATES, outputs=outputs, lengths=lengths
    )
    model = Model(step, None, outputs=outputs)
    with precision(given.dtype):
        prediction: Array = unrolled.compiled_prediction(
            model, params, given.x, given.first, given.lengths
        )
    return prediction


def value_and_grad(
    params: P,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Float[Array, "B H"] | None = None,
    c0: Float[Array, "B H"] | None = None,
    *,
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Float[Array, ""], P]:
    """The loss and its gradients with respect to the parameters, in the same pytree structure.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    losses.find(loss)
    require_truncation(truncation, outputs)
    given = arguments(
        params,
        x,
        y,
        h0=h0,
        c0=c0,
        gates=GATES,
        states=STATES,
        loss=loss,
        outputs=outputs,
        lengths=lengths,
    )
    model = Model(step, None, loss, outputs)
    with precision(given.dtype):
        answer: tuple[Array, P] = unrolled.compiled_value_and_grad(
            model, params, given.x, given.first, given.y, given.lengths, truncation
        )
    return answer


def derivatives(
    params: Parameters,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Float[Array, "B H"] | None = None,
    c0: Float[Array, "B H"] | None = None,
    *,
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Derivatives:
    """The loss and its gradient with respect to everything: parameters, x, h0, c0 and every a_t.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    losses.find(loss)
    require_truncation(truncation, outputs)
    given = arguments(
        params,
        x,
        y,
        h0=h0,
        c0=c0,
        gates=GATES,
        states=STATES,
        loss=loss,
        outputs=outputs,
        lengths=lengths,
    )
    model = Model(step, None, loss, outputs)
    with precision(given.dtype):
        answer: Derivatives = unrolled.compiled_derivatives(
            model, params, given.x, given.first, given.y, given.lengths, truncation
        )
    return answer


def adjoints(
    params: Parameters,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Float[Array, "B H"] | None = None,
    c0: Float[Array, "B H"] | None = None,
    *,
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Float[Array, "T B 4H"]:
    """δ_t = ∂L/∂a_t for every step. Raises what `value_and_grad` raises."""
    delta: Array = derivatives(
        params, x, y, h0, c0,
        loss=loss, outputs=outputs, lengths=lengths, truncation=truncation,
    ).adjoints  # fmt: skip
    return delta
