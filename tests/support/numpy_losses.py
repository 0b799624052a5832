"""Forward passes in plain NumPy, in the styles of public code, each as `loss(params)`.

None of them is written for the judge: buffers are assigned to, masks select, dicts are keyed by t.
"""

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import exp, tanh
from scipy import special

rng = np.random.default_rng(11)
LOSSES: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {}


def normal(*shape: int) -> Any:
    return 0.6 * rng.normal(size=shape)


def model(**params: Any) -> Callable[[Any], Any]:
    def add(loss: Any) -> Any:
        LOSSES[loss.__name__] = loss, params
        return loss

    return add


def rnn(inputs: int, hidden: int, outputs: int) -> dict[str, Any]:
    return {
        "U": normal(hidden, inputs), "W": normal(hidden, hidden), "V": normal(outputs, hidden),
        "b": normal(hidden, 1), "c": normal(outputs, 1),
    }  # fmt: skip


N, T, D, H, O = 2, 3, 2, 3, 2
X, Y = normal(N, T, D), normal(N, O)
TOKENS, NEXT = [0, 2, 1], [2, 1, 0]
WORDS = "not be hello".split()
CHARS = sorted(set("".join(WORDS)))
INDEX = {c: i for i, c in enumerate(CHARS)}


@model(**rnn(3, H, 3))
def characters_in_dicts_keyed_by_t(p):
    xs, hs, ys, ps = {}, {}, {}, {}
    hs[-1] = np.copy(np.zeros((H, 1)))
    loss = 0
    for t in range(len(TOKENS)):
        xs[t] = np.zeros((3, 1))
        xs[t][TOKENS[t]] = 1
        hs[t] = np.tanh(np.dot(p["U"], xs[t]) + np.dot(p["W"], hs[t - 1]) + p["b"])
        ys[t] = np.dot(p["V"], hs[t]) + p["c"]
        ps[t] = np.exp(ys[t]) / np.sum(np.exp(ys[t]))
        loss += -np.log(ps[t][NEXT[t], 0])
    return loss


@model(**rnn(len(CHARS), H, len(CHARS)))
def words_with_one_hot_rows(p):
    total = np.float64(0)
    for word in WORDS:
        codes = [INDEX[c] for c in word]
        one_hot = np.zeros((len(codes), len(CHARS)))
        one_hot[np.arange(len(codes)), codes] = 1.0
        h = np.zeros(H)
        for x, target in zip(one_hot[:-1], codes[1:], strict=True):
            h = tanh(p["U"].dot(x) + p["W"].dot(h) + p["b"].ravel())
            scores = p["V"].dot(h) + p["c"].flatten()
            scores -= scores.max()
            total -= scores[target] - np.log(exp(scores).sum())
    return total / len(WORDS)


@model(Wx=normal(D, H), Wh=normal(H, H), b=normal(H), Wy=normal(H, O), by=normal(O))
def batches_in_a_buffer_of_all_steps(p):
    h = np.zeros((N, T, H))
    prev = np.zeros((N, H))
    for t in range(T):
        prev = np.tanh(X[:, t, :] @ p["Wx"] + prev @ p["Wh"] + p["b"])
        h[:, t, :] = prev
    out = h.reshape(N * T, -1).dot(p["Wy"]).reshape(N, T, -1) + p["by"]
    return np.mean((out[:, -1, :] - Y) ** 2)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@model(U=normal(H, 3), W=normal(H, H), V=normal(3, H))
def softmax_at_every_step_in_buffers(p):
    steps = len(TOKENS)
    s = np.zeros((steps + 1, H))
    s[-1] = np.zeros(H)
    o = np.empty((steps, 3))
    for t in np.arange(steps):
        s[t] = np.tanh(p["U"][:, TOKENS[t]] + p["W"].dot(s[t - 1]))
        o[t] = softmax(p["V"].dot(s[t]))
    return -1 * np.sum(np.log(o[np.arange(len(NEXT)), NEXT])) / float(steps)


def sigmoid_by_masks(x):
    positive, negative = x >= 0, x < 0
    z = np.zeros_like(x)
    z[positive] = np.exp(-x[positive])
    z[negative] = np.exp(x[negative])
    top = np.ones_like(x)
    top[negative] = z[negative]
    return top / (1 + z)


@model(Wx=normal(D, 4 * H), Wh=normal(H, 4 * H), b=normal(4 * H), V=normal(H, O))
def lstm_with_gates_of_one_product(p):
    h, c = np.zeros((N, H)), np.zeros((N, H))
    for t in range(T):
        a = X[:, t].dot(p["Wx"]) + h.dot(p["Wh"]) + p["b"]
        i, f, o = (sigmoid_by_masks(a[:, k * H : (k + 1) * H]) for k in range(3))
        g = np.tanh(a[:, 3 * H :])
        c = f * c + i * g
        h = o * np.tanh(c)
    return np.sum((h @ p["V"] - Y) ** 2) / (2 * N)


@model(Wf=normal(H, H + D), Wi=normal(H, H + D), Wc=normal(H, H + D), Wo=normal(H, H + D),
       bf=normal(H, 1), Wy=normal(O, H))  # fmt: skip
def lstm_of_concatenated_columns(p):
    a, c = np.zeros((H, N)), np.zeros((H, N))
    loss = []
    for t in range(T):
        concat = np.zeros((H + D, N))
        concat[:H, :] = a
        concat[H:, :] = X[:, t].T
        ft = special.expit(np.dot(p["Wf"], concat) + p["bf"])
        it = special.expit(np.dot(p["Wi"], concat))
        cct = np.tanh(np.dot(p["Wc"], concat))
        c = ft * c + it * cct
        a = special.expit(np.dot(p["Wo"], concat)) * np.tanh(c)
        loss.append(np.square(p["Wy"] @ a - Y.T).sum())
    return sum(loss) / len(loss)


@model(Wx=normal(3, H, D), Wh=normal(3, H, H), b=normal(3, H), V=normal(H))
def gru_with_gates_in_buffers(p):
    z, r, n = (np.zeros((T, H)) for _ in range(3))
    h = np.zeros((T + 1, H))
    for t in range(T):
        x = X[0, t]
        np.dot(p["Wx"][0], x, out=z[t])
        z[t] += p["Wh"][0].dot(h[t]) + p["b"][0]
        z[t] = 1 / (1 + np.exp(-z[t]))
        r[t, :] = 1.0 / (1.0 + np.exp(-(p["Wx"][1] @ x + p["Wh"][1] @ h[t] + p["b"][1])))
        np.tanh(p["Wx"][2] @ x + p["Wh"][2] @ (r[t] * h[t]) + p["b"][2], out=n[t])
        h[t + 1] = np.add(np.multiply(z[t], h[t]), (1 - z[t]) * n[t])
    return (h[1:] @ p["V"]).std() + np.linalg.norm(h[-1])


class Layer:
    def __init__(self, Wx, Wh, reverse=False):
        self.Wx, self.Wh, self.reverse = Wx, Wh, reverse
        self.cache = []

    def forward(self, x):
        order = range(x.shape[1])
        h = np.zeros((x.shape[0], self.Wh.shape[0]), dtype=x.dtype)
        states = np.empty((x.shape[0], x.shape[1], h.shape[1]))
        for t in reversed(order) if self.reverse else order:
            h = np.tanh(np.matmul(x[:, t], self.Wx) + np.matmul(h, self.Wh))
            states[:, t] = h
            self.cache.append((t, h.copy()))
        return states


@model(A=normal(D, H), B=normal(H, H), C=normal(H, H), E=normal(H, H))
def stacked_layers_of_classes(p):
    layers = [Layer(p["A"], p["B"]), Layer(p["C"], p["E"])]
    x = X
    for layer in layers:
        x = layer.forward(x)
    return 0.5 * ((x[:, -1] - np.ones((N, H)) / 3) ** 2).mean(axis=0).sum()


@model(A=normal(D, H), B=normal(H, H), C=normal(D, H), E=normal(H, H), V=normal(2 * H, O))
def bidirectional(p):
    forward = Layer(p["A"], p["B"]).forward(X)
    backward = Layer(p["C"], p["E"], reverse=True).forward(X)
    both = np.concatenate((forward, backward), axis=2)
    scores = np.einsum("nth,ho->nto", both, p["V"])
    probabilities = softmax(scores).reshape(-1, O)
    picked = probabilities[np.arange(len(probabilities)), [0, 1] * T]
    return -np.log(picked + 1e-12).mean()


@model(Wq=normal(D, H), Wk=normal(D, H), Wv=normal(D, H))
def masked_attention(p):
    out = np.zeros((N, T, H))
    for n, x in enumerate(X):
        q, k, v = x @ p["Wq"], x @ p["Wk"], x @ p["Wv"]
        scores = q @ k.T / np.sqrt(H)
        scores[np.triu_indices(T, 1)] = -1e9
        weights = np.exp(scores - scores.max(axis=1)[:, np.newaxis])
        weights /= weights.sum(axis=1, keepdims=True)
        out[n] = weights @ v
    return np.sum(out[:, -1] * Y[:, :1]) + np.abs(out).sum()


@model(E=normal(4, H), W=normal(H, H), Q=normal(H, H), V=normal(H, 4))
def encoder_and_attending_decoder(p):
    source, target = [3, 1, 2], [1, 0]
    states = []
    h = np.zeros(H)
    for token in source:
        h = np.tanh(p["E"][token] + h @ p["W"])
        states.append(h)
    memory = np.array(states)
    total = 0.0
    for token in target:
        align = memory.dot(p["Q"]).dot(h)
        context = np.sum(softmax(align)[:, None] * memory, axis=0)
        logits = np.tanh(np.r_[h, context].reshape(2, -1).sum(0)) @ p["V"]
        total += special.logsumexp(logits) - logits[token]
        h = np.tanh(p["E"][token] + context + h @ p["W"])
    return total


@model(U=normal(H, D), W=normal(H, H), v=normal(H))
def relu_by_masks_and_leaks(p):
    h = np.zeros(H)
    for t in range(T):
        a = np.dot(p["U"], X[0, t]) + np.dot(p["W"], h)
        if t % 2:
            a[a < 0] *= 0.1
        else:
            a[a < 0] = 0
        h = np.maximum(a, 0.01 * a)
    return float(h.dot(p["v"])) ** 2 + max(0, h[0]) + math.exp(-h[1])


State = namedtuple("State", "h c")


@model(W=normal(4 * H, D + H + 1))
def lstm_of_named_tuples_and_stacks(p):
    def step(state, x):
        z = np.hstack((1, x, state.h))
        gates = np.split(p["W"].dot(z), 4)
        i, f, o = map(special.expit, gates[:3])
        c = np.add(f * state.c, i * np.tanh(gates[3]))
        return State(o * np.tanh(c), c)

    state, outputs = State(np.zeros(H), np.zeros(H)), []
    for x in X[1]:
        state = step(state, x)
        outputs.append(state.h)
    return np.vstack(outputs).T.dot(np.ones(T)).prod()


@model(E=normal(4, H), W=normal(H, H), b=normal(H))
def embeddings_of_ragged_lists(p):
    batch = [[0, 3, 3], [2], [1, 0]]
    lengths = np.array([len(row) for row in batch])
    padded = np.zeros((len(batch), lengths.max()), dtype=int)
    mask = np.zeros(padded.shape, bool)
    for i, row in enumerate(batch):
        padded[i, : len(row)] = row
        mask[i, : len(row)] = True
    h = np.zeros((len(batch), H))
    for t in range(padded.shape[1]):
        new = np.tanh(p["E"][padded[:, t]] + h @ p["W"] + p["b"])
        h[mask[:, t]] = new[mask[:, t]]
    counts = np.zeros(4)
    np.add.at(counts, padded[mask], p["b"][0] * h[0, 0])
    return (h[:, 0] * lengths).sum() + np.where(mask, 1.0, 0.0).sum() * h.var() + counts @ counts


@model(U=normal(H, D), W=normal(H, H), g=normal(H))
def normalised_states_and_clipped_sums(p):
    h = np.zeros((H, N), dtype=np.float64)
    penalty = np.zeros(())
    for x in np.transpose(X, (1, 2, 0)):
        a = p["U"] @ x
        np.add(a, p["W"] @ h, out=a)
        mean, var = a.mean(axis=0), a.var(axis=0)
        a -= mean
        a /= np.sqrt(var + 1e-5)
        h = np.clip(a * p["g"][:, None], -5, 5)
        penalty += np.square(h).sum()
    if penalty > 1e-3:
        penalty = np.minimum(penalty, 100.0)
    return penalty.item() * 0.1 + h.max() - h.T[0].min()


@model(U=normal(D, H), W=normal(H, H), V=normal(H, 1))
def teacher_forced_series_in_views(p):
    series = np.linspace(0, 1, T + 2).reshape(-1, 1)
    windows = np.stack([series[i : i + 2].ravel() for i in range(T)])
    states = np.zeros((T + 1, H))
    current, following = states[:-1], states[1:]
    predictions = np.zeros_like(series[:T])
    for t, window in enumerate(windows):
        np.tanh(window @ p["U"] + current[t] @ p["W"], out=following[t])
        predictions[t] = following[t] @ p["V"]
    errors = predictions - series[2:]
    huber = np.where(np.abs(errors) < 0.5, 0.5 * errors**2, 0.5 * (np.abs(errors) - 0.25))
    return np.average(huber) + 1e-2 * sum((w**2).sum() for w in p.values())


@model(W=normal(3 * D, H), U=normal(H, H))
def batch_of_windows_by_columns(p):
    column = np.hstack([X[:, k : k + 1] for k in range(T)]).reshape(N, -1).T
    state = np.full((H, N), 0.1)
    for _ in range(2):
        previous = state.copy()
        state = p["W"].T.dot(column) + np.dot(p["U"], previous)
        state = np.vectorize(math.tanh)(state)
    log_p = special.log_softmax(state, axis=0)
    cross_entropy = -(special.softmax(previous, axis=0) * log_p).sum(axis=0)
    return np.round(cross_entropy.mean() * 0) + cross_entropy.tolist()[0] + cross_entropy[-1]
