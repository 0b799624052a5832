"""Whole files of public code: layers, models and functions of a file, with a mistake."""

from tests.support.public_recurrent import Pair

CAPTIONS = """import numpy as np
def rnn_step_forward(x, prev_h, Wx, Wh, b):
    next_h = np.tanh(x.dot(Wx) + prev_h.dot(Wh) + b)
    cache = (x, prev_h, Wx, Wh, next_h)
    return next_h, cache
def rnn_step_backward(dnext_h, cache):
    x, prev_h, Wx, Wh, next_h = cache
    da = dnext_h * (1 - next_h ** 2)
    return da.dot(Wx.T), da.dot(Wh.T), x.T.dot(da), prev_h.T.dot(da), da.sum(axis=0)
def rnn_forward(x, h0, Wx, Wh, b):
    N, T, D = x.shape
    H = b.shape[0]
    h, cache = np.zeros((N, T, H)), []
    prev = h0
    for t in range(T):
        prev, c = rnn_step_forward(x[:, t, :], prev, Wx, Wh, b)
        h[:, t, :] = prev
        cache.append(c)
    return h, cache
def rnn_backward(dh, cache):
    N, T, H = dh.shape
    D = cache[0][0].shape[1]
    dx, dprev = np.zeros((N, T, D)), np.zeros((N, H))
    dWx, dWh, db = np.zeros((D, H)), np.zeros((H, H)), np.zeros(H)
    for t in reversed(range(T)):
        dx[:, t], dprev, dwx, dwh, d = rnn_step_backward(dh[:, t] + dprev, cache[t])
        dWx += dwx; dWh += dwh; db += d
    return dx, dprev, dWx, dWh, db
def word_embedding_forward(x, W):
    return W[x, :], (x, W)
def word_embedding_backward(dout, cache):
    x, W = cache
    dW = np.zeros_like(W)
    np.add.at(dW, x, dout)
    return dW
def temporal_affine_forward(x, w, b):
    N, T, D = x.shape
    return x.reshape(N * T, D).dot(w).reshape(N, T, -1) + b, (x, w, b)
def temporal_affine_backward(dout, cache):
    x, w, b = cache
    N, T, D = x.shape
    M = b.shape[0]
    return dout.reshape(N * T, M).dot(w.T).reshape(N, T, D), x.reshape(N * T, D).T.dot(dout.reshape(N * T, M)), dout.sum(axis=(0, 1))
def temporal_softmax_loss(x, y, mask, verbose=False):
    N, T, V = x.shape
    xf, yf, mf = x.reshape(N * T, V), y.reshape(N * T), mask.reshape(N * T)
    probs = np.exp(xf - np.max(xf, axis=1, keepdims=True))
    probs /= np.sum(probs, axis=1, keepdims=True)
    loss = -np.sum(mf * np.log(probs[np.arange(N * T), yf])) / N
    dx = probs.copy()
    dx[np.arange(N * T), yf] -= 1
    dx /= N
    dx *= mf[:, None]
    if verbose: print('dx_flat: ', dx.shape)
    return loss, dx.reshape(N, T, V)
class CaptioningRNN:
    def __init__(self, word_to_idx, input_dim=4, wordvec_dim=3, hidden_dim=5, dtype=np.float64):
        self.word_to_idx = word_to_idx
        self._null = word_to_idx['<NULL>']
        self.params = {}
        V = len(word_to_idx)
        rs = np.random.RandomState(0)
        self.params['W_embed'] = rs.randn(V, wordvec_dim)
        self.params['W_proj'] = rs.randn(input_dim, hidden_dim) / np.sqrt(input_dim)
        self.params['b_proj'] = np.zeros(hidden_dim)
        self.params['Wx'] = rs.randn(wordvec_dim, hidden_dim) / np.sqrt(wordvec_dim)
        self.params['Wh'] = rs.randn(hidden_dim, hidden_dim) / np.sqrt(hidden_dim)
        self.params['b'] = np.zeros(hidden_dim)
        self.params['W_vocab'] = rs.randn(hidden_dim, V) / np.sqrt(hidden_dim)
        self.params['b_vocab'] = np.zeros(V)
        for k, v in self.params.items():
            self.params[k] = v.astype(dtype)
    def loss(self, features, captions):
        captions_in, captions_out = captions[:, :-1], captions[:, 1:]
        mask = (captions_out != self._null)
        p = self.params
        h0 = features.dot(p['W_proj']) + p['b_proj']
        x, c_embed = word_embedding_forward(captions_in, p['W_embed'])
        h, c_rnn = rnn_forward(x, h0, p['Wx'], p['Wh'], p['b'])
        s, c_aff = temporal_affine_forward(h, p['W_vocab'], p['b_vocab'])
        loss, ds = temporal_softmax_loss(s, captions_out, mask)
        grads = {}
        dh, grads['W_vocab'], grads['b_vocab'] = temporal_affine_backward(ds, c_aff)
        dx, dh0, grads['Wx'], grads['Wh'], grads['b'] = rnn_backward(dh, c_rnn)
        grads['W_embed'] = word_embedding_backward(dx, c_embed)
        grads['W_proj'] = features.T.dot(dh0)
        grads['b_proj'] = dh0.sum(axis=0)
        return loss, grads
word_to_idx = {'<NULL>': 0, 'cat': 2, 'dog': 3, 'the': 1}
model = CaptioningRNN(word_to_idx)
features = np.linspace(-1.5, .3, 8).reshape(2, 4)
captions = (np.arange(10) % 4).reshape(2, 5)
loss, grads = model.loss(features, captions)
"""
LANGUAGE_MODEL = """import numpy as np
class TimeAffine:
    def __init__(self, W, b):
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]
        self.x = None
    def forward(self, x):
        N, T, D = x.shape
        W, b = self.params
        rx = x.reshape(N*T, -1)
        out = np.dot(rx, W) + b
        self.x = x
        return out.reshape(N, T, -1)
    def backward(self, dout):
        x = self.x
        N, T, D = x.shape
        W, b = self.params
        dout = dout.reshape(N*T, -1)
        rx = x.reshape(N*T, -1)
        db = np.sum(dout, axis=0)
        dW = np.dot(rx.T, dout)
        dx = np.dot(dout, W.T)
        dx = dx.reshape(*x.shape)
        self.grads[0][...] = dW
        self.grads[1][...] = db
        return dx
class RNN:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cache = None
    def forward(self, x, h_prev):
        Wx, Wh, b = self.params
        t = np.dot(h_prev, Wh) + np.dot(x, Wx) + b
        h_next = np.tanh(t)
        self.cache = (x, h_prev, h_next)
        return h_next
    def backward(self, dh_next):
        Wx, Wh, b = self.params
        x, h_prev, h_next = self.cache
        dt = dh_next * (1 - h_next ** 2)
        db = np.sum(dt, axis=0)
        dWh = np.dot(h_prev.T, dt)
        dh_prev = np.dot(dt, Wh.T)
        dWx = np.dot(x.T, dt)
        dx = np.dot(dt, Wx.T)
        self.grads[0][...] = dWx
        self.grads[1][...] = dWh
        self.grads[2][...] = db
        return dx, dh_prev
class TimeRNN:
    def __init__(self, Wx, Wh, b, stateful=False):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.layers = None
        self.h, self.dh = None, None
        self.stateful = stateful
    def forward(self, xs):
        Wx, Wh, b = self.params
        N, T, D = xs.shape
        D, H = Wx.shape
        self.layers = []
        hs = np.empty((N, T, H))
        if not self.stateful or self.h is None:
            self.h = np.zeros((N, H))
        for t in range(T):
            layer = RNN(*self.params)
            self.h = layer.forward(xs[:, t, :], self.h)
            hs[:, t, :] = self.h
            self.layers.append(layer)
        return hs
    def backward(self, dhs):
        Wx, Wh, b = self.params
        N, T, H = dhs.shape
        D, H = Wx.shape
        dxs = np.empty((N, T, D))
        dh = 0
        grads = [0, 0, 0]
        for t in reversed(range(T)):
            layer = self.layers[t]
            dx, dh = layer.backward(dhs[:, t, :] + dh)
            dxs[:, t, :] = dx
            for i, grad in enumerate(layer.grads):
                grads[i] += grad
        for i, grad in enumerate(grads):
            self.grads[i][...] = grad
        self.dh = dh
        return dxs
class TimeSoftmaxWithLoss:
    def __init__(self):
        self.params, self.grads = [], []
        self.cache = None
    def forward(self, xs, ts):
        N, T, V = xs.shape
        xs = xs.reshape(N * T, V); ts = ts.reshape(N * T)
        ys = np.exp(xs - xs.max(axis=1, keepdims=True)); ys /= ys.sum(axis=1, keepdims=True)
        ls = np.log(ys[np.arange(N * T), ts])
        loss = -np.sum(ls)
        loss /= N * T
        self.cache = (ts, ys, (N, T, V))
        return loss
    def backward(self, dout=1):
        ts, ys, (N, T, V) = self.cache
        dx = ys
        dx[np.arange(N * T), ts] -= 1
        dx *= dout
        dx /= N * T
        return dx.reshape((N, T, V))
class TimeEmbedding:
    def __init__(self, W):
        self.params = [W]
        self.grads = [np.zeros_like(W)]
        self.idx = None
    def forward(self, idx):
        W, = self.params
        self.idx = idx
        return W[idx]
    def backward(self, dout):
        dW, = self.grads
        dW[...] = 0
        np.add.at(dW, self.idx, dout)
        return None
class SimpleRnnlm:
    def __init__(self, vocab_size, wordvec_size, hidden_size):
        V, D, H = vocab_size, wordvec_size, hidden_size
        rn = np.random.randn
        embed_W = (rn(V, D) / 2)
        rnn_Wx = (rn(D, H) / np.sqrt(D))
        rnn_Wh = (rn(H, H) / np.sqrt(H))
        rnn_b = np.zeros(H)
        affine_W = (rn(H, V) / np.sqrt(H))
        affine_b = np.zeros(V)
        self.layers = [TimeEmbedding(embed_W), TimeRNN(rnn_Wx, rnn_Wh, rnn_b, stateful=True), TimeAffine(affine_W, affine_b)]
        self.loss_layer = TimeSoftmaxWithLoss()
        self.rnn_layer = self.layers[1]
        self.params, self.grads = [], []
        for layer in self.layers:
            self.params += layer.params
            self.grads += layer.grads
    def forward(self, xs, ts):
        for layer in self.layers:
            xs = layer.forward(xs)
        loss = self.loss_layer.forward(xs, ts)
        return loss
    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout
np.random.seed(0)
model = SimpleRnnlm(5, 3, 4)
xs = np.array([[0, 1, 2, 3], [4, 3, 1, 1]]); ts = np.array([[1, 2, 3, 4], [3, 1, 1, 0]])
loss = model.forward(xs, ts)
model.backward()
"""
ANNOTATED = """from typing import NamedTuple
import numpy as np
class Params(NamedTuple):
    W_xh: np.ndarray
    W_hh: np.ndarray
    b_h: np.ndarray
    W_hq: np.ndarray
    b_q: np.ndarray
def init(seed=0):
    g = np.random.default_rng(seed)
    return Params(g.normal(size=(3, 4)), .5 * g.normal(size=(4, 4)), np.zeros(4), g.normal(size=(4, 3)), np.zeros(3))
def forward_backward(params: Params, X, Y):
    W_xh, W_hh, b_h, W_hq, b_q = params
    T, B, _ = X.shape
    H = np.zeros((B, 4))
    states, outs = [H], []
    for x in X:
        H = np.tanh(x @ W_xh + H @ W_hh + b_h)
        states.append(H)
        outs.append(H @ W_hq + b_q)
    logits = np.concatenate(outs, axis=0)
    m = logits.max(axis=1, keepdims=True)
    lp = logits - m - np.log(np.exp(logits - m).sum(axis=1, keepdims=True))
    loss = -lp[range(len(Y)), Y].mean()
    d = np.exp(lp); d[range(len(Y)), Y] -= 1; d /= len(Y)
    d = d.reshape(T, B, -1)
    g = {k: np.zeros_like(getattr(params, k)) for k in Params._fields}
    dH = np.zeros((B, 4))
    for t in range(T)[::-1]:
        g["W_hq"] += states[t + 1].T @ d[t]; g["b_q"] += d[t].sum(axis=0)
        dA = (d[t] @ W_hq.T + dH) * (1 - np.square(states[t + 1]))
        g["W_xh"] += X[t].T @ dA; g["W_hh"] += states[t].T @ dA; g["b_h"] += dA.sum(axis=0)
        dH = dA @ W_hh.T
    return loss, Params(**g)
params = init()
g = np.random.default_rng(1)
X = np.eye(3)[g.integers(0, 3, (4, 2))]; Y = g.integers(0, 3, 8)
loss, grads = forward_backward(params, X, Y)
"""
ENCODER = """import numpy as np
np.random.seed(3)
def train_step(params, src, tgt):
    # unpack
    E, Wx, Wh, Wa, Wc, Wo = (params[k] for k in ["E", "Wx", "Wh", "Wa", "Wc", "Wo"])
    grads = {k: np.zeros(v.shape) for k, v in params.items()}
    # ---------- encoder
    S = len(src)
    H = Wh.shape[0]
    enc = np.zeros((S, H))
    h = np.zeros(H)
    for i in range(S):
        h = np.tanh(E[src[i]].dot(Wx) + h.dot(Wh))
        enc[i] = h
    # ---------- attention from the last state
    q = enc[-1].dot(Wa)
    scores = enc.dot(q) / np.sqrt(H)
    alpha = np.exp(scores - np.max(scores))
    alpha = alpha / np.sum(alpha)
    ctx = alpha.dot(enc)
    # ---------- output
    o = np.tanh(np.concatenate([ctx, enc[-1]]).dot(Wc))
    logits = o.dot(Wo)
    p = np.exp(logits - logits.max()); p = p / p.sum()
    loss = -np.log(p[tgt])
    # ---------- backward
    dlogits = p.copy()
    dlogits[tgt] -= 1.0
    grads["Wo"] = np.outer(o, dlogits)
    do = Wo.dot(dlogits) * (1 - o ** 2)
    cat = np.concatenate([ctx, enc[-1]])
    grads["Wc"] = np.outer(cat, do)
    dcat = Wc.dot(do)
    dctx = dcat[:H]
    denc = np.zeros_like(enc)
    denc[-1] += dcat[H:]
    dalpha = enc.dot(dctx)
    denc += np.outer(alpha, dctx)
    dscores = alpha * (dalpha - np.sum(alpha * dalpha))
    dscores /= np.sqrt(H)
    denc += np.outer(dscores, q)
    dq = enc.T.dot(dscores)
    grads["Wa"] = np.outer(enc[-1], dq)
    denc[-1] += Wa.dot(dq)
    dh = np.zeros(H)
    for i in reversed(range(S)):
        dh = dh + denc[i]
        da = dh * (1 - enc[i] ** 2)
        prev = enc[i - 1] if i > 0 else np.zeros(H)
        grads["Wh"] += np.outer(prev, da)
        grads["Wx"] += np.outer(E[src[i]], da)
        grads["E"][src[i]] += Wx.dot(da)
        dh = Wh.dot(da)
    return loss, grads
params = {"E": np.random.randn(6, 3), "Wx": np.random.randn(3, 4), "Wh": np.random.randn(4, 4) * .5,
          "Wa": np.random.randn(4, 4), "Wc": np.random.randn(8, 4), "Wo": np.random.randn(4, 5)}
loss, grads = train_step(params, [0, 3, 3, 5], 2)
for k in params: params[k] -= 0.1 * grads[k]
"""
VECTOR = """import numpy as np
D, H, O = 2, 3, 1
SHAPES = [(H, D), (H, H), (H,), (O, H)]
def unpack(theta):
    out, i = [], 0
    for s in SHAPES:
        n = int(np.prod(s)); out.append(theta[i:i+n].reshape(s)); i += n
    return out
def f(theta, X, y):
    U, W, b, V = unpack(theta)
    hs = [np.zeros(H)]
    for x in X:
        hs.append(np.tanh(U @ x + W @ hs[-1] + b))
    e = V @ hs[-1] - y
    cost = float(e @ e)
    dV = 2 * np.outer(e, hs[-1])
    dU, dW, db = np.zeros_like(U), np.zeros_like(W), np.zeros_like(b)
    dh = 2 * V.T @ e
    for t in range(len(X) - 1, -1, -1):
        da = dh * (1 - hs[t + 1] ** 2)
        dU += np.outer(da, X[t]); dW += np.outer(da, hs[t]); db += da
        dh = W.T @ da
    return cost, np.concatenate([dU.ravel(), dW.ravel(), db.ravel(), dV.ravel()])
rng = np.random.default_rng(0)
theta = rng.normal(size=sum(int(np.prod(s)) for s in SHAPES)) * .6
X = rng.normal(size=(5, D)); y = rng.normal(size=O)
print(f(theta, X, y)[0])
"""

FILES = {
    "a captioning class with a method loss": Pair(CAPTIONS, "CaptioningRNN", "np.add.at(dW, x, dout)", "dW[x] += dout", "repeated-index", "return W[x, :], (x, W)"),
    "layers with lists of parameters and gradients": Pair(LANGUAGE_MODEL, "model", "dx, dh = layer.backward(dhs[:, t, :] + dh)", "dx, dh = layer.backward(dhs[:, t, :])", "recurrent-path-dropped", "t = np.dot(h_prev, Wh) + np.dot(x, Wx) + b"),
    "an annotated named tuple": Pair(ANNOTATED, None, "dH = dA @ W_hh.T", "dH = dA @ W_hh", "untransposed-recurrent-weight", "H = np.tanh(x @ W_xh + H @ W_hh + b_h)"),
    "an encoder and attention in one function": Pair(ENCODER, None, "dscores = alpha * (dalpha - np.sum(alpha * dalpha))", "dscores = alpha * dalpha", "softmax-denominator", "alpha = alpha / np.sum(alpha)"),
    "a vector of parameters": Pair(VECTOR, "f", "dh = W.T @ da", "dh = W.T @ da * 0.5", "constant-factor", "hs.append(np.tanh(U @ x + W @ hs[-1] + b))"),
}  # fmt: skip
