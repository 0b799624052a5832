"""A correct derivation of a layer with dropout: the mask and its scale are factors."""

import numpy as np

rng = np.random.default_rng(0)
x, y = rng.normal(size=3), rng.normal(size=2)
KEPT = 0.75
mask = np.array([1, 0, 1, 1, 0, 1])
params = {"U": rng.normal(size=(6, 3)), "V": rng.normal(size=(2, 6))}


def forward(p):
    h = np.tanh(p["U"] @ x)
    return h, p["V"] @ (h * mask / KEPT)


def loss(p):
    _, z = forward(p)
    return np.sum((z - y) ** 2)


def gradients(p):
    h, z = forward(p)
    dz = 2 * (z - y)
    dh = (p["V"].T @ dz) * mask / KEPT
    return {"U": np.outer(dh * (1 - h**2), x), "V": np.outer(dz, h * mask / KEPT)}
