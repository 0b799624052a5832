"""Recurrent layers of random models: the forward pass for both namespaces, and its way back.

A layer takes a sequence of T arrays (B, D) and gives one of T arrays (B, H), with a trace for the
way back. The way back is derived by hand, in NumPy: from ∂L/∂y of the sequence given, it computes
∂L/∂x and the gradients of the layer's parameters.
"""

from typing import Any

import numpy as np

from campaign.formulas import Formulas

Params = dict[str, Any]


def zeros_like(p: Params) -> Params:
    """Gradients of zeros."""
    return {name: np.zeros_like(value) for name, value in p.items()}


def start(x: Any, W: Any, xp: Any) -> Any:
    """A state of zeros, in the precision of the weights."""
    return xp.zeros((x[0].shape[0], W.shape[0]), W.dtype)


def affine(p: Params, x: Any, h: Any, xp: Any, f: Formulas) -> Any:
    """Compute a = x U + h W + b, of rows."""
    if f.product == "apart":
        return x @ p["U"] + h @ p["W"] + p["b"]
    joined = xp.concatenate([x, h], axis=1)
    return f.multiply(joined, xp.concatenate([p["U"], p["W"]], axis=0), xp) + p["b"]


def run_rnn(p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """h_t = φ(x_t U + h_{t-1} W + b)."""
    h, states, trace = start(x, p["W"], xp), [], []
    for x_t in x:
        a = affine(p, x_t, h, xp, f)
        before, h = h, f.activate(a, xp)
        trace.append((x_t, before, a, h))
        states.append(h)
    return states, trace


def back_rnn(p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Backward in time through a plain recurrence."""
    g, dx, later, T = zeros_like(p), list[Any](), 0.0, len(trace)
    for t in reversed(range(T)):
        x, before, a, h = trace[t]
        dh = dy[t] + later
        da = dh * f.differentiate(a, h)
        g["U"] += x.T @ da
        g["W"] += before.T @ da
        g["b"] += da.sum(axis=0)
        dx.insert(0, da @ p["U"].T)
        later = da @ p["W"].T
    return dx, g


def run_lstm(p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """c_t = f c_{t-1} + i g and h_t = o tanh(c_t), the gates i, f, g, o side by side."""
    h, H = start(x, p["W"], xp), p["W"].shape[0]
    c, states, trace = h, [], []
    for x_t in x:
        a = affine(p, x_t, h, xp, f)
        ai, af, ag, ao = (a[:, k * H : (k + 1) * H] for k in range(4))
        i, forget, o = f.squash(ai, xp), f.squash(af, xp), f.squash(ao, xp)
        g = f.bend(ag, xp)
        before, c = (h, c), forget * c + i * g
        u = f.bend(c, xp)
        h = o * u
        trace.append((x_t, *before, (ai, af, ag, ao), (i, forget, g, o), c, u))
        states.append(h)
    return states, trace


def back_lstm(p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Backward in time through an LSTM."""
    G, dx, T = zeros_like(p), list[Any](), len(trace)
    later, dc_later = 0.0, 0.0
    for t in reversed(range(T)):
        x, h0, c0, (ai, af, ag, ao), (i, forget, g, o), c, u = trace[t]
        dh = dy[t] + later
        dc = dh * o * f.slope_of_tanh(c, u) + dc_later
        do = dh * u * f.slope_of_sigmoid(ao, o)
        di = dc * g * f.slope_of_sigmoid(ai, i)
        df = dc * c0 * f.slope_of_sigmoid(af, forget)
        dg = dc * i * f.slope_of_tanh(ag, g)
        da = np.concatenate([di, df, dg, do], axis=1)
        G["U"] += x.T @ da
        G["W"] += h0.T @ da
        G["b"] += da.sum(axis=0)
        dx.insert(0, da @ p["U"].T)
        later = da @ p["W"].T
        dc_later = dc * forget
    return dx, G


def run_gru(p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """h_t = (1 − z) n + z h_{t-1}, the gates r, z, n side by side, the reset after the product."""
    h, H = start(x, p["W"], xp), p["W"].shape[0]
    states, trace = [], []
    for x_t in x:
        of_x, of_h = f.multiply(x_t, p["U"], xp) + p["b"], f.multiply(h, p["W"], xp)
        ar, az = of_x[:, :H] + of_h[:, :H], of_x[:, H : 2 * H] + of_h[:, H : 2 * H]
        r, z, m = f.squash(ar, xp), f.squash(az, xp), of_h[:, 2 * H :]
        an = of_x[:, 2 * H :] + r * m
        n = f.bend(an, xp)
        trace.append((x_t, h, (ar, az, an), (r, z, n), m))
        h = n + z * (h - n) if f.product == "apart" else (1 - z) * n + z * h
        states.append(h)
    return states, trace


def back_gru(p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Backward in time through a GRU."""
    G, dx, later, T = zeros_like(p), list[Any](), 0.0, len(trace)
    for t in reversed(range(T)):
        x, h0, (ar, az, an), (r, z, n), m = trace[t]
        dh = dy[t] + later
        dn = dh * (1 - z) * f.slope_of_tanh(an, n)
        dz = dh * (h0 - n) * f.slope_of_sigmoid(az, z)
        dr = dn * m * f.slope_of_sigmoid(ar, r)
        of_x = np.concatenate([dr, dz, dn], axis=1)
        of_h = np.concatenate([dr, dz, dn * r], axis=1)
        G["U"] += x.T @ of_x
        G["W"] += h0.T @ of_h
        G["b"] += of_x.sum(axis=0)
        dx.insert(0, of_x @ p["U"].T)
        later = dh * z + of_h @ p["W"].T
    return dx, G


def run_lru(p: Params, x: Any, xp: Any, f: Formulas) -> Any:
    """h_t = λ h_{t-1} + x_t (P + iQ) with λ = exp(−exp(ν) + iθ), and y_t = Re h_t α + Im h_t β."""
    size, angle = xp.exp(-xp.exp(p["ν"])), p["θ"]
    outputs, trace = list[Any](), list[Any]()
    if f.rotation == "real":  # the same numbers, two by two; without a trace for the way back
        re = im = 0.0
        c, s = size * xp.cos(angle), size * xp.sin(angle)
        for x_t in x:
            re, im = c * re - s * im + x_t @ p["P"], s * re + c * im + x_t @ p["Q"]
            outputs.append(re * p["α"] + im * p["β"])
        return outputs, trace
    factor = xp.exp(-xp.exp(p["ν"]) + 1j * angle)
    h = 0.0 * factor
    for x_t in x:
        before, h = h, factor * h + (x_t @ p["P"] + 1j * (x_t @ p["Q"]))
        outputs.append(xp.real(h) * p["α"] + xp.imag(h) * p["β"])
        trace.append((x_t, before, h, factor))
    return outputs, trace


def back_lru(p: Params, trace: Any, dy: Any, f: Formulas) -> Any:
    """Backward in time through a linear recurrence of complex numbers."""
    G, dx, later, T = zeros_like(p), list[Any](), 0.0, len(trace)
    of_factor = 0.0
    for t in reversed(range(T)):
        x, before, h, factor = trace[t]
        dh = dy[t] * (p["α"] + 1j * p["β"]) + later
        G["α"] += (dy[t] * h.real).sum(axis=0)
        G["β"] += (dy[t] * h.imag).sum(axis=0)
        G["P"] += x.T @ dh.real
        G["Q"] += x.T @ dh.imag
        of_factor = of_factor + (np.conj(before) * dh).sum(axis=0)
        dx.insert(0, dh.real @ p["P"].T + dh.imag @ p["Q"].T)
        later = np.conj(factor) * dh
    of_exponent = np.conj(factor) * of_factor
    G["ν"] += -np.exp(p["ν"]) * of_exponent.real
    G["θ"] += of_exponent.imag
    return dx, G
