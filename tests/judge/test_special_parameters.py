"""Gradients that hold for parameters of a special set alone are doubted, as of symmetric ones."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.own_model import IN_SETS, OwnSubject
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.undecided import doubt_outside_sets
from bptt_verifier.program.attempt import CodeRaisedError
from bptt_verifier.reference.points import Point
from tests.support.stated_cases import state_case, state_compared


def compared(number: int, value: float = 1.0, allowed: float = 1e-9) -> Compared:
    found = state_compared({"S": np.full(1, value)}, {"S": np.ones(1)}, {"S": np.full(1, allowed)})
    point = SimpleNamespace(number=number)
    return found._replace(case=found.case._replace(point=point))


HOME, AWAY, VAGUE = compared(0), compared(1, 2.0), compared(1, allowed=1.0)
RIGHT: Any = compared(1)
SAID = (
    "Your gradients agree at the parameters given and at {} cases drawn like them, where S is "
    "symmetric, and disagree at 2 of 3 cases where that does not hold. They may be meant for such "
    "parameters alone, or a mistake may not show there. If yours are always such, judge them "
    "there: --case 0."
)


@pytest.mark.parametrize(
    ("home", "inside", "said"),
    [
        (HOME, [RIGHT] * 4, SAID.format(4)),
        (HOME, [RIGHT] * 4 + [VAGUE], SAID.format(5)),
        (HOME, [None, RIGHT, None, *[RIGHT] * 3], SAID.format(4)),  # it raises at the others
        (HOME, [RIGHT] * 3, None),
        (HOME, [RIGHT] * 3 + [VAGUE], None),
        (HOME, [RIGHT] * 5 + [AWAY], None),
        (compared(0, 2.0), [RIGHT] * 4, None),
        (compared(0, allowed=1.0), [RIGHT] * 4, None),
        (compared(1), [RIGHT] * 4, None),  # the parameters given are no case
    ],
)
def test_gradients_are_doubted_that_agree_wherever_the_set_is_kept(
    home: Any, inside: list[Any], said: str | None
) -> None:
    waiting = iter(inside)
    subject: Any = SimpleNamespace(
        may_be_outside=lambda case: case.point.number != 0,
        draw_in_sets=lambda case: ("S is symmetric", (case for _ in inside)),
    )
    elsewhere = [AWAY, AWAY, RIGHT][: 3 if home.case.point.number == 0 else 2]
    found = doubt_outside_sets(lambda case: next(waiting), subject, [home, *elsewhere])
    assert found == ([said] if said else [])
    wrong_at_another = [home, compared(0, 2.0), *elsewhere]  # of several settings
    assert doubt_outside_sets(lambda case: RIGHT, subject, wrong_at_another) == []


FREE = np.array([[1.0, 0.25], [0.75, 2.0]])


def own_subject(drawn: Any, make_case_of: Any) -> OwnSubject:
    """A subject that draws these parameters at every point."""
    points = list[Point]()

    def draw(point: Point) -> Any:
        points.append(point)
        return dict(drawn)

    model: Any = SimpleNamespace(
        params=(drawn,), notes=(), refusal=None, doubt=None, zeros=frozenset(), loss_raised=False,
        narrow=False, loss=lambda p: 0.0, draw=draw, make_case_of=make_case_of, points=points,
    )  # fmt: skip
    return OwnSubject(model)


def test_cases_are_drawn_in_the_sets_near_the_parameters_given() -> None:
    def make_case_of(params: Any, point: Point) -> Any:
        if point.number == IN_SETS[1]:
            raise CodeRaisedError("the loss raises there")
        value = np.inf if point.number == IN_SETS[2] else 1.0
        return state_case({"S": value}, {"S": 0.0}, params)._replace(point=point)

    subject = own_subject({"S": FREE, "W": FREE}, make_case_of)
    given: Any = state_case({}, {}, {"S": FREE + FREE.T, "W": FREE})
    said, cases = subject.draw_in_sets(given._replace(point=Point(0, setting=3)))
    found = [*cases]
    assert said == "S is symmetric"
    assert [each.point.number for each in found] == [IN_SETS[0], *IN_SETS[3:]]
    assert subject.model.points == [Point(number, near=True, setting=3) for number in IN_SETS]  # type: ignore[attr-defined]
    for each in found:
        np.testing.assert_array_equal(each.arguments["S"], [[1.0, 0.5], [0.5, 2.0]])
        np.testing.assert_array_equal(each.arguments["W"], FREE)
    free: Any = state_case({}, {}, {"S": FREE})
    said, cases = subject.draw_in_sets(free._replace(point=Point(0)))
    assert (said, [*cases]) == ("", [])


def test_no_draw_in_a_set_is_in_float32_and_each_is_another() -> None:
    assert all(number % 3 != 2 and number > 0 for number in IN_SETS)
    assert len({*IN_SETS}) == len(IN_SETS) >= 8


@pytest.mark.parametrize(
    ("factors", "zero"),
    [({}, False), ({"S": 0.0}, True), ({"S": 0.0, "b": 0.0}, True), ({"S": 0.5}, False)],
)
def test_a_case_has_zeros_where_a_factor_is_zero(factors: Any, zero: bool) -> None:
    case: Any = state_case({}, {}, {})._replace(point=Point(1, factors=factors))
    subject = own_subject({"S": FREE}, None)
    assert subject.draws_zeros(case) is zero
    assert subject.is_extreme(case) is bool(factors)


def test_the_draws_are_known_at_which_the_loss_of_a_setting_raises() -> None:
    points = Point(1), Point(2, setting=1), Point(4)
    subject = own_subject({"S": FREE}, None)
    subject.model.raising = points  # type: ignore[misc]
    case: Any = state_case({}, {}, {"S": 2 * FREE})._replace(point=Point(0))
    found = [*subject.draw_raising(case)]
    assert [{**each.arguments} for each in found] == [{"S": FREE}] * 2
    assert subject.model.points == [points[0], points[2]]  # type: ignore[attr-defined]
