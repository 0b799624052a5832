"""Correct derivations, written as differently as people write them; none may be called wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np

from manual_bptt import jacobian_sum, rtrl
from manual_bptt.activations import ACTIVATIONS
from manual_bptt.rnn import Params

Gradients = Callable[..., Any]


def batch_first_with_weights_on_the_right(activation: str) -> Gradients:
    phi = ACTIVATIONS[activation]

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> dict[str, Any]:
        Wx, Wh, Wy = params.U.T.copy(), params.W.T.copy(), params.V.T.copy()
        x = x.transpose(1, 0, 2)
        N, T, _ = x.shape
        h, a = [h0], []
        for t in range(T):
            a.append(x[:, t] @ Wx + h[-1] @ Wh)
            h.append(phi.function(a[-1]))
        d = 2.0 * (h[-1] @ Wy - y) / (N * y.shape[1])
        dWx, dWh, dWy = np.zeros_like(Wx), np.zeros_like(Wh), h[-1].T @ d
        dh = d @ Wy.T
        for t in range(T - 1, -1, -1):
            da = phi.derivative(a[t], h[t + 1]) * dh
            dWx += x[:, t].T @ da
            dWh += h[t].T @ da
            dh = da @ Wh.T
        return {"U": dWx.T, "W": dWh.T, "V": dWy.T, "h0": dh}

    return gradients


def column_vectors_one_sequence_at_a_time(activation: str) -> Gradients:
    phi = ACTIVATIONS[activation]

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> tuple[Any, tuple[Any, ...]]:
        U, W, V = params
        dU, dW, dV, total = np.zeros_like(U), np.zeros_like(W), np.zeros_like(V), U.dtype.type(0)
        for n in range(len(y)):
            h, a = {0: h0[n][:, None]}, {}
            for t in range(1, len(x) + 1):
                a[t] = U @ x[t - 1, n][:, None] + W @ h[t - 1]
                h[t] = phi.function(a[t])
            error = V @ h[len(x)] - y[n][:, None]
            total = total + (error**2).sum() / y.size
            dy = 2 * error / y.size
            dV += dy @ h[len(x)].T
            dh = V.T @ dy
            for t in range(len(x), 0, -1):
                da = dh * phi.derivative(a[t], h[t])
                dU += da @ x[t - 1, n][:, None].T
                dW += da @ h[t - 1].T
                dh = W.T @ da
        return total, (dU, dW, dV)

    return gradients


def summed_forward_in_time(activation: str) -> Gradients:
    phi = ACTIVATIONS[activation]

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> list[Any]:
        U, W, V = params["U"], params["W"], params["V"]
        states = [h0]
        before = []
        for step in x:
            before.append(np.einsum("bd,hd->bh", step, U) + np.einsum("bh,kh->bk", states[-1], W))
            states.append(phi.function(before[-1]))
        dy = (np.einsum("bh,oh->bo", states[-1], V) - y) * (2 / y.size)
        dy = dy.astype(U.dtype)
        deltas: list[Any] = []
        above = np.einsum("bo,oh->bh", dy, V)
        for t in reversed(range(len(x))):
            deltas.insert(0, above * phi.derivative(before[t], states[t + 1]))
            above = np.einsum("bk,kh->bh", deltas[0], W)
        dU = sum(np.einsum("bh,bd->hd", d, step) for d, step in zip(deltas, x, strict=True))
        dW = sum(np.einsum("bh,bk->hk", d, h) for d, h in zip(deltas, states[:-1], strict=True))
        return [dU, dW, np.einsum("bo,bh->oh", dy, states[-1])]

    return gradients


def in_precision(dtype: Any) -> Callable[[str], Gradients]:
    """Computed in another precision; in a lower one, returned in it as well."""

    def style(activation: str) -> Gradients:
        inner = batch_first_with_weights_on_the_right(activation)

        def gradients(params: Any, x: Any, y: Any, h0: Any) -> dict[str, Any]:
            given = Params(*(w.astype(dtype) for w in params))
            found = inner(given, x.astype(dtype), y.astype(dtype), h0.astype(dtype))
            lower = np.finfo(dtype).eps > np.finfo(x.dtype).eps
            returned = dtype if lower else x.dtype
            return {name: value.astype(returned) for name, value in found.items()}

        return gradients

    return style


def of_module(module: Any) -> Callable[[str], Gradients]:
    """A derivation of `manual_bptt`."""

    def style(activation: str) -> Gradients:
        def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
            return module.value_and_grad(Params(*params), x, y, h0, activation=activation)

        return gradients

    return style


STYLES: dict[str, Callable[[str], Gradients]] = {
    "batch first": batch_first_with_weights_on_the_right,
    "column vectors": column_vectors_one_sequence_at_a_time,
    "forward in time": summed_forward_in_time,
    "float32 inside": in_precision(np.float32),
    "longdouble inside": in_precision(np.longdouble),
    "sum over Jacobians": of_module(jacobian_sum),
    "forward recursion": of_module(rtrl),
}


# The gated cells, with another formula of the logistic function than autodiff's.

SIGMOIDS: dict[str, Callable[[Any], Any]] = {
    "exp": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": lambda a: (1 + np.tanh(a / 2)) / 2,
}


def lstm_with(sigmoid: Callable[[Any], Any]) -> Gradients:
    def gradients(params: Any, x: Any, y: Any, h0: Any, c0: Any) -> dict[str, Any]:
        U, W, V = params
        h, c, gates = [h0], [c0], []
        for x_t in x:
            i, f, g, o = np.split(x_t @ U.T + h[-1] @ W.T, 4, axis=1)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            gates.append((i, f, g, o))
            c.append(f * c[-1] + i * g)
            h.append(o * np.tanh(c[-1]))
        dy = 2 * (h[-1] @ V.T - y) / y.size
        dU, dW, dh, dc = np.zeros_like(U), np.zeros_like(W), dy @ V, np.zeros_like(c0)
        for t in reversed(range(len(x))):
            (i, f, g, o), tanh_c = gates[t], np.tanh(c[t + 1])
            dc = dc + dh * o * (1 - tanh_c**2)
            di, df, do = dc * g * i * (1 - i), dc * c[t] * f * (1 - f), dh * tanh_c * o * (1 - o)
            da = np.concatenate([di, df, dc * i * (1 - g * g), do], axis=1)
            dU += da.T @ x[t]
            dW += da.T @ h[t]
            dh, dc = da @ W, dc * f
        return {"U": dU, "W": dW, "V": dy.T @ h[-1], "h0": dh, "c0": dc}

    return gradients


def gru_with(sigmoid: Callable[[Any], Any]) -> Gradients:
    def gradients(params: Any, x: Any, y: Any, h0: Any) -> dict[str, Any]:
        U, W, V = params
        W_r, W_z, W_n = np.split(W, 3)
        h, gates = [h0], []
        for x_t in x:
            x_r, x_z, x_n = np.split(x_t @ U.T, 3, axis=1)
            r, z = sigmoid(x_r + h[-1] @ W_r.T), sigmoid(x_z + h[-1] @ W_z.T)
            met = h[-1] @ W_n.T
            n = np.tanh(x_n + r * met)
            gates.append((r, z, n, met))
            h.append(n + z * (h[-1] - n))
        dy = 2 * (h[-1] @ V.T - y) / y.size
        dU, dW, dh = np.zeros_like(U), np.zeros_like(W), dy @ V
        for t in reversed(range(len(x))):
            r, z, n, met = gates[t]
            dn = dh * (1 - z) * (1 - n * n)
            dr, dz = dn * met * r * (1 - r), dh * (h[t] - n) * z * (1 - z)
            dU += np.concatenate([dr, dz, dn], axis=1).T @ x[t]
            dW += np.concatenate([dr, dz, r * dn], axis=1).T @ h[t]
            dh = dh * z + dr @ W_r + dz @ W_z + (r * dn) @ W_n
        return {"U": dU, "W": dW, "V": dy.T @ h[-1], "h0": dh}

    return gradients


# By cell and name.
GATED_STYLES: dict[tuple[str, str], Gradients] = {
    (cell, f"sigmoid by {name}"): of(sigmoid)
    for cell, of in (("lstm", lstm_with), ("gru", gru_with))
    for name, sigmoid in SIGMOIDS.items()
}
