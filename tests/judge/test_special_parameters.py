"""Gradients that hold for parameters of a special set alone are doubted, as of symmetric ones."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.undecided import doubt_outside_sets
from tests.support.stated_cases import state_compared


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
