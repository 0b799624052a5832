"""A correct derivation of a layer normalisation of several rows, each with a mean of its own."""

import numpy as np

EPSILON = 1e-3
rng = np.random.default_rng(0)
x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 5))
params = {"U": rng.normal(size=(3, 5)), "g": rng.normal(size=5)}


def forward(p):
    a = x @ p["U"]
    c = a - np.mean(a, axis=1, keepdims=True)
    s = np.sqrt(np.mean(c**2, axis=1, keepdims=True) + EPSILON)
    return s, c / s, p["g"] * (c / s)


def loss(p):
    *_, z = forward(p)
    return np.sum((z - y) ** 2)


def gradients(p):
    s, n, z = forward(p)
    dz = 2 * (z - y)
    dn = dz * p["g"]
    m = dn.mean(axis=1, keepdims=True)
    da = (dn - m - n * np.mean(dn * n, axis=1, keepdims=True)) / s
    return {"U": x.T @ da, "g": np.sum(dz * n, axis=0)}
