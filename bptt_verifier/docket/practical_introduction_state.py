"""Deep Learning: A Practical Introduction, the gradient of the hidden state."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="W before diag, where the forward pass has Wᵀ",
    source="Deep Learning: A Practical Introduction, chapter 5, equations (5.6) to (5.10), "
    "page 194",
    claim=(
        "h_{t+1} = tanh(z_{t+1}),  z_{t+1} = W_xhᵀ x_{t+1} + W_hhᵀ h_t + b_h",
        "∂h_{t+1}/∂h_t = W_hh diag(tanh′(z_{t+1}))",
        "∇_{h_t} J = W_ho δ_t + W_hh diag(tanh′(z_{t+1})) ∇_{h_{t+1}} J",
    ),
    convention=(
        "Denominator layout: row i of ∂h_{t+1}/∂h_t belongs to h_{i,t}. The forward pass has "
        "W_hhᵀ, so the way back has W_hh. δ_t is the derivative with respect to the "
        "output's argument."
    ),
    verdict=AGREES,
    seen=True,
    rests_on="page 194 on the web; the gradients of the weights, which follow it there, are "
    "written here as δ times what the weight met",
    reading="Read in numerator layout, with rows that belong to h_{t+1}, the "
    "second formula is "
    "the transposed Jacobian.",
)

rng = np.random.default_rng(1)
T, D, H, O = 4, 2, 3, 2
x, y = rng.normal(size=(T, D)), rng.normal(size=(T, O))
params = {
    "W_xh": rng.normal(size=(D, H)), "W_hh": rng.normal(size=(H, H)) / 2,
    "W_ho": rng.normal(size=(H, O)), "b_h": np.full(H, 0.3),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, total = np.zeros(H), 0.0
    for t in range(T):
        h = np.tanh(p["W_xh"].T @ x[t] + p["W_hh"].T @ h + p["b_h"])
        total = total + np.sum((p["W_ho"].T @ h - y[t]) ** 2) / 2
    return total


def gradients(p: Any) -> Any:
    h = [np.zeros(H)]
    for t in range(T):
        h.append(np.tanh(p["W_xh"].T @ x[t] + p["W_hh"].T @ h[t] + p["b_h"]))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later = np.zeros(H)
    for t in range(T, 0, -1):
        output = p["W_ho"].T @ h[t] - y[t - 1]
        state = p["W_ho"] @ output + later
        argument = np.diag(1 - h[t] ** 2) @ state
        found["W_ho"] += np.outer(h[t], output)
        found["W_xh"] += np.outer(x[t - 1], argument)
        found["W_hh"] += np.outer(h[t - 1], argument)
        found["b_h"] += argument
        later = p["W_hh"] @ argument
    return found
