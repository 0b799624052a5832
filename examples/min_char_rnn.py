"""A character model as one trains it: one function computes the loss and the gradients.

bptt verify examples/min_char_rnn.py:loss_and_gradients

It has two mistakes. The model learns all the same.
"""

import numpy as np

text = "to be or not to be, that is the question"
chars = sorted(set(text))
index = {char: i for i, char in enumerate(chars)}
vocabulary, hidden, length = len(chars), 8, 10

rng = np.random.default_rng(0)
Wxh = 0.1 * rng.normal(size=(hidden, vocabulary))
Whh = 0.1 * rng.normal(size=(hidden, hidden))
Why = 0.1 * rng.normal(size=(vocabulary, hidden))
bh, by = np.zeros((hidden, 1)), np.zeros((vocabulary, 1))


def loss_and_gradients(inputs, targets, h_before):
    xs, hs, ps = {}, {-1: h_before}, {}
    loss = 0.0
    for t in range(len(inputs)):
        xs[t] = np.zeros((vocabulary, 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(Wxh @ xs[t] + Whh @ hs[t - 1] + bh)
        scores = Why @ hs[t] + by
        ps[t] = np.exp(scores) / np.sum(np.exp(scores))
        loss -= np.log(ps[t][targets[t], 0])
    dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby = np.zeros_like(bh), np.zeros_like(by)
    dh_next = np.zeros_like(h_before)
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWhy += dy @ hs[t].T
        dby += dy
        dh = Why.T @ dy + dh_next
        da = (1 - hs[t] ** 2) * dh
        dbh += da
        dWxh += da @ xs[t].T
        dWhh += da @ hs[t].T
        dh_next = Whh.T @ da
    for gradient in (dWxh, dWhh, dWhy, dbh, dby):
        np.clip(gradient, -5, 5, out=gradient)
    return loss, dWxh, dWhh, dWhy, dbh, dby, hs[len(inputs) - 1]


if __name__ == "__main__":
    h = np.zeros((hidden, 1))
    for step in range(121):
        start = step * length % (len(text) - length)
        if start < length:
            h = np.zeros((hidden, 1))
        inputs = [index[char] for char in text[start : start + length]]
        targets = [index[char] for char in text[start + 1 : start + length + 1]]
        loss, dWxh, dWhh, dWhy, dbh, dby, h = loss_and_gradients(inputs, targets, h)
        Wxh -= 0.05 * dWxh
        Whh -= 0.05 * dWhh
        Why -= 0.05 * dWhy
        bh -= 0.05 * dbh
        by -= 0.05 * dby
        if step % 30 == 0:
            print(f"step {step}: loss {loss:.2f}")
