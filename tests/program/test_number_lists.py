"""Lists of numbers that are read as arrays, and those that are kept."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.program.number_lists import (
    find_joined,
    join,
    join_at,
    join_left,
    join_parameters,
    measure,
)
from bptt_verifier.program.own_data import find_doubts


@pytest.mark.parametrize(
    ("value", "shape"),
    [([1.0, 2.0], (2,)), ([np.float64(1), 0], (2,)), ([[1.0], [2.0], [0.5]], (3, 1)),
     ([[[0.5, 1.0]]], (1, 1, 2)), ([np.array(0.5)], (1,)), ([], None), (np.ones(2), None),
     ([[1.0], [2.0, 3.0]], None), ([[1.0], 2.0], None), ([np.ones(2)], None), ([None], None),
     ([True], None), ((1.0, 2.0), None), (["a"], None)],
)  # fmt: skip
def test_a_list_of_numbers_has_the_shape_of_its_array(value: Any, shape: Any) -> None:
    assert measure(value) == shape
    if shape is not None:
        joined = join(value)
        assert joined.shape == shape
        assert np.array_equal(joined, np.array(value, float))


def test_lists_are_joined_by_the_name_and_the_shape_of_a_gradient() -> None:
    result = (0.5, [[1.0, 2.0]], [3.0], [4.0], {"W": [[5.0, 6.0]], "n": [7.0]})
    names = {(0,): "loss", (1,): "dW", (2,): "db", (3,): "other", (4,): "grads"}
    roots = {"globals": {"W": np.ones((1, 2)), "b": np.ones(2)}}
    paths = find_joined(result, names, roots)
    assert paths == {(1,), (4, "W")}  # db has another shape than b
    joined = join_at(result, paths)
    assert joined[1].tolist() == [[1, 2]]
    assert joined[4]["W"].tolist() == [[5, 6]]
    assert (joined[0], joined[2], joined[3], joined[4]["n"]) == (0.5, [3.0], [4.0], [7.0])
    assert isinstance(joined[1], np.ndarray)


LISTS = """
import numpy as np
W, b = {W}, {b}
def f(x, y):
    h = [sum(W[i][j] * x[j] for j in range(2)) + b[i] for i in range(2)]
    loss = sum((h[i] - y[i]) ** 2 for i in range(2))
    dW, db = [[0] * 2 for _ in range(2)], [0.0] * 2
    for i in range(2):
        db[i] += 2 * (h[i] - y[i])
        for j in range(2):
            dW[i][j] += 2 * (h[i] - y[i]) * x[j]
    return loss, {returned}
f([1.0, 2.0], [0.5, -0.5])
"""
NUMBERS = {"W": "[[0.3, -0.2], [0.1, 0.5]]", "b": "[0.1, 0.2]"}
ARRAYS = {name: f"np.array({value})" for name, value in NUMBERS.items()}


@pytest.mark.parametrize("held", [NUMBERS, ARRAYS])
@pytest.mark.parametrize("returned", ["dW, db", "{'W': dW, 'b': db}"])
def test_pure_python_is_read_as_arrays(held: Any, returned: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(LISTS.format(returned=returned, **held), encoding="utf-8")
    found = read_file(file, "f", None, {})
    assert {n: v.shape for n, v in found.params.items()} == {"W": (2, 2), "b": (2,)}
    loss, slopes = found.gradients({"W": 2 * np.eye(2), "b": np.zeros(2)})
    assert loss == 1.5**2 + 4.5**2
    assert slopes["W"].tolist() == [[3, 6], [9, 18]]
    assert slopes["b"].tolist() == [3, 9]


def test_a_class_may_return_lists_of_numbers(tmp_path: Path) -> None:
    source = """
import numpy as np
class Net:
    def __init__(self):
        self.w = np.array([0.5, 0.25])
    def forward(self, x):
        self.x, self.loss = x, 0.5 * (self.w[0] * x[0] + self.w[1] * x[1]) ** 2
        return self.loss
    def backward(self):
        o = self.w[0] * self.x[0] + self.w[1] * self.x[1]
        dw = [o * each for each in self.x]
        return dw
net = Net()
net.forward(np.array([2.0, 4.0]))
net.backward()
"""
    file = tmp_path / "model.py"
    file.write_text(source.replace("return dw", "return [dw]"), encoding="utf-8")
    found = read_file(file, "Net", None, {})
    assert found.gradients(found.params)[1]["w"].tolist() == [4, 8]


PURE = """
import math


class Net:
    def __init__(self):
        {held}

    def forward(self, x, y):
        {unpacked}
        self.x, self.y = x, y
        self.h = [math.tanh(sum(u * each for u, each in zip(row, x))) for row in U]
        self.out = sum(v * h for v, h in zip(V, self.h))
        self.loss = 0.5 * (self.out - y) ** 2
        return self.loss

    def backward(self):
        {unpacked}
        d = self.out - self.y
        {dV} = [d * h for h in self.h]
        {dU} = [[d * v * (1 - h * h) * each for each in self.x] for v, h in zip(V, self.h)]


net = Net()
net.forward([0.3, -0.8], 0.5)
net.backward()
"""
U, V = "[[0.1, -0.4], [0.3, 0.5], [-0.2, 0.6]]", "[0.3, -0.7, 0.4]"
ATTRIBUTES = {
    "held": f"self.U, self.V = {U}, {V}", "unpacked": "U, V = self.U, self.V",
    "dU": "self.dU", "dV": "self.dV",
}  # fmt: skip
DICTS = {
    "held": f"self.params, self.grads = {{'U': {U}, 'V': {V}}}, {{}}",
    "unpacked": "U, V = self.params['U'], self.params['V']",
    "dU": "self.grads['U']", "dV": "self.grads['V']",
}  # fmt: skip


@pytest.mark.parametrize("held", [ATTRIBUTES, DICTS])
def test_lists_among_attributes_are_parameters(held: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(PURE.format(**held), encoding="utf-8")
    found = read_file(file, None, None, {})
    assert {n: v.shape for n, v in found.params.items()} == {"U": (3, 2), "V": (3,)}
    assert not find_doubts(found.params, found.params, found.gradients, found.loss)
    wrong = PURE.replace("(1 - h * h)", "(1 - h)").format(**held)
    file.write_text(wrong, encoding="utf-8")
    found = read_file(file, None, None, {})
    doubts = find_doubts(found.params, found.params, found.gradients, found.loss)
    assert [each.name for each in doubts] == ["U"]


@pytest.mark.parametrize("name", ["theta", "params", "w"])
def test_a_list_of_numbers_is_an_argument(name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        f"def f({name}, xs):\n    a, b = {name}\n    loss = sum((a * x + b) ** 2 for x in xs)\n"
        "    e = [2 * (a * x + b) for x in xs]\n"
        "    g = [sum(d * x for d, x in zip(e, xs)), sum(e)]\n"
        f"    return loss, g\nf([0.5, -0.25], [1.0, 2.0, 3.0])\n",
        encoding="utf-8",
    )
    found = read_file(file, "f", None, {})
    assert found.params[name].shape == (2,)
    assert not find_doubts(found.params, found.params, found.gradients, found.loss)


def test_what_is_no_parameter_stays_a_list() -> None:
    class Net:
        def __init__(self) -> None:
            self.W, self.sizes, self.rates = [[1.0]], [2, 3], [0.5]

        def backward(self) -> Any:
            self.dW = [[2.0]]
            return self.dW

    net = Net()
    joined = join_parameters(net)
    assert joined is not net
    assert isinstance(joined.W, np.ndarray)
    assert (joined.sizes, joined.rates, net.W) == ([2, 3], [0.5], [[1.0]])
    net.W = []
    assert join_parameters(net) is net


def test_lists_left_beside_arrays_are_joined_by_name_and_shape() -> None:
    owner = SimpleNamespace(W=np.ones((1, 2)), dW=[[1.0, 2.0]], db=[1.0], grads={"W": [[3.0, 4.0]]})
    join_left(owner)
    assert isinstance(owner.dW, np.ndarray)
    assert isinstance(owner.grads["W"], np.ndarray)
    assert owner.db == [1.0]
    join_left(None)
