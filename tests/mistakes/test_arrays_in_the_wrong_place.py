"""Slopes at the gradient, other weights and data, lost updates, folded matrices, uses of a softmax.

The kinds are planted in five models: an LSTM that feeds its outputs back, an attention that cleans
noisy rows, filters of an image beside samples of words, a decoder, and masked scores.
"""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.guessed_lines import writes_entries
from bptt_verifier.mistakes.single_gradients import list_folded_matrices
from bptt_verifier.program.backward import backward
from bptt_verifier.program.paths import leave_out_reshapes
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(14)
H, O, S, F = 4, 3, 4, 5
TOKENS, LABELS = [1, 0, 1, 2], [0, 2, 1, 1]
CLEAN = rng.normal(size=(S, H))
NOISY = CLEAN + rng.normal(size=(S, H))
COLUMNS = rng.normal(size=(F, 6))
SAMPLES = [(0, [1, 2, 1]), (2, [0, 1, 0])]
EYE, MASK = np.eye(O), np.tril(np.ones((S, S)))
BETA = 0.3


def sigmoid(a: Any, xp: Any) -> Any:
    return 1 / (1 + xp.exp(-a))


# An LSTM in columns, whose forget gate is fixed and whose outputs are fed back.


def lstm_run(p: Any, xp: Any) -> Any:
    h, c, q, steps, loss = p["E"][0], xp.zeros(H), xp.ones(O) / O, [], 0.0
    for token, label in zip(TOKENS, LABELS, strict=True):
        a = p["W"] @ h + p["C"] @ q
        o = sigmoid(a, xp)
        g = xp.tanh(p["G"] @ h + p["E"][token])
        c = 0.5 * c + g
        h, hs = o * xp.tanh(c), h
        scores = p["V"] @ h
        e = xp.exp(scores - xp.max(scores))
        q, qs = e / xp.sum(e), q
        loss = loss - xp.log(q[label])
        loss = loss + BETA * xp.sum(q * xp.log(q))
        steps.append((token, label, o, g, c, h, hs, q, qs))
    return loss, steps


def lstm_loss(p: Any, xp: Any) -> Any:
    return lstm_run(p, xp)[0]


def lstm_gradients(p: Any) -> Any:
    _, steps = lstm_run(p, np)
    G = {k: np.zeros_like(w) for k, w in p.items()}
    dh, dc, dq = np.zeros(H), np.zeros(H), np.zeros(O)
    for token, label, o, g, c, h, hs, q, qs in reversed(steps):
        ds = q - np.eye(O)[label]
        ds = ds + q * (dq - q @ dq)
        lq = np.log(q)
        ds = ds + BETA * q * (lq - q @ lq)
        G["V"] += np.outer(ds, h)
        dh = dh + p["V"].T @ ds
        do = dh * np.tanh(c)
        da = do * o * (1 - o)
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        dg = dc * (1 - g**2)
        G["W"] += np.outer(da, hs)
        G["C"] += np.outer(da, qs)
        G["G"] += np.outer(dg, hs)
        G["E"][token] += dg
        dh = p["W"].T @ da + p["G"].T @ dg
        dq = p["C"].T @ da
        dc = 0.5 * dc
    G["E"][0] += dh
    return G


# An attention in rows, which is to find the clean rows.


def attend(p: Any, xp: Any) -> Any:
    keys = NOISY @ p["K"]
    scores = keys @ p["q"]
    e = xp.exp(scores - xp.max(scores))
    w = e / xp.sum(e)
    a = (w[:, None] * keys) @ p["A"]
    y = xp.maximum(a, 0)
    return keys, w, a, y, y @ p["B"] - CLEAN


def attention_loss(p: Any, xp: Any) -> Any:
    _, w, _, _, error = attend(p, xp)
    loss = xp.sum(error**2) / 2
    return loss + BETA * xp.sum(w * xp.log(w))


def attention_gradients(p: Any) -> Any:
    keys, w, a, y, error = attend(p, np)
    dy = error @ p["B"].T
    da = np.where(a > 0, dy, 0)
    dm = da @ p["A"].T
    dw = np.sum(dm * keys, axis=1)
    lw = np.log(w)
    ds = w * (dw - w @ dw) + BETA * w * (lw - w @ lw)
    dk = w[:, None] * dm + np.outer(ds, p["q"])
    return {"B": y.T @ error, "A": (w[:, None] * keys).T @ da, "q": keys.T @ ds,
            "K": NOISY.T @ dk}  # fmt: skip


# Filters of two by three pixels, and words with negative samples.


def sample(p: Any, v: Any, word: int, others: list[int], xp: Any) -> Any:
    loss = -xp.log(sigmoid(p["U"][word] @ v, xp))
    for k in others:
        loss = loss - xp.log(sigmoid(-(p["U"][k] @ v), xp))
    return loss


def filters_loss(p: Any, xp: Any) -> Any:
    r = xp.maximum(COLUMNS @ xp.reshape(p["K"], (O, 6)).T, 0)
    loss = xp.sum(r**2) / 2 + xp.sum(r)
    for word, others in SAMPLES:
        loss = loss + sample(p, p["v"], word, others, xp)
    return loss


def filters_gradients(p: Any) -> Any:
    a = COLUMNS @ p["K"].reshape(O, 6).T
    r = np.maximum(a, 0)
    dr = r + 1
    da = np.where(a > 0, dr, 0)
    G = {"K": (COLUMNS.T @ da).T.reshape(p["K"].shape), "U": 0 * p["U"], "v": 0 * p["v"]}
    for word, others in SAMPLES:
        dU = np.zeros_like(p["U"])
        s = sigmoid(p["U"][word] @ p["v"], np)
        dU[word] += (s - 1) * p["v"]
        G["v"] += (s - 1) * p["U"][word]
        for k in others:
            z = sigmoid(p["U"][k] @ p["v"], np)
            dU[k] += z * p["v"]
            G["v"] += z * p["U"][k]
        G["U"] += dU
    return G


# A decoder in rows, whose inputs are the targets of the step before.


def decoder_run(p: Any, xp: Any) -> Any:
    h, previous, steps, loss = xp.zeros(H), 0, [], 0.0
    for label in (1, 2, 1):
        h, hs = xp.tanh(EYE[previous] @ p["U"] + h @ p["W"]), h
        y = h @ p["V"] - EYE[label]
        loss = loss + xp.sum(y**2) / 2
        steps.append((EYE[previous], EYE[label], h, hs, y))
        previous = label
    return loss, steps


def decoder_loss(p: Any, xp: Any) -> Any:
    return decoder_run(p, xp)[0]


def decoder_gradients(p: Any) -> Any:
    _, steps = decoder_run(p, np)
    G, dh = {k: np.zeros_like(w) for k, w in p.items()}, np.zeros(H)
    for x, target, h, hs, y in reversed(steps):  # noqa: B007
        G["V"] += np.outer(h, y)
        da = (dh + p["V"] @ y) * (1 - h**2)
        dh = p["W"] @ da
        G["U"] += np.outer(x, da)
        G["W"] += np.outer(hs, da)
    return G


# Scores of earlier rows alone, and a normalisation of what they weigh.


def masked_run(p: Any, xp: Any) -> Any:
    scores = xp.where(MASK > 0, NOISY @ p["K"], -1e9)
    e = xp.exp(scores - xp.max(scores, axis=1, keepdims=True))
    w = e / xp.sum(e, axis=1, keepdims=True)
    a = w @ (NOISY @ p["v"])
    var = a.var(axis=1, keepdims=True)
    s = xp.sqrt(var + 1e-5)
    return w, s, (a - a.mean(axis=1, keepdims=True)) / s


def masked_loss(p: Any, xp: Any) -> Any:
    return xp.sum(CLEAN * masked_run(p, xp)[-1])


def masked_gradients(p: Any) -> Any:
    w, s, n = masked_run(p, np)
    d = CLEAN - np.mean(CLEAN, axis=1, keepdims=True)
    d = (d - n * np.mean(CLEAN * n, axis=1, keepdims=True)) / s
    dw = d @ (NOISY @ p["v"]).T
    ds = w * (dw - np.sum(dw * w, axis=1, keepdims=True))
    return {"K": NOISY.T @ ds, "v": NOISY.T @ (w.T @ d)}


MASKED = masked_loss, masked_gradients, ones(K=(H, S), v=(H, H))
DECODER = decoder_loss, decoder_gradients, ones(U=(O, H), W=(H, H), V=(H, O))
LSTM = lstm_loss, lstm_gradients, ones(E=(3, H), W=(H, H), G=(H, H), C=(H, O), V=(O, H))
ATTENTION = attention_loss, attention_gradients, ones(K=(H, F), q=(F,), A=(F, H), B=(H, H))
FILTERS = filters_loss, filters_gradients, ones(K=(O, 1, 2, 3), U=(3, H), v=(H,))

PLANTED = [
    (LSTM, "do * o * (1 - o)", "do * do * (1 - do)", "wrong-operand", "d (1 − d) of the grad"),
    (LSTM, "dc * (1 - g**2)", "dc * (1 - dc**2)", "wrong-operand", "1 − d² of the gradient"),
    (ATTENTION, "a > 0", "dy > 0", "wrong-operand", "the sign of the gradient that arrives"),
    (ATTENTION, "a > 0", "(a > 0) & (dy > 0)", "wrong-operand", "also zero where it is negative"),
    (LSTM, 'p["C"].T @ da', 'p["V"] @ da', "wrong-operand", '`p["V"]`, transposed, where'),
    (ATTENTION, 'da @ p["A"].T', 'da @ p["K"]', "wrong-operand", '`p["K"]`, transposed, where'),
    (ATTENTION, "NOISY.T @ dk", "CLEAN.T @ dk", "wrong-operand", "`CLEAN` of `y @ p"),
    (LSTM, 'G["E"][token] +=', 'G["E"][token] =', "repeated-index", "update of its first lookup"),
    (FILTERS, "dU[k] +=", "dU[k] =", "repeated-index", "its last lookup, and loses what is"),
    (FILTERS, "da).T.reshape", "da).reshape", "transposed-gradient", "not transposed to 3 × 6"),
    (LSTM, "BETA * q * (lq - q @ lq)", "BETA * q * (lq + 1)", "softmax-denominator", "uses p g"),
    (LSTM, "BETA * q * (lq - q @ lq)", "BETA * (lq + 1)", "softmax-denominator", "uses g for"),
    (LSTM, "np.outer(da, qs)", 'np.outer(p["W"].T @ da, qs)', "wrong-adjoint", "passed on to `h`"),
    (DECODER, "np.outer(x, da)", "np.outer(x, dh)", "wrong-adjoint", "is passed on to `h`"),
    (DECODER, "np.outer(hs, da)", "np.outer(hs, dh)", "wrong-adjoint", "is passed on to `h`"),
    (DECODER, "np.outer(x, da)", "np.outer(target, da)", "input-off-by-one", "target of the step"),
    (MASKED, "dw * w, axis", "dw * MASK, axis", "softmax-denominator", "over what is not masked,"),
    (MASKED, "n * np.mean(", "n * np.sum(", "factor-missing", "passed on to its sum is not div"),
    (ATTENTION, "(lw - w @ lw)", "(lw + 1)", "softmax-denominator", "uses p g for"),
]  # fmt: skip


@pytest.mark.parametrize("model", [LSTM, ATTENTION, FILTERS, DECODER, MASKED])
def test_nothing_is_wrong_without_a_change(model: Any) -> None:
    assert diagnose_planted(model) == ()


@pytest.mark.table(3)
@IN_BOTH_PRECISIONS
@pytest.mark.parametrize(("model", "right", "wrong", "name", "said"), PLANTED)
def test_the_mistake_is_named(
    model: Any, right: str, wrong: str, name: str, said: str, dtype: Any
) -> None:
    (found,) = diagnose_planted(model, (right, wrong), dtype=dtype)
    assert name in {found.name, *found.details.get("or", ())}, found
    assert said in found.explanation


def test_a_matrix_of_two_axes_is_not_folded() -> None:
    assert [*list_folded_matrices("W", (3, 4))] == []
    assert [found.details["rows"] for found in list_folded_matrices("W", (3, 1, 2, 3))] == [3, 3, 6]


def test_a_reshape_to_the_same_shape_is_left_out_with_the_same_gradient() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.reshape(xp.exp(xp.reshape(-p["x"], (4,))), (2, 2)) ** 2)

    point = {"x": rng.normal(size=4)}
    with use_float64():
        program = trace(loss, point)
        shorter = leave_out_reshapes(program)
    names = [each.name for each in shorter.operations]
    assert names.count("reshape") == 1
    right, found = (backward(each, forward(each, point)) for each in (program, shorter))
    np.testing.assert_array_equal(found["x"], right["x"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dE[k] = d", True), ("dE[k] += d", True), ("np.add.at(dE, k, d)", True),
        ("dE += d", False), ("d = e[k]", False), ("for k in d:", False),
    ],
)  # fmt: skip
def test_a_line_writes_entries(line: str, expected: bool) -> None:
    assert writes_entries(line) is expected
