"""Other layers of random models, pooling and losses: forward for both namespaces, and back.

As in `cells`, sequences are T arrays (B, D), and the way back is derived by hand.
"""

from typing import Any

import numpy as np

from campaign.cells import Params, zeros_like
from campaign.formulas import Formulas, logsumexp

EPSILON = 1e-3  # of a normalisation


def run_embedding(p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """A row of E for each token; x are integers (T, B)."""
    return [p["E"][tokens] for tokens in x], x


def back_embedding(p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Add what arrives at a token to its row, as often as it occurs."""
    g = zeros_like(p)
    for tokens, arriving in zip(trace, dy, strict=True):
        np.add.at(g["E"], tokens, arriving)
    return dy, g


def run_convolution(p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """y_t = φ(Σ_k x_{t-k} K_k + b), without later steps."""
    outputs, trace = [], []
    for t in range(len(x)):
        terms = [f.multiply(x[t - k], p["K"][k], xp) for k in range(min(t + 1, len(p["K"])))]
        a = sum(terms[1:], terms[0]) + p["b"]
        outputs.append(f.activate(a, xp))
        trace.append((a, outputs[-1]))
    return outputs, (x, trace)


def back_convolution(p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Backward through a convolution in time."""
    (x, kept), g = trace, zeros_like(p)
    dx = [0.0 for _ in x]
    for t, (a, h) in enumerate(kept):
        da = dy[t] * f.differentiate(a, h)
        g["b"] += da.sum(axis=0)
        for k in range(min(t + 1, len(p["K"]))):
            g["K"][k] += x[t - k].T @ da
            dx[t - k] = dx[t - k] + da @ p["K"][k].T
    return dx, g


def run_normalisation(p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """Normalise: y = γ (x − mean) / √(variance + ε) + β, over the last axis."""
    outputs, trace = [], []
    for x_t in x:
        centred = x_t - xp.mean(x_t, axis=1, keepdims=True)
        if f.variance == "centred":
            variance = xp.mean(centred * centred, axis=1, keepdims=True)
        else:
            moments = xp.mean(x_t, axis=1, keepdims=True), xp.mean(x_t**2, axis=1, keepdims=True)
            variance = moments[1] - moments[0] ** 2
        s = xp.sqrt(variance + EPSILON)
        n = centred / s
        outputs.append(n * p["γ"] + p["β"])
        trace.append((n, s))
    return outputs, trace


def back_normalisation(p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Backward through a normalisation: its mean and its deviation depend on x as well."""
    g, dx = zeros_like(p), []
    for (n, s), arriving in zip(trace, dy, strict=True):
        g["γ"] += (arriving * n).sum(axis=0)
        g["β"] += arriving.sum(axis=0)
        dn = arriving * p["γ"]
        mean = dn.mean(axis=1, keepdims=True)
        along = (dn * n).mean(axis=1, keepdims=True)
        dx.append((dn - mean - n * along) / s)
    return dx, g


def run_attention(p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """Attend: y = softmax(q kᵀ / √H) v over all steps, with q, k, v = x Q, x K, x Z."""
    every = xp.stack(x, axis=1)  # (B, T, D)
    q, k, v = (f.multiply(every, p[name], xp) for name in ("Q", "K", "Z"))
    scores = xp.einsum("bth,bsh->bts", q, k) / p["Q"].shape[1] ** 0.5
    weights = f.normalise(scores, 2, xp)
    y = xp.einsum("bts,bsh->bth", weights, v)
    return [y[:, t] for t in range(len(x))], (every, q, k, v, weights)


def back_attention(p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Backward through an attention of all steps to all."""
    every, q, k, v, weights = trace
    arriving = np.stack(dy, axis=1)
    dv = np.einsum("bts,bth->bsh", weights, arriving)
    dw = np.einsum("bth,bsh->bts", arriving, v)
    total = (dw * weights).sum(axis=2, keepdims=True)
    ds = weights * (dw - total) / p["Q"].shape[1] ** 0.5
    dq = np.einsum("bts,bsh->bth", ds, k)
    dk = np.einsum("bts,bth->bsh", ds, q)
    g = {}
    for name, d in (("Q", dq), ("K", dk), ("Z", dv)):
        g[name] = np.einsum("btd,bth->dh", every, d)
    dx = dq @ p["Q"].T + dk @ p["K"].T + dv @ p["Z"].T
    return [dx[:, t] for t in range(dx.shape[1])], g


def run_pooling(kind: str, p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """The rows that reach the output: of the last step, the mean, an attention, or every step."""
    if kind == "last":
        return x[-1], len(x)
    if kind == "mean":
        return xp.mean(xp.stack(x), axis=0), len(x)
    if kind == "every step":
        return xp.concatenate(x, axis=0), len(x)
    every = xp.stack(x)
    weights = f.normalise(every @ p["q"] / every.shape[2] ** 0.5, 0, xp)
    return xp.sum(weights[:, :, None] * every, axis=0), (every, weights)


def back_pooling(kind: str, p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Backward through the pooling."""
    if kind == "last":
        return [0 * dy] * (trace - 1) + [dy], {}
    if kind == "mean":
        return [dy / trace] * trace, {}
    if kind == "every step":
        return np.split(dy, trace), {}
    every, weights = trace
    size = every.shape[2] ** 0.5
    dw = (every * dy).sum(axis=2)
    de = weights * (dw - (weights * dw).sum(axis=0)) / size
    dx = weights[:, :, None] * dy + de[:, :, None] * p["q"]
    return [*dx], {"q": np.einsum("tb,tbh->h", de, every)}


def run_loss(kind: str, o: Any, y: Any, xp: Any, f: Formulas) -> Any:
    """The loss of the outputs o (N, O); y are targets, or for cross-entropies one-hot rows."""
    if kind == "mse":
        return xp.mean((o - y) ** 2)
    if kind == "half sse":
        r = o - y
        return 0.5 * xp.sum(r * r)
    if kind == "log cosh":
        return xp.mean(xp.log(xp.cosh(o - y)))
    if kind == "binary":
        s = f.squash(o, xp)
        return -xp.mean(y * xp.log(s) + (1 - y) * xp.log(1 - s))
    if f.logarithm == "logsumexp":
        return xp.sum(y * (logsumexp(o, 1, xp) - o)) / len(y)
    return -xp.sum(y * xp.log(f.normalise(o, 1, xp))) / len(y)


def back_loss(kind: str, o: Any, y: Any, f: Formulas) -> Any:
    """∂L/∂o."""
    if kind == "mse":
        return 2 * (o - y) / o.size
    if kind == "half sse":
        return o - y
    if kind == "log cosh":
        return np.tanh(o - y) / o.size
    if kind == "binary":
        return (f.squash(o, np) - y) / o.size
    return (f.normalise(o, 1, np) - y) / len(y)
