"""The many-to-one GRU of `manual_bptt.gru`, compiled: the same recursion, arranged for XLA.

One array (T, B, 3H) holds U x_t, then the gates, then the adjoints; beside it stand h_{t-1} of all
steps, and one array (T, B, H) of what r meets in the candidate, which becomes what W_n met or its
adjoint. Source: docs/derivation.md, sections 13 and 15.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from manual_bptt import inputs
from manual_bptt.gru import GATES, RESETS, Params
from manual_bptt.jitted.step import (
    Found,
    Model,
    Weights,
    arguments,
    rows,
    value,
    value_and_gradient,
    zeros_unless_given,
)


class Trace(NamedTuple):
    """What the sweep forward leaves: r, z, n packed and h_{t-1} of all steps.

    `met` is W_n h_{t-1} + b_n where the reset gate acts after the product, else r ⊙ h_{t-1}.
    """

    gates: Float[Array, "T B 3H"]
    met: Float[Array, "T B H"]
    before: Float[Array, "T B H"]


def halves(W: Float[Array, "3H H"]) -> tuple[Float[Array, "2H H"], Float[Array, "H H"]]:
    """The rows of r and z, and those of n."""
    H = len(W) // GATES
    return W[: 2 * H], W[2 * H :]


def forward(
    weights: Weights, x: Float[Array, "T B D"], first: tuple[Any, ...], reset: str
) -> tuple[Float[Array, "B H"], Trace]:
    """h_T, and the trace for `backward`."""
    U, W, _, b, _, b_n = weights
    (T, B, _), H = x.shape, W.shape[1]
    W_rz_T, W_n_T = (part.T for part in halves(W))
    a = (rows(x) @ U.T).reshape(T, B, -1)  # U x_t of all t at once
    if b is not None:
        a = a + b

    start = zeros_unless_given(first, weights, x)

    def advance(carry: Any, t: Array) -> tuple[Any, tuple[Array, Array]]:
        h, gates = carry
        a_t = lax.dynamic_index_in_dim(gates, t, keepdims=False)
        rz = jax.nn.sigmoid(a_t[:, : 2 * H] + h @ W_rz_T)  # (G1), (G2)
        r, z = jnp.split(rz, 2, axis=-1)
        candidate = (h if reset == "after" else r * h) @ W_n_T
        if b_n is not None:
            candidate = candidate + b_n
        met = candidate if reset == "after" else r * h
        n = jnp.tanh(a_t[:, 2 * H :] + (r * met if reset == "after" else candidate))  # (G3), (G4)
        packed = jnp.concatenate([rz, n], axis=-1)
        gates = lax.dynamic_update_index_in_dim(gates, packed, t, 0)
        return ((1 - z) * n + z * h, gates), (met, h)  # (G5)

    (h_T, gates), (met, before) = lax.scan(advance, (*start, a), jnp.arange(T))
    return h_T, Trace(gates, met, before)


def backward(
    weights: Weights, x: Float[Array, "T B D"], trace: Trace, dh: Float[Array, "B H"], reset: str
) -> Found:
    """All gradients from ∂L/∂h_T."""
    U, W, *_ = weights
    W_rz, W_n = halves(W)
    H = W.shape[1]

    def retreat(carry: Any, at: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        (dh, packed), (t, h, met) = carry, at
        gates = lax.dynamic_index_in_dim(packed, t, keepdims=False)
        r, z, n = jnp.split(gates, GATES, axis=-1)
        delta_n = dh * (1 - z) * (1 - n * n)  # (G6)
        delta_z = dh * (h - n) * (z * (1 - z))  # (G7)
        if reset == "after":
            delta_met = r * delta_n
            delta_r = delta_n * met * (r * (1 - r))  # (G8)
            through_n = delta_met @ W_n  # (G9)  W_nᵀ (r ⊙ δ_n)
        else:
            delta_met = delta_n @ W_n
            delta_r = delta_met * h * (r * (1 - r))  # (G10)
            through_n = r * delta_met  # (G11)  r ⊙ W_nᵀ δ_n
        delta_rz = jnp.concatenate([delta_r, delta_z], axis=-1)
        delta = jnp.concatenate([delta_rz, delta_n], axis=-1)
        packed = lax.dynamic_update_index_in_dim(packed, delta, t, 0)
        return (dh * z + delta_rz @ W_rz + through_n, packed), delta_met  # (G12)  ∂L/∂h_{t-1}

    steps = jnp.arange(len(x)), trace.before, trace.met
    (dh0, adjoints), delta_met = lax.scan(retreat, (dh, trace.gates), steps, reverse=True)
    delta, before = rows(adjoints), rows(trace.before)
    if reset == "after":
        left, right = rows(delta_met), before  # W_n met h_{t-1}, and r came after
    else:
        left, right = delta[:, 2 * H :], rows(trace.met)
    dW_rz = delta[:, : 2 * H].T @ before  # (G13)  Σ_t δ_t h_{t-1}ᵀ
    return Found(
        U=(rows(x).T @ delta).T,  # (G15)  Σ_t δ_t x_tᵀ
        W=jnp.concatenate([dW_rz, left.T @ right]),  # (G14)
        b=delta.sum(axis=0),  # (G16)  Σ_t δ_t
        x=adjoints @ U,  # (G17)  ∂L/∂x_t = Uᵀ δ_t
        first=(dh0,),
        b_n=left.sum(axis=0),  # (G18)
    )


def model_of(reset: str, loss: str) -> Model:
    """The model of these options. Raises TypeError or ValueError where `reset` is unknown."""
    inputs.name_among("reset", reset, RESETS)
    return Model(forward, backward, reset, loss)


def value_and_grad(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Float[Array, ""], Params]:
    """The loss and its gradients with respect to the parameters, in their own tuple.

    The arguments may be NumPy's or JAX's arrays, and traced. Values are not looked at: NaN and
    infinity go through. `outputs`, `lengths` and `truncation` are those of the readable twin, and
    only their defaults are known.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model = model_of(reset, loss)
    given = arguments(
        params, x, y, gates=GATES, loss=loss, states={"h0": h0}, outputs=outputs,
        lengths=lengths, truncation=truncation,
    )  # fmt: skip
    return value_and_gradient(model, given, Params)


def loss(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Float[Array, ""]:
    """The loss, as a function that `jax.grad` takes and that `jax.jit` and `jax.vmap` compose with.

    Its gradient, with respect to the parameters, x, y and the first state, is the one derived by
    hand. Options and what is raised as in `value_and_grad`.
    """
    model = model_of(reset, loss)
    given = arguments(
        params, x, y, gates=GATES, loss=loss, states={"h0": h0}, outputs=outputs,
        lengths=lengths, truncation=truncation,
    )  # fmt: skip
    return value(model, given)
