"""The operations of a submission are recorded with their places, in every shape of code."""

from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.own_model import record_submission
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.precision import use_float64

DATA = """import numpy as np
X = np.arange(6.0).reshape(3, 2) / 6
"""
FUNCTION = """
U, W = 0.3 * np.eye(2), 0.2 * np.ones((2, 2))

def step(x):
    h, dU, dW, dh = {-1: np.zeros(2)}, np.zeros_like(U), np.zeros_like(W), 0.0
    for t in range(3):
        h[t] = np.tanh(x[t] @ U + h[t - 1] @ W)
    loss = np.sum(h[2] ** 2)
    dh = 2 * h[2]
    for t in reversed(range(3)):
        da = dh * (1 - h[t] ** 2)
        dU += np.outer(x[t], da)
        dW += np.outer(h[t - 1], da)
        dh = da @ W
    return loss, dU, dW

step(X)
"""
CLASS = """
class Network:
    def __init__(self):
        self.U, self.W = 0.3 * np.eye(2), 0.2 * np.ones((2, 2))

    def forward(self, x):
        self.x, self.h = x, [np.zeros(2)]
        for t in range(3):
            self.h.append(np.tanh(x[t] @ self.U + self.h[-1] @ self.W))
        return np.sum(self.h[-1] ** 2)

    def backward(self):
        self.dU, self.dW = np.zeros_like(self.U), np.zeros_like(self.W)
        dh = 2 * self.h[-1]
        for t in reversed(range(3)):
            da = dh * (1 - self.h[t + 1] ** 2)
            self.dU += np.outer(self.x[t], da)
            self.dW += np.outer(self.h[t], da)
            dh = da @ self.W

network = Network()
network.forward(X)
network.backward()
"""
PAIR = """
U, W = 0.3 * np.eye(2), 0.2 * np.ones((2, 2))

def forward(x, U, W):
    h = [np.zeros(2)]
    for t in range(3):
        h.append(np.tanh(x[t] @ U + h[-1] @ W))
    return np.sum(h[-1] ** 2), h

def backward(x, h, U, W):
    dU, dW, dh = np.zeros_like(U), np.zeros_like(W), 2 * h[-1]
    for t in reversed(range(3)):
        da = dh * (1 - h[t + 1] ** 2)
        dU += np.outer(x[t], da)
        dW += np.outer(h[t], da)
        dh = da @ W
    return dU, dW

loss, h = forward(X, U, W)
backward(X, h, U, W)
"""


@pytest.mark.parametrize(
    ("source", "name"),
    [(FUNCTION, "step"), (CLASS, "Network"), (PAIR, "forward,backward")],
    ids=["one function", "a class", "two functions"],
)
def test_the_lines_of_a_backward_pass_beside_its_loss_are_recorded(
    tmp_path: Path, source: str, name: str
) -> None:
    file = tmp_path / "own.py"
    file.write_text(DATA + source, encoding="utf-8")
    code = read_file(file, name, True, {}, [])

    @wraps(code.gradients)
    def announce(*arguments: Any) -> Any:
        raise AssertionError("a recording is no call of the submission")

    tree = flatten(code.params)
    with use_float64():
        found = record_submission(announce, tree, dict(tree.read(code.params)))
    lines = (DATA + source).splitlines()
    product = "da @ self.W" if "self.W" in source else "da @ W"
    places = {(p.line, p.expression) for each in found if (p := each.place) is not None}
    assert (next(n for n, line in enumerate(lines, 1) if product in line), product) in places
