"""Scatter at neighbours decides what is rounding, by the numbers of docs/derivation.md, (N3)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.neighbours import (
    find_precision,
    is_half_precision,
    list_failing,
    settle,
    weigh,
)
from bptt_verifier.judge.subject import Compared
from bptt_verifier.tolerance.scatter import FAR, NEIGHBOURS, measure_scatter
from tests.support.stated_cases import state_case, state_compared, state_subject

CASE = state_case({"w": np.ones(2)}, {"w": np.ones(2)})
EPS = float(np.finfo(np.float32).eps)
ALTERNATING = np.array([1.0, -1.0] * (NEIGHBOURS // 2))


def subject() -> Any:
    """A subject whose neighbours have their number and distance as the point."""
    return state_subject(CASE, displace=lambda case, i, far: case._replace(point=(i, far)))


def attempt_with(
    near: Callable[[int, float], Any], here: Any, allowed: Any, dtype: Any = float
) -> Callable[..., Compared]:
    """A call whose true results are ones, and whose errors are these at neighbours and here."""
    ones = {"w": np.ones(np.shape(here))}

    def attempt(case: Any) -> Compared:
        error = here if case.point == 0 else near(*case.point)
        return state_compared({"w": 1 + error}, ones, {"w": allowed}, dtype)

    return attempt


@pytest.mark.parametrize(("limits", "is_rounding"), [(7.5, True), (8.5, False)])
def test_a_mean_below_eight_limits_is_asked_for_far_away(limits: float, is_rounding: bool) -> None:
    error = limits * EPS * np.ones(2)

    def near(number: int, distance: float) -> Any:  # alike at all near neighbours
        return error * (ALTERNATING[number] if distance == FAR else 1)

    attempt = attempt_with(near, error, np.full(2, 1e-9), np.float32)
    found = weigh(attempt, subject(), attempt(CASE), ["w"], 100)
    assert found.fails is not is_rounding


@pytest.mark.parametrize(("share", "is_rounding"), [(4.05, True), (4.2, False)])
def test_one_error_is_rounding_up_to_the_root_of_seventeen_times_the_limit(
    share: float, is_rounding: bool
) -> None:
    errors, allowed = 1e-3 * ALTERNATING, np.full(1, 1e-9)
    (limit,) = measure_scatter(list(errors[:, None]), allowed, np.zeros(1), 10).limit
    attempt = attempt_with(lambda i, _: errors[i : i + 1], share * np.array([limit]), allowed)
    assert weigh(attempt, subject(), attempt(CASE), ["w"], 10).fails is not is_rounding


def test_an_error_of_exactly_what_is_allowed_is_no_mistake_beside_one_that_is_rounding() -> None:
    allowed = np.ones(2)
    here = np.array([1.0, 1.25])  # the first is far beyond what its own scatter explains

    def near(number: int, _: float) -> Any:
        return np.array([0.0, 0.15625]) * ALTERNATING[number]

    attempt = attempt_with(near, here, allowed)
    assert attempt(CASE).fails
    assert not weigh(attempt, subject(), attempt(CASE), ["w"], 10).fails


@pytest.mark.parametrize("again", ["fails", "differs", "is the same"])
def test_only_rounding_that_is_the_same_at_a_second_call_is_explained(again: str) -> None:
    errors, calls = 1e-3 * ALTERNATING, list[Any]()
    attempt = attempt_with(lambda i, _: errors[i : i + 1], np.full(1, 1e-3), np.full(1, 1e-9))

    def at(case: Any) -> Any:
        found = attempt(case)
        if case.point == 0:
            calls.append(case)
            if again == "fails":
                return None
            if again == "differs":
                return found._replace(submitted={"w": found.submitted["w"] + 1e-8})
        return found

    before = attempt(CASE)
    after = weigh(at, subject(), before, ["w"], 10)
    assert len(calls) == 1
    assert after.fails is (again != "is the same")


def test_a_gradient_that_is_wrong_at_one_case_is_asked_for_at_no_other() -> None:
    asked = list[Any]()
    wrong = attempt_with(lambda i, _: np.ones(2), np.ones(2), np.full(2, 1e-9))

    def attempt(case: Any) -> Compared:
        asked.append(case)
        return wrong(case)

    compared = [wrong(CASE)] * 3
    settled = settle(attempt, subject(), compared, ["w"], ())
    assert all(found.fails for found in settled)
    assert len(asked) == NEIGHBOURS + 1
    settle(attempt, subject(), compared, ["w"], {"w"})  # known before
    assert len(asked) == NEIGHBOURS + 1


def test_an_error_of_all_that_is_allowed_does_not_fail() -> None:
    submitted = {"a": np.array([1.25]), "b": np.array([1.375])}
    ones, allowed = dict.fromkeys("ab", np.ones(1)), dict.fromkeys("ab", np.full(1, 0.25))
    assert list_failing(state_compared(submitted, ones, allowed)) == ["b"]


@pytest.mark.parametrize(("share", "decides"), [(1.0, True), (0.5, False)])
def test_the_scatter_decides_on_half_precision_from_ten_bits_above_its_underflow(
    share: float, decides: bool
) -> None:
    value = {"w": share * 2.0**10 * float(np.finfo(np.float16).smallest_normal) * np.ones(1)}
    found = state_compared(value, value, value, np.float16)
    assert is_half_precision("w", found) is decides
    assert not is_half_precision("w", found._replace(dtypes={"w": np.dtype(np.float32)}))
    assert not is_half_precision("other", found)


@pytest.mark.parametrize(
    ("allowed", "returned", "expected"),
    [
        # An error of 2⁻²⁴, in units of what float64 allows: as large as rounding in float32 is, at
        # least 2⁻¹⁰ of what float32 allows, or smaller than that.
        (2.0**-44, np.float64, np.float32),
        (2.0**-42, np.float64, None),
        (2.0**-44, np.float32, None),  # it says so itself
    ],
)
def test_a_format_is_inferred_from_errors_of_its_size(
    allowed: float, returned: Any, expected: Any
) -> None:
    ones, error = {"w": np.ones(1)}, np.full(1, 2.0**-24)
    before = state_compared({"w": 1 + error}, ones, {"w": np.full(1, allowed)}, returned)
    before = before._replace(case=state_case(ones, {"w": 2 * error}))
    after = state_compared({"w": 1 + error}, ones, {"w": error})
    assert find_precision(before, after) is expected
