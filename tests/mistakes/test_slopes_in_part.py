"""Slopes that are wrong in a loop over layers or steps, and right before it, or the reverse."""

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(8)
WIDTHS = [3, 5, 4, 2]
ONE, MANY = rng.normal(size=(3, 1)), rng.normal(size=(6, 3))
LABEL, AIMS = np.array([[1.0], [0.0]]), rng.normal(size=(6, 2))
LAYERS = len(WIDTHS) - 1

# Layers of several widths, one example as a column, with a cross-entropy.


def sigmoid(a: Any, xp: Any) -> Any:
    return 1 / (1 + xp.exp(-a))


def column_run(p: Any, xp: Any) -> Any:
    h, arguments = [ONE], []
    for k in range(LAYERS):
        arguments.append(p[f"W{k}"] @ h[k] + p[f"b{k}"])
        h.append(sigmoid(arguments[k], xp))
    return h, arguments


def column_loss(p: Any, xp: Any) -> Any:
    y = column_run(p, xp)[0][-1]
    return -xp.sum(LABEL * xp.log(y) + (1 - LABEL) * xp.log(1 - y))


def column_gradients(p: Any) -> Any:
    h, arguments = column_run(p, np)

    def slope(a: Any) -> Any:
        return sigmoid(a, np) * (1 - sigmoid(a, np))

    d, G = h[-1] - LABEL, {}
    for k in reversed(range(LAYERS)):
        G[f"W{k}"], G[f"b{k}"] = d @ h[k].T, d
        if k > 0:
            d = (p[f"W{k}"].T @ d) * slope(arguments[k - 1])
    return G


# Layers of several widths, a batch in rows, with squared errors.


def rows_run(p: Any, xp: Any) -> Any:
    h = [MANY]
    for k in range(LAYERS):
        h.append(xp.tanh(h[k] @ p[f"W{k}"]))
    return h


def rows_loss(p: Any, xp: Any) -> Any:
    return xp.mean((rows_run(p, xp)[-1] - AIMS) ** 2)


def rows_gradients(p: Any) -> Any:
    h, G = rows_run(p, np), {}
    d = 2 * (h[-1] - AIMS) / AIMS.size * (1 - h[-1] ** 2)
    for k in reversed(range(LAYERS)):
        G[f"W{k}"] = h[k].T @ d
        if k > 0:
            d = (d @ p[f"W{k}"].T) * (1 - h[k] * h[k])
    return G


# A recurrent network whose last step is differentiated before the loop.

T, H = 4, 3


def steps_run(p: Any, xp: Any) -> Any:
    h = [xp.zeros(H)]
    for t in range(T):
        h.append(xp.tanh(p["U"] @ MANY[t] + p["W"] @ h[t]))
    return h


def steps_loss(p: Any, xp: Any) -> Any:
    return xp.sum((p["V"] @ steps_run(p, xp)[-1] - AIMS[0]) ** 2)


def steps_gradients(p: Any) -> Any:
    h = steps_run(p, np)
    dy = 2 * (p["V"] @ h[T] - AIMS[0])
    G = {"V": np.outer(dy, h[T]), "U": np.zeros((H, 3)), "W": np.zeros((H, H))}
    d = (p["V"].T @ dy) * (1 - h[T] ** 2)
    for t in reversed(range(T)):
        G["U"] += np.outer(d, MANY[t])
        G["W"] += np.outer(d, h[t])
        d = (p["W"].T @ d) * (1 - h[t] * h[t])
    return G


WEIGHTS = {f"W{k}": WIDTHS[k : k + 2] for k in range(LAYERS)}
TRANSPOSED = {name: (n, m) for name, (m, n) in WEIGHTS.items()}
BIASES = {f"b{k}": (n, 1) for k, n in enumerate(WIDTHS[1:])}
COLUMN = column_loss, column_gradients, ones(**TRANSPOSED, **BIASES)
ROWS = rows_loss, rows_gradients, ones(**{name: (m, n) for name, (m, n) in WEIGHTS.items()})
STEPS = steps_loss, steps_gradients, ones(U=(H, 3), W=(H, H), V=(2, H))
ACTIVATED = "activation-derivative-of-activated-value"
MISSING = "activation-derivative-missing"
OTHER = "activation-derivative-of-another-function"
BEFORE, LAST = "at every iteration but the last", "at the last iteration"
PLANTED = [
    (COLUMN, "slope(arguments[k - 1])", "slope(h[k])", ACTIVATED, BEFORE),
    (COLUMN, "slope(arguments[k - 1])", "(1 - h[k] ** 2)", OTHER, BEFORE),
    (ROWS, "(1 - h[k] * h[k])", "(1 - np.tanh(h[k]) ** 2)", ACTIVATED, BEFORE),
    (ROWS, " * (1 - h[-1] ** 2)", "", MISSING, LAST),
    (STEPS, "(1 - h[t] * h[t])", "(1 - np.tanh(h[t]) ** 2)", ACTIVATED, BEFORE),
    (STEPS, "(1 - h[T] ** 2)", "h[T] * (1 - h[T])", OTHER, LAST),
]


@pytest.mark.parametrize("model", [COLUMN, ROWS, STEPS])
def test_nothing_is_wrong_without_a_change(model: Any) -> None:
    assert diagnose_planted(model) == ()


@pytest.mark.table(3)
@IN_BOTH_PRECISIONS
@pytest.mark.parametrize(("model", "right", "wrong", "name", "where"), PLANTED)
def test_a_slope_that_is_wrong_in_a_part_of_the_loop_is_named(
    model: Any, right: str, wrong: str, name: str, where: str, dtype: Any
) -> None:
    (found,) = diagnose_planted(model, (right, wrong), dtype=dtype)
    assert found.name == name, found
    assert where in found.explanation
