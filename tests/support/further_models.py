"""Further models with derivations to plant mistakes in: stacked, gated with peepholes, attending,
normalised, with an embedding, bidirectional, and with a loss at every step.
"""

import numpy as np

from tests.support.own_models import Model, normal, sigmoid

# An LSTM of row vectors, a matrix for every gate, peepholes, a loss at every step.

T, B, D, H = 4, 2, 2, 3
X, Y = normal(T, B, D, scale=1), normal(T, B, H, scale=1)


def run_peepholes(p, xp):
    h, c, total, trace = xp.zeros((B, H)), xp.zeros((B, H)), 0.0, []
    for t in range(T):
        i = sigmoid(X[t] @ p["Ui"] + h @ p["Wi"] + p["pi"] * c, xp)
        f = sigmoid(X[t] @ p["Uf"] + h @ p["Wf"] + p["pf"] * c, xp)
        g = xp.tanh(X[t] @ p["Ug"] + h @ p["Wg"])
        before = h, c
        c = f * c + i * g
        o = sigmoid(X[t] @ p["Uo"] + h @ p["Wo"] + p["po"] * c, xp)
        h = o * xp.tanh(c)
        total = total + xp.sum((h - Y[t]) ** 2) / B
        trace.append((*before, i, f, g, o, c, h))
    return total, trace


def peephole_loss(p, xp):
    return run_peepholes(p, xp)[0]


def peephole_gradients(p):
    trace = run_peepholes(p, np)[1]
    G = {k: np.zeros_like(v) for k, v in p.items()}
    later, dc_later = np.zeros((B, H), p["Wi"].dtype), np.zeros((B, H), p["Wi"].dtype)
    for t in reversed(range(T)):
        h0, c0, i, f, g, o, c, h = trace[t]
        own = 2 * (h - Y[t]) / B
        dh = own + later
        u = np.tanh(c)
        ao = dh * u * o * (1 - o)
        dc = dh * o * (1 - u**2) + dc_later + ao * p["po"]
        ai = dc * g * i * (1 - i)
        af = dc * c0 * f * (1 - f)
        ag = dc * i * (1 - g**2)
        later = ai @ p["Wi"].T + af @ p["Wf"].T + ag @ p["Wg"].T + ao @ p["Wo"].T
        dc_later = dc * f + ai * p["pi"] + af * p["pf"]
        for k, a in zip("ifog", (ai, af, ao, ag), strict=True):
            G["U" + k] += X[t].T @ a
            G["W" + k] += h0.T @ a
        G["pi"] += (ai * c0).sum(0)
        G["pf"] += (af * c0).sum(0)
        G["po"] += (ao * c).sum(0)
    return G


# Two layers in one array, a dropout mask between them, a softmax at every step.

LAYERS, K = 2, 4
INPUTS = normal(T, H, scale=1)
TARGETS = np.array([1, 3, 0, 2])
MASK = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1.0]])


def run_stacked(p, xp):
    below, trace, total, probabilities = [*INPUTS], [], 0.0, []
    for layer in range(LAYERS):
        h, states = xp.zeros(H), []
        for t in range(T):
            h = xp.tanh(p["U"][layer] @ below[t] + p["W"][layer] @ h)
            states.append(h)
        trace.append((below, states))
        below = [states[t] * MASK[t] / 0.75 for t in range(T)]
    for t in range(T):
        z = p["V"] @ below[t]
        e = xp.exp(z - xp.max(z))
        q = e / xp.sum(e)
        total = total - xp.log(q[TARGETS[t]])
        probabilities.append(q)
    return total / T, trace, probabilities, below


def stacked_loss(p, xp):
    return run_stacked(p, xp)[0]


def stacked_gradients(p):
    _, trace, probabilities, top = run_stacked(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    d = []
    for t in range(T):
        dz = probabilities[t].copy()
        dz[TARGETS[t]] -= 1
        dz /= T
        G["V"] += np.outer(dz, top[t])
        d.append(p["V"].T @ dz * MASK[t] / 0.75)
    for layer in reversed(range(LAYERS)):
        below, states = trace[layer]
        later, down = np.zeros(H), []
        for t in reversed(range(T)):
            a = (d[t] + later) * (1 - states[t] ** 2)
            before = states[t - 1] if t else np.zeros(H)
            G["W"][layer] += np.outer(a, before)
            G["U"][layer] += np.outer(a, below[t])
            later = p["W"][layer].T @ a
            down.append(p["U"][layer].T @ a * MASK[t] / 0.75)
        d = down[::-1]
    return G


# Batch first, attention over all states.

BATCH, VALUES = normal(B, T, D, scale=1), normal(B, 2, scale=1)


def run_attention(p, xp):
    h, states = xp.zeros((B, H)), []
    for t in range(T):
        h = xp.tanh(BATCH[:, t] @ p["U"] + h @ p["W"])
        states.append(h)
    every = xp.stack(states, 1)
    e = xp.exp(every @ p["q"] / np.sqrt(H))
    a = e / xp.sum(e, axis=1, keepdims=True)
    context = xp.sum(a[:, :, None] * every, axis=1)
    y = context @ p["V"]
    return 0.5 * xp.mean((y - VALUES) ** 2), states, every, a, context, y


def attention_loss(p, xp):
    return run_attention(p, xp)[0]


def attention_gradients(p):
    _, states, every, a, context, y = run_attention(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dy = (y - VALUES) / (2 * B)
    G["V"] = context.T @ dy
    dcontext = dy @ p["V"].T
    da = (dcontext[:, None, :] * every).sum(2)
    of_context = a[:, :, None] * dcontext[:, None, :]
    ds = a * (da - (a * da).sum(1, keepdims=True)) / np.sqrt(H)
    G["q"] = (ds[:, :, None] * every).sum((0, 1))
    of_scores = ds[:, :, None] * p["q"]
    dH = of_context + of_scores
    later = np.zeros_like(states[0])
    for t in reversed(range(T)):
        dz = (dH[:, t] + later) * (1 - states[t] ** 2)
        G["U"] += BATCH[:, t].T @ dz
        G["W"] += states[t - 1].T @ dz if t else 0
        later = dz @ p["W"].T
    return G


# A normalised recurrence of column vectors.

EPSILON = 1e-3
ROWS, AIM = normal(3, D, scale=1), normal(2)


def run_normalised(p, xp):
    h, trace = xp.zeros(4), []
    for x in ROWS:
        a = p["U"] @ x + p["W"] @ h
        v = xp.mean((a - xp.mean(a)) ** 2)
        n = (a - xp.mean(a)) / xp.sqrt(v + EPSILON)
        before = h
        h = xp.tanh(p["g"] * n + p["b"])
        trace.append((x, before, v, n, h))
    return trace


def normalised_loss(p, xp):
    return xp.sum((p["V"] @ run_normalised(p, xp)[-1][-1] - AIM) ** 2)


def normalised_gradients(p):
    trace = run_normalised(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    do = 2 * (p["V"] @ trace[-1][-1] - AIM)
    G["V"] = np.outer(do, trace[-1][-1])
    dh = p["V"].T @ do
    for x, before, v, n, h in reversed(trace):
        dz = dh * (1 - h**2)
        G["g"] += dz * n
        G["b"] += dz
        dn = dz * p["g"]
        s = np.sqrt(v + EPSILON)
        da = (dn - dn.mean() - n * (dn * n).mean()) / s
        G["U"] += np.outer(da, x)
        G["W"] += np.outer(da, before)
        dh = p["W"].T @ da
    return G


# An embedding, the state beside it in one operand, and ε in the logarithm of the loss.

TOKENS = np.array([[0, 2, 2, 1], [3, 0, 1, 1], [2, 2, 4, 0]])
CLASSES = np.eye(3)[[0, 2, 1]]


def run_embedded(p, xp):
    h, trace = xp.zeros((3, H)), []
    for t in range(T):
        eh = xp.concatenate([p["E"][TOKENS[:, t]], h], axis=1)
        h = xp.tanh(eh @ p["W"])
        trace.append((eh, h))
    s = h @ p["V"]
    q = xp.exp(s) / xp.sum(xp.exp(s), axis=1, keepdims=True)
    return -xp.mean(xp.sum(CLASSES * xp.log(q + 1e-4), axis=1)), trace, q


def embedded_loss(p, xp):
    return run_embedded(p, xp)[0]


def embedded_gradients(p):
    _, trace, q = run_embedded(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dq = -CLASSES / (q + 1e-4) / 3
    ds = q * (dq - (dq * q).sum(1, keepdims=True))
    G["V"] = trace[-1][1].T @ ds
    dh = ds @ p["V"].T
    for t in reversed(range(T)):
        eh, h = trace[t]
        a = dh * (1 - h**2)
        G["W"] += eh.T @ a
        deh = a @ p["W"].T
        np.add.at(G["E"], TOKENS[:, t], deh[:, :2])
        dh = deh[:, 2:]
    return G


# Two directions through one function, and a sigmoid at the end.

LABELS = np.array([1.0, 0.0])


def run_direction(inputs, U, W, xp):
    states = [xp.zeros((B, H))]
    for x in inputs:
        states.append(xp.tanh(x @ U + states[-1] @ W))
    return states


def run_both(p, xp):
    inputs = [BATCH[:, t] for t in range(T)]
    f = run_direction(inputs, p["Uf"], p["Wf"], xp)
    b = run_direction(inputs[::-1], p["Ub"], p["Wb"], xp)
    joined = xp.concatenate([f[-1], b[-1]], axis=1)
    q = sigmoid(joined @ p["v"], xp)
    return -xp.mean(LABELS * xp.log(q) + (1 - LABELS) * xp.log(1 - q)), inputs, f, b, joined, q


def directions_loss(p, xp):
    return run_both(p, xp)[0]


def directions_gradients(p):
    _, inputs, f, b, joined, q = run_both(p, np)
    dz = (q - LABELS) / B
    G = {"v": joined.T @ dz}
    d_joined = np.outer(dz, p["v"])
    for k, states, read, d in (
        ("f", f, inputs, d_joined[:, :H]),
        ("b", b, inputs[::-1], d_joined[:, H:]),
    ):
        G["U" + k], G["W" + k] = 0 * p["U" + k], 0 * p["W" + k]
        dh = d
        for t in reversed(range(T)):
            a = dh * (1 - states[t + 1] ** 2)
            G["U" + k] += read[t].T @ a
            G["W" + k] += states[t].T @ a
            dh = a @ p["W" + k].T
    return {name: G[name] for name in p}


# A loss at every step, and gradients of the inputs and of the initial state.

STEPS = 6
AIMS = normal(STEPS, 2, scale=1)


def run_sequence(p, xp):
    states, total = [p["h0"]], 0.0
    for t in range(STEPS):
        states.append(xp.tanh(p["U"] @ p["x"][t] + p["W"] @ states[-1]))
        total = total + 0.5 * xp.sum((p["V"] @ states[-1] - AIMS[t]) ** 2)
    return total, states


def sequence_loss(p, xp):
    return run_sequence(p, xp)[0]


def sequence_gradients(p):
    h = run_sequence(p, np)[1]
    G = {k: np.zeros_like(v) for k, v in p.items()}
    later = np.zeros(H)
    for t in reversed(range(STEPS)):
        dy = p["V"] @ h[t + 1] - AIMS[t]
        G["V"] += np.outer(dy, h[t + 1])
        own = p["V"].T @ dy
        dh = own + later
        a = dh * (1 - h[t + 1] ** 2)
        G["U"] += np.outer(a, p["x"][t])
        G["W"] += np.outer(a, h[t])
        G["x"][t] = p["U"].T @ a
        later = p["W"].T @ a
    G["h0"] = later
    return G


def weights(**shapes):
    return {name: normal(*shape) for name, shape in shapes.items()}


GATES = {k + gate: (D if k == "U" else H, H) for k in "UW" for gate in "ifog"}
MODELS = {
    "peepholes": Model(peephole_loss, peephole_gradients, peephole_gradients, weights(**GATES, pi=(H,), pf=(H,), po=(H,))),
    "stacked": Model(stacked_loss, stacked_gradients, stacked_gradients, weights(W=(LAYERS, H, H), U=(LAYERS, H, H), V=(K, H))),
    "attention": Model(attention_loss, attention_gradients, attention_gradients, weights(U=(D, H), W=(H, H), q=(H,), V=(H, 2))),
    "normalised": Model(normalised_loss, normalised_gradients, normalised_gradients, weights(U=(4, D), W=(4, 4), g=(4,), b=(4,), V=(2, 4))),
    "embedded": Model(embedded_loss, embedded_gradients, embedded_gradients, weights(E=(5, 2), W=(2 + H, H), V=(H, 3))),
    "directions": Model(directions_loss, directions_gradients, directions_gradients, weights(Uf=(D, H), Wf=(H, H), Ub=(D, H), Wb=(H, H), v=(2 * H,))),
    "sequence": Model(sequence_loss, sequence_gradients, sequence_gradients, weights(U=(H, D), W=(H, H), V=(2, H), x=(STEPS, D), h0=(H,))),
}  # fmt: skip


# What is planted: the name, where it is, and the texts that are changed.

RETURN = "    return G\n"

PLANTED: dict[str, list[tuple[str, str, tuple[tuple[str, str], ...]]]] = {
    "peepholes": [
        ("untransposed-recurrent-weight", "four gates", (('ai @ p["Wi"].T + af @ p["Wf"].T + ag @ p["Wg"].T + ao @ p["Wo"].T', 'ai @ p["Wi"] + af @ p["Wf"] + ag @ p["Wg"] + ao @ p["Wo"]'),)),
        ("untransposed-recurrent-weight", "two gates", (('ai @ p["Wi"].T + af @ p["Wf"].T', 'ai @ p["Wi"] + af @ p["Wf"]'),)),
        ("zero-gradient", "no peephole", ((' + ao * p["po"]', ""), (' + ai * p["pi"] + af * p["pf"]', ""))),
        ("hidden-state-off-by-one", "every gate", (('G["W" + k] += h0.T @ a', 'G["W" + k] += h.T @ a'),)),
        ("activation-derivative-missing", "sigmoids", (("dc * g * i * (1 - i)", "dc * g"), ("dc * c0 * f * (1 - f)", "dc * c0"), ("dh * u * o * (1 - o)", "dh * u"))),
        ("wrong-operand", "slope of another gate", (("dc * g * i * (1 - i)", "dc * g * f * (1 - f)"),)),
        ("recurrent-path-dropped", "own loss only", (("ao = dh * u", "ao = own * u"),)),
        ("factor-missing", "carried cell", (("dc_later = dc * f", "dc_later = dc"),)),
        ("constant-factor", "mean over the batch twice", ((RETURN, "    return {k: v / B for k, v in G.items()}\n"),)),
    ],
    "stacked": [
        ("hidden-state-off-by-one", "both layers", (("np.outer(a, before)", "np.outer(a, states[t])"),)),
        ("untransposed-recurrent-weight", "both layers", (('p["W"][layer].T @ a', 'p["W"][layer] @ a'),)),
        ("recurrent-path-dropped", "lower layer", (('p["W"][layer].T @ a', 'layer * p["W"][layer].T @ a'),)),
        ("factor-missing", "mask", (('p["V"].T @ dz * MASK[t] / 0.75', 'p["V"].T @ dz / 0.75'),)),
        ("factor-missing", "scale", (('p["V"].T @ dz * MASK[t] / 0.75', 'p["V"].T @ dz * MASK[t]'),)),
        ("factor-missing", "mask and scale", (('p["V"].T @ dz * MASK[t] / 0.75', 'p["V"].T @ dz'), ("a * MASK[t] / 0.75", "a"))),
        ("activation-derivative-twice", "softmax", (("        dz /= T\n", "        dz *= probabilities[t] * (1 - probabilities[t]) / T\n"),)),
        ("missing-time-sum", "two weights", (('G["W"][layer] +=', 'G["W"][layer] ='), ('G["U"][layer] +=', 'G["U"][layer] ='))),
        ("wrong-operand", "weight of another layer", (('p["W"][layer].T @ a', 'p["W"][0].T @ a'),)),
    ],
    "attention": [
        ("softmax-diagonal", "", (("a * (da - (a * da).sum(1, keepdims=True))", "a * (1 - a) * da"),)),
        ("softmax-denominator", "", (("a * (da - (a * da).sum(1, keepdims=True))", "a * da"),)),
        ("zero-gradient", "no path of the scores", (("of_context + of_scores", "of_context"),)),
        ("zero-gradient", "no path of the context", (("of_context + of_scores", "of_scores"),)),
        ("factor-missing", "scale of the scores", ((" / np.sqrt(H)", ""),)),
        ("weight-decay", "", ((RETURN, "    return {k: v + 0.01 * p[k] for k, v in G.items()}\n"),)),
        ("update-returned", "", ((RETURN, "    return {k: -0.1 * v for k, v in G.items()}\n"),)),
        ("update-returned", "parameters", ((RETURN, "    return {k: p[k] - 0.1 * v for k, v in G.items()}\n"),)),
        ("clipped", "norm of all", ((RETURN, "    n = np.sqrt(sum((v**2).sum() for v in G.values()))\n    return {k: v * min(1, 0.1 / n) for k, v in G.items()}\n"),)),
    ],
    "normalised": [
        ("normalisation-path-missing", "mean", (("dn - dn.mean() - n", "dn - n"),)),
        ("normalisation-path-missing", "variance", ((" - n * (dn * n).mean()", ""),)),
        ("normalisation-path-missing", "both", (("(dn - dn.mean() - n * (dn * n).mean())", "dn"),)),
        ("epsilon-ignored", "", (("v + EPSILON", "v"),)),
        ("factor-missing", "gain", (('dz * p["g"]', "dz"),)),
        ("factor-missing", "standard deviation", ((".mean()) / s", ".mean())"),)),
    ],
    "embedded": [
        ("repeated-index", "in a lookup", (('np.add.at(G["E"], TOKENS[:, t], deh[:, :2])', 'G["E"][TOKENS[:, t]] += deh[:, :2]'),)),
        ("repeated-index", "in all lookups", (('np.add.at(G["E"], TOKENS[:, t], deh[:, :2])', 'G["E"][TOKENS[:, t]] = deh[:, :2]'),)),
        ("epsilon-ignored", "", (("    ds = q * (dq - (dq * q).sum(1, keepdims=True))\n", "    ds = (q - CLASSES) / 3\n"),)),
        ("hidden-state-off-by-one", "a part of an operand", (("eh.T @ a", "np.concatenate([eh[:, :2], h], axis=1).T @ a"),)),
    ],
    "directions": [
        ("untransposed-recurrent-weight", "both", (('a @ p["W" + k].T', 'a @ p["W" + k]'),)),
        ("untransposed-recurrent-weight", "one", (('a @ p["W" + k].T', 'a @ (p["Wb"] if k == "b" else p["Wf"].T)'),)),
        ("hidden-state-off-by-one", "both", (("states[t].T @ a", "states[t + 1].T @ a"),)),
        ("activation-derivative-twice", "sigmoid", (("(q - LABELS) / B", "(q - LABELS) * q * (1 - q) / B"),)),
        ("sign-flipped", "ascent", (("(q - LABELS) / B", "(LABELS - q) / B"),)),
        ("wrong-operand", "not mirrored", (("read[t].T @ a", "inputs[t].T @ a"),)),
        ("parts-exchanged", "", (("inputs, d_joined[:, :H]", "inputs, d_joined[:, H:]"), ("[::-1], d_joined[:, H:]", "[::-1], d_joined[:, :H]"))),
    ],
    "sequence": [
        ("truncated", "chunks", (('later = p["W"].T @ a', 'later = p["W"].T @ a * (t % 2 != 0)'),)),
        ("output-gradient-missing", "the last loss alone", (("dh = own + later", "dh = own * (t == STEPS - 1) + later"),)),
        ("recurrent-path-dropped", "inputs alone", (('p["U"].T @ a', 'p["U"].T @ (own * (1 - h[t + 1] ** 2))'),)),
        ("activation-derivative-missing", "one weight", (('G["U"] += np.outer(a,', 'G["U"] += np.outer(dh,'),)),
        ("activation-derivative-missing", "carried", (('later = p["W"].T @ a', 'later = p["W"].T @ dh'),)),
        ("activation-derivative-of-preactivation", "", (("(1 - h[t + 1] ** 2)", '(1 - (p["U"] @ p["x"][t] + p["W"] @ h[t]) ** 2)'),)),
        ("activation-derivative-of-another-function", "", (("(1 - h[t + 1] ** 2)", "h[t + 1] * (1 - h[t + 1])"),)),
        ("hidden-state-off-by-one", "slope", (("(1 - h[t + 1] ** 2)", "(1 - (h[t] if t else 0 * h[t]) ** 2)"),)),
        ("clipped", "in the sweep", (('later = p["W"].T @ a', 'later = np.clip(p["W"].T @ a, -0.1, 0.1)'),)),
        ("constant-factor", "carried", (('later = p["W"].T @ a', 'later = p["W"].T @ a / STEPS'),)),
        ("constant-factor", "any factor on a path", (("own = p", "own = 0.37 * p"),)),
    ],
}  # fmt: skip
