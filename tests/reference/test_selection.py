"""Which points become cases of an own model: docs/derivation.md, section 10, in numbers."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.branches import Branch
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.reference import selection
from bptt_verifier.reference.overflows import EXPONENT
from bptt_verifier.reference.points import Point
from bptt_verifier.reference.selection import (
    BROAD,
    KINK,
    NARROW,
    NOT_FINITE,
    OTHER_PATH,
    OVERFLOW,
    RAISES,
    ROUNDED_OFF,
    SATURATING,
    VAGUE,
    Examined,
    Selector,
    Setting,
    list_saturating,
)
from tests.support.selectors import ONE, examined, follow_with, selector, set_operand
from tests.support.stated_cases import state_case, state_operation, state_program

U = 2.0**-53


@pytest.mark.parametrize(
    ("loss", "slope", "operand", "features"),
    [
        (16.0, 8.0, 7.5, set()),
        (16.1, 8.0, 0.0, {("loss", 1.0)}),
        (-16.1, 8.0, 0.0, {("loss", -1.0)}),
        (0.0, -8.1, 0.0, {("w", 8.0)}),
        (0.0, 65.0, 0.0, {("w", 8.0), ("w", 64.0)}),
        (0.0, 2049.0, 0.0, {("w", 8.0), ("w", 64.0), ("w", 2048.0)}),
        (0.0, 1.0, 7.6, {("saturated", "tanh")}),
        (0.0, 1.0, -11.9, {("saturated", "tanh")}),
        (0.0, 1.0, 12.0, set()),
    ],
)
def test_a_point_shows_large_losses_and_gradients_and_saturated_units(
    loss: float, slope: float, operand: float, features: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_operand(monkeypatch, [0.0, operand])
    follow = follow_with(loss, {"w": np.array([0.0, slope])}, (state_operation("tanh"),))
    found = selector(follow).examine(Point(1))
    assert isinstance(found, Examined)
    assert found.features == features


@pytest.mark.parametrize(
    ("value", "sizes"), [(8.0, ()), (-8.1, (8.0,)), (64.0, (8.0,)), (64.1, (8.0, 64.0))]
)
def test_a_point_shows_large_parameters(
    value: float, sizes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_operand(monkeypatch, [0.0, 0.0])
    chosen = selector(follow_with(0.0, {"w": np.ones(2)}))
    monkeypatch.setattr(Setting, "draw", lambda self, point: {"w": np.array([0.0, value])})
    found = chosen.examine(Point(1))
    assert isinstance(found, Examined)
    assert found.features == {("value", "w", size) for size in sizes}


@pytest.mark.parametrize(
    ("name", "operand", "seen"),
    [
        ("logistic", 15.1, True),
        ("exp", -23.9, True),
        ("exp", 24.0, False),
        ("exp", 15.0, False),
        ("tanh", 16.0, False),
    ],
)
def test_a_point_shows_units_far_out_whose_slope_is_not_lost(
    name: str, operand: float, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_operand(monkeypatch, [0.0, operand])
    follow = follow_with(0.0, {"w": np.ones(2)}, (state_operation(name),))
    found = selector(follow).examine(Point(1))
    assert isinstance(found, Examined)
    assert found.features == ({("far out", name)} if seen else set())


def test_where_a_slope_is_lost_in_the_sum_with_one_right_code_may_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slopes = {
        "tanh": lambda a: 1 - np.tanh(a),
        "logistic": lambda a: 1 - 1 / (1 + np.exp(-a)),
        "exp": lambda a: (1 + np.exp(a)) - np.exp(a),
    }
    assert slopes.keys() == SATURATING.keys()
    for name, slope in slopes.items():
        operands = np.linspace(1, 50, 500)
        kept = operands[slope(operands) > 0].max()  # not lost yet
        for operand, lost in [(0.9 * kept, False), (1.1 * kept, True), (1e3, None)]:
            for sign in (1, -1):
                set_operand(monkeypatch, [0.0, sign * operand])
                chosen = selector(follow_with(operations=(state_operation(name),)))
                point = chosen.examine(Point(0))
                assert isinstance(point, Examined)
                # A large negative operand is a mask.
                expected = sign > 0 if lost is None else lost
                assert chosen.overflows(point) is expected, (name, operand)


def test_draws_beyond_float32_are_left_out_unless_the_parameters_given_are_beyond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = follow_with(slopes={"w": np.array([1e39])})
    set_operand(monkeypatch, [1.0])
    chosen = selector(large)
    assert chosen.examine(Point(1)) == OVERFLOW
    assert isinstance(chosen.examine(Point(0)), Examined)
    assert isinstance(chosen.examine(Point(1)), Examined)
    assert chosen.examine(Point(2)) == OVERFLOW  # drawn in float32


def test_draws_at_which_another_formula_may_overflow_are_left_out_unless_the_given_ones_are_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exponential = follow_with(operations=(state_operation("exp"),))
    for given, drawn, left_out in [(1.0, EXPONENT, False), (1.0, 37.0, True),
                                   (80.0, 80.0, False), (80.0, 81.0, True)]:  # fmt: skip
        chosen = selector(exponential)
        set_operand(monkeypatch, [given])
        assert isinstance(chosen.examine(Point(0)), Examined)
        for number in (1, 2):  # drawn in float64 and in float32
            set_operand(monkeypatch, [drawn])
            assert (chosen.examine(Point(number)) == OVERFLOW) is left_out


def test_points_at_which_a_branch_stands_for_another_formula_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = selector(follow_with())
    set_operand(monkeypatch, [1.0])
    assert isinstance(chosen.examine(Point(1)), Examined)
    monkeypatch.setattr(selection, "rounds_off", lambda program, slots: True)
    assert chosen.examine(Point(0)) == chosen.examine(Point(1)) == ROUNDED_OFF


@pytest.mark.parametrize(("flaw", "exponent"), [(None, 700.0), (KINK, EXPONENT), (VAGUE, EXPONENT)])
def test_large_exponents_are_the_users_own_only_where_they_are_compared(
    flaw: str | None, exponent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = selector(follow_with())

    def try_point(point: Point) -> str | None:
        chosen.exponent = 700.0
        return flaw

    monkeypatch.setattr(chosen, "try_point", try_point)
    monkeypatch.setattr(chosen, "draw_ordinary", lambda number: iter(()))
    chosen.select(1, lambda number: None)
    assert chosen.exponent == exponent


def test_neighbours_are_at_opposite_steps_of_each_entry() -> None:
    params = {"w": np.array([2.0, 0.0, -4.0] * 100), "zero": np.zeros(100)}
    asked = list[Any]()

    def follow(wide: Any) -> Any:
        asked.append({name: wide[name] - params[name] for name in params})
        return follow_with(slopes={"w": np.full(300, 5.0 + len(asked)), "zero": np.ones(100)})(0)

    found = selector(follow, params=params).differ(
        examined({"w": np.full(300, 5.5), "zero": np.ones(100)}, params=params), 2.0**-10
    )
    assert found["w"].tolist() == [1.5] * 300  # the larger of both
    assert not found["zero"].any()
    above, below = asked
    size = np.sqrt((2**2 + 4**2) / 3)
    for name, own in {"w": np.array([2.0, size, -4.0] * 100), "zero": 0.6 * np.ones(100)}.items():
        np.testing.assert_allclose(above[name], -below[name])
        share = above[name] / own / 2.0**-10
        assert 0.49 < share.min() < 0.55
        assert 0.95 < share.max() < 1.01


def test_beside_a_point_without_gradient_nothing_is_measured() -> None:
    endless = follow_with(slopes={"w": np.array([1.0, np.inf])})
    for follow in (lambda wide: None, endless):
        assert selector(follow).differ(examined(ONE), 2.0**-10) == {}
        assert selector(follow).keep(examined(ONE)) == KINK


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_steps_are_in_units_of_the_roundoff(dtype: Any) -> None:
    steps = list[float]()
    chosen = selector(follow_with())
    chosen.differ = lambda examined, step: steps.append(step) or {"w": np.zeros(1)}  # type: ignore[func-returns-value, method-assign]
    chosen.keep(examined(ONE, params={"w": np.ones(1, dtype)}))
    u = float(np.finfo(dtype).eps) / 2
    assert steps == [2.0**6 * u, 2.0**14 * u]


def keep(
    slopes: Any, narrow: Any, broad: Any, number: int = 1, allowed: Any = None
) -> tuple[str | None, Selector]:
    """What becomes of a point whose gradients change so much at both steps."""
    arrays = {name: np.array(value, float) for name, value in slopes.items()}
    changes = {NARROW * U: narrow, BROAD * U: broad}
    chosen = selector(follow_with(), allowed and {n: np.array(v) for n, v in allowed.items()})
    chosen.differ = lambda examined, step: {  # type: ignore[method-assign]
        name: np.array(value, float) for name, value in changes[step].items()
    }
    return chosen.keep(examined(arrays, number)), chosen


def test_a_kink_is_a_change_that_does_not_shrink_and_exceeds_what_is_allowed() -> None:
    allowed = {"w": [2.0**-20, 2.0**-20]}
    limit = 2.0**-20 + NARROW * U * 4  # with 2⁶ u of the largest entry
    slopes = {"w": [1.0, 4.0]}
    for change, broad, flaw in [
        (limit, 8 * limit, None),
        (2 * limit, 8 * limit, KINK),
        (2 * limit, 32 * limit, None),
    ]:
        found, _ = keep(slopes, {"w": [change, 0.0]}, {"w": [broad, 0.0]}, allowed=allowed)
        assert found != KINK if flaw is None else found == KINK


def test_the_largest_change_of_a_gradient_says_how_well_conditioned_the_point_is() -> None:
    step = BROAD * U
    for name, share, vague in [("small", 1.0, False), ("large", 1.0, True), ("large", 0.9, False)]:
        slopes = {"large": [1.0, 1.0], "small": [2.0**-40, 0.0]}
        size = slopes[name][0]
        changes = {"large": [0.0, 0.0], "small": [0.0, 0.0]}
        changes[name] = [0.0, share * 1.01 * 2.0**20 * step * size]
        exact = {n: [0.0, 0.0] for n in slopes}
        flaw, chosen = keep(slopes, exact, changes, allowed={n: [1e-30] * 2 for n in slopes})
        # A gradient of 2⁻⁴⁰ of the largest one does not count.
        assert bool(chosen.vague) is vague
        assert (flaw is None) is not vague


def test_the_worst_condition_of_all_gradients_counts() -> None:
    slopes, still = {"a": [1.0], "b": [1.0]}, {"a": [0.0], "b": [0.0]}
    for name in slopes:
        changes = still | {name: [1.1 * 2.0**20 * BROAD * U]}
        flaw, _ = keep(slopes, still, changes, allowed={"a": [1e-30], "b": [1e-30]})
        assert flaw == VAGUE


def test_the_condition_at_the_parameters_given_is_kept_and_one_vague_point_is_enough() -> None:
    chosen = selector(follow_with(), {"w": np.full(1, 1e-30)})

    def condition(share: float, number: int) -> str | None:
        changes = {NARROW * U: np.zeros(1), BROAD * U: np.full(1, share * 2.0**20 * BROAD * U)}
        chosen.differ = lambda examined, step: {"w": changes[step]}  # type: ignore[method-assign]
        return chosen.keep(examined(ONE, number))

    assert [condition(0.5, 0), condition(1.9, 1), condition(0.1, 2)] == [None, None, None]
    assert [condition(2.1, 3), condition(2.1, 4)] == [VAGUE, VAGUE]
    assert [len(chosen.kept), len(chosen.vague)] == [3, 1]


def select(
    cases: dict[int, tuple[float, dict[str, float]]],
    given: str | None = None,
    features: frozenset[Any] = frozenset(),
) -> Any:
    """The selection from cases of these numbers, with a resolution and the factors of each."""
    chosen = selector(follow_with())
    chosen.left_out = Counter({KINK: 3})
    for number, (resolution, factors) in cases.items():
        case = state_case({"w": [1.0]}, {"w": [resolution]}, ONE)
        case = case._replace(point=Point(number, factors=factors))
        chosen.kept.append((case, examined(ONE)._replace(features=features)))
    chosen.try_point = lambda point: given  # type: ignore[method-assign]
    chosen.draw_ordinary = lambda number: iter(())  # type: ignore[method-assign]
    chosen.draw_large = lambda: iter(())  # type: ignore[method-assign]
    chosen.draw_zeroed = lambda most: iter(())  # type: ignore[method-assign]
    return chosen.select(2 * len(cases), lambda number: None)


@pytest.mark.parametrize(("flaw", "known"), [(RAISES, True), (KINK, False), (None, False)])
def test_the_draws_at_which_the_loss_raises_are_known(
    flaw: str | None, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, points = selector(follow_with()), [Point(1), Point(2, near=True)]
    monkeypatch.setattr(chosen, "examine", lambda point: flaw or examined(ONE))
    monkeypatch.setattr(chosen, "keep", lambda found: flaw)
    assert [*map(chosen.try_point, points)] == [flaw, flaw]
    monkeypatch.setattr(chosen, "draw_ordinary", lambda number: iter(()))
    monkeypatch.setattr(chosen, "try_point", lambda point: None)
    assert chosen.select(1, lambda number: None).raising == (*points,) * known


def test_a_selection_has_the_best_resolution_and_counts_what_is_unusual() -> None:
    half = {"w": 0.5}
    found = select({0: (1e-6, {}), 1: (1e-9, half), 2: (1e-3, half), 12000: (1.0, {"w": 8.0})})
    assert select({0: (1e-6, {"w": 0.0}), 1: (1e-6, {"w": 1.0})}).damped == 0
    assert found.resolution == {"w": 1e-9}
    assert found.damped == 2
    assert found.telling == {"w": 3}
    assert found.left_out == {KINK: 3}
    # The parameters given are not one of the draws.
    assert select({1: (1e-6, {})}, KINK).left_out == {KINK: 2}
    assert select({1: (1e-6, {})}, KINK).given == KINK


@pytest.mark.parametrize(
    ("number", "large", "zeroed", "draws"),
    [
        (12, 3, 3, 5),
        (12, 1, 3, 7),
        (12, 3, 1, 7),
        (8, 2, 2, 3),
        (48, 6, 6, 35),
        (6, 1, 1, 3),
        (5, 1, 0, 3),
        (3, 1, 0, 2),
    ],
)
def test_at_most_a_quarter_of_the_cases_are_scaled_up_or_zero_and_draws_fill_the_rest(
    number: int, large: int, zeroed: int, draws: int
) -> None:
    chosen, told = selector(follow_with()), list[int]()

    def keep(point: Point) -> None:
        case = state_case({"w": [1.0]}, {"w": [1e-9]}, ONE)._replace(point=point)
        chosen.kept.append((case, examined(ONE)))

    def draw_large() -> Any:
        for place in range(large):
            keep(Point(12000 + place, factors={"w": 8.0}))
            yield

    def draw_zeroed(most: int) -> Any:
        for place in range(min(most, zeroed)):
            keep(Point(24000 + place, factors={"w": 0.0}))
            yield

    chosen.try_point = keep  # type: ignore[assignment]
    chosen.draw_zeroed = draw_zeroed  # type: ignore[method-assign]
    chosen.draw_large = draw_large  # type: ignore[method-assign]
    found = chosen.select(number, told.append)
    numbers = [case.point.number for case in found.cases]
    scaled = [each for each in numbers if each >= 12000]
    assert numbers[0] == 0  # the parameters given
    assert scaled[:zeroed] == ([*range(24000, 24000 + zeroed)] if number > 3 else [])
    assert scaled[zeroed:] == ([*range(12000, 12000 + large)] if number > 3 else [])
    assert sorted(numbers)[: draws + 1] == [*range(draws + 1)]
    # Points are zero or scaled up after all other draws but those that stand in for them.
    first = number - (2 if zeroed else 1) * min(6, number // 4)
    assert [*map(numbers.index, scaled)] == [*range(first, first + len(scaled))]
    assert told == [*range(1, number + 1)]


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 2.0**20), (np.float32, 2.0**10)])
def test_a_point_is_ill_conditioned_beyond_a_limit_or_four_times_that_of_the_given_one(
    dtype: Any, most: float
) -> None:
    u = float(np.finfo(dtype).eps) / 2
    for share, given, vague in [(1.0, 0.0, False), (1.1, 0.0, True), (1.1, most / 4, True),
                                (1.1, most / 3, False)]:  # fmt: skip
        chosen = selector(follow_with(), {"w": np.full(1, 1e-30)})
        chosen.condition = given
        changes = {NARROW * u: np.zeros(1), BROAD * u: np.full(1, share * most * BROAD * u)}
        chosen.differ = lambda each, step, changes=changes: {"w": changes[step]}  # type: ignore[misc, method-assign]
        chosen.keep(examined(ONE, 1, {"w": np.ones(1, dtype)}))
        assert bool(chosen.vague) is vague


def test_a_point_without_a_finite_loss_and_gradient_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_operand(monkeypatch, [1.0])
    for loss, slopes in [
        (np.nan, {"w": np.ones(2)}),
        (1.0, {"w": np.array([1.0, np.inf])}),
        (1.0, {"w": np.ones(2), "v": np.full(2, np.nan)}),
    ]:
        params = {name: np.ones(2) for name in slopes}
        assert selector(follow_with(loss, slopes), params=params).examine(Point(1)) == NOT_FINITE
    assert selector(lambda wide: None).examine(Point(1)) == OTHER_PATH


def test_points_are_left_out_by_their_reasons_and_cases_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = selector(follow_with())
    flaws = iter([KINK, None, KINK])
    monkeypatch.setattr(
        chosen, "examine", lambda point: OVERFLOW if point.number == 9 else examined(ONE)
    )
    monkeypatch.setattr(chosen, "keep", lambda found: next(flaws))
    assert [chosen.try_point(Point(i)) for i in (1, 9, 2, 3)] == [KINK, OVERFLOW, None, KINK]
    assert +chosen.left_out == {KINK: 2, OVERFLOW: 1}


def test_a_tanh_may_overflow_beyond_its_own_operand_of_saturation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = state_operation("tanh"), state_operation("exp")
    for operand, expected in [(18.0, False), (18.5, True)]:  # less than that of exp, 36
        set_operand(monkeypatch, [0.0, operand])
        chosen = selector(follow_with(operations=both))
        point = chosen.examine(Point(0))
        assert isinstance(point, Examined)
        assert chosen.overflows(point) is expected


def test_a_saturating_function_is_named_by_the_first_line_that_calls_it() -> None:
    called = state_operation("tanh")
    called.where = "cell.py:3", "cell.py:9"
    assert [place for _, place, _ in list_saturating(state_program(called), [0])] == ["cell.py:3"]


def test_the_users_code_may_fail_on_a_path_that_is_not_traced_and_on_no_other() -> None:
    def fail(wide: Any) -> Any:
        raise ValueError("on another path")

    def lose(wide: Any) -> Any:
        raise UntraceableError("an array of text")

    def path(outcomes: Any) -> Any:
        return SimpleNamespace(program=SimpleNamespace(outcomes=outcomes, operations=()))

    for known in ([path([True])], [path([]), path([])], [path([True])] * 2):
        assert selector(fail, known=known).follow(ONE) == RAISES
        assert selector(fail, known=known).examine(Point(1)) == RAISES
        assert selector(lose, known=known).follow(ONE) == OTHER_PATH
        assert selector(lambda wide: None, known=known).follow(ONE) == OTHER_PATH
    with pytest.raises(ValueError, match="on another path"):
        selector(fail, known=[path([])]).follow(ONE)


def test_a_draw_at_which_the_loss_raises_is_no_case_and_the_parameters_given_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_operand(monkeypatch, [1.0])
    chosen, asked = selector(follow_with()), list[Any]()

    def raises(params: Any) -> bool:
        asked.append(params)
        return True

    chosen.setting = chosen.setting._replace(raises=raises)
    assert chosen.keep(examined(ONE, 0)) != RAISES
    assert asked == []
    assert chosen.keep(examined(ONE, 1)) == RAISES
    assert len(asked) == 1


def test_zeros_are_kept_for_the_first_time_at_any_point_but_those_scaled_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, asked = selector(follow_with()), list[bool]()
    paths: Any = SimpleNamespace(follow=lambda wide, first: asked.append(first), known=())
    chosen.setting = chosen.setting._replace(paths=paths)
    assert chosen.try_point(Point(1)) == OTHER_PATH
    assert chosen.examine(Point(12000), first=False) == OTHER_PATH
    assert chosen.differ(examined(ONE), 2.0**-10) == {}
    assert asked == [True, False, True]


def test_the_branches_that_the_cases_take_are_listed_beside_all() -> None:
    taken = Branch("where(a > 0, a, 0)", "cell.py:3", "a")
    assert select({0: (1e-9, {})}, features=frozenset({taken, ("loss", 1.0)})).taken == {taken}
