"""The many-to-one RNN, forward only. Every gradient is JAX's.

    a_t = U x_t + W h_{t-1} (+ b),    h_t = φ(a_t),    ŷ = V h_T (+ c)

The adjoints δ_t = ∂L/∂a_t come from autodiff too: a perturbation ε_t, zero, is added to each a_t,
and ∂L/∂ε_t at ε = 0 is δ_t.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jax_reference import activations, losses
from jax_reference.inputs import Parameters, check, precision

P = TypeVar("P", bound=Parameters)
Activation = str | Callable[[Array], Array]


class States(NamedTuple):
    """The forward pass: prediction, pre-activations a_1 … a_T and hidden states h_0 … h_T.

    JAX arrays here, NumPy arrays from `padded`.
    """

    prediction: Float[Any, "B O"]
    a: Float[Any, "T B H"]
    h: Float[Any, "T+1 B H"]


class Derivatives(NamedTuple):
    """The loss, its gradient with respect to everything, and the states it was computed at.

    JAX arrays here, NumPy arrays from `padded`.
    """

    loss: Float[Any, ""]
    U: Float[Any, "H D"]
    W: Float[Any, "H H"]
    V: Float[Any, "O H"]
    b: Float[Any, " H"] | None
    c: Float[Any, " O"] | None
    x: Float[Any, "T B D"]
    h0: Float[Any, "B H"]
    adjoints: Float[Any, "T B H"]
    states: States


def zeros_unless_given(
    h0: Float[Array, "B H"] | None, params: Parameters, x: Float[Array, "T B D"]
) -> Float[Array, "B H"]:
    """h0, or zeros of its shape."""
    zeros: Array = jnp.zeros((jnp.shape(x)[1], len(params.W)), x.dtype)
    return zeros if h0 is None else h0


def states(
    params: Parameters,
    x: Float[Array, "T B D"],
    h0: Float[Array, "B H"],
    perturbations: Float[Array, "T B H"] | float,
    *,
    activation: Activation,
) -> States:
    """The forward pass with ε_t added to each a_t. Equation (P1)."""
    U, W, V, b, c = params.U, params.W, params.V, params.b, params.c
    phi = activations.find(activation)

    def step(h: Array, inputs: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        x_t, perturbation = inputs
        a = x_t @ U.T + h @ W.T + perturbation  # (P1)  a_t = U x_t + W h_{t-1} + b + ε_t
        if b is not None:
            a = a + b
        h = phi(a)
        return h, (a, h)

    perturbations = jnp.broadcast_to(perturbations, (*x.shape[:2], len(W))).astype(x.dtype)
    last, (a, h) = jax.lax.scan(step, h0, (x, perturbations))
    prediction = last @ V.T
    if c is not None:
        prediction = prediction + c
    return States(prediction, a, jnp.concatenate([h0[None], h]))


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
    """L as a function of everything that it can be differentiated with respect to."""
    reached = states(params, x, h0, perturbations, activation=activation)
    return losses.find(loss)(reached.prediction, y, jnp.ones(y.shape, bool)), reached


@partial(jax.jit, static_argnames="activation")
def _predict(params: Parameters, x: Array, h0: Array | None, activation: Activation) -> Array:
    h0 = zeros_unless_given(h0, params, x)
    prediction: Array = states(params, x, h0, 0.0, activation=activation).prediction
    return prediction


@partial(jax.jit, static_argnames=("activation", "loss"))
def _value_and_grad(
    params: P, x: Array, y: Array, h0: Array | None, activation: Activation, loss: str
) -> tuple[Array, P]:
    objective = partial(loss_of, activation=activation, loss=loss)
    (value, _), gradient = jax.value_and_grad(objective, has_aux=True)(
        params, x, y, zeros_unless_given(h0, params, x), 0.0
    )
    return value, gradient


@partial(jax.jit, static_argnames=("activation", "loss"))
def _derivatives(
    params: Parameters, x: Array, y: Array, h0: Array | None, activation: Activation, loss: str
) -> Derivatives:
    zero = jnp.zeros((*x.shape[:2], len(params.W)), x.dtype)
    objective = partial(loss_of, activation=activation, loss=loss)
    (value, reached), (dparams, dx, dh0, adjoints) = jax.value_and_grad(
        objective, argnums=(0, 1, 3, 4), has_aux=True
    )(params, x, y, zeros_unless_given(h0, params, x), zero)
    d = dparams
    return Derivatives(value, d.U, d.W, d.V, d.b, d.c, dx, dh0, adjoints, reached)


def predict(
    params: Parameters,
    x: Float[Array, "T B D"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: Activation = "tanh",
) -> Float[Array, "B O"]:
    """The prediction ŷ.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    activations.find(activation)
    with precision(check(params, x, h0=h0)):
        prediction: Array = _predict(params, x, h0, activation)
    return prediction


def value_and_grad(
    params: P,
    x: Float[Array, "T B D"],
    y: Float[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
) -> tuple[Float[Array, ""], P]:
    """The loss and its gradients with respect to the parameters, in a pytree like theirs.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    activations.find(activation)
    losses.find(loss)
    with precision(check(params, x, y, h0)):
        answer: tuple[Array, P] = _value_and_grad(params, x, y, h0, activation, loss)
    return answer


def derivatives(
    params: Parameters,
    x: Float[Array, "T B D"],
    y: Float[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
) -> Derivatives:
    """The loss and its gradient with respect to everything: parameters, x, h0 and every a_t.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    activations.find(activation)
    losses.find(loss)
    with precision(check(params, x, y, h0)):
        answer: Derivatives = _derivatives(params, x, y, h0, activation, loss)
    return answer


def adjoints(
    params: Parameters,
    x: Float[Array, "T B D"],
    y: Float[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
) -> Float[Array, "T B H"]:
    """δ_t = ∂L/∂a_t for every step. Raises as `value_and_grad`."""
    found = derivatives(params, x, y, h0, activation=activation, loss=loss)
    delta: Array = found.adjoints
    return delta
