"""Randomised truncation as a recursion, which terminates."""

from itertools import product
from typing import Any

import numpy as np

from bptt_verifier.docket.d2l_immediate import D, H, T, loss, params, x, y
from bptt_verifier.docket.entry import AGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="Randomised truncation as a recursion is right in expectation",
    source="A. Zhang et al., Dive into Deep Learning, section 9.7.1 (8.7 in older editions), "
    "Randomized Truncation, the sentence that the computation terminates; after C. Tallec & "
    "Y. Ollivier, 2017",
    claim=(
        "z_t = ∂_w f(x_t, h_{t−1}, w) + ξ_t ∂_h f(x_t, h_{t−1}, w) z_{t−1},  z_0 = 0",
        "Pr(ξ_t = 0) = 1 − π,  Pr(ξ_t = 1/π) = π,  ξ_1 … ξ_T independent, hence E[z_t] = ∂_w h_t",
    ),
    convention="∂_w f is direct, ∂_w h_t is total. The expectation is computed exactly, over all "
    "values of ξ_1 … ξ_T. π > 0.",
    verdict=AGREES,
    seen=False,
    rests_on="the section's text in an older edition; the recursion is written here from what it "
    "describes, and the paper that it cites was not seen",
    reading="The section prints ∂_w h_{t−1} in the place of z_{t−1}, which is right in expectation "
    "too, and does not terminate: see d2l-randomised-truncation. If ξ_t depends on those before, "
    "the expectation is another.",
)


def gradients(p: Any) -> Any:
    keep = 0.25  # π; 1/π is exact in binary
    found = {name: np.zeros_like(value) for name, value in p.items()}
    for kept in product((False, True), repeat=T):
        weight = np.prod([keep if each else 1 - keep for each in kept])
        h, by_x, by_h = np.zeros(H), np.zeros((H, H, D)), np.zeros((H, H, H))
        for t in range(T):
            through = p["W_hh"] * (1 / keep if kept[t] else 0)
            by_x = np.einsum("ij,jkl->ikl", through, by_x) + np.eye(H)[:, :, None] * x[t]
            by_h = np.einsum("ij,jkl->ikl", through, by_h) + np.eye(H)[:, :, None] * h
            h = p["W_hx"] @ x[t] + p["W_hh"] @ h
            output = weight * 2 * (p["W_qh"] @ h - y[t]) / T
            state = p["W_qh"].T @ output
            found["W_qh"] += np.outer(output, h)
            found["W_hx"] += np.einsum("i,ikl->kl", state, by_x)
            found["W_hh"] += np.einsum("i,ikl->kl", state, by_h)
    return found
