"""Errors of wide scatter are asked for again at nearer points: docs/derivation.md, section 10."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.neighbours import are_clipped, moves_smoothly, weigh
from bptt_verifier.judge.subject import Compared
from bptt_verifier.tolerance.comparison import compare
from bptt_verifier.tolerance.scatter import DISTANCE, NEAR, NEARER, NEIGHBOURS
from tests.support.stated_cases import (
    CASE_OF_ONES,
    attempt_with,
    state_case,
    state_compared,
    subject_with_neighbours,
)

ALTERNATING = np.array([1.0, -1.0] * (NEIGHBOURS // 2))


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
        if case.point and case.point[1] in (NEAR, NEARER) and case.point[0] >= answers:
            return None
        return found(case)

    return weigh(attempt, subject_with_neighbours(), found(CASE_OF_ONES), ["w"], 10), asked


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
    nearer = {NEARER} if is_rounding else set[float]()  # asked last, in float64
    assert asked == {DISTANCE, NEAR} | nearer or answers < NEIGHBOURS
    assert found.fails is not is_rounding
    assert (found.allowed["w"][0] > 1) == is_rounding


@pytest.mark.parametrize(
    ("scale", "allowed", "dtype"),
    [
        (2.0**-12, [1e-9, 1e-9], np.float32),  # the scatter would have shown an error of 2⁻⁶
        (2.0**-22, [1e-9, 1e-9], float),  # or, in float64, of 2⁻¹⁶
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

    assert not weigh(at, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10).fails
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

    found = weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10)
    assert found.fails is not is_rounding


def weigh_near(
    near: Any,
    *,
    here: Any = (1.0, 0.0),
    wide: Any = (1.0, 0.0),
    allowed: Any = (1e-16, 1e-9),
    true: Any = (1.0, 1.0),
    moves: tuple[Any, Any] = (0.0, 0.0),
    answers: int = NEIGHBOURS,
    dtype: Any = float,
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
        if distance in (NEAR, NEARER) and number >= answers:
            return None
        moved, values = ALTERNATING[number], np.array(true)
        errors = {0.0: np.array(here), NEAR: np.array(near), NEARER: np.array(near)}
        error = errors.get(distance, moved * np.array(wide))
        both = [moved * move if distance in (NEAR, NEARER) else 0.0 for move in moves]
        submitted, known = {"w": values + both[1] + error}, {"w": values + both[0]}
        return state_compared(submitted, known, {"w": np.array(allowed)}, dtype)

    found = weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10)
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
        [0.5, 0.0],
        here=[2.0**-7, 0.0],
        wide=[2.0**-9, 0.0],
        allowed=[2.0**-8, 2.0**-6],
        dtype=np.float32,
    )
    assert explained == (True, False)
    in_proportion = weigh_near(
        [0.5, 0.0],
        here=[2.0**-7, 0.0],
        wide=[2.0**-8, 0.0],
        allowed=[1e-9, 1e-9],
        true=[4.0, 1.0],
        dtype=np.float32,
    )
    assert in_proportion == (True, False)


def test_wide_scatter_of_one_entry_is_asked_for_beside_one_of_narrow_scatter() -> None:
    """The second entry scatters as little as its small bound."""
    narrow = {"allowed": [1e-9, 1e-16]}
    assert weigh_near([0.5, 0.0], dtype=np.float32, **narrow) == (False, True)
    # In float64, 7.4 · 2⁻⁹ is wide as well, though below 2⁻⁶.
    smaller = {"here": [2.0**-7, 0.0], "wide": [2.0**-9, 0.0]}
    assert weigh_near([2.0**-7, 0.0], **narrow, **smaller) == (False, True)
    # 2⁻⁶ of the largest entry is four times as much where that is 4.
    assert weigh_near([0.5, 0.0], true=[4.0, 1.0], allowed=[1e-9, 2.0**-5]) == (False, True)


def test_in_float64_scatter_up_to_a_part_of_the_largest_entry_is_not_wide() -> None:
    # The scatter of the first entry explains 7.4 · 2⁻²⁰; the second has what its bound allows.
    here, wide = [2.0**-18, 0.0], [2.0**-20, 0.0]
    found = weigh_near(here, here=here, wide=wide, allowed=[2.0**-19, 2.0**-16])
    assert found == (True, False)
    # 7.4 · 2⁻¹⁹ is below 2⁻¹⁶ of the largest entry, which is 4, and not below a quarter of it.
    here, wide = [2.0**-17, 0.0], [2.0**-19, 0.0]
    found = weigh_near(here, here=here, wide=wide, allowed=[1e-9, 1e-16], true=[4.0, 1.0])
    assert found == (True, False)


@pytest.mark.parametrize(("error", "is_rounding"), [(-0.5, False), (0.5, True)])
def test_an_entry_that_stays_beside_one_that_moves_is_clipped_or_has_lost_its_digits(
    error: float, is_rounding: bool
) -> None:
    """The first entry is 1, and the submission's the largest, below that or above it."""
    step = np.full(2, 2.0**-12)
    moves = step, step * np.array([0.0, 1.0])
    found = weigh_near([error, 0.0], here=[error, 0.0], true=[1.0, 0.25], moves=moves)
    assert found == (is_rounding, True)


@pytest.mark.parametrize(
    ("left", "is_rounding"),
    [(0.5, True), (0.251, True), (0.25, True), (0.249, False), (0.1, False)],
)
def test_an_entry_that_stays_alone_is_clipped_where_it_is_far_below_the_true_one(
    left: float, is_rounding: bool
) -> None:
    error = [left - 1, left - 0.5]  # both entries of the submission are what is left
    moves = np.full(2, 2.0**-12), 0.0
    found = weigh_near(error, here=error, true=[1.0, 0.5], moves=moves)
    assert found == (is_rounding, True)


@pytest.mark.parametrize(("single", "taken_back"), [(2.0**-7, False), (2.0**-8, True)])
def test_in_float64_smaller_errors_are_taken_back_if_float32_has_none_as_large(
    single: float, taken_back: bool
) -> None:
    here, wide = np.array([2.0**-7, 0.0]), np.array([2.0**-9, 0.0])
    ones, limits = {"w": np.ones(2)}, {"w": np.full(2, 1e-9)}

    def attempt(case: Any) -> Any:
        number, distance = case.point or (0, 0.0)
        error = ALTERNATING[number] * wide if distance == DISTANCE else here
        return state_compared({"w": 1 + error}, ones, limits)

    found = attempt(CASE_OF_ONES)
    found = found._replace(case=state_case(ones, {"w": np.full(2, single)}))
    assert weigh(attempt, subject_with_neighbours(), found, ["w"], 10).fails is taken_back


@pytest.mark.parametrize("distance", [NEAR, NEARER])
@pytest.mark.parametrize(("dtype", "most"), [(float, NEARER), (np.float32, NEAR)])
def test_a_mistake_in_a_chaotic_loss_shows_at_the_nearest_points_in_float64(
    distance: float, dtype: Any, most: float
) -> None:
    def attempt(case: Any) -> Any:  # chaotic down to this distance
        number, far = case.point or (0, 0.0)
        scatters = far > distance or far == 0
        error = np.array([3.0 + (4.0 * ALTERNATING[number] if scatters else 0.0), 0.0])
        return state_compared({"w": 1 + error}, {"w": np.ones(2)}, {"w": np.full(2, 1e-9)}, dtype)

    found = weigh(attempt, subject_with_neighbours(), attempt(CASE_OF_ONES), ["w"], 10)
    assert found.fails is (distance >= most)


@pytest.mark.parametrize(
    ("yours", "true", "expected"),
    [
        ([[5.0, 1.0], [5.0, 2.0]], [[9.0, 1.0], [8.0, 2.0]], [True, False]),
        ([[-5.0, 1.0], [5.0, 2.0]], [[-9.0, 1.0], [8.0, 2.0]], [True, False]),
        ([[5.0, 1.0], [5.0, 2.0]], [[9.0, 1.0], [5.0, 2.0]], [False, False]),  # not all are above
        ([[5.0, 1.0], [4.0, 2.0]], [[9.0, 1.0], [8.0, 2.0]], [False, False]),
        ([[0.0, 0.0], [0.0, 0.0]], [[9.0, 1.0], [8.0, 2.0]], [False, False]),  # lost, not clipped
    ],
)
def test_what_stays_the_largest_below_the_true_entry_is_clipped(
    yours: Any, true: Any, expected: list[bool]
) -> None:
    assert are_clipped(np.array(yours), np.array(true)).tolist() == expected


def follow(*names: str, share: float = 1.0, dtype: Any = np.float16, answers: Any = None) -> Any:
    """Whether w and v follow the true ones; w moves by this share of what these move by.

    The first entry of each moves by a tenth of that of the second, and v in step.
    """
    asked = list[Any]()

    def attempt(case: Any) -> Any:
        asked.append(case.point)
        if answers is not None and len(asked) not in answers:
            return None
        number, distance = case.point
        moved = 3 + number * distance * np.array([0.1, 1.0])
        yours = {"w": 5 + share * moved, "v": 7 + moved}
        none = {"w": np.zeros(2), "v": np.zeros(2)}
        return state_compared(yours, {"w": moved, "v": moved}, none)

    found = state_compared({"w": np.ones(2)}, {"w": np.ones(2)}, {"w": np.ones(2)})
    result = moves_smoothly(attempt, subject_with_neighbours(), found, names, dtype)
    return result, asked


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, True), (0.76, True), (1.24, True), (0.74, False), (1.26, False), (0.0, False)],
)
def test_what_follows_the_true_gradient_by_three_quarters_moves_smoothly(
    share: float, expected: bool
) -> None:
    assert follow("w", "v", share=share)[0] is expected
    assert follow("v", "w", share=share)[0] is expected
    assert follow("v", share=share)[0] is True


def test_neighbours_within_the_spacing_of_a_format_are_asked_four_times() -> None:
    for dtype, distance in ((np.float16, 2.0**-16), (np.float32, 2.0**-29)):
        assert follow("w", dtype=dtype) == (True, [(number, distance) for number in range(4)])


def test_nothing_follows_where_nothing_moves_or_no_neighbour_answers() -> None:
    assert follow("w", answers=())[0] is False
    assert follow("w", answers=(2,))[0] is False  # one alone does not move
    assert follow("w", answers=(2, 4))[0] is True
    assert follow("w", answers=(2, 4), share=0.5)[0] is False


MOVES: dict[str, tuple[Any, bool]] = {
    "against the true one": (lambda d: -3 * d, True),
    "by three tenths": (lambda d: 0.3 * d, True),
    "by a quarter": (lambda d: 0.25 * d, False),  # it all but stays
    "not at all": (lambda d: 0 * d, False),
    "by a jump": (lambda d: 0.03 * np.rint(d / 0.02), False),
    "by three tenths more": (lambda d: -3 * d * (1 + 0.3 * (d > 0.0085)), True),
    "by four tenths more": (lambda d: -3 * d * (1 + 0.4 * (d > 0.0085)), False),
}


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("answers", [range(8), [0, 2, 5, 6]])
def test_what_moves_half_as_far_at_half_the_distance_moves_smoothly(
    kind: str, answers: Any
) -> None:
    moves, expected = MOVES[kind]
    largest, asked = 2.0**-6, list[Any]()  # of the true moves, in the place of a few units

    def attempt(case: Any) -> Any:
        number, distance = case.point
        asked.append((number, distance))
        if len(asked) - 1 not in answers:
            return None
        true = (1 - number / 8) * largest * distance * 2.0**16 * np.array([1.0, -1.0])
        yours = {"w": 5 + moves(np.abs(true)) * np.sign(true)}
        return state_compared(yours, {"w": 3 + true}, {"w": np.zeros(2)})

    found = state_compared({"w": np.full(2, 5.0)}, {"w": np.full(2, 3.0)}, {"w": np.ones(2)})
    of_case = attempt, subject_with_neighbours(), found, ["w"]
    assert moves_smoothly(*of_case, np.float16) is expected
    assert asked == [(number, d) for d in (2.0**-16, 2.0**-17) for number in range(4)]
