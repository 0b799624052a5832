"""Pull-backs of plain NumPy: each point is differentiated on the path that the code takes there."""

import itertools
import sys
from io import StringIO
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.reference import pullbacks
from bptt_verifier.reference.pullbacks import NumpyPullback
from tests.support.pullbacks import prepare

X = np.array([1.0, 2, 3])


def branch(x: Any) -> Any:
    """A function that takes another path where the sum is negative."""
    return np.where(x.sum() > 0, 1.0, 1.0) * x**2 if float(x.sum()) > 0 else 3 * np.abs(x)


def test_each_point_is_differentiated_on_the_path_that_the_code_takes() -> None:
    pullback = prepare(branch, X)
    assert type(pullback) is NumpyPullback
    at = [{"x": X}, {"x": -X}, {"x": 2 * X}]
    given = [{"output": np.ones(3)}] * 3
    pulled = pullback.pull_back(at, given)
    np.testing.assert_allclose(pulled.outputs["output"], [X**2, 3 * X, 4 * X**2])
    np.testing.assert_allclose(pulled.gradients["x"], [2 * X, [-3] * 3, 4 * X])
    assert pullback.list_other_paths(at, {"output": np.stack([X**2, X**2, 4 * X**2])}) == [1]
    again = pullback.pull_back(at[1:2], given[:1])
    np.testing.assert_allclose(again.gradients["x"], [[-3] * 3])
    assert prepare(jnp.sin, X).list_other_paths(at, {}) == []


def test_one_point_after_another_is_differentiated_on_its_own_path() -> None:
    pullback = prepare(branch, X)
    for sign, slope in ((1, 2 * X), (-1, [-3] * 3), (2, 4 * X)):
        pulled = pullback.pull_back([{"x": sign * X}], [{"output": np.ones(3)}])
        np.testing.assert_allclose(pulled.gradients["x"], [slope])


def test_two_points_that_are_traced_together_may_take_two_paths() -> None:
    pulled = prepare(branch, X).pull_back([{"x": X}, {"x": -X}], [{"output": np.ones(3)}] * 2)
    np.testing.assert_allclose(pulled.gradients["x"], [2 * X, [-3] * 3])


def test_one_point_is_traced_once_whatever_the_code_returns_there_next() -> None:
    calls = itertools.count(1)
    pullback = prepare(lambda x: next(calls) * np.asarray(x), X)
    pulled = pullback.pull_back([{"x": X}], [{"output": np.ones(3)}])
    np.testing.assert_allclose(pulled.outputs["output"], pulled.gradients["x"] * X)


def test_the_judge_computes_with_numpy_while_a_function_is_traced() -> None:
    found = StringIO()

    def forward(x: Any) -> Any:
        found.write("n" if vars(pullbacks)["np"] is sys.modules["numpy"] else "o")
        return 2 * np.asarray(x)

    prepare(forward, X).pull_back([{"x": X}], [{"output": np.ones(3)}])
    assert set(found.getvalue()) == {"n"}


@pytest.mark.parametrize(
    ("change", "others"),
    [(1 + 1e-10, []), (1 + 3e-9, [0]), (np.nan, [0])],
)
def test_outputs_that_differ_by_rounding_are_of_the_same_path(change: float, others: Any) -> None:
    def forward(x: Any) -> Any:
        return (2 * np.asarray(x) if float(x[0]) > 0 else x), np.full(2, np.nan)

    pullback = prepare(forward, X)
    traced = {"outputs[0]": 2 * X[None] * change, "outputs[1]": np.full((1, 2), np.nan)}
    assert pullback.list_other_paths([{"x": X}], traced) == others
    tiny = 2 * X * np.array([1, 1, 1]) + np.array([5e-9, 0, 0])  # beside the largest, 6
    traced["outputs[0]"] = tiny[None]
    assert pullback.list_other_paths([{"x": X}], traced) == []


def test_a_point_is_listed_once_and_small_outputs_tell_paths_as_well() -> None:
    def forward(x: Any) -> Any:
        y = 1e-12 * np.asarray(x)
        return (y, 2 * y) if float(x[0]) > 0 else (x, x)

    traced = {"outputs[0]": 2e-12 * X[None], "outputs[1]": 4e-12 * X[None]}
    assert prepare(forward, X).list_other_paths([{"x": X}], traced) == [0]
