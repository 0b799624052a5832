"""Lists of numbers that are read as arrays, and those that are kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.program.number_lists import find_joined, join, join_at, measure


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
