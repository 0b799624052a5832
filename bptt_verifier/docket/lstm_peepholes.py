"""The LSTM with peepholes."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="LSTM with peepholes, full gradient",
    source="K. Greff et al., LSTM: a search space odyssey, arXiv:1503.04069v2, section II.B, "
    "backpropagation through time",
    claim=(
        "δy_t = Δ_t + R_zᵀ δz_{t+1} + R_iᵀ δi_{t+1} + R_fᵀ δf_{t+1} + R_oᵀ δo_{t+1}",
        "δo_t = δy_t ⊙ h(c_t) ⊙ σ′(ō_t)",
        "δc_t = δy_t ⊙ o_t ⊙ h′(c_t) + p_o ⊙ δo_t + p_i ⊙ δi_{t+1} + p_f ⊙ δf_{t+1} + "
        "δc_{t+1} ⊙ f_{t+1}",
        "δf_t = δc_t ⊙ c_{t−1} ⊙ σ′(f̄_t),  δi_t = δc_t ⊙ z_t ⊙ σ′(ī_t)",
        "δz_t = δc_t ⊙ i_t ⊙ g′(z̄_t)",
        "δp_i = Σ c_t ⊙ δi_{t+1},  δp_f = Σ c_t ⊙ δf_{t+1},  δp_o = Σ c_t ⊙ δo_t",
    ),
    convention="Columns; a bar marks the argument of a gate. The gates i and f see c_{t−1}, and o "
    "sees c_t. Δ is the gradient from above, here of Σ ‖y_t − target‖² / 2.",
    verdict=AGREES,
    seen=False,
    rests_on="the equations as they are commonly restated; of the paper only the abstract was seen",
    reading="Without peepholes, p = 0, these are the formulas of an ordinary LSTM. Dropping "
    "p_o ⊙ δo_t, whose step is t, is a frequent mistake in code.",
)

rng = np.random.default_rng(7)
T, D, H = 4, 2, 3
x, target = rng.normal(size=(T, D)), rng.normal(size=(T, H))
params = {n + gate: rng.normal(size=(H, k)) / 2 for gate in "zifo" for n, k in (("W", D), ("R", H))}
params |= {"p" + gate: rng.normal(size=H) for gate in "ifo"}


def loss(p: Any) -> Any:
    c, y, total = np.zeros(H), np.zeros(H), 0.0
    for t in range(T):
        z = np.tanh(p["Wz"] @ x[t] + p["Rz"] @ y)
        i = sigmoid(p["Wi"] @ x[t] + p["Ri"] @ y + p["pi"] * c)
        f = sigmoid(p["Wf"] @ x[t] + p["Rf"] @ y + p["pf"] * c)
        c = z * i + c * f
        y = np.tanh(c) * sigmoid(p["Wo"] @ x[t] + p["Ro"] @ y + p["po"] * c)
        total = total + np.sum((y - target[t]) ** 2) / 2
    return total


def gradients(p: Any) -> Any:
    c, y, steps = [np.zeros(H)], [np.zeros(H)], []
    for t in range(T):
        z = np.tanh(p["Wz"] @ x[t] + p["Rz"] @ y[t])
        i = sigmoid(p["Wi"] @ x[t] + p["Ri"] @ y[t] + p["pi"] * c[t])
        f = sigmoid(p["Wf"] @ x[t] + p["Rf"] @ y[t] + p["pf"] * c[t])
        c.append(z * i + c[t] * f)
        o = sigmoid(p["Wo"] @ x[t] + p["Ro"] @ y[t] + p["po"] * c[t + 1])
        y.append(np.tanh(c[t + 1]) * o)
        steps.append((z, i, f, o))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later = {gate: np.zeros(H) for gate in "zifo"}
    carried = np.zeros(H)
    for t in reversed(range(T)):
        z, i, f, o = steps[t]
        dy = y[t + 1] - target[t] + sum(p["R" + gate].T @ later[gate] for gate in "zifo")
        do = dy * np.tanh(c[t + 1]) * o * (1 - o)
        dc = dy * o * (1 - np.tanh(c[t + 1]) ** 2) + p["po"] * do
        dc = dc + p["pi"] * later["i"] + p["pf"] * later["f"] + carried
        later = {
            "z": dc * i * (1 - z**2), "i": dc * z * i * (1 - i),
            "f": dc * c[t] * f * (1 - f), "o": do,
        }  # fmt: skip
        carried = dc * f
        for gate, delta in later.items():
            found["W" + gate] += np.outer(delta, x[t])
            found["R" + gate] += np.outer(delta, y[t])
        found["pi"] += c[t] * later["i"]
        found["pf"] += c[t] * later["f"]
        found["po"] += c[t + 1] * do
    return found
