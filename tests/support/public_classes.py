"""Recurrent networks as classes with a backward pass by hand, in the styles of public code."""

from tests.support.public_recurrent import HEAD, Pair

WILD = f"""{HEAD}
def softmax(z):
    e = np.exp(z - np.max(z))
    return e / np.sum(e)

class RNNNumpy:
    def __init__(self, word_dim, hidden_dim=3, bptt_truncate=9):
        self.word_dim, self.hidden_dim, self.bptt_truncate = word_dim, hidden_dim, bptt_truncate
        self.U = np.random.uniform(-0.7, 0.7, (hidden_dim, word_dim))
        self.V = np.random.uniform(-0.7, 0.7, (word_dim, hidden_dim))
        self.W = np.random.uniform(-0.7, 0.7, (hidden_dim, hidden_dim))

    def forward_propagation(self, x):
        T = len(x)
        s = np.zeros((T + 1, self.hidden_dim))
        o = np.zeros((T, self.word_dim))
        for t in np.arange(T):
            s[t] = np.tanh(self.U[:, x[t]] + self.W.dot(s[t-1]))
            o[t] = softmax(self.V.dot(s[t]))
        return [o, s]

    def calculate_loss(self, x, y):
        o, s = self.forward_propagation(x)
        return -1 * np.sum(np.log(o[np.arange(len(y)), y]))

    def bptt(self, x, y):
        T = len(y)
        o, s = self.forward_propagation(x)
        dLdU, dLdV, dLdW = np.zeros(self.U.shape), np.zeros(self.V.shape), np.zeros(self.W.shape)
        delta_o = o
        delta_o[np.arange(len(y)), y] -= 1.
        for t in np.arange(T)[::-1]:
            dLdV += np.outer(delta_o[t], s[t].T)
            delta_t = self.V.T.dot(delta_o[t]) * (1 - (s[t] ** 2))
            for bptt_step in np.arange(max(0, t - self.bptt_truncate), t + 1)[::-1]:
                dLdW += np.outer(delta_t, s[bptt_step-1])
                dLdU[:, x[bptt_step]] += delta_t
                delta_t = self.W.T.dot(delta_t) * (1 - s[bptt_step-1] ** 2)
        return [dLdU, dLdV, dLdW]

x_train, y_train = [0, 3, 1, 2], [3, 1, 2, 4]
model = RNNNumpy(5)
model.calculate_loss(x_train, y_train)
model.forward_propagation(x_train)
model.bptt(x_train, y_train)
"""
BIDIRECTIONAL = f"""{HEAD}
class BiRNN:
    def __init__(self, D=2, H=2, O=2):
        self.Wf, self.Uf = np.random.randn(D, H), np.random.randn(H, H)
        self.Wb, self.Ub = np.random.randn(D, H), np.random.randn(H, H)
        self.Wo = np.random.randn(2 * H, O)
        self.H = H

    def forward(self, X, Y):
        T = X.shape[0]
        self.X = X
        self.hf, self.hb = np.zeros((T + 1, self.H)), np.zeros((T + 1, self.H))
        for t in range(T):
            self.hf[t + 1] = np.tanh(X[t] @ self.Wf + self.hf[t] @ self.Uf)
        for t in range(T - 1, -1, -1):
            self.hb[t] = np.tanh(X[t] @ self.Wb + self.hb[t + 1] @ self.Ub)
        self.cat = np.concatenate([self.hf[1:], self.hb[:-1]], axis=1)
        self.err = self.cat @ self.Wo - Y
        return np.mean(self.err ** 2)

    def backward(self):
        T = len(self.X)
        d = 2 * self.err / self.err.size
        grads = {{"Wo": self.cat.T @ d}}
        dcat = d @ self.Wo.T
        for k in ("Wf", "Uf", "Wb", "Ub"):
            grads[k] = np.zeros_like(getattr(self, k))
        dh = np.zeros(self.H)
        for t in reversed(range(T)):
            da = (dcat[t, :self.H] + dh) * (1 - self.hf[t + 1] ** 2)
            grads["Wf"] += np.outer(self.X[t], da)
            grads["Uf"] += np.outer(self.hf[t], da)
            dh = self.Uf @ da
        dh = np.zeros(self.H)
        for t in range(T):
            da = (dcat[t, self.H:] + dh) * (1 - self.hb[t] ** 2)
            grads["Wb"] += np.outer(self.X[t], da)
            grads["Ub"] += np.outer(self.hb[t + 1], da)
            dh = self.Ub @ da
        return grads

net = BiRNN()
net.forward(np.random.randn(3, 2), np.random.randn(3, 2))
net.backward()
"""
WORDS = f"""{HEAD}
data = ["good", "bad", "very good", "not bad at all", "not good"]
vocab = list(set(w for s in data for w in s.split(" ")))
vocab.sort()
word_to_idx = {{w: i for i, w in enumerate(vocab)}}

def createInputs(text):
    inputs = []
    for w in text.split(" "):
        v = np.zeros((len(vocab), 1))
        v[word_to_idx[w]] = 1
        inputs.append(v)
    return inputs

class RNN:
    def __init__(self, input_size, output_size, hidden_size=3):
        self.Whh = np.random.randn(hidden_size, hidden_size)
        self.Wxh = np.random.randn(hidden_size, input_size)
        self.Why = np.random.randn(output_size, hidden_size)
        self.bh, self.by = np.zeros((hidden_size, 1)), np.zeros((output_size, 1))

    def forward(self, inputs):
        h = np.zeros((self.Whh.shape[0], 1))
        self.last_inputs = inputs
        self.last_hs = {{0: h}}
        for i, x in enumerate(inputs):
            h = np.tanh(self.Wxh @ x + self.Whh @ h + self.bh)
            self.last_hs[i + 1] = h
        y = self.Why @ h + self.by
        return y, h

    def backprop(self, d_y, learn_rate=2e-2):
        n = len(self.last_inputs)
        d_Why = d_y @ self.last_hs[n].T
        d_by = d_y
        d_Whh, d_Wxh = np.zeros(self.Whh.shape), np.zeros(self.Wxh.shape)
        d_bh = np.zeros(self.bh.shape)
        d_h = self.Why.T @ d_y
        for t in reversed(range(n)):
            temp = (1 - self.last_hs[t + 1] ** 2) * d_h
            d_bh += temp
            d_Whh += temp @ self.last_hs[t].T
            d_Wxh += temp @ self.last_inputs[t].T
            d_h = self.Whh.T @ temp
        self.Whh -= learn_rate * d_Whh
        self.Wxh -= learn_rate * d_Wxh
        self.Why -= learn_rate * d_Why
        self.bh -= learn_rate * d_bh
        self.by -= learn_rate * d_by

rnn = RNN(len(vocab), 2)
out, _ = rnn.forward(createInputs(data[3]))
probs = np.exp(out) / sum(np.exp(out))
probs[1] -= 1
rnn.backprop(probs)
"""
TRAINED = """import numpy as np
from random import uniform
class DataReader:
    def __init__(self, path, seq_length):
        with open(path) as file:
            self.data = file.read()
        chars = list(set(self.data))
        self.char_to_ix = {ch: i for (i, ch) in enumerate(chars)}
        self.ix_to_char = {i: ch for (i, ch) in enumerate(chars)}
        self.vocab_size = len(chars)
        self.pointer = 0
        self.seq_length = seq_length
    def next_batch(self):
        s, e = self.pointer, self.pointer + self.seq_length
        inputs = [self.char_to_ix[ch] for ch in self.data[s:e]]
        targets = [self.char_to_ix[ch] for ch in self.data[s + 1:e + 1]]
        self.pointer += self.seq_length
        if self.pointer + self.seq_length + 1 >= len(self.data):
            self.pointer = 0
        return inputs, targets
    def just_started(self):
        return self.pointer == 0
class RNN:
    def __init__(self, hidden_size, vocab_size, seq_length, learning_rate):
        self.hidden_size, self.vocab_size, self.seq_length, self.learning_rate = hidden_size, vocab_size, seq_length, learning_rate
        self.U = np.random.uniform(-np.sqrt(1. / vocab_size), np.sqrt(1. / vocab_size), (hidden_size, vocab_size))
        self.V = np.random.uniform(-np.sqrt(1. / hidden_size), np.sqrt(1. / hidden_size), (vocab_size, hidden_size))
        self.W = np.random.uniform(-np.sqrt(1. / hidden_size), np.sqrt(1. / hidden_size), (hidden_size, hidden_size))
        self.b = np.zeros((hidden_size, 1))
        self.c = np.zeros((vocab_size, 1))
        self.mU, self.mW, self.mV = np.zeros_like(self.U), np.zeros_like(self.W), np.zeros_like(self.V)
        self.mb, self.mc = np.zeros_like(self.b), np.zeros_like(self.c)
    def softmax(self, x):
        p = np.exp(x - np.max(x))
        return p / np.sum(p)
    def forward(self, inputs, hprev):
        xs, hs, os, ycap = {}, {}, {}, {}
        hs[-1] = np.copy(hprev)
        for t in range(len(inputs)):
            xs[t] = np.zeros((self.vocab_size, 1))
            xs[t][inputs[t]] = 1
            hs[t] = np.tanh(np.dot(self.U, xs[t]) + np.dot(self.W, hs[t - 1]) + self.b)
            os[t] = np.dot(self.V, hs[t]) + self.c
            ycap[t] = self.softmax(os[t])
        return xs, hs, ycap
    def backward(self, xs, hs, ps, targets):
        dU, dW, dV = np.zeros_like(self.U), np.zeros_like(self.W), np.zeros_like(self.V)
        db, dc = np.zeros_like(self.b), np.zeros_like(self.c)
        dhnext = np.zeros_like(hs[0])
        for t in reversed(range(self.seq_length)):
            dy = np.copy(ps[t])
            dy[targets[t]] -= 1
            dV += np.dot(dy, hs[t].T)
            dc += dy
            dh = np.dot(self.V.T, dy) + dhnext
            dhrec = (1 - hs[t] * hs[t]) * dh
            db += dhrec
            dU += np.dot(dhrec, xs[t].T)
            dW += np.dot(dhrec, hs[t - 1].T)
            dhnext = np.dot(self.W.T, dhrec)
        return dU, dW, dV, db, dc
    def loss(self, ps, targets):
        return sum(-np.log(ps[t][targets[t], 0]) for t in range(self.seq_length))
    def update_model(self, dU, dW, dV, db, dc):
        for param, dparam, mem in zip([self.U, self.W, self.V, self.b, self.c], [dU, dW, dV, db, dc], [self.mU, self.mW, self.mV, self.mb, self.mc]):
            mem += dparam * dparam
            param += -self.learning_rate * dparam / np.sqrt(mem + 1e-8)
    def train(self, data_reader, n=5):
        iter_num = 0
        while iter_num < n:
            if data_reader.just_started():
                hprev = np.zeros((self.hidden_size, 1))
            inputs, targets = data_reader.next_batch()
            xs, hs, ps = self.forward(inputs, hprev)
            dU, dW, dV, db, dc = self.backward(xs, hs, ps, targets)
            loss = self.loss(ps, targets)
            self.update_model(dU, dW, dV, db, dc)
            hprev = hs[self.seq_length - 1]
            print("iter :%d, loss:%f" % (iter_num, loss))
            iter_num += 1
if __name__ == "__main__":
    import os
    seq_length = 5
    data_reader = DataReader(os.path.join(os.path.dirname(__file__), "input.txt"), seq_length)
    rnn = RNN(hidden_size=4, vocab_size=data_reader.vocab_size, seq_length=seq_length, learning_rate=1e-1)
    rnn.train(data_reader)
"""
LOGGED = """import argparse, logging, pickle
import numpy as np
logging.basicConfig(level=logging.INFO)
log = logging.getLogger(__name__)
class Vanilla:
    def __init__(self, n_in=3, n_h=4, n_out=2, l2=1e-2, seed=1):
        g = np.random.default_rng(seed)
        self.p = dict(W_in=g.standard_normal((n_in, n_h)), W_h=g.standard_normal((n_h, n_h)) * .5, b=np.full(n_h, .1), W_out=g.standard_normal((n_h, n_out)))
        self.l2 = l2
    def loss_and_grad(self, x, y):
        p = self.p
        T, N, _ = x.shape
        h = [np.zeros((N, p["W_h"].shape[0]))]
        a = []
        for t in range(T):
            a.append(x[t] @ p["W_in"] + h[-1] @ p["W_h"] + p["b"])
            h.append(np.maximum(a[-1], 0))
        z = h[-1] @ p["W_out"]
        lse = np.log(np.sum(np.exp(z - z.max(1, keepdims=True)), 1)) + z.max(1)
        loss = np.mean(lse - z[np.arange(N), y]) + .5 * self.l2 * sum(np.sum(p[k] ** 2) for k in p if k != "b")
        log.info("loss %.4f", loss)
        q = np.exp(z - lse[:, None]); q[np.arange(N), y] -= 1; q /= N
        grad = {"W_out": h[-1].T @ q, "W_in": np.zeros_like(p["W_in"]), "W_h": np.zeros_like(p["W_h"]), "b": np.zeros_like(p["b"])}
        dh = q @ p["W_out"].T
        for t in reversed(range(T)):
            da = dh * (a[t] > 0)
            grad["W_in"] += x[t].T @ da
            grad["W_h"] += h[t].T @ da
            grad["b"] += da.sum(0)
            dh = da @ p["W_h"].T
        for k in grad:
            if k != "b":
                grad[k] += self.l2 * p[k]
        return loss, grad
def main(argv=None):
    ap = argparse.ArgumentParser()
    ap.add_argument("--steps", type=int, default=2)
    args = ap.parse_args(argv if argv is not None else [])
    net = Vanilla()
    g = np.random.default_rng(0)
    x, y = g.standard_normal((5, 6, 3)), g.integers(0, 2, 6)
    for i in range(args.steps):
        l, gr = net.loss_and_grad(x, y)
        for k in net.p: net.p[k] -= .1 * gr[k]
    pickle.dumps(net.p)
if __name__ == "__main__":
    main()
"""

CLASSES = {
    "a class of words by index": Pair(WILD, "RNNNumpy", "self.V.T.dot(delta_o[t]) * (1 - (s[t] ** 2))", "self.V.T.dot(delta_o[t])", "activation-derivative-missing", "o[t] = softmax(self.V.dot(s[t]))"),
    "a bidirectional class": Pair(BIDIRECTIONAL, None, "dh = self.Ub @ da", "dh = self.Ub.T @ da", "untransposed-recurrent-weight", "self.hb[t] = np.tanh(X[t] @ self.Wb + self.hb[t + 1] @ self.Ub)"),
    "a class for sentences, which updates": Pair(WORDS, "RNN", "temp @ self.last_hs[t].T", "temp @ self.last_hs[t + 1].T", "hidden-state-off-by-one", "h = np.tanh(self.Wxh @ x + self.Whh @ h + self.bh)"),
    "a class that trains in the main program": Pair(TRAINED, None, "dc += dy\n", "dc += dc\n", "zero-gradient"),
    "a class that logs its loss": Pair(LOGGED, None, 'if k != "b":\n                grad', 'if k not in ("b", "W_h"):\n                grad', 'weight-decay'),
}  # fmt: skip
