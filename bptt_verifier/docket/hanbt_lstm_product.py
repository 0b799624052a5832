"""Hanbingtao, deep learning from zero: the error of an LSTM as a product over the steps."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="δ_kᵀ = Π_j (δ_o,jᵀ W_oh + δ_f,jᵀ W_fh + δ_i,jᵀ W_ih + δ_c̃,jᵀ W_ch)",
    source="Hanbingtao (hanbt), 零基础入门深度学习 (6), on the LSTM, the error carried to any step "
    "k, equation 13; questioned in hanbt/learn_dl on GitHub, issue 33",
    claim=(
        "δ_{t−1}ᵀ = δ_o,tᵀ W_oh + δ_f,tᵀ W_fh + δ_i,tᵀ W_ih + δ_c̃,tᵀ W_ch",
        "δ_kᵀ = Π_{j=k}^{t−1} (δ_o,jᵀ W_oh + δ_f,jᵀ W_fh + δ_i,jᵀ W_ih + δ_c̃,jᵀ W_ch)",
    ),
    convention="δ_k = ∂E/∂h_k as a row. A product of rows is not defined for more than one unit, "
    "so that the model here has one. The errors of the gates on the right are the true ones, along "
    "all later steps; the text prints no brackets. Here E is of h at the last step.",
    verdict=DISAGREES,
    seen=True,
    rests_on="four stored copies of the article or of its equations, and issue 33, which asks "
    "whether the product is meant",
    reading="The first line is right where the errors of the gates have both ways through the "
    "cell state; see hanbt-lstm-cell. There is no product over steps: each δ_j already contains "
    "the later ones.",
    corrected=("δ_{k}ᵀ = δ_o,k+1ᵀ W_oh + δ_f,k+1ᵀ W_fh + δ_i,k+1ᵀ W_ih + δ_c̃,k+1ᵀ W_ch",),
)

rng = np.random.default_rng(14)
T, D = 3, 2
x, y = rng.normal(size=(T, D)), 0.5
params = {"W_h": 3 * rng.normal(size=4), "W_x": rng.normal(size=(4, D)), "b": rng.normal(size=4)}


def run(p: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """All h, all c, and f, i, c̃ and o of each step."""
    h, c, steps = [0.0], [0.0], []
    for t in range(T):
        net = p["W_h"] * h[t] + p["W_x"] @ x[t] + p["b"]
        f, i, o, candidate = sigmoid(net[0]), sigmoid(net[1]), sigmoid(net[3]), np.tanh(net[2])
        c.append(f * c[t] + i * candidate)
        h.append(o * np.tanh(c[t + 1]))
        steps.append((f, i, candidate, o))
    return h, c, steps


def loss(p: Any) -> Any:
    return (run(p)[0][T] - y) ** 2 / 2


def find_gate_errors(step: Any, before: Any, c: Any, dh: Any, later: Any) -> tuple[Any, Any]:
    """The errors of f, i, c̃ and o, and what goes to the cell state before."""
    f, i, candidate, o = step
    dc = later + dh * o * (1 - np.tanh(c) ** 2)
    of = [
        dc * before * f * (1 - f), dc * candidate * i * (1 - i), dc * i * (1 - candidate**2),
        dh * np.tanh(c) * o * (1 - o),
    ]  # fmt: skip
    return np.stack(of), dc * f


def gradients(p: Any) -> Any:
    h, c, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    sums: dict[int, Any] = {}
    dh, later = h[T] - y, 0.0
    for t in range(T, 0, -1):
        # By the first line, to have the true errors of the gates.
        true, into_cell = find_gate_errors(steps[t - 1], c[t - 1], c[t], dh, later)
        # By the second, for all steps before the last.
        claimed = dh if t == T else product_from(sums | {t: true @ p["W_h"]}, t)
        delta, _ = find_gate_errors(steps[t - 1], c[t - 1], c[t], claimed, later)
        found["W_h"] += delta * h[t - 1]
        found["W_x"] += np.outer(delta, x[t - 1])
        found["b"] += delta
        sums[t] = true @ p["W_h"]
        dh, later = sums[t], into_cell
    return found


def product_from(sums: Any, k: int) -> Any:
    """Π_{j=k}^{T−1} of the sums over the gates."""
    result = 1
    for j in range(k, T):
        result = result * sums[j]
    return result
