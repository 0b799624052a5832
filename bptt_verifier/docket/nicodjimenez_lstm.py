"""nicodjimenez/lstm: the cell state's gradient."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="ds = o · top_diff_h + top_diff_s",
    source="nicodjimenez/lstm on GitHub, lstm.py, top_diff_is",
    claim=(
        "s_t = g_t · i_t + s_{t−1} · f_t,  h_t = s_t · o_t",
        "ds = o · top_diff_h + top_diff_s,  bottom_diff_s = ds · f",
    ),
    convention="h_t = s_t · o_t without tanh, as in the code; top_diff_s is the total gradient of "
    "s_t that comes from the next step. The loss here is Σ_t ‖h_t − y_t‖²; the "
    "repository's test has the first entry of h_t alone, which changes nothing in ds.",
    verdict=AGREES,
    seen=True,
    rests_on="the whole file",
    reading="With h_t = o_t · tanh(s_t), which other texts have, a factor 1 − tanh² s_t is "
    "missing. Several readers ask for it; the code's forward pass does not have that tanh.",
)

rng = np.random.default_rng(4)
T, D, H = 4, 2, 3
x, y = rng.normal(size=(T, D)), rng.normal(size=(T, H))
params = {
    "wg": rng.normal(size=(H, D + H)), "wi": rng.normal(size=(H, D + H)),
    "wf": rng.normal(size=(H, D + H)), "wo": rng.normal(size=(H, D + H)),
    "bg": np.full(H, 0.3), "bi": np.full(H, 0.2), "bf": np.full(H, 0.5), "bo": np.full(H, 0.1),
}  # fmt: skip


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


def run(p: Any, held_s: Any = None) -> tuple[list[Any], list[Any], list[Any]]:
    """All s, all h, and what each step computes; each step takes s from `held_s` if given."""
    s, h, steps = [np.zeros(H)], [np.zeros(H)], []
    for t in range(T):
        xc = np.concatenate([x[t], h[t]])
        g, i = np.tanh(p["wg"] @ xc + p["bg"]), sigmoid(p["wi"] @ xc + p["bi"])
        f, o = sigmoid(p["wf"] @ xc + p["bf"]), sigmoid(p["wo"] @ xc + p["bo"])
        s.append(g * i + (s if held_s is None else held_s)[t] * f)
        h.append(s[t + 1] * o)
        steps.append((xc, g, i, f, o))
    return s, h, steps


def gradients(p: Any) -> Any:
    s, h, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later_h, later_s = np.zeros(H), np.zeros(H)
    for t in reversed(range(T)):
        xc, g, i, f, o = steps[t]
        top_h = 2 * (h[t + 1] - y[t]) + later_h
        ds = o * top_h + later_s
        of = {
            "g": i * ds * (1 - g**2), "i": g * ds * i * (1 - i),
            "f": s[t] * ds * f * (1 - f), "o": s[t + 1] * top_h * o * (1 - o),
        }  # fmt: skip
        for gate, delta in of.items():
            found["w" + gate] += np.outer(delta, xc)
            found["b" + gate] += delta
        dxc = sum(p["w" + gate].T @ delta for gate, delta in of.items())
        later_h, later_s = dxc[D:], ds * f
    return found
