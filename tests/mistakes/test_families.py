"""One mistake at several places: which places are tried together, and which name is given first."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from bptt_verifier.mistakes.families import list_families
from bptt_verifier.mistakes.in_operations import list_mistakes
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, change_nothing
from bptt_verifier.mistakes.own_models import OwnHypotheses
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from bptt_verifier.report import Mistake


def loss(p: Any, xp: Any) -> Any:
    x, y = xp.tanh(p["x"]), xp.exp(p["y"])
    return xp.sum((p["A"] @ x) * (p["B"] @ x) * (p["C"] @ y) * (p["D"] @ y))


def test_every_use_of_one_value_is_tried_together() -> None:
    shapes = {"x": (2,), "y": (2,)} | dict.fromkeys("ABCD", (3, 2))
    with use_float64():
        known = structure(trace(loss, {name: np.ones(shape) for name, shape in shapes.items()}))
    operations = known.program.operations
    tried = {
        frozenset(operations[number].where[0].expression for number in each.places)
        for each in list_families(known, list_mistakes(known))
        if each.name == "zero-gradient" and "passed on to `x`" in each.alteration
    }
    assert frozenset(['p["A"] @ x', 'p["B"] @ x']) in tried


class Described(OwnHypotheses):
    """Hypotheses that describe a mistake by its own words."""

    def __init__(self) -> None:
        """Know a program without operations."""
        self.program: Any = SimpleNamespace(operations=(), constants={})
        self.structure: Any = SimpleNamespace(groups=(), program=self.program)
        self.evidence: Any = [SimpleNamespace(forward=())]
        self.holds = lambda made: True

    def describe(self, made: OperationMistake, names: Any = ()) -> Mistake:
        return Mistake(made.name, made.alteration, {})


def make(name: str, *places: int) -> OperationMistake:
    return OperationMistake(name, "said", places[0], change_nothing, places=places)


def test_of_mistakes_that_fit_much_the_one_at_the_fewest_places_is_named() -> None:
    """Two factors 1 − x at two places each may give what one wrong sign gives."""
    at_four, at_two = make("wrong-operand", 0, 1, 2, 3), make("sign-flipped", 4, 5)
    special = make("factor-missing", 0, 1, 2, 3)
    for listed, name in (
        ((at_four, at_two), "sign-flipped"),
        ((at_two, at_four), "sign-flipped"),
        ((special, at_two), "factor-missing"),
    ):
        found = Described().choose(iter(listed), None)
        assert found is not None
        assert found.name == name
