"""Deep Learning, an early draft: gradients as rows."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="Gradients as rows: ∇L · diag(1 − s²) · W",
    source="Y. Bengio, I. Goodfellow & A. Courville, Deep Learning, draft with states s, chapter "
    "on sequence modelling, section on computing the gradient of a recurrent network",
    claim=(
        "a(t) = b + W s(t−1) + U x(t),  s(t) = tanh(a(t)),  o(t) = c + V s(t),  p = softmax(o)",
        "(∇_{o(t)} L)_i = p_i(t) − 1_{i, y(t)},  ∇_{s(T)} L = ∇_{o(T)} L V",
        "∇_{s(t)} L = ∇_{s(t+1)} L diag(1 − s(t+1)²) W + ∇_{o(t)} L V",
    ),
    convention="Gradients are rows, so that the Jacobian diag(1 − s²) W stands on their right.",
    verdict=AGREES,
    seen=False,
    rests_on="the formulas as text extracted from a copy of unstated origin; the gradients "
    "of the weights are written here as outer products of (∇_s L diag(1 − s²)) and the operand",
    reading="With columns the same matrices stand transposed, to the left of the gradient. The "
    "printed section 10.2.2 has columns and another order: see deep-learning-columns.",
)

rng = np.random.default_rng(2)
T, D, H, O = 4, 2, 3, 3
x, y = rng.normal(size=(T, D)), np.eye(O)[np.arange(T) % O]
params = {
    "U": rng.normal(size=(H, D)), "W": rng.normal(size=(H, H)) / 2, "V": rng.normal(size=(O, H)),
    "b": np.full(H, 0.2), "c": np.full(O, 0.1),
}  # fmt: skip


def loss(q: Any) -> Any:
    s, total = np.zeros(H), 0.0
    for t in range(T):
        s = np.tanh(q["b"] + q["W"] @ s + q["U"] @ x[t])
        o = q["c"] + q["V"] @ s
        total = total + np.log(np.sum(np.exp(o))) - np.sum(y[t] * o)
    return total


def gradients(q: Any) -> Any:
    s, p = [np.zeros(H)], []
    for t in range(T):
        s.append(np.tanh(q["b"] + q["W"] @ s[t] + q["U"] @ x[t]))
        e = np.exp(q["c"] + q["V"] @ s[t + 1])
        p.append(e / e.sum())
    found = {name: np.zeros_like(value) for name, value in q.items()}
    later = np.zeros(H)
    for t in range(T, 0, -1):
        output = p[t - 1] - y[t - 1]
        state = later + output @ q["V"]
        row = state @ np.diag(1 - s[t] ** 2)
        found["V"] += np.outer(output, s[t])
        found["c"] += output
        found["W"] += np.outer(row, s[t - 1])
        found["U"] += np.outer(row, x[t - 1])
        found["b"] += row
        later = row @ q["W"]
    return found
