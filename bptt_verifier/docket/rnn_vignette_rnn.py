"""The R package rnn, vignette on RNN units."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="δU from the adjoint of the previous state",
    source="R package rnn (bquast/rnn on GitHub), vignettes/rnn_units.Rmd, back propagation pass",
    claim=(
        "δ3 = δ1 + δ2,  δ4 = δ3 · sigmoid′(h_t)",
        "δ5 = δ4 * Wᵀ,  δ6 = δ4 * Uᵀ",
        "δW = δW + h_{t−1}ᵀ * δ4,  δU = δU + x_tᵀ * δ5",
    ),
    convention=(
        "Row vectors: h_t = sigmoid(h_{t−1} * W + x_t * U). sigmoid′ is a function of the value "
        "h_t. By its shape δ5 is the error of h_{t−1}. W and U are transposed here to this "
        "project's letters."
    ),
    verdict=DISAGREES,
    seen=True,
    rests_on="the whole vignette, first set of rules; the second set, which follows it, is another",
    reading="None known. With δ4 in the last formula all of the rules are right.",
    corrected=("δU = δU + x_tᵀ * δ4",),
    model="rnn",
    activation="sigmoid",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T, B, _ = x.shape
    h = [np.zeros((B, len(W)), x.dtype)]
    for t in range(T):
        h.append(1 / (1 + np.exp(-(x[t] @ U.T + h[t] @ W.T))))
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, error3 = np.zeros_like(U), np.zeros_like(W), dy @ V
    for t in reversed(range(T)):
        error4 = error3 * h[t + 1] * (1 - h[t + 1])
        error5 = error4 @ W
        dW += error4.T @ h[t]
        dU += error5.T @ x[t]
        error3 = error5
    return dU, dW, dy.T @ h[T]
