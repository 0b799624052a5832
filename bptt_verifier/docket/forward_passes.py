"""Forward passes that several entries share; the claims are about the way back."""

from collections.abc import Callable
from typing import Any

import numpy as np

Steps = list[tuple[Any, ...]]


def sigmoid(a: Any) -> Any:
    """σ(a)."""
    return 1 / (1 + np.exp(-a))


def run_lstm(
    U: Any, W: Any, x: Any, held_h: Any = None, held_c: Any = None
) -> tuple[list[Any], list[Any], Steps]:
    """Run this project's LSTM from zeros: all h (B, H), all c, and i, f, g, o of each step.

    With `held_h` or `held_c`, each step takes the state before it from there.
    """
    zeros = np.zeros((x.shape[1], W.shape[1]), x.dtype)
    h, c, gates = [zeros], [zeros], Steps()
    before_h, before_c = h if held_h is None else held_h, c if held_c is None else held_c
    for t in range(len(x)):
        i, f, g, o = np.split(x[t] @ U.T + before_h[t] @ W.T, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        gates.append((i, f, g, o))
        c.append(f * before_c[t] + i * g)
        h.append(o * np.tanh(c[t + 1]))
    return h, c, gates


def run_gru(U: Any, W: Any, x: Any, reset: str) -> tuple[list[Any], Steps]:
    """Run this project's GRU from zeros: all h (B, H), and r, z, n of each step."""
    (Ur, Uz, Un), (Wr, Wz, Wn) = np.split(U, 3), np.split(W, 3)
    places: dict[str, Callable[[Any, Any], Any]] = {
        "before": lambda r, h: (r * h) @ Wn.T,
        "after": lambda r, h: r * (h @ Wn.T),
    }
    h, steps = [np.zeros((x.shape[1], W.shape[1]), x.dtype)], Steps()
    for t in range(len(x)):
        r, z = sigmoid(x[t] @ Ur.T + h[t] @ Wr.T), sigmoid(x[t] @ Uz.T + h[t] @ Wz.T)
        n = np.tanh(x[t] @ Un.T + places[reset](r, h[t]))
        steps.append((r, z, n))
        h.append((1 - z) * n + z * h[t])
    return h, steps
