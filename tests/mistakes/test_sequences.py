"""What is handed on between sequences and layers, and sums over time of several sequences."""

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(4)
H, D = 3, 2
SEQUENCES = [(rng.normal(size=(T, D)), rng.normal(size=(T, H))) for T in (3, 4)]
BATCH, AIMS = rng.normal(size=(2, 3, 4, D)), rng.normal(size=(2, 3, H))
DEEP = rng.normal(size=(4, H))

# Columns, one sequence after another, a loss at every step.


def run_columns(p: Any, x: Any, h: Any, xp: Any) -> list[Any]:
    states = [h]
    for row in x:
        states.append(xp.tanh(p["U"] @ row + p["W"] @ states[-1] + p["b"]))
    return states


def columns_loss(p: Any, xp: Any) -> Any:
    total = 0.0
    for x, y in SEQUENCES:
        states = run_columns(p, x, xp.zeros(H), xp)
        total = total + sum(xp.sum((h - t) ** 2) for h, t in zip(states[1:], y, strict=True))
    return total


def columns_gradients(p: Any) -> Any:
    G = {k: np.zeros_like(v) for k, v in p.items()}
    first, later = np.zeros(H), np.zeros(H)
    for x, y in SEQUENCES:
        h = run_columns(p, x, first, np)
        later = np.zeros(H)
        for t in reversed(range(len(x))):
            a = (2 * (h[t + 1] - y[t]) + later) * (1 - h[t + 1] ** 2)
            G["U"] += np.outer(a, x[t])
            G["W"] += np.outer(a, h[t])
            G["b"] += a
            later = p["W"].T @ a
    return G


# Rows of batches, the state and the input in one operand, a loss at the end.


def run_rows(p: Any, x: Any, h: Any, xp: Any) -> list[Any]:
    trace = []
    for t in range(x.shape[1]):
        hx = xp.concatenate([h, x[:, t]], axis=1)
        h = xp.tanh(hx @ p["W"])
        trace.append((hx, h))
    return trace


def rows_loss(p: Any, xp: Any) -> Any:
    last = [run_rows(p, x, xp.zeros((3, H)), xp)[-1][1] for x in BATCH]
    return sum(xp.mean((h - y) ** 2) for h, y in zip(last, AIMS, strict=True))


def rows_gradients(p: Any) -> Any:
    G = {"W": np.zeros_like(p["W"])}
    h, rest = np.zeros((3, H)), np.zeros((3, H))
    for x, y in zip(BATCH, AIMS, strict=True):
        trace = run_rows(p, x, h, np)
        rest = np.zeros((3, H))
        dh = 2 * (trace[-1][1] - y) / y.size + rest
        for hx, state in reversed(trace):
            a = dh * (1 - state**2)
            G["W"] += hx.T @ a
            dh = (a @ p["W"].T)[:, :H]
        rest = dh
    return G


# Two layers with matrices of their own in a dict, a loss of the last state of the upper one.


def run_layers(p: Any, xp: Any) -> list[Any]:
    below, layers = [*DEEP], []
    for k in "12":
        h, states = xp.zeros(H), []
        for x in below:
            h = xp.tanh(p["U" + k] @ x + p["W" + k] @ h)
            states.append(h)
        layers.append(states)
        below = states
    return layers


def layers_loss(p: Any, xp: Any) -> Any:
    return xp.sum(run_layers(p, xp)[-1][-1] ** 2)


def layers_gradients(p: Any) -> Any:
    layers = run_layers(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    d = [0 * DEEP[0]] * 3 + [2 * layers[1][-1]]
    later = np.zeros(H)
    for k in (1, 0):
        later = np.zeros(H)
        below, states, name = (layers[0] if k else DEEP), layers[k], str(k + 1)
        down = [later] * 4
        for t in (3, 2, 1, 0):
            a = (d[t] + later) * (1 - states[t] ** 2)
            G["U" + name] += np.outer(a, below[t])
            G["W" + name] += np.outer(a, states[t - 1]) if t else 0
            down[t] = p["U" + name].T @ a
            later = p["W" + name].T @ a
        d = down
    return G


COLUMNS = columns_loss, columns_gradients, ones(U=(H, D), W=(H, H), b=(H,))
ROWS = rows_loss, rows_gradients, ones(W=(H + D, H))
LAYERS = layers_loss, layers_gradients, ones(U1=(H, H), W1=(H, H), U2=(H, H), W2=(H, H))
KEEP = "        later = np.zeros(H)\n", ""
DROP = "        rest = np.zeros((3, H))\n", ""
ZEROS = "G = {k: np.zeros_like(v) for k, v in p.items()}\n"
REVERSED = "for x, y in SEQUENCES:\n        h =", "for x, y in SEQUENCES[::-1]:\n        h ="
PLANTED = {
    "later, columns": (COLUMNS, "state-not-reset", [KEEP]),
    "later, columns, the last one first": (COLUMNS, "state-not-reset", [KEEP, REVERSED]),
    "states, columns": (
        COLUMNS,
        "state-not-reset",
        [(KEEP[0], "        later, first = np.zeros(H), h[-1]\n")],
    ),
    "later, rows": (ROWS, "state-not-reset", [DROP]),
    "states, rows": (
        ROWS,
        "state-not-reset",
        [(DROP[0], "        rest, h = np.zeros((3, H)), trace[-1][1]\n")],
    ),
    "later, layers": (LAYERS, "state-not-reset", [KEEP]),
    "one step, columns": (COLUMNS, "missing-time-sum", [('G["U"] +=', 'G["U"] =')]),
    "one step of a bias, columns": (COLUMNS, "bias-part-missing", [('G["b"] +=', 'G["b"] =')]),
    "the last sequence, columns": (
        COLUMNS,
        "missing-time-sum",
        [("        h = run", f"        {ZEROS}        h = run")],
    ),
    "the first step of each, columns": (
        COLUMNS, "first-step-skipped", [("reversed(range(len(x)))", "reversed(range(1, len(x)))")],
    ),
    "the state after the step, columns": (
        COLUMNS,
        "hidden-state-off-by-one",
        [("np.outer(a, h[t])", "np.outer(a, h[t + 1])")],
    ),
    "the state after the step, rows": (
        ROWS,
        "hidden-state-off-by-one",
        [("hx.T @ a", "np.concatenate([state, hx[:, H:]], axis=1).T @ a")],
    ),
    "index −1, columns": (
        COLUMNS,
        "negative-index-wraps-around",
        [("np.outer(a, h[t])", "np.outer(a, h[t - 1])")],
    ),
    "mirrored, columns": (
        COLUMNS,
        "wrong-operand",
        [("np.outer(a, x[t])", "np.outer(a, x[len(x) - 1 - t])")],
    ),
    "the last loss of each, columns": (
        COLUMNS,
        "output-gradient-missing",
        [("(h[t + 1] - y[t])", "(h[t + 1] - y[t]) * (t == len(x) - 1)")],
    ),
    "one step, rows": (ROWS, "missing-time-sum", [('G["W"] +=', 'G["W"] =')]),
}  # fmt: skip


@pytest.mark.parametrize("model", [COLUMNS, ROWS, LAYERS], ids=["columns", "rows", "layers"])
def test_nothing_is_wrong_without_a_change(model: Any) -> None:
    assert diagnose_planted(model) == ()


@pytest.mark.table(7)
@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_what_several_sequences_or_layers_make_possible_is_named(kind: str, dtype: Any) -> None:
    model, name, changes = PLANTED[kind]
    found = diagnose_planted(model, *changes, dtype=dtype)
    assert [mistake.name for mistake in found] == [name], found
