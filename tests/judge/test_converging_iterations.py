"""An implicit gradient is right where an iteration has converged; before, its error is smooth."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.path import SubjectJudgement
from bptt_verifier.judge.submission import Submission
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point

H, D = 4, 3
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=D), RNG.normal(size=H)
PARAMS = {"W": 0.2 * RNG.normal(size=(H, H)), "U": RNG.normal(size=(H, D))}


def iterate(p: Any, tolerance: float = 1e-3) -> list[Any]:
    """The states of h = tanh(W h + U x), until they change by less than a tolerance."""
    states = [np.zeros(H, p["U"].dtype)]
    for _ in range(100):
        states.append(np.tanh(p["W"] @ states[-1] + p["U"] @ X.astype(p["U"].dtype)))
        if np.max(np.abs(states[-1] - states[-2])) < tolerance:
            break
    return states


def loss(p: Any) -> Any:
    return np.mean((iterate(p)[-1] - Y) ** 2)


def differentiate_implicitly(p: Any) -> Any:
    h = iterate(p)[-1]
    slopes = 1 - h**2
    d = np.linalg.solve((np.eye(H) - slopes[:, None] * p["W"]).T, 2 * (h - Y) / H) * slopes
    return {"W": np.outer(d, h), "U": np.outer(d, X)}


def differentiate(p: Any, dtype: Any) -> Any:
    """Every step of the iteration backwards, in a coarser format."""
    p = {name: value.astype(dtype) for name, value in p.items()}
    states = iterate(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    back = (states[-1] - Y.astype(dtype)) * dtype(2 / H)
    for before, h in zip(states[-2::-1], states[:0:-1], strict=True):
        d = back * (1 - h * h)
        found["W"] += np.outer(d, before)
        found["U"] += np.outer(d, X.astype(dtype))
        back = p["W"].T @ d
    return {name: value.astype(float) for name, value in found.items()}


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("gradients", "precision"),
    [
        (differentiate_implicitly, None),
        (lambda p: differentiate(p, np.float16), np.float16),
        (lambda p: differentiate(p, np.float32), np.float32),
    ],
    ids=["float64", "float16", "float32"],
)
def test_a_format_is_claimed_of_results_alone_that_are_computed_in_it(
    gradients: Any, precision: Any
) -> None:
    model = prepare(loss, PARAMS, cases=1)
    judgement = SubjectJudgement(
        Submission(gradients), OwnSubject(model), "", lambda done, total: None
    )
    found = judgement.attempt(model.make_case(Point(0)))
    assert found is not None
    judgement.learn_precision(found)
    assert judgement.precision is precision
