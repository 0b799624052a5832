"""Python's numbers are parameters where their gradients are computed, and data elsewhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.number_parameters import find_numbers, is_real_number, set_attributes
from bptt_verifier.program.own_results import Results
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


def make_results(result: Any, **roots: Any) -> Results:
    """What a call returned beside a loss, and left in the roots."""
    return Results({"result": (0.5, result), **roots}, {}, ("result", 0))


@pytest.mark.parametrize(
    ("result", "numbers"),
    [
        ({"db": 1.5}, {"b"}),
        ({"db": np.array(1.5), "dn": np.float64(2.0)}, {"b", "n"}),
        ({"db": np.ones(2)}, set()),  # of an array with axes
        ({"db": 2}, set()),  # a count
        ({"dlam": 1.0}, set()),
        ({"db": np.array([1.5])}, set()),
    ],
)
def test_a_gradient_of_a_number_is_one_real_number(result: Any, numbers: set[str]) -> None:
    given = {"b": 0.0, "n": 3, "w": np.ones(2), "flag": True, "name": "b"}
    found = find_numbers(given, make_results(result), {})
    assert {*found} == numbers
    assert all(type(value) is np.float64 and value == given[n] for n, value in found.items())


def test_an_attribute_that_a_call_does_not_set_is_no_gradient() -> None:
    step = 0.01
    owner = SimpleNamespace(t=1.0, dt=step)
    results = make_results(None, self=owner)
    assert find_numbers({"t": 1.0}, results, {"self": owner}) == {}
    before = SimpleNamespace(t=1.0, dt=0.5)
    assert find_numbers({"t": 1.0}, results, {"self": before}) == {"t": 1.0}
    assert find_numbers({"t": 1.0}, results, {"self": SimpleNamespace(t=1.0)}) == {"t": 1.0}


def test_an_object_gets_other_numbers_in_a_copy() -> None:
    owner = SimpleNamespace(b=0.5, w=np.ones(2))
    assert set_attributes(owner, {}) is owner
    changed = set_attributes(owner, {"b": 1.5})
    assert (owner.b, changed.b) == (0.5, 1.5)
    assert changed.w is owner.w


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
