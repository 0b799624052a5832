"""A character model in plain NumPy, as one trains it, with one mistake to find.

    bptt verify --own examples/char_rnn.py

The forward pass keeps its states in dicts and arrays that it assigns to. Nothing is rewritten.
"""

import numpy as np

text = "hello world"
chars = sorted(set(text))
index = {char: i for i, char in enumerate(chars)}
tokens = [index[char] for char in text]
vocabulary, hidden = len(chars), 6

rng = np.random.default_rng(0)
params = {
    "Wxh": 0.3 * rng.normal(size=(hidden, vocabulary)),
    "Whh": 0.3 * rng.normal(size=(hidden, hidden)),
    "Why": 0.3 * rng.normal(size=(vocabulary, hidden)),
    "bh": np.zeros((hidden, 1)),
    "by": np.zeros((vocabulary, 1)),
}


def forward(p):
    xs, hs, probs = {}, {-1: np.zeros((hidden, 1))}, {}
    total = 0
    for t in range(len(tokens) - 1):
        xs[t] = np.zeros((vocabulary, 1))
        xs[t][tokens[t]] = 1
        hs[t] = np.tanh(np.dot(p["Wxh"], xs[t]) + np.dot(p["Whh"], hs[t - 1]) + p["bh"])
        scores = np.dot(p["Why"], hs[t]) + p["by"]
        scores -= np.max(scores)
        probs[t] = np.exp(scores) / np.sum(np.exp(scores))
        total += -np.log(probs[t][tokens[t + 1], 0])
    return total, xs, hs, probs


def loss(p):
    return forward(p)[0]


def gradients(p):
    _, xs, hs, probs = forward(p)
    grads = {name: np.zeros_like(value) for name, value in p.items()}
    dh_next = np.zeros((hidden, 1))
    for t in reversed(range(len(tokens) - 1)):
        dy = np.copy(probs[t])
        dy[tokens[t + 1]] -= 1
        grads["Why"] += np.dot(dy, hs[t].T)
        grads["by"] += dy
        dh = np.dot(p["Why"].T, dy) + dh_next
        da = (1 - hs[t] ** 2) * dh
        grads["bh"] += da
        grads["Wxh"] += np.dot(da, xs[t].T)
        grads["Whh"] += np.dot(da, hs[t].T)
        dh_next = np.dot(p["Whh"].T, da)
    return grads
