"""Derivations with a loop in a loop, guards at the ends of time, and lookups before the loop.

A list of parameters is columns; a batch of tokens comes first; two directions share no line.
"""

import numpy as np

from tests.support.own_models import Model, normal, sigmoid
from tests.support.wrong_derivations import weights, wrong

# One loop over the losses, and one back from each; the initial state is a parameter.

T, D, H, N = 5, 2, 3, 3
X, Y = normal(D, T, scale=1), normal(2, T, scale=1)


def run_columns(p, xp):
    states, errors, cost = [p["h0"]], [], 0.0
    for t in range(T):
        states.append(xp.tanh(p["Wx"] @ X[:, t : t + 1] + p["Wh"] @ states[-1] + p["b"]))
        errors.append(p["Wy"] @ states[-1] - Y[:, t : t + 1])
        cost = cost + xp.sum(errors[-1] ** 2)
    return cost / T, states, errors


def columns_loss(p, xp):
    return run_columns(p, xp)[0]


def columns_gradients(p):
    _, S, E = run_columns(p, np)
    dWx, dWh, dWy, db, dh0 = (np.zeros_like(p[n]) for n in ("Wx", "Wh", "Wy", "b", "h0"))
    for t in range(T):
        dp = 2 * E[t] / T
        dWy += dp @ S[t + 1].T
        delta = p["Wy"].T @ dp
        for k in range(t, -1, -1):
            delta = delta * (1 - S[k + 1] ** 2)
            dWx += delta @ X[:, k : k + 1].T
            dWh += delta @ S[k].T
            db += delta
            delta = p["Wh"].T @ delta
        dh0 += delta
    return {"Wx": dWx, "Wh": dWh, "Wy": dWy, "b": db, "h0": dh0}


# Rows of tokens that are looked up before the loop, and states that are averaged.

TOKENS = np.array([[0, 1, 1, 4, 2], [3, 1, 3, 3, 0], [2, 2, 4, 1, 0]])
LABELS = np.array([1.0, 0.0, 1.0])


def run_tokens(p, xp):
    emb, hs = p["E"][TOKENS], [xp.zeros((N, H))]
    for t in range(T):
        hs.append(xp.tanh(emb[:, t] @ p["Wx"] + hs[t] @ p["Wh"] + p["bh"]))
    pooled = sum(hs[1:]) / T
    return emb, hs, pooled, sigmoid(pooled @ p["w"], xp)


def tokens_loss(p, xp):
    prob = run_tokens(p, xp)[-1]
    return -xp.mean(LABELS * xp.log(prob) + (1 - LABELS) * xp.log(1 - prob))


def tokens_gradients(p):
    emb, hs, pooled, prob = run_tokens(p, np)
    dE, dWx, dWh, dbh = (np.zeros_like(p[n]) for n in ("E", "Wx", "Wh", "bh"))
    dlogit = (prob - LABELS) / N
    dpooled = np.outer(dlogit, p["w"])
    dh = np.zeros((N, H))
    for t in range(T - 1, -1, -1):
        dh = dh + dpooled / T
        da = dh * (1 - hs[t + 1] ** 2)
        dWx += emb[:, t].T @ da
        dWh += hs[t].T @ da
        dbh += np.sum(da, axis=0)
        np.add.at(dE, TOKENS[:, t], da @ p["Wx"].T)
        dh = da @ p["Wh"].T
    return {"E": dE, "Wx": dWx, "Wh": dWh, "bh": dbh, "w": pooled.T @ dlogit}


# Two directions with a loop each, whose sums have guards at the ends.

XB, YB = normal(4, N, D, scale=1), normal(4, N, 2, scale=1)


def run_ways(p, xp):
    hf, hb, prev = [], [None] * 4, xp.zeros((N, H))
    for t in range(4):
        prev = xp.tanh(XB[t] @ p["Wf"] + prev @ p["Uf"])
        hf.append(prev)
    nxt = xp.zeros((N, H))
    for t in range(3, -1, -1):
        nxt = xp.tanh(XB[t] @ p["Wb"] + nxt @ p["Ub"])
        hb[t] = nxt
    both = xp.concatenate((xp.stack(hf), xp.stack(hb)), axis=-1)
    return hf, hb, both, both @ p["V"] - YB


def ways_loss(p, xp):
    return xp.mean(run_ways(p, xp)[-1] ** 2)


def ways_gradients(p):
    hf, hb, both, error = run_ways(p, np)
    g = {name: np.zeros_like(value) for name, value in p.items()}
    dout = 2 * error / YB.size
    g["V"] = both.reshape(-1, 2 * H).T @ dout.reshape(-1, 2)
    dboth = dout @ p["V"].T
    carry = np.zeros((N, H))
    for t in reversed(range(4)):
        da = (dboth[t, :, :H] + carry) * (1 - hf[t] ** 2)
        g["Wf"] += XB[t].T @ da
        if t > 0:
            g["Uf"] += hf[t - 1].T @ da
        carry = da @ p["Uf"].T
    carry = np.zeros((N, H))
    for t in range(4):
        da = (dboth[t, :, H:] + carry) * (1 - hb[t] ** 2)
        g["Wb"] += XB[t].T @ da
        if t < 3:
            g["Ub"] += hb[t + 1].T @ da
        carry = da @ p["Ub"].T
    return g


MODELS = {
    "columns": Model(columns_loss, columns_gradients, columns_gradients, weights(Wx=(H, D), Wh=(H, H), Wy=(2, H), b=(H, 1), h0=(H, 1))),
    "tokens": Model(tokens_loss, tokens_gradients, tokens_gradients, weights(E=(5, D), Wx=(D, H), Wh=(H, H), bh=(H,), w=(H,))),
    "ways": Model(ways_loss, ways_gradients, ways_gradients, weights(Wf=(D, H), Uf=(H, H), Wb=(D, H), Ub=(H, H), V=(2 * H, 2))),
}  # fmt: skip

WRONG = [
    wrong("columns", "missing-time-sum", "dh0 += delta", "dh0 = delta.copy()"),
    wrong("columns", "missing-time-sum", "            db += delta", "            db = delta.copy()"),
    wrong("columns", "missing-time-sum", "        dh0 += delta", "        if t == 0:\n            dh0 += delta"),
    wrong("columns", "truncated", "range(t, -1, -1)", "range(t, max(-1, t - 2), -1)"),
    wrong("columns", "truncated", "range(t, -1, -1)", "range(t, max(-1, t - 3), -1)"),
    wrong("tokens", "repeated-index", "np.add.at(dE, TOKENS[:, t], da @ p[\"Wx\"].T)", "dE[TOKENS[:, t]] += da @ p[\"Wx\"].T"),
    wrong("ways", "hidden-state-off-by-one", "hb[t + 1].T @ da", "hb[t].T @ da"),
    wrong("ways", "hidden-state-off-by-one", "hf[t - 1].T @ da", "hf[t].T @ da"),
    wrong("ways", "steps-in-wrong-order", "for t in range(4):\n        da", "for t in reversed(range(4)):\n        da"),
    wrong("ways", "steps-in-wrong-order", "for t in reversed(range(4)):\n        da", "for t in range(4):\n        da"),
    wrong('columns', 'update-returned', '            delta = p["Wh"].T @ delta\n        dh0 += delta\n    return {', '            delta = p["Wh"].T @ delta\n        dh0 += delta\n    dWx, dWh, dWy, db, dh0 = (-0.1 * g for g in (dWx, dWh, dWy, db, dh0))\n    return {'),
    wrong('tokens', 'update-returned', '"w": pooled.T @ dlogit}', '"w": p["w"] - 0.01 * (pooled.T @ dlogit)}'),
    wrong('tokens', 'wrong-operand', 'hs[t].T @ da', 'hs[T].T @ da'),
    wrong('columns', 'wrong-operand', 'dWh += delta @ S[k].T', 'dWh += delta @ S[T].T'),
    wrong('ways', 'output-gradient-at-wrong-step', 'da = (dboth[t, :, :H] + carry)', 'da = (dboth[t - 1, :, :H] + carry)'),
    wrong('ways', 'path-counted-twice', 'carry = da @ p["Uf"].T', 'carry += da @ p["Uf"].T'),
    wrong('ways', 'path-counted-twice', 'carry = da @ p["Ub"].T', 'carry = da @ p["Ub"].T + dboth[t, :, H:] + carry'),
    wrong('tokens', 'path-counted-twice', 'dh = da @ p["Wh"].T', 'dh = dh + da @ p["Wh"].T'),
    wrong('columns', 'clipped', '    return {"Wx": dWx', '    n = np.sqrt(sum(np.sum(g * g) for g in (dWx, dWh, db)))\n    dWx, dWh, db = (g * min(1, 0.05 / n) for g in (dWx, dWh, db))\n    return {"Wx": dWx'),
    wrong('columns', 'state-overwritten', '    _, S, E = run_columns(p, np)\n', '    _, S, E = run_columns(p, np)\n    S = [S[-1]] * len(S)\n'),
    wrong('tokens', 'state-overwritten', '    emb, hs, pooled, prob = run_tokens(p, np)\n', '    emb, hs, pooled, prob = run_tokens(p, np)\n    hs = [hs[0]] + [hs[-1]] * T\n'),
    wrong('tokens', 'missing-time-sum bias-part-missing', 'dbh += np.sum(da, axis=0)', 'dbh = np.sum(da, axis=0) if t else dbh'),
]  # fmt: skip
