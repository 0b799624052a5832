"""A linear recurrence with gates that depend on the input."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="Linear recurrence: the way back is a linear recurrence",
    source="E. Martin & C. Cundy, Parallelizing linear recurrent neural nets over sequence length, "
    "ICLR 2018, arXiv:1709.04057, the gradient of the linear recurrence",
    claim=(
        "h_t = λ_t ⊙ h_{t−1} + x_t",
        "∇_{h_t} L = (direct gradient of h_t) + λ_{t+1} ⊙ ∇_{h_{t+1}} L",
        "∇_{λ_t} L = ∇_{h_t} L ⊙ h_{t−1},  ∇_{x_t} L = ∇_{h_t} L,  ∇_{h_0} L = λ_1 ⊙ ∇_{h_1} L",
    ),
    convention="Elementwise; ∇_{h_t} is total. Here λ_t = σ(Λ u_t) and x_t = (1 − λ_t) ⊙ (X u_t), "
    "a selective recurrence, with h_0 a parameter.",
    verdict=AGREES,
    seen=False,
    rests_on="the recurrence as it is commonly restated; of the paper only the abstract was seen",
    reading="With λ_t in the place of λ_{t+1} in the second line the claim would be wrong: the "
    "gate of the next step leads to h_t.",
)

rng = np.random.default_rng(8)
T, D, H = 5, 3, 4
u, target = rng.normal(size=(T, D)), rng.normal(size=(T, H))
params = {"Λ": rng.normal(size=(H, D)), "X": rng.normal(size=(H, D)), "h0": rng.normal(size=H)}


def loss(p: Any) -> Any:
    h, total = p["h0"], 0.0
    for t in range(T):
        gate = 1 / (1 + np.exp(-(p["Λ"] @ u[t])))
        h = gate * h + (1 - gate) * (p["X"] @ u[t])
        total = total + np.sum((h - target[t]) ** 2) / 2
    return total


def gradients(p: Any) -> Any:
    h = [p["h0"]]
    gates = 1 / (1 + np.exp(-(u @ p["Λ"].T)))
    values = u @ p["X"].T
    for t in range(T):
        h.append(gates[t] * h[t] + (1 - gates[t]) * values[t])
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later = np.zeros(H)
    for t in reversed(range(T)):
        state = h[t + 1] - target[t] + later
        slope = gates[t] * (1 - gates[t])
        found["Λ"] += np.outer((state * h[t] - state * values[t]) * slope, u[t])
        found["X"] += np.outer(state * (1 - gates[t]), u[t])
        later = gates[t] * state
    found["h0"] += later
    return found
