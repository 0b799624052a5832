"""The R package rnn, vignette on LSTM units: the input gate's part of ∂L/∂h."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="The input gate's weight with the forget gate's error",
    source="R package rnn (bquast/rnn on GitHub), vignettes/LSTM_units.Rmd, back propagation pass",
    claim=(
        "δ15 = δ10 · sigmoid′(i_t),  δ16 = δ12 · sigmoid′(f_t)",
        "δ22 = δ16 * W_iᵀ,  δ24 = δ16 * W_fᵀ",
        "δ25 = δ18 + δ20 + δ22 + δ24",
    ),
    convention="Row vectors. δ15 and δ16 belong to the arguments of i and f; δ25 is the error of "
    "h_{t−1}. δ8 is taken as a sum here: see rnn-vignette-lstm for the product.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the whole vignette",
    reading="A slip of the text: δ21, the same quantity for the input x, uses δ15, and so does "
    "the package's code, R/backprop_r.R, for both.",
    corrected=("δ22 = δ15 * W_iᵀ",),
    model="lstm",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    h, c, gates = run_lstm(U, W, x)
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[T]
    Wi, Wf, Wg, Wo = np.split(W, 4)
    error3, error4 = dy @ V, np.zeros_like(h[0])
    for t in reversed(range(T)):
        i, f, g, o = gates[t]
        tanh_c = np.tanh(c[t + 1])
        error8 = error3 * o * (1 - tanh_c**2) + error4
        error13 = error3 * tanh_c * o * (1 - o)
        error14 = error8 * i * (1 - g**2)
        error15 = error8 * g * i * (1 - i)
        error16 = error8 * c[t] * f * (1 - f)
        packed = np.concatenate([error15, error16, error14, error13], axis=1)
        dU += packed.T @ x[t]
        dW += packed.T @ h[t]
        error3 = error13 @ Wo + error14 @ Wg + error16 @ Wi + error16 @ Wf
        error4 = error8 * f
    return dU, dW, dV
