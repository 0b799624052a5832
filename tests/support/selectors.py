"""Selectors of cases whose loss, gradients and operands a test states."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.paths import Followed
from bptt_verifier.reference import selection
from bptt_verifier.reference.points import Point
from bptt_verifier.reference.selection import Examined, Selector, Setting
from tests.support.stated_cases import state_case, state_program

ONE = {"w": np.ones(1)}


def selector(
    follow: Callable[[Any], Any], allowed: Any = None, params: Any = None, known: Any = ()
) -> Selector:
    """A selector whose loss is `follow`, and whose cases allow these errors of its gradients."""
    made = ONE if params is None else params

    def make_case(params: Any, followed: Any, point: Point) -> Any:
        limits = {n: 1e-9 * np.ones_like(v) for n, v in followed.slopes.items()}
        return state_case(followed.slopes, allowed or limits, params)._replace(point=point)

    paths: Any = SimpleNamespace(follow=lambda wide, first: follow(wide), known=known)
    return Selector(Setting(made, paths, make_case, 0, 0))


def follow_with(
    loss: float = 1.0, slopes: Any = None, operations: tuple[Any, ...] = ()
) -> Callable[[Any], Followed]:
    path: Any = SimpleNamespace(program=state_program(*operations))
    return lambda wide: Followed(path, loss, {"w": np.ones(1)} if slopes is None else slopes)


def examined(slopes: Any, number: int = 0, params: Any = None) -> Examined:
    path: Any = SimpleNamespace(program=state_program())
    given = {name: np.ones_like(value) for name, value in slopes.items()}
    followed = Followed(path, 1.0, slopes)
    return Examined(Point(number), params or given, followed, [], frozenset())


def set_operand(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    """Make this the operand of every operation."""
    monkeypatch.setattr(selection, "forward", lambda program, wide: [np.asarray(value, float)])
    monkeypatch.setattr(selection, "find_taken", lambda program, slots: set())
    monkeypatch.setattr(selection, "rounds_off", lambda program, slots: False)
