"""A backward pass that trains a network, but is wrong. `bptt verify examples/almost_right.py`."""

import numpy as np


def gradients(params, x, y):
    U, W, V = params
    T, B, _ = x.shape
    h = [np.zeros((B, len(W)), x.dtype)]
    for t in range(T):
        h.append(np.tanh(x[t] @ U.T + h[-1] @ W.T))
    dy = 2 * (h[-1] @ V.T - y) / y.size
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[-1]
    dh = dy @ V
    for t in reversed(range(T)):
        da = dh * (1 - h[t + 1] ** 2)
        dU += da.T @ x[t]
        dW += da.T @ h[t]
        dh = da @ W.T
    return dU, dW, dV
