"""Star imports of files beside a user's file: their names, and calls of what they define."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.source_file import find_definitions, read_cells
from tests.support.own_files import list_wrong, read_own

LAYERS = """
import numpy as np


class Affine:
    def __init__(self, W):
        self.W = W

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return dout @ self.W.T


def forward(x, W, V):
    h = np.tanh(x @ W)
    return h @ V, (x, h, V)


def backward(dout, cache):
    x, h, V = cache
    return x.T @ (dout @ V.T * (1 - h**2)), h.T @ dout


def loss_and_gradients(W, V, x, y):
    out, cache = forward(x, W, V)
    loss = np.sum((out - y) ** 2)
    dW, dV = backward(2 * (out - y), cache)
    return loss, dW, dV
"""
DATA = """from layers import *
rng = np.random.default_rng(0)
W, V = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
"""
OWN = f"""{DATA}
def train_step(W, V):
    out, cache = forward(x, W, V)
    loss = np.sum((out - y) ** 2)
    dW, dV = backward(2 * (out - y), cache)
    return loss, dW, dV
train_step(W, V)
"""
NET = f"""{DATA}
class Net:
    def __init__(self):
        self.first, self.second = Affine(W), Affine(V)
    def forward(self, x, y):
        self.h = np.tanh(self.first.forward(x))
        self.d = self.second.forward(self.h) - y
        loss = np.sum(self.d**2)
        return loss
    def backward(self):
        dh = self.second.backward(2 * self.d)
        self.first.backward(dh * (1 - self.h**2))
net = Net()
net.forward(x, y)
net.backward()
"""


def read(folder: Path, text: str, layers: str = LAYERS) -> Any:
    """Read a file with this text, and layers.py beside it."""
    (folder / "layers.py").write_text(layers)
    return read_own(folder, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{DATA}loss_and_gradients(W, V, x, y)\n", "loss_and_gradients is taken"),
        (OWN, "train_step is taken"),
        (NET, "Net is taken for a class with forward, backward"),
    ],
)
def test_what_a_star_import_brings_is_known(
    tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "layers", raising=False)
    found = read(tmp_path, text)
    assert found.said.startswith(said)
    assert len(flatten(found.params).leaves) == 2
    assert not list_wrong(found)


def test_a_file_knows_its_own_functions_and_those_of_star_imports(tmp_path: Path) -> None:
    (tmp_path / "layers.py").write_text("from deeper import *\ndef one(): ...\ndef _two(): ...\n")
    (tmp_path / "deeper.py").write_text("from layers import *\ndef three(): ...\n")
    file = tmp_path / "net.py"
    file.write_text("from numpy import *\nfrom layers import *\ndef own(): ...\n")
    defined = find_definitions(file, read_cells(file))
    assert {*defined.functions} == {"one", "three", "own"}
    assert defined.starred == {"one", "three"}
    assert [Path(each).name for each in defined.sources] == ["deeper.py", "layers.py"]
    assert not defined.defines("anything")
    file.write_text("from elsewhere import *\n")
    assert find_definitions(file, read_cells(file)).defines("anything")
