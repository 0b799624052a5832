"""Every name that gives the same numbers is stated, and no statement twice."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    repeat_changes,
    scale_edges,
)
from bptt_verifier.mistakes.other_names import (
    add_names,
    are_one_statement,
    leave_out_coincidences,
    simplify,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.report import Mistake
from tests.support import wrong_derivations
from tests.support.diagnosis import diagnose_numbers, diagnose_planted, ones, plant
from tests.support.own_mistakes import planted
from tests.support.own_models import MODELS

rng = np.random.default_rng(3)
ROWS, CHOICES = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
TARGETS = rng.normal(size=4)

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


@pytest.mark.parametrize(
    ("name", "change", "cut"),
    [
        ("mul", Change(0, instead=((1, np.zeros((1, 2))),)), True),
        ("dot_general", Change(0, instead=((1, np.zeros((1, 2))),)), True),
        ("mul", Change(0, instead=((1, np.array([[0.0, 1.0]])),)), False),
        ("div", Change(0, instead=((1, np.zeros((1, 2))),)), False),
        ("mul", Change(0, instead=((1, np.zeros((1, 2))),), also=(3,)), False),
        ("mul", Change(0, before=np.zeros(2)), False),
    ],
)
def test_zeros_in_the_place_of_an_operand_cut_the_path(
    name: str, change: Change, cut: bool
) -> None:
    program: Any = SimpleNamespace(operations=[SimpleNamespace(name=name)])
    found = simplify(program, {(0, 0): change})[0, 0]
    assert found is change or (found.after, found.instead) == (0.0, ())
    assert (found is not change) is cut


GATE_BEFORE = (
    ("for x, h, z, r, n in reversed(trace):",
     "for k, (x, h, z, r, n) in reversed([*enumerate(trace)]):"),
    ("dh = dh * z", "dh = dh * trace[k - 1][2]"),
)  # fmt: skip


def test_a_negative_index_is_no_other_name_where_the_first_step_passes_nothing_back() -> None:
    loss, gradients, _, params = MODELS["gru"]  # the state before the first step is a constant
    (found,) = diagnose_numbers(loss, params, plant(gradients, *GATE_BEFORE))
    assert (found.name, found.details.get("or")) == ("hidden-state-off-by-one", None)


PULSES, LEVELS = np.array([[0.3, -1.2], [0.8, 0.5]]), np.array([0.2, -0.4])


def two_steps(p: Any, xp: Any) -> Any:
    h = xp.zeros(3)
    for t in range(2):
        h = xp.tanh(p["U"] @ PULSES[t] + p["W"] @ h)
    return xp.sum((p["V"] @ h - LEVELS) ** 2)


def wrap_around(p: Any) -> dict[str, Any]:
    h = [np.zeros(3)]
    for t in range(2):
        h.append(np.tanh(p["U"] @ PULSES[t] + p["W"] @ h[t]))
    dy = 2 * (p["V"] @ h[2] - LEVELS)
    g = {name: np.zeros_like(value) for name, value in p.items()} | {"V": np.outer(dy, h[2])}
    dh = p["V"].T @ dy
    for t in (1, 0):
        da = dh * (1 - h[t + 1] ** 2)
        g["U"] += np.outer(da, PULSES[t - 1])
        g["W"] += np.outer(da, h[t])
        dh = p["W"].T @ da
    return g


def test_of_two_steps_a_negative_index_comes_before_a_reverse_order() -> None:
    params = {"U": np.zeros((3, 2)), "W": np.zeros((3, 3)), "V": np.zeros((2, 3))}
    (found,) = diagnose_numbers(two_steps, params, wrap_around)
    assert found.name == "negative-index-wraps-around"
    assert "or" not in found.details


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


def test_another_name_at_the_same_place_does_not_repeat_the_place() -> None:
    place = {"file_line": "model.py:7", "column": 5, "operation": "tanh", "expression": "tanh(a)"}
    first = Mistake("clipped", "first.", place)
    same = Mistake("truncated", "", place | {"alteration": "it is short"})
    assert add_names(first, [same]).explanation == "first. Or truncated: it is short."
    other = same._replace(details=same.details | {"file_line": "model.py:9"})
    said = "first. Or truncated, at `tanh(a)` (model.py:9): it is short."
    assert add_names(first, [other]).explanation == said


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("model", "changes", "name", "others"),
    [
        ("plain", (" / len(POINTS)", ""), "factor-missing", ["constant-factor"]),
        ("lstm", ("- Y\n    dW", "- Y\n    dy *= 2\n    dW"), "factor-missing",
         ["path-counted-twice", "constant-factor"]),
        ("lstm", ("dc * g, dc * c_before", "dc * g, 0 * c_before"), "zero-gradient", []),
    ],
)  # fmt: skip
def test_a_generic_name_with_the_same_numbers_is_given_beside_a_specific_one(
    model: str, changes: tuple[str, str], name: str, others: list[str], dtype: Any
) -> None:
    loss, _, _, params = MODELS[model]
    (found,) = diagnose_numbers(loss, params, planted(model, changes), dtype)
    assert (found.name, found.details.get("or", [])) == (name, others), found.explanation


@pytest.mark.rest
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


@pytest.mark.parametrize(
    ("other", "replaced", "left_out"),
    [
        ([-0.4, 0.3], [1.4, 0.7], True),
        ([0.2, 0.3], [0.8, 0.7], False),  # a gate, of which 1 − x is a mistake that is made
        ([-0.4, 0.3], [0.4, -0.3], False),
        ([-0.4, 0.3], [1.4, 0.6], False),
    ],
)
def test_one_minus_what_is_no_gate_is_said_only_where_nothing_else_is(
    other: list[float], replaced: list[float], left_out: bool
) -> None:
    program: Any = SimpleNamespace(operations=[SimpleNamespace(name="mul", inputs=(0, 1))])
    values = [np.ones((1, 2)), np.array([other])]
    changes = {(0, 0): Change(0, instead=((1, np.array([replaced])),))}
    one = OperationMistake("wrong-operand", "", 0, partial(repeat_changes, changes))
    flipped = scale_edges("sign-flipped", "", [(0, 0)], -1.0)
    find = partial(leave_out_coincidences, program, values)
    assert find([one, flipped], False) == ([flipped] if left_out else [one, flipped])
    assert find([one], False) == [one]
    assert find([one], True) == ([] if left_out else [one])


def entropy(p: Any, xp: Any) -> Any:
    """A policy's loss with a bonus for its entropy."""
    e = xp.exp(ROWS @ p["W"])
    q = e / xp.sum(e, axis=1, keepdims=True)
    logq = xp.log(q)
    bonus = -xp.sum(q * logq)
    return -xp.sum(logq * CHOICES) - 0.3 * bonus


def entropy_back(p: Any) -> Any:
    e = np.exp(ROWS @ p["W"])
    q = e / np.sum(e, axis=1, keepdims=True)
    h = -np.sum(q * np.log(q), axis=1, keepdims=True)
    d = q * np.sum(CHOICES, axis=1, keepdims=True) - CHOICES
    d = d + 0.3 * q * (np.log(q) + h)
    return {"W": ROWS.T @ d}


def test_a_wrong_sign_of_an_entropy_is_no_other_operand() -> None:
    model = entropy, entropy_back, ones(W=(3, 4))
    (found,) = diagnose_planted(model, ("d + 0.3", "d - 0.3"))
    assert found.name == "sign-flipped", found
    assert "1 −" not in found.explanation


def decay(p: Any, xp: Any) -> Any:
    """A state-space step whose rate and step size enter by their product, and the rate alone."""
    a, dt = -xp.exp(p["rate"]), xp.exp(p["size"])
    held = (xp.exp(a * dt) - 1) / a
    return xp.sum((held - TARGETS) ** 2)


def decay_back(p: Any) -> Any:
    a, dt = -np.exp(p["rate"]), np.exp(p["size"])
    kept = np.exp(a * dt)
    d = 2 * ((kept - 1) / a - TARGETS)
    da = d * kept * dt / a - d * (kept - 1) / a**2
    return {"rate": da * a, "size": d * kept * dt}


def test_a_path_that_is_cut_comes_before_a_gradient_that_is_equal_by_chance() -> None:
    model = decay, decay_back, ones(rate=(4,), size=(4,))
    (found,) = diagnose_planted(model, (" - d * (kept - 1) / a**2", ""))
    assert found.name == "zero-gradient", found
    assert found.details["file_line"]
    assert "wrong-operand" in found.details["or"]


def test_a_gradient_that_is_returned_for_another_is_said_so_where_no_path_is_cut() -> None:
    model = decay, decay_back, ones(rate=(4,), size=(4,))
    (found,) = diagnose_planted(model, ('"size": d * kept * dt', '"size": da * a'))
    assert found.name == "wrong-operand", found
    assert "∂L/∂rate is returned in its place" in found.explanation
