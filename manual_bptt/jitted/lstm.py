"""The many-to-one LSTM of `manual_bptt.lstm`, compiled: the same recursion, arranged for XLA.

One array (T, B, 4H) holds U x_t, then, as soon as a step's gates are known, all that the sweep back
multiplies by an adjoint, and at last the adjoints. Beside it stand three arrays (T, B, H): h_{t-1},
the forget gate, and the factor on the way from h_t to c_t. Source: docs/derivation.md, sections 12
and 15.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from manual_bptt.jitted import step
from manual_bptt.jitted.sequences import Course, add_entering, at_work, counted, passing
from manual_bptt.jitted.step import (
    Found,
    Model,
    Weights,
    apart,
    rows,
    step_of,
    with_step,
    zeros_unless_given,
)
from manual_bptt.lstm import GATES, Params


class Trace(NamedTuple):
    """What the sweep forward leaves.

    `factors` are what ∂L/∂c_t, or, for o, ∂L/∂h_t is multiplied by to give δ_t, packed as the
    gates; `of_cell` is what ∂L/∂h_t is multiplied by on its way to c_t; `f` is the forget gate.
    """

    factors: Float[Array, "T B 4H"]
    of_cell: Float[Array, "T B H"]
    f: Float[Array, "T B H"]
    h_before: Float[Array, "T B H"]


def forward(
    weights: Weights,
    x: Float[Array, "T B D"],
    first: tuple[Any, ...],
    option: None,
    turn: int,
    course: Course,
) -> tuple[Float[Array, "B H"], Trace]:
    """h_T, and the trace for `backward`."""
    U, W, _, b, *_ = weights
    (T, B, _), W_T = x.shape, W.T
    a = (rows(x) @ U.T).reshape(T, B, -1)  # U x_t of all t at once
    start, works = zeros_unless_given(first, weights, x), counted(course, T)

    def state(h: Array, c: Array, a_t: Array, works: Array | None) -> tuple[Array, Array, Any]:
        a_t = a_t + h @ W_T
        a_t = a_t if b is None else a_t + b
        a_i, a_f, a_g, a_o = jnp.split(a_t, GATES, axis=-1)  # (S1)
        i, f, o = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f), jax.nn.sigmoid(a_o)  # (S2)
        g = jnp.tanh(a_g)  # (S2)
        c_t = f * c + i * g  # (S3)
        tanh_c = jnp.tanh(c_t)
        h_t = o * tanh_c  # (S4)  o ⊙ tanh(c_t)
        factors = jnp.concatenate(
            [
                i * g * (1 - i),  # (Q12)
                c * (f * (1 - f)),  # (S7)
                i * (1 - g * g),  # (Q12)
                h_t * (1 - o),  # (Q12)
            ],
            axis=-1,
        )
        left = at_work(works, factors, 0), at_work(works, o * (1 - tanh_c * tanh_c), 0)  # (Q11)
        kept = (*left, at_work(works, f, 1), h)
        return at_work(works, h_t, h), at_work(works, c_t, c), kept  # (M1)

    def advance_on_gpu(carry: Any, at: Any) -> tuple[Any, Any]:
        h, c, kept = state(*carry, *at)
        return (h, c), kept

    if turn > 1:
        (h_T, _), kept = lax.scan(advance_on_gpu, start, (a, works), unroll=turn)
        return h_T, Trace(*kept)

    def advance(carry: Any, at: Any) -> tuple[Any, Any]:
        (h, c, a), (t, works) = carry, at
        h, c, kept = state(h, c, step_of(t, a), works)
        return (h, c, with_step(t, a, kept[0])), kept[1:]

    (h_T, _, factors), others = lax.scan(advance, (*start, a), (jnp.arange(T), works))
    return h_T, Trace(factors, *others)


def backward(
    weights: Weights,
    x: Float[Array, "T B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    option: None,
    turn: int,
    course: Course,
    entering: Float[Array, "T B H"] | None,
) -> Found:
    """All gradients from ∂L/∂h_T, or from what enters each state beside it."""
    U, W, *_ = weights
    T = len(x)
    factors, of_cell, f, h_before = trace
    others = of_cell, f, entering, counted(course, T), passing(course, T)

    def adjoint(dh: Array, dc: Array, factors: Array, at: Any) -> tuple[Array, Array, Array]:
        of_cell, f, entering, works, passes = at
        dh = add_entering(dh, entering)
        dc_t = dc + dh * of_cell  # (S5)  ∂L/∂c_t, both paths
        delta = jnp.concatenate([dc_t, dc_t, dc_t, dh], axis=-1) * factors  # (S6) to (S9)
        before = at_work(works, delta @ W, dh)  # (S11), (M2)
        return at_work(passes, before, 0), at_work(passes, dc_t * f, 0), delta  # (S10), (K1)

    start = dh, jnp.zeros_like(dh)
    if apart(turn, x):

        def retreat_apart(carry: Any, at: Any) -> tuple[Any, Array]:
            dh, dc, delta = adjoint(carry[0], carry[1], at[0], at[1:])
            return (dh, dc), delta

        steps = factors, *others
        (dh0, dc0), adjoints = lax.scan(retreat_apart, start, steps, reverse=True, unroll=turn)
    else:

        def retreat(carry: Any, at: Any) -> tuple[Any, None]:
            (dh, dc, factors), (t, *others) = carry, at
            dh, dc, delta = adjoint(dh, dc, step_of(t, factors), others)
            return (dh, dc, with_step(t, factors, delta)), None

        carried, steps = (*start, factors), (jnp.arange(T), *others)
        (dh0, dc0, adjoints), _ = lax.scan(retreat, carried, steps, reverse=True)
    delta = rows(adjoints)
    return Found(
        U=(rows(x).T @ delta).T,  # (S12)  Σ_t δ_t x_tᵀ
        W=delta.T @ rows(h_before),  # (S13)  Σ_t δ_t h_{t-1}ᵀ
        b=delta.sum(axis=0),  # (S14)  Σ_t δ_t
        x=adjoints @ U,  # (S15)  ∂L/∂x_t = Uᵀ δ_t
        first=(dh0, dc0),
    )


def states_before(trace: Trace) -> Float[Array, "T B H"]:
    """h_{t-1} of all steps."""
    return trace.h_before


def model_of(loss: str) -> Model[Params]:
    """The model with this loss."""
    return Model(forward, backward, None, loss, Params, states_before, GATES)


def value_and_grad(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
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
    infinity go through. `outputs`, `lengths` and `truncation` are those of the readable twin.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model = model_of(loss)
    return step.value_and_gradient(model, params, x, y, outputs, lengths, truncation, h0=h0, c0=c0)


def loss(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
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
    model = model_of(loss)
    return step.value(model, params, x, y, outputs, lengths, truncation, h0=h0, c0=c0)


def layer(
    params: Params,
    x: Float[Array, "T B D"],
    h0: Float[Array, "B H"] | None = None,
    c0: Float[Array, "B H"] | None = None,
    *,
    lengths: Int[Array, " B"] | None = None,
) -> Float[Array, "T B H"]:
    """The bare layer: all states h_t (T, B, H), as a function that `jax.grad` takes.

    Its gradient, from ∂L/∂h_t as they enter each state from outside, is the one derived by hand;
    it is zero for V and c, which are no part of the layer. States in the padding stay as they are.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model = model_of("mse")
    return step.layer(model, params, x, lengths, h0=h0, c0=c0)
