"""Derivations of LSTMs whose gates see the cell through peepholes, and mistakes in them.

One has columns and a peephole matrix for each gate, the other rows and one vector of all peepholes.
"""

import numpy as np

from tests.support.own_models import Model, normal, sigmoid
from tests.support.wrong_derivations import weights, wrong

# Columns, dicts by step, full matrices from the cell to the gates, a loss at every step.

T, D, H = 3, 2, 2
X, Y = normal(T, D, 1, scale=1), normal(T, H, 1, scale=1)


def run_matrices(p, xp):
    h, c, gates, total = {-1: xp.zeros((H, 1))}, {-1: xp.zeros((H, 1))}, {}, 0.0
    for t in range(T):
        z = xp.vstack([X[t], h[t - 1]])
        i = sigmoid(p["Wi"] @ z + p["Pi"] @ c[t - 1] + p["bi"], xp)
        f = sigmoid(p["Wf"] @ z + p["Pf"] @ c[t - 1] + p["bf"], xp)
        g = xp.tanh(p["Wg"] @ z + p["bg"])
        c[t] = f * c[t - 1] + i * g
        o = sigmoid(p["Wo"] @ z + p["Po"] @ c[t] + p["bo"], xp)
        h[t] = o * xp.tanh(c[t])
        gates[t] = z, i, f, g, o
        total = total + xp.sum((h[t] - Y[t]) ** 2)
    return total, h, c, gates


def matrices_loss(p, xp):
    return run_matrices(p, xp)[0]


def matrices_gradients(p):
    _, h, c, gates = run_matrices(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dh_next, dc_next = np.zeros((H, 1)), np.zeros((H, 1))
    for t in reversed(range(T)):
        z, i, f, g, o = gates[t]
        dh = 2 * (h[t] - Y[t]) + dh_next
        ao = dh * np.tanh(c[t]) * o * (1 - o)
        dc = dc_next + dh * o * (1 - np.tanh(c[t]) ** 2) + p["Po"].T @ ao
        ai = dc * g * i * (1 - i)
        af = dc * c[t - 1] * f * (1 - f)
        ag = dc * i * (1 - g**2)
        for k, a in (("i", ai), ("f", af), ("g", ag), ("o", ao)):
            G["W" + k] += a @ z.T
            G["b" + k] += a
        G["Pi"] += ai @ c[t - 1].T
        G["Pf"] += af @ c[t - 1].T
        G["Po"] += ao @ c[t].T
        dz = sum(p["W" + k].T @ a for k, a in (("i", ai), ("f", af), ("g", ag), ("o", ao)))
        dh_next = dz[D:]
        dc_next = f * dc + p["Pi"].T @ ai + p["Pf"].T @ af
    return G


# Rows of a batch, gates with one input gate 1 − f, one vector of all peepholes, the last state.

N = 3
XC, YC = normal(T, N, D, scale=1), normal(N, H, scale=1)


def run_coupled(p, xp):
    h, c, kept = xp.zeros((N, H)), xp.zeros((N, H)), []
    for t in range(T):
        a = XC[t] @ p["U"] + h @ p["W"] + p["b"]
        f = sigmoid(a[:, :H] + p["peep"][:H] * c, xp)
        g = xp.tanh(a[:, H : 2 * H])
        new = f * c + (1 - f) * g
        o = sigmoid(a[:, 2 * H :] + p["peep"][H:] * new, xp)
        kept.append((h, c, f, g, new, o))
        h, c = o * xp.tanh(new), new
    return xp.sum((h - YC) ** 2) / N, h, kept


def coupled_loss(p, xp):
    return run_coupled(p, xp)[0]


def coupled_gradients(p):
    _, last, kept = run_coupled(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dh, dc = 2 * (last - YC) / N, np.zeros((N, H))
    for t in range(T - 1, -1, -1):
        h, c, f, g, new, o = kept[t]
        ao = dh * np.tanh(new) * o * (1 - o)
        dc = dc + dh * o * (1 - np.tanh(new) ** 2) + ao * p["peep"][H:]
        af = dc * (c - g) * f * (1 - f)
        ag = dc * (1 - f) * (1 - g**2)
        da = np.concatenate([af, ag, ao], axis=1)
        G["U"] += XC[t].T @ da
        G["W"] += h.T @ da
        G["b"] += da.sum(axis=0)
        G["peep"] += np.concatenate([(af * c).sum(0), (ao * new).sum(0)])
        dh = da @ p["W"].T
        dc = dc * f + af * p["peep"][:H]
    return G


GATES = {k + g: (H, D + H) if k == "W" else (H, 1) for k in "Wb" for g in "ifgo"}
MODELS = {
    "matrices": Model(matrices_loss, matrices_gradients, matrices_gradients, weights(**GATES, Pi=(H, H), Pf=(H, H), Po=(H, H))),
    "coupled": Model(coupled_loss, coupled_gradients, coupled_gradients, weights(U=(D, 3 * H), W=(H, 3 * H), b=(3 * H,), peep=(2 * H,))),
}  # fmt: skip

WRONG = [
    wrong("matrices", "zero-gradient recurrent-path-dropped", ' + p["Po"].T @ ao', ""),
    wrong("matrices", "zero-gradient recurrent-path-dropped", ' + p["Pi"].T @ ai + p["Pf"].T @ af', ""),
    wrong("matrices", "hidden-state-off-by-one", 'G["Po"] += ao @ c[t].T', 'G["Po"] += ao @ c[t - 1].T'),
    wrong("matrices", "untransposed-recurrent-weight untransposed-output-weight", 'p["Po"].T @ ao', 'p["Po"] @ ao'),
    wrong("coupled", "zero-gradient recurrent-path-dropped", ' + ao * p["peep"][H:]', ""),
    wrong("coupled", "zero-gradient recurrent-path-dropped", ' + af * p["peep"][:H]', ""),
    wrong("coupled", "hidden-state-off-by-one", "(ao * new).sum(0)", "(ao * c).sum(0)"),
]  # fmt: skip
