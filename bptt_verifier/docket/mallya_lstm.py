"""A. Mallya: the way back of an LSTM, in which a gradient is added to what is there."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="δc^t += δh^t ⊙ o^t ⊙ (1 − tanh²(c^t))",
    source="A. Mallya, LSTM forward and backward pass, arunmallya.github.io/writeups/nn/lstm",
    claim=(
        "c^t = i^t ⊙ a^t + f^t ⊙ c^{t−1},  h^t = o^t ⊙ tanh(c^t),  z^t = W × I^t",
        "δo^t = δh^t ⊙ tanh(c^t),  δc^t += δh^t ⊙ o^t ⊙ (1 − tanh²(c^t))",
        "δi^t = δc^t ⊙ a^t,  δa^t = δc^t ⊙ i^t,  δf^t = δc^t ⊙ c^{t−1},  δc^{t−1} = δc^t ⊙ f^t",
        "δâ^t = δa^t ⊙ (1 − tanh²(â^t)),  δî^t = δi^t ⊙ i^t ⊙ (1 − i^t),  and likewise f and o",
        "δI^t = Wᵀ × δz^t,  δW = Σ_t δz^t × (I^t)ᵀ",
    ),
    convention="Columns, I^t = [x^t; h^{t−1}]. The sign += adds to the δc^t that step t + 1 left, "
    "and δh^t has what δI^{t+1} brings. Without biases.",
    verdict=AGREES,
    seen=False,
    rests_on="the forward half of the page, and a Chinese rendering of all of it on GitHub, which "
    "prints 1 − î for 1 − i in the slopes of the gates and δi for δf in one line",
    reading="With = for += the way through c^{t+1} is lost, as in hanbt-lstm-cell.",
    model="lstm",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    h, c, gates = run_lstm(U, W, x)
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW = np.zeros_like(U), np.zeros_like(W)
    dh, dc = dy @ V, np.zeros_like(h[0])
    for t in reversed(range(T)):
        i, f, a, o = gates[t]
        do = dh * np.tanh(c[t + 1])
        dc = dc + dh * o * (1 - np.tanh(c[t + 1]) ** 2)
        di, df, da = dc * a, dc * c[t], dc * i
        slopes = di * i * (1 - i), df * f * (1 - f), da * (1 - a**2), do * o * (1 - o)
        dz = np.concatenate(slopes, axis=1)
        dU += dz.T @ x[t]
        dW += dz.T @ h[t]
        dh, dc = dz @ W, dc * f
    return dU, dW, dy.T @ h[T]
