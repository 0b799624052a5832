"""yjk21/blog: the gradient with respect to the arguments of an RNN that predicts its next input."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="∇_{a_t} L = ∇_{a_t} l_t + Σ_d ∂L/∂a_{t+1,d} ∇_{a_t} a_{t+1,d}",
    source="yjk21/blog on GitHub, on gated recurrent networks, the total derivative of the "
    "arguments of a tanh RNN",
    claim=(
        "a_t = W_h h_{t−1} + W_i x_t,  h_t = g(a_t),  z_t = W_o h_t",
        "l_t = z_{t, x_{t+1}} − log Σ exp(z_t),  L = −Σ_t l_t",
        "∇_{a_t} L = ∇_{a_t} l_t + Σ_d ∂L/∂a_{t+1,d} ∇_{a_t} a_{t+1,d}",
    ),
    convention="Columns. ∇_{a_t} l_t is direct, and ∂L/∂a_{t+1,d} total. In the third line l_t is "
    "read as the loss of step t, which is −l_t of the second. Inputs are one-hot, g is tanh, and "
    "h_0 = 0 here.",
    verdict=AGREES,
    seen=True,
    rests_on="the text of the page; the gradients of the weights are written here as "
    "∇_{a_t} L times what the weight met",
    reading="If l_t in the third line is that of the second, its sign is wrong.",
)

rng = np.random.default_rng(15)
T, D, H = 4, 3, 3
x = np.eye(D)[rng.integers(D, size=T + 1)]
params = {
    "W_h": rng.normal(size=(H, H)), "W_i": rng.normal(size=(H, D)), "W_o": rng.normal(size=(D, H)),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, total = np.zeros(H), 0.0
    for t in range(T):
        h = np.tanh(p["W_h"] @ h + p["W_i"] @ x[t])
        z = p["W_o"] @ h
        total = total + np.log(np.sum(np.exp(z))) - np.sum(x[t + 1] * z)
    return total


def gradients(p: Any) -> Any:
    h = [np.zeros(H)]
    for t in range(T):
        h.append(np.tanh(p["W_h"] @ h[t] + p["W_i"] @ x[t]))
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later = np.zeros(H)
    for t in reversed(range(T)):
        e = np.exp(p["W_o"] @ h[t + 1])
        dz = e / e.sum() - x[t + 1]
        slope = 1 - h[t + 1] ** 2
        da = slope * (p["W_o"].T @ dz) + (p["W_h"] * slope).T @ later
        found["W_o"] += np.outer(dz, h[t + 1])
        found["W_h"] += np.outer(da, h[t])
        found["W_i"] += np.outer(da, x[t])
        later = da
    return found
