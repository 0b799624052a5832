"""A reader's correction that differentiates tan in the place of tanh."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="1 + output²: the derivative of tan in the place of that of tanh",
    source="gy910210/neural-network-from-scratch on GitHub, issue 2 (2017)",
    claim=("(tan x)′ = sec² x = 1 + tan² x, so backward returns (1 + output²) · top_diff",),
    convention="Elementwise; output is the value of the activation, which the network calls tanh.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the text of the issue",
    reading="The identity is right for the tangent. For tanh the sign is minus.",
    corrected=("(tanh x)′ = 1 − tanh² x, so backward returns (1 − output²) ⊙ top_diff",),
    model="rnn",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T, B, _ = x.shape
    h = [np.zeros((B, len(W)), x.dtype)]
    for t in range(T):
        h.append(np.tanh(x[t] @ U.T + h[t] @ W.T))
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dh = np.zeros_like(U), np.zeros_like(W), dy @ V
    for t in reversed(range(T)):
        da = (1 + h[t + 1] ** 2) * dh
        dU += da.T @ x[t]
        dW += da.T @ h[t]
        dh = da @ W
    return dU, dW, dy.T @ h[T]
