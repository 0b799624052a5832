"""Chains of labels with their derivations: random fields, counted pairs, a hidden Markov model."""

from itertools import pairwise
from typing import Any

import numpy as np

from tests.support.diagnosis import ones

rng = np.random.default_rng(6)
D, K = 2, 3
SENTENCES = [
    (rng.normal(size=(T, D)), y)
    for T, y in ((4, [2, 0, 0, 1]), (3, [0, 1, 2]), (5, [2, 1, 2, 0, 0]))
]
OBSERVED = [[0, 2, 1, 1, 3], [3, 0, 2]]
LETTERS = [0, 1, 1, 3, 2, 1, 0, 0, 2]
ONE = SENTENCES[2]


def logsumexp(a: Any, axis: int, xp: Any) -> Any:
    m = xp.max(a, axis=axis, keepdims=True)
    return xp.squeeze(m + xp.log(xp.sum(xp.exp(a - m), axis=axis, keepdims=True)), axis)


# Several sentences, each label looked up by itself.


def run_forward(p: Any, emit: Any, xp: Any) -> list[Any]:
    alpha = [p["start"] + emit[0]]
    for t in range(1, len(emit)):
        alpha.append(logsumexp(alpha[t - 1][:, None] + p["trans"], 0, xp) + emit[t])
    return alpha


def crf_loss(p: Any, xp: Any) -> Any:
    total = 0.0
    for x, y in SENTENCES:
        emit = x @ p["W"]
        alpha = run_forward(p, emit, xp)
        score = p["start"][y[0]] + p["end"][y[-1]]
        for t in range(len(y)):
            score = score + emit[t, y[t]]
            if t > 0:
                score = score + p["trans"][y[t - 1], y[t]]
        total = total + logsumexp(alpha[-1] + p["end"], 0, xp) - score
    return total / len(SENTENCES)


def crf_gradients(p: Any) -> Any:
    G = {k: np.zeros_like(v) for k, v in p.items()}
    n = len(SENTENCES)
    for x, y in SENTENCES:
        emit = x @ p["W"]
        alpha = run_forward(p, emit, np)
        logZ = logsumexp(alpha[-1] + p["end"], 0, np)
        beta = p["end"]
        for t in reversed(range(len(y))):
            marg = np.exp(alpha[t] + beta - logZ) / n
            G["end"] += marg * (t == len(y) - 1)
            G["start"] += marg * (t == 0)
            marg[y[t]] -= 1 / n
            G["W"] += np.outer(x[t], marg)
            if t > 0:
                pair = alpha[t - 1][:, None] + p["trans"] + emit[t] + beta - logZ
                G["trans"] += np.exp(pair) / n
                G["trans"][y[t - 1], y[t]] -= 1 / n
                beta = logsumexp(p["trans"] + (emit[t] + beta)[None, :], 1, np)
        G["start"][y[0]] -= 1 / n
        G["end"][y[-1]] -= 1 / n
    return G


# One sentence, all labels looked up at once, the forward pass without a shift.


def single_run(p: Any, xp: Any) -> Any:
    emit = ONE[0] @ p["W"]
    alpha = [p["start"] + emit[0]]
    for t in range(1, len(emit)):
        terms = alpha[-1][:, None] + p["trans"]
        alpha.append(emit[t] + xp.log(xp.sum(xp.exp(terms), axis=0)))
    return emit, alpha


def single_loss(p: Any, xp: Any) -> Any:
    y = np.array(ONE[1])
    emit, alpha = single_run(p, xp)
    score = p["start"][y[0]] + xp.sum(emit[np.arange(len(y)), y])
    score = score + xp.sum(p["trans"][y[:-1], y[1:]])
    return xp.log(xp.sum(xp.exp(alpha[-1]))) - score


def single_gradients(p: Any) -> Any:
    y = np.array(ONE[1])
    emit, alpha = single_run(p, np)
    logZ = np.log(np.sum(np.exp(alpha[-1])))
    G = {k: np.zeros_like(v) for k, v in p.items()}
    beta = np.zeros(K)
    for t in reversed(range(len(y))):
        gamma = np.exp(alpha[t] + beta - logZ)
        gamma[y[t]] -= 1
        G["W"] += np.outer(ONE[0][t], gamma)
        if t == 0:
            G["start"] += gamma
        else:
            pair = np.exp(alpha[t - 1][:, None] + p["trans"] + (emit[t] + beta)[None] - logZ)
            G["trans"] += pair
            beta = np.log(np.sum(np.exp(p["trans"] + (emit[t] + beta)[None]), axis=1))
    np.add.at(G["trans"], (y[:-1], y[1:]), -1)
    return G


# Pairs of letters, looked up in a matrix of logarithms.


def pairs_loss(p: Any, xp: Any) -> Any:
    logs = p["S"] - xp.log(xp.sum(xp.exp(p["S"]), axis=1, keepdims=True))
    first = p["f"] - xp.log(xp.sum(xp.exp(p["f"])))
    return -first[LETTERS[0]] - sum(logs[i, j] for i, j in pairwise(LETTERS))


def pairs_gradients(p: Any) -> Any:
    counts, first = np.zeros((4, 4)), np.zeros(4)
    first[LETTERS[0]] += 1
    for i, j in pairwise(LETTERS):
        counts[i, j] += 1
    e, f = np.exp(p["S"]), np.exp(p["f"])
    P = e / e.sum(axis=1, keepdims=True)
    return {"S": counts.sum(axis=1, keepdims=True) * P - counts, "f": f / f.sum() - first}


def softmax(z: Any, xp: Any) -> Any:
    e = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


# A hidden Markov model with scaled probabilities, the transitions and emissions in logits.


def hmm_run(A: Any, B: Any, y: Any, xp: Any) -> Any:
    alpha, scales = [], []
    for t, k in enumerate(y):
        a = (alpha[-1] @ A if t else xp.ones(3) / 3) * B[:, k]
        scales.append(xp.sum(a))
        alpha.append(a / scales[-1])
    return alpha, scales


def hmm_loss(p: Any, xp: Any) -> Any:
    A, B = softmax(p["A"], xp), softmax(p["B"], xp)
    total = sum(sum(map(xp.log, hmm_run(A, B, y, xp)[1])) for y in OBSERVED)
    return -total


def hmm_gradients(p: Any) -> Any:
    A, B = softmax(p["A"], np), softmax(p["B"], np)
    nA, nB = np.zeros((3, 3)), np.zeros((3, 4))
    for y in OBSERVED:
        alpha, scales = hmm_run(A, B, y, np)
        beta = np.ones(3)
        for t in reversed(range(len(y))):
            nB[:, y[t]] += alpha[t] * beta
            if t:
                nA += A * np.outer(alpha[t - 1], B[:, y[t]] * beta) / scales[t]
                beta = A @ (B[:, y[t]] * beta) / scales[t]
    return {"A": -(nA - nA.sum(1, keepdims=True) * A), "B": -(nB - nB.sum(1, keepdims=True) * B)}


CRF = ones(W=(D, K), trans=(K, K), start=(K,), end=(K,))
MODELS: dict[str, Any] = {
    "sentences": (crf_loss, crf_gradients, CRF),
    "single": (single_loss, single_gradients, ones(W=(D, K), trans=(K, K), start=(K,))),
    "hidden": (hmm_loss, hmm_gradients, ones(A=(3, 3), B=(3, 4))),
    "pairs": (pairs_loss, pairs_gradients, ones(S=(4, 4), f=(4,))),
}
