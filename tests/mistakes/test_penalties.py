"""A penalty that the loss has is told from a weight decay that it lacks."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.report import Report

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(4, 3)), RNG.normal(size=3)
PARAMS = {"W": RNG.normal(size=(3, 3)) / 2, "U": RNG.normal(size=(3, 3))}


def run(p: Any, xp: Any) -> Any:
    h = xp.zeros(3)
    for x in X:
        h = xp.tanh(p["W"] @ h + p["U"] @ x)
    return 0.5 * xp.sum((h - Y) ** 2)


def differentiate(p: Any) -> dict[str, Any]:
    hs = [np.zeros(3)]
    for x in X:
        hs.append(np.tanh(p["W"] @ hs[-1] + p["U"] @ x))
    found, d = {"W": np.zeros((3, 3)), "U": np.zeros((3, 3))}, hs[-1] - Y
    for t in reversed(range(len(X))):
        d = d * (1 - hs[t + 1] ** 2)
        found["W"] += np.outer(d, hs[t])
        found["U"] += np.outer(d, X[t])
        d = p["W"].T @ d
    return found


def judge(penalty: Any, given: float) -> Report:
    def gradients(p: Any) -> dict[str, Any]:
        found = differentiate(p)
        return found | {"W": found["W"] + given * p["W"]}

    def loss(p: Any, xp: Any) -> Any:
        return run(p, xp) + penalty(p["W"], p["U"], xp)

    return verify_own_model(gradients, loss, PARAMS, cases=6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("penalty", "given", "said"),
    [
        (lambda W, U, xp: 0.005 * xp.sum(W**2), 0.02, "0.02 times the parameter, where 0.01"),
        (lambda W, U, xp: 0.02 * xp.sum(W * W), 0.02, "0.02 times the parameter, where 0.04"),
        (lambda W, U, xp: 0.09 * xp.mean(W**2), 0.06, "0.06 times the parameter, where 0.02"),
        (lambda W, U, xp: 0.03 / 2 * xp.vdot(W, W), -0.03, "-0.03 times the parameter, where 0.03"),
        (lambda W, U, xp: 0.005 * xp.sum(W**2), 0.0, "0.01 times the parameter is missing"),
        (lambda W, U, xp: 0.0, 0.02, "added, a weight decay that the loss lacks"),
    ],
)
def test_the_factor_of_a_penalty_is_told(penalty: Any, given: float, said: str) -> None:
    report = judge(penalty, given)
    assert said in str(report), str(report)
    assert ("lacks" in str(report)) == ("lacks" in said)


@pytest.mark.rest
def test_a_term_of_two_parameters_is_no_penalty() -> None:
    report = judge(lambda W, U, xp: 0.0 * xp.sum(W * U), 0.02)
    assert "a weight decay that the loss lacks" in str(report), str(report)
