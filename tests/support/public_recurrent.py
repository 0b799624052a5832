"""Recurrent networks with a backward pass by hand, in the styles of public code, with a mistake."""

from typing import NamedTuple


class Pair(NamedTuple):
    """A file with a forward and a backward pass, and a mistake: `wrong` in the place of `right`.

    `name` is the function or class to judge, if the file has several, and `params` the names of its
    parameters, if their gradients are named otherwise. The mistake is to be named
    `mistake`, if that is not empty, at the line `line` of the forward pass, if it is at one.
    """

    source: str
    name: str | None
    right: str
    wrong: str
    mistake: str = ""
    line: str = ""
    params: tuple[str, ...] = ()


HEAD = "import numpy as np\nnp.random.seed(0)\n"
SIGMOID = "def sigmoid(x):\n    return 1 / (1 + np.exp(-x))\n"
TEXT = """text = "hello hollow world"
chars = sorted(set(text))
ix = {c: i for i, c in enumerate(chars)}
V, H = len(chars), 3
"""
MIN_CHAR = f"""{HEAD}{TEXT}
Wxh, Whh = np.random.randn(H, V) * 0.5, np.random.randn(H, H) * 0.5
Why, bh, by = np.random.randn(V, H) * 0.5, np.zeros((H, 1)), np.zeros((V, 1))

def lossFun(inputs, targets, hprev):
    xs, hs, ys, ps = {{}}, {{}}, {{}}, {{}}
    hs[-1] = np.copy(hprev)
    loss = 0
    for t in range(len(inputs)):
        xs[t] = np.zeros((V, 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t-1]) + bh)
        ys[t] = np.dot(Why, hs[t]) + by
        ps[t] = np.exp(ys[t]) / np.sum(np.exp(ys[t]))
        loss += -np.log(ps[t][targets[t], 0])
    dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby = np.zeros_like(bh), np.zeros_like(by)
    dhnext = np.zeros_like(hs[0])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWhy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(Why.T, dy) + dhnext
        dhraw = (1 - hs[t] * hs[t]) * dh
        dbh += dhraw
        dWxh += np.dot(dhraw, xs[t].T)
        dWhh += np.dot(dhraw, hs[t-1].T)
        dhnext = np.dot(Whh.T, dhraw)
    return loss, dWxh, dWhh, dWhy, dbh, dby, hs[len(inputs)-1]

hprev, p = np.zeros((H, 1)), 0
while True:
    inputs = [ix[c] for c in text[p:p+4]]
    targets = [ix[c] for c in text[p+1:p+5]]
    loss, dWxh, dWhh, dWhy, dbh, dby, hprev = lossFun(inputs, targets, hprev)
    p += 4
"""
MIN_LSTM = f"""{HEAD}{TEXT}{SIGMOID}
Z = H + V
Wf, Wi = np.random.randn(H, Z) * 0.5, np.random.randn(H, Z) * 0.5
Wc, Wo = np.random.randn(H, Z) * 0.5, np.random.randn(H, Z) * 0.5
Wy, bf, bi = np.random.randn(V, H), np.zeros((H, 1)), np.zeros((H, 1))
bc, bo, by = np.zeros((H, 1)), np.zeros((H, 1)), np.zeros((V, 1))

def forward(x, h_prev, C_prev):
    z = np.vstack((h_prev, x))
    f = sigmoid(np.dot(Wf, z) + bf)
    i = sigmoid(np.dot(Wi, z) + bi)
    C_bar = np.tanh(np.dot(Wc, z) + bc)
    C = f * C_prev + i * C_bar
    o = sigmoid(np.dot(Wo, z) + bo)
    h = o * np.tanh(C)
    y = np.dot(Wy, h) + by
    p = np.exp(y) / np.sum(np.exp(y))
    return z, f, i, C_bar, C, o, h, p

def forward_backward(inputs, targets, h_prev, C_prev):
    xs, zs, fs, iz, Cb, Cs, os, hs, ps = ({{}} for _ in range(9))
    hs[-1], Cs[-1] = np.copy(h_prev), np.copy(C_prev)
    loss = 0
    for t in range(len(inputs)):
        xs[t] = np.zeros((V, 1))
        xs[t][inputs[t]] = 1
        zs[t], fs[t], iz[t], Cb[t], Cs[t], os[t], hs[t], ps[t] = forward(xs[t], hs[t-1], Cs[t-1])
        loss += -np.log(ps[t][targets[t], 0])
    dWf, dWi, dWc, dWo, dWy = (np.zeros_like(w) for w in (Wf, Wi, Wc, Wo, Wy))
    dbf, dbi, dbc, dbo, dby = (np.zeros_like(b) for b in (bf, bi, bc, bo, by))
    dh_next, dC_next = np.zeros_like(hs[0]), np.zeros_like(Cs[0])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(Wy.T, dy) + dh_next
        do = dh * np.tanh(Cs[t]) * os[t] * (1 - os[t])
        dWo += np.dot(do, zs[t].T)
        dbo += do
        dC = np.copy(dC_next)
        dC += dh * os[t] * (1 - np.tanh(Cs[t]) ** 2)
        dCb = dC * iz[t] * (1 - Cb[t] * Cb[t])
        dWc += np.dot(dCb, zs[t].T)
        dbc += dCb
        di = dC * Cb[t] * iz[t] * (1 - iz[t])
        dWi += np.dot(di, zs[t].T)
        dbi += di
        df = dC * Cs[t-1] * fs[t] * (1 - fs[t])
        dWf += np.dot(df, zs[t].T)
        dbf += df
        dz = Wf.T @ df + Wi.T @ di + Wc.T @ dCb + Wo.T @ do
        dh_next = dz[:H, :]
        dC_next = fs[t] * dC
    return loss, dWf, dWi, dWc, dWo, dWy, dbf, dbi, dbc, dbo, dby, hs[len(inputs)-1], Cs[len(inputs)-1]

forward_backward([ix[c] for c in "hell"], [ix[c] for c in "ello"], np.zeros((H, 1)), np.zeros((H, 1)))
"""
CS_RNN = f"""{HEAD}
def rnn_step_forward(x, prev_h, Wx, Wh, b):
    next_h = np.tanh(x.dot(Wx) + prev_h.dot(Wh) + b)
    cache = (x, prev_h, Wx, Wh, next_h)
    return next_h, cache

def rnn_step_backward(dnext_h, cache):
    x, prev_h, Wx, Wh, next_h = cache
    dtanh = dnext_h * (1 - next_h ** 2)
    return dtanh.dot(Wx.T), dtanh.dot(Wh.T), x.T.dot(dtanh), prev_h.T.dot(dtanh), dtanh.sum(axis=0)

def rnn_forward(x, h0, Wx, Wh, b):
    N, T, D = x.shape
    h = np.zeros((N, T, h0.shape[1]))
    cache, prev_h = [], h0
    for t in range(T):
        h[:, t, :], c = rnn_step_forward(x[:, t, :], prev_h, Wx, Wh, b)
        prev_h = h[:, t, :]
        cache.append(c)
    return h, cache

def rnn_backward(dh, cache):
    N, T, H = dh.shape
    D = cache[0][0].shape[1]
    dx, dprev = np.zeros((N, T, D)), np.zeros((N, H))
    dWx, dWh, db = np.zeros((D, H)), np.zeros((H, H)), np.zeros(H)
    for t in range(T - 1, -1, -1):
        dx[:, t, :], dprev, dWx_t, dWh_t, db_t = rnn_step_backward(dh[:, t, :] + dprev, cache[t])
        dWx += dWx_t
        dWh += dWh_t
        db += db_t
    dh0 = dprev
    return dx, dh0, dWx, dWh, db

x, h0 = np.random.randn(2, 3, 2), np.random.randn(2, 3)
Wx, Wh, b = np.random.randn(2, 3), np.random.randn(3, 3), np.random.randn(3)
h, cache = rnn_forward(x, h0, Wx, Wh, b)
dh = np.random.randn(*h.shape)
rnn_backward(dh, cache)
"""
CS_LSTM = f"""{HEAD}{SIGMOID}
def lstm_forward(x, h0, Wx, Wh, b):
    N, T, D = x.shape
    H = h0.shape[1]
    h, c, cache = np.zeros((N, T, H)), np.zeros((N, H)), []
    prev = h0
    for t in range(T):
        a = x[:, t].dot(Wx) + prev.dot(Wh) + b
        i, f, o = sigmoid(a[:, :H]), sigmoid(a[:, H:2*H]), sigmoid(a[:, 2*H:3*H])
        g = np.tanh(a[:, 3*H:])
        next_c = f * c + i * g
        next_h = o * np.tanh(next_c)
        cache.append((x[:, t], prev, c, i, f, o, g, next_c, Wx, Wh))
        h[:, t, :], prev, c = next_h, next_h, next_c
    return h, cache

def lstm_backward(dh, cache):
    N, T, H = dh.shape
    D = cache[0][0].shape[1]
    dx, dprev, dc = np.zeros((N, T, D)), np.zeros((N, H)), np.zeros((N, H))
    dWx, dWh, db = np.zeros((D, 4*H)), np.zeros((H, 4*H)), np.zeros(4*H)
    for t in reversed(range(T)):
        x, prev_h, prev_c, i, f, o, g, next_c, Wx, Wh = cache[t]
        d = dh[:, t] + dprev
        do = d * np.tanh(next_c)
        dc = dc + d * o * (1 - np.tanh(next_c) ** 2)
        df, di, dg = dc * prev_c, dc * g, dc * i
        da = np.hstack((di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g ** 2)))
        dx[:, t] = da.dot(Wx.T)
        dprev = da.dot(Wh.T)
        dWx += x.T.dot(da)
        dWh += prev_h.T.dot(da)
        db += da.sum(axis=0)
        dc = dc * f
    dh0 = dprev
    return dx, dh0, dWx, dWh, db

x, h0 = np.random.randn(2, 3, 2), np.random.randn(2, 3)
Wx, Wh, b = np.random.randn(2, 12), np.random.randn(3, 12), np.random.randn(12)
h, cache = lstm_forward(x, h0, Wx, Wh, b)
dh = np.random.randn(*h.shape)
lstm_backward(dh, cache)
"""
GRU = f"""{HEAD}{TEXT}{SIGMOID}
model = {{k: np.random.randn(H, V if k[0] == "W" else H) * 0.6 for k in ("Wz", "Wr", "Wh", "Uz", "Ur", "Uh")}}
model["Wy"] = np.random.randn(V, H)
for k, n in (("bz", H), ("br", H), ("bh", H), ("by", V)):
    model[k] = np.zeros((n, 1))

def loss_and_grads(inputs, targets, hprev):
    x, z, r, hh, h, p = {{}}, {{}}, {{}}, {{}}, {{-1: np.copy(hprev)}}, {{}}
    loss = 0
    for t, (i, j) in enumerate(zip(inputs, targets)):
        x[t] = np.zeros((V, 1)); x[t][i] = 1
        z[t] = sigmoid(model["Wz"] @ x[t] + model["Uz"] @ h[t-1] + model["bz"])
        r[t] = sigmoid(model["Wr"] @ x[t] + model["Ur"] @ h[t-1] + model["br"])
        hh[t] = np.tanh(model["Wh"] @ x[t] + model["Uh"] @ (r[t] * h[t-1]) + model["bh"])
        h[t] = z[t] * h[t-1] + (1 - z[t]) * hh[t]
        y = model["Wy"] @ h[t] + model["by"]
        p[t] = np.exp(y) / np.sum(np.exp(y))
        loss -= np.log(p[t][j, 0])
    grads = {{k: np.zeros_like(v) for k, v in model.items()}}
    dh_next = np.zeros((H, 1))
    for t in reversed(range(len(inputs))):
        dy = p[t].copy(); dy[targets[t]] -= 1
        grads["Wy"] += dy @ h[t].T
        grads["by"] += dy
        dh = model["Wy"].T @ dy + dh_next
        dhh = dh * (1 - z[t]) * (1 - hh[t] ** 2)
        grads["Wh"] += dhh @ x[t].T
        grads["Uh"] += dhh @ (r[t] * h[t-1]).T
        grads["bh"] += dhh
        drh = model["Uh"].T @ dhh
        dr = drh * h[t-1] * r[t] * (1 - r[t])
        dz = dh * (h[t-1] - hh[t]) * z[t] * (1 - z[t])
        for k, d in (("z", dz), ("r", dr)):
            grads["W" + k] += d @ x[t].T
            grads["U" + k] += d @ h[t-1].T
            grads["b" + k] += d
        dh_next = dh * z[t] + drh * r[t] + model["Uz"].T @ dz + model["Ur"].T @ dr
    return loss, grads

loss_and_grads([ix[c] for c in "hell"], [ix[c] for c in "ello"], np.zeros((H, 1)))
"""
STACKED = f"""{HEAD}
L, H, T = 2, 3, 3
x, y = np.random.randn(T, H), np.random.randn(T, H)
params = {{"U": [np.random.randn(H, H) for _ in range(L)], "W": [np.random.randn(H, H) for _ in range(L)]}}

def loss_and_grad(params):
    h = [[np.zeros(H)] for _ in range(L)]
    inputs = [list(x)]
    for l in range(L):
        for t in range(T):
            h[l].append(np.tanh(params["U"][l] @ inputs[l][t] + params["W"][l] @ h[l][-1]))
        inputs.append(h[l][1:])
    loss = 0.5 * sum(np.sum((a - b) ** 2) for a, b in zip(h[-1][1:], y))
    grads = {{k: [np.zeros_like(w) for w in v] for k, v in params.items()}}
    d_out = [a - b for a, b in zip(h[-1][1:], y)]
    for l in reversed(range(L)):
        d_next, d_in = np.zeros(H), [None] * T
        for t in reversed(range(T)):
            da = (d_out[t] + d_next) * (1 - h[l][t + 1] ** 2)
            grads["U"][l] += np.outer(da, inputs[l][t])
            grads["W"][l] += np.outer(da, h[l][t])
            d_next = params["W"][l].T @ da
            d_in[t] = params["U"][l].T @ da
        d_out = d_in
    return loss, grads
"""
BINARY = f"""{HEAD}{SIGMOID}
synapse_0, synapse_1 = 2 * np.random.random((2, 3)) - 1, 2 * np.random.random((3, 1)) - 1
synapse_h = 2 * np.random.random((3, 3)) - 1
a, b, c = [0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]

def train_step(synapse_0, synapse_1, synapse_h):
    layer_2_deltas, layer_1_values, overallError = [], [np.zeros(3)], 0
    for position in range(4):
        X = np.array([[a[position], b[position]]])
        y = np.array([[c[position]]]).T
        layer_1 = sigmoid(np.dot(X, synapse_0) + np.dot(layer_1_values[-1], synapse_h))
        layer_2 = sigmoid(np.dot(layer_1, synapse_1))
        layer_2_error = layer_2 - y
        layer_2_deltas.append(layer_2_error * layer_2 * (1 - layer_2))
        overallError += 0.5 * np.sum(layer_2_error ** 2)
        layer_1_values.append(layer_1.copy())
    synapse_0_grad, synapse_1_grad = np.zeros_like(synapse_0), np.zeros_like(synapse_1)
    synapse_h_grad = np.zeros_like(synapse_h)
    future_layer_1_delta = np.zeros(3)
    for position in range(4):
        X = np.array([[a[-position - 1], b[-position - 1]]])
        layer_1, prev_layer_1 = layer_1_values[-position - 1], layer_1_values[-position - 2]
        layer_2_delta = layer_2_deltas[-position - 1]
        layer_1_delta = future_layer_1_delta.dot(synapse_h.T) + layer_2_delta.dot(synapse_1.T)
        layer_1_delta = layer_1_delta * layer_1 * (1 - layer_1)
        synapse_1_grad += np.atleast_2d(layer_1).T.dot(layer_2_delta)
        synapse_h_grad += np.atleast_2d(prev_layer_1).T.dot(layer_1_delta)
        synapse_0_grad += X.T.dot(layer_1_delta)
        future_layer_1_delta = layer_1_delta
    return overallError, synapse_0_grad, synapse_1_grad, synapse_h_grad

train_step(synapse_0, synapse_1, synapse_h)
"""
SEQUENCES = f"""{HEAD}
def softmax(x):
    e_x = np.exp(x - np.max(x, axis=0))
    return e_x / e_x.sum(axis=0)

def rnn_cell_forward(xt, a_prev, parameters):
    a_next = np.tanh(np.dot(parameters["Waa"], a_prev) + np.dot(parameters["Wax"], xt) + parameters["ba"])
    yt = softmax(np.dot(parameters["Wya"], a_next) + parameters["by"])
    return a_next, yt

def model(parameters, x, y):
    n_x, m, T_x = x.shape
    a, preds = np.zeros((3, m, T_x + 1)), np.zeros((2, m, T_x))
    for t in range(T_x):
        a[:, :, t + 1], preds[:, :, t] = rnn_cell_forward(x[:, :, t], a[:, :, t], parameters)
    cost = -np.sum(y * np.log(preds)) / m
    gradients = {{"d" + k: np.zeros_like(v) for k, v in parameters.items()}}
    da_next = np.zeros((3, m))
    for t in reversed(range(T_x)):
        dy = (preds[:, :, t] - y[:, :, t]) / m
        gradients["dWya"] += np.dot(dy, a[:, :, t + 1].T)
        gradients["dby"] += np.sum(dy, axis=1, keepdims=True)
        da = np.dot(parameters["Wya"].T, dy) + da_next
        dtanh = (1 - a[:, :, t + 1] ** 2) * da
        gradients["dWax"] += np.dot(dtanh, x[:, :, t].T)
        gradients["dWaa"] += np.dot(dtanh, a[:, :, t].T)
        gradients["dba"] += np.sum(dtanh, 1, keepdims=True)
        da_next = np.dot(parameters["Waa"].T, dtanh)
    return gradients, cost

x = np.random.randn(2, 4, 3)
y = np.eye(2)[np.random.randint(0, 2, (3, 4))].transpose(2, 1, 0)
parameters = dict(Waa=np.random.randn(3, 3), Wax=np.random.randn(3, 2), Wya=np.random.randn(2, 3),
                  ba=np.random.randn(3, 1), by=np.random.randn(2, 1))
model(parameters, x, y)
"""

TANH_DH = "hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t-1]) + bh)"
RECURRENT = {
    "min-char-rnn": Pair(MIN_CHAR, None, "np.dot(dhraw, hs[t-1].T)", "np.dot(dhraw, hs[t].T)", "hidden-state-off-by-one", TANH_DH),
    "min-char-rnn, transposed": Pair(MIN_CHAR, "lossFun", "np.dot(Whh.T, dhraw)", "np.dot(Whh, dhraw)", "untransposed-recurrent-weight", TANH_DH),
    "min-char-lstm": Pair(MIN_LSTM, "forward_backward", "dC = np.copy(dC_next)", "dC = np.zeros_like(dC_next)", "recurrent-path-dropped", "C = f * C_prev + i * C_bar"),
    "rnn_forward of (N, T, D)": Pair(CS_RNN, "rnn_forward,rnn_backward", "rnn_step_backward(dh[:, t, :] + dprev", "rnn_step_backward(dh[:, t, :]", "recurrent-path-dropped", "next_h = np.tanh(x.dot(Wx) + prev_h.dot(Wh) + b)"),
    "lstm_forward of (N, T, D)": Pair(CS_LSTM, "lstm_forward,lstm_backward", "do * o * (1 - o)", "do * (1 - o)", "activation-derivative-incomplete", "return 1 / (1 + np.exp(-x))"),
    "a GRU in a dict": Pair(GRU, None, "dh * z[t] + drh", "drh", "recurrent-path-dropped", "h[t] = z[t] * h[t-1] + (1 - z[t]) * hh[t]"),
    "stacked layers in lists": Pair(STACKED, None, "(d_out[t] + d_next)", "d_out[t]", "recurrent-path-dropped", 'h[l].append(np.tanh(params["U"][l] @ inputs[l][t] + params["W"][l] @ h[l][-1]))'),
    "binary addition": Pair(BINARY, None, "future_layer_1_delta = layer_1_delta", "future_layer_1_delta = 0 * layer_1_delta", "recurrent-path-dropped", "layer_1 = sigmoid(np.dot(X, synapse_0) + np.dot(layer_1_values[-1], synapse_h))"),
    "sequences of (n_x, m, T_x)": Pair(SEQUENCES, "model", "(1 - a[:, :, t + 1] ** 2) * da", "(1 - a[:, :, t + 1]) * da", "activation-derivative-incomplete", 'a_next = np.tanh(np.dot(parameters["Waa"], a_prev) + np.dot(parameters["Wax"], xt) + parameters["ba"])'),
}  # fmt: skip
