"""Derivations in three layouts: columns of a batch, arrays of all steps, and a class with rows.

The columns are leaky and normalised; the arrays normalise over the batch and all steps, and have
classes at every step; the class integrates a differential equation.
"""

import numpy as np

from tests.support.own_models import Model
from tests.support.wrong_derivations import wrong

# A generator of its own: the shared one gives other modules what they draw by order of import.
RNG = np.random.default_rng(8)


def normal(*shape, scale):
    return scale * RNG.normal(size=shape)


def weights(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


# Columns: features come first, a leaky layer-normalised state, log cosh of the last output.

T, N, D, H, O = 4, 3, 2, 4, 2
XC, YC = normal(T, D, N, scale=1), normal(O, N, scale=1)
KAPPA, EPS = 0.3, 1e-3


def run_features(p, xp):
    h, kept = xp.zeros((H, N)), []
    for t in range(T):
        a = p["Wx"] @ XC[t] + p["Wh"] @ h
        centred = a - xp.mean(a, axis=0, keepdims=True)
        sd = xp.sqrt(xp.mean(centred**2, axis=0, keepdims=True) + EPS)
        n = centred / sd
        s = xp.tanh(p["gain"] * n + p["b"])
        kept.append((h, n, sd, s))
        h = (1 - KAPPA) * h + KAPPA * s
    return kept, h, p["V"] @ h + p["c"]


def features_loss(p, xp):
    return xp.mean(xp.log(xp.cosh(run_features(p, xp)[-1] - YC)))


def features_gradients(p):
    kept, last, out = run_features(p, np)
    u = out - YC
    dout = np.tanh(u) / u.size
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    grads["V"] = dout @ last.T
    grads["c"] = dout.sum(axis=1, keepdims=True)
    dh = p["V"].T @ dout
    for t in range(T - 1, -1, -1):
        h, n, sd, s = kept[t]
        dz = KAPPA * dh * (1 - s**2)
        grads["gain"] += (dz * n).sum(axis=1, keepdims=True)
        grads["b"] += dz.sum(axis=1, keepdims=True)
        dn = dz * p["gain"]
        m1 = dn.mean(axis=0, keepdims=True)
        m2 = (dn * n).mean(axis=0, keepdims=True)
        da = (dn - m1 - n * m2) / sd
        grads["Wx"] += da @ XC[t].T
        grads["Wh"] += da @ h.T
        dh = (1 - KAPPA) * dh + p["Wh"].T @ da
    return grads


# Arrays of all steps, batch first: a batch normalisation of what enters, classes at every step.

K = 5
XA, YA = normal(N, T, D, scale=1), np.array([[0, 3, 1, 4], [2, 2, 0, 1], [4, 1, 3, 3]])


def run_arrays(p, xp):
    z = XA @ p["Wx"]
    mean = xp.mean(z, axis=(0, 1))
    var = xp.mean((z - mean) ** 2, axis=(0, 1))
    n = (z - mean) / xp.sqrt(var + EPS)
    y = p["gamma"] * n + p["beta"]
    h, states = xp.zeros((N, H)), []
    for t in range(T):
        h = xp.tanh(y[:, t] + h @ p["Wh"])
        states.append(h)
    hs = xp.stack(states, axis=1)
    scores = hs @ p["Wo"] + p["bo"]
    e = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    return n, var, hs, e / xp.sum(e, axis=-1, keepdims=True)


def arrays_loss(p, xp):
    probs = run_arrays(p, xp)[-1]
    return -xp.sum(xp.log(probs[np.arange(N)[:, None], np.arange(T), YA])) / (N * T)


def arrays_gradients(p):
    n, var, hs, probs = run_arrays(p, np)
    ds = probs.copy()
    ds[np.arange(N)[:, None], np.arange(T), YA] -= 1
    ds /= N * T
    dWo = hs.reshape(N * T, H).T @ ds.reshape(N * T, K)
    dbo = ds.sum(axis=(0, 1))
    dhs = ds @ p["Wo"].T
    dy, dWh = np.zeros_like(hs), np.zeros_like(p["Wh"])
    dprev = np.zeros((N, H))
    for t in reversed(range(T)):
        dt = (dhs[:, t] + dprev) * (1 - hs[:, t] ** 2)
        dy[:, t] = dt
        if t > 0:
            dWh += hs[:, t - 1].T @ dt
        dprev = dt @ p["Wh"].T
    dgamma = np.sum(dy * n, axis=(0, 1))
    dbeta = np.sum(dy, axis=(0, 1))
    dn = dy * p["gamma"]
    mean1 = dn.mean(axis=(0, 1))
    mean2 = (dn * n).mean(axis=(0, 1))
    dz = (dn - mean1 - n * mean2) / np.sqrt(var + EPS)
    dWx = XA.reshape(N * T, D).T @ dz.reshape(N * T, H)
    return {"Wx": dWx, "gamma": dgamma, "beta": dbeta, "Wh": dWh, "Wo": dWo, "bo": dbo}


# A class: Euler steps of h' = −h + tanh(…), rows, log cosh of the outputs of all steps.

XE, YE = normal(N, T, D, scale=1), normal(N, T, O, scale=1)


class Flow:
    dt = 0.2

    def __init__(self, p, xp=np):
        self.p, self.xp = p, xp

    def forward(self):
        p, xp = self.p, self.xp
        h = xp.zeros((N, H))
        self.f, self.h = [], [h]
        for t in range(T):
            f = xp.tanh(XE[:, t] @ p["U"] + h @ p["W"] + p["b"])
            h = h + self.dt * (f - h)
            self.f.append(f)
            self.h.append(h)
        self.out = xp.stack(self.h[1:], axis=1) @ p["V"] + p["c"]
        return xp.sum(xp.log(xp.cosh(self.out - YE))) / N


def flow_loss(p, xp):
    return Flow(p, xp).forward()


def flow_gradients(p):
    flow = Flow(p)
    flow.forward()
    g = {k: np.zeros_like(v) for k, v in p.items()}
    error = flow.out - YE
    d = np.tanh(error) / N
    g["V"] += np.einsum("nth,nto->ho", np.stack(flow.h[1:], 1), d)
    g["c"] += d.sum((0, 1))
    dh = np.zeros((N, H))
    for t in range(T)[::-1]:
        dh = dh + d[:, t] @ p["V"].T
        da = flow.dt * dh * (1 - flow.f[t] ** 2)
        g["U"] += XE[:, t].T @ da
        g["W"] += flow.h[t].T @ da
        g["b"] += da.sum(0)
        dh = (1 - flow.dt) * dh + da @ p["W"].T
    return g


# Complex states, batch first, mixed by a complex matrix; the outputs are real.

XM, YM = normal(N, T, D, scale=1), normal(N, O, scale=1)


def run_mixtures(p, xp):
    A, C = p["Ar"] + 1j * p["Ai"], p["Cr"] + 1j * p["Ci"]
    states = [xp.zeros((N, H)) + 0j]
    for t in range(T):
        states.append(states[-1] @ A + XM[:, t] @ p["B"])
    return A, C, states, xp.real(states[-1] @ C)


def mixtures_loss(p, xp):
    return 0.5 * xp.sum((run_mixtures(p, xp)[-1] - YM) ** 2) / N


def mixtures_gradients(p):
    A, C, states, out = run_mixtures(p, np)
    dout = (out - YM) / N
    dC = states[-1].conj().T @ dout
    ds = dout @ C.conj().T
    dA, dB = np.zeros_like(A), np.zeros_like(p["B"])
    for t in reversed(range(T)):
        dA += states[t].T.conj() @ ds
        dB += XM[:, t].T @ ds.real
        ds = ds @ A.T.conj()
    return {"Ar": dA.real, "Ai": dA.imag, "B": dB, "Cr": dC.real, "Ci": dC.imag}


# Complex states in columns, each with a modulus and a phase, outputs at every step.

XP, YP = normal(T, D, N, scale=1), normal(T, O, N, scale=1)


def run_phases(p, xp):
    rate = xp.exp(-xp.exp(p["nu"]) + 1j * p["theta"])
    C, s, kept = p["Cr"] + 1j * p["Ci"], xp.zeros((H, N)) + 0j, []
    for t in range(T):
        before = s
        s = rate * s + p["B"] @ XP[t]
        kept.append((before, s, xp.real(C @ s) - YP[t]))
    return rate, C, kept


def phases_loss(p, xp):
    return sum(xp.mean(error**2) for _, _, error in run_phases(p, xp)[-1])


def phases_gradients(p):
    rate, C, kept = run_phases(p, np)
    drate, dB, dC = 0 * rate, np.zeros_like(p["B"]), np.zeros_like(C)
    later = np.zeros((H, N), dtype=rate.dtype)
    for x, (before, s, error) in zip(XP[::-1], reversed(kept), strict=True):
        dy = 2 * error / error.size
        dC += dy @ np.conj(s).T
        d = np.conj(C).T @ dy + later
        drate += np.sum(d * np.conj(before), axis=1, keepdims=True)
        dB += d.real @ x.T
        later = d * np.conj(rate)
    g = drate * np.conj(rate)
    return {"nu": -np.exp(p["nu"]) * g.real, "theta": g.imag, "B": dB, "Cr": dC.real, "Ci": dC.imag}


MODELS = {
    "features": Model(features_loss, features_gradients, features_gradients, weights(Wx=(H, D), Wh=(H, H), gain=(H, 1), b=(H, 1), V=(O, H), c=(O, 1))),
    "arrays": Model(arrays_loss, arrays_gradients, arrays_gradients, weights(Wx=(D, H), gamma=(H,), beta=(H,), Wh=(H, H), Wo=(H, K), bo=(K,))),
    "flow": Model(flow_loss, flow_gradients, flow_gradients, weights(U=(D, H), W=(H, H), b=(H,), V=(H, O), c=(O,))),
    "mixtures": Model(mixtures_loss, mixtures_gradients, mixtures_gradients, weights(Ar=(H, H), Ai=(H, H), B=(D, H), Cr=(H, O), Ci=(H, O))),
    "phases": Model(phases_loss, phases_gradients, phases_gradients, weights(nu=(H, 1), theta=(H, 1), B=(H, D), Cr=(O, H), Ci=(O, H))),
}  # fmt: skip

M1, M2 = "m1 = dn.mean(axis=0, keepdims=True)", "m2 = (dn * n).mean(axis=0, keepdims=True)"
PICK = "ds[np.arange(N)[:, None], np.arange(T), YA] -= 1"
WRONG = [
    # A mean over other axes than the normalisation's.
    wrong("features", "normalisation-over-wrong-axis", M1, M1.replace("0", "1")),
    wrong("features", "normalisation-over-wrong-axis", M2, M2.replace("0", "1")),
    wrong("features", "normalisation-over-wrong-axis", M1, M1.replace("0", "1"), M2, M2.replace("0", "1")),
    wrong("features", "normalisation-over-wrong-axis", M1, "m1 = dn.mean()", M2, "m2 = (dn * n).mean()"),
    wrong("features", "normalisation-over-wrong-axis", M2, "m2 = (dn * n).mean()"),
    wrong("arrays", "normalisation-over-wrong-axis", "mean1 = dn.mean(axis=(0, 1))", "mean1 = dn.mean(axis=0)"),
    wrong("arrays", "normalisation-over-wrong-axis", "mean1 = dn.mean(axis=(0, 1))", "mean1 = dn.mean(axis=-1, keepdims=True)"),
    wrong("arrays", "normalisation-over-wrong-axis", "mean2 = (dn * n).mean(axis=(0, 1))", "mean2 = (dn * n).mean(axis=1, keepdims=True)"),
    wrong("arrays", "normalisation-over-wrong-axis", "mean2 = (dn * n).mean(axis=(0, 1))", "mean2 = (dn * n).mean()"),
    wrong("arrays", "normalisation-over-wrong-axis", "mean2 = (dn * n).mean(axis=(0, 1))", "mean2 = (dn * n).mean(axis=(1, 2), keepdims=True)"),
    wrong("arrays", "normalisation-over-wrong-axis", "mean1 = dn.mean(axis=(0, 1))", "mean1 = dn.mean(axis=0)", "mean2 = (dn * n).mean(axis=(0, 1))", "mean2 = (dn * n).mean(axis=0)"),
    wrong("arrays", "constant-factor", "mean1 = dn.mean(axis=(0, 1))", "mean1 = dn.sum(axis=(0, 1)) / N"),
    # log cosh.
    *[wrong(model, names, right, right.replace("np.tanh(U)".replace("U", u), text.replace("U", u)))
      for model, u, right in (("features", "u", "dout = np.tanh(u) / u.size"), ("flow", "error", "d = np.tanh(error) / N"))
      for names, text in (
          ("activation-derivative-of-another-function", "U"),
          ("activation-derivative-of-another-function", "(1 - np.tanh(U) ** 2)"),
          ("activation-derivative-of-another-function", "np.sign(U)"),
          ("activation-derivative-missing", "np.sinh(U)"),
          ("activation-derivative-missing", "np.ones_like(U)"),
          ("activation-derivative-missing", "1 / np.cosh(U)"),
          ("activation-derivative-twice", "np.sinh(U) / np.cosh(U) ** 2"),
      )],
    wrong("features", "wrong-operand", "np.tanh(u) / u.size", "np.tanh(out) / u.size"),
    wrong("flow", "wrong-operand", "np.tanh(error) / N", "np.tanh(flow.out) / N"),
    # 1 − c, where c is a constant.
    wrong("features", "wrong-operand", "dh = (1 - KAPPA) * dh", "dh = KAPPA * dh"),
    wrong("features", "wrong-operand", "dz = KAPPA * dh", "dz = (1 - KAPPA) * dh"),
    wrong("features", "factor-missing", "dh = (1 - KAPPA) * dh", "dh = dh"),
    wrong("features", "factor-missing", "dz = KAPPA * dh", "dz = dh"),
    wrong("flow", "wrong-operand", "dh = (1 - flow.dt) * dh", "dh = flow.dt * dh"),
    wrong("flow", "wrong-operand", "da = flow.dt * dh", "da = (1 - flow.dt) * dh"),
    wrong("flow", "zero-gradient recurrent-path-dropped", "dh = (1 - flow.dt) * dh", "dh = dh"),
    wrong("flow", "sign-flipped wrong-operand", "dh = (1 - flow.dt) * dh", "dh = (1 + flow.dt) * dh"),
    # The steps in the order of the forward pass.
    wrong("features", "steps-in-wrong-order", "range(T - 1, -1, -1)", "range(T)"),
    wrong("flow", "steps-in-wrong-order", "range(T)[::-1]", "range(T)"),
    wrong("arrays", "steps-in-wrong-order", "reversed(range(T))", "range(T)"),
    # The slope of a state, of another step, or once more in what is carried back.
    wrong("features", "wrong-operand", "KAPPA * dh * (1 - s**2)", "KAPPA * dh * (1 - h**2)"),
    wrong("flow", "wrong-operand", "(1 - flow.f[t] ** 2)", "(1 - flow.h[t + 1] ** 2)"),
    wrong("flow", "hidden-state-off-by-one", "(1 - flow.f[t] ** 2)", "(1 - (flow.f[t - 1] if t else 0 * dh) ** 2)"),
    wrong("features", "activation-derivative-twice", 'p["Wh"].T @ da\n', '(p["Wh"].T @ da) * (1 - h**2)\n'),
    wrong("flow", "activation-derivative-twice", 'da @ p["W"].T\n', '(da @ p["W"].T) * (1 - flow.h[t] ** 2)\n'),
    wrong("arrays", "activation-derivative-twice", 'dprev = dt @ p["Wh"].T', 'dprev = (dt @ p["Wh"].T) * (1 - hs[:, t - 1] ** 2)'),
    wrong("arrays", "hidden-state-off-by-one", "(1 - hs[:, t] ** 2)", "(1 - (hs[:, t - 1] if t else 0 * dprev) ** 2)"),
    # Targets.
    wrong("arrays", "wrong-operand input-off-by-one", PICK, "ds[np.arange(N)[:, None], np.arange(T - 1), YA[:, 1:]] -= 1"),
    wrong("arrays", "wrong-operand input-off-by-one", PICK, "ds[np.arange(N)[:, None], np.arange(T), np.roll(YA, 1, axis=1)] -= 1"),
    wrong("arrays", "wrong-operand input-off-by-one", PICK, "ds[np.arange(N)[:, None], np.arange(1, T), YA[:, :-1]] -= 1"),
    wrong("arrays", "wrong-operand", PICK, "ds[np.arange(N)[:, None], np.arange(T - 1), YA[:, :-1]] -= 1"),
    wrong("arrays", "wrong-operand", PICK, "ds[np.arange(N)[:, None], np.arange(1, T), YA[:, 1:]] -= 1"),
    wrong("arrays", "wrong-operand", PICK, "ds[np.arange(N - 1)[:, None], np.arange(T), YA[:-1]] -= 1"),
    wrong("arrays", "wrong-operand", PICK, "ds[0, np.arange(T), YA[0]] -= 1"),
    wrong("arrays", "wrong-operand", PICK, "ds[:, np.arange(T), YA[0]] -= 1"),
    wrong("arrays", "wrong-operand", PICK, "ds[np.arange(N)[:, None], np.arange(T), YA[::-1]] -= 1"),
    wrong("arrays", "output-gradient-missing zero-gradient", "    " + PICK + "\n", ""),
    wrong("arrays", "sign-flipped", PICK, PICK.replace("-=", "+=")),
    wrong("arrays", "path-counted-twice", PICK, PICK.replace("-= 1", "-= 2")),
    # A softmax over the wrong axis.
    wrong("arrays", "softmax-over-wrong-axis", "    ds = probs.copy()", "    e = np.exp(hs @ p['Wo'] + p['bo'])\n    ds = e / e.sum(axis=0, keepdims=True)"),
    wrong("arrays", "softmax-over-wrong-axis", "    ds = probs.copy()", "    e = np.exp(hs @ p['Wo'] + p['bo'])\n    ds = e / e.sum(axis=1, keepdims=True)"),
    wrong("arrays", "softmax-over-wrong-axis", "    ds = probs.copy()", "    e = np.exp(hs @ p['Wo'] + p['bo'])\n    ds = e / e.sum()"),
    # What is returned.
    wrong("features", "update-returned", "    return grads\n", '    return grads | {"Wh": p["Wh"]}\n'),
    wrong("arrays", "update-returned", '"gamma": dgamma', '"gamma": p["gamma"]'),
    wrong("flow", "update-returned", "    return g\n", '    return g | {"b": p["b"]}\n'),
    wrong("features", "clipped", "    return grads\n", "    return {k: np.clip(v, -0.05, 0.05) for k, v in grads.items()}\n"),
    wrong("arrays", "clipped", '    return {"Wx"', '    for v in (dWx, dWh, dWo):\n        np.clip(v, -0.01, 0.01, out=v)\n    return {"Wx"'),
    wrong("flow", "clipped", "    return g\n", "    size = np.sqrt(sum((v**2).sum() for v in g.values()))\n    return {k: v * min(1, 0.1 / size) for k, v in g.items()}\n"),
    # A factor twice.
    wrong("features", "factor-twice", "da = (dn - m1 - n * m2) / sd", "da = (dn - m1 - n * m2) / sd**2"),
    wrong("arrays", "factor-twice", "/ np.sqrt(var + EPS)\n", "/ (var + EPS)\n"),
    wrong("flow", "factor-missing", "flow.dt * dh * (1", "dh * (1"),
    wrong("features", "factor-twice", "dz = KAPPA * dh", "dz = KAPPA * KAPPA * dh"),
    wrong("features", "factor-twice", "dh = (1 - KAPPA) * dh", "dh = (1 - KAPPA) * (1 - KAPPA) * dh"),
    wrong("flow", "factor-twice", "flow.dt * dh * (1", "flow.dt * flow.dt * dh * (1"),
    # A conjugate missing: everywhere, in what is carried back, in one gradient.
    wrong("mixtures", "conjugate-missing", "states[-1].conj()", "states[-1]", "C.conj()", "C", "states[t].T.conj()", "states[t].T", "A.T.conj()", "A.T"),
    wrong("mixtures", "conjugate-missing", "A.T.conj()", "A.T"),
    wrong("mixtures", "conjugate-missing", "states[t].T.conj()", "states[t].T"),
    wrong("phases", "conjugate-missing", "np.conj(s)", "s", "np.conj(C)", "C", "np.conj(before)", "before", "later = d * np.conj(rate)", "later = d * rate", "drate * np.conj(rate)", "drate * rate"),
    wrong("phases", "conjugate-missing", "later = d * np.conj(rate)", "later = d * rate"),
    wrong("phases", "conjugate-missing", "np.conj(before)", "before"),
    wrong("phases", "conjugate-missing", "np.conj(s).T", "s.T"),
]  # fmt: skip
