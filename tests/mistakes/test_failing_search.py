"""An exception in the search for a name is stated in the report, and changes no verdict."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify_own_model
from bptt_verifier.judge import own_model
from bptt_verifier.mistakes import own_models
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, Values
from tests.support.diagnosis import diagnose_numbers, diagnose_planted

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
    assert mistake.name == "unknown"
    assert "; 1 of the mistakes cannot be computed in this model" in mistake.explanation
    assert "LookupError" not in mistake.explanation
    assert mistake.details["not computed"] == ["LookupError: no value of slot 7"]


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


X = np.array([[0.4], [-0.7], [0.2], [0.9]])


def stacked_loss(p: Any, xp: Any) -> Any:
    """Two layers of one width that read one and three numbers: rows of two widths."""
    rows = [x[None] for x in X]
    for k in "12":
        W, h, states = xp.concatenate([p[f"U{k}"], p[f"W{k}"]]), xp.zeros((1, 3)), list[Any]()
        for x in rows:
            h = xp.tanh(xp.concatenate([x, h], axis=1) @ W)
            states.append(h)
        rows = states
    return xp.sum(rows[-1] ** 2)


def stacked_gradients(p: Any) -> dict[str, Any]:
    rows, layers, found = [x[None] for x in X], list[Any](), dict[str, Any]()
    for k in "12":
        W, states = np.concatenate([p[f"U{k}"], p[f"W{k}"]]), [np.zeros((1, 3))]
        for x in rows:
            states.append(np.tanh(np.concatenate([x, states[-1]], axis=1) @ W))
        layers.append((k, W, rows, states))
        rows = states[1:]
    arriving = [np.zeros((1, 3))] * 3 + [2 * rows[-1]]
    for k, W, rows, states in reversed(layers):
        dW, dh, passed = np.zeros_like(W), np.zeros((1, 3)), list[Any]()
        for t in reversed(range(len(X))):
            da = (arriving[t] + dh) * (1 - states[t + 1] ** 2)
            dW += np.concatenate([rows[t], states[t]], axis=1).T @ da
            passed.insert(0, (da @ W.T)[:, :-3])
            dh = (da @ W.T)[:, -3:]
        found |= {f"U{k}": dW[:-3], f"W{k}": dW[-3:]}
        arriving = passed
    return found


def test_a_state_off_by_one_has_its_name_in_layers_that_read_rows_of_two_widths() -> None:
    params = MODELS["rows of two widths"][1]
    wrong = "[rows[t], states[t]]", "[rows[t], states[t + 1]]"
    assert diagnose_numbers(stacked_loss, params, stacked_gradients) == ()
    (mistake,) = diagnose_planted((stacked_loss, stacked_gradients, params), wrong)
    assert mistake.name == "hidden-state-off-by-one", mistake.explanation


def last_of_both_ways(p: Any, xp: Any) -> Any:
    """The last column of two directions, of which the second has made one step there."""
    total = 0.0
    for name, rows in (("F", X), ("B", X[::-1][:1])):
        W, h = xp.concatenate([p[f"U{name}"], p[f"W{name}"]]), xp.zeros((1, 3))
        for x in rows:
            h = xp.tanh(xp.concatenate([x[None], h], axis=1) @ W)
        total = total + xp.sum(h**2)
    return total


def one_number(p: Any, xp: Any) -> Any:
    """A mean over one number, from which nothing before it is passed on."""
    a = X * p["w"] + p["b"]
    h = xp.where(a > 0, a, xp.exp(a) - 1)
    return xp.sum((h - xp.mean(h, axis=1, keepdims=True) + p["g"]) ** 2)


def first_state_of_fewer_axes(p: Any, xp: Any) -> Any:
    """A state of rows, the first of which is made of parameters alone."""
    h = 0.0 * p["s"]
    for t in range(3):
        h = p["s"] * h + X * p["P"] * (t + 1)
    return xp.sum(h**2)


MODELS = {
    "rows of two widths": (
        stacked_loss,
        {"U1": np.ones((1, 3))} | {name: np.ones((3, 3)) for name in ("W1", "U2", "W2")},
    ),
    "last of both ways": (
        last_of_both_ways,
        {name: np.ones((3 if name[0] == "W" else 1, 3)) for name in ("UF", "WF", "UB", "WB")},
    ),
    "one number": (one_number, {"w": np.ones(1), "b": np.ones(1), "g": np.ones(1)}),
    "fewer axes": (first_state_of_fewer_axes, {"s": np.ones(2), "P": np.ones(2)}),
}


@pytest.mark.parametrize("model", MODELS)
def test_every_mistake_can_be_computed_in_unusual_shapes(model: str) -> None:
    loss, params = MODELS[model]

    def nonsense(p: Any) -> dict[str, Any]:
        return {name: np.sin(3 * value) + 0.1 for name, value in p.items()}

    (mistake,) = diagnose_numbers(loss, params, nonsense)
    assert mistake.name == "unknown"
    assert "not computed" not in mistake.details, mistake.details
    assert "cannot be computed" not in mistake.explanation
