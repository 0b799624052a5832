"""A third opinion: complex-step derivatives of a forward pass of its own.

Shares no code with either witness. One sequence at a time, one step at a time, one perturbed
entry at a time: slow, short, and hard to get wrong. Source: Squire & Trapp 1998, "Using complex
variables to estimate derivatives of real functions"; docs/derivation.md, section 8.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Problem

Array = np.ndarray[Any, np.dtype[Any]]

STEP = 2.0**-200  # a power of two: dividing by it is exact

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "sigmoid": lambda a: 0.5 + 0.5 * np.tanh(0.5 * a),
    "relu": lambda a: np.where(a.real > 0, a, 0),
    "identity": lambda a: a,
}


def loss_at(point: dict[str, Array], y: Array, activation: str, loss: str) -> complex:
    """L at a complex point: U, W, V, b, c, x, h0 and the perturbations of every a_t."""
    total = 0j
    for sequence in range(len(y)):
        h = point["h0"][sequence]
        for x_t, perturbation in zip(point["x"], point["adjoints"], strict=True):
            a = point["U"] @ x_t[sequence] + point["W"] @ h + point["b"] + perturbation[sequence]
            h = ACTIVATIONS[activation](a)
        prediction = point["V"] @ h + point["c"]
        total += np.sum((prediction - y[sequence]) * (prediction - y[sequence]))
    return complex(total / y.size if loss == "mse" else total / 2)


def derivatives(problem: Problem) -> dict[str, Array]:
    """The gradient with respect to everything, entry by entry, in float64.

    Names and shapes as in `manual_bptt.rnn.Gradients`, with zeros standing for absent biases.
    """
    params, x, y, h0, activation, loss = problem
    T, B, _, H, O = problem.sizes
    point = {
        "U": params.U,
        "W": params.W,
        "V": params.V,
        "b": np.zeros(H) if params.b is None else params.b,
        "c": np.zeros(O) if params.c is None else params.c,
        "x": x,
        "h0": np.zeros((B, H)) if h0 is None else h0,
        "adjoints": np.zeros((T, B, H)),
    }
    point = {name: value.astype(np.complex128) for name, value in point.items()}
    gradient = {name: np.empty(value.shape) for name, value in point.items()}
    for name, value in point.items():
        for entry in np.ndindex(value.shape):
            moved = value.copy()
            moved[entry] += 1j * STEP
            at = loss_at(point | {name: moved}, y, activation, loss)
            gradient[name][entry] = at.imag / STEP  # (C1)
    return gradient
