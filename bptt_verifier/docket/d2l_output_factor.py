"""Dive into Deep Learning, an early version: two ways to an output, multiplied."""

from typing import Any

import numpy as np

from bptt_verifier.docket.d2l_output_terms import T, loss, params, run, y
from bptt_verifier.docket.entry import DISAGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="∂_w g times ∂_w h_t, where two ways are summed",
    source="A. Zhang et al., Dive into Deep Learning, section on backpropagation through time, "
    "the gradient of the objective, in an early version",
    claim=(
        "h_t = f(x_t, h_{t−1}, w),  o_t = g(h_t, w),  L = Σ_t l(y_t, o_t)",
        "∂_w L = Σ_t ∂_{o_t} l(y_t, o_t) ∂_w g(h_t, w) ∂_w h_t",
    ),
    convention="As in d2l-output-terms; ∂_w g is direct, ∂_w h_t is total, and the product is "
    "taken entry by entry.",
    verdict=DISAGREES,
    seen=True,
    rests_on="a stored version of the section's source; a later one has the sum of "
    "d2l-output-terms",
    reading="With ∂_{h_t} g in the place of ∂_w g it is the way through h_t, and the whole "
    "gradient if g does not have w. That is what later editions print, with w_h and w_o apart.",
    corrected=("∂_w L = Σ_t ∂_{o_t} l(y_t, o_t) [∂_w g(h_t, w) + ∂_{h_t} g(h_t, w) ∂_w h_t]",),
)


def gradients(p: Any) -> Any:
    h, by_w = run(p)
    found = np.zeros_like(p["w"])
    for t in range(1, T + 1):
        output = 2 * (p["w"][0] * h[t] + p["w"][1] - y[t - 1])
        found += output * np.stack([h[t], 1]) * by_w[t]
    return {"w": found}
