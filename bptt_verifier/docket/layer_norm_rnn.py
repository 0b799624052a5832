"""Layer normalisation in a recurrent network."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="Layer normalisation in an RNN, way back with both means",
    source="J. L. Ba, J. R. Kiros & G. E. Hinton, Layer normalization, arXiv:1607.06450, "
    "equation (4), and its gradient",
    claim=(
        "a_t = W_hh h_{t−1} + W_xh x_t,  h_t = tanh(g ⊙ â_t + b),  â_t = (a_t − μ_t) / σ_t",
        "μ_t = mean(a_t),  σ_t² = mean((a_t − μ_t)²)",
        "∂L/∂a = (q − mean(q) − â ⊙ mean(q ⊙ â)) / σ,  q = g ⊙ ∂L/∂(g ⊙ â + b)",
    ),
    convention="Columns; the means run over the units of one step. No ε under the root. The last "
    "line has the total derivative, through μ and σ.",
    verdict=AGREES,
    seen=False,
    rests_on="a copy of the paper's text without most of its formulas, and equation (4) as it is "
    "commonly restated; the last line is derived from it here",
    reading="With μ and σ taken as constants, ∂L/∂a = q / σ. That is the direct derivative, and "
    "as the total one it is wrong.",
)

rng = np.random.default_rng(9)
T, D, H = 4, 3, 5
x, target = rng.normal(size=(T, D)), rng.normal(size=(T, H))
params = {
    "W_hh": rng.normal(size=(H, H)), "W_xh": rng.normal(size=(H, D)), "g": rng.normal(size=H),
    "b": np.full(H, 0.2),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, total = np.zeros(H), 0.0
    for t in range(T):
        a = p["W_hh"] @ h + p["W_xh"] @ x[t]
        a = a - np.mean(a)
        h = np.tanh(p["g"] * a / np.sqrt(np.mean(a**2)) + p["b"])
        total = total + np.sum((h - target[t]) ** 2) / 2
    return total


def gradients(p: Any) -> Any:
    h, steps = [np.zeros(H)], []
    for t in range(T):
        a = p["W_hh"] @ h[t] + p["W_xh"] @ x[t]
        deviation = np.sqrt(np.mean((a - a.mean()) ** 2))
        steps.append(((a - a.mean()) / deviation, deviation))
        h.append(np.tanh(p["g"] * steps[t][0] + p["b"]))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later = np.zeros(H)
    for t in reversed(range(T)):
        normal, deviation = steps[t]
        outer = (h[t + 1] - target[t] + later) * (1 - h[t + 1] ** 2)
        found["g"] += outer * normal
        found["b"] += outer
        q = p["g"] * outer
        da = (q - q.mean() - normal * np.mean(q * normal)) / deviation
        found["W_hh"] += np.outer(da, h[t])
        found["W_xh"] += np.outer(da, x[t])
        later = p["W_hh"].T @ da
    return found
