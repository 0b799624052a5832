"""A wrong gradient of a called function's result is no mistake in the function, which is right."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.called_results import find_inside_known
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(8)
T, B, H, D = 3, 2, 3, 4
X = rng.normal(size=(T, B, D))
C = rng.normal(size=(B, H))


def sigmoid(a: Any, xp: Any) -> Any:
    return 1 / (1 + xp.exp(-a))


# A GRU step in rows, the reset gate after the product.


def gru_run(p: Any, xp: Any) -> Any:
    ax, ah = X[0] @ p["U"], p["h"] @ p["W"]
    r = sigmoid(ax[:, :H] + ah[:, :H], xp)
    z = sigmoid(ax[:, H : 2 * H] + ah[:, H : 2 * H], xp)
    n = xp.tanh(ax[:, 2 * H :] + r * ah[:, 2 * H :])
    return r, z, n, ah[:, 2 * H :], (1 - z) * n + z * p["h"]


def gru_loss(p: Any, xp: Any) -> Any:
    return xp.sum(C * gru_run(p, xp)[-1])


def gru_gradients(p: Any) -> Any:
    r, z, n, q, _ = gru_run(p, np)
    dz = C * (p["h"] - n)
    dn = C * (1 - z) * (1 - n**2)
    dr = dn * q * r * (1 - r)
    dz = dz * z * (1 - z)
    dx, da = np.hstack([dr, dz, dn]), np.hstack([dr, dz, dn * r])
    return {"U": X[0].T @ dx, "W": p["h"].T @ da, "h": C * z + da @ p["W"].T}


# An LSTM in rows, whose input gate is one minus the forget gate.


def lstm_run(p: Any, xp: Any) -> Any:
    h, c, trace = xp.zeros((B, H)), xp.zeros((B, H)), []
    for t in range(T):
        v = xp.concatenate([X[t], h], axis=1)
        f = sigmoid(v @ p["F"], xp)
        o = sigmoid(v @ p["O"], xp)
        g = xp.tanh(v @ p["G"])
        before, c = c, f * c + (1 - f) * g
        h = o * xp.tanh(c)
        trace.append((v, f, o, g, before, c))
    return trace, h


def lstm_loss(p: Any, xp: Any) -> Any:
    return xp.sum(C * lstm_run(p, xp)[1])


def lstm_gradients(p: Any) -> Any:
    trace, _ = lstm_run(p, np)
    G = {k: np.zeros_like(w) for k, w in p.items()}
    dh, dc = C, np.zeros((B, H))
    for v, f, o, g, before, c in reversed(trace):
        do = dh * np.tanh(c)
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        df = dc * (before - g)
        d = {"F": df * f * (1 - f), "O": do * o * (1 - o), "G": dc * (1 - f) * (1 - g**2)}
        dv: Any = 0
        for k, a in d.items():
            G[k] += v.T @ a
            dv = dv + a @ p[k].T
        dh, dc = dv[:, D:], dc * f
    return G


# Negative samples, as of word vectors.


def samples_loss(p: Any, xp: Any) -> Any:
    loss = 0.0
    for k in range(T):
        s = sigmoid(-(X[k] @ p["v"]), xp)
        loss = loss - xp.sum(xp.log(s))
    q = sigmoid(X[0] @ p["w"], xp)
    return loss - xp.sum(xp.log(q))


def samples_gradients(p: Any) -> Any:
    dv: Any = 0
    for k in range(T):
        s = sigmoid(-(X[k] @ p["v"]), np)
        dv = dv + X[k].T @ (1 - s)
    q = sigmoid(X[0] @ p["w"], np)
    return {"v": dv, "w": X[0].T @ (q - 1)}


GRU = gru_loss, gru_gradients, ones(U=(D, 3 * H), W=(H, 3 * H), h=(B, H))
LSTM = lstm_loss, lstm_gradients, ones(**dict.fromkeys("FOG", (D + H, H)))
SAMPLES = samples_loss, samples_gradients, ones(v=(D, 1), w=(D, 1))


@pytest.mark.parametrize("model", [GRU, LSTM, SAMPLES])
def test_nothing_is_wrong_without_a_change(model: Any) -> None:
    assert diagnose_planted(model) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize(
    ("model", "change", "name", "line", "said"),
    [
        (GRU, ('p["h"] - n', 'n - p["h"]'), "sign-flipped", "z = sigmoid(", "`z`"),
        (LSTM, ("before - g", "g - before"), "sign-flipped", "f = sigmoid(", "`f`"),
        (LSTM, ("dc * (before", "2 * dc * (before"), "path-counted-twice", "f = sigm", "factor 2"),
    ],
)
def test_the_place_of_a_scaled_gradient_is_the_call(
    model: Any, change: tuple[str, str], name: str, line: str, said: str, dtype: Any
) -> None:
    (found,) = diagnose_planted(model, change, dtype=dtype)
    assert found.name == name, found
    assert found.details["line"].startswith(line)
    assert said in found.explanation
    assert "return 1 / (1 + xp.exp(-a))" not in found.explanation


@IN_BOTH_PRECISIONS
def test_a_sigmoid_in_the_place_of_one_minus_it_is_named(dtype: Any) -> None:
    (found,) = diagnose_planted(SAMPLES, ("(1 - s)", "s"), dtype=dtype)
    assert found.name == "activation-derivative-of-another-function", found
    assert found.details["line"] == "loss = loss - xp.sum(xp.log(s))"
    assert "uses `s` where 1 − `s` belongs" in found.explanation


def test_a_missing_slope_keeps_the_line_of_the_function() -> None:
    (found,) = diagnose_planted(LSTM, ("do * o * (1 - o)", "do"))
    assert found.name == "activation-derivative-missing"
    assert found.details["line"].startswith("return 1 / (1 +")
    assert "called by `o = sigmoid(" in found.explanation


def test_an_exponential_of_its_own_is_inside_no_known_function() -> None:
    with use_float64():
        known = structure(trace(lambda p, xp: xp.sum(xp.exp(-p["x"])), ones(x=(4,))))
        whole = structure(trace(samples_loss, SAMPLES[2]))
    assert find_inside_known(known) == frozenset()
    inside = {whole.program.operations[number].name for number in find_inside_known(whole)}
    assert inside == {"neg", "exp", "add"}
