"""The many-to-one LSTM of `manual_bptt.lstm`, compiled: the same recursion, arranged for XLA.

One array (T, B, 4H) holds U x_t, then the gates; beside it stand h_{t-1} and c_{t-1} of all steps.
The adjoints are an array of their own: a loop that reads a step's gates and writes its adjoints in
their place has XLA copy all of them at every step. Source: docs/derivation.md, sections 12 and 15.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from manual_bptt.jitted import step
from manual_bptt.jitted.step import Found, Model, Weights, rows, zeros_unless_given
from manual_bptt.lstm import GATES, Params


class Trace(NamedTuple):
    """What the sweep forward leaves: i, f, g, o packed, h_{t-1}, c_{t-1}, and the last cell."""

    gates: Float[Array, "T B 4H"]
    h_before: Float[Array, "T B H"]
    c_before: Float[Array, "T B H"]
    reached: Float[Array, "B H"]


def forward(
    weights: Weights,
    x: Float[Array, "T B D"],
    first: tuple[Any, ...],
    option: None,
    turn: int,
) -> tuple[Float[Array, "B H"], Trace]:
    """h_T, and the trace for `backward`."""
    U, W, _, b, *_ = weights
    (T, B, _), W_T = x.shape, W.T
    a = (rows(x) @ U.T).reshape(T, B, -1)  # U x_t of all t at once
    start = zeros_unless_given(first, weights, x)

    def state(h: Array, c: Array, a_t: Array) -> tuple[Array, Array, Array]:
        a_t = a_t + h @ W_T
        a_t = a_t if b is None else a_t + b
        a_i, a_f, a_g, a_o = jnp.split(a_t, GATES, axis=-1)  # (S1)
        i, f, o = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f), jax.nn.sigmoid(a_o)  # (S2)
        g = jnp.tanh(a_g)  # (S2)
        packed = jnp.concatenate([i, f, g, o], axis=-1)
        c_t = f * c + i * g  # (S3)
        return o * jnp.tanh(c_t), c_t, packed  # (S4)  h_t = o ⊙ tanh(c_t)

    def advance_on_gpu(carry: Any, a_t: Array) -> tuple[Any, tuple[Array, Array, Array]]:
        h, c = carry
        h_t, c_t, packed = state(h, c, a_t)
        return (h_t, c_t), (packed, h, c)

    if turn > 1:
        (h_T, c_T), kept = lax.scan(advance_on_gpu, start, a, unroll=turn)
        return h_T, Trace(*kept, c_T)

    def advance(carry: Any, t: Array) -> tuple[Any, tuple[Array, Array]]:
        h, c, gates = carry
        h_t, c_t, packed = state(h, c, lax.dynamic_index_in_dim(gates, t, keepdims=False))
        return (h_t, c_t, lax.dynamic_update_index_in_dim(gates, packed, t, 0)), (h, c)

    (h_T, c_T, gates), (h_before, c_before) = lax.scan(advance, (*start, a), jnp.arange(T))
    return h_T, Trace(gates, h_before, c_before, c_T)


def backward(
    weights: Weights,
    x: Float[Array, "T B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    option: None,
    turn: int,
) -> Found:
    """All gradients from ∂L/∂h_T."""
    U, W, *_ = weights

    def retreat(carry: Any, at: tuple[Array, Array]) -> tuple[Any, Array]:
        (dh, dc, c_t), (gates, c) = carry, at
        i, f, g, o = jnp.split(gates, GATES, axis=-1)
        tanh_c = jnp.tanh(c_t)
        dc_t = dc + dh * o * (1 - tanh_c * tanh_c)  # (S5)  ∂L/∂c_t, both paths
        delta = jnp.concatenate(
            [
                dc_t * g * (i * (1 - i)),  # (S6)
                dc_t * c * (f * (1 - f)),  # (S7)
                dc_t * i * (1 - g * g),  # (S8)
                dh * tanh_c * (o * (1 - o)),  # (S9)
            ],
            axis=-1,
        )
        return (delta @ W, dc_t * f, c), delta  # (S11), (S10)

    start = dh, jnp.zeros_like(dh), trace.reached
    steps = trace.gates, trace.c_before
    (dh0, dc0, _), adjoints = lax.scan(retreat, start, steps, reverse=True, unroll=turn)
    delta = rows(adjoints)
    return Found(
        U=(rows(x).T @ delta).T,  # (S12)  Σ_t δ_t x_tᵀ
        W=delta.T @ rows(trace.h_before),  # (S13)  Σ_t δ_t h_{t-1}ᵀ
        b=delta.sum(axis=0),  # (S14)  Σ_t δ_t
        x=adjoints @ U,  # (S15)  ∂L/∂x_t = Uᵀ δ_t
        first=(dh0, dc0),
    )


def value_and_grad(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    c0: Float[Array, "B H"] | None = None,
    *,
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
    model = Model(forward, backward, None, loss, Params, GATES)
    return step.value_and_gradient(model, params, x, y, outputs, lengths, truncation, h0=h0, c0=c0)


def loss(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    c0: Float[Array, "B H"] | None = None,
    *,
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Float[Array, ""]:
    """The loss, as a function that `jax.grad` takes and that `jax.jit` and `jax.vmap` compose with.

    Its gradient, with respect to the parameters, x, y and the first state, is the one derived by
    hand. Options and what is raised as in `value_and_grad`.
    """
    model = Model(forward, backward, None, loss, Params, GATES)
    return step.value(model, params, x, y, outputs, lengths, truncation, h0=h0, c0=c0)
