"""E-prop with the ideal learning signal."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="E-prop: eligibility trace times the ideal learning signal",
    source="G. Bellec et al., A solution to the learning dilemma for recurrent networks of spiking "
    "neurons, Nature Communications 11:3625, 2020, equations (1) to (3), (14) to (21), figure 6",
    claim=(
        "dE/dW_ji = Σ_t (dE/dz_j^t) e_ji^t,  e_ji^t = (∂z_j^t/∂v_j^t) ε_ji^t",
        "ε_ji^t = (∂v_j^t/∂v_j^{t−1}) ε_ji^{t−1} + ∂v_j^t/∂W_ji",
    ),
    convention="d is total and ∂ direct. dE/dz_j^t is total, along all later steps. Here "
    "v^t = α v^{t−1} + W_rec z^{t−1} + W_in x^t and z = tanh(v), a rate model with a leak.",
    verdict=AGREES,
    seen=False,
    rests_on="the caption of figure 6: the gradients of equation (3) merge e and L, the ideal L "
    "is dE/dz and needs the way back; notes on the paper that restate its equations by number",
    reading="With the learning signal that needs no way back the result is an approximation: see "
    "eprop-approximation. dE/dz^t runs through the output and W_rec, "
    "not through the leak, which e holds.",
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


def gradients(p: Any) -> Any:
    v, z = [np.zeros(H)], [np.zeros(H)]
    for t in range(T):
        v.append(ALPHA * v[t] + p["W_rec"] @ z[t] + p["W_in"] @ x[t])
        z.append(np.tanh(v[t + 1]))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    signals, later = [np.zeros(H)] * T, np.zeros(H)
    for t in reversed(range(T)):
        error = p["W_out"] @ z[t + 1] - target[t]
        found["W_out"] += np.outer(error, z[t + 1])
        into_v = ALPHA * later  # ∂E/∂v_t through v_{t+1}
        signals[t] = p["W_out"].T @ error + p["W_rec"].T @ later
        later = into_v + signals[t] * (1 - z[t + 1] ** 2)
    recent, inputs = np.zeros(H), np.zeros(D)
    for t in range(T):
        recent, inputs = ALPHA * recent + z[t], ALPHA * inputs + x[t]
        signal = signals[t] * (1 - z[t + 1] ** 2)
        found["W_rec"] += np.outer(signal, recent)
        found["W_in"] += np.outer(signal, inputs)
    return found
