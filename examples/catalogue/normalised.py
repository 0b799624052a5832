"""A correct derivation of a layer normalisation: entries act through mean and variance, too."""

import numpy as np

EPSILON = 1e-3
rng = np.random.default_rng(0)
x, y = rng.normal(size=3), rng.normal(size=5)
params = {"U": rng.normal(size=(5, 3)), "g": rng.normal(size=5)}


def forward(p):
    a = p["U"] @ x
    v = np.mean((a - np.mean(a)) ** 2)
    n = (a - np.mean(a)) / np.sqrt(v + EPSILON)
    return v, n, p["g"] * n


def loss(p):
    *_, z = forward(p)
    return np.sum((z - y) ** 2)


def gradients(p):
    v, n, z = forward(p)
    dz = 2 * (z - y)
    dn = dz * p["g"]
    s = np.sqrt(v + EPSILON)
    da = (dn - dn.mean() - n * (dn * n).mean()) / s
    return {"U": np.outer(da, x), "g": dz * n}
