"""The forward passes of the LSTM and the GRU as a judge of one's own model reads them.

One operation a line, written once for NumPy and JAX: the report on a derivation may name the line
that is differentiated wrongly. The letters are those of docs/derivation.md, sections 12 and 13.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bptt_verifier.tolerance.comparison import Array


def sigmoid(z: Any, xp: Any) -> Any:
    """σ."""
    return 1 / (1 + xp.exp(-z))


def by_step(p: dict[str, Any], x: Array) -> Iterator[tuple[Any, Any]]:
    """x_t and the bias, with the zeros of which ∂L/∂a_t is the derivative where that is asked."""
    b = p.get("b", 0.0)
    if "adjoints" not in p:
        return ((x_t, b) for x_t in x)
    return ((x_t, b + zero) for x_t, zero in zip(x, p["adjoints"], strict=True))


def lstm(p: dict[str, Any], x: Array, h: Array, c: Array, xp: Any) -> Any:
    """h_T of the LSTM; gates in the order i, f, g, o. Equations (S1) to (S4)."""
    for x_t, b in by_step(p, x):
        a = x_t @ p["U"].T + h @ p["W"].T + b
        a_i, a_f, a_g, a_o = xp.split(a, 4, axis=-1)
        i = sigmoid(a_i, xp)
        f = sigmoid(a_f, xp)
        g = xp.tanh(a_g)
        o = sigmoid(a_o, xp)
        c = f * c + i * g
        tanh_c = xp.tanh(c)
        h = o * tanh_c
    return h


def gru(p: dict[str, Any], x: Array, h: Array, reset: str, xp: Any) -> Any:
    """h_T of the GRU; gates in the order r, z, n. Equations (G1) to (G5)."""
    U_r, U_z, U_n = xp.split(p["U"], 3)
    W_r, W_z, W_n = xp.split(p["W"], 3)
    for x_t, b in by_step(p, x):
        b_r, b_z, b_in = xp.split(b, 3, axis=-1) if np.ndim(b) else (0.0, 0.0, 0.0)
        r = sigmoid(x_t @ U_r.T + h @ W_r.T + b_r, xp)
        z = sigmoid(x_t @ U_z.T + h @ W_z.T + b_z, xp)
        if reset == "after":
            recurrent = h @ W_n.T + p.get("b_n", 0.0)
            n = xp.tanh(x_t @ U_n.T + b_in + r * recurrent)
        else:
            kept = r * h
            n = xp.tanh(x_t @ U_n.T + b_in + kept @ W_n.T + p.get("b_n", 0.0))
        h = (1 - z) * n + z * h
    return h


def loss_of(p: dict[str, Any], h: Any, y: Array, loss: str, xp: Any) -> Any:
    """L from h_T. Equation (F3), and (L1) or (L2)."""
    residual = h @ p["V"].T + p.get("c", 0.0) - y
    if loss == "mse":
        return xp.mean(residual**2)
    return xp.sum(residual**2) / 2
