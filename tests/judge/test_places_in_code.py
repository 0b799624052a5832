"""Places in the user's code: which of two products on a line, and where a trace ends."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model

TWO_PRODUCTS = """import numpy as np
rng = np.random.default_rng(0)
x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
params = {name: rng.normal(size=n) for name, n in (("U", (3, 4)), ("W", (4, 4)), ("V", (4, 2)))}
def loss(params):
    h = np.tanh(x @ params["U"]); g = np.tanh(h @ params["W"] + x @ params["U"])
    return ((g @ params["V"] - y) ** 2).sum()
def gradients(params):
    U, W, V = params["U"], params["W"], params["V"]
    h = np.tanh(x @ U); g = np.tanh(h @ W + x @ U)
    d = 2 * (g @ V - y)
    dg = (d @ V.T) * (1 - g * g)
    da = (dg @ W.T) * (1 - h * h)
    return {"U": x.T @ dg + x.T @ da, "W": h.T @ dg, "V": g.T @ d}
"""
PRODUCTS = {
    "dg @ W.T -> dg @ W": ('h @ params["W"]', 'at `h @ params["W"]`'),
    "x.T @ dg + x.T @ da -> x.T @ da": (
        'h @ params["W"] + x',
        'no gradient is passed on to `x @ params["U"]`',
    ),
    "x.T @ dg + x.T @ da -> x.T @ dg": ('h @ params["W"]', "no gradient is passed on to `h`"),
    "x.T @ dg + x.T @ da -> x.T @ dg + 2 * x.T @ da": (
        'h @ params["W"]',
        "the gradient passed on to `h` is counted twice",
    ),
    "x.T @ dg + x.T @ da -> 2 * x.T @ dg + x.T @ da": (
        'h @ params["W"] + x',
        'the gradient passed on to `x @ params["U"]` is counted twice',
    ),
}


def read(folder: Path, source: str) -> Any:
    """Write a file, and read the model in it."""
    file = folder / "model.py"
    file.write_text(source)
    return read_file(file, None, None, {}, ())


@pytest.mark.slow
@pytest.mark.parametrize("change", PRODUCTS)
def test_of_two_products_on_a_line_the_right_one_is_named(change: str, tmp_path: Path) -> None:
    old, new = change.split(" -> ")
    assert old in TWO_PRODUCTS
    found = read(tmp_path, TWO_PRODUCTS.replace(old, new))
    report = verify_own_model(found.gradients, found.loss, found.params)
    start, words = PRODUCTS[change]
    line = TWO_PRODUCTS.splitlines(keepends=True)[5]
    said = report.mistakes[0].explanation
    assert f"model.py:6:{line.index(start) + 1})" in said
    assert words in said


START = "import ctypes, ctypes.util, json, tempfile\nimport numpy as np\n"
BLACK_BOXES = {
    "compiled": (
        "libm = ctypes.CDLL(ctypes.util.find_library('m'))\n"
        "libm.sin.restype, libm.sin.argtypes = ctypes.c_double, [ctypes.c_double]\n"
        "def loss(params):\n    return sum(libm.sin(float(w)) for w in params['W'])\n",
        "np.cos(W)",
        "libm.sin(float(w))",
    ),
    "spline": (
        "from scipy.interpolate import CubicSpline\nt = np.linspace(0, 1, 6)\n"
        "A = np.stack([CubicSpline(t, e)(0.37) for e in np.eye(6)])\n"
        "def loss(params):\n    return 2 * CubicSpline(t, params['W'])(0.37) ** 2\n",
        "4 * (A @ W) * A",
        "CubicSpline(t, params['W'])",
    ),
    "file": (
        "def loss(params):\n    with tempfile.TemporaryFile() as file:\n"
        "        np.save(file, params['W']); file.seek(0)\n        W = np.load(file)\n"
        "    return (W ** 2).sum()\n",
        "2 * W",
        "np.save(file, params['W'])",
    ),
    "text": (
        "def loss(params):\n    W = json.loads(json.dumps(params['W'].tolist()))\n"
        "    return sum(w ** 3 for w in W)\n",
        "3 * W ** 2",
        "json.dumps(params['W'].tolist())",
    ),
}


@pytest.mark.rest
@pytest.mark.parametrize("kind", BLACK_BOXES)
def test_what_cannot_be_traced_is_judged_by_differences_and_the_report_says_where(
    kind: str, tmp_path: Path
) -> None:
    source, slope, expression = BLACK_BOXES[kind]
    params = "params = {'W': np.random.default_rng(0).normal(size=6)}\n"
    for factor, verdict in (("1", True), ("(1 + 1e-6)", False)):
        gradients = (
            f"def gradients(params):\n    W = params['W']\n    return {{'W': {factor} * {slope}}}\n"
        )
        text = f"{START}{params}{source}{gradients}"
        found = read(tmp_path, text)
        report = verify_own_model(found.gradients, found.loss, found.params)
        assert bool(report) == verdict
        before = text[: text.index(expression)].splitlines()
        place = f"model.py:{len(before)}:{len(before[-1]) + 1}"
        said = " ".join(report.notes)
        assert f"cannot be traced at `{expression}` (" in said
        assert f"{place})" in said
        assert "The reference is therefore central differences of the loss in " in said
        assert "The smallest relative errors that could have been seen: " in said
