"""The terms of a gradient, step by step, with a named mistake and without it."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.evidence import Evidence, Wanted
from bptt_verifier.mistakes.step_terms import TERM, chart_terms, collect_terms
from bptt_verifier.program.backward import Change, sweep_back
from bptt_verifier.program.paths import prune
from bptt_verifier.program.structure import Structure, structure
from bptt_verifier.program.trace import forward
from tests.support.diagnosis import trace_points
from tests.support.further_models import MODELS

ALLOWED = 1e-12
NAMES = ("W", "U", "v")
RNG = np.random.default_rng(0)
X, H0 = RNG.normal(size=(4, 2)), RNG.normal(size=3)


def compute_loss(p: Any, xp: Any) -> Any:
    h = xp.asarray(H0)
    for t in range(4):
        h = xp.tanh(p["U"] @ X[t] + p["W"] @ h)
    return p["v"] @ h


def trace_model(loss: Any, params: dict[str, Any]) -> tuple[Structure, list[Any]]:
    shapes = tuple((name, np.shape(value)) for name, value in params.items())
    program, points = trace_points(loss, shapes, np.dtype(float))
    known = structure(prune(program))
    return known, forward(known.program, points[0][1])


@pytest.fixture(scope="module")
def recurrent() -> tuple[Structure, list[Any]]:
    size = len(H0)
    params = {"U": np.ones((size, X.shape[1])), "W": np.ones((size, size)), "v": np.ones(size)}
    return trace_model(compute_loss, params)


def make_case(known: Structure, values: list[Any]) -> Evidence:
    wanted = {
        name: Wanted(values[slot][0], np.full(values[slot][0].shape, ALLOWED), 0.0, None)
        for name, slot in known.program.leaves.items()
    }
    return Evidence(values, {}, wanted)


def find_products(known: Structure, name: str) -> list[tuple[int, int]]:
    """The operations that multiply by a parameter, in order of time, and its place in them."""
    return sorted(known.users[known.program.leaves[name]])


@pytest.mark.parametrize("model", ["sequence", "peepholes"])
def test_the_terms_of_all_steps_add_up_to_the_gradient(model: str) -> None:
    loss, _, _, params = MODELS[model]
    known, values = trace_model(loss, params)
    edge = known.carried[0]
    changes = {edge: Change(edge[1], after=0.5)}
    cotangents = sweep_back(known.program, values, [changes, {}])
    collected = collect_terms(known, values, changes)
    assert len(collected) >= 2
    for name, terms in collected.items():
        slot = known.program.leaves[name]
        if all(each.keys() == {slot} for each in terms):
            total = sum(each[slot] for each in terms)
            np.testing.assert_allclose(total, cotangents[slot], rtol=1e-12, atol=1e-12)
            assert len(terms) == known.steps


def test_what_is_lost_on_the_way_back_is_missing_in_the_earlier_terms(
    recurrent: tuple[Structure, list[Any]],
) -> None:
    known, values = recurrent
    number, operand = known.carried[-1]  # through W to the state before the last one
    changes = {(number, operand): Change(operand, after=0.0)}
    curves = chart_terms(known, make_case(known, values), changes, NAMES)
    assert {curve.label for curve in curves} == {"∂L/∂U", "∂L/∂W"}
    for curve in curves:
        assert curve.quantity == TERM
        wrong = [e > a for e, a in zip(curve.relative_errors, curve.allowed, strict=True)]
        assert wrong == [True, True, True, False]


def test_a_wrong_operand_is_wrong_in_the_terms_of_its_own_gradient(
    recurrent: tuple[Structure, list[Any]],
) -> None:
    known, values = recurrent
    third = find_products(known, "W")[2]
    changes = {third: Change(third[1], after=2.0)}
    (curve,) = chart_terms(known, make_case(known, values), changes, NAMES)
    assert curve.label == "∂L/∂W"
    assert [error > 0 for error in curve.relative_errors] == [False, False, True, False]
    assert max(curve.relative_errors) <= 1  # relative to the largest of all terms
    assert not chart_terms(known, make_case(known, values), changes, ["U"])


def test_nothing_is_charted_where_nothing_is_wrong_or_there_are_no_steps(
    recurrent: tuple[Structure, list[Any]],
) -> None:
    known, values = recurrent
    assert chart_terms(known, make_case(known, values), {}, NAMES) == ()
    assert "v" not in collect_terms(known, values, {})  # it is used once
    single, numbers = trace_model(lambda p, xp: xp.tanh(p["v"]) @ p["v"], {"v": np.ones(3)})
    assert collect_terms(single, numbers, {}) == {}
