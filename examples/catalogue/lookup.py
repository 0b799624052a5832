"""A correct derivation of a lookup that reads a row of E three times."""

import numpy as np

tokens = np.array([0, 2, 2, 1, 2])
rng = np.random.default_rng(0)
y = rng.normal(size=(5, 3))
params = {"E": rng.normal(size=(4, 3))}


def loss(p):
    return np.sum((np.tanh(p["E"][tokens]) - y) ** 2)


def gradients(p):
    h = np.tanh(p["E"][tokens])
    da = 2 * (h - y) * (1 - h**2)
    g = {"E": np.zeros_like(p["E"])}
    np.add.at(g["E"], tokens, da)
    return g
