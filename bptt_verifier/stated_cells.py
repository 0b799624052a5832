"""The forward passes of the LSTM and the GRU as a judge of one's own model reads them.

One operation a line, written once for NumPy and JAX: the report on a derivation may name the line
that is differentiated wrongly. The letters are those of docs/derivation.md, sections 12 and 13.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jax import lax

from bptt_verifier.comparison import Array

Over = Callable[[Callable[[Any, Any], Any], Any, Any], Any]  # step, first state, inputs by name


def written_out(step: Callable[[Any, Any], Any], state: Any, given: dict[str, Any]) -> Any:
    """The last state, step after step."""
    at_each: Iterable[Any] = zip(*given.values(), strict=True)
    for values in at_each:
        state = step(state, dict(zip(given, values, strict=True)))
    return state


def scanned(step: Callable[[Any, Any], Any], state: Any, given: dict[str, Any]) -> Any:
    """The same in JAX as one loop, which compiles in a tenth of the time."""
    return lax.scan(lambda state, at: (step(state, at), None), state, given)[0]


def sigmoid(z: Any, xp: Any) -> Any:
    """σ."""
    return 1 / (1 + xp.exp(-z))


def by_step(p: dict[str, Any], x: Array) -> dict[str, Any]:
    """x_t and, where ∂L/∂a_t is asked for, the zeros with respect to which that is a derivative."""
    return {"x": x, **({"adjoint": p["adjoints"]} if "adjoints" in p else {})}


def bias(p: dict[str, Any], at: dict[str, Any]) -> Any:
    """The bias of a step, with those zeros."""
    b = p.get("b", 0.0)
    return b + at["adjoint"] if "adjoint" in at else b


def lstm(p: dict[str, Any], x: Array, h: Array, c: Array, xp: Any, over: Over = written_out) -> Any:
    """h_T of the LSTM; gates in the order i, f, g, o. Equations (S1) to (S4)."""

    def step(state: Any, at: Any) -> Any:
        h, c = state
        a = at["x"] @ p["U"].T + h @ p["W"].T + bias(p, at)
        a_i, a_f, a_g, a_o = xp.split(a, 4, axis=-1)
        i = sigmoid(a_i, xp)
        f = sigmoid(a_f, xp)
        g = xp.tanh(a_g)
        o = sigmoid(a_o, xp)
        c = f * c + i * g
        tanh_c = xp.tanh(c)
        h = o * tanh_c
        return h, c

    return over(step, (h, c), by_step(p, x))[0]


def gru(
    p: dict[str, Any], x: Array, h: Array, reset: str, xp: Any, over: Over = written_out
) -> Any:
    """h_T of the GRU; gates in the order r, z, n. Equations (G1) to (G5)."""
    U_r, U_z, U_n = xp.split(p["U"], 3)
    W_r, W_z, W_n = xp.split(p["W"], 3)

    def step(h: Any, at: Any) -> Any:
        x_t, b = at["x"], bias(p, at)
        b_r, b_z, b_in = xp.split(b, 3, axis=-1) if np.ndim(b) else (0.0, 0.0, 0.0)
        r = sigmoid(x_t @ U_r.T + h @ W_r.T + b_r, xp)
        z = sigmoid(x_t @ U_z.T + h @ W_z.T + b_z, xp)
        if reset == "after":
            recurrent = h @ W_n.T + p.get("b_n", 0.0)
            n = xp.tanh(x_t @ U_n.T + b_in + r * recurrent)
        else:
            kept = r * h
            n = xp.tanh(x_t @ U_n.T + b_in + kept @ W_n.T + p.get("b_n", 0.0))
        return (1 - z) * n + z * h

    return over(step, h, by_step(p, x))


def loss_of(p: dict[str, Any], h: Any, y: Array, loss: str, xp: Any) -> Any:
    """L from h_T. Equation (F3), and (L1) or (L2)."""
    residual = h @ p["V"].T + p.get("c", 0.0) - y
    if loss == "mse":
        return xp.mean(residual**2)
    return xp.sum(residual**2) / 2
