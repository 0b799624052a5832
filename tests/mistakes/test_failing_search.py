"""An exception in the search for a name is stated in the report, and changes no verdict."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify_own_model
from bptt_verifier.judge import own_model
from bptt_verifier.mistakes import own_models
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, Values
from tests.support.diagnosis import diagnose_numbers

PARAMS = {"W": np.full((2, 2), 0.5), "x": np.array([0.3, 0.4])}


def loss(p: Any, xp: Any) -> Any:
    return xp.sum(xp.tanh(p["W"] @ p["x"]) ** 2)


def wrong(p: Any) -> dict[str, Any]:
    return {name: np.sin(3 * value) + np.arange(2) for name, value in p.items()}


def flipped(p: Any) -> dict[str, Any]:
    y = np.tanh(p["W"] @ p["x"])
    a = -2 * y * (1 - y**2)
    return {"W": np.outer(a, p["x"]), "x": p["W"].T @ a}


@pytest.mark.rest
def test_an_exception_in_the_search_is_said_in_place_of_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*given: Any) -> Any:
        raise LookupError("no value of slot 7")

    monkeypatch.setattr(own_model, "diagnose", fail)
    report = verify_own_model(wrong, loss=loss, params=PARAMS)
    (mistake,) = report.mistakes
    assert str(report.verdict) == "disagrees"
    assert mistake.name == "unknown"
    assert mistake.explanation == (
        "the judge's search for a name raised LookupError: no value of slot 7, so W, x remain "
        "unexplained; the verdict stands, since it does not depend on a name."
    )
    assert mistake.details["raised"] == "LookupError: no value of slot 7"
    assert mistake.explanation in str(report)
    assert "no known mistake" not in str(report)


def raise_at_any_point(values: Values) -> Any:
    raise LookupError("no value of slot 7")


@pytest.mark.parametrize("whole", [False, True])
def test_a_mistake_that_cannot_be_computed_is_left_out_and_stated(
    monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    failing = OperationMistake("wrong-operand", "", 0, raise_at_any_point)
    if whole:
        failing = failing._replace(
            changes=lambda values: {}, whole=lambda values, made: raise_at_any_point(values)
        )

    def list_tiers(known: Any) -> Iterator[list[OperationMistake]]:
        yield [failing]
        yield from all_tiers(known)

    all_tiers = own_models.list_tiers
    monkeypatch.setattr(own_models, "list_tiers", list_tiers)
    (mistake,) = diagnose_numbers(loss, PARAMS, flipped)
    assert mistake.name == "sign-flipped"
    assert "LookupError" not in mistake.explanation
    (mistake,) = diagnose_numbers(loss, PARAMS, wrong)
    said = "; 1 of the mistakes cannot be computed in this model, the first for LookupError: no "
    assert mistake.name == "unknown"
    assert said in mistake.explanation


def test_no_exception_is_stated_where_there_is_none() -> None:
    (mistake,) = diagnose_numbers(loss, PARAMS, wrong)
    assert mistake.name == "unknown"
    assert "exception" not in mistake.explanation


def widths_loss(p: Any, xp: Any) -> Any:
    """Normalise two layers of unequal width by one function."""

    def normalise(a: Any, gamma: Any) -> Any:
        centred = a - xp.mean(a, axis=0)
        inverse = 1 / xp.sqrt(xp.mean(centred**2, axis=0) + 1e-3)
        return gamma * (centred * inverse)

    h = np.linspace(-1, 1, 18).reshape(6, 3) ** 3
    for k in "12":
        h = xp.maximum(normalise(h @ p[f"W{k}"], p[f"g{k}"]), 0.1)
    return xp.sum(h**2 * np.arange(1, 3))


@pytest.mark.rest
def test_layers_of_several_widths_have_no_mistake_that_cannot_be_computed() -> None:
    params = {"W1": np.ones((3, 4)), "g1": np.ones(4), "W2": np.ones((4, 2)), "g2": np.ones(2)}

    def nonsense(p: Any) -> dict[str, Any]:
        return {name: np.sin(3 * value) for name, value in p.items()}

    (mistake,) = diagnose_numbers(widths_loss, params, nonsense)
    assert mistake.name == "unknown"
    assert "cannot be computed" not in mistake.explanation
