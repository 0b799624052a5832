"""Scatter at neighbours decides what is rounding, by the numbers of docs/derivation.md, (N3)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.neighbours import (
    find_largest_error,
    find_precision,
    is_half_precision,
    list_failing,
    settle,
    weigh,
)
from bptt_verifier.judge.subject import Compared
from bptt_verifier.tolerance.comparison import compare
from bptt_verifier.tolerance.scatter import (
    DISTANCE,
    FAR,
    IN_HALF,
    NEAR,
    NEIGHBOURS,
    measure_scatter,
)
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


@pytest.mark.parametrize("stays", [0.0, 1.0])
def test_an_error_of_exactly_what_is_allowed_is_no_mistake_beside_one_that_is_rounding(
    stays: float,
) -> None:
    allowed = np.ones(2)
    here = np.array([1.0, 1.25])  # the first is far beyond what its own scatter explains

    def near(number: int, _: float) -> Any:
        return np.array([stays, 0.15625 * ALTERNATING[number]])

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
    assert not is_half_precision("w", found._replace(dtypes={"w": np.dtype(np.float32)}))
    assert not is_half_precision("other", found)
    assert not is_half_precision("w", found._replace(submitted={}))


@pytest.mark.parametrize(
    ("allowed", "returned", "share", "expected"),
    [
        # An error of 2⁻²⁴, in units of what float64 allows: as large as rounding in float32 is, at
        # least 2⁻¹⁰ of what float32 allows, or smaller than that.
        (2.0**-44, np.float64, 0.5, np.float32),
        (2.0**-43, np.float64, 1.0, np.float32),
        (2.0**-42, np.float64, 0.5, None),
        (2.0**-44, np.float32, 0.5, None),  # it says so itself
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
    ("formats", "far", "distance"),
    [
        (("f8", "f8"), False, DISTANCE),
        (("f4", "f8"), False, DISTANCE),
        (("f4", "f8"), True, FAR),
        (("f2", "f8"), False, IN_HALF),
        (("f2", "f2"), True, IN_HALF),
    ],
)
def test_neighbours_are_as_far_away_as_the_coarsest_format_asks(
    formats: tuple[str, str], far: bool, distance: float
) -> None:
    ones, allowed = dict.fromkeys("ab", np.ones(1)), dict.fromkeys("ab", np.full(1, 1e-9))
    submitted = dict.fromkeys("ab", 1 + np.ones(1))
    dtypes: Any = {name: np.dtype(each) for name, each in zip("ab", formats, strict=True)}
    wrong = state_compared(submitted, ones, allowed)._replace(dtypes=dtypes)
    asked = list[Any]()

    def attempt(case: Any) -> Compared:
        asked.append(case.point)
        return wrong

    weigh(attempt, subject(), wrong, ["a", "b"], 10, far=far)
    assert {each for _, each in asked[:NEIGHBOURS]} == {distance}
    assert asked[NEIGHBOURS] == 0  # and the case itself once more


@pytest.mark.parametrize(("answers", "is_rounding"), [(8, True), (7, False), (0, False)])
def test_scatter_needs_half_of_the_neighbours(answers: int, is_rounding: bool) -> None:
    errors = 1e-3 * ALTERNATING
    attempt = attempt_with(lambda i, _: errors[i : i + 1], np.full(1, 1e-3), np.full(1, 1e-9))

    def failing(case: Any) -> Any:
        return None if case.point != 0 and case.point[0] >= answers else attempt(case)

    found = weigh(failing, subject(), attempt(CASE), ["w"], 10)
    assert found.fails is not is_rounding


def test_scatter_alone_decides_at_up_to_eight_cases_in_half_precision() -> None:
    asked = list[Any]()
    error = 2.0**-6 * ALTERNATING[:, None]
    in_half = attempt_with(lambda i, _: error[i], error[0], np.ones(1), np.float16)

    def attempt(case: Any) -> Compared:
        asked.append(case)
        return in_half(case)

    compared = [in_half(CASE)] * 10
    settled = settle(attempt, subject(), compared, ["w"], ())
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

    assert weigh(at, subject(), attempt(CASE), ["w"], 10).fails is not is_rounding


def weigh_alike(submitted: Any, error: Any, has_vanishing_steps: bool = False) -> Compared:
    """What is weighed of results in float32 that have these errors at all neighbours."""
    given, true = np.array(submitted), np.array(submitted) - np.array(error)
    found = state_compared(
        {"w": given}, {"w": true}, {"w": np.full(given.shape, 1e-60)}, np.float32
    )
    assert found.fails
    judged = subject()
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
        (1.0, 0.001, 0.5, False),
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
    before = attempt(CASE)
    assert weigh(attempt, subject(), before, ["w"], 10).fails is not is_rounding


def find_distances(errors: Any, here: Any) -> tuple[set[float], Compared]:
    """The distances of the neighbours that are asked, and what is weighed."""
    asked = set[float]()
    allowed = np.full(np.shape(here), 1e-12)

    def near(number: int, distance: float) -> Any:
        asked.add(distance)
        return errors[number]

    attempt = attempt_with(near, np.asarray(here), allowed)
    return asked, weigh(attempt, subject(), attempt(CASE), ["w"], 10)


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
        assert found.fails


def test_errors_that_are_rounding_may_be_as_large_as_the_bound_and_the_scatter() -> None:
    scatter = np.array([1e-3, 1e-6]) * ALTERNATING[:, None]
    allowed = np.array([1e-4, 1e-3])
    attempt = attempt_with(lambda i, _: scatter[i], np.array([1e-3, 0.0]), allowed)
    found = weigh(attempt, subject(), attempt(CASE), ["w"], 10)
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

    other = CASE._replace(label="rounding")
    compared = [rounding(CASE)._replace(case=other), wrong(CASE)]
    assert settle(attempt, subject(), compared, ["w"], ()) == compared
    assert len(asked) == NEIGHBOURS + 1  # the other is not asked, as the gradient is wrong


def test_only_the_results_in_doubt_are_weighed() -> None:
    ones, allowed = dict.fromkeys("ab", np.ones(1)), dict.fromkeys("ab", np.full(1, 1e-9))
    found = state_compared({"a": 1 + np.ones(1), "b": 1 + np.ones(1)}, ones, allowed)
    weighed = weigh(lambda case: found, subject(), found, ["a"], 10)
    assert weighed.comparisons == found.comparisons


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0.0, 0.0], np.float32),  # a zero is precise in any format, and half of all is enough
        ([0.0, 1.0], None),  # one that is precise shows that the format is not coarse
    ],
)
def test_no_gradient_but_a_zero_is_precise_in_a_coarse_format(other: Any, expected: Any) -> None:
    error = np.full(2, 2.0**-24)
    true = {"w": np.ones(2), "other": np.array(other)}
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


def near_in_proportion(number: int, distance: float) -> Any:
    """A mistake in an ill-conditioned loss: its error moves by more than itself, but smoothly."""
    return np.array([3.0 + ALTERNATING[number] * (distance / DISTANCE), 0.0])


def near_alike(number: int, distance: float) -> Any:
    """Rounding errors, which are as large at any distance."""
    return np.array([3.0 + ALTERNATING[number], 0.0])


def weigh_widely(near: Any, allowed: Any, dtype: Any = float, answers: int = NEIGHBOURS) -> Any:
    """What is weighed of two entries of which the first is wrong, and the distances asked.

    The submission fails at all near neighbours but these.
    """
    asked = set[float]()

    def at(number: int, distance: float) -> Any:
        asked.add(distance)
        return near(number, distance)

    found = attempt_with(at, np.array([3.0, 0.0]), np.array(allowed), dtype)

    def attempt(case: Any) -> Any:
        if case.point and case.point[1] == NEAR and case.point[0] >= answers:
            return None
        return found(case)

    return weigh(attempt, subject(), found(CASE), ["w"], 10), asked


@pytest.mark.parametrize(
    ("near", "answers", "is_rounding"),
    [
        (near_alike, 16, True),
        (near_in_proportion, 16, False),
        (near_in_proportion, 8, False),
        (near_in_proportion, 7, True),  # too few to tell
    ],
)
def test_errors_that_scatter_in_proportion_to_the_distance_are_no_rounding(
    near: Any, answers: int, is_rounding: bool
) -> None:
    found, asked = weigh_widely(near, [1e-9, 2.0**-6], answers=answers)
    assert asked == {DISTANCE, NEAR} or answers < NEIGHBOURS
    assert found.fails is not is_rounding
    assert (found.allowed["w"][0] > 1) == is_rounding


@pytest.mark.parametrize(
    ("scale", "allowed", "dtype"),
    [
        (2.0**-12, [1e-9, 1e-9], float),  # the scatter alone would have shown an error of 2⁻⁶
        (1.0, [1e-9, 2.0**-5], float),  # the bound of some entry itself would not
        (1.0, [1e-9, 1e-9], np.float16),  # where rounding is the same at near neighbours
    ],
)
def test_nearer_neighbours_are_asked_only_where_wide_scatter_hides_what_a_bound_would_show(
    scale: float, allowed: Any, dtype: Any
) -> None:
    here = scale * np.array([3.0, 0.0])
    attempt = attempt_with(lambda k, _: scale * near_alike(k, 0), here, np.array(allowed), dtype)
    asked = set[float]()

    def at(case: Any) -> Any:
        asked.update(case.point[1:] if case.point else ())
        return attempt(case)

    assert not weigh(at, subject(), attempt(CASE), ["w"], 10).fails
    assert NEAR not in asked


@pytest.mark.parametrize(("moves", "is_rounding"), [(True, False), (False, True)])
def test_a_result_that_stays_where_the_true_one_moves_has_lost_its_digits(
    moves: bool, is_rounding: bool
) -> None:
    """Its error is alike at near neighbours, too, but is no mistake."""
    kind = np.dtype(float)

    def attempt(case: Any) -> Compared:
        number, distance = case.point or (0, 0.0)
        slope = 0.0 if case.point == 0 else ALTERNATING[number] * distance / DISTANCE
        true = np.array([1.0 + (slope if distance != DISTANCE else 0.0)])
        error = 0.9 + (ALTERNATING[number] if distance == DISTANCE else 0.0)
        submitted = np.array([error + (true[0] if moves else 1.0)])
        limit = np.full(1, 1e-9)
        found = compare("w", submitted, true, limit)
        return Compared(case, {"w": submitted}, {"w": kind}, {"w": true}, {"w": limit}, [found])

    found = weigh(attempt, subject(), attempt(CASE), ["w"], 10)
    assert found.fails is not is_rounding


def weigh_near(
    near: Any,
    *,
    here: Any = (1.0, 0.0),
    wide: Any = (1.0, 0.0),
    allowed: Any = (1e-16, 1e-9),
    true: Any = (1.0, 1.0),
    moves: tuple[float, float] = (0.0, 0.0),
    answers: int = NEIGHBOURS,
) -> tuple[bool, bool]:
    """Whether the errors of two entries are called rounding, and near neighbours were asked.

    The errors are `here` at the point, scatter by `wide` around zero at the usual neighbours, and
    are `near` at all near ones, where the true result moves by the first of `moves`, and the
    submission's by the second.
    """
    asked = set[float]()

    def attempt(case: Any) -> Any:
        number, distance = case.point or (0, 0.0)
        asked.add(distance)
        if distance == NEAR and number >= answers:
            return None
        moved, values = ALTERNATING[number], np.array(true)
        error = {0.0: np.array(here), NEAR: np.array(near)}.get(distance, moved * np.array(wide))
        both = [moved * move if distance == NEAR else 0.0 for move in moves]
        return state_compared(
            {"w": values + both[1] + error}, {"w": values + both[0]}, {"w": np.array(allowed)}
        )

    found = weigh(attempt, subject(), attempt(CASE), ["w"], 10)
    return not found.fails, NEAR in asked


# The submission's largest number at the point is 2, and the spacing there 2⁻⁵¹. Errors that are
# alike at near neighbours may be that large, and eight times as large is not beyond doubt yet.
SPACING = 2.0**-51


@pytest.mark.parametrize(
    ("mean", "is_rounding"), [(8 * SPACING, True), (8.5 * SPACING, False), (0.5, False)]
)
def test_a_mean_near_the_point_is_a_mistake_from_more_than_eight_limits_on(
    mean: float, is_rounding: bool
) -> None:
    assert weigh_near([mean, 0.0]) == (is_rounding, True)


@pytest.mark.parametrize(("mean", "is_rounding"), [(2.0**-10, True), (1.001 * 2.0**-10, False)])
def test_a_mean_near_the_point_may_be_all_that_is_allowed(mean: float, is_rounding: bool) -> None:
    assert weigh_near([mean, 0.0], allowed=[2.0**-10, 1e-9]) == (is_rounding, True)


@pytest.mark.parametrize(("answers", "is_rounding"), [(8, False), (7, True), (6, True)])
def test_half_of_the_near_neighbours_are_enough_to_take_an_explanation_back(
    answers: int, is_rounding: bool
) -> None:
    assert weigh_near([0.5, 0.0], answers=answers) == (is_rounding, True)


@pytest.mark.parametrize(("share", "is_rounding"), [(0.375, True), (0.5, False), (1.0, False)])
def test_a_result_that_moves_half_as_far_as_the_true_one_has_not_lost_its_digits(
    share: float, is_rounding: bool
) -> None:
    step = 2.0**-12
    assert weigh_near([0.5, 0.0], moves=(step, share * step)) == (is_rounding, True)


def test_wide_scatter_is_that_beyond_a_part_of_the_largest_entry_in_any_entry() -> None:
    """2⁻⁶ of the largest true entry is compared with the largest error that is allowed."""
    # The largest entry is 1, the smallest 2⁻³⁰; what is allowed in the second stays below 2⁻⁶.
    small = {"true": [1.0, 2.0**-30], "allowed": [1e-9, 1e-16]}
    assert weigh_near([0.5, 0.0], **small) == (False, True)
    # 2⁻⁶ of the smallest entry would be less than what the bound allows.
    assert weigh_near([0.5, 0.0], true=[1.0, 2.0**-30], allowed=[1e-9, 2.0**-30]) == (False, True)


def test_scatter_up_to_that_part_of_the_largest_entry_is_not_wide() -> None:
    # The scatter of the first entry explains 7.4 · 2⁻⁹; the second has what its bound allows.
    explained = weigh_near(
        [0.5, 0.0], here=[2.0**-7, 0.0], wide=[2.0**-9, 0.0], allowed=[2.0**-8, 2.0**-6]
    )
    assert explained == (True, False)
    in_proportion = weigh_near(
        [0.5, 0.0], here=[2.0**-7, 0.0], wide=[2.0**-8, 0.0], allowed=[1e-9, 1e-9], true=[4.0, 1.0]
    )
    assert in_proportion == (True, False)
