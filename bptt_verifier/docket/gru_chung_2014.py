"""The GRU with z as the share of the new state."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="GRU, z is the share of the candidate",
    source="J. Chung et al., Empirical evaluation of gated recurrent neural networks on sequence "
    "modeling, arXiv:1412.3555, equation (5). lucidrains/minGRU-pytorch, issue 21, calls the same "
    "update incorrect in chapter 2 of the minGRU paper",
    claim=(
        "h_t = (1 − z_t) h_{t−1} + z_t h̃_t",
        "∂h_t/∂z_t = h̃_t − h_{t−1},  ∂h_t/∂h̃_t = z_t,  ∂⁺h_t/∂h_{t−1} = 1 − z_t",
    ),
    convention="z_t is the share of the new state. Row vectors, reset gate before the product; "
    "the last derivative is direct, with the gates held.",
    verdict=AGREES,
    seen=False,
    rests_on="pytorch/pytorch, issue 60645, which cites equation (5), and issue 20129, where an "
    "author of this paper and of gru-cho-2014 answers that either is fine; the paper was not "
    "seen, and the derivatives are written here",
    reading="With h_t = (1 − z_t) h̃_t + z_t h_{t−1}, as in gru-cho-2014, z and 1 − z change "
    "places everywhere. As σ(−a) = 1 − σ(a), the one becomes the other if W_z and U_z (and b_z) "
    "change sign; their gradients change sign too, and no other. Mixing the two is wrong.",
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
        dz, dg = d3 * (g - h[t]) * z * (1 - z), d3 * z * (1 - g**2)
        met = dg @ p["Wg"].T
        dr = met * h[t] * r * (1 - r)
        for gate, operand, delta in (("r", h[t], dr), ("z", h[t], dz), ("g", h[t] * r, dg)):
            found["W" + gate] += np.outer(operand, delta)
            found["U" + gate] += np.outer(x[t], delta)
        d2 = d3 * (1 - z) + met * r + dz @ p["Wz"].T + dr @ p["Wr"].T
    return found
