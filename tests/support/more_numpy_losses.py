"""More forward passes in plain NumPy, in further styles of public code."""

import numpy as np
from scipy.special import erf

from tests.support.numpy_losses import model, normal


def sigmoid(a):
    return 0.5 * (np.tanh(0.5 * a) + 1)


@model(W_xh=normal(3, 4), W_hh=normal(4, 4), W_hy=normal(4, 3), b_h=normal(1, 4), b_y=normal(1, 3))
def last_output_with_weight_decay(params):
    X = np.eye(3)[np.array([[0, 1, 2, 0], [2, 1, 0, 1]])]
    Y = np.array([1, 2])
    N, T_, _ = X.shape
    h = np.zeros((N, T_ + 1, 4))
    for t in range(T_):
        h[:, t] = np.tanh(
            X[:, t].dot(params["W_xh"]) + h[:, t - 1].dot(params["W_hh"]) + params["b_h"]
        )
    out = h[:, T_ - 1].dot(params["W_hy"]) + params["b_y"]
    ex = np.exp(out - np.max(out, axis=1, keepdims=True))
    probs = ex / np.sum(ex, axis=1, keepdims=True)
    corr = -np.log(probs[range(N), Y])
    reg = 0.5 * 1e-3 * sum(np.sum(np.square(params[k])) for k in params if k.startswith("W"))
    return np.sum(corr) / N + reg


@model(kernel=normal(3, 8), recurrent=normal(2, 8), bias=normal(8))
def lstm_with_gates_split(p):
    x = np.random.RandomState(3).randn(2, 4, 3)
    h = c = np.zeros((2, 2))
    outs = []
    for t in range(x.shape[1]):
        z = x[:, t, :] @ p["kernel"] + h @ p["recurrent"] + p["bias"]
        i, f, g, o = np.split(z, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outs.append(h)
    states = np.stack(outs, axis=1)
    return ((states - 0.1) ** 2).sum(axis=(1, 2)).mean()


@model(theta=normal(4 * 2 + 4 * 4 + 2 * 4))
def weights_in_one_vector(p):
    th = p["theta"]
    U = th[:8].reshape(4, 2)
    W = th[8:24].reshape((4, 4))
    V = th[24:].reshape(2, 4)
    S = np.zeros((6, 4))
    O = np.zeros((5, 2))
    x = [0, 1, 1, 0, 1]
    for t in range(5):
        S[t] = np.tanh(U[:, x[t]] + W @ S[t - 1])
        z = V @ S[t]
        O[t] = np.exp(z) / np.exp(z).sum()
    return -np.log(O[np.arange(5), [*x[1:], 0]]).sum()


@model(W=normal(3, 3), U=normal(3, 2), V=normal(1, 3))
def continuous_time_by_euler_steps(p):
    dt, tau = 0.1, 1.0
    v = np.zeros((20, 3))
    y = np.zeros(20)
    for k in range(1, 20):
        dv = (-v[k - 1] + p["W"].dot(np.tanh(v[k - 1])) + p["U"].dot([np.sin(k * dt), 1.0])) / tau
        v[k] = v[k - 1] + dt * dv
        y[k] = (p["V"] @ v[k]).item()
    err = y - np.cos(np.arange(20) * dt)
    return np.mean(err**2)


@model(Wf=normal(2, 4), Wb=normal(2, 4), E=normal(5, 2), out=normal(4, 3))
def bidirectional_over_padded_words(p):
    seqs = ["abc", "de", "a"]
    L_ = max(map(len, seqs))
    ids = np.full((3, L_), -1)
    for i, s in enumerate(seqs):
        ids[i, : len(s)] = [ord(ch) - 97 for ch in s]
    mask = (ids >= 0).astype(float)[..., None]
    emb = p["E"][ids] * mask
    f = np.zeros((3, 2))
    b = np.zeros((3, 2))
    for t in range(L_):
        nf = np.tanh(np.concatenate([emb[:, t], f], 1) @ p["Wf"].T)
        f = mask[:, t] * nf + (1 - mask[:, t]) * f
        k = L_ - 1 - t
        nb = np.tanh(np.concatenate([emb[:, k], b], 1) @ p["Wb"].T)
        b = mask[:, k] * nb + (1 - mask[:, k]) * b
    lg = np.hstack((f, b)).dot(p["out"])
    lg -= np.log(np.exp(lg).sum(1))[:, None]
    return -lg[[0, 1, 2], [2, 0, 1]].mean()


@model(W=normal(4, 4), a=normal(4), g=normal(4))
def layer_normalisation_and_gelu(p):
    h = np.ones(4)
    for _ in range(3):
        z = p["W"] @ h
        z = (z - z.mean()) / np.sqrt(z.var() + 1e-5) * p["g"] + p["a"]
        h = 0.5 * z * (1 + erf(z / np.sqrt(2)))
    return np.logaddexp(0, h).sum() + np.linalg.norm(h, 1)


@model(W=normal(3, 3), b=normal(3))
def hinges_and_dropout(p):
    np.random.seed(1)  # noqa: NPY002
    h = np.zeros(3)
    total = 0.0
    for t in range(4):
        h = np.maximum(0, p["W"] @ h + p["b"] + t * 0.1)
        mask = (np.random.rand(*h.shape) < 0.8) / 0.8  # noqa: NPY002
        h *= mask
        margins = np.maximum(0, h - h[1] + 1)
        margins[1] = 0
        total += margins.sum()
    return total


@model(Wx=normal(2, 3), Wh=normal(3, 3))
def states_in_a_list(p):
    xs = np.linspace(-1, 1, 8).reshape(4, 2)
    hs = [np.zeros(3)]
    for x in xs:
        hs += [np.tanh(x @ p["Wx"] + hs[-1] @ p["Wh"])]
    return np.linalg.norm(np.array(hs)[1:], axis=1).sum()


@model(A=normal(2, 2), B=normal(2, 1), C=normal(1, 2), x0=normal(2, 1))
def state_space_of_matrices(p):
    u = np.random.default_rng(0).normal(size=10)
    x = p["x0"]
    ys = np.zeros((10, 1))
    for k in range(10):
        ys[k] = (p["C"] @ x)[0]
        x = p["A"] @ x + p["B"] * u[k]
    return float(np.mean(np.square(ys)))


@model(Wz=normal(3, 5), Wr=normal(3, 5), Wh=normal(3, 5), Wy=normal(2, 3))
def gru_of_columns_in_dicts(p):
    h = {0: np.zeros((3, 1))}
    z, r, hb, loss = {}, {}, {}, 0
    X = np.random.default_rng(5).normal(size=(4, 2, 1))
    for t in range(1, 5):
        hx = np.vstack((h[t - 1], X[t - 1]))
        z[t] = sigmoid(p["Wz"] @ hx)
        r[t] = sigmoid(p["Wr"] @ hx)
        hb[t] = np.tanh(p["Wh"] @ np.vstack((r[t] * h[t - 1], X[t - 1])))
        h[t] = (1 - z[t]) * h[t - 1] + z[t] * hb[t]
        y = p["Wy"] @ h[t]
        loss += 0.5 * np.sum((y - np.array([[1.0], [0.0]])) ** 2)
    return loss
