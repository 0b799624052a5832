"""Truncated backpropagation through time."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="Truncation after four steps",
    source="A. Zhang et al., Dive into Deep Learning, section 9.7.1 (8.7 in older editions), "
    "truncating time steps",
    claim=("∂_w h_t ≈ the sum over the last τ steps: the recursion stops at ∂_w h_{t−τ}",),
    convention="Total derivatives; the forward pass runs over all steps. Here τ = 4.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the section's source in an older edition",
    reading="The text states that this approximates the true gradient. As the truncation it is "
    "right. It is not ∂L/∂w where a sequence has more than τ steps. Training on six words does not "
    "show that: the state carries the second word on, and the last steps learn to read it.",
    mistake=("truncated",),
    corrected=("∂L/∂h_{t−1} = Wᵀ δ_t at every step",),
    exactly="the gradient of the loss in which h_{T−τ} is a constant",
    deliberate=True,
    model="rnn",
)


def run_rnn(params: Any, x: Any, h: Any) -> Any:
    U, W, _ = params
    for x_t in x:
        h = np.tanh(x_t @ U.T + h @ W.T)
    return h


def held_loss(params: Any, held: Any, x: Any, y: Any) -> Any:
    start, zeros = max(len(x) - 4, 0), np.zeros((x.shape[1], len(params[1])))
    h = run_rnn(params, x[start:], run_rnn(held, x[:start], zeros))
    return np.mean((h @ params[2].T - y) ** 2)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T, B, _ = x.shape
    h = [np.zeros((B, len(W)), x.dtype)]
    for t in range(T):
        h.append(np.tanh(x[t] @ U.T + h[t] @ W.T))
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dh = np.zeros_like(U), np.zeros_like(W), dy @ V
    for t in reversed(range(max(T - 4, 0), T)):
        da = dh * (1 - h[t + 1] ** 2)
        dU += da.T @ x[t]
        dW += da.T @ h[t]
        dh = da @ W
    return dU, dW, dy.T @ h[T]
