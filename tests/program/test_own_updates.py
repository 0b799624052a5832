"""Gradients in local variables, which are confirmed by the update of the parameters."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.gradient_use import find_written_rates
from bptt_verifier.program.own_updates import RATES, find_updating_variables, record_locals

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


def find(step: Any, small: float = 1e-8) -> Any:
    """Find the gradients of a function that has moved W by a step."""

    def backward(decay: float = 0.9, second: float = 0.999, small: float = small) -> None: ...

    slope = np.array([[0.7, -1e-4], [3e-3, 0.2]])
    leaves, seen = {"W": ("W",)}, {"dW": slope, "W": 0 * slope, "n": np.array(8.0)}
    return find_updating_variables(backward, leaves, seen, {"W": step(slope)}, {"lr": ETA})


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_a_variable_is_the_gradient_by_which_a_usual_optimiser_takes_its_first_step(
    name: str,
) -> None:
    assert find(FIRST_STEPS[name]) == {"W": ("locals", "dW")}


@pytest.mark.parametrize("small", [1e-2, 0.1])
def test_a_small_number_may_be_as_large_as_a_tenth(small: float) -> None:
    def step(g: Any) -> Any:
        return ETA * g / np.sqrt(g**2 + small)

    assert find(step, small) == {"W": ("locals", "dW")}
    assert find(lambda g: ETA * g / np.sqrt(g**2 + 0.2), 0.2) == {}


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


def test_the_arrays_in_lists_are_recorded_by_index() -> None:
    def backward() -> None:
        dW, grads, other = [None, np.ones(2)], {"b": [np.zeros(1)]}, [1, "x"]
        del other
        dW[0] = 2 * grads["b"][0]

    with record_locals(backward.__code__) as seen:
        backward()
    assert [*seen] == ["dW", "grads"]
    assert {i: each.tolist() for i, each in seen["dW"].items()} == {0: [0], 1: [1, 1]}
    assert seen["grads"]["b"][0].tolist() == [0]


def test_the_gradients_in_a_list_are_those_of_a_list_of_parameters() -> None:
    def backward(lr: float = ETA) -> None: ...

    slopes = [np.array([0.7, -0.2]), np.array([0.3, 0.4])]
    leaves, seen = {"W[0]": ("W", 0), "W[1]": ("W", 1)}, {"dW": dict(enumerate(slopes))}
    moved = {"W[0]": ETA * slopes[0], "W[1]": ETA * slopes[1]}
    found = find_updating_variables(backward, leaves, seen, moved, {})
    assert found == {"W[0]": ("locals", "dW", 0), "W[1]": ("locals", "dW", 1)}
    reversed_list = {"dW": dict(enumerate(slopes[::-1]))}
    assert find_updating_variables(backward, leaves, reversed_list, moved, {}) == {}


def step_in_place(W: Any, dW: Any) -> None:
    W -= 0.05 * dW


def step_by_division(W: Any, dW: Any) -> None:
    W -= 0.05 * dW / len(W)


def step_anew(net: Any, dW: Any) -> None:
    net.W = net.W - dW * 0.05


def step_by_momentum(W: Any, v: Any, dW: Any) -> None:
    v[:] = 0.9 * v - 0.05 * dW
    W += v


def step_of_lists(W: Any, dW: Any) -> None:
    for i in range(len(W)):
        W[i] += -0.05 * dW[i]


def step_each(net: Any, W: Any, dW: Any) -> None:
    net.W = [w - 0.05 * g for w, g in zip(W, dW, strict=True)]


def step_by_name(W: Any, dW: Any) -> None:
    eta = 0.05
    W -= eta * dW


def step_elsewhere(W: Any, dW: Any) -> None:
    step_in_place(W, dW)


@pytest.mark.parametrize(
    "step",
    [
        step_in_place,
        step_anew,
        step_by_momentum,
        step_of_lists,
        step_each,
        step_by_name,
        step_elsewhere,
    ],
)
def test_a_factor_in_an_update_is_its_rate(step: Any) -> None:
    assert ETA in find_written_rates(step, RATES)
    leaves, slope = {"W": ("W",)}, np.array([0.7, -0.2])
    found = find_updating_variables(step, leaves, {"dW": slope}, {"W": ETA * slope}, {})
    assert found == {"W": ("locals", "dW")}


def test_a_gradient_over_a_size_is_no_step_by_the_written_rate() -> None:
    leaves, slope = {"W": ("W",)}, np.array([0.7, -0.2])
    moved = {"W": ETA * slope / 2}
    assert find_updating_variables(step_by_division, leaves, {"dW": slope}, moved, {}) == {}


def test_other_numbers_of_the_code_are_no_rates() -> None:
    def backward(W: Any, x: Any, lr: float) -> None:
        h = 0.01 * x
        dh = 0.5 * h - 0.25 * x
        dW = 0.125 * dh
        W -= lr * dW / 10

    assert find_written_rates(backward, RATES) == []
