"""The many-to-one RNN of `manual_bptt.rnn`, compiled: the same recursion, arranged for XLA.

The sweep forward emits the state *before* each step, so that ∂L/∂W is one product of two whole
arrays, and carries h_T out apart; the sweep back writes the adjoints over U x_t. These two arrays
(T, B, H) are all that grows with T. Source: docs/derivation.md, sections 4 and 15.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from manual_bptt import inputs
from manual_bptt.jitted.step import (
    Found,
    Model,
    Weights,
    arguments,
    rows,
    value,
    value_and_gradient,
)
from manual_bptt.rnn import Params


class Activation(NamedTuple):
    """φ, and φ′ as a function of h = φ(a)."""

    function: Callable[[Array], Array]
    slope: Callable[[Array], Array]


# fmt: off
ACTIVATIONS = {
    # name                  φ(a)               φ′(a), from h
    "tanh":     Activation(jnp.tanh,           lambda h: 1 - h * h),                # (Q1)
    "sigmoid":  Activation(jax.nn.sigmoid,     lambda h: h * (1 - h)),              # (Q1)
    "relu":     Activation(jax.nn.relu,        lambda h: (h > 0).astype(h.dtype)),  # (Q1)
    "identity": Activation(lambda a: a,        jnp.ones_like),                      # (Q1)
}
# fmt: on


class Option(NamedTuple):
    """The activation's name, and how many steps apart states are kept; None keeps all."""

    activation: str
    checkpoint_every: int | None


class Trace(NamedTuple):
    """What a sweep forward leaves: U x_t + b and h_{t-1} of its steps, and its last state."""

    a: Float[Array, "n B H"]
    before: Float[Array, "n B H"]
    reached: Float[Array, "B H"]


def sweep_forward(
    weights: Weights, x: Float[Array, "n B D"], h: Float[Array, "B H"], activation: str
) -> Trace:
    """The states of n steps after h."""
    U, W, _, b, *_ = weights
    phi, (n, B, _) = ACTIVATIONS[activation].function, x.shape
    W_T = W.T  # transposed once, not at every step
    a = (rows(x) @ U.T).reshape(n, B, -1)  # (Q2)  U x_t of all t at once
    if b is not None:
        a = a + b

    def advance(h: Array, a_t: Array) -> tuple[Array, Array]:
        return phi(a_t + h @ W_T), h  # (F1), (F2)  φ(U x_t + W h_{t-1} + b)

    reached, before = lax.scan(advance, h, a)
    return Trace(a, before, reached)


def sweep_back(
    weights: Weights,
    x: Float[Array, "n B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    activation: str,
) -> Found:
    """The gradients that these steps make of the one with respect to their last state."""
    U, W, *_ = weights
    slope = ACTIVATIONS[activation].slope

    def retreat(carry: Any, at: tuple[Array, Array]) -> tuple[Any, None]:
        (dh, h, adjoints), (t, before) = carry, at
        delta = dh * slope(h)  # (B2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        adjoints = lax.dynamic_update_index_in_dim(adjoints, delta, t, 0)
        return (delta @ W, before, adjoints), None  # (B3)  ∂L/∂h_{t-1} = Wᵀ δ_t

    # The adjoints are written over U x_t, which nobody needs any more.
    last = dh, trace.reached, trace.a
    (dh, _, adjoints), _ = lax.scan(retreat, last, (jnp.arange(len(x)), trace.before), reverse=True)
    delta = rows(adjoints)
    return Found(
        U=(rows(x).T @ delta).T,  # (Q3)  Σ_t δ_t x_tᵀ, in the order that XLA multiplies faster
        W=delta.T @ rows(trace.before),  # (Q4)  Σ_t δ_t h_{t-1}ᵀ
        b=delta.sum(axis=0),  # (B7)  Σ_t δ_t
        x=adjoints @ U,  # (B9)  ∂L/∂x_t = Uᵀ δ_t
        first=(dh,),
    )


def segments(x: Float[Array, "T B D"], option: Option) -> tuple[int, int]:
    """How many steps a segment has, and how many segments come before the last one."""
    k = min(option.checkpoint_every or len(x), len(x))
    return k, (len(x) - 1) // k


def segment(x: Float[Array, "T B D"], j: Array, k: int) -> Float[Array, "k B D"]:
    """The inputs of the j-th k steps."""
    return lax.dynamic_slice_in_dim(x, j * k, k)


def forward(
    weights: Weights, x: Float[Array, "T B D"], first: tuple[Array, ...], option: Option
) -> tuple[Float[Array, "B H"], tuple[Array, Trace]]:
    """h_T, the states where the segments before the last one start, and the last one's trace."""
    k, before_last = segments(x, option)

    def advance(h: Array, j: Array) -> tuple[Array, Array]:
        return sweep_forward(weights, segment(x, j, k), h, option.activation).reached, h

    h, starts = lax.scan(advance, first[0], jnp.arange(before_last))
    trace = sweep_forward(weights, x[before_last * k :], h, option.activation)
    return trace.reached, (starts, trace)


def backward(
    weights: Weights,
    x: Float[Array, "T B D"],
    kept: tuple[Array, Trace],
    dh: Float[Array, "B H"],
    option: Option,
) -> Found:
    """All gradients from ∂L/∂h_T."""
    starts, trace = kept
    k, before_last = segments(x, option)
    found = sweep_back(weights, x[before_last * k :], trace, dh, option.activation)
    if not before_last:
        return found

    def retreat(carry: Any, at: tuple[Array, Array]) -> tuple[Any, Array]:
        (dh, U, W, b), (j, start) = carry, at
        part = segment(x, j, k)
        trace = sweep_forward(weights, part, start, option.activation)  # (Q5)  h_t once more
        more = sweep_back(weights, part, trace, dh, option.activation)
        return (*more.first, U + more.U, W + more.W, b + more.b), more.x  # (Q6)  over the segments

    (dh, U, W, b), dx = lax.scan(
        retreat,
        (*found.first, found.U, found.W, found.b),
        (jnp.arange(before_last), starts),
        reverse=True,
    )
    dx = jnp.concatenate([dx.reshape(before_last * k, *x.shape[1:]), found.x])
    return Found(U, W, b, dx, (dh,))


def model_of(activation: str, loss: str, checkpoint_every: int | None) -> Model:
    """The model of these options. Raises TypeError or ValueError naming the one that is unknown."""
    inputs.name_among("activation", activation, tuple(ACTIVATIONS))
    if checkpoint_every is not None:
        inputs.require_positive("checkpoint_every", checkpoint_every)
    return Model(forward, backward, Option(activation, checkpoint_every), loss)


def value_and_grad(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: str = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
    checkpoint_every: int | None = None,
) -> tuple[Float[Array, ""], Params]:
    """The loss and its gradients with respect to the parameters, in their own tuple.

    The arguments may be NumPy's or JAX's arrays, and traced. Values are not looked at: NaN and
    infinity go through. With `checkpoint_every=k` the states are kept every k steps only, and those
    between are computed once more on the way back; about √T takes least memory. `outputs`,
    `lengths` and `truncation` are those of the readable twin, and only their defaults are known.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model = model_of(activation, loss, checkpoint_every)
    given = arguments(
        params, x, y, loss=loss, states={"h0": h0}, outputs=outputs, lengths=lengths,
        truncation=truncation,
    )  # fmt: skip
    return value_and_gradient(model, given, Params)


def loss(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: str = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
    checkpoint_every: int | None = None,
) -> Float[Array, ""]:
    """The loss, as a function that `jax.grad` takes and that `jax.jit` and `jax.vmap` compose with.

    Its gradient, with respect to the parameters, x, y and h0, is the one derived by hand. There is
    no forward mode. Options and what is raised as in `value_and_grad`.
    """
    model = model_of(activation, loss, checkpoint_every)
    given = arguments(
        params, x, y, loss=loss, states={"h0": h0}, outputs=outputs, lengths=lengths,
        truncation=truncation,
    )  # fmt: skip
    return value(model, given)
