"""Derivations of composed models: layers that are skipped, tied weights, a decoder, gates.

Each has mistakes of a kind that the other tables of derivations lack.
"""

import numpy as np

from tests.support.own_models import Model, normal, sigmoid
from tests.support.wrong_derivations import weights, wrong


def softmax(z, xp):
    e = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


# A GRU with matrices of its own for each gate, a softmax at every step, rows.
TB, NB, VB, HB = 4, 3, 4, 3
IB = np.array([[0, 1, 2, 3], [2, 2, 1, 0], [3, 0, 1, 1]])
LB = np.array([[1, 2, 3, 0], [2, 1, 0, 3], [0, 1, 1, 2]])


def run_gru(p, xp):
    hs, rs, zs, ns, ps, total = [xp.zeros((NB, HB))], [], [], [], [], 0.0
    for t in range(TB):
        x = np.eye(VB)[IB[:, t]]
        h = hs[-1]
        r = sigmoid(x @ p["Wr"] + h @ p["Ur"] + p["br"], xp)
        z = sigmoid(x @ p["Wz"] + h @ p["Uz"] + p["bz"], xp)
        n = xp.tanh(x @ p["Wn"] + r * (h @ p["Un"] + p["cn"]) + p["bn"])
        h = (1 - z) * n + z * h
        prob = softmax(h @ p["Wy"] + p["by"], xp)
        total = total - xp.sum(xp.log(prob[np.arange(NB), LB[:, t]]))
        hs.append(h)
        rs.append(r)
        zs.append(z)
        ns.append(n)
        ps.append(prob)
    return total / (NB * TB), hs, rs, zs, ns, ps


def gru_loss(p, xp):
    return run_gru(p, xp)[0]


def gru_gradients(p):
    _, hs, rs, zs, ns, ps = run_gru(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    dh = np.zeros((NB, HB))
    for t in reversed(range(TB)):
        x, hp = np.eye(VB)[IB[:, t]], hs[t]
        dlog = ps[t].copy()
        dlog[np.arange(NB), LB[:, t]] -= 1
        dlog /= NB * TB
        G["Wy"] += hs[t + 1].T @ dlog
        G["by"] += dlog.sum(0)
        dh = dh + dlog @ p["Wy"].T
        dz = dh * (hp - ns[t]) * zs[t] * (1 - zs[t])
        dn = dh * (1 - zs[t]) * (1 - ns[t] ** 2)
        q = hp @ p["Un"] + p["cn"]
        dr = dn * q * rs[t] * (1 - rs[t])
        dq = dn * rs[t]
        for k, d in (("r", dr), ("z", dz), ("n", dn)):
            G["W" + k] += x.T @ d
            G["b" + k] += d.sum(0)
        G["Ur"] += hp.T @ dr
        G["Uz"] += hp.T @ dz
        G["Un"] += hp.T @ dq
        G["cn"] += dq.sum(0)
        dh = dh * zs[t] + dr @ p["Ur"].T + dz @ p["Uz"].T + dq @ p["Un"].T
    return G


# Two layers, a residual connection and dropout between them.
TC, NC, DC, HC = 4, 2, 3, 3
XC, YC = normal(NC, TC, DC, scale=1), normal(NC, TC, 2, scale=1)
KEEP = (normal(TC, NC, HC, scale=1) > -0.5) / 0.7


def run_residual(p, xp):
    h1, h2, s1, s2, outs = xp.zeros((NC, HC)), xp.zeros((NC, HC)), [], [], []
    s1.append(h1)
    s2.append(h2)
    for t in range(TC):
        h1 = xp.tanh(XC[:, t] @ p["W1"] + h1 @ p["U1"] + p["b1"])
        drop = h1 * KEEP[t]
        h2 = xp.tanh(drop @ p["W2"] + h2 @ p["U2"] + p["b2"])
        outs.append((h2 + drop) @ p["V"])
        s1.append(h1)
        s2.append(h2)
    return s1, s2, outs


def residual_loss(p, xp):
    _, _, outs = run_residual(p, xp)
    return sum(xp.mean((outs[t] - YC[:, t]) ** 2) for t in range(TC)) / TC


def residual_gradients(p):
    s1, s2, outs = run_residual(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    n1, n2 = np.zeros((NC, HC)), np.zeros((NC, HC))
    for t in range(TC)[::-1]:
        dout = 2 * (outs[t] - YC[:, t]) / (NC * 2 * TC)
        drop = s1[t + 1] * KEEP[t]
        G["V"] += (s2[t + 1] + drop).T @ dout
        ds = dout @ p["V"].T
        da2 = (ds + n2) * (1 - s2[t + 1] ** 2)
        G["W2"] += drop.T @ da2
        G["U2"] += s2[t].T @ da2
        G["b2"] += da2.sum(axis=0)
        n2 = da2 @ p["U2"].T
        ddrop = ds + da2 @ p["W2"].T
        da1 = (ddrop * KEEP[t] + n1) * (1 - s1[t + 1] ** 2)
        G["W1"] += XC[:, t].T @ da1
        G["U1"] += s1[t].T @ da1
        G["b1"] += da1.sum(axis=0)
        n1 = da1 @ p["U1"].T
    return G


# Additive attention over the states of an encoder.
TE, DE, HE, QE = 5, 2, 3, 3
XE, QV, YE = normal(TE, DE, scale=1), normal(QE, scale=1), normal(2, scale=1)


def run_attention(p, xp):
    h, hs = xp.zeros(HE), []
    for x in XE:
        h = xp.tanh(p["W"] @ x + p["U"] @ h)
        hs.append(h)
    S = xp.stack(hs)
    u = xp.tanh(S @ p["A"] + QV @ p["B"])
    s = u @ p["v"]
    al = softmax(s, xp)
    ctx = al @ S
    return S, u, al, ctx, p["O"] @ xp.concatenate([ctx, S[-1]])


def attention_loss(p, xp):
    return xp.sum((run_attention(p, xp)[-1] - YE) ** 2)


def attention_gradients(p):
    S, u, al, ctx, out = run_attention(p, np)
    dout = 2 * (out - YE)
    dO = np.outer(dout, np.concatenate([ctx, S[-1]]))
    dcat = p["O"].T @ dout
    dctx, dS = dcat[:HE], np.zeros_like(S)
    dS[-1] += dcat[HE:]
    dal = S @ dctx
    dS += np.outer(al, dctx)
    ds = al * (dal - al @ dal)
    dv = u.T @ ds
    du = np.outer(ds, p["v"]) * (1 - u**2)
    dA = S.T @ du
    dB = np.outer(QV, du.sum(axis=0))
    dS += du @ p["A"].T
    dW, dU, nxt = np.zeros_like(p["W"]), np.zeros_like(p["U"]), np.zeros(HE)
    for t in reversed(range(TE)):
        da = (dS[t] + nxt) * (1 - S[t] ** 2)
        dW += np.outer(da, XE[t])
        if t:
            dU += np.outer(da, S[t - 1])
        nxt = p["U"].T @ da
    return {"W": dW, "U": dU, "A": dA, "B": dB, "v": dv, "O": dO}


# Layer normalisation of the argument in the recurrence.
TF, NF, DF, HF = 3, 3, 2, 4
XF, YF = normal(TF, NF, DF, scale=1), normal(NF, 2, scale=1)


def run_normalised(p, xp):
    h, hs, ns, sd = xp.zeros((NF, HF)), [xp.zeros((NF, HF))], [], []
    for t in range(TF):
        a = XF[t] @ p["W"].T + h @ p["U"].T
        mu = xp.mean(a, axis=1, keepdims=True)
        s = xp.sqrt(xp.mean((a - mu) ** 2, axis=1, keepdims=True) + 1e-3)
        n = (a - mu) / s
        h = xp.tanh(p["g"] * n + p["b"])
        hs.append(h)
        ns.append(n)
        sd.append(s)
    return hs, ns, sd, h @ p["V"].T


def normalised_loss(p, xp):
    return xp.mean(xp.sum((run_normalised(p, xp)[-1] - YF) ** 2, axis=1))


def normalised_gradients(p):
    hs, ns, sd, out = run_normalised(p, np)
    dout = 2 * (out - YF) / NF
    G = {k: np.zeros_like(v) for k, v in p.items()}
    G["V"] = dout.T @ hs[-1]
    dh = dout @ p["V"]
    for t in reversed(range(TF)):
        dn = dh * (1 - hs[t + 1] ** 2)
        G["g"] += (dn * ns[t]).sum(0)
        G["b"] += dn.sum(0)
        dx = dn * p["g"]
        da = (dx - dx.mean(1, keepdims=True) - ns[t] * (dx * ns[t]).mean(1, keepdims=True)) / sd[t]
        G["W"] += da.T @ XF[t]
        G["U"] += da.T @ hs[t]
        dh = da @ p["U"]
    return G


# A language model whose output layer is the embedding.
TH, VH, HH = 5, 4, 3
IH, LH = [0, 3, 1, 1, 2], [3, 1, 1, 2, 0]


def run_tied(p, xp):
    h, hs, probs, total = xp.zeros(HH), [xp.zeros(HH)], [], 0.0
    for t in range(TH):
        h = xp.tanh(p["E"][IH[t]] @ p["W"] + h @ p["U"] + p["b"])
        q = softmax(p["E"] @ h + p["c"], xp)
        total = total - xp.log(q[LH[t]])
        hs.append(h)
        probs.append(q)
    return hs, probs, total


def tied_loss(p, xp):
    return run_tied(p, xp)[-1]


def tied_gradients(p):
    hs, probs, _ = run_tied(p, np)
    dE, dW, dU, db, dc = (np.zeros_like(p[k]) for k in ("E", "W", "U", "b", "c"))
    dh = np.zeros(HH)
    for t in reversed(range(TH)):
        dz = probs[t].copy()
        dz[LH[t]] -= 1
        dE += np.outer(dz, hs[t + 1])
        dc += dz
        dh = dh + p["E"].T @ dz
        da = dh * (1 - hs[t + 1] ** 2)
        dW += np.outer(p["E"][IH[t]], da)
        dU += np.outer(hs[t], da)
        db += da
        dE[IH[t]] += p["W"] @ da
        dh = p["U"] @ da
    return {"E": dE, "W": dW, "U": dU, "b": db, "c": dc}


# An encoder, and a decoder that is fed the targets.
TI, TO, DI, HI = 3, 3, 2, 3
XI, YI = normal(TI, DI, scale=1), normal(TO + 1, 2, scale=1)


def run_decoder(p, xp):
    h, enc = xp.zeros(HI), [xp.zeros(HI)]
    for t in range(TI):
        h = xp.tanh(p["We"] @ XI[t] + p["Ue"] @ h + p["be"])
        enc.append(h)
    s, dec, outs = h, [h], []
    for t in range(TO):
        s = xp.tanh(p["Wd"] @ YI[t] + p["Ud"] @ s + p["bd"])
        dec.append(s)
        outs.append(p["V"] @ s)
    return enc, dec, outs


def decoder_loss(p, xp):
    outs = run_decoder(p, xp)[-1]
    return sum(xp.sum((outs[t] - YI[t + 1]) ** 2) for t in range(TO))


def decoder_gradients(p):
    enc, dec, outs = run_decoder(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    ds = np.zeros(HI)
    for t in range(TO - 1, -1, -1):
        do = 2 * (outs[t] - YI[t + 1])
        G["V"] += np.outer(do, dec[t + 1])
        ds = ds + p["V"].T @ do
        da = (1 - dec[t + 1] ** 2) * ds
        G["Wd"] += np.outer(da, YI[t])
        G["Ud"] += np.outer(da, dec[t])
        G["bd"] += da
        ds = p["Ud"].T @ da
    dh = ds
    for t in range(TI - 1, -1, -1):
        da = (1 - enc[t + 1] ** 2) * dh
        G["We"] += np.outer(da, XI[t])
        G["Ue"] += np.outer(da, enc[t])
        G["be"] += da
        dh = p["Ue"].T @ da
    return G


# An LSTM with packed gates as in PyTorch, and the mean of its states.
TL, NL, DL, HL = 3, 2, 2, 2
XL, YL = normal(NL, TL, DL, scale=1), normal(NL, 1, scale=1)


def run_lstm(p, xp):
    h, c, mem = xp.zeros((NL, HL)), xp.zeros((NL, HL)), []
    acc = 0.0
    for t in range(TL):
        gates = XL[:, t] @ p["w_ih"].T + p["b_ih"] + h @ p["w_hh"].T + p["b_hh"]
        i, f = sigmoid(gates[:, :HL], xp), sigmoid(gates[:, HL : 2 * HL], xp)
        g, o = xp.tanh(gates[:, 2 * HL : 3 * HL]), sigmoid(gates[:, 3 * HL :], xp)
        hp, cp = h, c
        c = f * c + i * g
        h = o * xp.tanh(c)
        acc = acc + h
        mem.append((hp, cp, i, f, g, o, c))
    mean = acc / TL
    return mem, mean, mean @ p["fc"].T


def lstm_loss(p, xp):
    return xp.mean((run_lstm(p, xp)[-1] - YL) ** 2) + 0.01 * xp.sum(p["fc"] ** 2)


def lstm_gradients(p):
    mem, mean, out = run_lstm(p, np)
    dout = 2 * (out - YL) / out.size
    G = {"fc": dout.T @ mean + 0.02 * p["fc"]}
    for k in ("w_ih", "w_hh", "b_ih", "b_hh"):
        G[k] = np.zeros_like(p[k])
    dmean = dout @ p["fc"]
    dh_next, dc_next = np.zeros((NL, HL)), np.zeros((NL, HL))
    for t in reversed(range(TL)):
        hp, cp, i, f, g, o, c = mem[t]
        dh = dmean / TL + dh_next
        dc = dc_next + dh * o * (1 - np.tanh(c) ** 2)
        dgates = np.concatenate(
            [
                dc * g * i * (1 - i),
                dc * cp * f * (1 - f),
                dc * i * (1 - g**2),
                dh * np.tanh(c) * o * (1 - o),
            ],
            axis=1,
        )
        G["w_ih"] += dgates.T @ XL[:, t]
        G["w_hh"] += dgates.T @ hp
        G["b_ih"] += dgates.sum(0)
        G["b_hh"] += dgates.sum(0)
        dh_next = dgates @ p["w_hh"]
        dc_next = dc * f
    return G


MODELS = {
    "gru": Model(gru_loss, gru_gradients, gru_gradients, weights(Wr=(VB, HB), Ur=(HB, HB), br=(HB,), Wz=(VB, HB), Uz=(HB, HB), bz=(HB,), Wn=(VB, HB), Un=(HB, HB), cn=(HB,), bn=(HB,), Wy=(HB, VB), by=(VB,))),
    "residual": Model(residual_loss, residual_gradients, residual_gradients, weights(W1=(DC, HC), U1=(HC, HC), b1=(HC,), W2=(HC, HC), U2=(HC, HC), b2=(HC,), V=(HC, 2))),
    "attention": Model(attention_loss, attention_gradients, attention_gradients, weights(W=(HE, DE), U=(HE, HE), A=(HE, 3), B=(QE, 3), v=(3,), O=(2, 2 * HE))),
    "normalised": Model(normalised_loss, normalised_gradients, normalised_gradients, weights(W=(HF, DF), U=(HF, HF), g=(HF,), b=(HF,), V=(2, HF))),
    "tied": Model(tied_loss, tied_gradients, tied_gradients, weights(E=(VH, HH), W=(HH, HH), U=(HH, HH), b=(HH,), c=(VH,))),
    "decoder": Model(decoder_loss, decoder_gradients, decoder_gradients, weights(We=(HI, DI), Ue=(HI, HI), be=(HI,), Wd=(HI, 2), Ud=(HI, HI), bd=(HI,), V=(2, HI))),
    "lstm": Model(lstm_loss, lstm_gradients, lstm_gradients, weights(w_ih=(4 * HL, DL), w_hh=(4 * HL, HL), b_ih=(4 * HL,), b_hh=(4 * HL,), fc=(1, HL))),
}  # fmt: skip

WRONG = [
    wrong('gru', 'wrong-operand', 'G["Un"] += hp.T @ dq', 'G["Un"] += (rs[t] * hp).T @ dn'),
    wrong('gru', 'factor-missing', 'dq = dn * rs[t]', 'dq = dn'),
    wrong('residual', 'activation-derivative-missing', '(ds + n2) * (1 - s2[t + 1] ** 2)', 'ds * (1 - s2[t + 1] ** 2) + n2'),
    wrong('residual', 'factor-on-another-path', '(ddrop * KEEP[t] + n1)', '(ddrop + n1) * KEEP[t]'),
    wrong('attention', 'softmax-denominator', 'al * (dal - al @ dal)', 'al * (dal - dal.sum())'),
    wrong('attention', 'softmax-denominator', 'al * (dal - al @ dal)', 'dal - al * dal.sum()'),
    wrong('attention', 'softmax-denominator', 'al * (dal - al @ dal)', 'al * (dal - dal.mean())'),
    wrong('normalised', 'factor-twice', '/ sd[t]\n', '/ sd[t] ** 2\n'),
    wrong('tied', 'repeated-index', 'dE[IH[t]] += p["W"] @ da', 'dE[IH[t]] = p["W"] @ da'),
    wrong('tied', 'input-off-by-one', 'dE[IH[t]] += p["W"] @ da', 'dE[LH[t]] += p["W"] @ da'),
    wrong('decoder', 'wrong-operand', '        ds = p["Ud"].T @ da\n', '        ds = p["Ud"].T @ da if t else da\n'),
    wrong('decoder', 'input-off-by-one', 'YI[t + 1])\n        G["V"]', 'YI[t])\n        G["V"]'),
    wrong('lstm', 'factor-twice', 'dc = dc_next + dh * o', 'dc = dc_next * f + dh * o'),
    wrong('lstm', 'factor-twice', 'dc_next = dc * f\n', 'dc_next = dc * f * f\n'),
    wrong('attention', 'softmax-diagonal', 'al * (dal - al @ dal)', 'al * (1 - al) * dal'),
    wrong('attention', 'zero-gradient', '    dS += np.outer(al, dctx)\n', ''),
    wrong('attention', 'zero-gradient', '    dS += du @ p["A"].T\n', ''),
    wrong('attention', 'zero-gradient', '    dS[-1] += dcat[HE:]\n', ''),
    wrong('normalised', 'normalisation-path-missing', ' - ns[t] * (dx * ns[t]).mean(1, keepdims=True)', ''),
    wrong('normalised', 'normalisation-path-missing', 'dx - dx.mean(1, keepdims=True) -', 'dx -'),
    wrong('normalised', 'normalisation-path-missing', '(dx - dx.mean(1, keepdims=True) - ns[t] * (dx * ns[t]).mean(1, keepdims=True)) / sd[t]', 'dx'),
    wrong('normalised', 'epsilon-ignored', '/ sd[t]\n', '/ np.sqrt(sd[t] ** 2 - 1e-3)\n'),
    wrong('decoder', 'first-step-skipped recurrent-path-dropped', '    dh = ds\n', '    dh = np.zeros(HI)\n'),
    wrong('decoder', 'truncated first-step-skipped', '        ds = p["Ud"].T @ da\n', '        ds = (t != 1) * p["Ud"].T @ da\n'),
    wrong('lstm', 'weight-decay', ' + 0.02 * p["fc"]', ''),
    wrong('lstm', 'recurrent-path-dropped', '        dc_next = dc * f\n', ''),
    wrong('residual', 'factor-missing', '(ddrop * KEEP[t] + n1)', '(ddrop + n1)'),
    wrong('residual', 'factor-missing', '(ddrop * KEEP[t] + n1)', '(ddrop * (KEEP[t] > 0) + n1)'),
    wrong('residual', 'constant-factor', '(NC * 2 * TC)', '(NC * 2 * TC * TC)'),
    wrong('tied', 'recurrent-path-dropped wrong-operand', 'np.outer(hs[t], da)', 'np.outer(hs[t], p["E"].T @ dz * (1 - hs[t + 1] ** 2))'),
    wrong('residual', 'recurrent-path-dropped', 's1[t].T @ da1', 's1[t].T @ (ddrop * KEEP[t] * (1 - s1[t + 1] ** 2))'),
    wrong('tied', 'truncated', '        dh = p["U"] @ da\n', '        dh = (t % 2 == 0) * p["U"] @ da\n'),
    wrong("attention", "wrong-operand", "dO = np.outer(dout, np.concatenate([ctx, S[-1]]))", "dO = np.outer(dout, np.concatenate([S[-1], ctx]))"),
    wrong('normalised', 'wrong-operand', '(dn * ns[t]).sum(0)', '(dn * hs[t + 1]).sum(0)'),
    wrong('attention', 'activation-derivative-missing', 'al * (dal - al @ dal)', 'dal'),
    wrong('lstm', 'wrong-adjoint', 'dc * g * i * (1 - i)', 'dh * g * i * (1 - i)'),
    wrong('residual', 'wrong-adjoint', 'n1 = da1 @ p["U1"].T', 'n1 = da2 @ p["U1"].T'),
    wrong('decoder', 'state-overwritten', '    enc, dec, outs = run_decoder(p, np)\n', '    enc, dec, outs = run_decoder(p, np)\n    enc = [enc[-1]] * len(enc)\n'),
    wrong('normalised', 'state-overwritten', '    hs, ns, sd, out = run_normalised(p, np)\n', '    hs, ns, sd, out = run_normalised(p, np)\n    hs = [hs[-1]] * len(hs)\n'),
    wrong('gru', 'steps-in-wrong-order', 'reversed(range(TB))', 'range(TB)'),
    wrong('normalised', 'steps-in-wrong-order', 'reversed(range(TF))', 'range(TF)'),
    wrong('tied', 'steps-in-wrong-order', 'reversed(range(TH))', 'range(TH)'),
    wrong('gru', 'factor-twice', 'dq = dn * rs[t]', 'dq = dn * rs[t] * rs[t]'),
    wrong('residual', 'factor-twice', 'ddrop * KEEP[t] + n1', 'ddrop * KEEP[t] * KEEP[t] + n1'),
    wrong("gru", "wrong-operand", "dlog[np.arange(NB), LB[:, t]] -= 1", "dlog[np.arange(1, NB), LB[1:, t]] -= 1"),
    wrong("gru", "wrong-operand", "dlog[np.arange(NB), LB[:, t]] -= 1", "dlog[np.arange(NB - 1), LB[1:, t]] -= 1"),
    wrong("gru", "wrong-operand", "dlog[np.arange(NB), LB[:, t]] -= 1", "dlog[:, LB[:, t]] -= 1"),
    wrong("gru", "input-off-by-one", "dlog[np.arange(NB), LB[:, t]] -= 1", "dlog[np.arange(NB), LB[:, t - 1]] -= 1"),
    wrong("gru", "input-off-by-one", "dlog[np.arange(NB), LB[:, t]] -= 1", "dlog[np.arange(NB), IB[:, t]] -= 1"),
    wrong('tied', 'activation-derivative-twice', 'dz[LH[t]] -= 1\n', 'dz[LH[t]] -= 1\n        dz *= probs[t] * (1 - probs[t])\n'),
    wrong('gru', 'activation-derivative-twice', 'dlog /= NB * TB', 'dlog *= ps[t] * (1 - ps[t]) / (NB * TB)'),
]  # fmt: skip
