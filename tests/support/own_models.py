"""Six models in as many layouts, each with its loss and two derivations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

rng = np.random.default_rng(20)


def normal(*shape: int, scale: float = 0.6) -> Any:
    return scale * rng.normal(size=shape)


class Model(NamedTuple):
    loss: Callable[..., Any]
    gradients: Callable[..., Any]
    otherwise: Callable[..., Any]
    params: dict[str, Any]


# Column vectors, one character at a time, a softmax at every step.

T, D, H = 5, 4, 6
CHARS, NEXT = np.eye(D)[[0, 2, 1, 3, 1]], np.array([2, 1, 3, 1, 0])


def char_loss(p, xp):
    h, total = xp.zeros((H, 1)), 0.0
    for t in range(T):
        h = xp.tanh(p["Wxh"] @ CHARS[t][:, None] + p["Whh"] @ h + p["bh"])
        y = p["Why"] @ h + p["by"]
        total = total + xp.log(xp.sum(xp.exp(y - xp.max(y)))) + xp.max(y) - y[NEXT[t], 0]
    return total


def char_gradients(p):
    h, q = {-1: np.zeros((H, 1), p["Whh"].dtype)}, {}
    x = CHARS.astype(p["Whh"].dtype)[:, :, None]
    for t in range(T):
        h[t] = np.tanh(p["Wxh"] @ x[t] + p["Whh"] @ h[t - 1] + p["bh"])
        y = p["Why"] @ h[t] + p["by"]
        q[t] = np.exp(y - y.max()) / np.sum(np.exp(y - y.max()))
    g = {name: np.zeros_like(value) for name, value in p.items()}
    dnext = np.zeros_like(h[0])
    for t in reversed(range(T)):
        dy = q[t].copy()
        dy[NEXT[t]] -= 1
        g["Why"] += dy @ h[t].T
        g["by"] += dy
        dh = p["Why"].T @ dy + dnext
        da = dh * (1 - h[t] * h[t])
        g["bh"] += da
        g["Wxh"] += da @ x[t].T
        g["Whh"] += da @ h[t - 1].T
        dnext = p["Whh"].T @ da
    return g


def char_otherwise(p):
    W, x = p["Whh"], CHARS.astype(p["Whh"].dtype)
    h = [np.zeros(H, W.dtype)]
    for t in range(T):
        h.append(np.tanh(x[t] @ p["Wxh"].T + W.dot(h[-1]) + p["bh"].ravel()))
    states = np.array(h)
    y = states[1:] @ p["Why"].T + p["by"].T
    q = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    dy = q - np.eye(D, dtype=W.dtype)[NEXT]
    da = dy @ p["Why"]
    for t in range(T - 1, -1, -1):
        da[t] *= 1 - states[t + 1] ** 2
        if t:
            da[t - 1] += da[t] @ W
    return {
        "Wxh": da.T @ x,
        "Whh": da.T @ states[:-1],
        "Why": dy.T @ states[1:],
        "bh": da.sum(axis=0)[:, None],
        "by": dy.sum(axis=0)[:, None],
    }


# Batch first, many to one, mean squared error.

B, N, O, STEPS, WIDTH = 3, 3, 2, 5, 4
X: Any = np.float32(normal(B, STEPS, N, scale=1))
Y: Any = np.float32(normal(B, O, scale=1))


def batch_loss(p, xp):
    h = xp.zeros((B, WIDTH))
    for t in range(STEPS):
        a = X[:, t] @ p["U"] + h @ p["W"] + p["b"]
        h = xp.tanh(a)
    r = h @ p["V"] + p["c"] - Y
    return xp.mean(r**2)


def batch_gradients(p):
    h = [np.zeros((B, WIDTH), p["W"].dtype)]
    a = []
    for t in range(STEPS):
        a.append(X[:, t] @ p["U"] + h[-1] @ p["W"] + p["b"])
        h.append(np.tanh(a[-1]))
    g = {name: np.zeros_like(value) for name, value in p.items()}
    dy = 2 / (B * O) * (h[-1] @ p["V"] + p["c"] - Y)
    g["V"] = h[-1].T @ dy
    g["c"] = dy.sum(axis=0)
    dh = dy @ p["V"].T
    for t in range(STEPS - 1, -1, -1):
        da = dh * (1 - h[t + 1] ** 2)
        g["U"] += X[:, t].T @ da
        g["W"] += h[t].T @ da
        g["b"] += da.sum(axis=0)
        dh = da @ p["W"].T
    return g


def batch_otherwise(p):
    """Forward in time: every derivative travels with the state."""
    total = {name: np.zeros_like(value) for name, value in p.items()}
    for i in range(B):
        h = np.zeros(WIDTH, p["W"].dtype)
        d = {name: np.zeros((WIDTH, *p[name].shape), p["W"].dtype) for name in ("U", "W", "b")}
        for t in range(STEPS):
            new = np.tanh(X[i, t] @ p["U"] + h @ p["W"] + p["b"])
            d = {name: np.einsum("ij,i...->j...", p["W"], each) for name, each in d.items()}
            for j in range(WIDTH):
                d["U"][j, :, j] += X[i, t]
                d["W"][j, :, j] += h
                d["b"][j, j] += 1
            d = {name: np.einsum("j,j...->j...", 1 - new**2, each) for name, each in d.items()}
            h = new
        dy = (h @ p["V"] + p["c"] - Y[i]) / (B * O / 2)
        total["V"] += np.outer(h, dy)
        total["c"] += dy
        for name, each in d.items():
            total[name] += np.einsum("j,j...->...", p["V"] @ dy, each)
    return total


# An LSTM, its four gates packed in one matrix, with a sigmoid that is a function of its own.


def sigmoid(z, xp=np):
    return 1 / (1 + xp.exp(-z))


def lstm_loss(p, xp):
    h, c = xp.zeros((B, WIDTH)), xp.zeros((B, WIDTH))
    for t in range(STEPS):
        z = xp.concatenate([h, X[:, t]], axis=1) @ p["W"] + p["b"]
        i, f, o, g = xp.split(z, 4, axis=1)
        c = sigmoid(f, xp) * c + sigmoid(i, xp) * xp.tanh(g)
        h = sigmoid(o, xp) * xp.tanh(c)
    return 0.5 * xp.sum((h @ p["V"] - Y) ** 2)


def lstm_gradients(p):
    h, c, kept = np.zeros((B, WIDTH), p["W"].dtype), np.zeros((B, WIDTH), p["W"].dtype), []
    for t in range(STEPS):
        hx = np.concatenate([h, X[:, t]], axis=1)
        z = hx @ p["W"] + p["b"]
        i, f, o = (sigmoid(z[:, k * WIDTH : (k + 1) * WIDTH]) for k in range(3))
        g = np.tanh(z[:, 3 * WIDTH :])
        kept.append((hx, c, i, f, o, g))
        c = f * c + i * g
        h = o * np.tanh(c)
    dy = h @ p["V"] - Y
    dW, db, dc = np.zeros_like(p["W"]), np.zeros_like(p["b"]), np.zeros_like(c)
    dV, dh = h.T @ dy, dy @ p["V"].T
    for hx, c_before, i, f, o, g in reversed(kept):
        c = f * c_before + i * g
        do = dh * np.tanh(c)
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        di, df, dg = dc * g, dc * c_before, dc * i
        da = [di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)]
        dz = np.concatenate(da, axis=1)
        dW += hx.T @ dz
        db += dz.sum(axis=0)
        dh = (dz @ p["W"].T)[:, :WIDTH]
        dc = dc * f
    return {"W": dW, "b": db, "V": dV}


def lstm_otherwise(p):
    """One sequence after the other, column vectors, the gates apart."""
    dtype = p["W"].dtype
    gates = [p["W"][:, k * WIDTH : (k + 1) * WIDTH].T for k in range(4)]
    biases = np.split(p["b"], 4)
    total = {name: np.zeros(value.shape, dtype) for name, value in p.items()}
    for n in range(B):
        h, c, trace = np.zeros(WIDTH, dtype), np.zeros(WIDTH, dtype), []
        for x in X[n]:
            hx = np.append(h, x)
            a = [W @ hx + b for W, b in zip(gates, biases, strict=True)]
            i, f, o = (0.5 + 0.5 * np.tanh(0.5 * each) for each in a[:3])
            trace.append((hx, c, i, f, o, np.tanh(a[3])))
            c = f * c + i * np.tanh(a[3])
            h = o * np.tanh(c)
        r = p["V"].T @ h - Y[n]
        total["V"] += np.outer(h, r)
        dh, dc = p["V"] @ r, np.zeros(WIDTH, dtype)
        for hx, before, i, f, o, g in trace[::-1]:
            s = np.tanh(f * before + i * g)
            dc = dc + dh * o * (1 - s * s)
            d = (
                dc * g * i * (1 - i),
                dc * before * f * (1 - f),
                dh * s * o * (1 - o),
                dc * i * (1 - g * g),
            )
            total["W"] += np.outer(hx, np.concatenate(d))
            total["b"] += np.concatenate(d)
            dh = sum(W.T @ each for W, each in zip(gates, d, strict=True))[:WIDTH]
            dc = dc * f
    return total


# A label for every token: embedding, softmax cross-entropy, mean over batch and steps.

TOKENS = np.array([[0, 3, 1, 1], [2, 0, 3, 4], [0, 4, 1, 2]])
LABELS = np.array([[0, 1, 2, 0], [2, 2, 1, 0], [1, 0, 0, 2]])


def tagger_loss(p, xp):
    h, total = xp.zeros((3, WIDTH)), 0.0
    for t in range(4):
        h = xp.tanh(p["E"][TOKENS[:, t]] + h @ p["R"].T + p["b"])
        logits = h @ p["S"].T + p["d"]
        logits = logits - xp.log(xp.sum(xp.exp(logits), axis=1, keepdims=True))
        total = total - xp.sum(logits[np.arange(3), LABELS[:, t]])
    return total / 12


def tagger_gradients(p):
    h = np.zeros((5, 3, WIDTH), p["R"].dtype)
    for t in range(4):
        h[t + 1] = np.tanh(p["E"][TOKENS[:, t]] + h[t] @ p["R"].T + p["b"])
    logits = h[1:] @ p["S"].T + p["d"]
    dlogits = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    dlogits -= np.eye(3, dtype=h.dtype)[LABELS.T]
    dlogits /= 12
    dE, dR, dnext = np.zeros_like(p["E"]), np.zeros_like(p["R"]), 0
    db = np.zeros_like(p["b"])
    dS = np.einsum("tbo,tbh->oh", dlogits, h[1:])
    dd = dlogits.sum(axis=(0, 1))
    for t in (3, 2, 1, 0):
        da = (dlogits[t] @ p["S"] + dnext) * (1 - h[t + 1] ** 2)
        np.add.at(dE, TOKENS[:, t], da)
        dR += da.T @ h[t]
        db += da.sum(axis=0)
        dnext = da @ p["R"]
    return {"E": dE, "R": dR, "b": db, "S": dS, "d": dd}


def tagger_otherwise(p):
    one = np.eye(5, dtype=p["E"].dtype)[TOKENS]
    states = [np.zeros((3, WIDTH), p["E"].dtype)]
    for t in range(4):
        states.append(np.tanh(one[:, t] @ p["E"] + states[t] @ p["R"].T + p["b"]))
    g = {name: 0 * value for name, value in p.items()}
    back = np.zeros_like(states[0])
    for t in range(3, -1, -1):
        z = states[t + 1] @ p["S"].T + p["d"]
        z = np.exp(z - z.max(axis=1, keepdims=True))
        dz = z / z.sum(axis=1, keepdims=True)
        dz[np.arange(3), LABELS[:, t]] -= 1
        g["S"] += dz.T @ states[t + 1] / 12
        g["d"] += dz.sum(axis=0) / 12
        da = (dz @ p["S"] / 12 + back) * (1 - states[t + 1]) * (1 + states[t + 1])
        g["E"] += one[:, t].T @ da
        g["R"] += da.T @ states[t]
        g["b"] += np.ones(3, da.dtype) @ da
        back = da @ p["R"]
    return g


# A GRU with column vectors, its six matrices apart.


def gru_loss(p, xp):
    h = xp.zeros((WIDTH, B))
    for t in range(STEPS):
        x = X[:, t].T
        z = sigmoid(p["Wz"] @ x + p["Uz"] @ h, xp)
        r = sigmoid(p["Wr"] @ x + p["Ur"] @ h, xp)
        n = xp.tanh(p["Wn"] @ x + p["Un"] @ (r * h))
        h = (1 - z) * n + z * h
    return xp.sum((p["V"] @ h - Y.T) ** 2) / B


def gru_gradients(p):
    h, trace = np.zeros((WIDTH, B), p["V"].dtype), []
    for t in range(STEPS):
        x = X[:, t].T
        z = sigmoid(p["Wz"] @ x + p["Uz"] @ h)
        r = sigmoid(p["Wr"] @ x + p["Ur"] @ h)
        n = np.tanh(p["Wn"] @ x + p["Un"] @ (r * h))
        trace.append((x, h, z, r, n))
        h = (1 - z) * n + z * h
    dy = 2 / B * (p["V"] @ h - Y.T)
    g = {name: np.zeros_like(value) for name, value in p.items()}
    g["V"] = dy @ h.T
    dh = p["V"].T @ dy
    for x, h, z, r, n in reversed(trace):
        dn = dh * (1 - z) * (1 - n**2)
        dz = dh * (h - n) * z * (1 - z)
        drh = p["Un"].T @ dn
        dr = drh * h * r * (1 - r)
        for gate, d, state in (("z", dz, h), ("r", dr, h), ("n", dn, r * h)):
            g["W" + gate] += d @ x.T
            g["U" + gate] += d @ state.T
        dh = dh * z + drh * r + p["Uz"].T @ dz + p["Ur"].T @ dr
    return g


def gru_otherwise(p):
    """Rows for columns, and h = n + z (h − n)."""
    W = {name: value.T for name, value in p.items()}
    states, gates = [np.zeros((B, WIDTH), p["V"].dtype)], []
    for t in range(STEPS):
        x, h = X[:, t], states[-1]
        z, r = (0.5 * (1 + np.tanh((x @ W["W" + k] + h @ W["U" + k]) / 2)) for k in "zr")
        n = np.tanh(x @ W["Wn"] + (r * h) @ W["Un"])
        gates.append((z, r, n))
        states.append(n + z * (h - n))
    error = states[-1] @ W["V"] - Y
    g = {name: np.zeros_like(value) for name, value in W.items()}
    g["V"] = states[-1].T @ error * (2 / B)
    back = error @ p["V"] * (2 / B)
    for t in range(STEPS - 1, -1, -1):
        (z, r, n), h, x = gates[t], states[t], X[:, t]
        dn = back * (1 - z) * (1 - n) * (1 + n)
        dz = back * (h - n) * (z - z**2)
        through = dn @ p["Un"]
        dr = through * h * (r - r**2)
        for k, d, s in (("z", dz, h), ("r", dr, h), ("n", dn, r * h)):
            g["W" + k] += x.T @ d
            g["U" + k] += s.T @ d
        back = back * z + through * r + dz @ p["Uz"] + dr @ p["Ur"]
    return {name: value.T for name, value in g.items()}


# Plain feed-forward: sigmoid, tanh, binary cross-entropy.

POINTS: Any = np.float32(normal(6, 3, scale=1))
TRUTH: Any = np.array([0, 1, 1, 0, 1, 0], np.float32)


def plain_loss(p, xp):
    h1 = sigmoid(POINTS @ p["W1"] + p["b1"], xp)
    h2 = xp.tanh(h1 @ p["W2"] + p["b2"])
    q = sigmoid((h2 @ p["W3"] + p["b3"])[:, 0], xp)
    return -xp.mean(TRUTH * xp.log(q) + (1 - TRUTH) * xp.log(1 - q))


def plain_gradients(p):
    h1 = sigmoid(POINTS @ p["W1"] + p["b1"])
    h2 = np.tanh(h1 @ p["W2"] + p["b2"])
    q = sigmoid(h2 @ p["W3"] + p["b3"])
    d3 = (q - TRUTH[:, None]) / len(POINTS)
    dW3, db3 = h2.T @ d3, d3.sum(axis=0)
    d2 = (d3 @ p["W3"].T) * (1 - h2**2)
    dW2, db2 = h1.T @ d2, d2.sum(axis=0)
    d1 = (d2 @ p["W2"].T) * h1 * (1 - h1)
    dW1, db1 = POINTS.T @ d1, d1.sum(axis=0)
    return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2, "W3": dW3, "b3": db3}


def plain_otherwise(p):
    total = {name: np.zeros_like(value) for name, value in p.items()}
    for x, y in zip(POINTS, TRUTH, strict=True):
        one = 1 / (1 + np.exp(-(p["W1"].T @ x + p["b1"])))
        two = np.tanh(p["W2"].T @ one + p["b2"])
        d = 1 / (1 + np.exp(-(p["W3"].T @ two + p["b3"]))) - y
        for k, (value, slope) in (
            ("3", (two, 1 - two**2)),
            ("2", (one, one - one**2)),
            ("1", (x, 0)),
        ):
            total["W" + k] += np.outer(value, d) / len(POINTS)
            total["b" + k] += d / len(POINTS)
            d = slope * (p["W" + k] @ d)
    return total


def matrices(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: normal(*shape) for name, shape in shapes.items()}


MODELS = {
    "char": Model(char_loss, char_gradients, char_otherwise, matrices(Wxh=(H, D), Whh=(H, H), bh=(H, 1), Why=(D, H), by=(D, 1))),
    "batch": Model(batch_loss, batch_gradients, batch_otherwise, matrices(U=(N, WIDTH), W=(WIDTH, WIDTH), b=(WIDTH,), V=(WIDTH, O), c=(O,))),
    "lstm": Model(lstm_loss, lstm_gradients, lstm_otherwise, matrices(W=(WIDTH + N, 4 * WIDTH), b=(4 * WIDTH,), V=(WIDTH, O))),
    "tagger": Model(tagger_loss, tagger_gradients, tagger_otherwise, matrices(E=(5, WIDTH), R=(WIDTH, WIDTH), b=(WIDTH,), S=(3, WIDTH), d=(3,))),
    "gru": Model(gru_loss, gru_gradients, gru_otherwise, matrices(Wz=(WIDTH, N), Uz=(WIDTH, WIDTH), Wr=(WIDTH, N), Ur=(WIDTH, WIDTH), Wn=(WIDTH, N), Un=(WIDTH, WIDTH), V=(O, WIDTH))),
    "plain": Model(plain_loss, plain_gradients, plain_otherwise, matrices(W1=(3, 5), b1=(5,), W2=(5, 5), b2=(5,), W3=(5, 1), b3=(1,))),
}  # fmt: skip
