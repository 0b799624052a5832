"""Gradients of arrays in lists are found by numbers, shapes or order, where one way is possible."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model

ONE = ("self.W = [A, B]", "*self.W, 0.0, 0.0")
WORD = ("self.weights = [A, B]", "*self.weights, 0.0, 0.0")
TWO = ("self.W, self.b = [A, B], [a, b]", "*self.W, *self.b")
PAIRS = (
    "self.layers = [(A, a), (B, b)]",
    "self.layers[0][0], self.layers[1][0], self.layers[0][1], self.layers[1][1]",
)
DICTS = (
    "self.layers = [{'W': A, 'b': a}, {'W': B, 'b': b}]",
    "*(p['W'] for p in self.layers), *(p['b'] for p in self.layers)",
)
BY_NUMBER = ("self.W = {1: A, 2: B}", "self.W[1], self.W[2], 0.0, 0.0")
BESIDE = ("self.W, self.c = [A, B], b", "*self.W, 0.0, self.c")
Layout = tuple[str, str]


def read(folder: Path, layout: Layout, returns: str, square: bool = False) -> Any:
    """Read a method of a network of two layers, or one function of globals, that ends so."""
    D, H, Y = (3, 3, 3) if square else (3, 4, 2)
    sizes = ((5, D), (5, Y), (D, H), (H, Y), (H,), (Y,))
    file = folder / "model.py"
    file.write_text(
        "import numpy as np\nrng = np.random.default_rng(0)\n"
        f"x, y, A, B, a, b = (rng.normal(size=n) for n in {sizes})\n"
        f"class Net:\n    def __init__(self):\n        {layout[0]}\n"
        f"    def step(self, x, y):\n        W1, W2, b1, b2 = {layout[1]}\n"
        "        h = np.tanh(x @ W1 + b1)\n        r = h @ W2 + b2 - y\n"
        "        loss, dr = (r**2).sum(), 2 * r\n        dW2, db2 = h.T @ dr, dr.sum(0)\n"
        "        da = (dr @ W2.T) * (1 - h * h)\n        dW1, db1 = x.T @ da, da.sum(0)\n"
        f"        {returns}\nnet = Net()\nnet.step(x, y)\n"
    )
    return read_file(file, "Net.step", None, {}, ())


CASES = [
    (ONE, "return loss, [dW1, dW2]", False),
    (ONE, "return loss, [dW2, dW1]", True),  # the numbers tell
    (ONE, "return loss, dW1, dW2", True),
    (ONE, "dW0, dW1 = dW1, dW2; return loss, dW0, dW1", True),
    (ONE, "return loss, [dW1 + 0, dW2 + 0]", False),
    (ONE, "return loss, [dW2 + 0, dW1 + 0]", False),  # the shapes tell
    (ONE, "return loss, [dW1 + 0, dW2 + 0]", True),  # the order tells
    (ONE, "self.grads = [dW1, dW2]; return loss", True),
    (WORD, "return loss, [dW1, dW2]", True),
    (WORD, "return loss, dW1 + 0, h, dW2 + 0", False),
    (TWO, "return loss, [dW1, dW2], [db1, db2]", True),
    (TWO, "return loss, [dW1 + 0, dW2 + 0], [db1 + 0, db2 + 0]", True),
    (TWO, "return loss, db1, dW1, db2, dW2", True),
    (PAIRS, "return loss, [(dW1 + 0, db1 + 0), (dW2 + 0, db2 + 0)]", True),
    (PAIRS, "return loss, [dW1, db1, dW2, db2]", False),
    (DICTS, "return loss, dW1, dW2, db1, db2", True),
    (BY_NUMBER, "return loss, [dW1, dW2]", True),
    (BY_NUMBER, "return loss, {1: dW1, 2: dW2 + 0}", False),
    (BESIDE, "dc = db2; return loss, dW1, dW2, dc", True),
]


@pytest.mark.parametrize(("layout", "returns", "square"), CASES)
def test_gradients_of_arrays_in_lists_are_found(
    layout: Layout, returns: str, square: bool, tmp_path: Path
) -> None:
    found = read(tmp_path, layout, returns, square)
    number = 4 if layout in (TWO, PAIRS, DICTS) else 3 if layout is BESIDE else 2
    assert len(found.params) == number
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert report, report
    wrong = read(tmp_path, layout, f"dW1 = 1.01 * dW1; {returns}", square)
    assert not verify_own_model(wrong.gradients, wrong.loss, wrong.params, cases=2)


@pytest.mark.parametrize(
    ("layout", "returns"),
    [
        (WORD, "return loss, [dW2, dW1]"),  # numbers that contradict the order
        (WORD, "return loss, dW1 + 0, dW2 + 0, dW2 + 0"),
        (PAIRS, "return loss, [dW1 + 0, dW2 + 0, db1 + 0, db2 + 0]"),
        (TWO, "return loss, [dW1 + 0, dW2 + 0, db1 + 0, db2 + 0]"),
        (ONE, "return loss, [dW1]"),
        (ONE, "return loss, [h, r]"),
    ],
)
def test_where_several_ways_are_possible_none_is_taken(
    layout: Layout, returns: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"--params|nothing named as a gradient"):
        read(tmp_path, layout, returns, square=True)


def test_a_list_in_order_may_have_wrong_shapes(tmp_path: Path) -> None:
    found = read(tmp_path, ONE, "return loss, [(x.T @ da).T, dW2 + 0]")
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert [each.name for each in report.mistakes] == ["transposed-gradient"]


FUNCTIONS = {
    "W = np.ones((3, 2))\ndef f(x, y):": "W",
    "layers = [np.ones((3, 2))]\ndef f(x, y):\n    W = layers[0]": "layers[0]",
    "def f(x, y, W):": "W",
    "def f(x, wished, W):\n    y = wished": "W",
}


@pytest.mark.parametrize("start", FUNCTIONS)
def test_the_only_result_of_the_shape_of_the_only_parameter_is_its_gradient(
    start: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "import numpy as np\nx, y = np.eye(5, 3), np.arange(10.0).reshape(5, 2)\n"
        "wished, W = y, np.ones((3, 2))\n"
        f"{start}\n    r = x @ W - y\n    return (r**2).sum(), x.T @ (2 * r)\n"
    )
    found = read_file(file, "f", True, {}, ())
    assert [*found.params] == [FUNCTIONS[start]]
    assert verify_own_model(found.gradients, found.loss, found.params, cases=2)


CACHES = {
    "cache = (x, h)\n    return loss, cache": r"tuple of loss, cache \(x, h\)",
    "return loss, (x, h, W)": r"tuple of loss, item 1 \(x, h, W\)",
    "cache = {'x': x, 'h': h}\n    return loss, cache": r"tuple of loss, cache \(x, h\)",
    "return loss, [x, h]": r"tuple of loss, item 1 \(x, h\)",
    "return loss, h": "tuple of loss, h",
    "return loss": "the loss alone",
}


@pytest.mark.parametrize("start", ["W = np.ones((3, 2))\ndef f(x):", "def f(x, params):"])
@pytest.mark.parametrize("returns", CACHES)
def test_a_cache_in_the_place_of_gradients_is_named_with_the_remedy(
    start: str, returns: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.py"
    unpacked = "    W = params['W']\n" if "params" in start else ""
    file.write_text(
        "import numpy as np\nx, params = np.eye(5, 3), {'W': np.ones((3, 2))}\n"
        f"{start}\n{unpacked}    h = np.tanh(x @ W)\n    loss = (h**2).sum()\n    {returns}\n"
    )
    said = f"gradients of W, found {CACHES[returns]}, and nothing named as a gradient; let it "
    with pytest.raises(ValueError, match=said + "return loss, grads, or name both passes, FILE:f,"):
        read_file(file, "f", True, {}, ())
