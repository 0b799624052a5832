"""The report says where gradients agree at the parameters given and near them alone."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
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
