"""Dive into Deep Learning, 2019: the derivative of a state, with one factor more."""

from typing import Any

import numpy as np

from bptt_verifier.docket.d2l_immediate import T, loss, params, run, x, y
from bptt_verifier.docket.entry import DISAGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="∂h_t/∂w as a sum of products, from step i to t",
    source="A. Zhang et al., Dive into Deep Learning, section 8.7.1, equation (8.7.4), before pull "
    "request 431 of d2l-ai/d2l-en (2019)",
    claim=(
        "∂_w h_t = ∂_w f(x_t, h_{t−1}, w) + ∂_h f(x_t, h_{t−1}, w) ∂_w h_{t−1}",
        "= Σ_{i=t}^{1} [Π_{j=t}^{i} ∂_h f(x_j, h_{j−1}, w)] ∂_w f(x_i, h_{i−1}, w)",
    ),
    convention="As in d2l-products, where both f and the loss are explained. ∂_w f is direct.",
    verdict=DISAGREES,
    seen=True,
    rests_on="three stored versions of the section from before the pull request, which says that "
    "the equation is wrong and to try i = t",
    reading="The first line is right. With i = t the product of the second has the factor "
    "∂_h f(x_t, …) where the first has none. If j runs down to i + 1, it is right.",
    corrected=("Σ_{i=t}^{1} [Π_{j=t}^{i+1} ∂_h f(x_j, h_{j−1}, w)] ∂_w f(x_i, h_{i−1}, w)",),
)


def gradients(p: Any) -> Any:
    h = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    for t in range(1, T + 1):
        output = 2 * (p["W_qh"] @ h[t] - y[t - 1]) / T
        found["W_qh"] += np.outer(output, h[t])
        for i in range(1, t + 1):
            factors = np.linalg.matrix_power(p["W_hh"], t - i + 1)  # j = i … t
            row = output @ p["W_qh"] @ factors
            found["W_hx"] += np.outer(row, x[i - 1])
            found["W_hh"] += np.outer(row, h[i - 1])
    return found
