"""CaptainE/RNN-LSTM-in-numpy: the forget gate without its slope."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm, sigmoid

ENTRY = Entry(
    title="σ(f) in the place of σ′ for the forget gate",
    source="CaptainE/RNN-LSTM-in-numpy on GitHub, RNN_LSTM_from_scratch.ipynb, backward, as quoted "
    "in issue 1 (2023), first point",
    claim=("df = dC · C_prev,  df = sigmoid(f) · df",),
    convention="f is the value of the gate, so that the slope is f (1 − f). The issue's second "
    "point, dh and dC that do not reach the step before, is not in this entry.",
    verdict=DISAGREES,
    seen=False,
    rests_on="issue 1 and pull request 2 of the repository; the notebook itself was not seen",
    reading="None known. The notebook's sigmoid has a parameter for the derivative, which the "
    "issue and the pull request set.",
    corrected=("df = f (1 − f) ⊙ dC ⊙ C_prev",),
    model="lstm",
)


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
        deltas = ds * g * i * (1 - i), sigmoid(f) * ds * c[t], ds * i * (1 - g**2)
        delta = np.concatenate([*deltas, dh * tanh_c * o * (1 - o)], axis=1)
        dU += delta.T @ x[t]
        dW += delta.T @ h[t]
        dh, dc = delta @ W, ds * f
    return dU, dW, dV
