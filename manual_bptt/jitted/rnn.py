"""The many-to-one RNN of `manual_bptt.rnn`, compiled: the same recursion, arranged for XLA.

The sweep forward keeps the state *before* each step, so that ∂L/∂W is one product of two whole
arrays, and the sweep back lays the adjoints out as (H, TB), the way that this product reads them,
where U x_t was. These two arrays are all that grows with T. Source: docs/derivation.md, sections 4
and 15.
"""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from manual_bptt import inputs
from manual_bptt.jitted import step
from manual_bptt.jitted.sequences import Course, add_entering, at_work, counted, passing
from manual_bptt.jitted.step import (
    Found,
    Model,
    Weights,
    rows,
    step_of,
    with_step,
    zeros_unless_given,
)
from manual_bptt.rnn import Params

FEW = 4  # steps up to which a loop costs more than products of single steps
LARGE = 2**14  # numbers in δ_t from which one turn of the loop back does several steps
TOGETHER = 4  # so many
TURN = 50  # steps in one turn of a loop on a GPU, as measured in docs/performance_log.md


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
    """What a sweep forward leaves: h_{t-1} of its steps, its last state, and room for the adjoints.

    Where there are few steps, `before` is a list, whose first is None for zeros, and no room is
    needed. Else it is the array of U x_t, which nothing reads any more.
    """

    before: Any
    reached: Float[Array, "B H"]
    room: Any = None


def few_steps(
    weights: Weights, x: Float[Array, "n B D"], h: Float[Array, "B H"] | None, activation: str
) -> Trace:
    """The states of n steps after h, or after zeros, written out."""
    U, W, _, b, *_ = weights
    before: list[Any] = []
    reached: Any = h
    for x_t in x:
        before.append(reached)
        a_t = x_t @ U.T  # (F1)  U x_t + W h_{t-1} + b
        if reached is not None:
            a_t = a_t + reached @ W.T
        reached = ACTIVATIONS[activation].function(a_t if b is None else a_t + b)  # (F2)  φ(a_t)
    return Trace(before, reached)


def few_steps_back(
    weights: Weights,
    x: Float[Array, "n B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    activation: str,
) -> Found:
    """The gradients that n steps, written out, make of the one with respect to their last state."""
    U, W, *_ = weights
    adjoints: list[Array] = []
    for h in reversed([*trace.before[1:], trace.reached]):
        adjoints.insert(0, dh * ACTIVATIONS[activation].slope(h))  # (B2)  ∂L/∂h_t ⊙ φ′(a_t)
        dh = adjoints[0] @ W  # (B3)  Wᵀ δ_t
    after = [(d, h) for d, h in zip(adjoints, trace.before, strict=True) if h is not None]
    return Found(
        U=reduce(add, [d.T @ x_t for d, x_t in zip(adjoints, x, strict=True)]),  # (B4)  Σ δ_t x_tᵀ
        W=reduce(add, [d.T @ h for d, h in after], jnp.zeros_like(W)),  # (B5)  Σ_t δ_t h_{t-1}ᵀ
        b=reduce(add, [d.sum(axis=0) for d in adjoints]),  # (B7)  Σ_t δ_t
        x=jnp.stack(adjoints) @ U,  # (B9)  Uᵀ δ_t
        first=(dh,),
    )


def in_long_turns(
    weights: Weights,
    x: Float[Array, "n B D"],
    h: Float[Array, "B H"] | None,
    activation: str,
    turn: int,
    course: Course,
) -> Trace:
    """The states of n steps after h, or after zeros, for a GPU, and for any course.

    On a GPU starting an operation costs more than the operation. Long turns let XLA start those of
    many steps together; where an array lies in memory matters less than on a CPU.
    """
    U, W, _, b, *_ = weights
    phi, (n, B, _), W_T = ACTIVATIONS[activation].function, x.shape, W.T
    (h,) = zeros_unless_given((h,), weights, x)
    a = (rows(x) @ U.T).reshape(n, B, -1)  # (Q2)  U x_t of all t at once

    def advance(h: Array, at: Any) -> tuple[Array, Array]:
        a_t, works = at
        a_t = a_t + h @ W_T  # (F1)  U x_t + W h_{t-1} + b
        h_t = phi(a_t if b is None else a_t + b)  # (F2)  φ(a_t)
        return at_work(works, h_t, h), h  # (M1)

    reached, before = lax.scan(advance, h, (a, counted(course, n)), unroll=turn)
    return Trace(before, reached)


def in_long_turns_back(
    weights: Weights,
    x: Float[Array, "n B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    activation: str,
    turn: int,
    course: Course,
    entering: Float[Array, "n B H"] | None,
) -> Found:
    """The gradients of these steps from those with respect to their states, as `in_long_turns`."""
    U, W, *_ = weights
    slope = ACTIVATIONS[activation].slope

    def retreat(carry: Any, at: Any) -> tuple[Any, Array]:
        (dh, h), (before, entering, works, passes) = carry, at
        dh = add_entering(dh, entering)
        delta = at_work(works, dh * slope(h), 0)  # (B2), (M2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        on = at_work(works, delta @ W, dh)  # (B3), (M2)  ∂L/∂h_{t-1} = Wᵀ δ_t
        return (at_work(passes, on, 0), before), delta  # (K1)

    start = dh, trace.reached
    steps = trace.before, entering, counted(course, len(x)), passing(course, len(x))
    (dh, _), adjoints = lax.scan(retreat, start, steps, reverse=True, unroll=turn)
    delta = rows(adjoints)
    return Found(
        U=delta.T @ rows(x),  # (Q3)  Σ_t δ_t x_tᵀ
        W=delta.T @ rows(trace.before),  # (Q4)  Σ_t δ_t h_{t-1}ᵀ
        b=delta.sum(axis=0),  # (B7)  Σ_t δ_t
        x=adjoints @ U,  # (B9)  ∂L/∂x_t = Uᵀ δ_t
        first=(dh,),
    )


def sweep_forward(
    weights: Weights,
    x: Float[Array, "n B D"],
    h: Float[Array, "B H"] | None,
    activation: str,
    turn: int,
) -> Trace:
    """The states of n steps after h, or after zeros, which cost no product."""
    if len(x) <= FEW:
        return few_steps(weights, x, h, activation)
    if turn > 1:
        return in_long_turns(weights, x, h, activation, turn, Course())
    U, W, _, b, *_ = weights
    phi, (n, B, _), W_T = ACTIVATIONS[activation].function, x.shape, W.T
    a = (rows(x) @ U.T).reshape(n, B, -1)  # (Q2)  U x_t of all t at once

    def state(h: Array | None, a_t: Array) -> Array:
        a_t = a_t if h is None else a_t + h @ W_T  # (F1)  U x_t + W h_{t-1} + b
        return phi(a_t if b is None else a_t + b)  # (F2)  φ(a_t)

    def advance(carry: Any, t: Array) -> tuple[Any, None]:
        h, before = carry
        # t > 0. But with one more array to read, XLA shares this among cores from B H = 2¹⁵ on. It
        # depends on t, or JAX would carry that part through the loop where it differentiates it.
        h = state(h, jnp.where(t == 0, step_of(0 * t, a), step_of(t, a)))
        return (h, with_step(t + 1, before, h)), None

    before = jnp.zeros_like(a) if h is None else with_step(0, jnp.zeros_like(a), h)
    reached = state(h, a[0])
    # The last state has no place among those before a step, and is computed after the loop.
    start = reached, with_step(1, before, reached)
    (h, before), _ = lax.scan(advance, start, jnp.arange(1, n - 1))
    return Trace(before, state(h, a[n - 1]), room=a)


def sweep_back(
    weights: Weights,
    x: Float[Array, "n B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    activation: str,
    turn: int,
) -> Found:
    """The gradients that these steps make of the one with respect to their last state."""
    if len(x) <= FEW:
        return few_steps_back(weights, x, trace, dh, activation)
    if turn > 1:
        return in_long_turns_back(weights, x, trace, dh, activation, turn, Course(), None)
    U, W, *_ = weights
    slope, (n, B, _), H = ACTIVATIONS[activation].slope, x.shape, len(W)

    def retreat(carry: Any, t: Array) -> tuple[Any, None]:
        dh, adjoints = carry
        # Carrying h from step to step instead would copy it; the index is clamped.
        h = jnp.where(t == n - 1, trace.reached, step_of(t + 1, trace.before))
        delta = dh * slope(h)  # (B2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        adjoints = lax.dynamic_update_slice(adjoints, delta.T, (0, t * B))
        return (delta @ W, adjoints), None  # (B3)  ∂L/∂h_{t-1} = Wᵀ δ_t

    # The operations of a loop are done one after the other where they are few. Where they are more,
    # XLA lays δ_t out, which takes one core, while it multiplies by W.
    together = TOGETHER if B * H >= LARGE else 1
    start = dh, trace.room.reshape(H, n * B)  # every number is written over
    (dh, adjoints), _ = lax.scan(retreat, start, jnp.arange(n), reverse=True, unroll=together)
    return Found(
        U=adjoints @ rows(x),  # (Q3)  Σ_t δ_t x_tᵀ
        W=adjoints @ rows(trace.before),  # (Q4)  Σ_t δ_t h_{t-1}ᵀ
        b=adjoints.sum(axis=1),  # (B7)  Σ_t δ_t
        x=(adjoints.T @ U).reshape(x.shape),  # (B9)  ∂L/∂x_t = Uᵀ δ_t
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
    weights: Weights,
    x: Float[Array, "T B D"],
    first: tuple[Any, ...],
    option: Option,
    turn: int,
    course: Course,
) -> tuple[Float[Array, "B H"], tuple[Any, Trace]]:
    """h_T, the states where the segments before the last one start, and the last one's trace."""
    if not course.plain:
        trace = in_long_turns(weights, x, first[0], option.activation, turn, course)
        return trace.reached, (None, trace)
    k, before_last = segments(x, option)

    def advance(h: Array, j: Array) -> tuple[Array, Array]:
        return sweep_forward(weights, segment(x, j, k), h, option.activation, turn).reached, h

    (h,), starts = first, None
    if before_last:
        (h,) = zeros_unless_given(first, weights, x)
        h, starts = lax.scan(advance, h, jnp.arange(before_last))
    trace = sweep_forward(weights, x[before_last * k :], h, option.activation, turn)
    return trace.reached, (starts, trace)


def backward(
    weights: Weights,
    x: Float[Array, "T B D"],
    kept: tuple[Any, Trace],
    dh: Float[Array, "B H"],
    option: Option,
    turn: int,
    course: Course,
    entering: Float[Array, "T B H"] | None,
) -> Found:
    """All gradients from ∂L/∂h_T, or from what enters each state beside it."""
    starts, trace = kept
    if not course.plain:
        return in_long_turns_back(weights, x, trace, dh, option.activation, turn, course, entering)
    k, before_last = segments(x, option)
    found = sweep_back(weights, x[before_last * k :], trace, dh, option.activation, turn)
    if not before_last:
        return found

    def retreat(carry: Any, at: tuple[Array, Array]) -> tuple[Any, Array]:
        (dh, U, W, b), (j, start) = carry, at
        part = segment(x, j, k)
        trace = sweep_forward(weights, part, start, option.activation, turn)  # (Q5)  h_t once more
        more = sweep_back(weights, part, trace, dh, option.activation, turn)
        return (*more.first, U + more.U, W + more.W, b + more.b), more.x  # (Q6)  over the segments

    (dh, U, W, b), dx = lax.scan(
        retreat,
        (*found.first, found.U, found.W, found.b),
        (jnp.arange(before_last), starts),
        reverse=True,
    )
    dx = jnp.concatenate([dx.reshape(before_last * k, *x.shape[1:]), found.x])
    return Found(U, W, b, dx, (dh,))


def states_before(kept: tuple[Any, Trace]) -> Float[Array, "T B H"]:
    """h_{t-1} of all steps, for outputs at every step."""
    before: Array = kept[1].before
    return before


def model_of(
    activation: str,
    loss: str,
    checkpoint_every: int | None,
    outputs: str,
    lengths: Any,
    truncation: int | None,
) -> Model[Params]:
    """The model of these options. Raises TypeError or ValueError naming the one that is unknown."""
    inputs.name_among("activation", activation, tuple(ACTIVATIONS))
    if checkpoint_every is not None:
        inputs.require_at_least(1, "checkpoint_every", checkpoint_every)
        if outputs != "last" or lengths is not None or truncation is not None:
            raise ValueError(
                f"checkpoint_every: expected None with outputs='every', lengths or truncation, "
                f"found {checkpoint_every}"
            )
    option = Option(activation, checkpoint_every)
    return Model(forward, backward, option, loss, Params, states_before, turn=TURN)


def value_and_grad(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
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
    `lengths` and `truncation` are those of the readable twin; all states are kept with them.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model = model_of(activation, loss, checkpoint_every, outputs, lengths, truncation)
    return step.value_and_gradient(model, params, x, y, outputs, lengths, truncation, h0=h0)


def loss(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
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

    Its gradient, with respect to the parameters, x, y and h0, is the one derived by hand. Forward
    mode, as in `jax.jvp`, is the product of that gradient with the direction, and `jax.hessian` is
    JAX's derivative of the hand-derived gradient. Options and what is raised as in
    `value_and_grad`.
    """
    model = model_of(activation, loss, checkpoint_every, outputs, lengths, truncation)
    return step.value(model, params, x, y, outputs, lengths, truncation, h0=h0)


def layer(
    params: Params,
    x: Float[Array, "T B D"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: str = "tanh",
    lengths: Int[Array, " B"] | None = None,
) -> Float[Array, "T B H"]:
    """The bare layer: all states h_t (T, B, H), as a function that `jax.grad` takes.

    Its gradient, from ∂L/∂h_t as they enter each state from outside, is the one derived by hand;
    it is zero for V and c, which are no part of the layer. States in the padding stay as they are.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model = model_of(activation, "mse", None, "every", lengths, None)
    return step.layer(model, params, x, lengths, h0=h0)
