"""Gradients without names are those of the parameters in order, and a doubtful order is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.program.leaves import flatten

LIST = ("weights = [A, B]", "U, V = weights")
TUPLE = ("theta = (A, B)", "U, V = theta")
DICT = ("params = {'U': A, 'V': B}", "U, V = params['U'], params['V']")
NESTED = ("theta = [[A], [B]]", "(U,), (V,) = theta")
WITH_DATA = ("weights = [A, 3, B]", "U, _, V = weights")
PARTS = (
    "params = {'one': {'U': A}, 'two': {'V': B}}",
    "U, V = params['one']['U'], params['two']['V']",
)
BESIDE = ("params = {'W': [A, B], 'n': 3}", "U, V = params['W']")
AFTER = ("params = {'sizes': [3, 4], 'layers': [[A], [B]]}", "(U,), (V,) = params['layers']")
GLOBAL = ("layers = [A, B]", "U, V = layers")
Layout = tuple[str, str]


def read(folder: Path, layout: Layout, returns: str) -> Any:
    """Read a function of a network of two layers that ends in these statements."""
    name = "" if layout is GLOBAL else layout[0].split()[0]
    file = folder / "model.py"
    file.write_text(
        "import numpy as np\nrng = np.random.default_rng(0)\n"
        "x, y, A, B = (rng.normal(size=n) for n in ((5, 3), (5, 2), (3, 4), (4, 2)))\n"
        f"{layout[0]}\ndef step({name}):\n    {layout[1]}\n"
        "    h = np.tanh(x @ U)\n    r = h @ V - y\n    loss, half = (r**2).sum(), h.T @ r\n"
        "    dU, dV = x.T @ ((2 * r @ V.T) * (1 - h * h)), 2 * half\n    cache = (x, h)\n"
        f"    {returns}\nstep({name})\n"
    )
    return read_file(file, "step", None, {}, ())


@pytest.mark.parametrize(
    ("layout", "returns"),
    [
        (LIST, "return loss, [dU, 2 * half]"),
        (LIST, "return loss, [dU + 0, dV]"),
        (TUPLE, "return loss, (np.copy(dU), half + half)"),
        (LIST, "grads = [dU, 2 * half]; return loss, grads"),
        (LIST, "grads = [dU, 2 * half]; return loss, cache, grads"),
        (LIST, "grads = [dU, dV]; return loss, grads, cache"),
        (DICT, "return loss, [dU, 2 * half]"),
        (DICT, "return loss, [dU + 0, 2 * half]"),
        (DICT, "return loss, [dV, dU]"),
        (DICT, "return loss, dU, 2 * half"),
        (DICT, "return loss, [dU, dV, h]"),
        (NESTED, "first = [dU]; return loss, [first, [2 * half]]"),
        (NESTED, "return loss, [dU, 2 * half]"),
        (LIST, "return loss, h, r, [dU, 2 * half]"),
        (WITH_DATA, "return loss, [dU, 2 * half]"),
        (WITH_DATA, "return loss, [dU, None, 2 * half]"),
        (PARTS, "return loss, {'one': [dU], 'two': [2 * half]}"),
        (BESIDE, "return loss, [[dU, 2 * half]]"),
        (BESIDE, "return loss, [[dU, 2 * half], None]"),
        (BESIDE, "grads = ([dU, dV],); return loss, grads, cache"),
        (AFTER, "return loss, [[dU], [2 * half]]"),
        (AFTER, "return loss, [[[dU], [2 * half]]]"),
        (GLOBAL, "dlayers = [dU, 2 * half]; return loss, dlayers"),
        (GLOBAL, "dlayers = [dU, dV]; return loss, dlayers, cache"),
    ],
)  # fmt: skip
def test_gradients_of_which_some_have_names_are_all_found(
    layout: Layout, returns: str, tmp_path: Path
) -> None:
    found = read(tmp_path, layout, returns)
    tree = flatten(found.params)
    result = tree.read(found.gradients(found.params)[1])
    slopes = dict(zip(tree.leaves, result, strict=True)) if isinstance(result, list) else result
    U, V = tree.leaves.values()
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=n) for n in ((5, 3), (5, 2)))
    h = np.tanh(x @ U)
    back = 2 * (h @ V - y)
    of_U, of_V = (slopes[name] for name in tree.leaves)
    np.testing.assert_allclose(of_U, x.T @ (back @ V.T * (1 - h**2)), rtol=1e-12)
    np.testing.assert_allclose(of_V, h.T @ back, rtol=1e-12)


@pytest.mark.parametrize(
    ("layout", "returns", "said"),
    [
        (DICT, "return loss, [2 * half, dU]",
         r"the gradients of U, V in this order, or each .* dU, found one without a name, dU$"),
        (DICT, "return loss, dV, dU + 0", "V in this order.*, found dV, one without a name$"),
        (DICT, "return loss, [dU, 2 * half, h]", "found dU, one without a name, h$"),
        (DICT, "return loss, [dU + 0, 2 * half, h]", "as params has arrays, 2, .* found 3; return"),
        (LIST, "return loss, [dU, dV, dV]", "as weights has arrays, 2, .* found 3; return what"),
        (NESTED, "return loss, [[dU, h], [dV]]", r"as theta\[0\] has arrays, 1, .* found 2;"),
        (TUPLE, "return loss, None", r"theta\[0\], theta\[1\], in a list in this order, found"),
        (LIST, "return loss, dU, dV, cache", r"weights\[0\], .* found tuple of loss, dU, dV, c"),
        (LIST, "return loss, [dU, 2 * half], [h]", r"item 1, item 2 \(h\); let it return loss"),
        (LIST, "return loss, {'dU': dU, 'dV': dV}", r"weights\[0\], weights\[1\], in a list"),
    ],
)  # fmt: skip
def test_an_order_that_may_be_another_is_refused_with_the_remedy(
    layout: Layout, returns: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        read(tmp_path, layout, returns)


def test_a_gradient_that_is_missing_from_a_list_stays_missing(tmp_path: Path) -> None:
    for layout, name in ((LIST, "weights[0]"), (DICT, "U")):
        found = read(tmp_path, layout, "return loss, [dU]")
        assert [*flatten(found.params).read(found.gradients(found.params)[1])] == [name]
