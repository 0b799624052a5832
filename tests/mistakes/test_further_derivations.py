"""Mistakes of further kinds get their names, in further shapes of public code."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.own_models import OwnHypotheses
from bptt_verifier.report import Mistake
from tests.support import (
    composed_derivations,
    further_derivations,
    layout_derivations,
    looped_derivations,
    peephole_derivations,
)
from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.own_models import Model
from tests.support.profiles import by_turns
from tests.support.wrong_derivations import Wrong, diagnose_planted

TABLES = (
    further_derivations,
    looped_derivations,
    composed_derivations,
    peephole_derivations,
    layout_derivations,
)
MODELS = {name: model for table in TABLES for name, model in table.MODELS.items()}
WRONG = [each for table in TABLES for each in table.WRONG]
TURNS = by_turns(WRONG, (np.float64, np.float32))


def test_the_tables_have_models_of_their_own() -> None:
    assert len(MODELS) == sum(len(table.MODELS) for table in TABLES)


@pytest.mark.table(6)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_derivations_are_right_as_they_stand(model: Model) -> None:
    assert diagnose_numbers(model.loss, model.params, model.gradients) == ()


@pytest.mark.table(11)
@pytest.mark.parametrize(
    ("each", "dtype"),
    TURNS,
    ids=[f"{n} {each.model} {dtype.__name__}" for n, (each, dtype) in enumerate(TURNS)],
)
def test_a_wrong_derivation_is_named(each: Wrong, dtype: type) -> None:
    (names,) = diagnose_planted(MODELS[each.model], each, dtype)
    assert names & {*each.names.split()}, names


def diagnose(model: str, *change: str) -> Mistake:
    """Diagnose one change of a derivation."""
    wrong = plant(MODELS[model].gradients, (change[0], change[1]))
    (found,) = diagnose_numbers(MODELS[model].loss, MODELS[model].params, wrong)
    return found


def test_half_of_a_loss_is_a_factor_and_no_clipping() -> None:
    found = diagnose("columns", "2 * E[t] / T", "E[t] / T")
    assert (found.name, found.details.get("or")) == ("constant-factor", None)
    assert "1/2 times what it should be" in found.explanation


def test_a_weight_in_the_place_of_another_is_spelled_as_the_loss_does() -> None:
    found = diagnose("ways", 'carry = da @ p["Ub"].T', 'carry = da @ p["Uf"].T')
    assert 'the weight `p["Uf"]`, where `p["Ub"]` belongs' in found.explanation


def test_every_name_of_a_mistake_in_one_gradient_is_given() -> None:
    found = diagnose("columns", "        dh0 += delta", "        dh0 += delta * (t == 0)")
    names = {found.name, *found.details["or"]}
    assert {"recurrent-path-dropped", "missing-time-sum", "truncated"} <= names


def test_a_discount_that_one_path_has_twice_is_named() -> None:
    x, discount = np.linspace(-1, 1, 4), 0.5 ** np.arange(4)

    def run(p: Any, xp: Any) -> list[Any]:
        states = [xp.zeros(2)]
        for t in range(4):
            states.append(xp.tanh(p["U"] * x[t] + p["W"] @ states[-1]))
        return states

    def loss(p: Any, xp: Any) -> Any:
        states = run(p, xp)
        return sum(discount[t] * (p["v"] @ states[t + 1]) ** 2 for t in range(4))

    def gradients(p: Any) -> dict[str, Any]:
        states, d = run(p, np), np.zeros(2)
        G = {name: np.zeros_like(value) for name, value in p.items()}
        for t in (3, 2, 1, 0):
            dy = 2 * discount[t] * (p["v"] @ states[t + 1])
            G["v"] += dy * states[t + 1]
            da = (d + discount[t] * dy * p["v"]) * (1 - states[t + 1] ** 2)
            G["U"] += da * x[t]
            G["W"] += np.outer(da, states[t])
            d = p["W"].T @ da
        return G

    params = {"U": np.ones(2), "W": np.ones((2, 2)), "v": np.ones(2)}
    (found,) = diagnose_numbers(loss, params, gradients)
    assert found.name == "factor-twice"
    assert "`discount[t]` of its step once more" in found.explanation


@pytest.mark.rest
def test_a_weight_decay_is_named_where_a_gradient_is_otherwise_zero() -> None:
    right = MODELS["columns"].gradients

    def gradients(p: Any) -> dict[str, Any]:
        decayed = {name: value + 0.01 * p[name] for name, value in right(p).items()}
        return decayed | {"b": 0.01 * p["b"]}

    found = diagnose_numbers(MODELS["columns"].loss, MODELS["columns"].params, gradients)
    assert {mistake.name for mistake in found} == {"weight-decay", "zero-gradient"}


@pytest.mark.slow
def test_a_second_mistake_in_one_gradient_alone_is_named_where_pairs_are_too_many_to_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OwnHypotheses, "list_pairs", lambda *given: iter(()))
    tied = MODELS["tied"]
    changes = ('dh = dh + p["E"].T @ dz', 'dh = p["E"].T @ dz'), ("db += da", "db += dh")
    found = diagnose_numbers(tied.loss, tied.params, plant(tied.gradients, *changes))
    assert [(m.name, m.details.get("gradients")) for m in found] == [
        ("recurrent-path-dropped", None),
        ("activation-derivative-missing", ["b"]),
    ]
