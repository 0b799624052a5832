"""Mistakes in the styles of plain forward passes: masks by `where`, `var`, several lengths."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import diagnose_numbers, plant

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(3, 2)), RNG.normal(size=2)
LENGTHS = (3, 2)
W, V = np.zeros((2, 2)), np.zeros((2, 2))
LAYERS = {"W": np.zeros((2, 2, 2)), "b": np.zeros((2, 2))}


def run_rectified(p: Any, xp: Any) -> Any:
    states = [xp.zeros(2)]
    for x in X:
        a = x + p["W"] @ states[-1]
        states.append(xp.where(a > 0, a, 0))
    return states


def rectified_loss(p: Any, xp: Any) -> Any:
    return 0.5 * xp.sum((run_rectified(p, xp)[-1] - Y) ** 2)


def rectified_gradients(p: Any) -> Any:
    states = run_rectified(p, np)
    dW: Any = 0
    d = states[-1] - Y
    for t in (2, 1, 0):
        da = d * (states[t + 1] > 0)
        dW, d = dW + np.outer(da, states[t]), p["W"].T @ da
    return {"W": dW}


def run_maximum(p: Any, xp: Any) -> Any:
    states = [xp.zeros(2)]
    for x in X:
        states.append(xp.maximum(x + p["W"] @ states[-1], 0))
    return states


def maximum_loss(p: Any, xp: Any) -> Any:
    return 0.5 * xp.sum((run_maximum(p, xp)[-1] - Y) ** 2)


def normalised_loss(p: Any, xp: Any) -> Any:
    a = X @ p["W"]
    mean, variance = xp.mean(a, axis=0), xp.var(a, axis=0)
    return xp.sum(((a - mean) / xp.sqrt(variance + 0.1) @ p["V"]) ** 3)


def normalised_gradients(p: Any) -> Any:
    a = X @ p["W"]
    deviation = np.sqrt(np.var(a, axis=0) + 0.1)
    n = (a - np.mean(a, axis=0)) / deviation
    d = 3 * (n @ p["V"]) ** 2
    dn = d @ p["V"].T
    da = (dn - dn.mean(0) - n * (dn * n).mean(0)) / deviation
    return {"W": X.T @ da, "V": n.T @ d}


def attended_loss(p: Any, xp: Any) -> Any:
    scores = p["W"] @ Y
    e = xp.exp(scores - xp.max(scores))
    return xp.sum((p["V"] @ (e / xp.sum(e))) ** 2)


def attended_gradients(p: Any) -> Any:
    scores = p["W"] @ Y
    a = np.exp(scores - scores.max()) / np.sum(np.exp(scores - scores.max()))
    d = 2 * p["V"] @ a
    da = p["V"].T @ d
    ds = a * (da - a @ da)
    return {"W": np.outer(ds, Y), "V": np.outer(d, a)}


def run_ragged(p: Any, xp: Any, length: int) -> Any:
    states = [xp.zeros(2)]
    for x in X[:length]:
        states.append(xp.tanh(x + p["W"] @ states[-1]))
    return states


def ragged_loss(p: Any, xp: Any) -> Any:
    total = 0.0
    for length in LENGTHS:
        total = total + 0.5 * xp.sum(xp.tanh(xp.stack(run_ragged(p, xp, length)[1:]) @ p["V"]) ** 2)
    return total


def ragged_gradients(p: Any) -> Any:
    dW: Any = 0
    dV: Any = 0
    for length in LENGTHS:
        states = np.stack(run_ragged(p, np, length))
        out = np.tanh(states[1:] @ p["V"])
        dout = out * (1 - out**2)
        dV = dV + states[1:].T @ dout
        dstates, later = dout @ p["V"].T, 0
        for t in reversed(range(length)):
            da = (dstates[t] + later) * (1 - states[t + 1] ** 2)
            dW, later = dW + np.outer(da, states[t]), p["W"].T @ da
    return {"W": dW, "V": dV}


def run_layers(p: Any, xp: Any) -> Any:
    below, every = list(X), []
    for W, b in zip(p["W"], p["b"], strict=True):
        states = [xp.zeros((1, 2))]
        for x in below:
            states.append(xp.tanh(x + states[-1] @ W + b))
        below = states[1:]
        every.append(states)
    return every


def layers_loss(p: Any, xp: Any) -> Any:
    return 0.5 * xp.sum((run_layers(p, xp)[-1][-1] - Y) ** 2)


def layers_gradients(p: Any) -> Any:
    every = run_layers(p, np)
    dW, db = np.zeros_like(p["W"]), np.zeros_like(p["b"])
    above = [0, 0, every[-1][-1] - Y]
    for k in (1, 0):
        later = 0
        for t in (2, 1, 0):
            da = (above[t] + later) * (1 - every[k][t + 1] ** 2)
            dW[k] += every[k][t].T @ da
            db[k] += da[0]
            above[t], later = da, da @ p["W"][k].T
    return {"W": dW, "b": db}


RAGGED = ragged_loss, {"W": W, "V": V}, ragged_gradients
ATTENDED = attended_loss, {"W": W, "V": V}, attended_gradients
PLANTED: dict[str, Any] = {
    "activation-derivative-missing": (
        rectified_loss, {"W": W}, rectified_gradients, ("d * (states[t + 1] > 0)", "d")
    ),
    "hidden-state-off-by-one": (
        maximum_loss, {"W": W}, rectified_gradients, ("states[t + 1] > 0", "states[t] > 0")
    ),
    "normalisation-path-missing": (
        normalised_loss, {"W": W, "V": V}, normalised_gradients, (" - n * (dn * n).mean(0)", "")
    ),
    "softmax-denominator": (*ATTENDED, ("a * (da - a @ da)", "a * da")),
    "softmax-diagonal": (*ATTENDED, ("a * (da - a @ da)", "a * (1 - a) * da")),
    "untransposed-recurrent-weight": (*RAGGED, ('p["W"].T @ da', 'p["W"] @ da')),
    "recurrent-path-dropped": (
        layers_loss, LAYERS, layers_gradients, ("later = da, da @ p", "later = da, 0 * da @ p")
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "loss", "params", "gradients", "change"),
    [(name, *planted) for name, planted in PLANTED.items()],
    ids=PLANTED,
)
def test_a_mistake_in_a_plain_style_has_its_name(
    name: str, loss: Any, params: Any, gradients: Callable[..., Any], change: tuple[str, str]
) -> None:
    assert diagnose_numbers(loss, params, gradients) == ()
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, change))
    assert mistake.name == name


@pytest.mark.rest
def test_what_no_mistake_explains_is_unknown_where_lengths_differ() -> None:
    change = ("(1 - out**2)", "(1 - 0.3 * out**3)")
    (mistake,) = diagnose_numbers(RAGGED[0], RAGGED[1], plant(RAGGED[2], change))
    assert mistake.name == "unknown"
