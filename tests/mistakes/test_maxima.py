"""Maxima over time, whose gradient other entries get than the one that is taken."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_maxima import select_extreme
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(3)
T, H, D = 5, 3, 2
X = rng.normal(size=(T, D))
BATCH = rng.normal(size=(2, T, D))

# The largest of all states, in columns.


def columns_run(p: Any, xp: Any) -> Any:
    states = [xp.zeros(H)]
    for t in range(T):
        states.append(xp.tanh(p["U"] @ X[t] + p["W"] @ states[-1]))
    return xp.stack(states)


def pooled_loss(p: Any, xp: Any) -> Any:
    return (p["v"] @ columns_run(p, xp)[1:].max(axis=0) - 1) ** 2


def pooled_gradients(p: Any) -> Any:
    h, G = columns_run(p, np), {k: np.zeros_like(v) for k, v in p.items()}
    pooled, where = h[1:].max(axis=0), h[1:].argmax(axis=0)
    dy = 2 * (p["v"] @ pooled - 1)
    G["v"] = dy * pooled
    d = np.zeros(H)
    for t in reversed(range(T)):
        d = d + np.where(where == t, dy * p["v"], 0)
        d = d * (1 - h[t + 1] ** 2)
        G["U"] += np.outer(d, X[t])
        G["W"] += np.outer(d, h[t])
        d = p["W"].T @ d
    return G


# A running maximum in the loop, in columns.


def running_loss(p: Any, xp: Any) -> Any:
    h = columns_run(p, xp)
    best = h[1]
    for t in range(2, T + 1):
        best = xp.maximum(best, h[t])
    return (p["v"] @ best - 1) ** 2


def running_gradients(p: Any) -> Any:
    h, G = columns_run(p, np), {k: np.zeros_like(v) for k, v in p.items()}
    best = [h[1]]
    for t in range(2, T + 1):
        best.append(np.maximum(best[-1], h[t]))
    dy = 2 * (p["v"] @ best[-1] - 1)
    G["v"] = dy * best[-1]
    left, d = dy * p["v"], np.zeros(H)
    for t in reversed(range(T)):
        taken = (h[t + 1] == best[t]) & (h[t + 1] > best[t - 1]) if t else np.ones(H)
        d = d + left * taken
        left = left * (1 - taken)
        d = d * (1 - h[t + 1] ** 2)
        G["U"] += np.outer(d, X[t])
        G["W"] += np.outer(d, h[t])
        d = p["W"].T @ d
    return G


# The smallest output of each sequence of a batch, in rows.


def rows_run(p: Any, xp: Any) -> Any:
    states = [xp.zeros((2, H))]
    for t in range(T):
        states.append(xp.tanh(BATCH[:, t] @ p["U"] + states[-1] @ p["W"]))
    return xp.stack(states, axis=1)


def rows_loss(p: Any, xp: Any) -> Any:
    return xp.sum(xp.min(rows_run(p, xp)[:, 1:] @ p["v"], axis=1) ** 2)


def rows_gradients(p: Any) -> Any:
    h, G = rows_run(p, np), {k: np.zeros_like(v) for k, v in p.items()}
    scores = h[:, 1:] @ p["v"]
    where = scores == scores.min(axis=1, keepdims=True)
    dy = 2 * scores.min(axis=1)
    d = np.zeros((2, H))
    for t in reversed(range(T)):
        ds = dy * where[:, t]
        G["v"] += h[:, t + 1].T @ ds
        d = (d + np.outer(ds, p["v"])) * (1 - h[:, t + 1] ** 2)
        G["U"] += BATCH[:, t].T @ d
        G["W"] += h[:, t].T @ d
        d = d @ p["W"].T
    return G


# The windows of an image, two entries high and two wide, in channels.

IMAGES = rng.normal(size=(3, D))


def windows_run(p: Any, xp: Any) -> Any:
    h = xp.tanh(IMAGES @ p["K"]).reshape(3, 2, 2, 2, 2, 2)
    return h, xp.max(h, axis=(3, 5))


def windows_loss(p: Any, xp: Any) -> Any:
    return xp.sum((windows_run(p, xp)[1].reshape(3, 8) @ p["V"] - 1) ** 2)


def windows_gradients(p: Any) -> Any:
    h, pooled = windows_run(p, np)
    flat = pooled.reshape(3, 8)
    dy = 2 * (flat @ p["V"] - 1)
    dpool = (dy @ p["V"].T).reshape(pooled.shape)
    up = dpool[:, :, :, None, :, None]
    dh = up * (h == pooled[:, :, :, None, :, None])
    da = dh * (1 - h**2)
    return {"K": IMAGES.T @ da.reshape(3, 32), "V": flat.T @ dy}


# The smallest entry of each filter, wherever it is in the image.

PATCHES = rng.normal(size=(2, 3, 2, D))


def filters_loss(p: Any, xp: Any) -> Any:
    a = PATCHES @ p["K"] + p["b"]
    return xp.sum(a.min(axis=(1, 2)) @ p["v"])


def filters_gradients(p: Any) -> Any:
    a = PATCHES @ p["K"] + p["b"]
    least = a.min(axis=(1, 2), keepdims=True)
    da = p["v"] * (a == least)
    K = np.einsum("npqd,npqk->dk", PATCHES, da)
    return {"K": K, "b": da.sum(axis=(0, 1, 2)), "v": least.sum(axis=(0, 1, 2))}


COLUMNS = ones(U=(H, D), W=(H, H), v=(H,))
MODELS: dict[str, Any] = {
    "pooled": (pooled_loss, pooled_gradients, COLUMNS),
    "running": (running_loss, running_gradients, COLUMNS),
    "rows": (rows_loss, rows_gradients, ones(U=(D, H), W=(H, H), v=(H,))),
    "windows": (windows_loss, windows_gradients, ones(K=(D, 32), V=(8, 2))),
    "filters": (filters_loss, filters_gradients, ones(K=(D, H), b=(H,), v=(H,))),
}
MISSING = "activation-derivative-missing"
OTHER = "activation-derivative-of-another-function"
WHERE = 'np.where(where == t, dy * p["v"], 0)'
PLANTED: dict[str, tuple[Any, ...]] = {
    "pooled, every step": ("pooled", MISSING, (WHERE, 'dy * p["v"]')),
    "pooled, as a mean": ("pooled", OTHER, (WHERE, 'dy * p["v"] / T')),
    "pooled, the last step": ("pooled", OTHER, (WHERE, '(t == T - 1) * dy * p["v"]')),
    "pooled, argmin": ("pooled", OTHER, ("argmax", "argmin")),
    "running, every step": ("running", MISSING, ("left = left * (1 - taken)", "pass"), (
        "left * taken", "left")),
    "rows, every step": ("rows", MISSING, ("dy * where[:, t]", "dy")),
    "rows, argmax": ("rows", OTHER, ("scores == scores.min", "scores == scores.max")),
    "windows, every entry": ("windows", MISSING, (
        "up * (h == pooled[:, :, :, None, :, None])", "up * np.ones_like(h)")),
    "windows, as a mean": ("windows", OTHER, (
        "up * (h == pooled[:, :, :, None, :, None])", "up * np.full(h.shape, 1 / 4)")),
    "filters, every entry": ("filters", MISSING, ("(a == least)", "np.ones_like(a)")),
    "filters, the largest": ("filters", OTHER, (
        "(a == least)", "(a == a.max(axis=(1, 2), keepdims=True))")),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_a_gradient_that_other_entries_than_the_extreme_get_is_named(kind: str, dtype: Any) -> None:
    model, name, *changes = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], *changes, dtype=dtype)
    assert found.name == name, found


def test_of_equal_entries_each_is_an_extreme() -> None:
    x = np.array([[1.0, 2.0, 2.0], [3.0, 0.0, 1.0]])
    assert select_extreme(x, (1,), True).tolist() == [[0, 1, 1], [1, 0, 0]]
    assert select_extreme(x, (0,), False).tolist() == [[1, 0, 0], [0, 1, 1]]
    assert select_extreme(x, (0, 1), True).tolist() == [[0, 0, 0], [1, 0, 0]]


# Quantile losses, whose two slopes are exchanged: a maximum, a minimum, and one at every step.

TARGETS = rng.normal(size=(T, H))


def quantile_loss(p: Any, xp: Any) -> Any:
    e = xp.tanh(X @ p["W"]) - TARGETS
    return xp.mean(xp.maximum(0.8 * e, -0.2 * e))


def quantile_gradients(p: Any) -> Any:
    h = np.tanh(X @ p["W"])
    d = np.where(h > TARGETS, 0.8, -0.2) / h.size
    return {"W": X.T @ (d * (1 - h**2))}


def steep_loss(p: Any, xp: Any) -> Any:
    a = X @ p["W"]
    return xp.sum(TARGETS * xp.minimum(a * 3, a * -0.5))


def steep_gradients(p: Any) -> Any:
    return {"W": X.T @ (TARGETS * np.where(X @ p["W"] > 0, -0.5, 3.0))}


def quantiles_loss(p: Any, xp: Any) -> Any:
    h, total = columns_run(p, xp), 0.0
    for t in range(T):
        e = TARGETS[t] - h[t + 1]
        total = total + xp.sum(xp.maximum(0.3 * e, -0.7 * e))
    return total


def quantiles_gradients(p: Any) -> Any:
    h, G = columns_run(p, np), {k: np.zeros_like(v) for k, v in p.items()}
    d = np.zeros(H)
    for t in reversed(range(T)):
        d = d + np.where(TARGETS[t] > h[t + 1], -0.3, 0.7)
        d = d * (1 - h[t + 1] ** 2)
        G["U"] += np.outer(d, X[t])
        G["W"] += np.outer(d, h[t])
        d = p["W"].T @ d
    return G


ROWS, COLUMNS = {"W": np.zeros((D, H))}, {"U": np.zeros((H, D)), "W": np.zeros((H, H))}
QUANTILES: list[Any] = [
    (quantile_loss, quantile_gradients, ROWS, ("0.8, -0.2", "0.2, -0.8")),
    (steep_loss, steep_gradients, ROWS, ("-0.5, 3.0", "-3.0, 0.5")),
    (quantiles_loss, quantiles_gradients, COLUMNS, ("-0.3, 0.7", "-0.7, 0.3")),
]


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize(("loss", "gradients", "params", "change"), QUANTILES)
def test_exchanged_slopes_of_two_pieces_are_named(
    loss: Any, gradients: Any, params: Any, change: tuple[str, str], dtype: Any
) -> None:
    model = loss, gradients, params
    assert diagnose_planted(model, dtype=dtype) == ()
    (found,) = diagnose_planted(model, change, dtype=dtype)
    assert found.name == "wrong-operand", found
    assert "the slopes of the two pieces" in found.explanation
