"""Hanbingtao, deep learning from zero: the error of an RNN at any step."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="δ_kᵀ = δ_tᵀ Π W diag[f′(net_i)]",
    source="Hanbingtao (hanbt), 零基础入门深度学习 (5), on recurrent networks, the error carried "
    "to any step k; copied in wanesta/Deep_Learning_Note on GitHub, RNN_LSTM_.md",
    claim=(
        "net_t = U x_t + W s_{t−1},  s_{t−1} = f(net_{t−1}),  δ_k = ∂E/∂net_k",
        "∂net_t/∂net_{t−1} = W diag[f′(net_{t−1})]",
        "δ_kᵀ = δ_tᵀ Π_{i=k}^{t−1} W diag[f′(net_i)],  ∇_W E = Σ_k δ_k s_{k−1}ᵀ",
    ),
    convention="Numerator layout, δᵀ is a row. The factors stand in descending order, as the text "
    "writes them out: W diag[f′(net_{t−1})] first. Here E is an error at the last step only.",
    verdict=AGREES,
    seen=True,
    rests_on="four stored copies of the article, which have the same formulas; one line of it "
    "writes δ_t at the end of the product, and the next, which is the claim, at its beginning",
    reading="In ascending order, which the sign Π from i = k may suggest, the product is another. "
    "For W diag and diag W see hanbt-rnn-error-reversed.",
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
            row = (row @ W) * (1 - s[i] ** 2)
        dU += row.T @ x[k - 1]
        dW += row.T @ s[k - 1]
    return dU, dW, dy.T @ s[T]
