"""Dive into Deep Learning: the gradient of a state in closed form."""

from typing import Any

import numpy as np

from bptt_verifier.docket.d2l_immediate import T, loss, params, run, x, y
from bptt_verifier.docket.entry import AGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="∂L/∂h_t as a sum of powers of W_hhᵀ",
    source="A. Zhang et al., Dive into Deep Learning, section 9.7.2 (8.7 in older editions), the "
    "expansion of the recursion",
    claim=(
        "h_t = W_hx x_t + W_hh h_{t−1},  o_t = W_qh h_t,  L = (1/T) Σ_t ℓ(o_t, y_t)",
        "∂L/∂h_t = Σ_{i=t}^{T} (W_hhᵀ)^{T−i} W_qhᵀ ∂L/∂o_{T+t−i}",
    ),
    convention="Columns, total derivatives; the activation is the identity, as the text states.",
    verdict=AGREES,
    seen=True,
    rests_on="the section's source in an older edition",
    reading=(
        "A reader of the forum misses the factors tanh′. They belong there if the activation is "
        "tanh; the section was revised to state that it is the identity."
    ),
)


def gradients(p: Any) -> Any:
    h = run(p)
    outputs = [2 * (p["W_qh"] @ h[t] - y[t - 1]) / T for t in range(1, T + 1)]
    found = {name: np.zeros_like(value) for name, value in p.items()}
    for t in range(1, T + 1):
        powers = [np.linalg.matrix_power(p["W_hh"].T, T - i) for i in range(t, T + 1)]
        terms = zip(powers, range(t, T + 1), strict=True)
        state = sum(power @ p["W_qh"].T @ outputs[T + t - i - 1] for power, i in terms)
        found["W_qh"] += np.outer(outputs[t - 1], h[t])
        found["W_hx"] += np.outer(state, x[t - 1])
        found["W_hh"] += np.outer(state, h[t - 1])
    return found
