"""The smallest own model: one parameter, and a loss of two operations."""

from typing import Any

import numpy as np

W = {"W": np.array([[0.5, -0.25], [1.0, 0.75]])}


def square(p: Any, xp: Any) -> Any:
    return xp.sum(xp.tanh(p["W"]) ** 2)


def right(p: Any) -> Any:
    y = np.tanh(p["W"])
    return {"W": 2 * y * (1 - y * y)}
