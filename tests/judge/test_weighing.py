"""Scatter at neighbours decides what is rounding, by the numbers of docs/derivation.md, (N3)."""

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from bptt_verifier.judge.neighbours import (
    collect_errors,
    find_largest_error,
    is_half_precision,
    list_failing,
    settle,
    weigh,
)
from bptt_verifier.judge.subject import Compared
from bptt_verifier.tolerance.scatter import DISTANCE, FAR, IN_HALF, NEIGHBOURS, measure_scatter
from tests.support.stated_cases import (
    CASE_OF_ONES,
    attempt_with,
    state_compared,
    subject_with_neighbours,
)

EPS = float(np.finfo(np.float32).eps)
ALTERNATING = np.array([1.0, -1.0] * (NEIGHBOURS // 2))


@pytest.mark.parametrize(("limits", "is_rounding"), [(7.5, True), (8.5, False)])
def test_a_mean_below_eight_limits_is_asked_for_far_away(limits: float, is_rounding: bool) -> None:
    error = limits * EPS * np.ones(2)

    def near(number: int, distance: float) -> Any:  # alike at all near neighbours
        return error * (ALTERNATING[number] if distance == FAR else 1)

    attempt = attempt_with(near, error, np.full(2, 1e-9), np.float32)
    found = weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 100)
    assert found.fails is not is_rounding


@pytest.mark.parametrize(("share", "is_rounding"), [(4.05, True), (4.2, False)])
def test_one_error_is_rounding_up_to_the_root_of_seventeen_times_the_limit(
    share: float, is_rounding: bool
) -> None:
    errors, allowed = 1e-3 * ALTERNATING, np.full(1, 1e-9)
    (limit,) = measure_scatter(list(errors[:, None]), allowed, np.zeros(1), 10).limit
    attempt = attempt_with(lambda i, _: errors[i : i + 1], share * np.array([limit]), allowed)
    assert (
        weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10).fails
        is not is_rounding
    )


@pytest.mark.parametrize("stays", [0.0, 1.0])
def test_an_error_of_exactly_what_is_allowed_is_no_mistake_beside_one_that_is_rounding(
    stays: float,
) -> None:
    allowed = np.ones(2)
    here = np.array([1.0, 1.25])  # the first is far beyond what its own scatter explains

    def near(number: int, _: float) -> Any:
        return np.array([stays, 0.15625 * ALTERNATING[number]])

    attempt = attempt_with(near, here, allowed)
    assert attempt(CASE_OF_ONES).fails
    assert not weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10).fails


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

    before = attempt(CASE_OF_ONES)
    after = weigh(at, subject_with_neighbours(), before, ["w"], 10)
    assert len(calls) == 1
    assert after.fails is (again != "is the same")


def test_a_gradient_that_is_wrong_at_one_case_is_asked_for_at_no_other() -> None:
    asked = list[Any]()
    wrong = attempt_with(lambda i, _: np.ones(2), np.ones(2), np.full(2, 1e-9))

    def attempt(case: Any) -> Compared:
        asked.append(case)
        return wrong(case)

    compared = [wrong(CASE_OF_ONES)] * 3
    settled = settle(attempt, subject_with_neighbours(), compared, ["w"], ())
    assert all(found.fails for found in settled)
    assert len(asked) == NEIGHBOURS + 1
    settle(attempt, subject_with_neighbours(), compared, ["w"], {"w"})  # known before
    assert len(asked) == NEIGHBOURS + 1


def test_an_error_of_all_that_is_allowed_does_not_fail() -> None:
    submitted = {"a": np.array([1.25]), "b": np.array([1.375])}
    ones, allowed = dict.fromkeys("ab", np.ones(1)), dict.fromkeys("ab", np.full(1, 0.25))
    found = state_compared(submitted, ones, allowed)
    assert list_failing(found) == ["b"]
    assert find_largest_error(found) == 1.5


@pytest.mark.parametrize(("share", "decides"), [(1.0, True), (0.5, False)])
def test_the_scatter_decides_on_half_precision_from_ten_bits_above_its_underflow(
    share: float, decides: bool
) -> None:
    value = {"w": share * 2.0**10 * float(np.finfo(np.float16).smallest_normal) * np.array([0, 1])}
    found = state_compared(value, value, value, np.float16)
    assert is_half_precision("w", found) is decides
    assert is_half_precision("w", found._replace(dtypes={"w": np.dtype(np.float32)})) is False
    assert is_half_precision("other", found) is False
    assert is_half_precision("w", found._replace(submitted={})) is False
    endless = {"w": np.array([1.0, np.inf])}
    assert is_half_precision("w", found._replace(submitted=endless)) is False


@pytest.mark.parametrize(
    ("formats", "far", "distances"),
    [
        (("f8", "f8"), False, [DISTANCE]),
        (("f4", "f8"), False, [DISTANCE]),
        (("f4", "f8"), True, [FAR]),
        (("f2", "f2"), True, [IN_HALF]),
        # Half precision of one result explains nothing of another.
        (("f2", "f8"), False, [IN_HALF, DISTANCE]),
        (("f4", "f2"), True, [IN_HALF, FAR]),
    ],
)
def test_neighbours_are_as_far_away_as_the_format_of_each_result_asks(
    formats: tuple[str, str], far: bool, distances: list[float]
) -> None:
    ones, allowed = dict.fromkeys("ab", np.ones(1)), dict.fromkeys("ab", np.full(1, 1e-9))
    submitted = dict.fromkeys("ab", 1 + np.ones(1))
    dtypes: Any = {name: np.dtype(each) for name, each in zip("ab", formats, strict=True)}
    wrong = state_compared(submitted, ones, allowed)._replace(dtypes=dtypes)
    asked = list[Any]()

    def attempt(case: Any) -> Compared:
        asked.append(case.point)
        return wrong

    weigh(attempt, subject_with_neighbours(), wrong, ["a", "b"], 10, far=far)
    for number, distance in enumerate(distances):
        start = number * (NEIGHBOURS + 1)
        assert {each for _, each in asked[start : start + NEIGHBOURS]} == {distance}
        assert asked[start + NEIGHBOURS] == 0  # and the case itself once more


@pytest.mark.parametrize(
    ("dtype", "number"), [(np.float16, NEIGHBOURS), (bfloat16, 2 * NEIGHBOURS)]
)
def test_results_in_bfloat16_have_twice_as_many_neighbours(dtype: Any, number: int) -> None:
    asked = list[int]()

    def near(i: int, distance: float) -> Any:
        asked.append(i)
        return np.zeros(1)

    attempt = attempt_with(near, np.zeros(1), np.ones(1))
    found = attempt(CASE_OF_ONES)
    found = found._replace(dtypes={"w": np.dtype(dtype)})
    weigh(attempt, subject_with_neighbours(), found, ["w"], 10, decisive=True)
    assert [i for i in asked if i >= 0][-number:] == [*range(number)]


def test_one_result_in_bfloat16_has_twice_as_many_neighbours_beside_others_in_float16() -> None:
    ones, asked = {"w": np.ones(1), "v": np.ones(1)}, list[int]()

    def attempt(case: Any) -> Any:
        asked.append(case.point[0] if case.point else -1)
        return state_compared(ones, ones, ones)

    dtypes = {"w": np.dtype(np.float16), "v": np.dtype(bfloat16)}
    found = attempt(CASE_OF_ONES)._replace(dtypes=dtypes)
    weigh(attempt, subject_with_neighbours(), found, ["w", "v"], 10, decisive=True)
    assert max(asked) == 2 * NEIGHBOURS - 1


@pytest.mark.parametrize(("answers", "is_rounding"), [(8, True), (7, False), (0, False)])
def test_scatter_needs_half_of_the_neighbours(answers: int, is_rounding: bool) -> None:
    errors = 1e-3 * ALTERNATING
    attempt = attempt_with(lambda i, _: errors[i : i + 1], np.full(1, 1e-3), np.full(1, 1e-9))

    def failing(case: Any) -> Any:
        return None if case.point != 0 and case.point[0] >= answers else attempt(case)

    found = weigh(failing, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10)
    assert found.fails is not is_rounding


def test_a_neighbour_at_which_one_entry_overflows_has_no_error() -> None:
    def near(number: int, _: float) -> Any:
        return np.array([0.25, 0.5 if number % 2 else np.inf])

    attempt = attempt_with(near, np.zeros(2), np.ones(2), np.float16)
    errors = collect_errors(attempt, subject_with_neighbours(), CASE_OF_ONES, ["w"], IN_HALF)
    assert np.array_equal(errors["w"], [[0.25, 0.5]] * (NEIGHBOURS // 2))


def test_scatter_alone_decides_at_up_to_eight_cases_in_half_precision() -> None:
    asked = list[Any]()
    error = 2.0**-6 * ALTERNATING[:, None]
    in_half = attempt_with(lambda i, _: error[i], error[0], np.ones(1), np.float16)

    def attempt(case: Any) -> Compared:
        asked.append(case)
        return in_half(case)

    compared = [in_half(CASE_OF_ONES)] * 10
    settled = settle(attempt, subject_with_neighbours(), compared, ["w"], ())
    assert len(asked) == 8 * (NEIGHBOURS + 1)
    limits = [found.allowed["w"][0] for found in settled]
    spacing = float(np.finfo(np.float16).eps) * (1 + error[0]) + 2.0**-24
    entries = 10
    expected = measure_scatter(list(error), np.ones(1), spacing, entries).limit
    assert limits == pytest.approx([*expected] * 8 + [1.0] * 2)


@pytest.mark.parametrize(
    ("change", "is_rounding"), [([2.0**-30, 0.0], True), ([2.0**-29, 0.0], False)]
)
def test_a_second_call_may_differ_in_each_entry_by_what_is_allowed(
    change: list[float], is_rounding: bool
) -> None:
    errors = 2.0**-10 * ALTERNATING[:, None] * np.ones(2)
    attempt = attempt_with(lambda i, _: errors[i], errors[0], np.full(2, 2.0**-30))

    def at(case: Any) -> Compared:
        found = attempt(case)
        if case.point == 0:
            return found._replace(submitted={"w": found.submitted["w"] + np.array(change)})
        return found

    assert (
        weigh(at, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10).fails
        is not is_rounding
    )


def weigh_alike(submitted: Any, error: Any, has_vanishing_steps: bool = False) -> Compared:
    """What is weighed of results in float32 that have these errors at all neighbours."""
    given, true = np.array(submitted), np.array(submitted) - np.array(error)
    found = state_compared(
        {"w": given}, {"w": true}, {"w": np.full(given.shape, 1e-60)}, np.float32
    )
    assert found.fails
    judged = subject_with_neighbours()
    judged.has_vanishing_steps = has_vanishing_steps
    return weigh(lambda case: found, judged, found, ["w"], 10)


@pytest.mark.parametrize("has_vanishing_steps", [True, False])
def test_an_error_that_does_not_scatter_is_rounding_below_the_spacing_of_the_numbers(
    has_vanishing_steps: bool,
) -> None:
    # Below that of the largest entry terms are lost in a sum, but not where entries are steps.
    for error, alike in [([0.5 * EPS, 0.5 * EPS / 4], True), ([0.5 * EPS, 0.5 * EPS], False)]:
        found = weigh_alike([1.0, 0.25], error, has_vanishing_steps)
        assert found.fails is (has_vanishing_steps and not alike)
    assert not weigh_alike([1.0], [EPS], has_vanishing_steps).fails
    smallest = float(np.finfo(np.float32).smallest_subnormal)
    assert not weigh_alike([0.0], [smallest], has_vanishing_steps).fails


@pytest.mark.parametrize(
    ("mean", "scatter", "allowed", "is_rounding"),
    [
        (1.0, 1.0, 0.5, True),  # within what it scatters
        (1.0, 0.001, 2.0, True),  # within what is allowed
        (10.0, 0.001, 0.5, False),
    ],
)
@pytest.mark.parametrize("other", [0.0, 1.0])
def test_an_entry_is_wrong_if_its_mean_exceeds_what_is_allowed_and_what_it_scatters(
    mean: float, scatter: float, allowed: float, is_rounding: bool, other: float
) -> None:
    """One entry beside another, which is right or is explained by its scatter."""
    limits = np.array([allowed, 0.9e-4 if other else 1.0])

    def near(number: int, _: float) -> Any:
        moved = ALTERNATING[number]
        return np.array([mean + scatter * moved, 1e-4 * other * moved])

    attempt = attempt_with(near, np.array([max(mean, 1.0), 1e-4 * other]), limits)
    before = attempt(CASE_OF_ONES)
    assert weigh(attempt, subject_with_neighbours(), before, ["w"], 10).fails is not is_rounding


def find_distances(errors: Any, here: Any) -> tuple[set[float], Compared]:
    """The distances of the neighbours that are asked, and what is weighed."""
    asked = set[float]()
    allowed = np.full(np.shape(here), 1e-12)

    def near(number: int, distance: float) -> Any:
        asked.add(distance)
        return errors[number]

    attempt = attempt_with(near, np.asarray(here), allowed)
    return asked, weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10)


@pytest.mark.parametrize(("share", "far"), [(5.0, True), (9.0, False)])
def test_an_error_at_the_point_alone_is_asked_for_far_away_below_eight_limits(
    share: float, far: bool
) -> None:
    errors = 1e-6 * ALTERNATING[:, None]
    (limit,) = measure_scatter(list(errors), np.full(1, 1e-12), np.zeros(1), 10).limit
    asked, found = find_distances(errors, [share * 17**0.5 * limit])
    assert asked == ({DISTANCE, FAR} if far else {DISTANCE})
    assert found.fails


def test_far_neighbours_are_asked_only_if_every_wrong_entry_is_below_eight_limits() -> None:
    # The limit is about 7 standard deviations, which are 1e-6 here.
    scatter = 1e-6 * ALTERNATING[:, None] * np.ones(2)
    for mean, far in [([2e-5, 2e-5], True), ([2e-5, 2e-4], False), ([2e-4, 2e-4], False)]:
        asked, found = find_distances(scatter + np.array(mean), mean)
        assert (FAR in asked) is far
        assert found.fails is not far


@pytest.mark.parametrize(
    ("near", "far", "here", "dtype", "fails"),
    [
        (3.0, 3.0, 3.0, np.float32, False),  # a function of the library that errs to one side
        (3.0, 3.0, 7.0, np.float32, False),
        (3.0, 3.0, 7.3, np.float32, True),  # more than the mean and one rounding error explain
        (3.0, 7.9, 7.9, np.float32, False),
        (3.0, 8.5, 8.5, np.float32, True),
        (8.5, 3.0, 3.0, np.float32, True),
        (3.0, 3.0, 3.0, np.float16, True),
    ],
)
def test_a_mean_below_eight_limits_near_and_far_is_the_bias_of_a_function(
    near: float, far: float, here: float, dtype: Any, fails: bool
) -> None:
    errors, allowed = 0.1 * ALTERNATING[:, None], np.full(1, 1e-9)
    spacing = np.full(1, float(np.finfo(dtype).eps))
    (limit,) = measure_scatter(list(errors), allowed, spacing, 10).limit

    def move(number: int, distance: float) -> Any:
        return errors[number] + limit * (far if distance == FAR else near)

    attempt = attempt_with(move, here * np.array([limit]), allowed, dtype)
    found = weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10)
    assert found.fails is fails
    if not fails:
        assert found.allowed["w"] == pytest.approx(8 * limit)
        (comparison,) = found.comparisons
        assert comparison.resolution == pytest.approx(8 * limit)


def test_one_entry_that_a_bias_does_not_explain_is_wrong_beside_another_that_it_does() -> None:
    scatter = 1e-6 * ALTERNATING[:, None] * np.ones(2)
    (limit, _) = measure_scatter(list(scatter), np.full(2, 1e-12), np.zeros(2), 10).limit
    for beyond in (0.0, 5.0):
        here = 3 * limit + np.array([0.0, beyond * limit])
        asked, found = find_distances(scatter + 3 * limit, here)
        assert FAR in asked
        assert found.fails is bool(beyond)


@pytest.mark.parametrize(
    ("far", "near", "asked", "fails"),
    [
        (9.0, 3.0, [FAR], True),
        (3.0, 9.0, [FAR, DISTANCE], True),
        (3.0, 3.0, [FAR, DISTANCE, FAR], False),
        (0.5, 9.0, [FAR], False),
    ],
)
def test_near_neighbours_are_asked_where_far_ones_leave_it_in_doubt(
    far: float, near: float, asked: list[float], fails: bool
) -> None:
    errors, limits, seen = 1e-6 * ALTERNATING[:, None], np.full(1, 1e-12), list[float]()
    (limit,) = measure_scatter(list(errors), limits, np.zeros(1), 10).limit

    def move(number: int, distance: float) -> Any:
        if not number and distance in (FAR, DISTANCE):
            seen.append(distance)
        return errors[number] + limit * (far if distance == FAR else near)

    attempt = attempt_with(move, 3 * np.array([limit]), limits)
    found = attempt(CASE_OF_ONES)
    assert weigh(attempt, subject_with_neighbours(), found, ["w"], 10, far=True).fails is fails
    assert seen == asked


def test_errors_that_are_rounding_may_be_as_large_as_the_bound_and_the_scatter() -> None:
    scatter = np.array([1e-3, 1e-6]) * ALTERNATING[:, None]
    allowed = np.array([1e-4, 1e-3])
    attempt = attempt_with(lambda i, _: scatter[i], np.array([1e-3, 0.0]), allowed)
    found = weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10)
    assert not found.fails
    limit = measure_scatter(list(scatter), allowed, np.zeros(2), 10).limit
    assert found.allowed["w"] == pytest.approx(np.maximum(limit, allowed))
    assert limit[0] > allowed[0]


def test_the_case_of_the_largest_error_is_asked_first() -> None:
    asked = list[Any]()
    errors = 1e-6 * ALTERNATING[:, None]
    wrong = attempt_with(lambda i, _: np.ones(1), np.ones(1), np.full(1, 1e-9))
    rounding = attempt_with(lambda i, _: errors[i], errors[0], np.full(1, 1e-9))

    def attempt(case: Any) -> Compared:
        asked.append(case)
        return (rounding if case.label == "rounding" else wrong)(case)

    other = CASE_OF_ONES._replace(label="rounding")
    compared = [rounding(CASE_OF_ONES)._replace(case=other), wrong(CASE_OF_ONES)]
    assert settle(attempt, subject_with_neighbours(), compared, ["w"], ()) == compared
    assert len(asked) == NEIGHBOURS + 1  # the other is not asked, as the gradient is wrong


def test_only_the_results_in_doubt_are_weighed() -> None:
    ones, allowed = dict.fromkeys("ab", np.ones(1)), dict.fromkeys("ab", np.full(1, 1e-9))
    found = state_compared({"a": 1 + np.ones(1), "b": 1 + np.ones(1)}, ones, allowed)
    weighed = weigh(lambda case: found, subject_with_neighbours(), found, ["a"], 10)
    assert weighed.comparisons == found.comparisons


def test_an_entry_that_is_wrong_at_the_point_is_so_beside_one_that_is_rounding() -> None:
    scatter = 1e-6 * ALTERNATING[:, None] * np.ones(2)
    _, found = find_distances(scatter, [1e-2, 1e-6])
    assert found.fails


def test_a_case_of_rounding_does_not_settle_what_the_next_one_is() -> None:
    errors = 1e-6 * ALTERNATING[:, None]
    attempt = attempt_with(lambda i, _: errors[i], errors[0], np.full(1, 1e-9))
    compared = [attempt(CASE_OF_ONES)] * 2
    settled = settle(attempt, subject_with_neighbours(), compared, ["w"], ())
    assert [found.fails for found in settled] == [False, False]
