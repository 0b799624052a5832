"""Gradients in local variables, which are confirmed by the update of the parameters."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.own_updates import find_updating_variables, record_locals

ETA = 0.05


def adam(g: Any) -> Any:
    m, v, t = (1 - 0.9) * g, (1 - 0.999) * g**2, 1
    return ETA * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


FIRST_STEPS = {
    "gradient descent": lambda g: ETA * g,
    "momentum": lambda g: ETA * (0.9 * 0 + (1 - 0.9) * g),
    "Adagrad": lambda g: ETA * g / np.sqrt(g**2 + 1e-8),
    "Adagrad, and ε after the root": lambda g: ETA * g / (np.sqrt(g**2) + 1e-8),
    "RMSProp": lambda g: ETA * g / np.sqrt((1 - 0.9) * g**2 + 1e-8),
    "Adam": adam,
    "Adam without a correction": lambda g: (
        ETA * (1 - 0.9) * g / (np.sqrt((1 - 0.999) * g**2) + 1e-8)
    ),
}
OTHERS = {
    "another multiple": lambda g: ETA * g / 8,
    "of the mean, as the code knows 8": lambda g: ETA * (g / 8) / np.sqrt((g / 8) ** 2 + 1e-8),
    "of the sign": lambda g: ETA * np.sign(g),
    "without ε, so that the scale cannot be told": lambda g: ETA * g / np.sqrt(g**2 + 1e-300),
    "from other accumulators": lambda g: ETA * g / np.sqrt(1 + g**2 + 1e-8),
    "of the weights, too": lambda g: ETA * (g + 0.9),
}


def find(step: Any) -> Any:
    """Find the gradients of a function that has moved W by a step."""

    def backward(decay: float = 0.9, second: float = 0.999, small: float = 1e-8) -> None: ...

    slope = np.array([[0.7, -1e-4], [3e-3, 0.2]])
    leaves, seen = {"W": ("W",)}, {"dW": slope, "W": 0 * slope, "n": np.array(8.0)}
    return find_updating_variables(backward, leaves, seen, {"W": step(slope)}, {"lr": ETA})


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_a_variable_is_the_gradient_by_which_a_usual_optimiser_takes_its_first_step(
    name: str,
) -> None:
    assert find(FIRST_STEPS[name]) == {"W": ("locals", "dW")}


@pytest.mark.parametrize("name", OTHERS)
def test_no_variable_is_a_gradient_where_the_update_is_another(name: str) -> None:
    assert find(OTHERS[name]) == {}


def test_the_arrays_of_a_function_are_recorded_when_it_returns() -> None:
    def backward() -> Any:
        dW, grads, other = np.ones(2), {"b": np.ones(1), "n": 3}, [1]
        dW += grads["b"]
        return other

    with record_locals(backward.__code__) as seen:
        backward()
    assert (seen["dW"].tolist(), seen["grads"]) == ([2, 2], {"b": 1})
    assert [*seen] == ["dW", "grads"]
