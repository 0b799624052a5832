"""A. Karpathy, min-char-rnn: what lossFun returns."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="min-char-rnn, as the function returns its gradients",
    source="A. Karpathy, min-char-rnn.py (gist, 2015), lossFun, the return value",
    claim=("each of dWxh, dWhh, dWhy, dbh, dby is clipped to [−5, 5] entry by entry",),
    convention="As in min-char-rnn. A chunk has 25 characters there and 8 here; with these weights "
    "some entries exceed 5.",
    verdict=DISAGREES,
    seen=False,
    rests_on="several public copies that agree; the gist itself was not seen",
    reading=(
        "The comment in the code states that clipping is meant, against exploding gradients. Where "
        "no entry exceeds 5 the returned value is the gradient. The program updates the parameters "
        "a few lines later; clipped there, the function would return the gradient."
    ),
    mistake=("clipped",),
    corrected=("return the gradients, and clip where the parameters are updated",),
    exactly="the gradient, clipped entry by entry to [−5, 5]",
    deliberate=True,
)

rng = np.random.default_rng(6)
T, D, H = 8, 3, 4
text = rng.integers(D, size=T + 1)
inputs, targets = np.eye(D)[text[:-1]], np.eye(D)[text[1:]]
params = {
    "Wxh": 2 * rng.normal(size=(H, D)), "Whh": rng.normal(size=(H, H)),
    "Why": 2 * rng.normal(size=(D, H)), "bh": np.full(H, 0.2), "by": np.full(D, 0.1),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, total = np.zeros(H), 0.0
    for t in range(T):
        h = np.tanh(p["Wxh"] @ inputs[t] + p["Whh"] @ h + p["bh"])
        y = p["Why"] @ h + p["by"]
        total = total + np.log(np.sum(np.exp(y))) - np.sum(targets[t] * y)
    return total


def change(gradient: Any) -> Any:
    return {name: np.clip(value, -5, 5) for name, value in gradient.items()}


def gradients(p: Any) -> Any:
    h = [np.zeros(H)]
    for t in range(T):
        h.append(np.tanh(p["Wxh"] @ inputs[t] + p["Whh"] @ h[t] + p["bh"]))
    d = {name: np.zeros_like(value) for name, value in p.items()}
    dhnext = np.zeros(H)
    for t in reversed(range(T)):
        e = np.exp(p["Why"] @ h[t + 1] + p["by"])
        dy = e / e.sum() - targets[t]
        d["Why"] += np.outer(dy, h[t + 1])
        d["by"] += dy
        dhraw = (1 - h[t + 1] ** 2) * (p["Why"].T @ dy + dhnext)
        d["bh"] += dhraw
        d["Wxh"] += np.outer(dhraw, inputs[t])
        d["Whh"] += np.outer(dhraw, h[t])
        dhnext = p["Whh"].T @ dhraw
    return {name: np.clip(value, -5, 5) for name, value in d.items()}
