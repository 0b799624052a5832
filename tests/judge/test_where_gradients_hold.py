"""The report says where gradients agree at the parameters given and near them alone."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.tolerance.comparison import Verdict

STATED = "Your gradients agree at the parameters given and at the "
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
    assert report.verdict is Verdict.DISAGREES
    assert report.notes[0].startswith(STATED)
    assert report.notes[0].endswith("judge them there: --case 0.")


def sum_sines(p: Any) -> Any:
    return np.sum(np.sin(p["w"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "stated"),
    [
        (lambda w: np.abs(w).max() < 0.25, True),
        (lambda w: np.abs(w).max() > 0.25, False),  # wrong at the parameters given
        (lambda w: np.array_equal(w, [0.11, -0.12]), False),  # wrong near them
        (lambda w: False, False),
    ],
    ids=["far", "given", "near", "everywhere"],
)
def test_only_what_agrees_at_all_near_cases_is_said_to(right: Any, stated: bool) -> None:
    def gradients(p: Any) -> Any:
        return {"w": np.cos(p["w"]) * (1.0 if right(p["w"]) else 1.5)}

    given = {"w": np.array([0.11, -0.12])}
    report = verify_own_model(gradients, sum_sines, given)
    assert report.verdict is Verdict.DISAGREES
    assert report.notes[0].startswith(STATED) is stated
