"""The many-to-one LSTM and its gradients by the adjoint recursion: one sweep forward, one back.

    a_t = U x_t + W h_{t-1} (+ b),    i, f, g, o = σ, σ, tanh, σ of the four blocks of a_t,
    c_t = f ⊙ c_{t-1} + i ⊙ g,    h_t = o ⊙ tanh(c_t),    ŷ = V h_T (+ c)

U, W and b hold the gates' rows in PyTorch's order: input i, forget f, candidate g, output o.
Sources: Hochreiter & Schmidhuber 1997, "Long short-term memory"; the forget gate: Gers, Schmidhuber
& Cummins 2000, "Learning to forget"; docs/derivation.md, (S1) to (S15).
Steps are counted as in `rnn`: a_t is `a[t-1]`, h_t is `h[t]` and the cell state c_t `cells[t]`.
The output's equations, (F3), (B1), (B6) and (B8), are in `many_to_one`.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from manual_bptt import many_to_one
from manual_bptt.activations import ACTIVATIONS, Array
from manual_bptt.inputs import arguments
from manual_bptt.many_to_one import Cell, draw_weights, read_out, split_gates
from manual_bptt.sequences import at_work, cut

GATES = 4
SIGMOID, TANH = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]


class Params(NamedTuple):
    """The weights, gates packed; b and c are absent by default. Gradients come in the same tuple.

    c is the bias of the output, not the cell state.
    """

    U: Shaped[Array, "4H D"]
    W: Shaped[Array, "4H H"]
    V: Shaped[Array, "O H"]
    b: Shaped[Array, " 4H"] | None = None
    c: Shaped[Array, " O"] | None = None


class Trace(NamedTuple):
    """What the forward sweep leaves for the backward one; `gates` are i, f, g, o, packed as `a`."""

    x: Shaped[Array, "T B D"]
    a: Shaped[Array, "T B 4H"]
    gates: Shaped[Array, "T B 4H"]
    h: Shaped[Array, "T+1 B H"]
    cells: Shaped[Array, "T+1 B H"]
    outputs: str = "last"
    lengths: Int[Array, " B"] | None = None


class Gradients(NamedTuple):
    """The gradients of all parameters, x, h_0 and c_0, and all δ_t, of the gates' pre-activations.

    V and c are None where the gradient came in at the states: `backward_through_time`.
    """

    U: Shaped[Array, "4H D"]
    W: Shaped[Array, "4H H"]
    V: Shaped[Array, "O H"] | None
    b: Shaped[Array, " 4H"] | None
    c: Shaped[Array, " O"] | None
    x: Shaped[Array, "T B D"]
    h0: Shaped[Array, "B H"]
    c0: Shaped[Array, "B H"]
    adjoints: Shaped[Array, "T B 4H"]


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
    return Params(*draw_weights(rng, input_size, hidden_size, output_size, GATES, dtype, bias))


def forward(
    params: Params,
    x: Shaped[Array, "T B D"],
    h0: Shaped[Array, "B H"] | None = None,
    c0: Shaped[Array, "B H"] | None = None,
    *,
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Shaped[Array, "*T B O"], Trace]:
    """The prediction ŷ and the trace that `backward` needs. Equations (S1) to (S4) and (F3).

    `outputs` is "last", ŷ (B, O), or "every", ŷ (T, B, O); `lengths` are those of the sequences in
    a padded batch, equation (M1).
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    (U, W, V, b, c), x, _, h0, c0, lengths = arguments(
        params, x, h0=h0, c0=c0, gates=GATES, outputs=outputs, lengths=lengths
    )
    T = len(x)

    a = x @ U.T  # U x_t for all t at once: it does not wait for the states
    if b is not None:
        a = a + b
    gates = np.empty_like(a)
    h, cells = (np.empty((T + 1, *first.shape), first.dtype) for first in (h0, c0))
    h[0], cells[0] = h0, c0
    for t in range(1, T + 1):
        a[t - 1] += h[t - 1] @ W.T  # (S1)  a_t = U x_t + W h_{t-1} + b
        a_i, a_f, a_g, a_o = split_gates(a[t - 1], GATES)
        i, f, o = SIGMOID.function(a_i), SIGMOID.function(a_f), SIGMOID.function(a_o)  # (S2)
        g = TANH.function(a_g)  # (S2)
        gates[t - 1] = np.concatenate([i, f, g, o], axis=-1)
        cells[t] = at_work(t, lengths, f * cells[t - 1] + i * g, cells[t - 1])  # (S3), (M1)
        h[t] = at_work(t, lengths, o * TANH.function(cells[t]), h[t - 1])  # (S4)  o ⊙ tanh(c_t)
    reached = h[1:] if outputs == "every" else h[T]
    return read_out(reached, V, c), Trace(x, a, gates, h, cells, outputs, lengths)


def sweep_back(
    params: Params,
    trace: Trace,
    entering: Shaped[Array, "*T B H"],
    truncation: int | None = None,
) -> Gradients:
    """Gradients of all but V and c, from ∂L/∂h_T (B, H), or from what enters each h_t (T, B, H)."""
    U, W, _, b, _ = params
    x, a, gates, h, cells, _, lengths = trace
    T, every = len(x), entering.ndim == 3
    ends = T if lengths is None else lengths
    sigmoid_slope, tanh_slope = SIGMOID.derivative, TANH.derivative

    adjoints = np.empty_like(a)
    dh = entering[-1] if every else entering
    dc = np.zeros_like(dh)  # c_T acts on L through h_T alone
    for t in range(T, 0, -1):
        a_i, a_f, a_g, a_o = split_gates(a[t - 1], GATES)
        i, f, g, o = split_gates(gates[t - 1], GATES)
        tanh_c = TANH.function(cells[t])
        dc_t = dc + dh * o * tanh_slope(cells[t], tanh_c)  # (S5)  ∂L/∂c_t, both paths
        delta_i = dc_t * g * sigmoid_slope(a_i, i)  # (S6)
        delta_f = dc_t * cells[t - 1] * sigmoid_slope(a_f, f)  # (S7)
        delta_g = dc_t * i * tanh_slope(a_g, g)  # (S8)
        delta_o = dh * tanh_c * sigmoid_slope(a_o, o)  # (S9)
        delta = np.concatenate([delta_i, delta_f, delta_g, delta_o], axis=-1)
        adjoints[t - 1] = at_work(t, lengths, delta, 0)  # (M2)
        dc = at_work(t, lengths, dc_t * f, dc)  # (S10)  ∂L/∂c_{t-1}
        dh = at_work(t, lengths, adjoints[t - 1] @ W, dh)  # (S11)  ∂L/∂h_{t-1} = Wᵀ δ_t
        if every and t > 1:
            dh = dh + entering[t - 2]  # (O1)  ∂L/∂h_{t-1} += Vᵀ ∂L/∂ŷ_{t-1}
        dh = cut(t - 1, ends, truncation, dh)  # (K1)
        dc = cut(t - 1, ends, truncation, dc)  # (K1)

    return Gradients(
        U=np.einsum("tbg,tbd->gd", adjoints, x, optimize=True),  # (S12)  Σ_t δ_t x_tᵀ
        W=np.einsum("tbg,tbk->gk", adjoints, h[:-1], optimize=True),  # (S13)  Σ_t δ_t h_{t-1}ᵀ
        V=None,
        b=None if b is None else adjoints.sum(axis=(0, 1)),  # (S14)  Σ_t δ_t
        c=None,
        x=adjoints @ U,  # (S15)  ∂L/∂x_t = Uᵀ δ_t
        h0=dh,  # (S11) once more, at t = 1
        c0=dc,  # (S10) once more, at t = 1
        adjoints=adjoints,
    )


CELL = Cell(Params, GATES, forward, sweep_back)


def backward(
    params: Params,
    trace: Trace,
    output_gradient: Shaped[Array, "*T B O"],
    *,
    truncation: int | None = None,
) -> Gradients:
    """All gradients from ∂L/∂ŷ, by one sweep back through time. Equations (B1), (S5) to (S15).

    `truncation` keeps the gradient through the last so many steps only, equation (K1).
    Raises TypeError or ValueError where an argument does not fit the trace.
    """
    return many_to_one.backward(CELL, params, trace, output_gradient, truncation)


def backward_through_time(
    params: Params, trace: Trace, hidden_gradients: Shaped[Array, "T B H"]
) -> Gradients:
    """The bare layer: all gradients from ∂L/∂h_t as they enter each state from outside.

    V and c, which are no part of it, get None. Equations (S5) to (S15) and (O1).
    Raises TypeError or ValueError where `hidden_gradients` does not fit the trace.
    """
    return many_to_one.backward_through_time(CELL, params, trace, hidden_gradients)


def gradients(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    c0: Shaped[Array, "B H"] | None = None,
    *,
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
        CELL, params, x, y, {"h0": h0, "c0": c0}, loss, outputs, lengths, truncation
    )


def predict(
    params: Params,
    x: Shaped[Array, "T B D"],
    h0: Shaped[Array, "B H"] | None = None,
    c0: Shaped[Array, "B H"] | None = None,
    *,
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> Shaped[Array, "*T B O"]:
    """The prediction ŷ, equations (S1) to (S4) and (F3). Raises as `forward`."""
    return forward(params, x, h0, c0, outputs=outputs, lengths=lengths)[0]


def value_and_grad(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    c0: Shaped[Array, "B H"] | None = None,
    *,
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Any, Params]:
    """The loss and its gradients with respect to the parameters, in their own tuple.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    value, found = gradients(
        params, x, y, h0, c0, loss=loss, outputs=outputs, lengths=lengths, truncation=truncation
    )
    return value, many_to_one.select_weight_gradients(CELL, found)


def adjoints(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    c0: Shaped[Array, "B H"] | None = None,
    *,
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Shaped[Array, "T B 4H"]:
    """δ_t = ∂L/∂a_t of all gates at every step, by (S5) to (S11). Raises as `value_and_grad`."""
    return gradients(
        params, x, y, h0, c0, loss=loss, outputs=outputs, lengths=lengths, truncation=truncation
    )[1].adjoints
