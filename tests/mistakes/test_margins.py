"""Margin losses, in which the score of the label is in several terms."""

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(2)
T, H, D, K, N = 4, 3, 2, 4, 3
SEQUENCES = [(rng.normal(size=(T + n, D)), n) for n in (0, 1, 2)]
X, LABELS = rng.normal(size=(T, N, D)), np.array([2, 0, 3])
OTHERS = np.ones((N, K)) - np.eye(K)[LABELS]


def run(p: Any, x: Any, first: Any, xp: Any) -> list[Any]:
    states = [first]
    for row in x:
        states.append(xp.tanh(row @ p["U"] + states[-1] @ p["W"]))
    return states


def run_back(p: Any, x: Any, h: Any, d: Any, G: Any) -> None:
    for t in reversed(range(len(x))):
        d = d * (1 - h[t + 1] ** 2)
        G["U"] += np.atleast_2d(x[t]).T @ np.atleast_2d(d)
        G["W"] += np.atleast_2d(h[t]).T @ np.atleast_2d(d)
        d = d @ p["W"].T


# Sequence by sequence, the label's own margin left out by its index.


def each_loss(p: Any, xp: Any) -> Any:
    total = 0.0
    for x, k in SEQUENCES:
        s = run(p, x, xp.zeros(H), xp)[-1] @ p["S"]
        margins = xp.maximum(0, 1 + s - s[k])
        total = total + xp.sum(xp.where(np.arange(K) == k, 0.0, margins)) / len(SEQUENCES)
    return total


def each_gradients(p: Any) -> Any:
    G = {k: np.zeros_like(v) for k, v in p.items()}
    for x, k in SEQUENCES:
        h = run(p, x, np.zeros(H), np)
        s = h[-1] @ p["S"]
        violated = (1 + s - s[k] > 0) & (np.arange(K) != k)
        ds = violated / len(SEQUENCES)
        ds[k] = -violated.sum() / len(SEQUENCES)
        G["S"] += np.outer(h[-1], ds)
        run_back(p, x, h, p["S"] @ ds, G)
    return G


# A batch, the label's own margin left out by a mask, and a mean.


def batch_loss(p: Any, xp: Any) -> Any:
    s = run(p, X, xp.zeros((N, H)), xp)[-1] @ p["S"]
    right = s[np.arange(N), LABELS][:, None]
    return xp.sum(OTHERS * xp.maximum(s - right + 1, 0)) / N


def batch_gradients(p: Any) -> Any:
    G = {k: np.zeros_like(v) for k, v in p.items()}
    h = run(p, X, np.zeros((N, H)), np)
    s = h[-1] @ p["S"]
    ds = OTHERS * (s - s[np.arange(N), LABELS][:, None] + 1 > 0) / N
    ds[np.arange(N), LABELS] = -ds.sum(axis=1)
    G["S"] = h[-1].T @ ds
    run_back(p, X, h, ds @ p["S"].T, G)
    return G


# A threshold over which the outputs of all steps are counted.


def threshold_loss(p: Any, xp: Any) -> Any:
    states = xp.stack(run(p, X[:, 0], xp.zeros(H), xp)[1:])
    over = states @ p["v"] - p["c"]
    return xp.sum(xp.where(over > 0, over, 0.0)) ** 2


def threshold_gradients(p: Any) -> Any:
    G = {k: np.zeros_like(v) for k, v in p.items()}
    h = run(p, X[:, 0], np.zeros(H), np)
    over = np.stack(h[1:]) @ p["v"] - p["c"]
    ds = 2 * np.sum(over[over > 0]) * (over > 0)
    G["v"] = ds @ np.stack(h[1:])
    G["c"] = -np.sum(ds)
    d = np.zeros(H)
    for t in reversed(range(T)):
        d = (d + ds[t] * p["v"]) * (1 - h[t + 1] ** 2)
        G["U"] += np.outer(X[t, 0], d)
        G["W"] += np.outer(h[t], d)
        d = d @ p["W"].T
    return G


NETWORK = ones(U=(D, H), W=(H, H), S=(H, K))
MODELS: dict[str, Any] = {
    "each": (each_loss, each_gradients, NETWORK),
    "batch": (batch_loss, batch_gradients, NETWORK),
    "threshold": (threshold_loss, threshold_gradients, ones(U=(D, H), W=(H, H), v=(H,), c=())),
}
PLANTED: dict[str, tuple[str, tuple[str, str]]] = {
    "each, always": ("each", ("ds[k] = -violated.sum()", "ds[k] = -1.0")),
    "each, where any": ("each", ("ds[k] = -violated.sum()", "ds[k] = -1.0 * violated.any()")),
    "batch, always": ("batch", ("-ds.sum(axis=1)", "-1 / N")),
    "batch, where any": ("batch", ("-ds.sum(axis=1)", "-ds.max(axis=1)")),
    "threshold": ("threshold", ("-np.sum(ds)", "-np.max(ds)")),
}


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_one_term_in_the_place_of_all_is_named(kind: str, dtype: Any) -> None:
    model, change = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], change, dtype=dtype)
    assert found.name == "sum-part-missing", found
