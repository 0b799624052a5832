"""E-prop with the learning signal that is available online."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry

ENTRY = Entry(
    title="E-prop: eligibility trace times the online learning signal",
    source="G. Bellec et al., A solution to the learning dilemma for recurrent networks of spiking "
    "neurons, Nature Communications 11:3625, 2020, equation (4) and figure 6",
    claim=(
        "dE/dW_ji ≈ Σ_t L_j^t e_ji^t,  L_j^t = Σ_k W_out,kj (y_k^t − y*_k^t)",
        "e_ji^t = (∂z_j^t/∂v_j^t) ε_ji^t,  ε_ji^t = α ε_ji^{t−1} + z_i^{t−1}",
    ),
    convention="As in eprop-ideal; L is the direct derivative ∂E/∂z, symmetric feedback.",
    verdict=DISAGREES,
    seen=False,
    rests_on="the caption of figure 6: e is computed exactly, L is approximated; notes on the "
    "paper that restate its equations by number",
    reading=(
        "As the approximation that it is stated to be it is right. It omits the "
        "paths from z^t through W_rec into later steps."
    ),
    mistake=("recurrent-path-dropped",),
    corrected=("L_j^t = dE/dz_j^t, total: the direct part and W_recᵀ dE/dv^{t+1}",),
    exactly="the gradient of the loss in which z^{t−1} is a constant in v^t",
    deliberate=True,
)

rng = np.random.default_rng(11)
T, D, H, O, ALPHA = 5, 3, 4, 2, 0.75
x, target = rng.normal(size=(T, D)), rng.normal(size=(T, O))
params = {
    "W_rec": rng.normal(size=(H, H)),
    "W_in": rng.normal(size=(H, D)),
    "W_out": np.ones((O, H)),
}


def loss(p: Any) -> Any:
    v, z, total = np.zeros(H), np.zeros(H), 0.0
    for t in range(T):
        v = ALPHA * v + p["W_rec"] @ z + p["W_in"] @ x[t]
        z = np.tanh(v)
        total = total + np.sum((p["W_out"] @ z - target[t]) ** 2) / 2
    return total


def held_loss(p: Any, held: Any) -> Any:
    v, constant_v, total = np.zeros(H), np.zeros(H), 0.0
    for t in range(T):
        z = np.tanh(constant_v)
        constant_v = ALPHA * constant_v + held["W_rec"] @ z + held["W_in"] @ x[t]
        v = ALPHA * v + p["W_rec"] @ z + p["W_in"] @ x[t]
        total = total + np.sum((p["W_out"] @ np.tanh(v) - target[t]) ** 2) / 2
    return total


def gradients(p: Any) -> Any:
    v, z = [np.zeros(H)], [np.zeros(H)]
    for t in range(T):
        v.append(ALPHA * v[t] + p["W_rec"] @ z[t] + p["W_in"] @ x[t])
        z.append(np.tanh(v[t + 1]))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    recent, inputs = np.zeros(H), np.zeros(D)
    for t in range(T):
        recent, inputs = ALPHA * recent + z[t], ALPHA * inputs + x[t]
        error = p["W_out"] @ z[t + 1] - target[t]
        found["W_out"] += np.outer(error, z[t + 1])
        signal = (p["W_out"].T @ error) * (1 - z[t + 1] ** 2)
        found["W_rec"] += np.outer(signal, recent)
        found["W_in"] += np.outer(signal, inputs)
    return found
