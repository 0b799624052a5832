"""Cases of an own model in which parameters are zero that are not zero as given."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference.own_cases import UNDECIDED, allow_beside_zeros
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point
from bptt_verifier.reference.selection import KINK, Examined
from tests.support.selectors import ONE, examined, follow_with, selector
from tests.support.stated_cases import state_case

NAMES = "abcdefg"


@pytest.mark.parametrize(
    ("most", "setting", "given", "zeroed"),
    [
        (6, 0, "abc", ["a", "b", "c"]),  # each alone
        (3, 0, NAMES, ["adg", "be", "cf"]),  # or in turns
        (3, 1, NAMES, ["dgc", "ea", "fb"]),
        (1, 0, "abc", ["a"]),  # of several settings, one each
        (1, 2, "abc", ["c"]),
        (1, 3, "abc", ["a"]),
        (2, 1, "abc", ["c", "a"]),
        (0, 0, "abc", []),
        (6, 0, "", []),
    ],
)
def test_parameters_are_zero_in_turns_that_are_not_zero_as_given(
    most: int, setting: int, given: str, zeroed: list[str]
) -> None:
    params = {name: np.array([0.0, 1.0]) * (name in given) for name in NAMES}
    chosen, tried = selector(follow_with(), params=params), list[Point]()
    chosen.setting = chosen.setting._replace(number=setting)

    def examine(point: Point, first: bool = True) -> Examined:
        assert not first
        tried.append(point)
        return examined(ONE)

    def keep(examined: Examined) -> str | None:
        return KINK if tried[-1].number == 24000 and not tried[-1].near else None

    chosen.examine = examine  # type: ignore[method-assign]
    chosen.keep = keep  # type: ignore[method-assign]
    assert len([*chosen.draw_zeroed(most)]) == len(zeroed)
    found = ["".join(point.factors) for point in tried]
    # Where the first draw is no case, one near the parameters given is.
    assert found == zeroed[:1] + zeroed
    assert [point.near for point in tried] == [False, True, *[False] * len(zeroed)][: len(tried)]
    assert {factor for point in tried for factor in point.factors.values()} <= {0.0}
    assert all(point.setting == setting for point in tried)
    numbers = [24000 + 12 * place for place in range(len(zeroed))]
    assert [point.number for point in tried] == numbers[:1] + numbers


def test_no_draw_with_zeros_is_a_case_where_it_cannot_be() -> None:
    chosen = selector(follow_with())

    def examine(point: Point, first: bool = True) -> str:
        return KINK

    chosen.examine = examine  # type: ignore[method-assign]
    assert [*chosen.draw_zeroed(3)] == []
    assert chosen.left_out == {}


@pytest.mark.parametrize(("dtype", "left"), [(np.float64, 2.0**-26), (np.float32, 2.0**-11.5)])
def test_beside_zeros_other_formulas_may_leave_a_part_of_what_cancels(
    dtype: Any, left: float
) -> None:
    values = {"W": np.array([0.0, -4.0, 0.5]), "v": np.zeros(2), "e": np.zeros(0), "loss": 0.0}
    allowed = {"W": np.array([0.0, 1e-9, 1e-9]), "v": np.zeros(2), "e": np.zeros(0), "loss": 0.0}
    params = {name: np.zeros(1) for name in ("W", "v", "e")}
    case = allow_beside_zeros(state_case(values, allowed, params))
    assert case.truth is not None
    known = case.truth(dtype, ())
    assert known.allowed["W"].tolist() == pytest.approx([4 * left, 1e-9, 1e-9])
    assert known.allowed["v"].tolist() == [UNDECIDED] * 2  # what is zero decides nothing
    assert known.allowed["e"].shape == (0,)
    assert known.allowed["loss"] == 0
    assert all(np.array_equal(known.values[name], value) for name, value in values.items())
    wide = state_case(values, allowed | {"W": np.array([1.0, 1e-9, 1e-9])}, params)
    coarse = allow_beside_zeros(wide).truth
    assert coarse is not None
    assert coarse(dtype, ()).allowed["W"][0] == 1.0  # as its bound is larger


def iterate(p: Any) -> Any:
    """The gradients where a system is solved by steps that do not begin at zero."""
    x, adjoint = np.ones(3), np.ones(3)
    for _ in range(80):
        x = p["c"] - p["M"] @ x
        error = np.linalg.solve(np.eye(3) + p["M"], p["c"]) - 1
        adjoint = 2 * error - p["M"].T @ adjoint
    return {"M": -np.outer(adjoint, x), "c": adjoint}


def solve(p: Any) -> Any:
    x = np.linalg.solve(np.eye(3) + p["M"], p["c"])
    return np.sum((x - 1) ** 2)


def test_what_an_iteration_leaves_of_zero_is_no_mistake() -> None:
    given = {"M": 0.1 * np.arange(9.0).reshape(3, 3) / 9, "c": np.array([0.5, -0.2, 0.9])}
    cases = prepare(solve, given, cases=8).cases
    (zeroed,) = [case for case in cases if case.point.factors == {"c": 0.0}]
    assert zeroed.truth is not None
    known, found = zeroed.truth(np.float64, ()), iterate(zeroed.arguments)
    assert not known.values["M"].any()
    assert found["M"].any()
    assert (np.abs(found["M"]) <= known.allowed["M"]).all()
