"""nicodjimenez/lstm, pull request 49: the cell state's gradient without the next step."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.nicodjimenez_lstm import D, H, T, loss, params, run, y

__all__ = ["ENTRY", "gradients", "held_loss", "loss", "params"]

ENTRY = Entry(
    title="ds = o · top_diff_h, without top_diff_s",
    source="nicodjimenez/lstm on GitHub, pull request 49 (2021, closed without a merge)",
    claim=("ds = o · top_diff_h",),
    convention="As in nicodjimenez-lstm: h_t = s_t · o_t and s_t = g_t · i_t + s_{t−1} · f_t.",
    verdict=DISAGREES,
    mistake=("recurrent-path-dropped",),
    seen=True,
    rests_on="the text of the pull request, and the file that it changes",
    reading=(
        "s_t acts on h_t and on s_{t+1}; the second path is cut. With s_{t−1} held constant in s_t "
        "the formula would be right, but the request does not say so. It reports a lower loss "
        "after 100 steps, 6e-9 against 3e-6: a lower loss does not show that a gradient is right."
    ),
    corrected=("ds = o ⊙ top_diff_h + top_diff_s",),
    exactly="the gradient of the loss in which s_{t−1} is a constant in s_t",
)


def held_loss(p: Any, held: Any) -> Any:
    _, h, _ = run(p, held_s=run(held)[0])
    return sum(np.sum((h[t + 1] - y[t]) ** 2) for t in range(T))


def gradients(p: Any) -> Any:
    s, h, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later_h = np.zeros(H)
    for t in reversed(range(T)):
        xc, g, i, f, o = steps[t]
        top_h = 2 * (h[t + 1] - y[t]) + later_h
        ds = o * top_h
        of = {
            "g": i * ds * (1 - g**2), "i": g * ds * i * (1 - i),
            "f": s[t] * ds * f * (1 - f), "o": s[t + 1] * top_h * o * (1 - o),
        }  # fmt: skip
        for gate, delta in of.items():
            found["w" + gate] += np.outer(delta, xc)
            found["b" + gate] += delta
        dxc = sum(p["w" + gate].T @ delta for gate, delta in of.items())
        later_h = dxc[D:]
    return found
