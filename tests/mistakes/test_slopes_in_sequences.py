"""Slopes of the step before or after, where a loss has several sequences with ends of their own."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_slopes import list_neighbours
from bptt_verifier.program.activations import find_activations
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(7)
H, D = 3, 2
SEQUENCES = [(rng.normal(size=(T, D)), rng.normal(size=(T, H))) for T in (3, 5, 2)]
BATCHES = [rng.normal(size=(T, 2, D)) for T in (4, 3)]

# A leaky ReLU, one flat vector of parameters, a loss of the last state.


def leaky_run(theta: Any, x: Any, xp: Any) -> Any:
    U, W = theta[: H * D].reshape(H, D), theta[H * D :].reshape(H, H)
    states = [xp.zeros(H)]
    for row in x:
        a = U @ row + W @ states[-1]
        states.append(xp.maximum(a, 0.1 * a))
    return W, states


def leaky_loss(p: Any, xp: Any) -> Any:
    return sum(xp.sum((leaky_run(p["theta"], x, xp)[1][-1] - y[0]) ** 2) for x, y in SEQUENCES)


def leaky_gradients(p: Any) -> Any:
    gU, gW = np.zeros((H, D)), np.zeros((H, H))
    for x, y in SEQUENCES:
        W, h = leaky_run(p["theta"], x, np)
        d = 2 * (h[-1] - y[0])
        for t in reversed(range(len(x))):
            d = d * np.where(h[t + 1] > 0, 1.0, 0.1)
            gU += np.outer(d, x[t])
            gW += np.outer(d, h[t])
            d = W.T @ d
    return {"theta": np.concatenate([gU.ravel(), gW.ravel()])}


# A tanh, columns, a loss at every step.


def columns_run(p: Any, x: Any, xp: Any) -> Any:
    states = [xp.zeros(H)]
    for row in x:
        states.append(xp.tanh(p["U"] @ row + p["W"] @ states[-1] + p["b"]))
    return states


def columns_loss(p: Any, xp: Any) -> Any:
    total = 0.0
    for x, y in SEQUENCES:
        states = columns_run(p, x, xp)
        total = total + sum(xp.sum((h - t) ** 2) for h, t in zip(states[1:], y, strict=True))
    return total


def columns_gradients(p: Any) -> Any:
    G = {k: np.zeros_like(v) for k, v in p.items()}
    for x, y in SEQUENCES:
        h = columns_run(p, x, np)
        later = np.zeros(H)
        for t in reversed(range(len(x))):
            a = (2 * (h[t + 1] - y[t]) + later) * (1 - h[t + 1] ** 2)
            G["U"] += np.outer(a, x[t])
            G["W"] += np.outer(a, h[t])
            G["b"] += a
            later = p["W"].T @ a
    return G


# A sigmoid, rows, two batches of other lengths, an output layer.


def rows_run(p: Any, x: Any, xp: Any) -> Any:
    states = [xp.zeros((2, H))]
    for row in x:
        states.append(1 / (1 + xp.exp(-(row @ p["U"] + states[-1] @ p["W"]))))
    return states


def rows_loss(p: Any, xp: Any) -> Any:
    return sum(xp.mean((rows_run(p, x, xp)[-1] @ p["V"] - 1) ** 2) for x in BATCHES)


def rows_gradients(p: Any) -> Any:
    G = {k: np.zeros_like(v) for k, v in p.items()}
    for x in BATCHES:
        h = rows_run(p, x, np)
        out = (h[-1] @ p["V"] - 1) * 2 / 4
        G["V"] += h[-1].T @ out
        d = out @ p["V"].T
        for t in reversed(range(len(x))):
            d = d * h[t + 1] * (1 - h[t + 1])
            G["U"] += x[t].T @ d
            G["W"] += h[t].T @ d
            d = d @ p["W"].T
    return G


LEAKY = leaky_loss, leaky_gradients, ones(theta=(H * D + H * H,))
COLUMNS = columns_loss, columns_gradients, ones(U=(H, D), W=(H, H), b=(H,))
ROWS = rows_loss, rows_gradients, ones(U=(D, H), W=(H, H), V=(H, 2))
MODELS = {"leaky": LEAKY, "columns": COLUMNS, "rows": ROWS}
PLANTED: dict[str, tuple[Any, ...]] = {
    "leaky, before": (LEAKY, ("h[t + 1] > 0", "h[t] > 0")),
    "columns, before": (COLUMNS, ("(1 - h[t + 1] ** 2)", "(1 - h[t] ** 2)")),
    "columns, carried, before": (
        COLUMNS,
        ("+ later) * (1 - h[t + 1] ** 2)", ") * (1 - h[t + 1] ** 2) + later"),
        ('later = p["W"].T @ a', 'later = (p["W"].T @ a) * (1 - h[max(t - 1, 0)] ** 2)'),
    ),
    "rows, before": (ROWS, ("h[t + 1] * (1 - h[t + 1])", "h[t] * (1 - h[t])")),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_nothing_is_wrong_without_a_change(model: Any) -> None:
    assert diagnose_planted(model) == ()


@pytest.mark.table(4)
@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_a_slope_of_the_step_beside_is_named_in_every_sequence(kind: str, dtype: Any) -> None:
    model, *changes = PLANTED[kind]
    found = diagnose_planted(model, *changes, dtype=dtype)
    assert [mistake.name for mistake in found] == ["hidden-state-off-by-one"], found


def test_a_sequence_has_no_step_before_its_first_one() -> None:
    with use_float64():
        known = structure(trace(columns_loss, ones(U=(H, D), W=(H, H), b=(H,))))
    ((each, *_), *_) = filter(None, (find_activations(known, group) for group in known.groups))
    by_sequence, joined = list_neighbours(known, each, -1)
    alone = [k for k, other in enumerate(by_sequence.values()) if other is None]
    assert alone == [0, 3, 8]
    assert [*joined.values()] == [None, *each[:-1]]
