"""Star imports of files beside a user's file: their names, and calls of what they define."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import choose_kind, read_file
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


MODEL = """
import numpy as np
x = np.linspace(-1, 1, 6).reshape(2, 3)
params = {"W": np.full((2, 3), 0.3)}
def loss(p):
    return np.sum(np.tanh(x @ p["W"].T) ** 2)
def right(p):
    h = np.tanh(x @ p["W"].T)
    return {"W": (2 * h * (1 - h * h)).T @ x}
"""


def write_files(folder: Path, files: dict[str, str]) -> Path:
    """Write files into a folder, and return the one to judge."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder / "judged.py"


@pytest.mark.parametrize(
    "gradients",
    [
        "def gradients(p):\n    return right(p)\n",
        "def gradients(p, verbose=False):\n    return right(p)\n",
        "def gradients(*given):\n    return right(*given)\n",
        "class Gradients:\n    __signature__ = 'none'\n"
        "    def __call__(self, p):\n        return right(p)\ngradients = Gradients()\n",
    ],
)
@pytest.mark.parametrize(
    ("files", "imported"),
    [
        ({"star_model.py": MODEL}, "star_model"),
        ({"star_chain.py": "from star_model2 import *\n", "star_model2.py": MODEL}, "star_chain"),
        ({"star_named.py": "from star_model3 import loss, params, right\n",
          "star_model3.py": MODEL}, "star_named"),
        ({"star_all.py": f"__all__ = ['params', 'loss']\n__all__ += ['right']\n{MODEL}"},
         "star_all"),
        ({"star_package/__init__.py": "from .inner import *\n",
          "star_package/inner.py": MODEL}, "star_package"),
    ],
)  # fmt: skip
def test_params_and_loss_of_star_imports_make_an_own_model(
    tmp_path: Path, files: dict[str, str], imported: str, gradients: str
) -> None:
    file = write_files(tmp_path, files | {"judged.py": f"from {imported} import *\n{gradients}"})
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in sys.modules if each.startswith("star_")]:
            patch.delitem(sys.modules, name)
        found = read_file(file, None, None, {})
    assert found.said == "judged.py is taken for an own model of params, loss and gradients."
    assert not list_wrong(found)


@pytest.mark.parametrize(
    ("text", "brought"),
    [
        ("a = _b = 1\n", {"a"}),
        ("__all__ = ['_b']\na = _b = 1\n", {"_b"}),
        ("__all__: tuple = ('a',)\na = b = 1\n", {"a"}),
        ("__all__ = sorted(dir())\na = 1\n", {"a"}),
        ("__all__ = ['b']\n__all__.append('a')\na = b = 1\n", {"a", "b"}),
        ("from deeper import *\na = 1\n", {"a", "c"}),
        ("from deeper import *\n__all__ = ['c']\na = 1\n", {"c"}),
    ],
)
def test_a_star_import_brings_what_python_would_bring(
    tmp_path: Path, text: str, brought: set[str]
) -> None:
    files = {"layers.py": text, "deeper.py": "c = 1\n", "judged.py": "from layers import *\n"}
    file = write_files(tmp_path, files)
    defined = find_definitions(file, read_cells(file))
    assert defined.names == brought
    assert defined.complete


def test_a_chain_that_ends_in_an_unknown_module_may_define_anything(tmp_path: Path) -> None:
    files = {"layers.py": "from elsewhere import *\n", "judged.py": "from layers import *\n"}
    file = write_files(tmp_path, files)
    assert find_definitions(file, read_cells(file)).defines("params", "loss")


def test_a_function_of_the_file_is_judged_beside_an_unknown_star_import(tmp_path: Path) -> None:
    step = "def step(W):\n    loss = W @ W\n    dW = 2 * W\n    return loss, dW\n"
    file = write_files(tmp_path, {"judged.py": f"from elsewhere import *\n{step}"})
    found = find_definitions(file, read_cells(file))
    assert choose_kind(file, found, None, None) == ("own code", "step")
    file = write_files(tmp_path, {"judged.py": "from elsewhere import *\n"})
    found = find_definitions(file, read_cells(file))
    assert choose_kind(file, found, None, None) == ("own model", "gradients")
