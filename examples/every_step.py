"""A correct derivation of a model of one's own: an RNN with an output at every step.

bptt verify examples/every_step.py
"""

import numpy as np

T, D, H, O = 6, 3, 4, 4
rng = np.random.default_rng(0)
x, y = rng.normal(size=(T, D)), rng.normal(size=(T, O))
params = {
    "U": 0.5 * rng.normal(size=(H, D)),
    "W": 0.5 * rng.normal(size=(H, H)),
    "V": 0.5 * rng.normal(size=(O, H)),
    "b": np.zeros(H),
    "c": np.zeros(O),
}


def forward(p):
    a, h, z = {}, {-1: np.zeros(H)}, {}
    for t in range(T):
        a[t] = p["U"] @ x[t] + p["W"] @ h[t - 1] + p["b"]
        h[t] = np.tanh(a[t])
        z[t] = p["V"] @ h[t] + p["c"]
    return a, h, z


def loss(p):
    _, _, z = forward(p)
    return sum(np.sum((z[t] - y[t]) ** 2) for t in range(T)) / y.size


def gradients(p):
    a, h, z = forward(p)
    g = {name: np.zeros_like(value) for name, value in p.items()}
    dh_next = np.zeros(H)
    for t in reversed(range(T)):
        dz = 2 * (z[t] - y[t]) / y.size
        g["V"] += np.outer(dz, h[t])
        g["c"] += dz
        dh = p["V"].T @ dz + dh_next
        da = dh * (1 - h[t] ** 2)
        g["U"] += np.outer(da, x[t])
        g["W"] += np.outer(da, h[t - 1])
        g["b"] += da
        dh_next = p["W"].T @ da
    return g
