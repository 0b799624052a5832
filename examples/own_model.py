"""A recurrent network of your own, batch first as in many courses, with one mistake to find.

    bptt verify examples/own_model.py

The network trains, but its backward pass does not transpose the recurrent weight.
"""

import numpy as np

rng = np.random.default_rng(0)
B, T, D, H, O = 3, 6, 2, 4, 2
x, y = rng.normal(size=(B, T, D)), rng.normal(size=(B, O))

params = {
    "Wx": 0.1 * rng.normal(size=(D, H)),
    "Wh": 0.1 * rng.normal(size=(H, H)),
    "b": np.zeros(H),
    "Wy": 0.1 * rng.normal(size=(H, O)),
}


def loss(p, xp):
    """Mean squared error of the last output; `xp` is numpy or jax.numpy."""
    h = xp.zeros((B, H))
    for t in range(T):
        h = xp.tanh(x[:, t] @ p["Wx"] + h @ p["Wh"] + p["b"])
    return xp.mean((h @ p["Wy"] - y) ** 2)


def gradients(p):
    """The derivation under test."""
    h = [np.zeros((B, H))]
    for t in range(T):
        h.append(np.tanh(x[:, t] @ p["Wx"] + h[t] @ p["Wh"] + p["b"]))
    dy = 2 * (h[T] @ p["Wy"] - y) / y.size
    grads = {name: np.zeros_like(value) for name, value in p.items()}
    grads["Wy"] = h[T].T @ dy
    dh = dy @ p["Wy"].T
    for t in reversed(range(T)):
        da = dh * (1 - h[t + 1] ** 2)
        grads["Wx"] += x[:, t].T @ da
        grads["Wh"] += h[t].T @ da
        grads["b"] += da.sum(axis=0)
        dh = da @ p["Wh"]
    return grads
