"""The report says where gradients agree at the parameters given and near them alone."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier import compare_case, verify_own_model
from bptt_verifier.tolerance.comparison import Verdict

STATED = "Your gradients agree at the parameters given and at the "
ALONE = "Your gradients agree at the parameters given, and disagree at "
x = np.array([0.7, -0.4, 0.9])


def settle(p: Any, steps: int = 15) -> Any:
    z = np.zeros(3)
    for _ in range(steps):
        z = np.tanh(p["W"] @ z + x)
    return z


def differentiate_implicitly(p: Any) -> Any:
    z = settle(p)
    slope = 1 - z**2
    adjoint = np.linalg.solve(np.eye(3) - (slope[:, None] * p["W"]).T, 2 * z)
    return {"W": np.outer(adjoint * slope, z)}


@pytest.mark.slow
def test_the_gradient_of_a_short_iteration_holds_where_it_converges() -> None:
    W = np.array([[0.05, -0.02, 0.01], [0.02, 0.04, -0.05], [-0.03, 0.02, 0.02]])

    def loss(p: Any) -> Any:
        return np.sum(settle(p) ** 2)

    report = verify_own_model(differentiate_implicitly, loss, {"W": W})
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.notes[0].startswith("14 of 24 cases are too many to leave out.")
    assert report.notes[0].endswith("judge the parameters given alone: --case 0.")


rng = np.random.default_rng(5)
FREE = 0.4 * rng.normal(size=(3, 3))
SYMMETRIC = FREE @ FREE.T + np.eye(3)
Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]


def whiten(p: Any) -> Any:
    _, size = np.linalg.slogdet(p["S"])
    return size + x @ np.linalg.solve(p["S"], p["b"] * x)


def whiten_back(p: Any) -> Any:
    inverse = np.linalg.inv(p["S"])
    solved = inverse @ (p["b"] * x)
    return {"S": inverse - np.outer(inverse @ x, solved), "b": x * (inverse @ x)}


def turn(p: Any) -> Any:
    return np.sum((p["Q"] @ (p["Q"] @ x)) ** 3)


def turn_back(p: Any) -> Any:
    """The states are computed from the later ones, by Q⁻¹ = Qᵀ."""
    h = p["Q"] @ (p["Q"] @ x)
    delta, found = 3 * h**2, np.zeros((3, 3))
    for _ in range(2):
        h = p["Q"].T @ h
        found += np.outer(delta, h)
        delta = p["Q"].T @ delta
    return {"Q": found}


def point_at(p: Any) -> Any:
    return np.sum((p["q"] / np.sqrt(p["q"] @ p["q"]) - x) ** 4)


def point_back(p: Any) -> Any:
    delta = 4 * (p["q"] - x) ** 3
    return {"q": delta - p["q"] * (p["q"] @ delta)}


ON_SETS: dict[str, Any] = {
    "S is symmetric": (whiten, whiten_back, {"S": SYMMETRIC, "b": np.ones(3)}),
    "Q is orthonormal": (turn, turn_back, {"Q": Q}),
    "q is a vector of length 1": (point_at, point_back, {"q": Q[0]}),
}


@pytest.mark.rest
@pytest.mark.parametrize("said", ON_SETS)
def test_gradients_that_hold_on_the_set_of_the_parameters_given_are_inconclusive(
    said: str,
) -> None:
    loss, gradients, params = ON_SETS[said]
    report = verify_own_model(gradients, loss, params, cases=8)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    stated = "Your gradients agree at the parameters given and at 8 cases drawn like them, where "
    assert report.notes[0].startswith(stated + said)
    alone = compare_case(gradients, loss, params, case="0")
    assert alone.verdict is Verdict.AGREES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        ({"S": FREE, "b": np.ones(3)}, {}),  # in no set
        ({"S": np.eye(3), "b": np.ones(3)}, {}),  # symmetric as initial values are
        ({"S": SYMMETRIC, "b": np.ones(3)}, {"b": 1.01}),  # at the parameters given
        ({"S": SYMMETRIC, "b": np.ones(3)}, {"b": lambda b: 1 + np.ptp(b)}),  # not there
    ],
)
def test_gradients_that_do_not_hold_on_a_special_set_disagree(params: Any, wrong: Any) -> None:
    def gradients(p: Any) -> Any:
        found = whiten_back(p)
        for name, factor in wrong.items():
            found[name] = found[name] * (factor(p[name]) if callable(factor) else factor)
        return found

    report = verify_own_model(gradients, whiten, params, cases=8)
    assert report.verdict is Verdict.DISAGREES, str(report)


def sum_sines(p: Any) -> Any:
    return np.sum(np.sin(p["w"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "stated"),
    [
        (lambda w: np.abs(w).max() < 0.25, STATED),
        (lambda w: np.abs(w).max() > 0.25, None),  # wrong at the parameters given
        (lambda w: np.abs(w - [0.11, -0.12]).max() < 1e-6, ALONE),  # wrong near them
        (lambda w: False, None),
    ],
    ids=["far", "given", "near", "everywhere"],
)
def test_only_what_agrees_at_all_near_cases_is_said_to(right: Any, stated: str | None) -> None:
    def gradients(p: Any) -> Any:
        return {"w": np.cos(p["w"]) * (1.0 if right(p["w"]) else 1.5)}

    given = {"w": np.array([0.11, -0.12])}
    report = verify_own_model(gradients, sum_sines, given)
    assert report.verdict is Verdict.DISAGREES
    assert report.notes[0].startswith((STATED, ALONE)) is (stated is not None)
    assert report.notes[0].startswith(stated or "")
