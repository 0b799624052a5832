"""The many-to-one GRU and its gradients by the adjoint recursion: one sweep forward, one back.

    r_t, z_t = σ of the first two blocks of a_t,    n_t = tanh of the third,
    h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t-1},    ŷ = V h_T (+ c)

U, W and b hold the gates' rows in PyTorch's order: reset r, update z, candidate n. The candidate's
reset gate acts after the product with W_n, as in PyTorch, or before it, as in the original:

    reset="after":   a_n = U_n x_t (+ b_n of b) + r_t ⊙ (W_n h_{t-1} (+ b_n))
    reset="before":  a_n = U_n x_t (+ b_n of b) + W_n (r_t ⊙ h_{t-1}) (+ b_n)

Source: Cho et al. 2014, "Learning phrase representations using RNN encoder–decoder for statistical
machine translation"; docs/derivation.md, (G1) to (G18).
Steps are counted as in `rnn`: a_t is `a[t-1]` and h_t is `h[t]`.
The output's equations, (F3), (B1), (B6) and (B8), are in `many_to_one`.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from manual_bptt import inputs, many_to_one
from manual_bptt.activations import ACTIVATIONS, Array
from manual_bptt.inputs import arguments
from manual_bptt.many_to_one import Cell, draw_weights, read_out, split_gates
from manual_bptt.sequences import at_work, cut

GATES = 3
RESETS = ("after", "before")
SIGMOID, TANH = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]


class Params(NamedTuple):
    """The weights, gates packed; biases are absent by default. Gradients come in the same tuple.

    b_n is the bias beside W_n: in PyTorch, the last third of `bias_hh`. The other two thirds of
    that act as b does, and are to be added to it.
    """

    U: Shaped[Array, "3H D"]
    W: Shaped[Array, "3H H"]
    V: Shaped[Array, "O H"]
    b: Shaped[Array, " 3H"] | None = None
    c: Shaped[Array, " O"] | None = None
    b_n: Shaped[Array, " H"] | None = None


class Trace(NamedTuple):
    """What the forward sweep leaves for the backward one.

    `gates` are r, z, n, packed as `a`; `recurrent` is W_n h_{t-1} + b_n, which r multiplies where
    the reset gate acts after the product.
    """

    x: Shaped[Array, "T B D"]
    a: Shaped[Array, "T B 3H"]
    gates: Shaped[Array, "T B 3H"]
    recurrent: Shaped[Array, "T B H"]
    h: Shaped[Array, "T+1 B H"]
    reset: str = "after"
    outputs: str = "last"
    lengths: Int[Array, " B"] | None = None


class Gradients(NamedTuple):
    """The gradients of all parameters, x and h_0, and all δ_t, of the gates' pre-activations.

    V and c are None where the gradient came in at the states: `backward_through_time`.
    """

    U: Shaped[Array, "3H D"]
    W: Shaped[Array, "3H H"]
    V: Shaped[Array, "O H"] | None
    b: Shaped[Array, " 3H"] | None
    c: Shaped[Array, " O"] | None
    x: Shaped[Array, "T B D"]
    h0: Shaped[Array, "B H"]
    adjoints: Shaped[Array, "T B 3H"]
    b_n: Shaped[Array, " H"] | None


def init(
    rng: np.random.Generator,
    input_size: int,
    hidden_size: int,
    output_size: int,
    *,
    dtype: Any = np.float64,
    bias: bool = False,
) -> Params:
    """Random weights with variance one over the number of inputs of each sum, and zero biases.

    Raises TypeError or ValueError where `rng`, a size or the dtype is not what its name says.
    """
    weights = draw_weights(rng, input_size, hidden_size, output_size, GATES, dtype, bias)
    return Params(*weights, b_n=np.zeros(hidden_size, dtype) if bias else None)


def forward(
    params: Params,
    x: Shaped[Array, "T B D"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Shaped[Array, "*T B O"], Trace]:
    """The prediction ŷ and the trace that `backward` needs. Equations (G1) to (G5) and (F3).

    `reset` says where the reset gate acts, "after" or "before" the product with W_n; `outputs` is
    "last", ŷ (B, O), or "every", ŷ (T, B, O); `lengths` are those of the sequences in a padded
    batch, equation (M1).
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    inputs.name_among("reset", reset, RESETS)
    (U, W, V, b, c, b_n), x, _, h0, _, lengths = arguments(
        params, x, h0=h0, gates=GATES, fields=Params._fields, outputs=outputs, lengths=lengths
    )
    T, H = len(x), len(W) // GATES
    W_rz, W_n = W[: 2 * H], W[2 * H :]

    a = x @ U.T  # U x_t for all t at once: it does not wait for the states
    if b is not None:
        a = a + b
    gates, recurrent = np.empty_like(a), np.empty_like(a[:, :, :H])
    h = np.empty((T + 1, *h0.shape), h0.dtype)
    h[0] = h0
    for t in range(1, T + 1):
        a[t - 1, :, : 2 * H] += h[t - 1] @ W_rz.T  # (G1)  U x_t + W h_{t-1} + b, rows of r and z
        r, z = split_gates(SIGMOID.function(a[t - 1, :, : 2 * H]), 2)  # (G2)
        candidate = h[t - 1] if reset == "after" else r * h[t - 1]
        recurrent[t - 1] = candidate @ W_n.T
        if b_n is not None:
            recurrent[t - 1] += b_n
        used = r * recurrent[t - 1] if reset == "after" else recurrent[t - 1]
        a[t - 1, :, 2 * H :] += used  # (G3)  the candidate's pre-activation
        n = TANH.function(a[t - 1, :, 2 * H :])  # (G4)
        gates[t - 1] = np.concatenate([r, z, n], axis=-1)
        h[t] = at_work(t, lengths, (1 - z) * n + z * h[t - 1], h[t - 1])  # (G5), (M1)
    reached = h[1:] if outputs == "every" else h[T]
    return read_out(reached, V, c), Trace(x, a, gates, recurrent, h, reset, outputs, lengths)


def sweep_back(
    params: Params,
    trace: Trace,
    entering: Shaped[Array, "*T B H"],
    truncation: int | None = None,
) -> Gradients:
    """Gradients of all but V and c, from ∂L/∂h_T (B, H), or from what enters each h_t (T, B, H)."""
    U, W, _, b, _, b_n = params
    x, a, gates, recurrent, h, reset, _, lengths = trace
    T, every, H = len(x), entering.ndim == 3, len(W) // GATES
    ends = T if lengths is None else lengths
    W_rz, W_n = W[: 2 * H], W[2 * H :]
    sigmoid_slope, tanh_slope = SIGMOID.derivative, TANH.derivative

    adjoints = np.empty_like(a)
    dh = entering[-1] if every else entering
    for t in range(T, 0, -1):
        a_r, a_z, a_n = split_gates(a[t - 1], GATES)
        r, z, n = split_gates(gates[t - 1], GATES)
        delta_n = dh * (1 - z) * tanh_slope(a_n, n)  # (G6)
        delta_z = dh * (h[t - 1] - n) * sigmoid_slope(a_z, z)  # (G7)
        if reset == "after":
            delta_r = delta_n * recurrent[t - 1] * sigmoid_slope(a_r, r)  # (G8)
            through_n = (r * delta_n) @ W_n  # (G9)  W_nᵀ (r ⊙ δ_n)
        else:
            delta_r = (delta_n @ W_n) * h[t - 1] * sigmoid_slope(a_r, r)  # (G10)
            through_n = r * (delta_n @ W_n)  # (G11)  r ⊙ W_nᵀ δ_n
        delta_rz = np.concatenate([delta_r, delta_z], axis=-1)
        delta = np.concatenate([delta_rz, delta_n], axis=-1)
        adjoints[t - 1] = at_work(t, lengths, delta, 0)  # (M2)
        dh = at_work(t, lengths, dh * z + delta_rz @ W_rz + through_n, dh)  # (G12)  ∂L/∂h_{t-1}
        if every and t > 1:
            dh = dh + entering[t - 2]  # (O1)  ∂L/∂h_{t-1} += Vᵀ ∂L/∂ŷ_{t-1}
        dh = cut(t - 1, ends, truncation, dh)  # (K1)

    r, delta_rz, delta_n = gates[:, :, :H], adjoints[:, :, : 2 * H], adjoints[:, :, 2 * H :]
    if reset == "after":
        met, delta_met = h[:-1], r * delta_n  # W_n met h_{t-1}, and r came after
    else:
        met, delta_met = r * h[:-1], delta_n
    dW_rz = np.einsum("tbg,tbk->gk", delta_rz, h[:-1], optimize=True)  # (G13)  Σ_t δ_t h_{t-1}ᵀ
    dW_n = np.einsum("tbg,tbk->gk", delta_met, met, optimize=True)  # (G14)
    return Gradients(
        U=np.einsum("tbg,tbd->gd", adjoints, x, optimize=True),  # (G15)  Σ_t δ_t x_tᵀ
        W=np.concatenate([dW_rz, dW_n]),
        V=None,
        b=None if b is None else adjoints.sum(axis=(0, 1)),  # (G16)  Σ_t δ_t
        c=None,
        x=adjoints @ U,  # (G17)  ∂L/∂x_t = Uᵀ δ_t
        h0=dh,  # (G12) once more, at t = 1
        adjoints=adjoints,
        b_n=None if b_n is None else delta_met.sum(axis=(0, 1)),  # (G18)
    )


CELL = Cell(Params, GATES, forward, sweep_back)


def backward(
    params: Params,
    trace: Trace,
    output_gradient: Shaped[Array, "*T B O"],
    *,
    truncation: int | None = None,
) -> Gradients:
    """All gradients from ∂L/∂ŷ, by one sweep back through time. Equations (B1), (G6) to (G18).

    `truncation` keeps the gradient through the last so many steps only, equation (K1).
    Raises TypeError or ValueError where an argument does not fit the trace.
    """
    return many_to_one.backward(CELL, params, trace, output_gradient, truncation)


def backward_through_time(
    params: Params, trace: Trace, hidden_gradients: Shaped[Array, "T B H"]
) -> Gradients:
    """The bare layer: all gradients from ∂L/∂h_t as they enter each state from outside.

    V and c, which are no part of it, get None. Equations (G6) to (G18) and (O1).
    Raises TypeError or ValueError where `hidden_gradients` does not fit the trace.
    """
    return many_to_one.backward_through_time(CELL, params, trace, hidden_gradients)


def gradients(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Any, Gradients]:
    """The loss and every gradient: forward sweep, loss, sweep back.

    Where the numbers overflow, the results are infinite or NaN.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    return many_to_one.gradients(
        CELL, params, x, y, {"h0": h0}, loss, outputs, lengths, truncation, reset=reset
    )


def predict(
    params: Params,
    x: Shaped[Array, "T B D"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> Shaped[Array, "*T B O"]:
    """The prediction ŷ, equations (G1) to (G5) and (F3). Raises as `forward`."""
    return forward(params, x, h0, reset=reset, outputs=outputs, lengths=lengths)[0]


def value_and_grad(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Any, Params]:
    """The loss and its gradients with respect to the parameters, in their own tuple.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    value, found = gradients(
        params, x, y, h0,
        reset=reset, loss=loss, outputs=outputs, lengths=lengths, truncation=truncation,
    )  # fmt: skip
    return value, many_to_one.select_weight_gradients(CELL, found)


def adjoints(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Shaped[Array, "T B 3H"]:
    """δ_t = ∂L/∂a_t of all gates at every step, by (G6) to (G12). Raises as `value_and_grad`."""
    return gradients(
        params, x, y, h0,
        reset=reset, loss=loss, outputs=outputs, lengths=lengths, truncation=truncation,
    )[1].adjoints  # fmt: skip
