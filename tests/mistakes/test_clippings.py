"""A gradient is clipped only where more than one number shows it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.diagnosis import diagnose_numbers
from tests.support.own_models import normal

Gradients = dict[str, Any]
X = normal(4, 2, scale=1)
PARAMS = {"w": np.ones(2), "b": np.ones(())}


def loss(p: Any, xp: Any) -> Any:
    """Compute the share of one score in the exponentials of all; a bias of all changes nothing."""
    scores = X @ p["w"] + p["b"]
    e = xp.exp(scores - xp.max(scores))
    return -e[1] / xp.sum(e) + xp.exp(xp.sum(p["w"]))


def derive(p: Any) -> Gradients:
    scores = X @ p["w"] + p["b"]
    share = np.exp(scores) / np.sum(np.exp(scores))
    dscores = share[1] * (share - np.eye(4)[1])
    return {"w": X.T @ dscores + np.exp(np.sum(p["w"])), "b": 0 * p["b"]}


def name_mistakes(change: Callable[[Gradients], Gradients]) -> list[str]:
    found = diagnose_numbers(loss, PARAMS, lambda p: change(derive(p)))
    return [mistake.name for mistake in found]


def test_a_small_constant_is_no_part_of_a_sum_that_is_clipped() -> None:
    # The first of the four terms is positive at any parameters: clipped, it is any small constant.
    assert name_mistakes(lambda g: g | {"b": np.full((), 1e-9)}) == ["unknown"]


def test_gradients_are_clipped_together_though_one_is_always_at_the_limit() -> None:
    def positive(p: Any, xp: Any) -> Any:
        return xp.exp(p["b"]) + xp.sum(xp.sin(p["w"]) ** 2)

    def clipped(p: Any) -> Gradients:
        right = {"b": np.exp(p["b"]), "w": 2 * np.sin(p["w"]) * np.cos(p["w"])}
        return {name: np.clip(value, -0.01, 0.01) for name, value in right.items()}

    found = diagnose_numbers(positive, PARAMS, clipped)
    assert [(m.name, m.details["gradients"]) for m in found] == [("clipped", ["w", "b"])]
