"""Gers, Schmidhuber & Cummins: the truncated gradient of an LSTM."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="The truncated gradient of the LSTM",
    source="F. A. Gers, J. Schmidhuber & F. Cummins, Learning to forget: continual prediction with "
    "LSTM, Neural Computation 12(10), 2000, the backward pass",
    claim=(
        "∂s(t)/∂w ≈ ∂s(t−1)/∂w · f(t) + (direct derivative of the gates and the input at t)",
        "errors that leave a cell or gate through its net input are not passed further back",
    ),
    convention="s is the cell state. Its own recursion is exact; the path through h_{t−1} into the "
    "gates and the input is cut.",
    verdict=DISAGREES,
    seen=False,
    rests_on="the truncation, and that the authors define it as one, as both are commonly "
    "restated; the paper was not seen. Its predecessor was: see hochreiter-schmidhuber-1997",
    reading=(
        "As the truncation that it defines it is right. It is not ∂E/∂w. This project's model has "
        "tanh where the paper scales the sigmoid. Neither has peepholes, which came later."
    ),
    mistake=("recurrent-path-dropped",),
    corrected=("∂L/∂h_{t−1} = Wᵀ δ_t, which the truncation sets to zero",),
    exactly="the gradient of the loss in which h_{t−1} is a constant in the gates and the input",
    deliberate=True,
    model="lstm",
)


def held_loss(params: Any, held: Any, x: Any, y: Any) -> Any:
    h, _, _ = run_lstm(held[0], held[1], x)
    h, _, _ = run_lstm(params[0], params[1], x, held_h=h)
    return np.mean((h[-1] @ params[2].T - y) ** 2)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    h, c, gates = run_lstm(U, W, x)
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[T]
    dh, dc = dy @ V, np.zeros_like(h[0])
    for t in reversed(range(T)):
        i, f, g, o = gates[t]
        tanh_c = np.tanh(c[t + 1])
        ds = dc + dh * o * (1 - tanh_c**2)
        deltas = ds * g * i * (1 - i), ds * c[t] * f * (1 - f), ds * i * (1 - g**2)
        delta = np.concatenate([*deltas, dh * tanh_c * o * (1 - o)], axis=1)
        dU += delta.T @ x[t]
        dW += delta.T @ h[t]
        dh, dc = np.zeros_like(dh), ds * f
    return dU, dW, dV
