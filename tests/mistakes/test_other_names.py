"""Every name that gives the same numbers is stated, and no statement twice."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.operation_mistakes import Changes
from bptt_verifier.mistakes.other_names import add_names, are_one_statement
from bptt_verifier.program.backward import Change
from bptt_verifier.report import Mistake
from tests.support import wrong_derivations
from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.own_mistakes import planted
from tests.support.own_models import MODELS

CUT: Changes = {(1, 0): Change(0, after=0.0)}
SLOPE: Changes = {(1, 0): Change(0, before=np.array([1.0, 2.0]))}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (CUT, {(2, 1): Change(1, after=0.0), (3, 1): Change(1, after=0.0)}, True),
        (CUT, {(1, 0): Change(0, after=2.0)}, False),
        (CUT, CUT | {(2, 0): Change(0, after=2.0)}, False),
        (CUT, SLOPE, False),
        (SLOPE, {(1, 0): Change(0, before=np.array([1.0, 2.0]))}, True),
        (SLOPE, {(1, 0): Change(0, before=np.array([1.0, 3.0]))}, False),
        (SLOPE, {(2, 0): Change(0, before=np.array([1.0, 2.0]))}, False),
        (SLOPE, {(1, 0): Change(0, before=np.ones(3))}, False),
        (SLOPE, {(1, 0): Change(0, slope=np.array([1.0, 2.0]))}, False),
    ],
)
def test_equal_numbers_and_one_factor_are_one_statement(
    one: Changes, other: Changes, same: bool
) -> None:
    assert are_one_statement(one, other) is same
    assert are_one_statement(other, one) is same


def test_generic_names_come_last_with_the_names_inside_of_others() -> None:
    generic = Mistake("zero-gradient", "cut.", {})
    inside = Mistake("path-counted-twice", "twice.", {"or": ["constant-factor"]})
    last = Mistake("truncated", "short.", {})
    found = add_names(Mistake("clipped", "first.", {}), [generic, inside, last])
    assert found.details["or"] == [
        "path-counted-twice", "truncated", "zero-gradient", "constant-factor",
    ]  # fmt: skip
    assert found.explanation == (
        "first. Or path-counted-twice: twice. Or truncated: short."
        " Or zero-gradient, with the same numbers."
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("model", "changes", "name", "others"),
    [
        ("plain", (" / len(POINTS)", ""), "factor-missing", ["constant-factor"]),
        ("lstm", ("- Y\n    dW", "- Y\n    dy *= 2\n    dW"), "factor-missing",
         ["path-counted-twice", "constant-factor"]),
        ("lstm", ("dc * g, dc * c_before", "dc * g, 0 * c_before"), "zero-gradient",
         ["wrong-operand"]),
    ],
)  # fmt: skip
def test_a_generic_name_with_the_same_numbers_is_given_beside_a_specific_one(
    model: str, changes: tuple[str, str], name: str, others: list[str], dtype: Any
) -> None:
    loss, _, _, params = MODELS[model]
    (found,) = diagnose_numbers(loss, params, planted(model, changes), dtype)
    assert (found.name, found.details["or"]) == (name, others), found.explanation


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("model", "changes", "zero"),
    [
        ("plain", (" / len(POINTS)", ""), "b2"),
        ("lstm", ("- Y\n    dW", "- Y\n    dy *= 2\n    dW"), "b"),
        ("plain", (" / len(POINTS)", " / len(POINTS) / 2"), "W2"),
    ],
)
def test_both_names_of_one_of_two_mistakes_are_given(
    model: str, changes: tuple[str, str], zero: str, dtype: Any
) -> None:
    loss, _, _, params = MODELS[model]
    wrong = planted(model, changes)
    found = diagnose_numbers(loss, params, lambda p: wrong(p) | {zero: 0 * p[zero]}, dtype)
    names = [{each.name, *each.details.get("or", ())} for each in found]
    assert len(names) == 2
    assert any("constant-factor" in one and "zero-gradient" in other
               for one, other in (names, names[::-1])), found  # fmt: skip
    if changes[1] in ("", "- Y\n    dy *= 2\n    dW"):
        assert any("factor-missing" in one for one in names), found


def test_a_dropped_path_is_not_said_twice() -> None:
    change = 'da @ p["W"].T', '0 * da @ p["W"].T'
    loss, _, _, params = MODELS["batch"]
    (found,) = diagnose_numbers(loss, params, planted("batch", change))
    assert found.name == "recurrent-path-dropped"
    assert "truncated" in found.details["or"]  # to one step, which is another statement
    assert "zero-gradient" not in found.details["or"]


def test_a_penalty_without_a_gradient_is_told_at_its_line_too() -> None:
    weights = [w for w in wrong_derivations.WRONG if w.names == "weight-decay"]
    model = wrong_derivations.MODELS[weights[0].model]
    wrong = plant(model.gradients, *weights[0].changes)
    (found,) = diagnose_numbers(model.loss, model.params, wrong)
    assert (found.name, found.details["or"]) == ("weight-decay", ["zero-gradient"])
    assert "Or zero-gradient" in found.explanation
