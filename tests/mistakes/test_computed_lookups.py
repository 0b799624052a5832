"""Lookups in computed values: updates of entries that are looked up several times."""

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_numbers, diagnose_planted, plant

RNG = np.random.default_rng(12)

# A wave on a ring, with two receivers at one place.

T, N = 6, 8
RECEIVERS, DATA = np.array([1, 3, 3, 6]), RNG.normal(size=(T, 4))
FIRST = RNG.normal(size=N)


def wave_loss(p, xp):
    u, v, total = FIRST, xp.zeros(N), 0.0
    for d in DATA:
        v = v + 0.3 * p["c"] * (xp.roll(u, 1) - 2 * u + xp.roll(u, -1))
        u = u + v
        total = total + xp.sum((u[RECEIVERS] - d) ** 2)
    return total


def wave_gradients(p):
    u, v, kept = FIRST, np.zeros(N), []
    for d in DATA:
        lap = np.roll(u, 1) - 2 * u + np.roll(u, -1)
        v = v + 0.3 * p["c"] * lap
        u = u + v
        kept.append((lap, 2 * (u[RECEIVERS] - d)))
    dc, du, dv = np.zeros(N), np.zeros(N), np.zeros(N)
    for lap, r in reversed(kept):
        np.add.at(du, RECEIVERS, r)
        dv = dv + du
        dc += 0.3 * lap * dv
        s = 0.3 * p["c"] * dv
        du = du + np.roll(s, 1) - 2 * s + np.roll(s, -1)
    return {"c": dc}


# A graph: rows of nodes, sums of messages along edges.

EDGES = np.array([[0, 0, 1, 2, 3, 3, 2], [1, 2, 2, 0, 1, 0, 3]])
NODES, Y = RNG.normal(size=(4, 2)), RNG.normal(size=(7, 3))


def graph_loss(p, xp):
    h = xp.tanh(NODES @ p["U"])
    for _ in range(2):
        sent = h[EDGES[0]] * h[EDGES[1]]
        h = xp.tanh(h @ p["W"])
    return xp.mean((sent @ p["V"] + h[EDGES[0]] @ p["V"] - Y) ** 2)


def graph_gradients(p):
    hs = [np.tanh(NODES @ p["U"])]
    for _ in range(2):
        hs.append(np.tanh(hs[-1] @ p["W"]))
    one, other, last = hs[1][EDGES[0]], hs[1][EDGES[1]], hs[2][EDGES[0]]
    dout = 2 * (one * other @ p["V"] + last @ p["V"] - Y) / Y.size
    dV = (one * other + last).T @ dout
    drows = dout @ p["V"].T
    dh = np.zeros_like(hs[2])
    np.add.at(dh, EDGES[0], drows)
    dW = np.zeros_like(p["W"])
    for t in (1, 0):
        da = dh * (1 - hs[t + 1] ** 2)
        dW += hs[t].T @ da
        dh = da @ p["W"].T
        if t == 1:
            np.add.at(dh, EDGES[0], drows * other)
            np.add.at(dh, EDGES[1], drows * one)
    dU = NODES.T @ (dh * (1 - hs[0] ** 2))
    return {"U": dU, "W": dW, "V": dV}


# Spans of a sequence: some rows of a batch read the same state of their sequence.

XS, PICKED = RNG.normal(size=(5, 2)), np.array([4, 1, 4, 2])
LABELS = RNG.normal(size=(4, 1))


def spans_loss(p, xp):
    h, hs = xp.zeros(3), []
    for x in XS:
        h = xp.tanh(p["U"] @ x + p["W"] @ h)
        hs.append(h)
    return xp.sum((xp.stack(hs)[PICKED] @ p["v"] - LABELS) ** 2)


def spans_gradients(p):
    hs = [np.zeros(3)]
    for x in XS:
        hs.append(np.tanh(p["U"] @ x + p["W"] @ hs[-1]))
    states = np.array(hs[1:])
    dout = 2 * (states[PICKED] @ p["v"] - LABELS)
    dv = states[PICKED].T @ dout
    dstates = np.zeros_like(states)
    np.add.at(dstates, PICKED, dout @ p["v"].T)
    dU, dW, dh = np.zeros_like(p["U"]), np.zeros_like(p["W"]), np.zeros(3)
    for t in reversed(range(5)):
        da = (dstates[t] + dh) * (1 - states[t] ** 2)
        dU += np.outer(da, XS[t])
        dW += np.outer(da, hs[t])
        dh = p["W"].T @ da
    return {"U": dU, "W": dW, "v": dv}


# One table, looked up by the encoder and the decoder, each for a batch of sequences.

SOURCE, TARGET = np.array([[1, 2, 1, 3], [0, 2, 2, 1]]), np.array([[0, 3, 3, 1], [2, 0, 1, 1]])


def table_loss(p, xp):
    h = xp.zeros((4, 3))
    for t in range(2):
        h = xp.tanh(p["E"][SOURCE[t]] @ p["U"] + h)
    for t in range(2):
        h = xp.tanh(p["E"][TARGET[t]] @ p["V"] + h)
    return xp.sum(h**2 * np.arange(1, 4))


def table_gradients(p):
    tokens, weights_of = [*SOURCE, *TARGET], [p["U"], p["U"], p["V"], p["V"]]
    hs = [np.zeros((4, 3))]
    for rows, weight in zip(tokens, weights_of, strict=True):
        hs.append(np.tanh(p["E"][rows] @ weight + hs[-1]))
    grads = {name: np.zeros_like(value) for name, value in p.items()}
    dh = 2 * hs[-1] * np.arange(1, 4)
    for t in (3, 2):
        dh = dh * (1 - hs[t + 1] ** 2)
        grads["V"] += p["E"][tokens[t]].T @ dh
        np.add.at(grads["E"], tokens[t], dh @ p["V"].T)
    for t in (1, 0):
        dh = dh * (1 - hs[t + 1] ** 2)
        grads["U"] += p["E"][tokens[t]].T @ dh
        np.add.at(grads["E"], tokens[t], dh @ p["U"].T)
    return grads


def weights(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


MODELS: dict[str, Any] = {
    "wave": (wave_loss, wave_gradients, weights(c=(N,))),
    "graph": (graph_loss, graph_gradients, weights(U=(2, 3), W=(3, 3), V=(3, 3))),
    "table": (table_loss, table_gradients, weights(E=(4, 2), U=(2, 3), V=(2, 3))),
    "spans": (spans_loss, spans_gradients, weights(U=(3, 2), W=(3, 3), v=(3, 1))),
}
PLANTED: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "receivers": ("wave", (("np.add.at(du, RECEIVERS, r)", "du[RECEIVERS] += r"),)),
    "assigned": ("wave", (("np.add.at(du, RECEIVERS, r)", "du = du.copy(); du[RECEIVERS] = r"),)),
    "messages": ("graph", (
        ("np.add.at(dh, EDGES[0], drows * other)", "dh[EDGES[0]] += drows * other"),
    )),
    "the last state": ("graph", (("np.add.at(dh, EDGES[0], drows)", "dh[EDGES[0]] += drows"),)),
    "every lookup": ("graph", (
        ("np.add.at(dh, EDGES[0], drows * other)", "dh[EDGES[0]] += drows * other"),
        ("np.add.at(dh, EDGES[1], drows * one)", "dh[EDGES[1]] += drows * one"),
        ("np.add.at(dh, EDGES[0], drows)", "dh[EDGES[0]] += drows"),
    )),
    "the encoder's rows": ("table", (
        ('np.add.at(grads["E"], tokens[t], dh @ p["U"].T)',
         'grads["E"][tokens[t]] += dh @ p["U"].T'),
    )),
    "the decoder's rows": ("table", (
        ('np.add.at(grads["E"], tokens[t], dh @ p["V"].T)',
         'grads["E"][tokens[t]] += dh @ p["V"].T'),
    )),
    "all rows": ("table", (
        ('np.add.at(grads["E"], tokens[t], dh @ p["U"].T)',
         'grads["E"][tokens[t]] += dh @ p["U"].T'),
        ('np.add.at(grads["E"], tokens[t], dh @ p["V"].T)',
         'grads["E"][tokens[t]] += dh @ p["V"].T'),
    )),
    "states": ("spans", (("np.add.at(dstates, PICKED, dout @ p[\"v\"].T)",
                          "dstates[PICKED] += dout @ p[\"v\"].T"),)),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_updates_that_are_lost_in_a_computed_value_are_named(kind: str, dtype: Any) -> None:
    model, changes = PLANTED[kind]
    found = diagnose_planted(MODELS[model], *changes, dtype=dtype)
    assert [each.name for each in found] == ["repeated-index"], found


def test_of_two_lookups_in_a_table_that_whose_updates_are_lost_is_named() -> None:
    loss, gradients, params = MODELS["table"]
    for kind, said in (("the encoder's rows", "SOURCE[t]"), ("the decoder's rows", "TARGET[t]")):
        (found,) = diagnose_numbers(loss, params, plant(gradients, *PLANTED[kind][1]))
        assert f"""that `p["E"][{said}]` looks up several times""" in found.explanation
    (found,) = diagnose_numbers(loss, params, plant(gradients, *PLANTED["all rows"][1]))
    assert "a row of `E` that is looked up several times" in found.explanation


def test_entries_that_are_assigned_once_have_no_repeated_index() -> None:
    def loss(p, xp):
        h = xp.tanh(p["w"])
        return xp.sum(h[np.array([2, 0])] ** 2) + xp.sum(h**3)

    def gradients(p):
        h = np.tanh(p["w"])
        dh = 3 * h**2
        dh[[2, 0]] = 2 * h[[2, 0]]
        return {"w": dh * (1 - h**2)}

    (found,) = diagnose_numbers(loss, weights(w=(4,)), gradients)
    assert found.name == "zero-gradient"
    assert "what other uses of the value add to them is lost" in found.explanation
