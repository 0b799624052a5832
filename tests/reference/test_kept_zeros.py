"""Kinks beside points at which zeros were kept, and arguments that exclude scores."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference.excluded_scores import find_excluding, is_same
from bptt_verifier.reference.kept_zeros import has_nan, leave_out_kinks


def leave_out(jump: float, noise: float = 0.0, kept: Any = (0, 1), excluding: Any = ()) -> Any:
    """Gradients of zeros and quarters at two points, of which neighbours of the second are larger.

    `noise` is the rounding error of a gradient whose cotangents are not those given.
    """
    points = [{"x": np.array([-1000.0, 2.0, 3.0])}, {"x": np.array([-1000.0, 2.0, -3.0])}]
    cotangents = [{"y": np.array([2.0])}] * 2
    asked: list[Any] = []

    def compute(near: Any, given: Any) -> Any:
        asked.append((near, given))
        size = np.array([each["y"][0] / 2 for each in given])
        error = noise * (size - 1) / 4
        found = size[:, None] * np.array([[0, 1.0, 0], [0, 1.0 + jump, 0]]) + error[:, None]
        found /= 4
        return {"x": found, "w": size[:, None]}

    gradients = {"x": np.array([[0, 0.25, 0]] * 2), "w": np.ones((2, 1))}
    leave_out_kinks(compute, points, cotangents, gradients, kept, excluding)
    for near, _ in asked:
        for beside, point in zip(near, points, strict=True):
            change = np.abs(beside["x"] / point["x"] - 1)
            assert (change <= 2.0**-20).all()
            assert (change[1:] > 0).all()
            assert change.max() > 2.0**-23
            assert (change[0] == 0) == ("x" in excluding)
    assert [given[0]["y"].tolist() for _, given in asked] == [[2], [6], [10], [14]]
    assert np.isfinite(gradients["w"]).all()
    return [bool(np.isnan(each).all()) for each in gradients["x"]]


def test_a_gradient_that_jumps_beside_a_point_has_a_kink_there() -> None:
    assert leave_out(0) == [False, False]
    assert leave_out(2.0**-8) == [False, False]
    assert leave_out(1.01 * 2.0**-8) == [False, True]
    assert leave_out(-1.01 * 2.0**-8) == [False, True]
    assert leave_out(np.nan) == [False, True]
    with np.errstate(invalid="ignore"):
        assert leave_out(np.inf) == [False, True]


def test_a_point_at_which_no_zero_was_kept_has_none() -> None:
    assert leave_out(1.0, kept=[0]) == [False, False]
    assert leave_out(1.0, kept=[]) == [False, False]


# Errors of 1/2, 1 and 3/2 of the noise, in cotangents 3, 5 and 7 times as large, are errors of
# 1/6, 1/5 and 3/14 of it in the gradient: a kink jumps by more than 16 times the largest of these.
@pytest.mark.parametrize("kept", [(0, 1), (1,)])
def test_a_jump_that_rounding_may_make_is_no_kink(kept: Any) -> None:
    most = 2.0**-8 + 16 * 3 / 14 * 2.0**-10
    assert leave_out(0.99 * most, noise=2.0**-10, kept=kept) == [False, False]
    assert leave_out(1.01 * most, noise=2.0**-10, kept=kept) == [False, True]


def test_numbers_that_stand_for_infinity_are_not_moved() -> None:
    assert leave_out(0, excluding=["x"]) == [False, False]


def test_a_point_has_nan_if_one_of_its_arrays_has() -> None:
    arrays = {"a": np.ones((3, 2)), "b": np.array([[1, 1], [np.inf, 1], [1, np.nan]])}
    assert [has_nan(arrays, k) for k in range(3)] == [False, False, True]


# A softmax of scores beside the argument m: the smallest of m excludes them, unless `counts`.
def prepare(counts: float = 0.0, **leaves: Any) -> Any:
    def pull_back(points: Any, cotangents: Any) -> Any:
        assert [each["y"].tolist() for each in cotangents] == [[0, 0, 0]] * len(points)
        for name, value in leaves.items():
            lowest = {float(each[name].min() / value.min()) for each in points}
            assert lowest in ({1.0}, {1.0, 2.0}, {1.0, np.inf})
        outputs = np.array([np.exp(p["m"]) + (counts and counts * p["m"].min()) for p in points])
        return SimpleNamespace(outputs={"y": outputs, "z": np.ones(len(points))})

    arguments = SimpleNamespace(leaves=leaves)
    return SimpleNamespace(
        arguments=arguments, outputs={"y": np.zeros(3), "z": np.zeros(())}, pull_back=pull_back
    )


MASK = np.float32([0, -1e4, 1])


def test_a_number_excludes_scores_if_twice_the_number_gives_the_same_outputs() -> None:
    assert find_excluding(prepare(m=MASK)) == {"m"}
    assert find_excluding(prepare(1e-3, m=MASK)) == set()
    assert find_excluding(prepare(m=MASK / 100)) == set()
    # Rounding of scores beside −10⁴ may change an output of e by 2⁻⁴⁹ · 10⁴ e.
    assert find_excluding(prepare(2.0**-48, m=MASK)) == {"m"}
    assert find_excluding(prepare(2.0**-47, m=MASK)) == set()
    both = find_excluding(prepare(m=MASK, w=10 * MASK))
    assert both == {"m", "w"}
    assert find_excluding(prepare(1e-3, m=MASK, w=MASK)) == {"w"}
    assert find_excluding(prepare(1e-3, m=MASK / 100, w=MASK)) == {"w"}


def test_no_argument_excludes_scores_where_the_function_cannot_be_asked() -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("not there")

    pullback = prepare(m=MASK)
    pullback.pull_back = fail
    assert find_excluding(pullback) == frozenset()


def test_twice_the_smallest_number_of_float64_is_infinite_without_a_warning() -> None:
    assert find_excluding(prepare(m=np.array([0, -1.7e308, 1]))) == {"m"}


# Scores beside −2²⁰ have lost 2⁻²⁹ of an output of 1, and those beside −2⁴² everything.
def test_outputs_are_the_same_if_the_rounding_of_large_scores_explains_their_change() -> None:
    one = np.array([4.0, -np.inf, np.nan, 0.0])
    for lowest, allowed in ((2.0**20, 2.0**-27), (2.0**41, 2.0**-6), (2.0**42, 0), (np.inf, 0)):
        assert is_same(one, one, lowest)
        for part in (0.99, 1.01):
            change = np.array([0, 0, 0, part * allowed])
            assert is_same(one, one - change, lowest) == (part < 1 or not allowed)
    assert not is_same(one, one + np.array([0, 0, 0, 1e-12]), 2.0**42)
    assert not is_same(one, np.nan_to_num(one), 2.0**20)
    assert not is_same(np.zeros(1), np.array([2.0**-40]), 2.0**20)
    assert is_same(np.zeros(0), np.zeros(0), 1.0)
    assert is_same(np.full(2, np.nan), np.full(2, np.nan), 1.0)
