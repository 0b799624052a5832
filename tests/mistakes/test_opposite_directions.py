"""Sequences that a loss reverses, and whose gradient is not reversed, or the other way round."""

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_numbers, diagnose_planted, plant

RNG = np.random.default_rng(11)
T, D, H, O = 5, 2, 3, 2
X, Y = RNG.normal(size=(T, D)), RNG.normal(size=(T, O))
P = {name: np.zeros(shape) for name, shape in {
    "U": (H, D), "W": (H, H), "Q": (H, D), "R": (H, H), "V": (O, 2 * H),
}.items()}  # fmt: skip


# Columns: each step joins the states of two directions; one list is reversed.


def run(U, W, xs, xp):
    h, hs = xp.zeros(H), []
    for x in xs:
        h = xp.tanh(U @ x + W @ h)
        hs.append(h)
    return hs


def joined_loss(p, xp):
    ahead = run(p["U"], p["W"], X, xp)
    back = run(p["Q"], p["R"], X[::-1], xp)[::-1]
    total = 0.0
    for a, b, y in zip(ahead, back, Y, strict=True):
        total = total + xp.sum((p["V"] @ xp.concatenate([a, b]) - y) ** 2)
    return total


def sweep(W, xs, hs, dhs):
    dU, dW, carried = np.zeros((H, D)), np.zeros((H, H)), np.zeros(H)
    for t in reversed(range(T)):
        da = (dhs[t] + carried) * (1 - hs[t] ** 2)
        dU += np.outer(da, xs[t])
        dW += np.outer(da, hs[t - 1]) if t else 0
        carried = W.T @ da
    return dU, dW


def joined_gradients(p):
    ahead = run(p["U"], p["W"], X, np)
    back = run(p["Q"], p["R"], X[::-1], np)
    rows = [np.concatenate([a, b]) for a, b in zip(ahead, back[::-1], strict=True)]
    dys = [2 * (p["V"] @ row - y) for row, y in zip(rows, Y, strict=True)]
    dV = sum(np.outer(dy, row) for dy, row in zip(dys, rows, strict=True))
    drows = np.array(dys) @ p["V"]
    dU, dW = sweep(p["W"], X, ahead, drows[:, :H])
    dQ, dR = sweep(p["R"], X[::-1], back, drows[::-1, H:])
    return {"U": dU, "W": dW, "Q": dQ, "R": dR, "V": dV}


# Rows: states in an array, which is flipped, of a batch.

B = 2
XB, YB = RNG.normal(size=(T, B, D)), RNG.normal(size=(T, B, O))
PA = {name: np.zeros(shape) for name, shape in {"U": (D, H), "W": (H, H), "V": (H, O)}.items()}


def array_loss(p, xp):
    h, hs = xp.zeros((B, H)), []
    for t in range(T):
        h = xp.tanh(xp.flip(XB, axis=0)[t] @ p["U"] + h @ p["W"])
        hs.append(h)
    out = xp.flip(xp.stack(hs), axis=0) @ p["V"]
    return xp.mean((out - YB) ** 2)


def array_gradients(p):
    x, h, hs = XB[::-1], np.zeros((B, H)), []
    for t in range(T):
        h = np.tanh(x[t] @ p["U"] + h @ p["W"])
        hs.append(h)
    states = np.array(hs)[::-1]
    dout = 2 * (states @ p["V"] - YB) / YB.size
    dV = np.einsum("tbh,tbo->ho", states, dout)
    dhs = (dout @ p["V"].T)[::-1]
    dU, dW, carried = np.zeros((D, H)), np.zeros((H, H)), np.zeros((B, H))
    for t in reversed(range(T)):
        da = (dhs[t] + carried) * (1 - hs[t] ** 2)
        dU += x[t].T @ da
        dW += hs[t - 1].T @ da if t else 0
        carried = da @ p["W"].T
    return {"U": dU, "W": dW, "V": dV}


# An output at each step of the loop of a leaky state; the outputs' gradients are in a list.

PG = {name: np.zeros(shape) for name, shape in {
    "U": (H, D), "W": (H, H), "b": (H,), "V": (O, H), "c": (O,),
}.items()}  # fmt: skip


def looped_loss(p, xp):
    h, total = xp.zeros(H), 0.0
    for x, y in zip(X, Y, strict=True):
        h = 0.5 * h + xp.tanh(p["U"] @ x + p["W"] @ h + p["b"])
        total = total + xp.sum((p["V"] @ h + p["c"] - y) ** 2) / T
    return total


def looped_gradients(p):
    h, tape, dys = np.zeros(H), [], []
    for x, y in zip(X, Y, strict=True):
        s = np.tanh(p["U"] @ x + p["W"] @ h + p["b"])
        before, h = h, 0.5 * h + s
        tape.append((x, before, s, h))
        dys.append(2 * (p["V"] @ h + p["c"] - y) / T)
    g = {name: np.zeros_like(value) for name, value in p.items()}
    dh = np.zeros(H)
    for k, (x, before, s, h) in enumerate(tape[::-1]):
        dy = dys[T - 1 - k]
        g["V"] += np.outer(dy, h)
        g["c"] += dy
        dh = dh + p["V"].T @ dy
        da = dh * (1 - s**2)
        g["U"] += np.outer(da, x)
        g["W"] += np.outer(da, before)
        g["b"] += da
        dh = 0.5 * dh + p["W"].T @ da
    return g


# Inputs that are parameters, read from the end.

PF = {"E": np.zeros((T, H)), "W": np.zeros((H, H))}


def flipped_loss(p, xp):
    h = xp.zeros(H)
    for e in p["E"][::-1]:
        h = xp.tanh(e + p["W"] @ h)
    return xp.sum(h**3)


def flipped_gradients(p):
    hs = [np.zeros(H)]
    for e in p["E"][::-1]:
        hs.append(np.tanh(e + p["W"] @ hs[-1]))
    dE, dW, dh = np.zeros((T, H)), np.zeros((H, H)), 3 * hs[-1] ** 2
    for t in reversed(range(T)):
        dE[t] = dh * (1 - hs[t + 1] ** 2)
        dW += np.outer(dE[t], hs[t])
        dh = p["W"].T @ dE[t]
    return {"E": dE[::-1], "W": dW}


MODELS: dict[str, Any] = {
    "joined": (joined_loss, joined_gradients, P),
    "array": (array_loss, array_gradients, PA),
    "looped": (looped_loss, looped_gradients, PG),
    "flipped": (flipped_loss, flipped_gradients, PF),
}
STEP = "output-gradient-at-wrong-step"
PLANTED: dict[str, tuple[str, str, tuple[str, str]]] = {
    "one direction": ("joined", STEP, ("drows[::-1, H:]", "drows[:, H:]")),
    "the other direction": ("joined", STEP, ("drows[:, :H]", "drows[::-1, :H]")),
    "an array": ("array", STEP, ("(dout @ p[\"V\"].T)[::-1]", "dout @ p[\"V\"].T")),
    "a list of outputs": ("looped", STEP, ("dy = dys[T - 1 - k]", "dy = dys[k]")),
    "outputs of the states alone": ("looped", STEP, ('p["V"].T @ dy', 'p["V"].T @ dys[k]')),
    "a parameter": ("flipped", "parts-exchanged", ("dE[::-1]", "dE")),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_gradients_in_the_opposite_order_are_named(kind: str, dtype: Any) -> None:
    model, name, change = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], change, dtype=dtype)
    assert found.name == name, found


def test_a_direction_has_one_name() -> None:
    change = ("drows[::-1, H:]", "drows[:, H:]")
    (found,) = diagnose_numbers(joined_loss, P, plant(joined_gradients, change))
    assert "opposite order of time" in found.explanation
    assert "parts-exchanged" not in found.explanation
