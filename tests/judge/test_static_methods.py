"""Methods without an object, static or of the class, are judged as functions."""

from pathlib import Path

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file

STATIC = """
import numpy as np
class Cell:
    @staticmethod
    def forward(X, W):
        Hout = np.tanh(X @ W)
        return Hout, (X, W, Hout)
    @staticmethod
    def backward(dHout_in, cache):
        X, W, Hout = cache
        da = dHout_in * (1 - Hout**2)
        return da @ W.T, X.T @ da
class Net(Cell):
    pass
X, W = np.ones((2, 3)) / 3, np.eye(3)
Hout, cache = Cell.forward(X * X, W * W)
dX, dW = Cell.backward(np.ones((2, 3)), cache)
"""


@pytest.mark.parametrize(
    "source",
    [STATIC,
     STATIC.replace("@static", "@class").replace("d(X, W)", "d(cls, X, W)")
           .replace("d(dHout", "d(cls, dHout"),
     STATIC.replace("Cell.", "Net."), STATIC.replace("Cell.forward", "Cell().forward")],
)  # fmt: skip
def test_methods_without_an_object_are_functions(source: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(source, encoding="utf-8")
    name = "Net" if "Net." in source else "Cell"
    found = read_file(file, name, None, {})
    assert found.said.startswith(f"{name}.forward,{name}.backward are taken for functions")
    assert {n: v.tolist() for n, v in found.params.items()} == {
        "X": np.full((2, 3), 1 / 9).tolist(), "W": np.eye(3).tolist(),
    }  # fmt: skip


def test_a_static_method_of_a_class_that_cannot_be_made_is_a_function(tmp_path: Path) -> None:
    source = (
        "import numpy as np\nclass Net:\n    def __init__(self, path): ...\n    @staticmethod\n"
    )
    source += "    def loss(W, x):\n        h = W @ x\n        grads = {'W': np.outer(h, x)}\n"
    source += "        return h @ h / 2, grads\nNet.loss(np.eye(2), np.ones(2))\n"
    file = tmp_path / "model.py"
    file.write_text(source, encoding="utf-8")
    found = read_file(file, None, None, {})
    assert [*found.params] == ["W"]


def test_the_end_of_an_argument_is_no_part_of_the_name_of_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    for ending in ("", "_in", "_arg", "_"):
        file.write_text(STATIC.replace("dHout_in", f"dHout{ending}"), encoding="utf-8")
        assert sorted(read_file(file, "Cell", None, {}).params) == ["W", "X"]
    file.write_text(STATIC.replace("dHout_in", "dHout_mean"), encoding="utf-8")
    said = read_file(file, "Cell", None, {}).said  # of no variable, so its shape tells
    assert "dHout_mean is taken for the gradient of" in said
