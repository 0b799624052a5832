"""CS224N, lecture notes 5: the Jacobian of a step."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="The Jacobian of h_t = σ(W h_{t−1} + …), with Wᵀ first",
    source="CS224N, Stanford, winter 2017, lecture notes part V, section on vanishing gradients; "
    "stanfordnlp/cs224n-winter17-notes on GitHub, notes5.tex",
    claim=(
        "h_t = σ(z_t),  z_t = W h_{t−1} + W_x x_t",
        "∂h_t/∂h_k = Π_{j=k+1}^{t} ∂h_j/∂h_{j−1} = Π_{j=k+1}^{t} Wᵀ × diag[f′(j_{j−1})]",
        "∂E_t/∂W = Σ_{k=1}^{t} ∂E_t/∂y_t · ∂y_t/∂h_t · ∂h_t/∂h_k · ∂h_k/∂W",
    ),
    convention="Numerator layout: the notes write out ∂h_j/∂h_{j−1} with a row for each entry of "
    "h_j, and ∂E/∂h as a row on its left. ∂h_k/∂W is direct. j_{j−1} is read as z_{j−1}. Here "
    "there is an error at the last step only, of h itself.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the notes' source, and pull request 1, which proposes W and was closed",
    reading="As the adjoint, from a column ∂E/∂h_j to ∂E/∂h_{j−1}, Wᵀ diag(σ′(z_j)) is right, with "
    "j for j − 1. The notes' bounds, ‖Wᵀ‖ ‖diag(σ′)‖, stand under every reading. See "
    "pascanu-jacobian for a step in which W comes after σ.",
    corrected=("∂h_j/∂h_{j−1} = diag(σ′(z_j)) W",),
)

rng = np.random.default_rng(9)
T, D, H = 4, 2, 3
x, target = rng.normal(size=(T, D)), rng.normal(size=H)
params = {"W": rng.normal(size=(H, H)), "W_x": rng.normal(size=(H, D))}


def loss(p: Any) -> Any:
    h = np.zeros(H)
    for t in range(T):
        h = sigmoid(p["W"] @ h + p["W_x"] @ x[t])
    return np.sum((h - target) ** 2) / 2


def gradients(p: Any) -> Any:
    h = [np.zeros(H)]
    for t in range(T):
        h.append(sigmoid(p["W"] @ h[t] + p["W_x"] @ x[t]))
    slopes = [each * (1 - each) for each in h]  # of step t; σ′ as a function of σ
    found = {name: np.zeros_like(value) for name, value in p.items()}
    row = h[T] - target
    for t in range(T, 0, -1):
        found["W"] += np.outer(row * slopes[t], h[t - 1])
        found["W_x"] += np.outer(row * slopes[t], x[t - 1])
        row = row @ (p["W"].T @ np.diag(slopes[t - 1]))
    return found
