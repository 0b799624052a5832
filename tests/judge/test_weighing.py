"""Scatter at neighbours decides what is rounding, by the numbers of docs/derivation.md, (N3)."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.neighbours import (
    are_numbers_of,
    collect_errors,
    fill_digits,
    find_largest_error,
    find_precision,
    is_half_precision,
    is_lost,
    is_within,
    list_failing,
    may_be_rounded,
    settle,
    weigh,
)
from bptt_verifier.judge.subject import Compared
from bptt_verifier.reference.case import Truth
from bptt_verifier.tolerance.scatter import DISTANCE, FAR, IN_HALF, NEIGHBOURS, measure_scatter
from tests.support.stated_cases import (
    CASE_OF_ONES,
    attempt_with,
    state_case,
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
    ("allowed", "returned", "share", "expected"),
    [
        # An error of 2⁻²⁴, in units of what float64 allows: as large as rounding in float32 is, at
        # least 2⁻¹⁰ of what float32 allows, or smaller than that.
        (2.0**-44, np.float64, 0.5, np.float32),
        (2.0**-43, np.float64, 1.0, np.float32),
        (2.0**-42, np.float64, 0.5, None),
        # One in float32 may compute in float16: at least eight times what float32 allows.
        (2.0**-27, np.float32, 1.0, np.float16),
        (2.0**-26, np.float32, 0.5, None),
        (2.0**-27, np.float32, 1.5, None),
        (2.0**-44, np.float16, 0.5, None),
        (2.0**-44, np.float64, 1.5, None),  # nor is it within what float32 allows
    ],
)
def test_a_format_is_inferred_from_errors_of_its_size(
    allowed: float, returned: Any, share: float, expected: Any
) -> None:
    ones, error = {"w": np.ones(1)}, np.full(1, 2.0**-24)
    before = state_compared({"w": 1 + error}, ones, {"w": np.full(1, allowed)}, returned)
    before = before._replace(case=state_case(ones, {"w": error / share}))
    after = state_compared({"w": 1 + error}, ones, {"w": error})
    assert find_precision(before, after) is expected


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


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0.0, 0.0], np.float32),  # a zero is precise in any format
        ([0.0, 1.0], None),  # one that is precise shows that the format is not coarse
    ],
)
def test_no_gradient_but_a_zero_is_precise_in_a_coarse_format(other: Any, expected: Any) -> None:
    error = np.full(2, 2.0**-24)
    true = {"w": np.ones(2)} | dict.fromkeys(["other", "third"], np.array(other))
    allowed = dict.fromkeys(true, np.full(2, 2.0**-44))
    before = state_compared(true | {"w": 1 + error}, true, allowed)
    before = before._replace(case=state_case(true, dict.fromkeys(true, 2 * error)))
    after = state_compared(true | {"w": 1 + error}, true, allowed | {"w": error})
    assert find_precision(before, after) is expected


def test_an_entry_that_is_wrong_at_the_point_is_so_beside_one_that_is_rounding() -> None:
    scatter = 1e-6 * ALTERNATING[:, None] * np.ones(2)
    _, found = find_distances(scatter, [1e-2, 1e-6])
    assert found.fails


def test_one_gradient_of_three_says_nothing_of_the_format() -> None:
    error, three = np.full(1, 2.0**-24), dict.fromkeys("abc", np.ones(1))
    submitted = dict.fromkeys("abc", 1 + error)
    before = state_compared(submitted, three, dict.fromkeys("abc", np.full(1, 2.0**-44)))
    before = before._replace(case=state_case(three, dict.fromkeys("abc", 2 * error)))
    for explained, expected in [("a", None), ("ab", np.float32)]:
        allowed = before.allowed | dict.fromkeys(explained, error)
        assert find_precision(before, state_compared(submitted, three, allowed)) is expected


@pytest.mark.parametrize(("error", "expected"), [(0.125, np.float32), (0.126, None)])
def test_errors_as_large_as_a_result_say_nothing_of_its_format(error: float, expected: Any) -> None:
    ones, errors = {"w": np.ones(2)}, np.array([error, 1e-3])
    before = state_compared({"w": 1 + errors}, ones, {"w": np.full(2, 2.0**-44)})
    before = before._replace(case=state_case(ones, {"w": 2 * errors}))
    after = state_compared({"w": 1 + errors}, ones, {"w": np.ones(2)})
    assert find_precision(before, after) is expected
    assert is_lost(before, "w") is (expected is None)
    smaller = state_compared({"w": [1.1, 0.1]}, {"w": [1.0, 0.1]}, {"w": [1e-9, 1e-9]})
    assert is_lost(smaller, "w") is False  # beside the largest entry


def test_a_loss_alone_says_nothing_of_the_format() -> None:
    error, true = np.full(1, 2.0**-24), {"loss": np.ones(1), "w": np.zeros(1)}
    before = state_compared(
        true | {"loss": 1 + error}, true, dict.fromkeys(true, 2.0**-44 + error * 0)
    )
    before = before._replace(case=state_case(true, dict.fromkeys(true, 2 * error)))
    after = state_compared(true | {"loss": 1 + error}, true, dict.fromkeys(true, error))
    assert find_precision(before, after) is None


@pytest.mark.parametrize(
    ("values", "dtype", "of_format", "filled"),
    [
        ([1.0, -200.0, 0.0], np.float32, True, False),
        ([1.0, 1 + 2.0**-23], np.float32, True, True),
        ([1.0, 1 + 2.0**-24], np.float32, False, False),
        ([1 + 2.0**-10], np.float32, True, False),  # half of the 23 digits, and no more
        ([1 + 2.0**-11], np.float32, True, True),
        ([1 + 2.0**-10], np.float16, True, True),
        ([1 + 2.0**-11], np.float16, False, False),
        ([1e300], np.float32, False, False),
    ],
)
def test_numbers_of_a_format_are_known_and_fill_more_than_half_of_its_digits(
    values: list[float], dtype: Any, of_format: bool, filled: bool
) -> None:
    assert are_numbers_of(np.array(values), dtype) is of_format
    assert fill_digits(np.array(values), dtype) is filled


@pytest.mark.parametrize(
    ("value", "dtype", "allowed", "expected"),
    [
        (1 + 2.0**-23, "f8", 2.0**-23, True),
        (1 + 2.0**-23, "f8", 2.0**-24, False),
        (1 + 2.0**-24, "f8", 1.0, False),
        (1 + 2.0**-9, "f4", 2.0**-9, True),  # as in float16
        (1 + 2.0**-23, "f4", 1.0, False),
        (1.0, "f2", 1.0, False),  # no coarser format is known
    ],
)
def test_a_result_may_be_rounded_to_a_coarser_format_than_it_is_returned_in(
    value: float, dtype: str, allowed: float, expected: bool
) -> None:
    found = state_compared({"w": [value]}, {"w": [1.0]}, {"w": [2.0**-52]}, dtype)
    found = found._replace(case=state_case({"w": [1.0]}, {"w": [allowed]}))
    assert may_be_rounded(found, "w") is expected
    assert not may_be_rounded(found._replace(case=found.case._replace(truth=None)), "w")


def test_errors_are_those_of_a_coarser_format_than_that_of_each_result_only() -> None:
    ones, limits = dict.fromkeys("ab", np.ones(1)), dict.fromkeys("ab", np.full(1, 1e-9))
    found = state_compared(ones, ones, limits)
    assert is_within(found, ["a", "b"], np.float32) is True
    mixed = found._replace(dtypes={"a": np.dtype("f8"), "b": np.dtype("f4")})
    assert is_within(mixed, ["a", "b"], np.float32) is False
    assert is_within(mixed, ["a"], np.float32) is True


def test_a_case_of_rounding_does_not_settle_what_the_next_one_is() -> None:
    errors = 1e-6 * ALTERNATING[:, None]
    attempt = attempt_with(lambda i, _: errors[i], errors[0], np.full(1, 1e-9))
    compared = [attempt(CASE_OF_ONES)] * 2
    settled = settle(attempt, subject_with_neighbours(), compared, ["w"], ())
    assert [found.fails for found in settled] == [False, False]


def test_errors_that_are_small_by_chance_tell_the_format_by_the_digits_of_all_gradients() -> None:
    error, ones = np.array([2.0**-23]), dict.fromkeys("vw", np.ones(1))
    small, wide = (dict.fromkeys("vw", np.full(1, size)) for size in (2.0**-24, 2.0**-20))
    for more, expected in [(0.0, np.float32), (2.0**-30, None)]:
        submitted = {"v": 1 + error, "w": 1 + error + more}
        before = state_compared(submitted, ones, small)._replace(case=state_case(ones, wide))
        assert find_precision(before, state_compared(submitted, ones, wide)) is expected


def test_rounded_results_that_do_not_scatter_tell_the_format_by_their_digits() -> None:
    error = np.array([2.0**-23])  # as the gradient of a linear loss, which is its data
    for submitted, expected in [(1 + error, np.float32), (1 + 2.0**14 * error, None)]:
        found = state_compared({"w": submitted}, {"w": np.ones(1)}, {"w": np.full(1, 2.0**-50)})
        found = found._replace(case=state_case({"w": np.ones(1)}, {"w": np.full(1, 2.0**-8)}))
        assert find_precision(found, found) is expected


def test_a_wrong_gradient_of_float32_numbers_is_not_taken_for_one_of_half_precision() -> None:
    right, wrong = 1 + np.array([2.0**-23]), 1.001 * (1 + np.array([2.0**-23]))
    submitted = {"U": np.float64(np.float32(wrong)), "W": right}
    ones = dict.fromkeys("UW", np.ones(1))
    before = state_compared(submitted, ones, dict.fromkeys("UW", np.full(1, 2.0**-50)))

    def truth(dtype: Any, names: Any) -> Truth:
        return Truth(ones, dict.fromkeys("UW", np.full(1, 8 * float(np.finfo(dtype).eps))))

    before = before._replace(case=before.case._replace(truth=truth))
    after = state_compared(submitted, ones, {"U": np.full(1, 2.0**-50), "W": np.full(1, 1e-6)})
    assert find_precision(before, after) is np.float32
