"""hanbt/learn_dl: the gradient of an LSTM's cell state."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="The cell state without what comes from the next step",
    source="hanbt/learn_dl on GitHub, lstm.py, calc_delta_k",
    claim=(
        "δ_f = δ_h ⊙ o ⊙ (1 − tanh² c) ⊙ c_{t−1} ⊙ σ′(f)",
        "δ_i = δ_h ⊙ o ⊙ (1 − tanh² c) ⊙ c̃ ⊙ σ′(i)",
        "δ_c̃ = δ_h ⊙ o ⊙ (1 − tanh² c) ⊙ i ⊙ tanh′(c̃),  δ_h,t−1 = Σ over the gates of W_·hᵀ δ_·",
    ),
    convention="Columns, slopes as functions of the values; δ_h is meant as the total derivative.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the whole file, before pull request 63. Other lines of it are other entries",
    reading=(
        "c_t acts on h_t and on c_{t+1}; the second path is missing. The file's own gradient check "
        "covers W_fh over two steps from h_0 = 0. There the missing term is multiplied by h_0, and "
        "the check cannot see it."
    ),
    mistake=("recurrent-path-dropped",),
    corrected=("∂E/∂c_t = δ_h,t ⊙ o_t ⊙ (1 − tanh² c_t) + ∂E/∂c_{t+1} ⊙ f_{t+1}, in all three",),
    exactly="the gradient of the loss in which c_{t−1} is a constant in c_t = f ⊙ c_{t−1} + i ⊙ g",
    model="lstm",
)


def held_loss(params: Any, held: Any, x: Any, y: Any) -> Any:
    _, c, _ = run_lstm(held[0], held[1], x)
    h, _, _ = run_lstm(params[0], params[1], x, held_c=c)
    return np.mean((h[-1] @ params[2].T - y) ** 2)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    h, c, gates = run_lstm(U, W, x)
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[T]
    dh = dy @ V
    for t in reversed(range(T)):
        i, f, g, o = gates[t]
        tanh_c = np.tanh(c[t + 1])
        ds = dh * o * (1 - tanh_c**2)
        deltas = ds * g * i * (1 - i), ds * c[t] * f * (1 - f), ds * i * (1 - g**2)
        delta = np.concatenate([*deltas, dh * tanh_c * o * (1 - o)], axis=1)
        dU += delta.T @ x[t]
        dW += delta.T @ h[t]
        dh = delta @ W
    return dU, dW, dV
