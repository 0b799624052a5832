"""Complex-step derivatives of independent forward passes: a check of both witnesses.

The module contains no gradient and no code of a witness. After a step of 2^-200 along the imaginary
axis, the imaginary part of the loss over the step is the derivative. Source: Squire & Trapp 1998,
"Using complex variables to estimate derivatives of real functions"; docs/derivation.md, section 8.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import CELLS, STATES, Array, Problem, list_shapes

STEP = 2.0**-200  # a power of two: dividing by it is exact
Point = Mapping[str, Array]


def sigmoid(a: Array) -> Array:
    """Compute σ without overflow at large complex numbers."""
    result: Array = 0.5 + 0.5 * np.tanh(0.5 * a)
    return result


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda a: np.where(a.real > 0, a, 0),
    "identity": lambda a: a,
}


def rnn_step(
    p: Point, states: list[Array], x_t: Array, epsilon: Array, activation: str
) -> list[Array]:
    """h_t = φ(U x_t + W h_{t-1} + b)."""
    (h,) = states
    return [ACTIVATIONS[activation](x_t @ p["U"].T + h @ p["W"].T + p["b"] + epsilon)]


def lstm_step(p: Point, states: list[Array], x_t: Array, epsilon: Array, _: str) -> list[Array]:
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t); gates in the order i, f, g, o."""
    h, c = states
    i, f, g, o = np.split(x_t @ p["U"].T + h @ p["W"].T + p["b"] + epsilon, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def gru_step(p: Point, states: list[Array], x_t: Array, epsilon: Array, reset: str) -> list[Array]:
    """h_t = (1 − z) n + z h_{t-1}; gates in the order r, z, n."""
    (h,) = states
    x_r, x_z, x_n = np.split(x_t @ p["U"].T + p["b"] + epsilon, 3, axis=-1)
    W_r, W_z, W_n = np.split(p["W"], 3)
    r, z = sigmoid(x_r + h @ W_r.T), sigmoid(x_z + h @ W_z.T)
    met = r * (h @ W_n.T + p["b_n"]) if reset == "after" else (r * h) @ W_n.T + p["b_n"]
    return [(1 - z) * np.tanh(x_n + met) + z * h]


# One step of each cell: the next states, h first, from the states before, x_t and ε_t.
CELL_STEPS = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}


def evaluate_loss(problem: Problem, point: Point) -> Any:
    """Evaluate the loss of a problem's model at another point, which may be complex.

    For the losses of section 9, with the output at the last step of full sequences.
    """
    option = next(iter(problem.option.values()), "")
    states = [point[name] for name in STATES[problem.cell]]
    for x_t, epsilon in zip(point["x"], point["adjoints"], strict=True):
        states = CELL_STEPS[problem.cell](point, states, x_t, epsilon, option)
    residual = states[0] @ point["V"].T + point["c"] - problem.y
    total = (residual * residual).sum()
    return total / residual.size if problem.loss == "mse" else total / 2


def collect_point(problem: Problem) -> dict[str, Array]:
    """Collect the point of a problem by name; absent biases and states, and ε_t, are zeros."""
    names = (*CELLS[problem.cell].Params._fields, "x", *STATES[problem.cell], "adjoints")
    given = problem.weights | problem.first | {"x": problem.x}
    shapes = list_shapes(problem.cell, problem.sizes)
    return {n: np.asarray(given.get(n, np.zeros(shapes[n])), np.float64) for n in names}


def differentiate(problem: Problem) -> dict[str, Array]:
    """Compute the gradient with respect to everything, entry by entry, in float64.

    Names and shapes are those of the cell's `Gradients`; absent biases count as zeros.
    """
    point = {name: value.astype(np.complex128) for name, value in collect_point(problem).items()}
    gradient = {name: np.empty(value.shape) for name, value in point.items()}
    for name, value in point.items():
        for entry in np.ndindex(value.shape):
            moved = value.copy()
            moved[entry] += 1j * STEP
            loss = evaluate_loss(problem, point | {name: moved})
            gradient[name][entry] = loss.imag / STEP  # (C1)
    return gradient
