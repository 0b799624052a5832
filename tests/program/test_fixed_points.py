"""Which loops of a loss are iterations to a fixed point, and where these have converged."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.fixed_points import (
    LONG,
    SETTLED,
    find_iterations,
    has_converged,
    have_settled,
)
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import Program, trace

X = np.array([0.7, -0.4])
DATA = np.random.default_rng(0).normal(size=(40, 2))


def iterate(p: Any, xp: Any, steps: int = 40) -> Any:
    z = xp.zeros(2)
    for _ in range(steps):
        z = xp.tanh(p["w"] * z + X)
    return z


def descend(p: Any, xp: Any) -> Any:
    z = p["w"]
    for _ in range(40):
        z = z - 0.3 * (2 * z - X)
    return z


def read_data(p: Any, xp: Any) -> Any:
    z = xp.zeros(2)
    for x in DATA:
        z = xp.tanh(p["w"] * z + x)
    return z


def read_parameters(p: Any, xp: Any) -> Any:
    z = xp.zeros(2)
    for t in range(40):
        z = xp.tanh(0.3 * z + p["w"][t % 2])
    return z


def solve_twice(p: Any, xp: Any) -> Any:
    total = 0.0
    for scale in (1.0, -3.0):
        z = xp.zeros(2)
        for _ in range(40):
            z = xp.tanh(p["w"] * z + scale * X)
        total = total + z
    return total


def trace_sum(state: Callable[[Any, Any], Any]) -> Program:
    with use_float64():
        return trace(lambda p, xp: xp.sum(state(p, xp)), {"w": np.full(2, 0.3)})


@pytest.mark.parametrize(
    ("state", "number"),
    [
        (iterate, 1),
        (descend, 1),
        (solve_twice, 2),
        (read_data, 0),
        (read_parameters, 0),
        (lambda p, xp: iterate(p, xp, LONG), 1),
        (lambda p, xp: iterate(p, xp, LONG - 1), 0),
        (lambda p, xp: p["w"], 0),
    ],
    ids="map descent two data parameters long short none".split(),
)
def test_an_iteration_repeats_one_step_on_what_it_has_computed(state: Any, number: int) -> None:
    found = find_iterations(trace_sum(state))
    assert len(found) == number
    assert all(len(each.slots) >= LONG - 1 for each in found)
    for each in found:
        assert each.first.where[0].text.startswith("z = ")


@pytest.mark.parametrize(("weight", "converged"), [(0.3, True), (-0.9, False), (-4.0, False)])
def test_an_iteration_converges_where_its_step_contracts(weight: float, converged: bool) -> None:
    program = trace_sum(iterate)
    params = {"w": np.array([0.1, weight])}
    assert has_converged(program, find_iterations(program), params) is converged


def test_values_have_settled_that_are_the_same_over_the_last_quarter() -> None:
    values = np.array([4.0, 3.0, *[1.0] * 6])
    assert have_settled(values)
    for late, share, settled in [(5, 4.0, True), (5, 4.5, False), (4, 4.5, True)]:
        moved = values.copy()
        moved[late] += share * SETTLED  # in units of the largest of all
        assert have_settled(moved) is settled
    assert not have_settled([*values[:-1], np.inf])
    assert not have_settled([np.nan, *values[1:]])
