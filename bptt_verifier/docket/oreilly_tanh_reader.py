"""A reader's correction of the tanh step in a textbook's RNN."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="dt = dh / (1 − h²): a proposed correction of a textbook's tanh step",
    source="oreilly-japan/deep-learning-from-scratch-2 on GitHub, issue 26, its title (2024)",
    claim=("dt = 1 / (1 − h_next²) instead of dt = dh_next · (1 − h_next²)",),
    convention=(
        "h_t = tanh(x_t Wx + h_{t−1} Wh + b), rows are sequences. The title omits the factor "
        "dh_next; it is kept here, since without it no loss would enter. The factor is at "
        "least 1, so that the numbers overflow on long sequences."
    ),
    verdict=DISAGREES,
    seen=True,
    rests_on="the title of the issue; the picture in it was not seen",
    reading=(
        "1 / (1 − h²) is the derivative of the inverse, artanh, at h. The book's own line, "
        "dh_next · (1 − h_next²), is right: see cs231n-rnn-step."
    ),
    mistake=("not-finite",),
    corrected=("dt = dh_next ⊙ (1 − h_next²)",),
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
        dt = dh / (1 - h[t + 1] ** 2)
        dU += dt.T @ x[t]
        dW += dt.T @ h[t]
        dh = dt @ W
    return dU, dW, dy.T @ h[T]
