"""The many-to-one GRU of `manual_bptt.gru`, compiled: the same recursion, arranged for XLA.

Two arrays, of r and z and of n, hold U x_t, then, as soon as a step's gates are known, all that the
sweep back multiplies by an adjoint, and at last the adjoints. Beside them stand three arrays
(T, B, H). Source: docs/derivation.md, sections 13 and 15.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from manual_bptt import inputs
from manual_bptt.gru import GATES, RESETS, Params
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


class Trace(NamedTuple):
    """What the sweep forward leaves, beside z and h_{t-1} of all steps.

    `of_rz` and `of_n` are what ∂L/∂h_t is multiplied by to give δ_r, δ_z and δ_n; where the reset
    gate acts before the product, r ⊙ W_nᵀ δ_n is multiplied to give δ_r. `r` is then the reset
    gate, and otherwise what ∂L/∂h_t is multiplied by to give r ⊙ δ_n.
    """

    of_rz: Any
    of_n: Any
    r: Float[Array, "T B H"]
    z: Float[Array, "T B H"]
    before: Float[Array, "T B H"]


def parts(array: Float[Array, "3H *K"]) -> tuple[Float[Array, "2H *K"], Float[Array, "H *K"]]:
    """The rows of r and z, and those of n."""
    H = len(array) // GATES
    return array[: 2 * H], array[2 * H :]


def forward(
    weights: Weights,
    x: Float[Array, "T B D"],
    first: tuple[Any, ...],
    reset: str,
    turn: int,
    course: Course,
) -> tuple[Float[Array, "B H"], Trace]:
    """h_T, and the trace for `backward`."""
    U, W, _, b, _, b_n = weights
    (T, B, _), H, W_T, after = x.shape, W.shape[1], W.T, reset == "after"
    W_rz_T, W_n_T = (part.T for part in parts(W))
    a = tuple((rows(x) @ part.T).reshape(T, B, -1) for part in parts(U))  # U x_t of all t at once
    (start,), works = zeros_unless_given(first, weights, x), counted(course, T)

    def state(h: Array, a: Any, works: Array | None) -> tuple[Array, Trace]:
        a_rz, a_n = a if b is None else (part + of for part, of in zip(a, parts(b), strict=True))
        of_h = h @ (W_T if after else W_rz_T)  # (Q9)  W h_{t-1} of all gates at once
        r, z = jnp.split(jax.nn.sigmoid(a_rz + of_h[:, : 2 * H]), 2, axis=-1)  # (G1), (G2)
        of_n = of_h[:, 2 * H :] if after else (r * h) @ W_n_T
        met = of_n if b_n is None else of_n + b_n
        n = jnp.tanh(a_n + (r * met if after else met))  # (G3), (G4)
        of_n = (1 - z) * (1 - n * n)  # (Q14)
        through = of_n * r  # (Q14)
        of_r = through * met * (1 - r) if after else h * (1 - r)  # (Q14), (Q16)
        of_z = (h - n) * (z * (1 - z))  # (Q15)
        kept = Trace(
            at_work(works, jnp.concatenate([of_r, of_z], axis=-1), 0),
            at_work(works, of_n, 0),
            at_work(works, through, 0) if after else r,
            at_work(works, z, 1),
            h,
        )
        return at_work(works, (1 - z) * n + z * h, h), kept  # (G5), (M1)

    if turn > 1:
        return lax.scan(lambda h, at: state(h, *at), start, (a, works), unroll=turn)

    def advance(carry: Any, at: Any) -> tuple[Any, Trace]:
        (h, a), (t, works) = carry, at
        h, kept = state(h, jax.tree.map(partial(step_of, t), a), works)
        a = jax.tree.map(partial(with_step, t), a, (kept.of_rz, kept.of_n))
        return (h, a), kept._replace(of_rz=None, of_n=None)

    (h_T, (of_rz, of_n)), others = lax.scan(advance, (start, a), (jnp.arange(T), works))
    return h_T, others._replace(of_rz=of_rz, of_n=of_n)


def backward(
    weights: Weights,
    x: Float[Array, "T B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    reset: str,
    turn: int,
    course: Course,
    entering: Float[Array, "T B H"] | None,
) -> Found:
    """All gradients from ∂L/∂h_T, or from what enters each state beside it."""
    U, W, *_ = weights
    (U_rz, U_n), (W_rz, W_n), T, after = parts(U), parts(W), len(x), reset == "after"
    written = trace.of_rz, trace.of_n, trace.r if after else None
    others = None if after else trace.r, trace.z, entering, passing(course, T)

    def adjoint(dh: Array, factors: Any, at: Any) -> tuple[Array, Any]:
        (of_rz, of_n, of_met), (r, z, entering, passes) = factors, at
        dh = add_entering(dh, entering)
        delta_n = of_n * dh  # (G6)
        if after:  # (G7), (G8) and r ⊙ δ_n, in one piece for the product
            factors = jnp.concatenate([of_rz, of_met], axis=-1)
            delta = factors * jnp.concatenate([dh, dh, dh], axis=-1)
            delta_rz, delta_met = jnp.split(delta, [2 * dh.shape[-1]], axis=-1)
            before = dh * z + delta @ W  # (G12), (Q10)
        else:
            delta_met, through = None, r * (delta_n @ W_n)  # (G11)  r ⊙ W_nᵀ δ_n
            delta_rz = of_rz * jnp.concatenate([through, dh], axis=-1)  # (G7), (G10) as (Q16)
            before = dh * z + delta_rz @ W_rz + through  # (G12)
        return at_work(passes, before, 0), (delta_rz, delta_n, delta_met)  # (K1)

    if apart(turn, x):
        dh0, adjoints = lax.scan(
            lambda dh, at: adjoint(dh, at[0], at[1:]),
            dh,
            (written, *others),
            reverse=True,
            unroll=turn,
        )
    else:

        def retreat(carry: Any, at: Any) -> tuple[Any, None]:
            (dh, written), (t, *others) = carry, at
            dh, made = adjoint(dh, jax.tree.map(partial(step_of, t), written), others)
            return (dh, jax.tree.map(partial(with_step, t), written, made)), None

        (dh0, adjoints), _ = lax.scan(
            retreat, (dh, written), (jnp.arange(T), *others), reverse=True
        )
    delta_rz, delta_n = rows(adjoints[0]), rows(adjoints[1])
    delta_met = rows(adjoints[2]) if after else delta_n
    before, X_T = rows(trace.before), rows(x).T
    met = before if after else rows(trace.r) * before
    return Found(
        U=jnp.concatenate([(X_T @ delta_rz).T, (X_T @ delta_n).T]),  # (G15)  Σ_t δ_t x_tᵀ
        W=jnp.concatenate([delta_rz.T @ before, delta_met.T @ met]),  # (G13), (G14)
        b=jnp.concatenate([delta_rz.sum(axis=0), delta_n.sum(axis=0)]),  # (G16)  Σ_t δ_t
        x=(delta_rz @ U_rz + delta_n @ U_n).reshape(x.shape),  # (G17)  ∂L/∂x_t = Uᵀ δ_t
        first=(dh0,),
        b_n=delta_met.sum(axis=0),  # (G18)
    )


def states_before(trace: Trace) -> Float[Array, "T B H"]:
    """h_{t-1} of all steps."""
    return trace.before


def model_of(reset: str, loss: str) -> Model[Params]:
    """The model of these options. Raises TypeError or ValueError where `reset` is unknown."""
    inputs.name_among("reset", reset, RESETS)
    return Model(forward, backward, reset, loss, Params, states_before, GATES)


def value_and_grad(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
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
    infinity go through. `outputs`, `lengths` and `truncation` are those of the readable twin.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model = model_of(reset, loss)
    return step.value_and_gradient(model, params, x, y, outputs, lengths, truncation, h0=h0)


def loss(
    params: Params,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
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


def layer(
    params: Params,
    x: Float[Array, "T B D"],
    h0: Float[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    lengths: Int[Array, " B"] | None = None,
) -> Float[Array, "T B H"]:
    """The bare layer: all states h_t (T, B, H), as a function that `jax.grad` takes.

    Its gradient, from ∂L/∂h_t as they enter each state from outside, is the one derived by hand;
    it is zero for V and c, which are no part of the layer. States in the padding stay as they are.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model = model_of(reset, "mse")
    return step.layer(model, params, x, lengths, h0=h0)
