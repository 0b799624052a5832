"""The many-to-one RNN, forward only. JAX computes every gradient.

    a_t = U x_t + W h_{t-1} (+ b),    h_t = φ(a_t),    ŷ = V h_T (+ c)

The adjoints δ_t = ∂L/∂a_t come from autodiff too: a zero perturbation ε_t is added to each a_t, and
∂L/∂ε_t at ε = 0 is δ_t.
"""

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Shaped

from jax_reference import activations, losses, unrolled
from jax_reference.inputs import Parameters, arguments, precision, require_truncation
from jax_reference.unrolled import Derivatives, Model, State, States

P = TypeVar("P", bound=Parameters)
Activation = str | Callable[[Array], Array]

__all__ = [
    "Activation", "Derivatives", "States", "adjoints", "derivatives", "loss_of", "predict", "step",
    "value_and_grad", "zeros_unless_given",
]  # fmt: skip


def step(
    params: Parameters, state: State, x_t: Array, perturbation: Array, activation: Activation
) -> tuple[Array, State]:
    """One step, with ε_t added to a_t. Equation (P1)."""
    (h,) = state
    a = x_t @ params.U.T + h @ params.W.T + perturbation  # (P1)  a_t = U x_t + W h_{t-1} + b + ε_t
    if params.b is not None:
        a = a + params.b
    return a, (activations.find(activation)(a),)


def zeros_unless_given(
    h0: Float[Array, "B H"] | None, params: Parameters, x: Float[Array, "T B D"]
) -> Float[Array, "B H"]:
    """h0, or zeros of its shape."""
    zeros: Array = jnp.zeros((jnp.shape(x)[1], len(params.W)), x.dtype)
    return zeros if h0 is None else h0


def loss_of(
    params: Parameters,
    x: Float[Array, "T B D"],
    y: Float[Array, "B O"],
    h0: Float[Array, "B H"],
    perturbations: Float[Array, "T B H"] | float,
    *,
    activation: Activation,
    loss: str,
) -> tuple[Float[Array, ""], States]:
    """The loss as a function of every argument that it is differentiated with respect to."""
    model = Model(step, activation, loss)
    return unrolled.objective(
        params, x, (h0,), perturbations, y, None, model=model, truncation=None
    )


def predict(
    params: Parameters,
    x: Float[Array, "T B D"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: Activation = "tanh",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> Float[Array, "*T B O"]:
    """The prediction ŷ, (B, O), or (T, B, O) for outputs="every".

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    activations.find(activation)
    given = arguments(params, x, h0=h0, outputs=outputs, lengths=lengths)
    model = Model(step, activation, outputs=outputs)
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
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Float[Array, ""], P]:
    """The loss and its gradients with respect to the parameters, in the same pytree structure.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    activations.find(activation)
    losses.find(loss)
    require_truncation(truncation, outputs)
    given = arguments(params, x, y, h0=h0, loss=loss, outputs=outputs, lengths=lengths)
    model = Model(step, activation, loss, outputs)
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
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Derivatives:
    """The loss and its gradient with respect to everything: parameters, x, h0 and every a_t.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    activations.find(activation)
    losses.find(loss)
    require_truncation(truncation, outputs)
    given = arguments(params, x, y, h0=h0, loss=loss, outputs=outputs, lengths=lengths)
    model = Model(step, activation, loss, outputs)
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
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Float[Array, "T B H"]:
    """δ_t = ∂L/∂a_t for every step. Raises what `value_and_grad` raises."""
    delta: Array = derivatives(
        params, x, y, h0,
        activation=activation, loss=loss, outputs=outputs, lengths=lengths, truncation=truncation,
    ).adjoints  # fmt: skip
    return delta
