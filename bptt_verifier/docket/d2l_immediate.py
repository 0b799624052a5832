"""Dive into Deep Learning: ∂h_t/∂W in the sum, as the direct derivative."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="∂L/∂W_hh = Σ_t ∂L/∂h_t · h_{t−1}ᵀ, with the direct derivative",
    source="A. Zhang et al., Dive into Deep Learning, section 9.7.2 (8.7 in older editions), "
    "Backpropagation Through Time in Detail",
    claim=(
        "h_t = W_hx x_t + W_hh h_{t−1},  o_t = W_qh h_t,  L = (1/T) Σ_t ℓ(o_t, y_t)",
        "∂L/∂h_t = W_hhᵀ ∂L/∂h_{t+1} + W_qhᵀ ∂L/∂o_t",
        "∂L/∂W_hx = Σ_t prod(∂L/∂h_t, ∂h_t/∂W_hx) = Σ_t ∂L/∂h_t x_tᵀ",
        "∂L/∂W_hh = Σ_t prod(∂L/∂h_t, ∂h_t/∂W_hh) = Σ_t ∂L/∂h_t h_{t−1}ᵀ",
    ),
    convention=(
        "Columns. ∂L/∂h_t is total, along all paths; ∂h_t/∂W_hh is direct, with h_{t−1} held. "
        "The notation does not tell the two apart. The activation is the identity."
    ),
    verdict=AGREES,
    seen=True,
    rests_on="the section's source in an older edition, and issues 2505 and 2616 of d2l-ai/d2l-en "
    "on the current one",
    reading="Issue 2616 reads ∂h_t/∂W_hh as the total derivative, which is not h_{t−1}ᵀ. Then the "
    "sum counts a path from the W_hh of step k to the loss of step s as s − k + 1 paths: see "
    "d2l-total.",
)

rng = np.random.default_rng(3)
T, D, H, Q = 4, 2, 3, 2
x, y = rng.normal(size=(T, D)), rng.normal(size=(T, Q))
params = {
    "W_hx": rng.normal(size=(H, D)), "W_hh": rng.normal(size=(H, H)) / 2,
    "W_qh": rng.normal(size=(Q, H)),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, total = np.zeros(H), 0.0
    for t in range(T):
        h = p["W_hx"] @ x[t] + p["W_hh"] @ h
        total = total + np.sum((p["W_qh"] @ h - y[t]) ** 2) / T
    return total


def run(p: Any) -> list[Any]:
    """All states, from h_0 = 0."""
    h = [np.zeros(H)]
    for t in range(T):
        h.append(p["W_hx"] @ x[t] + p["W_hh"] @ h[t])
    return h


def gradients(p: Any) -> Any:
    h = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    state = np.zeros(H)
    for t in range(T, 0, -1):
        output = 2 * (p["W_qh"] @ h[t] - y[t - 1]) / T
        state = p["W_hh"].T @ state + p["W_qh"].T @ output
        found["W_qh"] += np.outer(output, h[t])
        found["W_hx"] += np.outer(state, x[t - 1])
        found["W_hh"] += np.outer(state, h[t - 1])
    return found
