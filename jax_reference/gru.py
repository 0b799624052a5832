"""The many-to-one GRU, forward only. JAX computes every gradient.

    r_t, z_t = σ of the first two blocks of a_t,    n_t = tanh of the third,
    h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t-1},    ŷ = V h_T (+ c)

The gates' rows are packed in PyTorch's order. The reset gate acts after the product with W_n, as in
PyTorch, r ⊙ (W_n h + b_n), or before it, as in the original paper, W_n (r ⊙ h) + b_n. Source: Cho
et al. 2014.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Shaped

from jax_reference import losses, unrolled
from jax_reference.inputs import Parameters, arguments, precision, require_name, require_truncation
from jax_reference.unrolled import Derivatives, Model, State

P = TypeVar("P", bound=Parameters)
GATES = 3
FIELDS = ("U", "W", "V", "b", "c", "b_n")
RESETS = ("after", "before")


def step(
    params: Any, state: State, x_t: Array, perturbation: Array, reset: str
) -> tuple[Array, State]:
    """One step, with ε_t added to the a_t of all gates."""
    (h,) = state
    W_r, W_z, W_n = jnp.split(params.W, GATES)
    a_r, a_z, a_n = jnp.split(x_t @ params.U.T + perturbation, GATES, axis=-1)
    if params.b is not None:
        b_r, b_z, b_in = jnp.split(params.b, GATES)
        a_r, a_z, a_n = a_r + b_r, a_z + b_z, a_n + b_in
    a_r, a_z = a_r + h @ W_r.T, a_z + h @ W_z.T
    r, z = jax.nn.sigmoid(a_r), jax.nn.sigmoid(a_z)
    recurrent = (h if reset == "after" else r * h) @ W_n.T
    if params.b_n is not None:
        recurrent = recurrent + params.b_n
    a_n = a_n + (r * recurrent if reset == "after" else recurrent)
    h = (1 - z) * jnp.tanh(a_n) + z * h
    return jnp.concatenate([a_r, a_z, a_n], axis=-1), (h,)


def predict(
    params: Parameters,
    x: Float[Array, "T B D"],
    h0: Float[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> Float[Array, "*T B O"]:
    """The prediction ŷ, (B, O), or (T, B, O) for outputs="every".

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    require_name("reset", reset, RESETS)
    given = arguments(
        params, x, h0=h0, gates=GATES, fields=FIELDS, outputs=outputs, lengths=lengths
    )
    model = Model(step, reset, outputs=outputs)
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
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Float[Array, ""], P]:
    """The loss and its gradients with respect to the parameters, in the same pytree structure.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    require_name("reset", reset, RESETS)
    losses.find(loss)
    require_truncation(truncation, outputs)
    given = arguments(
        params, x, y, h0=h0, gates=GATES, fields=FIELDS, loss=loss, outputs=outputs, lengths=lengths
    )
    model = Model(step, reset, loss, outputs)
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
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Derivatives:
    """The loss and its gradient with respect to everything: parameters, x, h0 and every a_t.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    require_name("reset", reset, RESETS)
    losses.find(loss)
    require_truncation(truncation, outputs)
    given = arguments(
        params, x, y, h0=h0, gates=GATES, fields=FIELDS, loss=loss, outputs=outputs, lengths=lengths
    )
    model = Model(step, reset, loss, outputs)
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
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Float[Array, "T B 3H"]:
    """δ_t = ∂L/∂a_t for every step. Raises what `value_and_grad` raises."""
    delta: Array = derivatives(
        params, x, y, h0,
        reset=reset, loss=loss, outputs=outputs, lengths=lengths, truncation=truncation,
    ).adjoints  # fmt: skip
    return delta
