"""Dive into Deep Learning: the gradient under randomised truncation."""

from typing import Any

import numpy as np

from bptt_verifier.docket.d2l_immediate import D, H, T, loss, params, x, y
from bptt_verifier.docket.entry import AGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="Randomised truncation is right in expectation",
    source="A. Zhang et al., Dive into Deep Learning, section 9.7.1 (8.7 in older editions), "
    "Randomized Truncation",
    claim=(
        "z_t = ∂_w f(x_t, h_{t−1}, w) + ξ_t ∂_h f(x_t, h_{t−1}, w) ∂_w h_{t−1}",
        "Pr(ξ_t = 0) = 1 − π,  Pr(ξ_t = 1/π) = π,  hence E[z_t] = ∂_w h_t",
    ),
    convention="∂_w f is direct, ∂_w h_{t−1} is total and exact, in every z_t. The expectation is "
    "computed from both values of ξ_t.",
    verdict=AGREES,
    seen=True,
    rests_on="the section's source in an older edition",
    reading=(
        "The text adds that the expansion terminates where ξ_t = 0, which gives sequences of many "
        "lengths. In the formula z_t has two values only, and needs the exact ∂_w h_{t−1}: see "
        "d2l-randomised-recursion for what the text describes. π > 0 is needed for 1/π."
    ),
)


def gradients(p: Any) -> Any:
    keep = 0.25  # π; 1/π is exact in binary
    found = {name: np.zeros_like(value) for name, value in p.items()}
    h, by_x, by_h = np.zeros(H), np.zeros((H, H, D)), np.zeros((H, H, H))  # and ∂_w h, exact
    for t in range(T):
        direct_x, direct_h = np.eye(H)[:, :, None] * x[t], np.eye(H)[:, :, None] * h
        h = p["W_hx"] @ x[t] + p["W_hh"] @ h
        output = 2 * (p["W_qh"] @ h - y[t]) / T
        state = p["W_qh"].T @ output
        found["W_qh"] += np.outer(output, h)
        for weight, xi in ((1 - keep, 0), (keep, 1 / keep)):
            z_x = direct_x + xi * np.einsum("ij,jkl->ikl", p["W_hh"], by_x)
            z_h = direct_h + xi * np.einsum("ij,jkl->ikl", p["W_hh"], by_h)
            found["W_hx"] += weight * np.einsum("i,ikl->kl", state, z_x)
            found["W_hh"] += weight * np.einsum("i,ikl->kl", state, z_h)
        by_x = direct_x + np.einsum("ij,jkl->ikl", p["W_hh"], by_x)
        by_h = direct_h + np.einsum("ij,jkl->ikl", p["W_hh"], by_h)
    return found
