"""Gradients of a layer's inputs, which `backward` returns, are compared as those of weights are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.program.layer_inputs import name_input_gradient
from tests.support.own_files import list_wrong, read_own

NORMALISATION = """
import numpy as np
class Norm:
    def __init__(self, D):
        self.gamma, self.beta = np.ones(D), np.zeros(D)
    def forward(self, x):
        self.s = np.sqrt(x.var(-1, keepdims=True) + 0.01)
        self.n = (x - x.mean(-1, keepdims=True)) / self.s
        return self.gamma * self.n + self.beta
    def backward(self, dout):
        self.dgamma, self.dbeta = (dout * self.n).sum(0), dout.sum(0)
        d = dout * self.gamma
        mean = (d * self.n).mean(-1, keepdims=True)
        dx = (d - d.mean(-1, keepdims=True) - self.n * mean) / self.s
        return dx
norm = Norm(4)
x = np.random.default_rng(0).normal(2.0, 3.0, (3, 4))
norm.backward(np.ones_like(norm.forward(x)))
"""
WITH_A_STATE = """
import numpy as np
class Layer:
    def __init__(self):
        self.U, self.W = np.ones((2, 3)) / 3, np.eye(3) / 2
    def forward(self, x, h0):
        self.x, self.h = x, [h0]
        for each in x:
            self.h.append(np.tanh(each @ self.U + self.h[-1] @ self.W))
        return self.h[-1]
    def backward(self, dh):
        self.dU, self.dW, dx = np.zeros((2, 3)), np.zeros((3, 3)), np.zeros_like(self.x)
        for t in reversed(range(len(self.x))):
            da = dh * (1 - self.h[t + 1] ** 2)
            self.dU += np.outer(self.x[t], da)
            self.dW += np.outer(self.h[t], da)
            dx[t] = self.U @ da
            dh = self.W @ da
        dh0 = dh
        return dx, dh0
x, layer = np.random.default_rng(1).normal(size=(4, 2)), Layer()
layer.forward(x, np.full(3, 0.2))
layer.backward(np.ones(3))
"""
OF_THE_LAST_STEP = WITH_A_STATE.replace(", dx = ", ", _ = ").replace("dx[t] =", "dx =")


CHANGES: dict[str, tuple[str, str, str, set[str]]] = {
    "right": (NORMALISATION, "", "", set()),
    "a path of the normalisation": (NORMALISATION, " - self.n * mean)", ")", {"x"}),
    "right with a state": (WITH_A_STATE, "", "", set()),
    "of x": (WITH_A_STATE, "self.U @ da", "da[:2]", {"x"}),
    "of h0": (WITH_A_STATE, "dh0 = dh", "dh0 = self.W @ dh", {"h0"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_gradient_of_an_input_that_a_layer_returns_is_compared(
    name: str, tmp_path: Path
) -> None:
    source, right, written, wrong = CHANGES[name]
    assert source.count(right) == 1 or not right
    found = read_own(tmp_path, source.replace(right, written) if right else source)
    inputs = ["x"] if source is NORMALISATION else ["x", "h0"]
    assert [*found.params][2:] == inputs
    assert found.said.endswith(f", {', '.join(inputs)}.")
    assert list_wrong(found) == wrong


def test_the_gradient_of_one_step_of_an_input_is_left_and_the_report_says_so(
    tmp_path: Path,
) -> None:
    found = read_own(tmp_path, OF_THE_LAST_STEP)
    assert [*found.params] == ["U", "W"]
    assert "not compared: the gradient of x, h0, taken for data unless --params" in found.said
    assert not list_wrong(found)


@pytest.mark.parametrize("chosen", [("x",), ("U", "x"), ("h0", "W"), ("U", "W", "x", "h0")])
def test_inputs_of_a_layer_are_parameters_where_they_are_named(
    chosen: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "layer.py"
    path.write_text(WITH_A_STATE)
    found = read_file(path, None, None, {}, chosen)
    assert [*found.params] == [*chosen]
    assert not list_wrong(found)
    path.write_text(WITH_A_STATE.replace("self.U @ da", "da[:2]"))
    found = read_file(path, None, None, {}, chosen)
    assert list_wrong(found) == {"x"}.intersection(chosen)


def test_a_name_that_no_method_has_is_refused_with_those_of_the_object(tmp_path: Path) -> None:
    path = tmp_path / "layer.py"
    path.write_text(WITH_A_STATE)
    with pytest.raises(ValueError, match="names of float arrays that Layer uses, U, W, found z"):
        read_file(path, None, None, {}, ("z",))


RETURNED = """
import numpy as np
class Layer:
    def __init__(self):
        self.W, self.b = np.arange(12.0).reshape(4, 3) / 9, np.ones(3) / 3
        STATE
    def forward(self, x, scale=None):
        self.x, self.y = x, np.tanh(x @ self.W + self.b)
        return self.y
    def backward(self, dout):
        d = dout * (1 - self.y ** 2)
        self.dW, self.db = self.x.T @ d, d.sum(0)
        RETURN
x, layer = np.random.default_rng(1).normal(size=(5, 4)) / 2, Layer()
layer.forward(x, SCALE)
layer.backward(np.ones((5, 3)))
"""


def read_layer(tmp_path: Path, returns: str, state: str = "", scale: str = "None") -> Any:
    """Read the layer that returns this, and holds or is given something more."""
    source = RETURNED.replace("RETURN", returns).replace("STATE", state).replace("SCALE", scale)
    return read_own(tmp_path, source)


@pytest.mark.parametrize("name", ["", "grad_input", "input_error", "d_in", "dinputs"])
def test_what_a_layer_returns_alone_is_the_gradient_of_the_input_of_its_shape(
    name: str, tmp_path: Path
) -> None:
    def returned(product: str) -> str:
        return f"{name} = {product}; return {name}" if name else f"return {product}"

    found = read_layer(tmp_path, returned("d @ self.W.T"))
    assert [*found.params] == ["W", "b", "x"]
    assert "; what backward returns is taken for dx; parameters: " in found.said
    assert list_wrong(found) == set()
    if name:
        assert list_wrong(read_layer(tmp_path, returned("2 * d @ self.W.T"))) == {"x"}
        return
    with pytest.raises(ValueError, match="the gradient of x in a result without a name that has"):
        read_layer(tmp_path, returned("2 * d @ self.W.T"))


@pytest.mark.parametrize(
    ("returns", "state", "scale"),
    [
        ("return d @ self.W.T", "self.g = np.zeros((5, 4))", "None"),  # it may be that of g
        ("self.h = 0 * self.x; return d @ self.W.T", "self.h = None", "None"),  # or of a state
        ("return d @ self.W.T", "", "np.ones((5, 4))"),  # or of scale
        ("out = d @ self.W.T; return out", "", "None"),  # it has no name of a gradient
        ("delta = d @ self.W.T; return delta", "", "None"),  # or one of another
        ("dz = d @ self.W.T; return dz", "", "None"),
        ("return d", "", "None"),  # nor the shape
    ],
)
def test_what_may_be_another_gradient_than_that_of_the_input_is_not_compared(
    returns: str, state: str, scale: str, tmp_path: Path
) -> None:
    found = read_layer(tmp_path, returns.replace("d @", "2 * d @"), state, scale)
    assert [*found.params] == ["W", "b"]
    assert "returned, and not compared: " in found.said
    assert list_wrong(found) == set()


def test_only_one_array_may_be_the_gradient_of_an_input() -> None:
    x = {"x": np.zeros(3)}
    assert name_input_gradient(np.ones(3), {}, x, {}, {}) == "dx"
    assert name_input_gradient(np.ones(3), {(): "dW"}, x, {}, {}) == ""
    assert name_input_gradient((np.ones(3),), {}, x, {}, {}) == ""
    before, after = SimpleNamespace(h=None, q=None), SimpleNamespace(h=np.ones(3), q=np.ones(3))
    assert name_input_gradient(np.ones(3), {}, x, before, after) == ""
    assert name_input_gradient(np.ones(3), {}, x, SimpleNamespace(q=None), after) == "dx"


ALIASES = """
import numpy as np
class Affine:
    def __init__(self, W):
        self.W = W
    def forward(self, x):
        self.x = x
        return x @ self.W
    def backward(self, d):
        self.dW = self.x.T @ d
        return d @ self.W.T
class Net:
    def __init__(self):
        self.params = {"W1": np.ones((3, 2)) / 3, "W2": np.ones((2, 2)) / 2}
        self.first, self.last = Affine(self.params["W1"]), Affine(self.params["W2"])
    def step(self, x):
        y = self.last.forward(np.tanh(self.first.forward(x)))
        decay = sum(np.sum(W ** 2) for W in self.params.values()) / 2
        d = self.last.backward(2 * y)
        self.first.backward(d * (1 - self.last.x ** 2))
        g = {"W1": self.first.dW + PENALTY * self.first.W, "W2": self.last.dW + self.last.W}
        return np.sum(y ** 2) + decay, RETURN
Net().step(np.arange(12.0).reshape(4, 3) / 9)
"""


@pytest.mark.parametrize(("penalty", "wrong"), [("1", set()), ("0", {"W1"})])
def test_the_returned_gradient_of_a_parameter_comes_before_that_of_a_layer(
    penalty: str, wrong: set[str], tmp_path: Path
) -> None:
    text = ALIASES.replace("PENALTY", penalty).replace("RETURN", "g")
    found = read_own(tmp_path, text, "Net.step")
    assert [*found.params] == ["W1", "W2"]
    assert list_wrong(found) == wrong


def test_the_gradient_that_a_layer_keeps_is_read_where_none_is_returned(tmp_path: Path) -> None:
    text = ALIASES.replace("PENALTY", "1").replace(", RETURN", "").replace(" + decay", "")
    found = read_own(tmp_path, text, "Net.step")
    assert [*found.params] == ["first.W", "last.W"]
    assert list_wrong(found) == set()
