"""The many-to-one GRU of `manual_bptt.gru`, compiled: the same recursion, arranged for XLA.

One array (T, B, 3H) holds U x_t, then the gates; beside it stand h_{t-1} of all steps and what the
reset gate meets or makes. The adjoints are arrays of their own: a loop that reads a step's gates
and writes its adjoints in their place has XLA copy all of them at every step. Source:
docs/derivation.md, sections 13 and 15.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from manual_bptt import inputs
from manual_bptt.gru import GATES, RESETS, Params
from manual_bptt.jitted import step
from manual_bptt.jitted.step import Found, Model, Weights, rows, zeros_unless_given


class Trace(NamedTuple):
    """What the sweep forward leaves: r, z, n packed and h_{t-1} of all steps.

    `met` is W_n h_{t-1} + b_n where the reset gate acts after the product, else r ⊙ h_{t-1}.
    """

    gates: Float[Array, "T B 3H"]
    met: Float[Array, "T B H"]
    before: Float[Array, "T B H"]


def parts(array: Float[Array, "3H K"]) -> tuple[Float[Array, "2H K"], Float[Array, "H K"]]:
    """The rows of r and z, and those of n."""
    H = len(array) // GATES
    return array[: 2 * H], array[2 * H :]


def forward(
    weights: Weights,
    x: Float[Array, "T B D"],
    first: tuple[Any, ...],
    reset: str,
    turn: int,
) -> tuple[Float[Array, "B H"], Trace]:
    """h_T, and the trace for `backward`."""
    U, W, _, b, _, b_n = weights
    (T, B, _), H, W_T = x.shape, W.shape[1], W.T
    W_rz_T, W_n_T = (part.T for part in parts(W))
    a = (rows(x) @ U.T).reshape(T, B, -1)  # U x_t of all t at once

    def biased(product: Array) -> Array:
        return product if b_n is None else product + b_n

    start = zeros_unless_given(first, weights, x)

    def state(h: Array, a_t: Array) -> tuple[Array, Array, Array]:
        a_t = a_t if b is None else a_t + b
        of_h = h @ (W_T if reset == "after" else W_rz_T)  # (Q9)  W h_{t-1} of all gates at once
        rz = jax.nn.sigmoid(a_t[:, : 2 * H] + of_h[:, : 2 * H])  # (G1), (G2)
        r, z = jnp.split(rz, 2, axis=-1)
        if reset == "after":
            met = biased(of_h[:, 2 * H :])
            candidate = r * met
        else:
            met = r * h
            candidate = biased(met @ W_n_T)
        n = jnp.tanh(a_t[:, 2 * H :] + candidate)  # (G3), (G4)
        packed = jnp.concatenate([rz, n], axis=-1)
        return (1 - z) * n + z * h, packed, met  # (G5)

    def advance_on_gpu(h: Array, a_t: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        h_t, packed, met = state(h, a_t)
        return h_t, (packed, met, h)

    if turn > 1:
        (h,) = start
        h_T, kept = lax.scan(advance_on_gpu, h, a, unroll=turn)
        return h_T, Trace(*kept)

    def advance(carry: Any, t: Array) -> tuple[Any, tuple[Array, Array]]:
        h, gates = carry
        h_t, packed, met = state(h, lax.dynamic_index_in_dim(gates, t, keepdims=False))
        return (h_t, lax.dynamic_update_index_in_dim(gates, packed, t, 0)), (met, h)

    (h_T, gates), (met, before) = lax.scan(advance, (*start, a), jnp.arange(T))
    return h_T, Trace(gates, met, before)


def backward(
    weights: Weights,
    x: Float[Array, "T B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    reset: str,
    turn: int,
) -> Found:
    """All gradients from ∂L/∂h_T."""
    U, W, *_ = weights
    (U_rz, U_n), (W_rz, W_n), H = parts(U), parts(W), W.shape[1]

    def retreat(dh: Array, at: Trace) -> tuple[Array, tuple[Array, Array]]:
        r, z, n = jnp.split(at.gates, GATES, axis=-1)
        delta_n = dh * (1 - z) * (1 - n * n)  # (G6)
        delta_z = dh * (at.before - n) * (z * (1 - z))  # (G7)
        if reset == "after":
            delta_r = delta_n * at.met * (r * (1 - r))  # (G8)
            delta = jnp.concatenate([delta_r, delta_z, r * delta_n], axis=-1)
            return dh * z + delta @ W, (delta, delta_n)  # (G12), (Q10)
        delta_met = delta_n @ W_n  # W_nᵀ δ_n
        delta_r = delta_met * at.before * (r * (1 - r))  # (G10)
        delta = jnp.concatenate([delta_r, delta_z], axis=-1)
        return dh * z + delta @ W_rz + r * delta_met, (delta, delta_n)  # (G12), (G11)

    dh0, adjoints = lax.scan(retreat, dh, trace, reverse=True, unroll=turn)
    delta, delta_n = (rows(adjoint) for adjoint in adjoints)
    delta_rz, before, X_T = delta[:, : 2 * H], rows(trace.before), rows(x).T
    if reset == "after":
        dW, db_n = delta.T @ before, delta[:, 2 * H :].sum(axis=0)  # (G13), (G14), (Q10)
    else:
        dW = jnp.concatenate([delta_rz.T @ before, delta_n.T @ rows(trace.met)])  # (G13), (G14)
        db_n = delta_n.sum(axis=0)
    return Found(
        U=jnp.concatenate([(X_T @ delta_rz).T, (X_T @ delta_n).T]),  # (G15)  Σ_t δ_t x_tᵀ
        W=dW,
        b=jnp.concatenate([delta_rz.sum(axis=0), delta_n.sum(axis=0)]),  # (G16)  Σ_t δ_t
        x=(delta_rz @ U_rz + delta_n @ U_n).reshape(x.shape),  # (G17)  ∂L/∂x_t = Uᵀ δ_t
        first=(dh0,),
        b_n=db_n,  # (G18)
    )


def model_of(reset: str, loss: str) -> Model[Params]:
    """The model of these options. Raises TypeError or ValueError where `reset` is unknown."""
    inputs.name_among("reset", reset, RESETS)
    return Model(forward, backward, reset, loss, Params, GATES)


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
    return step.value_and_gradient(model, params, x, y, outputs, lengths, truncation, h0=h0)


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
    return step.value(model, params, x, y, outputs, lengths, truncation, h0=h0)
