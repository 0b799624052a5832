"""Expected counts n of a softmax p in the gradient n − p Σ n, whose sum is taken for 1."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.support.chain_derivations import hmm_gradients, hmm_loss, softmax
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_numbers, diagnose_planted, ones

rng = np.random.default_rng(8)
POINTS, CENTRES = rng.normal(size=(7, 2)), rng.normal(size=(3, 2))
LETTERS = [0, 1, 1, 3, 2, 1, 0, 0, 2]


# The weights of a mixture, averaged over the points.


def mixture_loss(p: Any, xp: Any) -> Any:
    pi = softmax(p["z"], xp)
    near = xp.exp(-0.5 * xp.sum((POINTS[:, None] - p["m"]) ** 2, axis=-1))
    return -xp.sum(xp.log(near @ pi)) / 7.0


def mixture_gradients(p: Any) -> Any:
    pi = softmax(p["z"], np)
    near = np.exp(-0.5 * np.sum((POINTS[:, None] - p["m"]) ** 2, axis=-1))
    r = near * pi / (near @ pi)[:, None]
    dm = -np.einsum("nk,nkd->kd", r, POINTS[:, None] - p["m"]) / 7
    return {"z": -(r.sum(0) - len(r) * pi) / 7, "m": dm}


# Bigrams, of logarithms.


def bigram_loss(p: Any, xp: Any) -> Any:
    logs = p["S"] - xp.log(xp.sum(xp.exp(p["S"]), axis=1, keepdims=True))
    return -sum(logs[i, j] for i, j in pairwise(LETTERS))


def bigram_gradients(p: Any) -> Any:
    counts = np.zeros((4, 4))
    for i, j in pairwise(LETTERS):
        counts[i, j] += 1
    return {"S": -(counts - counts.sum(1, keepdims=True) * softmax(p["S"], np))}


MODELS: dict[str, Any] = {
    "hmm": (hmm_loss, hmm_gradients, ones(A=(3, 3), B=(3, 4))),
    "mixture": (mixture_loss, mixture_gradients, ones(z=(3,), m=(3, 2))),
    "bigrams": (bigram_loss, bigram_gradients, ones(S=(4, 4))),
}
PLANTED: dict[str, tuple[str, tuple[str, str]]] = {
    "transitions": ("hmm", ("nA.sum(1, keepdims=True) * A", "A")),
    "emissions": ("hmm", ("nB.sum(1, keepdims=True) * B", "B")),
    "plus": ("hmm", ("- nB.sum(1, keepdims=True) * B", "+ B")),
    "mixture": ("mixture", ("len(r) * pi", "pi")),
    "bigrams": ("bigrams", ("counts.sum(1, keepdims=True) * softmax", "softmax")),
}


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_a_sum_of_counts_that_is_taken_for_one_is_named(kind: str, dtype: Any) -> None:
    model, change = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], change, dtype=dtype)
    assert found.name == "softmax-denominator", found


def test_a_sum_that_is_one_is_no_mistake() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return -xp.log(softmax(p["z"], xp)[1])

    def gradients(p: Any) -> Any:
        return {"z": softmax(p["z"], np) - np.eye(3)[1]}

    assert diagnose_numbers(loss, {"z": np.ones(3)}, gradients) == ()
