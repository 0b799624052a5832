"""Gradients of states that `=` overwrites where `+=` belongs: that of their own step is lost."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_buffers import list_overwritten_gradients
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(21)
T, B, D, H = 4, 2, 3, 4
X, Y = rng.normal(size=(T, B, D)), rng.normal(size=(T, B, 2))

# Two layers, in rows, with an output at every step.


def layers_run(p: Any, xp: Any) -> Any:
    h, g = [xp.zeros((B, H))], [xp.zeros((B, H))]
    for t in range(T):
        h.append(xp.tanh(X[t] @ p["U"] + h[t] @ p["W"]))
        g.append(xp.tanh(h[t + 1] @ p["M"] + g[t] @ p["R"]))
    return h, g


def layers_loss(p: Any, xp: Any) -> Any:
    _, g = layers_run(p, xp)
    return sum(xp.sum((g[t + 1] @ p["V"] - Y[t]) ** 2) for t in range(T))


def layers_gradients(p: Any) -> Any:
    h, g = layers_run(p, np)
    G = {name: np.zeros_like(value) for name, value in p.items()}
    dh, dg = np.zeros((T + 1, B, H)), np.zeros((T + 1, B, H))
    for t in range(T):
        dy = 2 * (g[t + 1] @ p["V"] - Y[t])
        G["V"] += g[t + 1].T @ dy
        dg[t + 1] = dy @ p["V"].T
    for t in reversed(range(T)):
        db = dg[t + 1] * (1 - g[t + 1] ** 2)
        G["M"] += h[t + 1].T @ db
        G["R"] += g[t].T @ db
        dg[t] += db @ p["R"].T
        dh[t + 1] += db @ p["M"].T
    for t in reversed(range(T)):
        da = dh[t + 1] * (1 - h[t + 1] ** 2)
        G["U"] += X[t].T @ da
        G["W"] += h[t].T @ da
        dh[t] += da @ p["W"].T
    return G


# A gated cell in columns, whose memory and output have gradients of all steps in an array each.

Z = rng.normal(size=(T, D))


def memory_run(p: Any, xp: Any) -> Any:
    h, c, steps = xp.zeros(H), xp.zeros(H), []
    for z in Z:
        before, last = c, h
        f = 1 / (1 + xp.exp(-(p["F"] @ z + p["K"] @ last)))
        n = xp.tanh(p["U"] @ z + p["W"] @ last)
        c = f * before + n
        h = xp.tanh(c)
        steps.append((z, last, before, f, n, h))
    return steps


def memory_loss(p: Any, xp: Any) -> Any:
    return sum((p["v"] @ h - 1) ** 2 for *_, h in memory_run(p, xp))


def memory_gradients(p: Any) -> Any:
    steps = memory_run(p, np)
    G = {name: np.zeros_like(value) for name, value in p.items()}
    dh, dc = np.zeros((T, H)), np.zeros((T, H))
    for t in range(T):
        h = steps[t][-1]
        dy = 2 * (p["v"] @ h - 1)
        G["v"] += dy * h
        dh[t] = dy * p["v"]
    for t in reversed(range(T)):
        z, last, before, f, n, h = steps[t]
        dc[t] += dh[t] * (1 - h**2)
        df, dn = dc[t] * before * f * (1 - f), dc[t] * (1 - n**2)
        G["F"] += np.outer(df, z)
        G["K"] += np.outer(df, last)
        G["U"] += np.outer(dn, z)
        G["W"] += np.outer(dn, last)
        if t > 0:
            dc[t - 1] += dc[t] * f
            dh[t - 1] += p["K"].T @ df + p["W"].T @ dn
    return G


SHAPES = {"U": (D, H), "W": (H, H), "M": (H, H), "R": (H, H), "V": (H, 2)}
LAYERS = layers_loss, layers_gradients, ones(**SHAPES)
MEMORY = memory_loss, memory_gradients, ones(F=(H, D), K=(H, H), U=(H, D), W=(H, H), v=(H,))
FIRST = "dh[t] += da", "dh[t] = da"
SECOND = "dg[t] += db", "dg[t] = db"
PLANTED: list[tuple[Any, ...]] = [
    (LAYERS, FIRST),
    (LAYERS, SECOND),
    (LAYERS, FIRST, SECOND),
    (MEMORY, ("dh[t - 1] += ", "dh[t - 1] = ")),
]


@pytest.mark.parametrize("model", [LAYERS, MEMORY])
def test_nothing_is_wrong_without_a_change(model: Any) -> None:
    assert diagnose_planted(model) == ()


@pytest.mark.table(3)
@IN_BOTH_PRECISIONS
@pytest.mark.parametrize(("model", "changes"), [(m, changes) for m, *changes in PLANTED])
def test_an_overwritten_gradient_is_named(model: Any, changes: Any, dtype: Any) -> None:
    (found,) = diagnose_planted(model, *changes, dtype=dtype)
    assert found.name == "output-gradient-missing", found
    assert "`=` stands in the place of `+=`" in found.explanation


def test_without_a_loss_at_earlier_steps_nothing_is_overwritten() -> None:
    def loss(p: Any, xp: Any) -> Any:
        h = xp.zeros((B, H))
        for t in range(T):
            h = xp.tanh(X[t] @ p["U"] + h @ p["W"])
        return xp.sum(h)

    def all_steps(p: Any, xp: Any) -> Any:
        return layers_loss({**p, "M": np.eye(H), "R": np.eye(H), "V": np.ones((H, 2))}, xp)

    params = ones(U=(D, H), W=(H, H))
    with use_float64():
        found = [[*list_overwritten_gradients(structure(trace(f, params)))]
                 for f in (loss, all_steps)]  # fmt: skip
    assert [len(each) for each in found] == [0, 3]
