"""Derivations in the shapes that public code has, and mistakes of the kinds that are found in it.

States are in dicts by step, in buffers by index, in lists; vectors are rows or columns; the batch
comes first or second. `python -m tests.support.wrong_derivations` lists what the judge says.
"""

from typing import NamedTuple

import numpy as np

from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.own_models import Model, normal, sigmoid

# A character LSTM: column vectors, dicts by step, [h; x] in one operand, two sentences.

H, V = 3, 4
SENTENCES = (([0, 2, 1], [2, 1, 3]), ([3, 0, 0, 1], [0, 0, 1, 2]))


def run_sentence(p, inputs, targets, h, c, xp):
    xs, zs, gates, cs, hs, ps, total = {}, {}, {}, {-1: c}, {-1: h}, {}, 0.0
    for t in range(len(inputs)):
        xs[t] = np.zeros((V, 1))
        xs[t][inputs[t]] = 1
        zs[t] = xp.vstack([hs[t - 1], xs[t]])
        f = sigmoid(p["Wf"] @ zs[t] + p["bf"], xp)
        i = sigmoid(p["Wi"] @ zs[t] + p["bi"], xp)
        g = xp.tanh(p["Wc"] @ zs[t] + p["bc"])
        o = sigmoid(p["Wo"] @ zs[t] + p["bo"], xp)
        cs[t] = f * cs[t - 1] + i * g
        hs[t] = o * xp.tanh(cs[t])
        y = p["Wy"] @ hs[t] + p["by"]
        ps[t] = xp.exp(y) / xp.sum(xp.exp(y))
        gates[t] = f, i, g, o
        total = total - xp.log(ps[t][targets[t], 0])
    return total, zs, gates, cs, hs, ps


def sentences_loss(p, xp):
    zero = xp.zeros((H, 1))
    return sum(run_sentence(p, *each, zero, zero, xp)[0] for each in SENTENCES)


def sentences_gradients(p):
    G = {k: np.zeros_like(v) for k, v in p.items()}
    zero = np.zeros((H, 1))
    dh_next, dc_next = np.zeros((H, 1)), np.zeros((H, 1))
    h, c = zero, zero
    for inputs, targets in SENTENCES:
        _, zs, gates, cs, hs, ps = run_sentence(p, inputs, targets, h, c, np)
        dh_next, dc_next = np.zeros((H, 1)), np.zeros((H, 1))
        for t in reversed(range(len(inputs))):
            f, i, g, o = gates[t]
            dy = ps[t].copy()
            dy[targets[t]] -= 1
            G["Wy"] += dy @ hs[t].T
            G["by"] += dy
            dh = p["Wy"].T @ dy + dh_next
            do = dh * np.tanh(cs[t]) * o * (1 - o)
            dc = dh * o * (1 - np.tanh(cs[t]) ** 2) + dc_next
            dg = dc * i * (1 - g * g)
            di = dc * g * i * (1 - i)
            df = dc * cs[t - 1] * f * (1 - f)
            for k, d in (("f", df), ("i", di), ("c", dg), ("o", do)):
                G["W" + k] += d @ zs[t].T
                G["b" + k] += d
            dz = p["Wf"].T @ df + p["Wi"].T @ di + p["Wc"].T @ dg + p["Wo"].T @ do
            dh_next = dz[:H]
            dc_next = f * dc
    return G


# Two layers in buffers by index, row vectors, lengths that differ, logits of the whole batch.

L, T, N, D = 2, 4, 3, 3
X = normal(T, N, D, scale=1)
ALIVE = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0]])[:, :, None]
LABELS = np.array([[0, 1, 2], [2, 2, 1], [1, 0, 0], [3, 1, 1]])


def run_buffers(p, xp):
    below, layers = [*X], []
    for k in range(L):
        h, states = xp.zeros((N, D)), []
        for t in range(T):
            new = xp.tanh(below[t] @ p["Wx"][k] + h @ p["Wh"][k] + p["b"][k])
            h = ALIVE[t] * new + (1 - ALIVE[t]) * h
            states.append(h)
        layers.append(states)
        below = states
    top = xp.stack(below)
    scores = top @ p["Wo"] + p["bo"]
    e = xp.exp(scores - xp.max(scores, axis=2, keepdims=True))
    probs = e / xp.sum(e, axis=2, keepdims=True)
    picked = ALIVE * np.eye(4)[LABELS] * xp.log(probs)
    return -xp.sum(picked) / np.sum(ALIVE), layers, probs


def buffers_loss(p, xp):
    return run_buffers(p, xp)[0]


def buffers_gradients(p):
    _, layers, probs = run_buffers(p, np)
    h = np.zeros((L, T + 1, N, D))
    for k in range(L):
        h[k, 1:] = layers[k]
    G = {name: np.zeros_like(v) for name, v in p.items()}
    dscores = ALIVE * (probs - np.eye(4)[LABELS]) / ALIVE.sum()
    G["Wo"] = np.einsum("tnh,tnv->hv", h[-1, 1:], dscores)
    G["bo"] = dscores.sum(axis=(0, 1))
    dout = dscores @ p["Wo"].T
    dnext = np.zeros((N, D))
    for k in range(L - 1, -1, -1):
        dnext = np.zeros((N, D))
        below = h[k - 1, 1:] if k else X
        dbelow = np.zeros((T, N, D))
        for t in range(T - 1, -1, -1):
            dh = dout[t] + dnext
            new = np.tanh(below[t] @ p["Wx"][k] + h[k, t] @ p["Wh"][k] + p["b"][k])
            da = ALIVE[t] * dh * (1 - new**2)
            G["Wx"][k] += below[t].T @ da
            G["Wh"][k] += h[k, t].T @ da
            G["b"][k] += da.sum(axis=0)
            dbelow[t] = da @ p["Wx"][k].T
            dnext = da @ p["Wh"][k].T + (1 - ALIVE[t]) * dh
        dout = dbelow
    return G


# An LSTM with peepholes: rows, one packed matrix, lists, a loss of the last state.

FAR = normal(N, 2, scale=1)


def run_packed(p, xp):
    h, c, kept = xp.zeros((N, H)), xp.zeros((N, H)), []
    for t in range(T):
        a = X[t] @ p["Wx"] + h @ p["Wh"] + p["b"]
        i = sigmoid(a[:, :H] + c * p["pi"], xp)
        f = sigmoid(a[:, H : 2 * H] + c * p["pf"], xp)
        g = xp.tanh(a[:, 2 * H : 3 * H])
        new = f * c + i * g
        o = sigmoid(a[:, 3 * H :] + new * p["po"], xp)
        kept.append((h, c, i, f, g, o, new))
        c = new
        h = o * xp.tanh(c)
    y = h @ p["V"] + p["d"]
    return xp.mean((y - FAR) ** 2), kept, h, y


def packed_loss(p, xp):
    return run_packed(p, xp)[0]


def packed_gradients(p):
    _, kept, last, y = run_packed(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dy = 2 * (y - FAR) / y.size
    G["V"] += last.T @ dy
    G["d"] += dy.sum(axis=0)
    dh, dc = dy @ p["V"].T, np.zeros((N, H))
    for t in reversed(range(T)):
        h, c, i, f, g, o, new = kept[t]
        tc = np.tanh(new)
        ao = dh * tc * o * (1 - o)
        dc = dc + dh * o * (1 - tc**2) + ao * p["po"]
        ai = dc * g * i * (1 - i)
        af = dc * c * f * (1 - f)
        ag = dc * i * (1 - g**2)
        da = np.hstack([ai, af, ag, ao])
        G["Wx"] += X[t].T @ da
        G["Wh"] += h.T @ da
        G["b"] += da.sum(axis=0)
        G["pi"] += (ai * c).sum(axis=0)
        G["pf"] += (af * c).sum(axis=0)
        G["po"] += (ao * new).sum(axis=0)
        dh = da @ p["Wh"].T
        dc = dc * f + ai * p["pi"] + af * p["pf"]
    return G


# A GRU over (N, T, D) with biases, and a mean over the steps.

FIRST = X.transpose(1, 0, 2)
GOAL = normal(N, H, scale=1)


def run_gru(p, xp):
    h, kept, total = xp.zeros((N, H)), [], 0.0
    for t in range(T):
        x = FIRST[:, t, :]
        z = sigmoid(x @ p["Wz"] + h @ p["Uz"] + p["bz"], xp)
        r = sigmoid(x @ p["Wr"] + h @ p["Ur"] + p["br"], xp)
        n = xp.tanh(x @ p["Wn"] + r * (h @ p["Un"]) + p["bn"])
        before = h
        h = (1 - z) * before + z * n
        kept.append((x, before, z, r, n))
        total = total + 0.5 * xp.sum((h - GOAL) ** 2)
    return total / (N * T), kept, h


def gru_loss(p, xp):
    return run_gru(p, xp)[0]


def gru_gradients(p):
    _, kept, h = run_gru(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dnext = np.zeros((N, H))
    for x, before, z, r, n in reversed(kept):
        dh = (h - GOAL) / (N * T) + dnext
        an = dh * z * (1 - n**2)
        az = dh * (n - before) * z * (1 - z)
        s = before @ p["Un"]
        ar = an * s * r * (1 - r)
        G["Un"] += before.T @ (an * r)
        for k, a in (("z", az), ("r", ar), ("n", an)):
            G["W" + k] += x.T @ a
            G["b" + k] += a.sum(0)
        G["Uz"] += before.T @ az
        G["Ur"] += before.T @ ar
        dnext = dh * (1 - z) + az @ p["Uz"].T + ar @ p["Ur"].T + (an * r) @ p["Un"].T
        h = before
    return G


# An encoder and a decoder that attends to its states: columns, lists.

SOURCE, TARGET = normal(3, D, scale=1), normal(3, 2, scale=1)


def run_decoder(p, xp):
    h, encoded = xp.zeros(H), []
    for x in SOURCE:
        h = xp.tanh(p["We"] @ x + p["Ue"] @ h)
        encoded.append(h)
    E = xp.stack(encoded)
    s, kept, total = h, [], 0.0
    for y in TARGET:
        before = s
        s = xp.tanh(p["Ud"] @ before + p["bd"])
        scores = E @ (p["Wa"] @ s)
        w = xp.exp(scores - xp.max(scores))
        w = w / xp.sum(w)
        context = w @ E
        out = p["Wc"] @ context + p["Ws"] @ s
        total = total + 0.5 * xp.sum((out - y) ** 2)
        kept.append((before, s, w, context, out - y))
    return total, encoded, E, kept


def decoder_loss(p, xp):
    return run_decoder(p, xp)[0]


def decoder_gradients(p):
    _, encoded, E, kept = run_decoder(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dE, ds_next = np.zeros_like(E), np.zeros(H)
    for before, s, w, context, dout in reversed(kept):
        G["Wc"] += np.outer(dout, context)
        G["Ws"] += np.outer(dout, s)
        dcontext = p["Wc"].T @ dout
        dw = E @ dcontext
        dscores = w * (dw - w @ dw)
        dE += np.outer(w, dcontext)
        dE += np.outer(dscores, p["Wa"] @ s)
        dq = E.T @ dscores
        G["Wa"] += np.outer(dq, s)
        ds = p["Ws"].T @ dout + p["Wa"].T @ dq + ds_next
        da = ds * (1 - s**2)
        G["Ud"] += np.outer(da, before)
        G["bd"] += da
        ds_next = p["Ud"].T @ da
    dh = ds_next
    for t in reversed(range(len(encoded))):
        dh = dh + dE[t]
        da = dh * (1 - encoded[t] ** 2)
        G["We"] += np.outer(da, SOURCE[t])
        G["Ue"] += np.outer(da, encoded[t - 1]) if t else 0
        dh = p["Ue"].T @ da
    return G


# Embedded tokens of a batch, a mean of the states, a softmax over the classes of each sentence.

TOKENS = np.array([[0, 1, 1, 3], [2, 0, 4, 2], [1, 1, 0, 4]])
CLASSES = np.array([0, 2, 1])


def run_classes(p, xp):
    h, states = xp.zeros((N, H)), []
    for t in range(T):
        a = p["E"][TOKENS[:, t]] @ p["U"] + h @ p["W"] + p["b"]
        h = xp.maximum(0.1 * a, a)
        states.append(h)
    mean = sum(states) / T
    logits = mean @ p["V"] + p["c"]
    shifted = logits - xp.max(logits, axis=1, keepdims=True)
    logp = shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))
    penalty = 0.5 * 0.1 * (xp.sum(p["U"] ** 2) + xp.sum(p["V"] ** 2))
    return -xp.mean(logp[np.arange(N), CLASSES]) + penalty, states, mean, logits


def classes_loss(p, xp):
    return run_classes(p, xp)[0]


def classes_gradients(p):
    _, states, mean, logits = run_classes(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    probs = np.exp(logits)
    probs /= probs.sum(axis=1, keepdims=True)
    probs[np.arange(N), CLASSES] -= 1
    probs /= N
    G["V"] += mean.T @ probs + 0.1 * p["V"]
    G["c"] += probs.sum(axis=0)
    dmean = probs @ p["V"].T
    dnext = np.zeros((N, H))
    for t in range(T - 1, -1, -1):
        dh = dmean / T + dnext
        da = np.where(states[t] > 0, dh, 0.1 * dh)
        x = p["E"][TOKENS[:, t]]
        before = states[t - 1] if t > 0 else np.zeros((N, H))
        G["U"] += x.T @ da
        G["W"] += before.T @ da
        G["b"] += da.sum(axis=0)
        np.add.at(G["E"], TOKENS[:, t], da @ p["U"].T)
        dnext = da @ p["W"].T
    G["U"] += 0.1 * p["U"]
    return G


def weights(**shapes):
    return {name: normal(*shape) for name, shape in shapes.items()}


GATES = {k + gate: (D if k == "W" else H, H) for k in "WU" for gate in "zrn"}
MODELS = {
    "sentences": Model(sentences_loss, sentences_gradients, sentences_gradients, weights(**{k + g: ((H, H + V) if k == "W" else (H, 1)) for k in "Wb" for g in "fico"}, Wy=(V, H), by=(V, 1))),
    "buffers": Model(buffers_loss, buffers_gradients, buffers_gradients, weights(Wx=(L, D, D), Wh=(L, D, D), b=(L, D), Wo=(D, 4), bo=(4,))),
    "packed": Model(packed_loss, packed_gradients, packed_gradients, weights(Wx=(D, 4 * H), Wh=(H, 4 * H), b=(4 * H,), pi=(H,), pf=(H,), po=(H,), V=(H, 2), d=(2,))),
    "gru": Model(gru_loss, gru_gradients, gru_gradients, weights(**GATES, bz=(H,), br=(H,), bn=(H,))),
    "decoder": Model(decoder_loss, decoder_gradients, decoder_gradients, weights(We=(H, D), Ue=(H, H), Ud=(H, H), bd=(H,), Wa=(H, H), Wc=(2, H), Ws=(2, H))),
    "classes": Model(classes_loss, classes_gradients, classes_gradients, weights(E=(5, 2), U=(2, H), W=(H, H), b=(H,), V=(H, 4), c=(4,))),
}  # fmt: skip


class Wrong(NamedTuple):
    """A mistake: the model, the names that are right, and the texts that make it."""

    model: str
    names: str
    changes: tuple[tuple[str, str], ...]


def wrong(model: str, names: str, *texts: str) -> Wrong:
    """Make a mistake of texts in pairs, the right one first."""
    return Wrong(model, names, tuple(zip(texts[::2], texts[1::2], strict=True)))


ZERO = "        dh_next, dc_next = np.zeros((H, 1)), np.zeros((H, 1))\n        for"
ZERO_LAYER = "        dnext = np.zeros((N, D))\n        below"
RETURN = "    return G\n"
WRONG = [
    wrong("sentences", "state-not-reset", ZERO, "        for"),
    wrong("sentences", "state-not-reset", "    for inputs, targets in SENTENCES:\n        _, zs, gates, cs, hs, ps = run_sentence(p, inputs, targets, h, c, np)\n", "    for inputs, targets in SENTENCES:\n        _, zs, gates, cs, hs, ps = run_sentence(p, inputs, targets, h, c, np)\n        h, c = hs[len(inputs) - 1], cs[len(inputs) - 1]\n"),
    wrong("sentences", "missing-time-sum bias-part-missing", 'G["by"] += dy', 'G["by"] = dy'),
    wrong("sentences", "missing-time-sum", 'G["W" + k] +=', 'G["W" + k] ='),
    wrong("sentences", "parts-exchanged", "dh_next = dz[:H]", "dh_next = dz[-H:]"),
    wrong("sentences", "hidden-state-off-by-one", "dc * cs[t - 1] * f", "dc * cs[t] * f"),
    wrong("sentences", "recurrent-path-dropped", "(1 - np.tanh(cs[t]) ** 2) + dc_next", "(1 - np.tanh(cs[t]) ** 2)"),
    wrong("sentences", "activation-derivative-of-activated-value", "(1 - np.tanh(cs[t]) ** 2)", "(1 - np.tanh(np.tanh(cs[t])) ** 2)"),
    wrong("sentences", "wrong-operand", "di = dc * g * i * (1 - i)", "di = dc * g * f * (1 - f)"),
    wrong("sentences", "wrong-operand", "do = dh * np.tanh(cs[t]) * o * (1 - o)", "do = dh * cs[t] * o * (1 - o)"),
    wrong("sentences", "bias-part-missing missing-time-sum", 'G["b" + k] += d', 'G["b" + k] = d'),
    wrong("sentences", "clipped", RETURN, "    G = {k: np.clip(v, -0.5, 0.5) for k, v in G.items()}\n" + RETURN),
    wrong("buffers", "softmax-over-wrong-axis", "    dscores = ALIVE * (probs -", "    e = np.exp(h[-1, 1:] @ p['Wo'] + p['bo'])\n    probs = e / e.sum(axis=1, keepdims=True)\n    dscores = ALIVE * (probs -"),
    wrong("buffers", "softmax-over-wrong-axis", "    dscores = ALIVE * (probs -", "    e = np.exp(h[-1, 1:] @ p['Wo'] + p['bo'])\n    probs = e / e.sum()\n    dscores = ALIVE * (probs -"),
    wrong("buffers", "state-not-reset", ZERO_LAYER, "        below"),
    wrong("buffers", "missing-time-sum", 'G["Wh"][k] +=', 'G["Wh"][k] ='),
    wrong("buffers", "missing-time-sum", 'G["Wx"][k] +=', 'G["Wx"][k] ='),
    wrong("buffers", "bias-part-missing missing-time-sum", 'G["b"][k] +=', 'G["b"][k] ='),
    wrong("buffers", "unknown", "ALIVE * (probs - np.eye(4)[LABELS])", "(probs - np.eye(4)[LABELS])"),
    wrong("buffers", "constant-factor", "/ ALIVE.sum()", "/ (N * T)"),
    wrong("buffers", "wrong-operand", 'dbelow[t] = da @ p["Wx"][k].T', 'dbelow[t] = da @ p["Wh"][k].T'),
    wrong("buffers", "untransposed-output-weight", 'dbelow[t] = da @ p["Wx"][k].T', 'dbelow[t] = da @ p["Wx"][k]'),
    wrong("packed", "zero-gradient", " + ao * p[\"po\"]", ""),
    wrong("packed", "zero-gradient recurrent-path-dropped", ' + ai * p["pi"] + af * p["pf"]', ""),
    wrong("packed", "zero-gradient recurrent-path-dropped", ' + af * p["pf"]', ""),
    wrong("packed", "hidden-state-off-by-one", '(ao * new)', '(ao * c)'),
    wrong("packed", "hidden-state-off-by-one", '(af * c)', '(af * new)'),
    wrong("packed", "wrong-operand", "af = dc * c * f * (1 - f)", "af = dc * c * i * (1 - i)"),
    wrong("packed", "wrong-operand", "dc = dc * f +", "dc = dc * i +"),
    wrong("packed", "activation-derivative-incomplete", "ag = dc * i * (1 - g**2)", "ag = dc * i * (1 - g)"),
    wrong("packed", "parts-exchanged", "[ai, af, ag, ao]", "[af, ai, ag, ao]"),
    wrong("packed", "parts-exchanged", "[ai, af, ag, ao]", "[ai, af, ao, ag]"),
    wrong("packed", "constant-factor", "(y - FAR) / y.size", "(y - FAR) / N"),
    wrong("packed", "truncated", "dc = dc * f + ai * p[\"pi\"] + af * p[\"pf\"]", "dc = (t > 1) * (dc * f + ai * p[\"pi\"] + af * p[\"pf\"])", 'dh = da @ p["Wh"].T', 'dh = (t > 1) * da @ p["Wh"].T'),
    wrong("gru", "activation-derivative-missing", "ar = an * s * r * (1 - r)", "ar = an * s"),
    wrong("gru", "factor-missing wrong-operand", "ar = an * s * r", "ar = an * r"),
    wrong("gru", "unknown", "s = before @ p", "s = n @ p"),
    wrong("gru", "factor-missing", 'G["Un"] += before.T @ (an * r)', 'G["Un"] += before.T @ an'),
    wrong("gru", "factor-missing", '(an * r) @ p["Un"].T', 'an @ p["Un"].T'),
    wrong("gru", "sign-flipped", "dh * (n - before)", "dh * (before - n)"),
    wrong("gru", "wrong-operand", "dnext = dh * (1 - z)", "dnext = dh * z"),
    wrong("gru", "zero-gradient factor-missing wrong-operand", "dh * (n - before)", "dh * n"),
    wrong("gru", "zero-gradient missing-time-sum", "(h - GOAL) / (N * T)", "(h - GOAL) / (N * T) * (not dnext.any())"),
    wrong("gru", "constant-factor", "(h - GOAL) / (N * T)", "(h - GOAL) / N"),
    wrong("gru", "recurrent-path-dropped zero-gradient", ' + ar @ p["Ur"].T', ""),
    wrong("gru", "wrong-operand", "az = dh * (n - before) * z * (1 - z)", "az = dh * (n - before) * r * (1 - r)"),
    wrong("decoder", "zero-gradient", " + p[\"Wa\"].T @ dq", ""),
    wrong("decoder", "zero-gradient", "        dE += np.outer(w, dcontext)\n", ""),
    wrong("decoder", "zero-gradient", '        dE += np.outer(dscores, p["Wa"] @ s)\n', ""),
    wrong("decoder", "zero-gradient", "p[\"Ws\"].T @ dout + ", ""),
    wrong("decoder", "softmax-diagonal", "w * (dw - w @ dw)", "w * (1 - w) * dw"),
    wrong("decoder", "untransposed-output-weight", 'p["Wa"].T @ dq', 'p["Wa"] @ dq'),
    wrong("decoder", "transposed-gradient", "np.outer(dq, s)", "np.outer(s, dq)"),
    wrong("decoder", "first-step-skipped", "    dh = ds_next\n", "    dh = np.zeros(H)\n"),
    wrong("decoder", "hidden-state-off-by-one", "np.outer(da, before)", "np.outer(da, s)"),
    wrong("decoder", "missing-time-sum zero-gradient", "        dE += np.outer(w, dcontext)\n", "        dE = np.outer(w, dcontext)\n"),
    wrong("decoder", "hidden-state-off-by-one", "np.outer(da, encoded[t - 1]) if t else 0", "np.outer(da, encoded[t])"),
    wrong("decoder", "negative-index-wraps-around", "np.outer(da, encoded[t - 1]) if t else 0", "np.outer(da, encoded[t - 1])"),
    wrong("classes", "softmax-over-wrong-axis", "probs.sum(axis=1, keepdims=True)", "probs.sum(axis=0, keepdims=True)"),
    wrong("classes", "softmax-over-wrong-axis", "probs.sum(axis=1, keepdims=True)", "probs.sum()"),
    wrong("classes", "repeated-index", 'np.add.at(G["E"], TOKENS[:, t], da @ p["U"].T)', 'G["E"][TOKENS[:, t]] += da @ p["U"].T'),
    wrong("classes", "repeated-index", 'np.add.at(G["E"], TOKENS[:, t], da @ p["U"].T)', 'G["E"][TOKENS[:, t]] = da @ p["U"].T'),
    wrong("classes", "factor-missing constant-factor", "dmean / T", "dmean"),
    wrong("classes", "weight-decay", ' + 0.1 * p["V"]', ""),
    wrong("classes", "weight-decay", '    G["U"] += 0.1 * p["U"]\n', ""),
    wrong("classes", "weight-decay zero-gradient constant-factor", ' + 0.1 * p["V"]', ' + 0.2 * p["V"]'),
    wrong("classes", "output-gradient-missing output-gradient-at-wrong-step zero-gradient", "dh = dmean / T + dnext", "dh = dmean / T * (t == T - 1) + dnext"),
    wrong("classes", "activation-derivative-missing", "np.where(states[t] > 0, dh, 0.1 * dh)", "dh"),
    wrong("classes", "zero-gradient", "np.where(states[t] > 0, dh, 0.1 * dh)", "np.where(states[t] > 0, dh, 0)"),
    wrong("classes", "sign-flipped", "-= 1\n", "+= 1\n"),
    wrong("classes", "factor-missing", "    probs /= N\n", ""),
    wrong("classes", "missing-time-sum", 'G["W"] +=', 'G["W"] ='),
    wrong("classes", "wrong-operand", "probs[np.arange(N), CLASSES] -= 1", "probs[np.arange(N - 1), CLASSES[:-1]] -= 1"),
    wrong("classes", "wrong-operand", "probs[np.arange(N), CLASSES] -= 1", "probs[np.arange(N - 1), CLASSES[1:]] -= 1"),
    wrong("classes", "wrong-operand", "probs[np.arange(N), CLASSES] -= 1", "probs[:, CLASSES] -= 1"),
    wrong("classes", "wrong-operand", "probs[np.arange(N), CLASSES] -= 1", "probs[np.arange(N), np.roll(CLASSES, 1)] -= 1"),
    wrong("classes", "activation-derivative-twice", "    probs /= N\n", "    e = np.exp(logits)\n    e /= e.sum(axis=1, keepdims=True)\n    probs *= e * (1 - e) / N\n"),
]  # fmt: skip


def diagnose_wrong(each: Wrong, dtype: type = np.float64) -> list[set[str]]:
    """Diagnose a mistake: for each that is found, its name and those that it may also be."""
    return diagnose_planted(MODELS[each.model], each, dtype)


def diagnose_planted(model: Model, each: Wrong, dtype: type = np.float64) -> list[set[str]]:
    """Diagnose a mistake in the derivation of a model, which computes in this precision."""
    wrong = plant(model.gradients, *each.changes)
    found = diagnose_numbers(model.loss, model.params, wrong, dtype)
    return [{mistake.name, *mistake.details.get("or", ())} for mistake in found]


def main() -> None:
    """List the mistakes without a name, and those with another name than the right ones."""
    unknown = other = 0
    for each in WRONG:
        names = diagnose_wrong(each)
        unknown += names == [{"unknown"}]
        other += len(names) != 1 or names[0].isdisjoint(each.names.split())
        if names == [{"unknown"}] or len(names) != 1 or names[0].isdisjoint(each.names.split()):
            print(each.model, each.names, each.changes, "→", names)
    print(f"{len(WRONG)} mistakes, {unknown} unknown, {other} with another name")


if __name__ == "__main__":
    main()
