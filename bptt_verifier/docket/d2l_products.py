"""Dive into Deep Learning: the derivative of a state as a sum of products."""

from typing import Any

import numpy as np

from bptt_verifier.docket.d2l_immediate import T, loss, params, run, x, y
from bptt_verifier.docket.entry import AGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="∂h_t/∂w as a sum of products, from the step after i to t",
    source="A. Zhang et al., Dive into Deep Learning, section 9.7.1 (8.7 in older editions), "
    "Analysis of Gradients in RNNs, the sum without recursion",
    claim=(
        "a_t = b_t + c_t a_{t−1},  a_0 = 0:  a_t = b_t + Σ_{i=1}^{t−1} (Π_{j=i+1}^{t} c_j) b_i",
        "∂h_t/∂w = ∂f_t/∂w + Σ_{i=1}^{t−1} (Π_{j=i+1}^{t} ∂f_j/∂h_{j−1}) ∂f_i/∂w",
        "∂L/∂w = (1/T) Σ_t ∂l(y_t, o_t)/∂o_t · ∂g(h_t)/∂h_t · ∂h_t/∂w",
    ),
    convention="f_j is f(x_j, h_{j−1}, w), and ∂f_j/∂w is direct. The section does not tell "
    "scalars and matrices apart; for matrices the factors of larger j stand to the left. Here "
    "f is the linear step of d2l-immediate, so that every ∂f_j/∂h_{j−1} is W_hh.",
    verdict=AGREES,
    seen=True,
    rests_on="the section's source in three editions",
    reading="Until 2019 the products began at j = i: see d2l-products-from-i.",
)


def gradients(p: Any) -> Any:
    h = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    for t in range(1, T + 1):
        output = 2 * (p["W_qh"] @ h[t] - y[t - 1]) / T
        found["W_qh"] += np.outer(output, h[t])
        for i in range(1, t + 1):
            factors = np.linalg.matrix_power(p["W_hh"], t - i)  # j = i + 1 … t
            row = output @ p["W_qh"] @ factors
            found["W_hx"] += np.outer(row, x[i - 1])
            found["W_hh"] += np.outer(row, h[i - 1])
    return found
