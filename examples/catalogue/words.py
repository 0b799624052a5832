"""A correct derivation of an RNN that tells the language of three texts, a softmax for each."""

import numpy as np

rng = np.random.default_rng(0)
T, B, D, H, O = 4, 3, 2, 3, 4
x, labels = rng.normal(size=(T, B, D)), np.array([2, 0, 3])
params = {"U": rng.normal(size=(D, H)), "W": rng.normal(size=(H, H)), "V": rng.normal(size=(H, O))}


def forward(p):
    h = [np.zeros((B, H))]
    for t in range(T):
        h.append(np.tanh(x[t] @ p["U"] + h[t] @ p["W"]))
    return h, np.exp(h[T] @ p["V"])


def loss(p):
    _, e = forward(p)
    q = e / np.sum(e, axis=1, keepdims=True)
    return -np.mean(np.log(q[np.arange(B), labels]))


def gradients(p):
    h, e = forward(p)
    dz = e / e.sum(axis=1, keepdims=True)
    dz[np.arange(B), labels] -= 1
    dz /= B
    g = {"U": 0 * p["U"], "W": 0 * p["W"], "V": h[T].T @ dz}
    dh = dz @ p["V"].T
    for t in reversed(range(T)):
        da = dh * (1 - h[t + 1] ** 2)
        g["U"] += x[t].T @ da
        g["W"] += h[t].T @ da
        dh = da @ p["W"].T
    return g
