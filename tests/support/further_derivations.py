"""More derivations in the shapes that public code has, and mistakes of further kinds in them.

The initial state is a parameter, gates are packed in one product, dropout is on the outputs of a
layer alone, two directions are joined, and scores attend to one another.
"""

import numpy as np

from tests.support.own_models import Model, normal, sigmoid
from tests.support.wrong_derivations import weights, wrong

# Column vectors, dicts by step, an initial state that is a parameter.

V, C = 5, 4
INP, TGT = [0, 2, 1, 4, 3, 0], [2, 1, 4, 3, 0, 1]


def initial_loss(p, xp):
    h, total = p["hprev"], 0.0
    for t in range(len(INP)):
        x = xp.asarray(np.eye(V)[INP[t]][:, None])
        h = xp.tanh(p["Wxh"] @ x + p["Whh"] @ h + p["bh"])
        y = p["Why"] @ h + p["by"]
        ps = xp.exp(y) / xp.sum(xp.exp(y))
        total = total - xp.log(ps[TGT[t], 0])
    return total


def initial_gradients(p):
    xs, hs, ys, ps = {}, {}, {}, {}
    hs[-1] = np.copy(p["hprev"])
    loss = 0
    for t in range(len(INP)):
        xs[t] = np.zeros((V, 1))
        xs[t][INP[t]] = 1
        hs[t] = np.tanh(np.dot(p["Wxh"], xs[t]) + np.dot(p["Whh"], hs[t - 1]) + p["bh"])
        ys[t] = np.dot(p["Why"], hs[t]) + p["by"]
        ps[t] = np.exp(ys[t]) / np.sum(np.exp(ys[t]))
        loss += -np.log(ps[t][TGT[t], 0])
    dWxh, dWhh, dWhy = np.zeros_like(p["Wxh"]), np.zeros_like(p["Whh"]), np.zeros_like(p["Why"])
    dbh, dby = np.zeros_like(p["bh"]), np.zeros_like(p["by"])
    dhnext = np.zeros_like(hs[0])
    for t in reversed(range(len(INP))):
        dy = np.copy(ps[t])
        dy[TGT[t]] -= 1
        dWhy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(p["Why"].T, dy) + dhnext
        dhraw = (1 - hs[t] * hs[t]) * dh
        dbh += dhraw
        dWxh += np.dot(dhraw, xs[t].T)
        dWhh += np.dot(dhraw, hs[t - 1].T)
        dhnext = np.dot(p["Whh"].T, dhraw)
    return {"Wxh": dWxh, "Whh": dWhh, "Why": dWhy, "bh": dbh, "by": dby, "hprev": dhnext}


# Gates packed in one product, rows of batches, a squared loss at every step.

N, T, D, H = 3, 4, 3, 4
XL = normal(N, T, D, scale=1)
YL = normal(N, T, 2, scale=1)


def packed_loss(p, xp):
    h, c, total = xp.zeros((N, H)), xp.zeros((N, H)), 0.0
    for t in range(T):
        a = xp.asarray(XL[:, t]) @ p["Wx"] + h @ p["Wh"] + p["b"]
        i, f = sigmoid(a[:, :H], xp), sigmoid(a[:, H : 2 * H], xp)
        o, g = sigmoid(a[:, 2 * H : 3 * H], xp), xp.tanh(a[:, 3 * H :])
        c = f * c + i * g
        h = o * xp.tanh(c)
        y = h @ p["Wy"] + p["by"]
        total = total + 0.5 * xp.sum((y - YL[:, t]) ** 2)
    return total / N


def packed_gradients(p):
    h, c = np.zeros((N, H)), np.zeros((N, H))
    caches, errors = [], []
    for t in range(T):
        a = XL[:, t] @ p["Wx"] + h @ p["Wh"] + p["b"]
        i = sigmoid(a[:, :H], np)
        f = sigmoid(a[:, H : 2 * H], np)
        o = sigmoid(a[:, 2 * H : 3 * H], np)
        g = np.tanh(a[:, 3 * H :])
        next_c = f * c + i * g
        next_h = o * np.tanh(next_c)
        caches.append((XL[:, t], h, c, i, f, o, g, next_c))
        h, c = next_h, next_c
        errors.append(h @ p["Wy"] + p["by"] - YL[:, t])
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dprev_h, dprev_c = np.zeros((N, H)), np.zeros((N, H))
    for t in range(T - 1, -1, -1):
        x, prev_h, prev_c, i, f, o, g, next_c = caches[t]
        dy = errors[t] / N
        hcur = o * np.tanh(next_c)
        G["Wy"] += hcur.T @ dy
        G["by"] += dy.sum(0)
        dnext_h = dy @ p["Wy"].T + dprev_h
        tc = np.tanh(next_c)
        do = dnext_h * tc
        dc = dprev_c + dnext_h * o * (1 - tc**2)
        df = dc * prev_c
        di = dc * g
        dg = dc * i
        dprev_c = dc * f
        dai = di * i * (1 - i)
        daf = df * f * (1 - f)
        dao = do * o * (1 - o)
        dag = dg * (1 - g**2)
        da = np.hstack((dai, daf, dao, dag))
        G["Wx"] += x.T @ da
        G["Wh"] += prev_h.T @ da
        G["b"] += np.sum(da, axis=0)
        dprev_h = da @ p["Wh"].T
    return G


# [x, r h] in one operand, both gates in one sigmoid.

XG = normal(T, N, D, scale=1)
LBL = np.array([1.0, 0.0, 1.0])[:, None]


def joined_loss(p, xp):
    h = xp.zeros((N, H))
    for t in range(T):
        x = xp.asarray(XG[t])
        gates = sigmoid(xp.concatenate([x, h], axis=1) @ p["Wg"] + p["bg"], xp)
        r, u = gates[:, :H], gates[:, H:]
        n = xp.tanh(xp.concatenate([x, r * h], axis=1) @ p["Wc"] + p["bc"])
        h = u * h + (1 - u) * n
    q = sigmoid(h @ p["w"] + p["d"], xp)
    return -xp.mean(LBL * xp.log(q) + (1 - LBL) * xp.log(1 - q))


def joined_gradients(p):
    hs, rs, us, ns = [np.zeros((N, H))], [], [], []
    for t in range(T):
        xh = np.concatenate([XG[t], hs[-1]], axis=1)
        gates = sigmoid(xh @ p["Wg"] + p["bg"], np)
        r, u = gates[:, :H], gates[:, H:]
        n = np.tanh(np.concatenate([XG[t], r * hs[-1]], axis=1) @ p["Wc"] + p["bc"])
        hs.append(u * hs[-1] + (1 - u) * n)
        rs.append(r)
        us.append(u)
        ns.append(n)
    q = sigmoid(hs[-1] @ p["w"] + p["d"], np)
    dlogit = (q - LBL) / N
    grads = {"w": hs[-1].T @ dlogit, "d": dlogit.sum(axis=0)}
    grads.update({k: np.zeros_like(p[k]) for k in ("Wg", "bg", "Wc", "bc")})
    dh = dlogit @ p["w"].T
    for t in range(T - 1, -1, -1):
        r, u, n, hp = rs[t], us[t], ns[t], hs[t]
        du = dh * (hp - n) * u * (1 - u)
        dn = dh * (1 - u) * (1 - n**2)
        dxrh = dn @ p["Wc"].T
        drh = dxrh[:, D:]
        dr = drh * hp * r * (1 - r)
        dgates = np.concatenate([dr, du], axis=1)
        grads["Wc"] += np.concatenate([XG[t], r * hp], axis=1).T @ dn
        grads["bc"] += dn.sum(axis=0)
        grads["Wg"] += np.concatenate([XG[t], hp], axis=1).T @ dgates
        grads["bg"] += dgates.sum(axis=0)
        dxh = dgates @ p["Wg"].T
        dh = dh * u + drh * r + dxh[:, D:]
    return grads


# Two directions, joined.

XB = normal(T, N, D, scale=1)
TAG = np.array([[0, 1, 2], [2, 2, 0], [1, 0, 1], [0, 2, 2]])


def directions_loss(p, xp):
    f, b = [xp.zeros((N, H))], [xp.zeros((N, H))]
    for t in range(T):
        f.append(xp.tanh(xp.asarray(XB[t]) @ p["Wf"] + f[-1] @ p["Uf"] + p["bf"]))
    for t in reversed(range(T)):
        b.append(xp.tanh(xp.asarray(XB[t]) @ p["Wb"] + b[-1] @ p["Ub"] + p["bb"]))
    total = 0.0
    for t in range(T):
        y = xp.concatenate([f[t + 1], b[T - t]], axis=1) @ p["V"] + p["c"]
        lse = xp.log(xp.sum(xp.exp(y), axis=1))
        total = total + xp.sum(lse - y[np.arange(N), TAG[t]])
    return total / (N * T)


def directions_gradients(p):
    f = np.zeros((T + 1, N, H))
    b = np.zeros((T + 1, N, H))
    for t in range(T):
        f[t + 1] = np.tanh(XB[t] @ p["Wf"] + f[t] @ p["Uf"] + p["bf"])
    for t in reversed(range(T)):
        b[t] = np.tanh(XB[t] @ p["Wb"] + b[t + 1] @ p["Ub"] + p["bb"])
    h = np.concatenate([f[1:], b[:-1]], axis=2)
    y = h @ p["V"] + p["c"]
    probs = np.exp(y) / np.exp(y).sum(axis=2, keepdims=True)
    dy = (probs - np.eye(3)[TAG]) / (N * T)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    G["V"] = np.einsum("tnh,tnk->hk", h, dy)
    G["c"] = dy.sum(axis=(0, 1))
    dh = dy @ p["V"].T
    df, db = dh[:, :, :H], dh[:, :, H:]
    dnext = np.zeros((N, H))
    for t in reversed(range(T)):
        da = (df[t] + dnext) * (1 - f[t + 1] ** 2)
        G["Wf"] += XB[t].T @ da
        G["Uf"] += f[t].T @ da
        G["bf"] += da.sum(axis=0)
        dnext = da @ p["Uf"].T
    dnext = np.zeros((N, H))
    for t in range(T):
        da = (db[t] + dnext) * (1 - b[t] ** 2)
        G["Wb"] += XB[t].T @ da
        G["Ub"] += b[t + 1].T @ da
        G["bb"] += da.sum(axis=0)
        dnext = da @ p["Ub"].T
    return G


# Scores of queries and keys, and a block of two layers.

NB, TT, DM = 2, 4, 4
XA = normal(NB, TT, DM, scale=1)
YA = np.array([[0, 2, 1, 1], [2, 0, 0, 1]])
CAUSAL = np.where(np.tril(np.ones((TT, TT))) > 0, 0.0, -1e9)


def scores_loss(p, xp):
    x = xp.asarray(XA)
    q, k, v = x @ p["Wq"], x @ p["Wk"], x @ p["Wv"]
    s = q @ xp.swapaxes(k, 1, 2) / np.sqrt(DM) + CAUSAL
    e = xp.exp(s - xp.max(s, axis=-1, keepdims=True))
    a = e / xp.sum(e, axis=-1, keepdims=True)
    x1 = x + (a @ v) @ p["Wo"]
    m = xp.maximum(x1 @ p["W1"] + p["b1"], 0.0)
    x2 = x1 + m @ p["W2"] + p["b2"]
    y = x2 @ p["Wl"]
    lse = xp.log(xp.sum(xp.exp(y), axis=-1))
    return xp.mean(lse - xp.sum(y * np.eye(3)[YA], axis=-1))


def scores_gradients(p):
    q, k, v = XA @ p["Wq"], XA @ p["Wk"], XA @ p["Wv"]
    s = q @ k.transpose(0, 2, 1) / np.sqrt(DM) + CAUSAL
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    a = e / e.sum(axis=-1, keepdims=True)
    av = a @ v
    x1 = XA + av @ p["Wo"]
    pre = x1 @ p["W1"] + p["b1"]
    m = np.maximum(pre, 0)
    x2 = x1 + m @ p["W2"] + p["b2"]
    y = x2 @ p["Wl"]
    probs = np.exp(y - y.max(-1, keepdims=True))
    probs /= probs.sum(axis=-1, keepdims=True)
    dy = (probs - np.eye(3)[YA]) / (NB * TT)
    g = {}
    g["Wl"] = np.einsum("btd,btk->dk", x2, dy)
    dx2 = dy @ p["Wl"].T
    g["W2"] = np.einsum("bti,btj->ij", m, dx2)
    g["b2"] = dx2.sum(axis=(0, 1))
    dm = dx2 @ p["W2"].T
    dpre = dm * (pre > 0)
    g["W1"] = np.einsum("bti,btj->ij", x1, dpre)
    g["b1"] = dpre.sum(axis=(0, 1))
    dx1 = dx2 + dpre @ p["W1"].T
    g["Wo"] = np.einsum("bti,btj->ij", av, dx1)
    dav = dx1 @ p["Wo"].T
    da = dav @ v.transpose(0, 2, 1)
    dv = a.transpose(0, 2, 1) @ dav
    ds = a * (da - np.sum(a * da, axis=-1, keepdims=True))
    ds = ds / np.sqrt(DM)
    dq = ds @ k
    dk = ds.transpose(0, 2, 1) @ q
    g["Wq"] = np.einsum("bti,btj->ij", XA, dq)
    g["Wk"] = np.einsum("bti,btj->ij", XA, dk)
    g["Wv"] = np.einsum("bti,btj->ij", XA, dv)
    return g


# A leaky integrator that reads its rates, with a target at every step.

ALPHA = 0.3
XC = normal(6, N, D, scale=1)
YC = normal(6, N, 2, scale=1)


def leaky_loss(p, xp):
    v, total, cost = xp.zeros((N, H)), 0.0, 0.0
    for t in range(6):
        rate = xp.tanh(v)
        v = (1 - ALPHA) * v + ALPHA * (rate @ p["J"].T + XC[t] @ p["B"].T + p["bias"])
        z = xp.tanh(v) @ p["w_out"].T
        total = total + xp.sum((z - YC[t]) ** 2)
        cost = cost + xp.sum(xp.tanh(v) ** 2)
    return total / (6 * N) + 0.05 * cost / (6 * N) + 0.5 * 0.01 * xp.sum(p["J"] ** 2)


def leaky_gradients(p):
    v = np.zeros((7, N, H))
    for t in range(6):
        v[t + 1] = (1 - ALPHA) * v[t] + ALPHA * (
            np.tanh(v[t]) @ p["J"].T + XC[t] @ p["B"].T + p["bias"]
        )
    r = np.tanh(v)
    err = r[1:] @ p["w_out"].T - YC
    dJ, dB, dbias = np.zeros_like(p["J"]), np.zeros_like(p["B"]), np.zeros_like(p["bias"])
    dw = np.zeros_like(p["w_out"])
    dv = np.zeros((N, H))
    for t in range(5, -1, -1):
        dz = 2 * err[t] / (6 * N)
        dw += dz.T @ r[t + 1]
        dr = dz @ p["w_out"] + 0.1 * r[t + 1] / (6 * N)
        dv = dv + dr * (1 - r[t + 1] ** 2)
        dJ += ALPHA * dv.T @ r[t]
        dB += ALPHA * dv.T @ XC[t]
        dbias += ALPHA * dv.sum(axis=0)
        dv = (1 - ALPHA) * dv + ALPHA * (dv @ p["J"]) * (1 - r[t] ** 2)
    return {"J": dJ + 0.01 * p["J"], "B": dB, "bias": dbias, "w_out": dw}


MODELS = {
    "initial": Model(initial_loss, initial_gradients, initial_gradients, weights(Wxh=(C, V), Whh=(C, C), Why=(V, C), bh=(C, 1), by=(V, 1), hprev=(C, 1))),
    "packed": Model(packed_loss, packed_gradients, packed_gradients, weights(Wx=(D, 4 * H), Wh=(H, 4 * H), b=(4 * H,), Wy=(H, 2), by=(2,))),
    "joined": Model(joined_loss, joined_gradients, joined_gradients, weights(Wg=(D + H, 2 * H), bg=(2 * H,), Wc=(D + H, H), bc=(H,), w=(H, 1), d=(1,))),
    "directions": Model(directions_loss, directions_gradients, directions_gradients, weights(Wf=(D, H), Uf=(H, H), bf=(H,), Wb=(D, H), Ub=(H, H), bb=(H,), V=(2 * H, 3), c=(3,))),
    "scores": Model(scores_loss, scores_gradients, scores_gradients, weights(Wq=(DM, DM), Wk=(DM, DM), Wv=(DM, DM), Wo=(DM, DM), W1=(DM, 5), b1=(5,), W2=(5, DM), b2=(DM,), Wl=(DM, 3))),
    "leaky": Model(leaky_loss, leaky_gradients, leaky_gradients, weights(J=(H, H), B=(H, D), bias=(H,), w_out=(2, H))),
}  # fmt: skip

WRONG = [
    wrong("initial", "hidden-state-off-by-one", "(1 - hs[t] * hs[t]) * dh", "(1 - hs[t - 1] * hs[t - 1]) * dh"),
    wrong("initial", "hidden-state-off-by-one", "np.dot(dhraw, hs[t - 1].T)", "np.dot(dhraw, hs[t].T)"),
    wrong("initial", "input-off-by-one", "dy[TGT[t]] -= 1", "dy[TGT[t - 1]] -= 1"),
    wrong("initial", "wrong-operand", '"hprev": dhnext}', '"hprev": dh}'),
    wrong("packed", "wrong-operand", "daf = df * f * (1 - f)", "daf = df * f * (1 - i)"),
    wrong("packed", "wrong-operand", "dai = di * i * (1 - i)", "dai = di * g * (1 - g)"),
    wrong("packed", "activation-derivative-incomplete", "dg * (1 - g**2)", "dg * (1 - g) ** 2"),
    wrong("packed", "recurrent-path-dropped", 'da @ p["Wh"].T', 'daf @ p["Wh"][:, H:2 * H].T'),
    wrong("packed", "input-off-by-one", "dy = errors[t] / N", "dy = (errors[t] + YL[:, t] - YL[:, t - 1]) / N"),
    wrong("joined", "parts-exchanged", "drh = dxrh[:, D:]", "drh = dxrh[:, :H]"),
    wrong("joined", "parts-exchanged", "np.concatenate([dr, du], axis=1)", "np.concatenate([du, dr], axis=1)"),
    wrong("directions", "state-not-reset", '        dnext = da @ p["Uf"].T\n    dnext = np.zeros((N, H))\n', '        dnext = da @ p["Uf"].T\n'),
    wrong("directions", "hidden-state-off-by-one", "b[t + 1].T @ da", "b[t - 1].T @ da"),
    wrong("scores", "wrong-operand", "ds.transpose(0, 2, 1) @ q", "ds @ q"),
    wrong("scores", "wrong-operand", "a.transpose(0, 2, 1) @ dav", "a @ dav"),
    wrong("scores", "softmax-over-wrong-axis", "np.sum(a * da, axis=-1, keepdims=True)", "np.sum(a * da, axis=-2, keepdims=True)"),
    wrong("leaky", "factor-missing", 'ALPHA * (dv @ p["J"]) *', '(dv @ p["J"]) *'),
    wrong("leaky", "hidden-state-off-by-one", '(dv @ p["J"]) * (1 - r[t] ** 2)', '(dv @ p["J"]) * (1 - r[t + 1] ** 2)'),
    wrong("leaky", "wrong-operand", "dv = (1 - ALPHA) * dv +", "dv = ALPHA * dv +"),
    wrong("leaky", "wrong-operand", "+ ALPHA * (dv @ p", "+ (1 - ALPHA) * (dv @ p"),
    wrong("leaky", "wrong-operand constant-factor", "dJ += ALPHA * dv.T", "dJ += (1 - ALPHA) * dv.T"),
    wrong("leaky", "steps-in-wrong-order", "range(5, -1, -1)", "range(6)"),
    wrong('initial', 'input-off-by-one', 'dy[TGT[t]] -= 1', 'dy[INP[t]] -= 1'),
    wrong('initial', 'state-overwritten', '    dWxh, dWhh, dWhy =', '    hs = {t: hs[len(INP) - 1] for t in hs}\n    dWxh, dWhh, dWhy ='),
    wrong("scores", "softmax-diagonal", "a * (da - np.sum(a * da, axis=-1, keepdims=True))", "a * (1 - a) * da"),
]  # fmt: skip
