"""Dive into Deep Learning: ∂h_t/∂W in the sum, read as the total derivative."""

from typing import Any

import numpy as np

from bptt_verifier.docket.d2l_immediate import D, H, T, loss, params, run, x, y
from bptt_verifier.docket.entry import DISAGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="∂L/∂W_hh = Σ_t ∂L/∂h_t · ∂h_t/∂W_hh, with the total derivative",
    source="A reading of Dive into Deep Learning, section 9.7.2, prompted by issue 2616 (2024) of "
    "d2l-ai/d2l-en on GitHub",
    claim=(
        "h_t = W_hx x_t + W_hh h_{t−1},  o_t = W_qh h_t,  L = (1/T) Σ_t ℓ(o_t, y_t)",
        "∂h_t/∂W_hh = h_{t−1}ᵀ + (terms through h_{t−1}), in ∂L/∂W_hh = Σ_t ∂L/∂h_t · ∂h_t/∂W_hh",
    ),
    convention="As in d2l-immediate, but ∂h_t/∂W is the total derivative. ∂L/∂h_t is total too.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the text of the issue, which asks and proposes no such sum; its formulas in "
    "pictures were not seen",
    reading=(
        "As an observation on the total derivative the issue is right. In the book's sum the "
        "derivative is direct; or else the first factor is: Σ_t (∂ℓ_t/∂h_t)/T · dh_t/dW."
    ),
    corrected=("∂L/∂W_hh = Σ_t ∂L/∂h_t · ∂⁺h_t/∂W_hh = Σ_t ∂L/∂h_t h_{t−1}ᵀ",),
)


def gradients(p: Any) -> Any:
    h, by_x, by_h, totals = run(p), np.zeros((H, H, D)), np.zeros((H, H, H)), []
    for t in range(T):
        by_x = np.einsum("ij,jkl->ikl", p["W_hh"], by_x) + np.eye(H)[:, :, None] * x[t]
        by_h = np.einsum("ij,jkl->ikl", p["W_hh"], by_h) + np.eye(H)[:, :, None] * h[t]
        totals.append((by_x, by_h))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    state = np.zeros(H)
    for t in range(T, 0, -1):
        output = 2 * (p["W_qh"] @ h[t] - y[t - 1]) / T
        state = p["W_hh"].T @ state + p["W_qh"].T @ output
        found["W_qh"] += np.outer(output, h[t])
        found["W_hx"] += np.einsum("i,ikl->kl", state, totals[t - 1][0])
        found["W_hh"] += np.einsum("i,ikl->kl", state, totals[t - 1][1])
    return found
