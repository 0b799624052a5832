"""A. Karpathy, min-char-rnn: the equations."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="min-char-rnn, before the gradients are clipped",
    source="A. Karpathy, min-char-rnn.py (gist, 2015), lossFun, backward pass",
    claim=(
        "dy = p − 1_target,  dh = Whyᵀ dy + dhnext,  dhraw = (1 − h²) ⊙ dh,  dhnext = Whhᵀ dhraw",
        "dWhy = Σ dy h_tᵀ,  dWxh = Σ dhraw x_tᵀ,  dWhh = Σ dhraw h_{t−1}ᵀ",
        "dbh = Σ dhraw,  dby = Σ dy",
    ),
    convention="Columns; dhnext is the total gradient of h_t that comes from step t + 1; the loss "
    "is summed over the steps, not averaged.",
    verdict=AGREES,
    seen=False,
    rests_on="several public copies that agree; the gist itself was not seen",
    reading="The function returns these gradients clipped to ±5: see min-char-rnn-clipped.",
)

rng = np.random.default_rng(6)
T, D, H = 5, 3, 4
inputs, targets = np.eye(D)[[0, 2, 1, 1, 0]], np.eye(D)[[2, 1, 1, 0, 2]]
params = {
    "Wxh": rng.normal(size=(H, D)), "Whh": rng.normal(size=(H, H)) / 2,
    "Why": rng.normal(size=(D, H)), "bh": np.full(H, 0.2), "by": np.full(D, 0.1),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, total = np.zeros(H), 0.0
    for t in range(T):
        h = np.tanh(p["Wxh"] @ inputs[t] + p["Whh"] @ h + p["bh"])
        y = p["Why"] @ h + p["by"]
        total = total + np.log(np.sum(np.exp(y))) - np.sum(targets[t] * y)
    return total


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
    return d
