"""The RNN's training step with each sweep as one kernel, for GPUs and at most 128 hidden units.

In a loop of XLA each step starts operations of its own, and reads W and h_{t-1} from memory. Here a
kernel written in Pallas does all T steps of a sweep: each sequence of the batch has a program of
its own, which keeps W and h_{t-1} in registers. The products with whole arrays, before and after
the sweeps, are XLA's, as in `rnn`. Source: docs/derivation.md, sections 4 and 15.

The kernels are compiled by Pallas' Triton backend. JAX warns of its removal from version 0.12 on.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Float, Int, Shaped

from manual_bptt import inputs
from manual_bptt.jitted import step
from manual_bptt.jitted.rnn import ACTIVATIONS, TURN
from manual_bptt.jitted.sequences import Course, add_entering
from manual_bptt.jitted.step import Found, Model, Weights, rows, zeros_unless_given
from manual_bptt.rnn import Params

# The sizes P of W that a program is written for, and its warps of 32 threads each: with so many, a
# thread holds P² / (32 · warps) = 32, 64 or 128 numbers of W, of the 255 registers that it has.
WARPS = {32: 1, 64: 2, 128: 4}
LARGEST = max(WARPS)


class Option(NamedTuple):
    """The activation's name, and whether kernels are interpreted; None: unless on a GPU."""

    activation: str
    interpret: bool | None


class Trace(NamedTuple):
    """What the sweep forward leaves: h_{t-1} of all steps, the same with padding, and h_T."""

    before: Float[Array, "T B H"]
    padded: Float[Array, "T B P"]
    reached: Float[Array, "B P"]


def padded_size(H: int) -> int:
    """The smallest size P of a program that has room for H units."""
    return min(P for P in WARPS if P >= H)


def padded(H: int, array: Float[Array, "..."], *axes: int) -> Array:
    """`array` with zeros after its H entries along these axes, up to the size of a program."""
    widths = [(0, padded_size(H) - H if axis in axes else 0) for axis in range(array.ndim)]
    return jnp.pad(array, widths)  # (Q19)


def only_units(H: int, v: Float[Array, " P"]) -> Float[Array, " P"]:
    """`v` with zeros in the padding: a sigmoid is ½ there, and a sum is NaN where v is infinite."""
    if len(v) == H:
        return v
    return jnp.where(lax.iota(jnp.int32, len(v)) < H, v, 0)  # (Q19)


def multiplied(M: Float[Array, "K P"], v: Float[Array, " K"]) -> Float[Array, " P"]:
    """Mᵀ v, as a sum of rows, Σ_k v_k M_k: W_T in the sweep forward, W in the sweep back."""
    found: Array = jnp.sum(M * v[:, None], axis=0)
    return found


def all_states(
    activation: str, H: int, W_T: Any, a: Any, h0: Any, before: Any, reached: Any
) -> None:
    """The kernel of the sweep forward: from a_t without the path through W to all h_{t-1}."""
    phi, matrix = ACTIVATIONS[activation].function, W_T[...]

    def advance(t: Array, h: Array) -> Array:
        before[t] = h
        a_t = a[t] + multiplied(matrix, h)  # (F1)  U x_t + b, and W h_{t-1}
        return only_units(H, phi(a_t))  # (F2)  φ(a_t)

    reached[...] = lax.fori_loop(0, len(a), advance, h0[...])


def all_adjoints(
    activation: str,
    H: int,
    W: Any,
    before: Any,
    reached: Any,
    dh_T: Any,
    entering: Any,
    adjoints: Any,
    first: Any,
) -> None:
    """The kernel of the sweep back: from ∂L/∂h_T, or what enters each state, to all δ_t."""
    slope, matrix, T = ACTIVATIONS[activation].slope, W[...], len(before)

    def retreat(s: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        (dh, h), t = carry, T - 1 - s
        dh = add_entering(dh, None if entering is None else entering[t])
        delta = only_units(H, dh * slope(h))  # (B2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        adjoints[t] = delta
        return multiplied(matrix, delta), before[t]  # (B3)  ∂L/∂h_{t-1} = Wᵀ δ_t

    first[...] = lax.fori_loop(0, T, retreat, (dh_T[...], reached[...]))[0]


def of_sequence(shape: tuple[int, ...]) -> pl.BlockSpec:
    """The part of an array (T, B, P) or (B, P) that the program of a sequence has."""
    P = shape[-1]
    if len(shape) == 2:
        return pl.BlockSpec((None, P), lambda i: (i, 0))
    return pl.BlockSpec((shape[0], None, P), lambda i: (0, i, 0))


def run(
    kernel: Callable[..., None],
    interpret: bool,
    matrix: Float[Array, "P P"],
    arrays: tuple[Float[Array, "*T B P"] | None, ...],
    results: tuple[tuple[int, ...], ...],
) -> tuple[Array, ...]:
    """The results, of these shapes, of a kernel with one program for each sequence.

    The kernel takes a matrix, which all programs share, arrays of sequences, and its results.
    """
    B, P = results[0][-2:]
    specs = [None if array is None else of_sequence(array.shape) for array in arrays]
    array_of: Any = jax.ShapeDtypeStruct
    call = pl.pallas_call(
        kernel,
        out_shape=tuple(array_of(shape, matrix.dtype) for shape in results),
        grid=(B,),
        in_specs=[pl.BlockSpec((P, P), lambda i: (0, 0)), *specs],
        out_specs=tuple(of_sequence(shape) for shape in results),
        compiler_params=triton.CompilerParams(num_warps=WARPS[P], num_stages=1),
        interpret=interpret,
    )
    found: tuple[Array, ...] = call(matrix, *arrays)
    return found


def is_interpreted(option: Option, turn: int) -> bool:
    """Whether kernels are interpreted: as asked, or unless compiled for a GPU, with long turns."""
    return turn == 1 if option.interpret is None else option.interpret


def forward(
    weights: Weights,
    x: Float[Array, "T B D"],
    first: tuple[Any, ...],
    option: Option,
    turn: int,
    course: Course,
) -> tuple[Float[Array, "B H"], Trace]:
    """h_T, and the trace: all states of all sequences."""
    (T, B, _), H = x.shape, len(weights.W)
    U, b = padded(H, weights.U, 0), weights.b
    (h0,) = zeros_unless_given(first, weights, x)
    a = (rows(x) @ U.T).reshape(T, B, -1)  # (Q2)  U x_t of all t at once
    a = a if b is None else a + padded(H, b, 0)
    before, reached = run(
        partial(all_states, option.activation, H),
        is_interpreted(option, turn),
        padded(H, weights.W, 0, 1).T,
        (a, padded(H, h0, 1)),
        (a.shape, a.shape[1:]),
    )
    return reached[:, :H], Trace(before[..., :H], before, reached)


def backward(
    weights: Weights,
    x: Float[Array, "T B D"],
    trace: Trace,
    dh: Float[Array, "B H"],
    option: Option,
    turn: int,
    course: Course,
    entering: Float[Array, "T B H"] | None,
) -> Found:
    """All gradients from ∂L/∂h_T, or from what enters each state beside it."""
    H, before = len(weights.W), trace.padded
    adjoints, first = run(
        partial(all_adjoints, option.activation, H),
        is_interpreted(option, turn),
        padded(H, weights.W, 0, 1),
        (
            before,
            trace.reached,
            padded(H, dh, 1),
            None if entering is None else padded(H, entering, 2),
        ),
        (before.shape, before.shape[1:]),
    )
    delta = rows(adjoints)
    return Found(
        U=(delta.T @ rows(x))[:H],  # (Q3)  Σ_t δ_t x_tᵀ
        W=(delta.T @ rows(before))[:H, :H],  # (Q4)  Σ_t δ_t h_{t-1}ᵀ
        b=delta.sum(axis=0)[:H],  # (B7)  Σ_t δ_t
        x=adjoints @ padded(H, weights.U, 0),  # (B9)  ∂L/∂x_t = Uᵀ δ_t
        first=(first[:, :H],),
    )


def states_before(trace: Trace) -> Float[Array, "T B H"]:
    """h_{t-1} of all steps, for outputs at every step."""
    return trace.before


def require_supported(weights: Weights) -> None:
    """Raises TypeError or ValueError where the weights are not those of a fused step."""
    if weights.U.dtype != np.float32:
        raise TypeError(f"U: expected dtype float32, found {weights.U.dtype}")
    H = len(weights.W)
    if H > LARGEST:
        raise ValueError(f"W: expected at most {LARGEST} hidden units, found H = {H}")


def model_of(
    activation: str,
    loss: str,
    lengths: Any,
    truncation: int | None,
    checkpoint_every: int | None,
    interpret: bool | None,
) -> Model[Params]:
    """The model of these options. Raises TypeError or ValueError naming what is not supported."""
    inputs.name_among("activation", activation, tuple(ACTIVATIONS))
    if lengths is not None:
        raise ValueError(f"lengths: expected None, found {type(lengths).__name__}")
    if truncation is not None:
        raise ValueError(f"truncation: expected None, found {truncation}")
    if checkpoint_every is not None:
        raise ValueError(f"checkpoint_every: expected None, found {checkpoint_every}")
    if not (interpret is None or isinstance(interpret, bool)):
        raise TypeError(f"interpret: expected a bool or None, found {type(interpret).__name__}")
    option = Option(activation, interpret)
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
    interpret: bool | None = None,
) -> tuple[Float[Array, ""], Params]:
    """The loss and its gradients with respect to the parameters, each sweep as one kernel.

    Arguments and results are those of `manual_bptt.jitted.rnn.value_and_grad`, in float32 and with
    at most 128 hidden units; `lengths`, `truncation` and `checkpoint_every` must be None. The
    kernels are compiled where the program is compiled for a GPU with CUDA. Elsewhere Pallas
    interprets them, which is slow; with `interpret=True` it does so on a GPU, too, and with
    `interpret=False` nowhere.
    Raises TypeError or ValueError naming the argument that does not fit or is not supported.
    """
    model = model_of(activation, loss, lengths, truncation, checkpoint_every, interpret)
    if interpret is False and jax.default_backend() == "cpu" and not step.is_elsewhere(x):
        raise ValueError("interpret: expected None or True where JAX has no GPU, found False")
    model, given = step.arguments(model, params, x, y, outputs, None, None, h0=h0)
    require_supported(given.weights)
    found, gradient = step.compiled(model, given)
    return found, Params(*gradient[: len(Params._fields)])
