"""A decoder with additive attention."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="Additive attention in a decoder, way back",
    source="D. Bahdanau, K. Cho & Y. Bengio, Neural machine translation by jointly learning to "
    "align and translate, arXiv:1409.0473, appendix A.1.2, and its gradient",
    claim=(
        "e_ij = v_aᵀ tanh(W_a s_{i−1} + U_a h_j),  α_i = softmax(e_i),  c_i = Σ_j α_ij h_j",
        "s_i = tanh(W s_{i−1} + C c_i)",
        "∂L/∂e_i = α_i ⊙ (∂L/∂α_i − α_iᵀ ∂L/∂α_i),  ∂L/∂α_ij = h_jᵀ ∂L/∂c_i",
        "∂L/∂s_{i−1} = Wᵀ δ_i + W_aᵀ Σ_j (∂L/∂e_ij v_a ⊙ (1 − tanh²)) + (its own loss)",
    ),
    convention="Columns, total derivatives. The decoder is a plain RNN instead of the paper's GRU, "
    "and the annotations h_j are parameters, so that their gradient is compared too.",
    verdict=AGREES,
    seen=False,
    rests_on="notes on the paper that restate its appendix; the last two lines are derived from it "
    "here",
    reading="Without the second term of the last line, the path through the weights α, the claim "
    "would be wrong.",
)

rng = np.random.default_rng(10)
T, J, N, H, A = 3, 4, 3, 4, 2
target = rng.normal(size=(T, H))
params = {
    "Wa": rng.normal(size=(A, H)), "Ua": rng.normal(size=(A, N)), "va": rng.normal(size=A),
    "W": rng.normal(size=(H, H)) / 2, "C": rng.normal(size=(H, N)), "h": rng.normal(size=(J, N)),
    "s0": rng.normal(size=H),
}  # fmt: skip


def loss(p: Any) -> Any:
    s, total = p["s0"], 0.0
    for t in range(T):
        e = np.exp(np.tanh(p["h"] @ p["Ua"].T + p["Wa"] @ s) @ p["va"])
        s = np.tanh(p["W"] @ s + p["C"] @ ((e / np.sum(e)) @ p["h"]))
        total = total + np.sum((s - target[t]) ** 2) / 2
    return total


def gradients(p: Any) -> Any:
    s, steps = [p["s0"]], []
    for t in range(T):
        k = np.tanh(p["h"] @ p["Ua"].T + p["Wa"] @ s[t])
        e = np.exp(k @ p["va"])
        steps.append((k, e / e.sum(), (e / e.sum()) @ p["h"]))
        s.append(np.tanh(p["W"] @ s[t] + p["C"] @ steps[t][2]))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later = np.zeros(H)
    for t in reversed(range(T)):
        k, weights, context = steps[t]
        delta = (s[t + 1] - target[t] + later) * (1 - s[t + 1] ** 2)
        found["W"] += np.outer(delta, s[t])
        found["C"] += np.outer(delta, context)
        dc = p["C"].T @ delta
        dweights = p["h"] @ dc
        de = weights * (dweights - weights @ dweights)
        inner = np.outer(de, p["va"]) * (1 - k**2)
        found["va"] += k.T @ de
        found["Ua"] += inner.T @ p["h"]
        found["Wa"] += np.outer(inner.sum(axis=0), s[t])
        found["h"] += np.outer(weights, dc) + inner @ p["Ua"]
        later = p["W"].T @ delta + p["Wa"].T @ inner.sum(axis=0)
    found["s0"] += later
    return found
