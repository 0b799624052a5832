"""A correct derivation of an RNN with dropout on its outputs, not on the states it carries."""

import numpy as np

rng = np.random.default_rng(0)
T, D, H = 4, 2, 3
x, y = rng.normal(size=(T, D)), rng.normal(size=T)
mask = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1]])
params = {"U": rng.normal(size=(H, D)), "W": rng.normal(size=(H, H)), "v": rng.normal(size=H)}


def forward(p):
    h = [np.zeros(H)]
    for t in range(T):
        h.append(np.tanh(p["U"] @ x[t] + p["W"] @ h[t]))
    return h, [p["v"] @ (h[t + 1] * mask[t]) for t in range(T)]


def loss(p):
    _, z = forward(p)
    return sum((z[t] - y[t]) ** 2 for t in range(T))


def gradients(p):
    h, z = forward(p)
    g, dh_next = {name: np.zeros_like(value) for name, value in p.items()}, np.zeros(H)
    for t in reversed(range(T)):
        dz = 2 * (z[t] - y[t])
        g["v"] += dz * h[t + 1] * mask[t]
        dh = dz * p["v"] * mask[t] + dh_next
        da = dh * (1 - h[t + 1] ** 2)
        g["U"] += np.outer(da, x[t])
        g["W"] += np.outer(da, h[t])
        dh_next = p["W"].T @ da
    return g
