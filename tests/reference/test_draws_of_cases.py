"""Which points are drawn as cases of an own model, in which order, and where draws end."""

from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference import selection
from bptt_verifier.reference.points import Point
from bptt_verifier.reference.selection import ENOUGH, KINK, OVERFLOW, Examined, Selector
from tests.support.selectors import ONE, examined, follow_with, selector, set_operand
from tests.support.stated_cases import state_case, state_operation, state_program


@pytest.mark.parametrize("least", [2.0**-6, 0.0])
def test_where_nearly_all_draws_overflow_values_are_smaller_and_then_exponents_are_not_limited(
    least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = selector(follow_with(operations=(state_operation("exp"),)))
    examine, tried = chosen.examine, list[float]()

    def examine_at(point: Point) -> Any:
        tried.append(point.factors.get("w", 1.0))
        set_operand(monkeypatch, [50.0 if tried[-1] > least else 5.0])
        return examine(point)

    monkeypatch.setattr(chosen, "examine", examine_at)
    monkeypatch.setattr(chosen, "keep", chosen.kept.append)
    assert len([*islice(chosen.draw_ordinary(8), 8)]) == 8
    assert {*tried} == {1.0, 0.5, 0.25, 2.0**-4, 2.0**-6, least or 2.0**-8}
    assert (chosen.exponent == np.inf) is (least == 0)


def test_a_point_is_tried_at_half_and_a_quarter_of_its_values_and_near_those_given() -> None:
    chosen, tried = selector(follow_with()), list[Any]()
    chosen.try_point = lambda point: tried.append(point) or KINK  # type: ignore[func-returns-value, method-assign]
    assert list(chosen.draw_ordinary(8)) == []
    first, second, sixth, seventh = (tried[4 * place :][:4] for place in (0, 1, 5, 6))
    factors = [1.0, 0.5, 0.25, 1.0]
    assert [point.factors.get("w", 1.0) for point in first] == factors
    assert [point.near for point in first] == [False, False, False, True]
    assert [point.factors.get("w", 1.0) for point in second] == factors[::-1]  # every fourth
    assert [point.near for point in sixth] == [True, False, False, False]
    assert [point.near for point in seventh] == [False, False, False, True]


def large_points(
    monkeypatch: pytest.MonkeyPatch, features: dict[float, set[str]], flaw: str | None = None
) -> tuple[Selector, list[float], list[float]]:
    """A selector of which points with these factors have these features."""
    chosen, examined_at, kept = selector(follow_with()), list[float](), list[float]()

    def examine(point: Point, first: bool = True) -> Any:
        (factor,) = point.factors.values()
        examined_at.append(factor)
        found = frozenset(features.get(factor, ()))
        return examined(ONE)._replace(point=point, features=found)

    def keep(found: Examined) -> str | None:
        (factor,) = found.point.factors.values()
        kept.append(factor)
        assert len(kept) < 10
        return flaw

    monkeypatch.setattr(chosen, "examine", examine)
    monkeypatch.setattr(chosen, "overflows", lambda found: False)
    monkeypatch.setattr(chosen, "keep", keep)
    monkeypatch.setattr(selection, "CANDIDATES", 5)
    return chosen, examined_at, kept


def test_points_scaled_up_are_cases_only_if_they_show_more_than_all_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = {3.0: {"a"}, 8.0: {"a", "b"}, 64.0: {"a", "b", "c"}, 512.0: {"d"}}
    chosen, asked, kept = large_points(monkeypatch, features)
    assert len(list(chosen.draw_large())) == 2
    assert asked == [3.0, 8.0, 24.0, 64.0, 512.0]  # as section 10 says
    assert kept == [64.0, 512.0]


def test_a_point_scaled_up_that_is_no_case_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, _, kept = large_points(monkeypatch, {8.0: {"a", "b"}, 64.0: {"a"}}, KINK)
    assert list(chosen.draw_large()) == []
    assert kept == [8.0, 64.0]


def test_draws_end_where_none_or_too_few_become_cases() -> None:
    for kept, most in [(0, 8), (3, 8 * 10 + 4), (4, 2 * 10 + 4)]:
        chosen, tried = selector(follow_with()), list[int]()
        case = state_case({"w": [1.0]}, {"w": [1e-9]}, ONE)
        chosen.kept = [(case, examined(ONE))] * kept

        def try_point(point: Point, tried: list[int] = tried) -> str:
            tried.append(point.number)
            return KINK

        chosen.try_point = try_point  # type: ignore[method-assign]
        assert list(chosen.draw_ordinary(10)) == []
        assert tried[-1] == most


def refuse(asked: list[Point], point: Point, first: bool) -> str:
    """Note a point, which is to keep no zeros for the first time, and leave it out."""
    assert not first
    asked.append(point)
    return KINK


@pytest.mark.parametrize(("sets", "rounds"), [(1, 1), (5, 1), (6, 2), (10, 3)])
def test_all_values_and_each_parameter_are_scaled_up_at_points_of_their_own(
    sets: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"a": np.ones(1), "b": np.ones(1)}
    chosen, asked = selector(follow_with(), params=params), list[Point]()
    monkeypatch.setattr(chosen, "examine", partial(refuse, asked))
    monkeypatch.setattr(selection, "CANDIDATES", sets * 5)
    assert list(chosen.draw_large()) == []
    factors = [dict(point.factors) for point in asked]
    for factor in (3.0, 8.0, 24.0, 64.0, 512.0):
        for each in ({"a": factor, "b": factor}, {"a": factor}, {"b": factor}):
            assert each in factors
    assert len(factors) == 15 * rounds  # few parameters have other values in each round
    assert len({point.number for point in asked}) == 15 * rounds
    assert not any(point.near or point.number % 12 for point in asked)  # float64, of one size
    assert min(point.number for point in asked) > 1000  # beyond all other draws


@pytest.mark.parametrize(
    ("lengths", "points"),
    [((), 50), ((999, 10), 50), ((1000, 10), 25), ((10, 2500), 15), ((9000,), 15)],
)
def test_fewer_points_of_a_long_loss_are_scaled_up_but_never_less_than_three_sets_of_parameters(
    lengths: Any, points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [SimpleNamespace(program=state_program(*range(length))) for length in lengths]
    params = {f"w{i}": np.ones(1) for i in range(12)}
    chosen, asked = selector(follow_with(), params=params, known=known), list[Point]()
    monkeypatch.setattr(chosen, "examine", partial(refuse, asked))
    assert list(chosen.draw_large()) == []
    assert len(asked) == points


@pytest.mark.parametrize(("kept", "smaller"), [(0, True), (1, True), (2, False)])
def test_values_are_smaller_from_the_fifth_draw_on_where_all_but_the_given_ones_overflow(
    kept: int, smaller: bool
) -> None:
    chosen, tried = selector(follow_with()), list[Point]()
    case = state_case({"w": [1.0]}, {"w": [1e-9]}, ONE)
    chosen.kept = [(case, examined(ONE))] * kept

    def try_point(point: Point) -> str:
        tried.append(point)
        chosen.left_out[OVERFLOW] += 1
        return OVERFLOW

    chosen.try_point = try_point  # type: ignore[method-assign]
    assert list(chosen.draw_ordinary(10)) == []
    small = [point for point in tried if point.factors.get("w", 1.0) < 0.25]
    assert bool(small) is smaller
    assert not any(point.near for point in small)
    assert {point.number for point in tried} - {point.number for point in small} >= {1, 2, 3, 4}
    assert min((point.number for point in small), default=ENOUGH + 1) == ENOUGH + 1
