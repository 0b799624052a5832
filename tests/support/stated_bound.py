"""The bound of docs/derivation.md, section 9, evaluated one entry at a time.

Every line is an equation of that section, in plain numbers and loops. It shares no code with
`bptt_verifier.tolerance.bounds`, which evaluates the same equations on whole arrays.
"""

from math import inf, sqrt
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Problem

INFLATION = 1 + 2**-10
MAX_SLOPE = {"tanh": 1, "sigmoid": 0.25, "relu": 1, "identity": 1}
MAX_CURVATURE = {"tanh": 4 / (3 * sqrt(3)), "sigmoid": 1 / (6 * sqrt(3)), "relu": 0, "identity": 0}
SLOPE = {
    "tanh": lambda a, h: 1 - h**2,
    "sigmoid": lambda a, h: h - h**2,
    "relu": lambda a, h: float(a > 0),
    "identity": lambda a, h: 1.0,
}


def states_of(problem: Problem) -> tuple[Any, Any, Any]:
    """The pre-activations a, the states h and the prediction ŷ in float64."""
    weights = {name: np.asarray(w, np.float64) for name, w in problem.weights.items()}
    x, a = problem.x.astype(np.float64), []
    zeros = np.zeros((x.shape[1], len(weights["W"])))
    h = [zeros if problem.h0 is None else problem.h0.astype(np.float64)]
    functions: dict[str, Any] = {
        "tanh": np.tanh, "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
        "relu": lambda a: np.maximum(a, 0), "identity": lambda a: a,
    }  # fmt: skip
    for x_t in x:
        a.append(x_t @ weights["U"].T + h[-1] @ weights["W"].T + weights.get("b", 0.0))
        h.append(functions[problem.option["activation"]](a[-1]))
    return np.array(a), np.array(h), h[-1] @ weights["V"].T + weights.get("c", 0.0)


def stated_bound(problem: Problem, states: tuple[Any, Any, Any], dtype: Any) -> dict[str, Any]:
    """The bound on every result, by name; infinite everywhere where something may overflow."""
    T, B, D, H, O = problem.sizes
    activation, loss = problem.option["activation"], problem.loss
    u, nu = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).smallest_normal)
    eps = 16 * u if activation in ("tanh", "sigmoid") else 0
    a, h, prediction = states
    weights = {name: np.abs(np.float64(w)) for name, w in problem.weights.items()}
    U, W, V = weights["U"], weights["W"], weights["V"]
    b, c = weights.get("b", np.zeros(H)), weights.get("c", np.zeros(O))
    x = np.abs(np.float64(problem.x))
    batch, hidden, inputs, outputs = range(B), range(H), range(D), range(O)

    def gamma(n: int) -> float:
        return n * u / (1 - n * u) if n * u < 1 else inf  # (E1)

    d_h, h_bar = np.zeros((T + 1, B, H)), np.abs(h)
    d_a, s, d_s = (np.zeros((T, B, H)) for _ in range(3))
    curvature, kinked = MAX_CURVATURE[activation], activation == "relu"
    for t in range(1, T + 1):
        for n in batch:
            for i in hidden:
                moved = sum(W[i, j] * d_h[t - 1, n, j] for j in hidden)
                size = sum(U[i, j] * x[t - 1, n, j] for j in inputs) + b[i]
                size += sum(W[i, j] * h_bar[t - 1, n, j] for j in hidden)
                d_a[t - 1, n, i] = d = moved + gamma(D + H + 2) * size + 2 * (D + H) * nu  # (E2)
                at, state = a[t - 1, n, i], h[t, n, i]
                here = SLOPE[activation](at, state)
                slope = min(MAX_SLOPE[activation], here + 2 * curvature * d)  # (E3)
                near = kinked and abs(at) <= 2 * d
                slope = 1 if near else slope
                d_h[t, n, i] = slope * d + eps * (abs(state) + 2 * slope * d) + nu  # (E4)
                h_bar[t, n, i] = abs(state) + 2 * d_h[t, n, i]
                rounding = {"tanh": 2 * eps + 4 * u, "sigmoid": (eps + 4 * u) * h_bar[t, n, i]}
                s[t - 1, n, i] = slope
                off = curvature * d + rounding.get(activation, 0)
                d_s[t - 1, n, i] = 1 if near else off  # (E5)

    N = B * O
    kappa = 2 / N if loss == "mse" else 1
    d_pred, r, r_bar, d_dy = (np.zeros((B, O)) for _ in range(4))
    for n in batch:
        for k in outputs:
            size = sum(V[k, i] * h_bar[T, n, i] for i in hidden) + c[k]
            moved = sum(V[k, i] * d_h[T, n, i] for i in hidden)
            d_pred[n, k] = moved + gamma(H + 2) * size + 2 * H * nu  # (E6)
            r[n, k] = abs(prediction[n, k] - float(problem.y[n, k]))
            r_bar[n, k] = r[n, k] + 2 * d_pred[n, k]
            d_dy[n, k] = kappa * (d_pred[n, k] + gamma(4) * r_bar[n, k]) + 4 * nu  # (E8)
    d_loss = N * nu + kappa / 2 * sum(
        2 * r[n, k] * d_pred[n, k] + 3 * d_pred[n, k] ** 2 + gamma(N + 5) * r_bar[n, k] ** 2
        for n in batch
        for k in outputs
    )  # (E7)

    g, d_g, e = np.zeros((B, H)), np.zeros((B, H)), np.ones((B, H))
    for n in batch:
        for i in hidden:
            g[n, i] = sum(V[k, i] * kappa * r_bar[n, k] for k in outputs)
            moved = sum(V[k, i] * d_dy[n, k] for k in outputs)
            d_g[n, i] = moved + gamma(O + 2) * g[n, i] + 2 * O * nu  # (E9)
    upstream, reached = g.sum(), 0.0
    delta, d_delta = np.zeros((T, B, H)), np.zeros((T, B, H))
    for t in range(T - 1, -1, -1):
        reached += e.sum()
        both = s[t] + d_s[t]
        delta[t] = both * g
        d_delta[t] = both * d_g + d_s[t] * g + gamma(3) * delta[t] + 3 * nu  # (E10)
        e_before, g, d_g, e = both * e, np.zeros((B, H)), np.zeros((B, H)), np.ones((B, H))
        for n in batch:
            for j in hidden:
                g[n, j] = sum(W[i, j] * delta[t, n, i] for i in hidden)
                moved = sum(W[i, j] * d_delta[t, n, i] for i in hidden)
                d_g[n, j] = moved + gamma(H + 3) * g[n, j] + 2 * H * nu  # (E11)
                e[n, j] += sum(W[i, j] * e_before[n, i] for i in hidden)

    m = T * B + B * H + O * H + 4
    largest = (1 + upstream) * (1 + reached) * (1 + x.max() + h_bar.max())
    lost = 2 * m * nu * largest  # (E14)
    found: dict[str, Any] = {
        "loss": d_loss, "prediction": d_pred, "adjoints": d_delta, "h0": d_g,
        "U": np.zeros((H, D)), "W": np.zeros((H, H)), "V": np.zeros((O, H)), "b": np.zeros(H),
        "c": np.zeros(O), "x": np.zeros((T, B, D)),
    }  # fmt: skip
    for t in range(T):
        for n in batch:
            for i in hidden:
                total = d_delta[t, n, i] + gamma(m) * delta[t, n, i]
                found["b"][i] += total
                for j in inputs:
                    found["U"][i, j] += total * x[t, n, j]
                    found["x"][t, n, j] += total * U[i, j]
                for j in hidden:  # (E12)
                    found["W"][i, j] += total * h_bar[t, n, j] + delta[t, n, i] * d_h[t, n, j]
    for n in batch:
        for k in outputs:
            total = d_dy[n, k] + gamma(m) * kappa * r_bar[n, k]
            found["c"][k] += total
            for i in hidden:
                found["V"][k, i] += total * h_bar[T, n, i] + kappa * r_bar[n, k] * d_h[T, n, i]
    for name in ("U", "W", "V", "b", "c", "x"):
        found[name] = found[name] + lost
    most = max(largest, N * r_bar.max() ** 2, U.max(), V.max())
    overflows = not most < float(np.finfo(dtype).max)
    return {n: np.full_like(e, inf) if overflows else INFLATION * e for n, e in found.items()}
