"""Pascanu, Mikolov & Bengio: the Jacobian of a step."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="The Jacobian of a step, with Wᵀ",
    source="R. Pascanu, T. Mikolov & Y. Bengio, On the difficulty of training recurrent neural "
    "networks, ICML 2013, arXiv:1211.5063, equations (2) to (5)",
    claim=(
        "x_t = W_rec σ(x_{t−1}) + W_in u_t + b",
        "∂x_i/∂x_{i−1} = W_recᵀ diag(σ′(x_{i−1}))",
        "∂E_t/∂θ = Σ_k ∂E_t/∂x_t · ∂x_t/∂x_k · ∂⁺x_k/∂θ",
    ),
    convention=(
        "Numerator layout: in the third formula ∂E/∂x is a row and multiplies the Jacobian from "
        "the left; ∂⁺ is the direct derivative. Here there is an error at the last step only."
    ),
    verdict=DISAGREES,
    seen=True,
    rests_on="the paper as a transcription of its text, and questions 330448 and 551574 of "
    "stats.stackexchange.com, which quote (2) and (5)",
    reading=(
        "In denominator layout the derivative is diag(σ′(x_{i−1})) W_recᵀ, so that Wᵀ belongs "
        "there but the two factors change places. W_recᵀ diag(σ′(x_i)) is right as the adjoint of "
        "a step h_i = σ(x_i), with i for i − 1. The paper's bounds use ‖W_recᵀ‖ = ‖W_rec‖, "
        "‖diag(σ′)‖ ≤ γ and ‖AB‖ ≤ ‖A‖ ‖B‖, and stand under every reading; the norm of the "
        "product itself is another. The name below is that of the code: a row times W_recᵀ is "
        "W_rec times a column, where W_recᵀ belongs."
    ),
    mistake=("untransposed-recurrent-weight",),
    corrected=("∂x_i/∂x_{i−1} = W_rec diag(σ′(x_{i−1}))",),
)

rng = np.random.default_rng(0)
T, D, H = 4, 2, 3
u, target = rng.normal(size=(T, D)), rng.normal(size=H)
params = {"W_rec": rng.normal(size=(H, H)) / 2, "W_in": rng.normal(size=(H, D)), "b": np.ones(H)}


def loss(p: Any) -> Any:
    x = np.zeros(H)
    for t in range(T):
        x = p["W_rec"] @ np.tanh(x) + p["W_in"] @ u[t] + p["b"]
    return np.sum((x - target) ** 2) / 2


def gradients(p: Any) -> Any:
    x = [np.zeros(H)]
    for t in range(T):
        x.append(p["W_rec"] @ np.tanh(x[t]) + p["W_in"] @ u[t] + p["b"])
    found = {name: np.zeros_like(value) for name, value in p.items()}
    row = x[T] - target
    for t in range(T, 0, -1):
        found["W_rec"] += np.outer(row, np.tanh(x[t - 1]))
        found["W_in"] += np.outer(row, u[t - 1])
        found["b"] += row
        row = row @ (p["W_rec"].T @ np.diag(1 - np.tanh(x[t - 1]) ** 2))
    return found
