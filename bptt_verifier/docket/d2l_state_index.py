"""Dive into Deep Learning, before 2020: the state that a recurrent weight meets."""

from typing import Any

import numpy as np

from bptt_verifier.docket.d2l_immediate import T, loss, params, run, x, y
from bptt_verifier.docket.entry import DISAGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="∂h_t/∂W_hh with h_j in the place of h_{j−1}",
    source="A. Zhang et al., Dive into Deep Learning, section 8.7.2, equation (8.7.16), before "
    "pull request 1402 of d2l-ai/d2l-en (2020)",
    claim=(
        "h_t = W_hx x_t + W_hh h_{t−1}",
        "∂_{W_hh} h_t = Σ_{j=1}^{t} (W_hhᵀ)^{t−j} h_j",
        "∂_{W_hx} h_t = Σ_{j=1}^{t} (W_hhᵀ)^{t−j} x_j",
    ),
    convention="As in d2l-immediate. (W_hhᵀ)^{t−j} stands as the adjoint, to the left of the "
    "gradient of h_t, and h_j or x_j as the row that the weight met.",
    verdict=DISAGREES,
    mistake=("hidden-state-off-by-one",),
    seen=True,
    rests_on="two stored versions of the section, and the pull request, which says that the index "
    "should be j − 1",
    reading="The second sum is right. If step j computed h_{j+1} from h_j the first would be too.",
    corrected=("∂_{W_hh} h_t = Σ_{j=1}^{t} (W_hhᵀ)^{t−j} h_{j−1}",),
)


def gradients(p: Any) -> Any:
    h = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    for t in range(1, T + 1):
        output = 2 * (p["W_qh"] @ h[t] - y[t - 1]) / T
        found["W_qh"] += np.outer(output, h[t])
        for j in range(1, t + 1):
            state = np.linalg.matrix_power(p["W_hh"].T, t - j) @ p["W_qh"].T @ output
            found["W_hx"] += np.outer(state, x[j - 1])
            found["W_hh"] += np.outer(state, h[j])
    return found
