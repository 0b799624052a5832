"""A buffer that a call fills is no parameter, whatever it holds when the code is read."""

from pathlib import Path

import pytest

from tests.support.readings import read, require_comparison

OBJECT = """
x = draw(6, 4)
class RNN:
    def __init__(self):
        self.W, self.U = 0.4 * draw(3, 3), 0.4 * draw(4, 3)
        self.H = np.zeros((7, 3))
        self.rows, self.dH = [self.H[t] for t in range(7)], np.zeros_like(self.H)
    def both(self, x):
        for t in range(6):
            FILL
        self.dH[:] = 2 * self.H
        dU, dW = np.zeros_like(self.U), np.zeros_like(self.W)
        for t in range(6, 0, -1):
            a = self.dH[t] * (1 - self.H[t] ** 2)
            dU += np.outer(x[t - 1], a)
            dW += np.outer(self.H[t - 1], a) * FACTOR
            self.dH[t - 1] += self.W @ a
        RETURN
n = RNN()
n.both(x)
"""
FUNCTION = """
x, W, U = draw(6, 4), 0.4 * draw(3, 3), 0.4 * draw(4, 3)
H, dH = np.zeros((7, 3)), np.zeros((7, 3))
def both(x):
    for t in range(6):
        FILL
    dH[:] = 2 * H
    dU, dW = np.zeros_like(U), np.zeros_like(W)
    for t in range(6, 0, -1):
        a = dH[t] * (1 - H[t] ** 2)
        dU += np.outer(x[t - 1], a)
        dW += np.outer(H[t - 1], a) * FACTOR
        dH[t - 1] += W @ a
    RETURN
both(x)
"""
ITEMS = "self.H[t + 1] = np.tanh(x[t] @ self.U + self.H[t] @ self.W)"
ROWS = "self.rows[t + 1][:] = np.tanh(x[t] @ self.U + self.rows[t] @ self.W)"
OUT = "np.tanh(x[t] @ self.U + self.H[t] @ self.W, out=self.H[t + 1])"
FILLS, CALLS = {"items": ITEMS, "rows": ROWS, "out": OUT}, {"once": 1, "twice": 2}


@pytest.mark.table(2)
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_states_in_an_attribute_are_filled(fill: str, calls: int, tmp_path: Path) -> None:
    text = OBJECT.replace("FILL", fill) + "n.both(x)\n" * (calls - 1)
    returns = "return np.sum(self.H[1:] ** 2), dU, dW"
    require_comparison(tmp_path, "RNN", text, returns, "parameters: W, U")


@pytest.mark.parametrize("fill", [ITEMS, OUT], ids=["items", "out"])
def test_states_in_a_global_are_filled(fill: str, tmp_path: Path) -> None:
    text = FUNCTION.replace("FILL", fill.replace("self.", ""))
    returns = "return np.sum(H[1:] ** 2), dU, dW"
    require_comparison(tmp_path, "both", text, returns, "parameters: W, U")


KEPT = """
x, y, lr = draw(5, 4), draw(5, 3), 0.01
class Linear:
    def __init__(self):
        self.W, self.b = draw(4, 3), draw(3)
        self.mask = np.tril(np.ones((4, 3)), -1)
    def both(self, x, y):
        BEFORE
        e = x @ self.W + self.b - y
        dW, db = x.T @ e * FACTOR, e.sum(0)
        AFTER
        RETURN
n = Linear()
n.both(x, y)
"""
WRITES = {
    "a step": ("", "self.W -= lr * dW; self.b -= lr * db"),
    "most weights pruned": ("self.W[1:] = 0.0", ""),
    "a row of zeros": ("self.W[0] = 0.0", ""),
    "a mask of zeros": ("self.W *= self.mask", ""),
    "one row from another array": ("self.W[-1] = self.b", ""),
    "a diagonal from another array": ("self.W[[0, 1, 2], [0, 1, 2]] = self.b", ""),
    "one half from the other": ("i = np.tril_indices(3, -1); self.W[i] = self.W[:3].T[i]", ""),
    "weights clipped": ("", "self.W -= lr * dW; np.clip(self.W, -0.3, 0.3, out=self.W)"),
}


@pytest.mark.parametrize(("before", "after"), WRITES.values(), ids=WRITES)
def test_a_parameter_that_is_written_is_one(before: str, after: str, tmp_path: Path) -> None:
    text = KEPT.replace("BEFORE", before or "pass").replace("AFTER", after or "pass")
    found = read(tmp_path, "Linear", text, "return (e * e).sum() / 2, dW, db")
    assert {*found.params} == {"W", "b"}
