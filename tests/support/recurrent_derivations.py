"""Wrong derivations of four networks: leaky, gated, normalised, and one that feeds outputs back.

Each model is a loss and its derivation as public code writes them; a mistake changes texts of the
derivation. Several belong to kinds of which three or more are here.
"""

# The derivations are written as public code is, with its names.
# ruff: noqa: E501

import inspect
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tests.support.diagnosis import diagnose_numbers

# fmt: off
rng = np.random.default_rng(5)

# ---- leaky RNN, column vectors, log-cosh of the output at every step
T, D, H, O = 5, 3, 4, 2
alpha = 0.3
X = rng.normal(size=(T, D, 1))
Y = rng.normal(size=(T, O, 1))
leaky_params = {"U": np.zeros((H, D)), "W": np.zeros((H, H)), "V": np.zeros((O, H)), "b": np.zeros((H, 1)), "c": np.zeros((O, 1))}

def leaky_loss(p: Any, xp: Any) -> Any:
    h = np.zeros((H, 1))
    total = 0.0
    for t in range(T):
        h = (1 - alpha) * h + alpha * xp.tanh(p["U"] @ X[t] + p["W"] @ h + p["b"])
        o = p["V"] @ h + p["c"]
        total = total + xp.sum(xp.log(xp.cosh(o - Y[t])))
    return total

def leaky_gradients(p: Any) -> dict[str, Any]:
    U, W, V, b, c = (p[k] for k in "UWVbc")
    hs: Any
    ss: Any
    outs: Any
    hs, ss, outs = {-1: np.zeros((H, 1))}, {}, {}
    for t in range(T):
        ss[t] = np.tanh(U @ X[t] + W @ hs[t-1] + b)
        hs[t] = (1 - alpha) * hs[t-1] + alpha * ss[t]
        outs[t] = V @ hs[t] + c
    dU, dW, dV, db, dc = (np.zeros_like(v) for v in (U, W, V, b, c))
    dhnext = np.zeros((H, 1))
    for t in reversed(range(T)):
        dout = np.tanh(outs[t] - Y[t])
        dV += dout @ hs[t].T
        dc += dout
        dh = V.T @ dout + dhnext
        dhraw = alpha * dh * (1 - ss[t] ** 2)
        dU += dhraw @ X[t].T
        dW += dhraw @ hs[t-1].T
        db += dhraw
        dhnext = W.T @ dhraw + (1 - alpha) * dh
    return {"U": dU, "W": dW, "V": dV, "b": db, "c": dc}

# ---- GRU, rows, softmax cross-entropy at every step
B, C = 3, 5
XG = rng.normal(size=(T, B, D))
LABELS = rng.integers(0, C, size=(T, B))
gru_params = {k: np.zeros(s) for k, s in {"Wz": (D, H), "Uz": (H, H), "bz": (H,), "Wr": (D, H), "Ur": (H, H), "br": (H,), "Wh": (D, H), "Uh": (H, H), "bh": (H,), "Wy": (H, C), "by": (C,)}.items()}

def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))

def sigmoid_of(xp: Any, a: Any) -> Any:
    return 1 / (1 + xp.exp(-a))

def softmax_of(xp: Any, s: Any) -> Any:
    e = xp.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def softmax(s: Any) -> Any:
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def gru_loss(p: Any, xp: Any) -> Any:
    h = np.zeros((B, H))
    total = 0.0
    for t in range(T):
        z = sigmoid_of(xp, XG[t] @ p["Wz"] + h @ p["Uz"] + p["bz"])
        r = sigmoid_of(xp, XG[t] @ p["Wr"] + h @ p["Ur"] + p["br"])
        n = xp.tanh(XG[t] @ p["Wh"] + (r * h) @ p["Uh"] + p["bh"])
        h = z * h + (1 - z) * n
        probs = softmax_of(xp, h @ p["Wy"] + p["by"])
        total = total - xp.sum(xp.log(probs[np.arange(B), LABELS[t]])) / B
    return total

def gru_gradients(p: Any) -> dict[str, Any]:
    hs: Any
    zs: Any
    rs: Any
    ns: Any
    ps: Any
    hs, zs, rs, ns, ps = {-1: np.zeros((B, H))}, {}, {}, {}, {}
    for t in range(T):
        zs[t] = sigmoid(XG[t] @ p["Wz"] + hs[t-1] @ p["Uz"] + p["bz"])
        rs[t] = sigmoid(XG[t] @ p["Wr"] + hs[t-1] @ p["Ur"] + p["br"])
        ns[t] = np.tanh(XG[t] @ p["Wh"] + (rs[t] * hs[t-1]) @ p["Uh"] + p["bh"])
        hs[t] = zs[t] * hs[t-1] + (1 - zs[t]) * ns[t]
        ps[t] = softmax(hs[t] @ p["Wy"] + p["by"])
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    dhnext = np.zeros((B, H))
    for t in reversed(range(T)):
        dy = ps[t].copy()
        dy[np.arange(B), LABELS[t]] -= 1
        dy /= B
        grads["Wy"] += hs[t].T @ dy
        grads["by"] += dy.sum(axis=0)
        dh = dy @ p["Wy"].T + dhnext
        dn = dh * (1 - zs[t])
        dz = dh * (hs[t-1] - ns[t])
        dhprev = dh * zs[t]
        dan = dn * (1 - ns[t] ** 2)
        grads["Wh"] += XG[t].T @ dan
        grads["Uh"] += (rs[t] * hs[t-1]).T @ dan
        grads["bh"] += dan.sum(axis=0)
        drh = dan @ p["Uh"].T
        dr = drh * hs[t-1]
        dhprev += drh * rs[t]
        dar = dr * rs[t] * (1 - rs[t])
        grads["Wr"] += XG[t].T @ dar
        grads["Ur"] += hs[t-1].T @ dar
        grads["br"] += dar.sum(axis=0)
        dhprev += dar @ p["Ur"].T
        daz = dz * zs[t] * (1 - zs[t])
        grads["Wz"] += XG[t].T @ daz
        grads["Uz"] += hs[t-1].T @ daz
        grads["bz"] += daz.sum(axis=0)
        dhprev += daz @ p["Uz"].T
        dhnext = dhprev
    return grads

# ---- layer-normalised RNN, rows, squared error of the last output
N = 3
XN = rng.normal(size=(T, N, D))
YN = rng.normal(size=(N, O))
eps = 1e-5
norm_params = {"Wx": np.zeros((D, H)), "Wh": np.zeros((H, H)), "gamma": np.zeros(H), "beta": np.zeros(H), "Wo": np.zeros((H, O)), "bo": np.zeros(O)}

def norm_loss(p: Any, xp: Any) -> Any:
    h = np.zeros((N, H))
    for t in range(T):
        a = XN[t] @ p["Wx"] + h @ p["Wh"]
        mu = a.mean(axis=1, keepdims=True)
        var = ((a - mu) ** 2).mean(axis=1, keepdims=True)
        xhat = (a - mu) / xp.sqrt(var + eps)
        h = xp.tanh(p["gamma"] * xhat + p["beta"])
    out = h @ p["Wo"] + p["bo"]
    return 0.5 * xp.sum((out - YN) ** 2) / N

def norm_forward(a: Any, gamma: Any, beta: Any) -> Any:
    mu = a.mean(axis=1, keepdims=True)
    var = ((a - mu) ** 2).mean(axis=1, keepdims=True)
    inv = 1.0 / np.sqrt(var + eps)
    xhat = (a - mu) * inv
    return gamma * xhat + beta, (xhat, inv)

def norm_backward(dy: Any, gamma: Any, xhat: Any, inv: Any) -> Any:
    dgamma = (dy * xhat).sum(axis=0)
    dbeta = dy.sum(axis=0)
    dxhat = dy * gamma
    m1 = dxhat.mean(axis=1, keepdims=True)
    m2 = (dxhat * xhat).mean(axis=1, keepdims=True)
    da = inv * (dxhat - m1 - xhat * m2)
    return da, dgamma, dbeta

def norm_gradients(p: Any) -> dict[str, Any]:
    hs: Any
    saved: Any
    hs, saved = [np.zeros((N, H))], []
    for t in range(T):
        a = XN[t] @ p["Wx"] + hs[-1] @ p["Wh"]
        y, cache = norm_forward(a, p["gamma"], p["beta"])
        saved.append(cache)
        hs.append(np.tanh(y))
    out = hs[-1] @ p["Wo"] + p["bo"]
    dout = (out - YN) / N
    g = {k: np.zeros_like(v) for k, v in p.items()}
    g["Wo"] += hs[-1].T @ dout
    g["bo"] += dout.sum(axis=0)
    dh = dout @ p["Wo"].T
    for t in reversed(range(T)):
        dy = dh * (1 - hs[t+1] ** 2)
        da, dgamma, dbeta = norm_backward(dy, p["gamma"], *saved[t])
        g["gamma"] += dgamma
        g["beta"] += dbeta
        g["Wx"] += XN[t].T @ da
        g["Wh"] += hs[t].T @ da
        dh = da @ p["Wh"].T
    return g

# ---- Jordan network: the output of the step before is fed back, rows
XJ = rng.normal(size=(T, B, D))
YJ = rng.normal(size=(T, B, O))
jordan_params = {"Wi": np.zeros((D, H)), "Wf": np.zeros((O, H)), "bh": np.zeros(H), "Wo": np.zeros((H, O)), "bo": np.zeros(O)}

def jordan_loss(p: Any, xp: Any) -> Any:
    y = np.zeros((B, O))
    total = 0.0
    for t in range(T):
        h = xp.tanh(XJ[t] @ p["Wi"] + y @ p["Wf"] + p["bh"])
        y = sigmoid_of(xp, h @ p["Wo"] + p["bo"])
        total = total + xp.mean((y - YJ[t]) ** 2)
    return total / T

def jordan_gradients(p: Any) -> dict[str, Any]:
    hs: Any
    outs: Any
    hs, outs = {}, {-1: np.zeros((B, O))}
    for t in range(T):
        hs[t] = np.tanh(XJ[t] @ p["Wi"] + outs[t-1] @ p["Wf"] + p["bh"])
        outs[t] = sigmoid(hs[t] @ p["Wo"] + p["bo"])
    dWi, dWf, dbh, dWo, dbo = (np.zeros_like(p[k]) for k in ("Wi", "Wf", "bh", "Wo", "bo"))
    dy_next = np.zeros((B, O))
    for t in range(T - 1, -1, -1):
        dy = 2 * (outs[t] - YJ[t]) / (B * O * T) + dy_next
        do = dy * outs[t] * (1 - outs[t])
        dWo += hs[t].T @ do
        dbo += do.sum(0)
        dh = do @ p["Wo"].T
        dpre = dh * (1 - hs[t] ** 2)
        dWi += XJ[t].T @ dpre
        dWf += outs[t-1].T @ dpre
        dbh += dpre.sum(0)
        dy_next = dpre @ p["Wf"].T
    return {"Wi": dWi, "Wf": dWf, "bh": dbh, "Wo": dWo, "bo": dbo}
# fmt: on


class Wrong(NamedTuple):
    """A mistake: the model, the names that are right, and the texts that make it."""

    model: str
    names: str
    changes: tuple[tuple[str, str], ...]


def wrong(model: str, names: str, right: str, written: str) -> Wrong:
    """Make a mistake of texts, several divided by a bar."""
    return Wrong(model, names, tuple(zip(right.split("|"), written.split("|"), strict=True)))


MODELS = {
    "leaky": (leaky_loss, leaky_params),
    "gru": (gru_loss, gru_params),
    "norm": (norm_loss, norm_params),
    "jordan": (jordan_loss, jordan_params),
}


def make_gradients(each: Wrong) -> Any:
    """Make the derivation of a model with a mistake, in it or in a function that it calls."""
    source = inspect.getsource(inspect.getmodule(make_gradients) or ModuleType(""))
    source = source[: source.index("class Wrong")]
    for right, written in each.changes:
        assert source.count(right) == 1, f"{right!r} occurs {source.count(right)} times"
        source = source.replace(right, written)
    made = ModuleType("made")
    exec(compile(source, "<made>", "exec"), made.__dict__)
    return made.__dict__[f"{each.model}_gradients"]


def diagnose_wrong(each: Wrong, dtype: type = np.float64) -> list[set[str]]:
    """Diagnose a mistake: for each that is found, its name and those that it may also be."""
    loss, params = MODELS[each.model]
    found = diagnose_numbers(loss, params, make_gradients(each), dtype)
    return [{mistake.name, *mistake.details.get("or", ())} for mistake in found]


WRONG = [
    wrong('leaky', 'activation-derivative-of-another-function', 'dout = np.tanh(outs[t] - Y[t])', 'dout = outs[t] - Y[t]'),
    wrong('leaky', 'wrong-operand', 'dhraw = alpha * dh * (1 - ss[t] ** 2)', 'dhraw = alpha * dh * (1 - hs[t] ** 2)'),
    wrong('leaky', 'wrong-operand', '(1 - alpha) * dh', 'alpha * dh'),
    wrong('leaky', 'recurrent-path-dropped', 'W.T @ dhraw + (1 - alpha) * dh', 'W.T @ dhraw'),
    wrong('leaky', 'steps-in-wrong-order', 'for t in reversed(range(T)):\n        dout', 'for t in range(T):\n        dout'),
    wrong('leaky', 'hidden-state-off-by-one', 'dhraw = alpha * dh * (1 - ss[t] ** 2)', 'dhraw = alpha * dh * (1 - ss[t-1] ** 2) if t else alpha * dh'),
    wrong('leaky', 'activation-derivative-missing', 'dout = np.tanh(outs[t] - Y[t])', 'dout = np.sinh(outs[t] - Y[t])'),
    wrong('gru', 'sign-flipped', 'dz = dh * (hs[t-1] - ns[t])', 'dz = dh * (ns[t] - hs[t-1])'),
    wrong('gru', 'factor-missing', '        dy /= B\n', ''),
    wrong('gru', 'wrong-operand', 'dy[np.arange(B), LABELS[t]] -= 1', 'dy[np.arange(B - 1), LABELS[t][:-1]] -= 1'),
    wrong('gru', 'factor-missing', 'dhprev += drh * rs[t]', 'dhprev += drh'),
    wrong('gru', 'activation-derivative-missing', 'dhprev += dar @ p["Ur"].T', 'dhprev += dr @ p["Ur"].T'),
    wrong('gru', 'wrong-operand', 'grads["Uh"] += (rs[t] * hs[t-1]).T @ dan', 'grads["Uh"] += hs[t-1].T @ dan'),
    wrong('norm', 'normalisation-over-wrong-axis', 'm1 = dxhat.mean(axis=1, keepdims=True)', 'm1 = dxhat.mean(axis=0, keepdims=True)'),
    wrong('norm', 'factor-missing', 'm2 = (dxhat * xhat).mean(axis=1, keepdims=True)', 'm2 = (dxhat * xhat).sum(axis=1, keepdims=True)'),
    wrong('norm', 'factor-missing', 'dxhat = dy * gamma', 'dxhat = dy'),
    wrong('norm', 'activation-derivative-twice', 'dh = da @ p["Wh"].T', 'dh = (da @ p["Wh"].T) * (1 - hs[t] ** 2)'),
    wrong('norm', 'wrong-adjoint', 'dgamma = (dy * xhat).sum(axis=0)', 'dgamma = (dy * (gamma * xhat)).sum(axis=0)'),
    wrong('norm', 'factor-missing', 'dout = (out - YN) / N', 'dout = out - YN'),
    wrong('jordan', 'hidden-state-off-by-one', 'dWf += outs[t-1].T @ dpre', 'dWf += outs[t].T @ dpre'),
    wrong('jordan', 'activation-derivative-missing', 'dy_next = dpre @ p["Wf"].T', 'dy_next = dh @ p["Wf"].T'),
    wrong('jordan', 'activation-derivative-of-another-function', 'do = dy * outs[t] * (1 - outs[t])', 'do = dy * (1 - outs[t] ** 2)'),
    wrong('jordan', 'hidden-state-off-by-one', 'dpre = dh * (1 - hs[t] ** 2)', 'dpre = dh * (1 - hs[t-1] ** 2) if t else dh'),
    wrong('jordan', 'path-counted-twice', '+ dy_next', '+ 2 * dy_next'),
    wrong('norm', 'normalisation-over-wrong-axis', 'm2 = (dxhat * xhat).mean(axis=1, keepdims=True)', 'm2 = (dxhat * xhat).mean(axis=0, keepdims=True)'),
    wrong('norm', 'normalisation-over-wrong-axis', 'm1 = dxhat.mean(axis=1, keepdims=True)\n    m2 = (dxhat * xhat).mean(axis=1, keepdims=True)', 'm1 = dxhat.mean(axis=0, keepdims=True)\n    m2 = (dxhat * xhat).mean(axis=0, keepdims=True)'),
    wrong('norm', 'normalisation-over-wrong-axis', 'm1 = dxhat.mean(axis=1, keepdims=True)', 'm1 = dxhat.mean()'),
    wrong('norm', 'normalisation-over-wrong-axis', 'm2 = (dxhat * xhat).mean(axis=1, keepdims=True)', 'm2 = (dxhat * xhat).mean()'),
    wrong('norm', 'hidden-state-off-by-one', 'dy = dh * (1 - hs[t+1] ** 2)', 'dy = dh * (1 - hs[t] ** 2)'),
    wrong('jordan', 'hidden-state-off-by-one', 'dh = do @ p["Wo"].T\n        dpre = dh * (1 - hs[t] ** 2)', 'dh = do @ p["Wo"].T\n        dpre = dh * (1 - (hs[t-1] if t else np.zeros((B, H))) ** 2)'),
    wrong('jordan', 'activation-derivative-twice', 'dy_next = dpre @ p["Wf"].T', 'dy_next = (dpre @ p["Wf"].T) * outs[t-1] * (1 - outs[t-1])'),
    wrong('jordan', 'activation-derivative-twice', 'dy_next = dpre @ p["Wf"].T', 'dy_next = (dpre @ p["Wf"].T) * (1 - outs[t-1] ** 2)'),
    wrong('leaky', 'wrong-operand', 'dhraw = alpha * dh * (1 - ss[t] ** 2)', 'dhraw = alpha * dh * (1 - hs[t-1] ** 2)'),
    wrong('leaky', 'activation-derivative-twice', 'W.T @ dhraw +', '(W.T @ dhraw) * (1 - hs[t-1] ** 2) +'),
    wrong('leaky', 'activation-derivative-missing', 'dout = np.tanh(outs[t] - Y[t])', 'dout = 1 / np.cosh(outs[t] - Y[t])'),
    wrong('leaky', 'activation-derivative-twice', 'dout = np.tanh(outs[t] - Y[t])', 'dout = np.sinh(outs[t] - Y[t]) / np.cosh(outs[t] - Y[t]) ** 2'),
    wrong('leaky', 'activation-derivative-of-another-function', 'dout = np.tanh(outs[t] - Y[t])', 'dout = 1 - np.tanh(outs[t] - Y[t]) ** 2'),
    wrong('gru', 'wrong-operand', 'dy[np.arange(B), LABELS[t]] -= 1', 'dy[np.arange(B - 1), LABELS[t][1:]] -= 1'),
    wrong('gru', 'wrong-operand', 'dy[np.arange(B), LABELS[t]] -= 1', 'dy[:, LABELS[t]] -= 1'),
    wrong('gru', 'constant-factor', 'dy[np.arange(B), LABELS[t]] -= 1', 'dy[np.arange(B), LABELS[t]] -= 1 / B'),
    wrong('gru', 'output-gradient-missing', '        dy[np.arange(B), LABELS[t]] -= 1\n', ''),
    wrong('gru', 'sign-flipped', 'dy[np.arange(B), LABELS[t]] -= 1', 'dy[np.arange(B), LABELS[t]] += 1'),
    wrong('gru', 'wrong-operand', 'dy[np.arange(B), LABELS[t]] -= 1', 'dy[0, LABELS[t]] -= 1'),
    wrong('gru', 'path-counted-twice', 'dy[np.arange(B), LABELS[t]] -= 1', 'dy[np.arange(B), LABELS[t]] -= 2'),
    wrong('jordan', 'hidden-state-off-by-one', 'dWf += outs[t-1].T @ dpre', 'dWf += outs[t-2].T @ dpre if t > 1 else 0'),
    wrong('jordan', 'steps-in-wrong-order', 'for t in range(T - 1, -1, -1):', 'for t in range(T):'),
]  # fmt: skip
