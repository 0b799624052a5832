"""Python's numbers are parameters where their gradients are computed, and data elsewhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.number_parameters import (
    is_real_number,
    scale_lists,
    set_all,
    set_numbers,
)
from bptt_verifier.program.source_file import RecordedCall
from tests.support.own_files import list_wrong, read_own

FUNCTION = """
import numpy as np
X, y = np.arange(12.0).reshape(4, 3) / 9, np.array([1.0, -1.0, 0.5, 2.0])
w = np.ones(3) / 3
b = NUMBER
def both(w, b, n=4):
    e = X @ w + b - y
    dw, db = 2 * X.T @ e, FACTOR * e.sum()
    for _ in range(n):
        pass
    return RETURN
both(w, b)
"""
GLOBAL = FUNCTION.replace("both(w, b, n=4)", "both(n=4)").replace("both(w, b)", "both()")
METHOD = """
import numpy as np
X, y = np.arange(12.0).reshape(4, 3) / 9, np.array([1.0, -1.0, 0.5, 2.0])
class Model:
    def __init__(self):
        self.w, self.b = np.ones(3) / 3, NUMBER
    def step(self, lr=0.1):
        e = X @ self.w + self.b - y
        self.dw, self.db = 2 * X.T @ e, FACTOR * e.sum()
        return RETURN
Model().step()
"""
LAYER = """
import numpy as np
class Layer:
    def __init__(self):
        self.w, self.b = np.ones(3) / 3, NUMBER
    def forward(self, x):
        self.x = x
        return np.tanh(x @ self.w + self.b)
    def backward(self, dout):
        d = dout * (1 - np.tanh(self.x @ self.w + self.b) ** 2)
        self.dw, self.db = self.x.T @ d, FACTOR / 2 * d.sum()
        RETURN
layer, x = Layer(), np.arange(12.0).reshape(4, 3) / 9
layer.forward(x)
layer.backward(np.ones(4))
"""
KINDS = {
    "argument": ("both", FUNCTION, "e @ e, dw, db"),
    "key": ("both", FUNCTION, "e @ e, {'dw': dw, 'db': db}"),
    "global": ("both", GLOBAL, "e @ e, dw, db"),
    "attribute": ("Model.step", METHOD, "e @ e"),
    "returned": ("Model.step", METHOD, "e @ e, self.dw, self.db"),
    "layer": ("Layer", LAYER, "pass"),
    "returned by a layer": ("Layer", LAYER, "return self.dw, self.db"),
}


@pytest.mark.table(4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", ["0.0", "0.25", "0", "np.float64(0.5)"])
def test_a_number_whose_gradient_is_computed_is_a_parameter(
    kind: str, number: str, tmp_path: Path
) -> None:
    name, source, returned = KINDS[kind]
    text = source.replace("NUMBER", number).replace("RETURN", returned)
    right, wrong = (read_own(tmp_path, text.replace("FACTOR", each), name) for each in ("2", "3"))
    assert [*right.params] == ["w", "b"]
    assert (list_wrong(right), list_wrong(wrong)) == (set(), {"b"})


def test_an_argument_of_the_name_of_a_global_number_is_the_parameter(tmp_path: Path) -> None:
    text = FUNCTION.replace("both(w, b)\n", "both(w, 0.75)\n").replace("NUMBER", "0.5")
    text = text.replace("RETURN", "e @ e, dw, db").replace("FACTOR", "2")
    found = read_own(tmp_path, text)
    assert float(found.params["b"]) == 0.75
    assert list_wrong(found) == set()


HYPERPARAMETERS = """
import numpy as np
X, y = np.arange(12.0).reshape(4, 3) / 9, np.array([1.0, -1.0, 0.5, 2.0])
RATE = 0.5
def both(w, b, NAME):
    e = X @ w + b - y
    dw, db = 2 * X.T @ e, 2 * e.sum()
    for _ in range(n):
        pass
    RESULT
    return LOSS, dw, db, OTHER
both(np.ones(3), 0.5, VALUE)
"""
OTHERS = {
    "a step of time": ("t=1.0, n=4", "dt = t / n", "e @ e * t", "dt"),
    "a step of a longer time": ("T=1.0, n=4", "dT = T / n", "e @ e * T", "dT"),
    "the norm of a gradient": ("norm=5.0, n=4", "grad_norm = dw @ dw", "e @ e", "grad_norm"),
    "a scale": ("scale=8.0, n=4", "grad_scale = 1 / scale", "e @ e", "grad_scale"),
    "a whole number": ("n=4", "gn = float(dw @ dw)", "e @ e * n", "gn"),
    "a whole number that counts": ("n=0", "gn = float(dw @ dw)", "e @ e", "gn"),
    "what is handed on": ("lam=0.5, n=4", "pass", "e @ e + lam", "{'lam': lam}"),
    "an array": ("c=0.5, n=4", "dc = 2 * e", "e @ e + c", "dc"),
    "a count": ("c=0.5, n=4", "dc = int(dw.sum())", "e @ e + c", "dc"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_number_is_data_beside_what_is_no_gradient_of_it(kind: str, tmp_path: Path) -> None:
    named, result, loss, other = OTHERS[kind]
    text = HYPERPARAMETERS.replace("NAME", named).replace("RESULT", result)
    text = text.replace("LOSS", loss).replace("OTHER", other).replace(", VALUE", "")
    scaled = {"e @ e * t", "e @ e * T", "e @ e * n"}
    text = text.replace("2 * X.T @ e", f"2 * X.T @ e * {loss[-1]}") if loss in scaled else text
    text = text.replace("2 * e.sum()", f"2 * e.sum() * {loss[-1]}") if loss in scaled else text
    found = read_own(tmp_path, text, "both")
    assert [*found.params] == ["w", "b"]
    assert list_wrong(found) == set()


def test_numbers_are_set_in_copies() -> None:
    owner = SimpleNamespace(b=0.5, inner=SimpleNamespace(c=1.0))
    roots: dict[str, Any] = {"self": owner, "arguments": {"forward": {"a": 0.25}}}
    paths = {("self", "b"): 1.5, ("self", "inner", "c"): 2.5, ("arguments", "forward", "a"): 3.5}
    changed = set_all(roots, {**paths, ("globals", "d"): 4.5})
    assert (owner.b, owner.inner.c, roots["arguments"]["forward"]["a"]) == (0.5, 1.0, 0.25)
    assert (changed["self"].b, changed["self"].inner.c) == (1.5, 2.5)
    assert changed["arguments"] == {"forward": {"a": 3.5}}
    assert changed["globals"] == {"d": 4.5}


def test_numbers_of_a_call_are_set_in_its_objects_and_arguments() -> None:
    numbers = {("self", "b"): 1.5, ("arguments", "forward", "a"): 2.5}
    owner = SimpleNamespace(b=0.5)
    call = set_numbers(RecordedCall(owner, {"a": 0.0, "x": 1}, owner), "forward", numbers)
    assert (call.owner.b, call.first.b, call.arguments) == (1.5, 1.5, {"a": 2.5, "x": 1})
    other = set_numbers(RecordedCall(None, {"a": 0.0}), "backward", numbers)
    assert other == RecordedCall(None, {"a": 0.0})


@pytest.mark.parametrize(
    ("value", "real"),
    [
        (1.5, True),
        (np.float32(1.5), True),
        (1, False),
        (None, False),
        ("1.5", False),
        ([1.5], False),
    ],
)
def test_a_real_number_has_a_fraction_and_no_axes(value: Any, real: bool) -> None:
    assert is_real_number(value) is real


PAIR = """
import numpy as np
X, y = np.arange(12.0).reshape(4, 3) / 9, np.array([1.0, -1.0, 0.5, 2.0])
def cost(w, b):
    e = X @ w + b - y
    return e @ e
def slopes(w, b):
    e = X @ w + b - y
    dw, db = 2 * X.T @ e, FACTOR * e.sum()
    return dw, db
"""
CALLED = PAIR + "cost(np.ones(3), 0.5); slopes(np.ones(3), 0.5)\n"


@pytest.mark.parametrize(("factor", "wrong"), [("2", set()), ("3", {"b"})])
def test_a_number_that_a_pair_of_functions_is_called_with_is_a_parameter(
    factor: str, wrong: set[str], tmp_path: Path
) -> None:
    found = read_own(tmp_path, CALLED.replace("FACTOR", factor), "cost,slopes")
    assert [*found.params] == ["w", "b"]
    assert list_wrong(found) == wrong


@pytest.mark.parametrize(("factor", "wrong"), [("2", set()), ("3", {"b"})])
def test_a_global_number_that_a_pair_takes_by_its_name_is_a_parameter(
    factor: str, wrong: set[str], tmp_path: Path
) -> None:
    text = PAIR.replace("FACTOR", factor) + "b = 0.5\nw = np.ones(3)\n"
    found = read_own(tmp_path, text, "cost,slopes")
    assert [*found.params] == ["w", "b"]
    assert list_wrong(found) == wrong


def test_a_number_of_a_gradient_that_is_not_compared_is_named(tmp_path: Path) -> None:
    text = CALLED.replace("FACTOR", "2").replace(
        "return dw, db", "dc, n = 0.5, 3; return dw, dc, n"
    )
    found = read_own(tmp_path, text, "cost,slopes")
    assert found.said.endswith("; returned, and not compared: dc.")


LISTS = """
xs, ys = [1.0, 2.0, 3.5], [2.1, 3.9, 7.2]
def mse(m, b, xs, ys):
    return sum((y - (m * x + b)) ** 2 for x, y in zip(xs, ys))
def gradient(m, b, xs, ys):
    dm = db = 0.0
    for x, y in zip(xs, ys):
        dm += -2 * x * (y - (m * x + b))
        db += -FACTOR * (y - (m * x + b))
    return dm, db
m, b = 0.5, 0.1
mse(m, b, xs, ys); gradient(m, b, xs, ys)
"""


@pytest.mark.parametrize(("factor", "wrong"), [("2", set()), ("3", {"b"})])
def test_the_data_of_numbers_may_be_lists(factor: str, wrong: set[str], tmp_path: Path) -> None:
    found = read_own(tmp_path, LISTS.replace("FACTOR", factor), "mse,gradient")
    assert [*found.params] == ["m", "b"]
    assert list_wrong(found) == wrong


def test_numbers_with_fractions_are_scaled_in_lists_alone() -> None:
    value: Any = {"x": [1.0, 2, [0.5]], "pair": ([2.0], 3.0), "n": 4.0}
    scale_lists(value)
    assert value == {"x": [1.09375, 2, [0.5625]], "pair": ([2.15625], 3.0), "n": 4.0}
