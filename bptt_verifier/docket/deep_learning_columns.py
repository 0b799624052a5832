"""Deep Learning, section 10.2.2: gradients as columns."""

from typing import Any

import numpy as np

from bptt_verifier.docket.deep_learning_draft import H, T, loss, params, x, y
from bptt_verifier.docket.entry import DISAGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="Gradients as columns: Wᵀ (∇L) diag(1 − h²)",
    source="I. Goodfellow, Y. Bengio & A. Courville, Deep Learning, MIT Press 2016, section "
    "10.2.2, equations (10.20) to (10.28); and the Chinese translation, "
    "exacity/deeplearningbook-chinese on GitHub, Chapter10/sequence_modeling_rnn.tex",
    claim=(
        "∇_{h(t)} L = (∂h(t+1)/∂h(t))ᵀ (∇_{h(t+1)} L) + (∂o(t)/∂h(t))ᵀ (∇_{o(t)} L)",
        "= Wᵀ (∇_{h(t+1)} L) diag(1 − h(t+1)²) + Vᵀ ∇_{o(t)} L",
        "∇_W L = Σ_t diag(1 − h(t)²) (∇_{h(t)} L) h(t−1)ᵀ,  and likewise for U and b",
    ),
    convention="Columns: ∇_h L has shape H × 1 and meets Vᵀ from the right. A column times a "
    "diagonal matrix of H × H is not defined for H > 1; from left to right as factors of entries "
    "it is (Wᵀ ∇L) ⊙ (1 − h²), which is the code here.",
    verdict=DISAGREES,
    seen=True,
    rests_on="a transcription of the English text from its pages, with the numbers of the "
    "equations, and two stored versions of the translation's source, which agree with it; other "
    "printings may have another order",
    reading="The first line is right. With H = 1 the second is, and with ⊙ for the diagonal inside "
    "of the product, Wᵀ (∇L ⊙ (1 − h²)). With rows the diagonal stands on the right: see "
    "deep-learning-draft. The formulas for the parameters, which follow, have the right order.",
    mistake=("activation-derivative-after-matrix-product",),
    corrected=("∇_{h(t)} L = Wᵀ diag(1 − h(t+1)²) ∇_{h(t+1)} L + Vᵀ ∇_{o(t)} L",),
)


def gradients(q: Any) -> Any:
    h, p = [np.zeros(H)], []
    for t in range(T):
        h.append(np.tanh(q["b"] + q["W"] @ h[t] + q["U"] @ x[t]))
        e = np.exp(q["c"] + q["V"] @ h[t + 1])
        p.append(e / e.sum())
    found = {name: np.zeros_like(value) for name, value in q.items()}
    later = np.zeros(H)
    for t in range(T, 0, -1):
        output = p[t - 1] - y[t - 1]
        slope, state = 1 - h[t] ** 2, later + q["V"].T @ output
        found["V"] += np.outer(output, h[t])
        found["c"] += output
        found["W"] += np.outer(slope * state, h[t - 1])
        found["U"] += np.outer(slope * state, x[t - 1])
        found["b"] += slope * state
        later = (q["W"].T @ state) * slope
    return found
