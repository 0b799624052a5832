"""Gradients that add up over calls on one object agree, and the report says that they add up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.accumulated_gradients import is_double

START = (
    "import numpy as np\nrng = np.random.default_rng(0)\n"
    "x, y, A = np.eye(5, 3), np.ones((5, 2)), rng.normal(size=(3, 2))\n"
)
IN_A_CLASS = """
class Net:
    def __init__(self):
        self.W, self.dW = A, np.zeros((3, 2))
    def forward(self, x):
        self.x = x
        return x @ self.W
    def loss(self, out, y):
        return ((out - y)**2).sum()
    def backward(self, out, y):
        {}
net = Net()
out = net.forward(x); net.loss(out, y); net.backward(out, y)
"""
OF_GLOBALS = """
W, dW = A, np.zeros((3, 2))
def step(x, y):
    global dW
    r = x @ W - y
    {}
    return (r**2).sum(), dW
step(x, y)
"""
UPDATING = """
class Net:
    def __init__(self):
        self.W = A
    def step(self, x, y):
        r = x @ self.W - y
        grads = {{'W': x.T @ (2 * r)}}
        {}
        return (r**2).sum(), grads
net = Net()
net.step(x, y)
"""
CASES = [
    (IN_A_CLASS, "self.dW += self.x.T @ (2 * (out - y))", True),
    (IN_A_CLASS, "self.dW[:] = self.dW + self.x.T @ (2 * (out - y))", True),
    (IN_A_CLASS, "self.dW = self.x.T @ (2 * (out - y))", False),
    (IN_A_CLASS, "self.dW[:] = 0; self.dW += self.x.T @ (2 * (out - y))", False),
    (OF_GLOBALS, "dW += x.T @ (2 * r)", True),
    (OF_GLOBALS, "dW = x.T @ (2 * r)", False),
    (UPDATING, "self.W -= 0.1 * grads['W']", False),
    (UPDATING, "pass", False),
]


def read(folder: Path, source: str, statement: str) -> Any:
    """Read the code with this statement in it."""
    file = folder / "model.py"
    file.write_text(START + source.format(statement))
    name = "Net" if source is IN_A_CLASS else "step" if source is OF_GLOBALS else "Net.step"
    return read_file(file, name, True, {}, ())


@pytest.mark.parametrize(("source", "statement", "adds"), CASES)
def test_gradients_that_add_up_are_noted_and_agree(
    source: str, statement: str, adds: bool, tmp_path: Path
) -> None:
    found = read(tmp_path, source, statement)
    said = "Gradients add up over calls: a second call returns twice that of W, "
    assert (said in found.said) == adds
    assert verify_own_model(found.gradients, found.loss, found.params, cases=2)


def test_gradients_that_add_up_may_be_wrong_as_well(tmp_path: Path) -> None:
    found = read(tmp_path, IN_A_CLASS, "self.dW += self.x.T @ (out - y)")
    assert "Gradients add up" in found.said
    assert not verify_own_model(found.gradients, found.loss, found.params, cases=2)


def test_twice_a_gradient_is_recognised_to_the_rounding_of_a_sum_of_many_terms() -> None:
    dtype: Any
    for dtype in (np.float32, np.float64):
        terms = np.random.default_rng(0).normal(size=(500, 9)).astype(dtype)
        one = np.zeros(9, dtype)
        for term in terms:
            one += term
        two = one.copy()
        for term in terms:
            two += term
        assert is_double(two, one)
        assert not is_double(two + two / 100, one)
        assert not is_double(one, one)
