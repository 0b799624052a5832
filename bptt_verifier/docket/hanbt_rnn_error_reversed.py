"""Hanbingtao, deep learning from zero: the error of an RNN, quoted with its factors exchanged."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="δ_kᵀ = δ_tᵀ Π diag[f′(net_i)] W",
    source="Hanbingtao (hanbt), 零基础入门深度学习 (6), on the LSTM, its first equation, which "
    "quotes the article (5)",
    claim=("δ_kᵀ = δ_tᵀ Π_{i=k}^{t−1} diag[f′(net_i)] W",),
    convention="As in hanbt-rnn-error: δ_k = ∂E/∂net_k as a row, factors in descending order, "
    "net_t = U x_t + W s_{t−1}. The article derives W diag[f′(net_i)] in part (5).",
    verdict=DISAGREES,
    mistake=("activation-derivative-before-matrix-product",),
    seen=True,
    rests_on="a stored copy of the article, and a program for a film that has the same formula",
    reading="As the derivative with respect to the states it is right, with other indices: "
    "∂E/∂s_k = ∂E/∂s_t Π_{i=k+1}^{t} diag[f′(net_i)] W. The bound that follows, "
    "‖δ_k‖ ≤ ‖δ_t‖ (β_f β_W)^{t−k}, stands in both orders.",
    corrected=("δ_kᵀ = δ_tᵀ Π_{i=k}^{t−1} W diag[f′(net_i)]",),
    model="rnn",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T, B, _ = x.shape
    s = [np.zeros((B, len(W)), x.dtype)]
    for t in range(T):
        s.append(np.tanh(x[t] @ U.T + s[t] @ W.T))
    dy = 2 * (s[T] @ V.T - y) / y.size
    dU, dW = np.zeros_like(U), np.zeros_like(W)
    last = (dy @ V) * (1 - s[T] ** 2)
    for k in range(T, 0, -1):
        row = last
        for i in range(T - 1, k - 1, -1):
            row = (row * (1 - s[i] ** 2)) @ W
        dU += row.T @ x[k - 1]
        dW += row.T @ s[k - 1]
    return dU, dW, dy.T @ s[T]
