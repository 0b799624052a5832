"""The R package rnn, vignette on GRU units."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="The adjoints of the GRU's gates",
    source="R package rnn (bquast/rnn on GitHub), vignettes/GRU_units.Rmd, back propagation pass",
    claim=(
        "δ3 = δ1 + δ2,  δ4 = (1 − z_t) · δ3,  δ5 = δ3 · h_{t−1},  δ6 = 1 − δ5",
        "δ7 = δ3 · g_t,  δ8 = δ3 · z_t,  δ9 = δ7 + δ8",
        "δ10 = δ8 · tanh′(g_t),  δ11 = δ9 · sigmoid′(z_t)",
        "δ12 = δ10 * W_gᵀ,  δ13 = δ10 * U_gᵀ,  δ14 = δ11 * W_zᵀ,  δ15 = δ11 * U_zᵀ",
        "δ16 = δ13 · h_{t−1},  δ17 = δ13 · r_t,  δ18 = δ17 · sigmoid′(r_t)",
        "δ20 = δ18 * W_rᵀ,  δ21 = δ18 * U_rᵀ",
        "δW_r = δW_f + h_{t−1}ᵀ * δ10,  δU_r = δU_f + x_tᵀ * δ10",
        "δW_z = δW_i + h_{t−1}ᵀ * δ11,  δU_z = δU_i + x_tᵀ * δ11",
        "δW_g = δW_g + (h_{t−1}ᵀ · r_t) * δ18,  δU_g = δU_g + x_tᵀ * δ18",
    ),
    convention=(
        "Row vectors; h_t = h_{t−1} · (1 − z_t) + z_t · g_t, reset gate before the product, which "
        "the text writes as W_g * (h_{t−1} · r_t). Slopes are functions of the values. By its use "
        "δ13 is the error of h_{t−1} · r_t: the names W and U are exchanged in δ12 to δ15, δ20 and "
        "δ21, and the code here does not follow that. δW_f and δW_i on the right are read as δW_r "
        "and δW_z, and (h_{t−1}ᵀ · r_t) as (h_{t−1} · r_t)ᵀ."
    ),
    verdict=DISAGREES,
    seen=True,
    rests_on="the whole vignette",
    reading=(
        "The figure has a node 1 − z_t there. Its derivative is −1; the text subtracts the error "
        "itself from 1. The sums over time are meant, and are computed here. The package's code, "
        "R/backprop_r.R, has 1 − δ5 as well, and takes the error of r_t from δ16."
    ),
    corrected=(
        "δ6 = −δ5,  δ9 = δ7 + δ6,  δ18 = δ16 · sigmoid′(r_t)",
        "δ12 = δ10 * U_gᵀ,  δ13 = δ10 * W_gᵀ,  δ14 = δ11 * U_zᵀ,  δ15 = δ11 * W_zᵀ",
        "δ20 = δ18 * U_rᵀ,  δ21 = δ18 * W_rᵀ",
        "δW_r = h_{t−1}ᵀ * δ18,  δU_r = x_tᵀ * δ18,  δW_g = (h_{t−1} · r_t)ᵀ * δ10,  "
        "δU_g = x_tᵀ * δ10",
    ),
)

rng = np.random.default_rng(5)
T, D, H = 4, 2, 3
x, y = rng.normal(size=(T, D)), rng.normal(size=(T, H))
params = {
    "Wr": rng.normal(size=(H, H)), "Wz": rng.normal(size=(H, H)), "Wg": rng.normal(size=(H, H)),
    "Ur": rng.normal(size=(D, H)), "Uz": rng.normal(size=(D, H)), "Ug": rng.normal(size=(D, H)),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, total = np.zeros(H), 0.0
    for t in range(T):
        r, z = sigmoid(h @ p["Wr"] + x[t] @ p["Ur"]), sigmoid(h @ p["Wz"] + x[t] @ p["Uz"])
        g = np.tanh((h * r) @ p["Wg"] + x[t] @ p["Ug"])
        h = h * (1 - z) + z * g
        total = total + np.sum((h - y[t]) ** 2) / 2
    return total


def gradients(p: Any) -> Any:
    h, steps = [np.zeros(H)], []
    for t in range(T):
        r, z = sigmoid(h[t] @ p["Wr"] + x[t] @ p["Ur"]), sigmoid(h[t] @ p["Wz"] + x[t] @ p["Uz"])
        g = np.tanh((h[t] * r) @ p["Wg"] + x[t] @ p["Ug"])
        h.append(h[t] * (1 - z) + z * g)
        steps.append((r, z, g))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    d2 = np.zeros(H)
    for t in reversed(range(T)):
        r, z, g = steps[t]
        d3 = (h[t + 1] - y[t]) + d2
        d8, d9 = d3 * z, d3 * g + d3 * z
        d10, d11 = d8 * (1 - g**2), d9 * z * (1 - z)
        d13 = d10 @ p["Wg"].T
        d17 = d13 * r
        d18 = d17 * r * (1 - r)
        for gate, met, delta in (("r", h[t], d10), ("z", h[t], d11), ("g", h[t] * r, d18)):
            found["W" + gate] += np.outer(met, delta)
            found["U" + gate] += np.outer(x[t], delta)
        d2 = d17 + d3 * (1 - z) + d11 @ p["Wz"].T + d18 @ p["Wr"].T
    return found
