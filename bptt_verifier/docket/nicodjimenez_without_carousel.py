"""nicodjimenez/lstm, pull request 49: the cell state's gradient without the next step."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="ds = o · top_diff_h, without top_diff_s",
    source="nicodjimenez/lstm on GitHub, pull request 49 (2021, closed without a merge)",
    claim=("ds = o · top_diff_h",),
    convention="As in nicodjimenez-lstm: h_t = s_t · o_t and s_t = g_t · i_t + s_{t−1} · f_t.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the text of the pull request, and the file that it changes",
    reading=(
        "s_t acts on h_t and on s_{t+1}; the second path is cut. The request reports a lower loss "
        "after 100 steps, 6e-9 against 3e-6: a lower loss does not show that a gradient is right."
    ),
    corrected=("ds = o ⊙ top_diff_h + top_diff_s",),
)

rng = np.random.default_rng(4)
T, D, H = 4, 2, 3
x, y = rng.normal(size=(T, D)), rng.normal(size=(T, H))
params = {
    "wg": rng.normal(size=(H, D + H)), "wi": rng.normal(size=(H, D + H)),
    "wf": rng.normal(size=(H, D + H)), "wo": rng.normal(size=(H, D + H)),
    "bg": np.full(H, 0.3), "bi": np.full(H, 0.2), "bf": np.full(H, 0.5), "bo": np.full(H, 0.1),
}  # fmt: skip


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def loss(p: Any) -> Any:
    s, h, total = np.zeros(H), np.zeros(H), 0.0
    for t in range(T):
        xc = np.concatenate([x[t], h])
        g, i = np.tanh(p["wg"] @ xc + p["bg"]), sigmoid(p["wi"] @ xc + p["bi"])
        f, o = sigmoid(p["wf"] @ xc + p["bf"]), sigmoid(p["wo"] @ xc + p["bo"])
        s = g * i + s * f
        h = s * o
        total = total + np.sum((h - y[t]) ** 2)
    return total


def gradients(p: Any) -> Any:
    s, h, steps = [np.zeros(H)], [np.zeros(H)], []
    for t in range(T):
        xc = np.concatenate([x[t], h[t]])
        g, i = np.tanh(p["wg"] @ xc + p["bg"]), sigmoid(p["wi"] @ xc + p["bi"])
        f, o = sigmoid(p["wf"] @ xc + p["bf"]), sigmoid(p["wo"] @ xc + p["bo"])
        s.append(g * i + s[t] * f)
        h.append(s[t + 1] * o)
        steps.append((xc, g, i, f, o))
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
