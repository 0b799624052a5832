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

CLASSES = {
    "a class of words by index": Pair(WILD, "RNNNumpy", "self.V.T.dot(delta_o[t]) * (1 - (s[t] ** 2))", "self.V.T.dot(delta_o[t])", "unknown"),
    "a bidirectional class": Pair(BIDIRECTIONAL, None, "dh = self.Ub @ da", "dh = self.Ub.T @ da", "untransposed-recurrent-weight", "self.hb[t] = np.tanh(X[t] @ self.Wb + self.hb[t + 1] @ self.Ub)"),
    "a class for sentences, which updates": Pair(WORDS, "RNN", "temp @ self.last_hs[t].T", "temp @ self.last_hs[t + 1].T", "hidden-state-off-by-one", "h = np.tanh(self.Wxh @ x + self.Whh @ h + self.bh)"),
}  # fmt: skip
