"""The order of a list of gradients is proof only where shapes or the code show it."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.list_order import find_direction

SQUARE = "(4, 4), (4, 4), (4, 4)"
HIDDEN = "(4, 8), (8, 8), (8, 8), (8, 2)"
BACKWARD = (
    "for W, before, after in zip(self.weights[::-1], a[-2::-1], a[:0:-1]):",
    "    d = d * (1 - after**2)",
    "    grads.append(before.T @ d)",
    "    d = d @ W.T",
)
BY_INDEX = (
    "grads = [None] * len(self.weights)",
    "for i in reversed(range(len(self.weights))):",
    "    d = d * (1 - a[i + 1] ** 2)",
    "    grads[i] = a[i].T @ d",
    "    d = d @ self.weights[i].T",
)
BY_LATER_INDEX = (
    "grads = [None] * len(self.weights)",
    "d = d * (1 - a[-1] ** 2)",
    "for i in range(len(self.weights) - 1, -1, -1):",
    "    grads[i] = a[i].T @ d",
    "    d = d @ self.weights[i].T * (1 - a[i] ** 2)",
)
UNROLLED = (
    "A, B, C = self.weights",
    "d_last = d * (1 - a[3] ** 2)",
    "d_middle = d_last @ C.T * (1 - a[2] ** 2)",
    "d_first = d_middle @ B.T * (1 - a[1] ** 2)",
    "g_last, g_middle, g_first = a[2].T @ d_last, a[1].T @ d_middle, a[0].T @ d_first",
)
INSERTED = tuple(line.replace("append(", "insert(0, ") for line in BACKWARD)
FORWARD_UPDATE = "for W, g in zip(net.weights, grads): W -= 0.1 * g"
BACKWARD_UPDATE = "for W, g in zip(reversed(net.weights), grads): W -= 0.1 * g"

SLICED_UPDATE = BACKWARD_UPDATE.replace("reversed(net.weights)", "net.weights[::-1]")
INDEXED_UPDATE = "for i in range(3): net.weights[i] -= 0.1 * grads[2 - i]"
CONTRADICTORY = "net.weights[0] -= grads[2]; net.weights[1] -= grads[1]"


def write(
    folder: Path, ways: tuple[str, ...], returns: str, update: str = "", sizes: str = SQUARE
) -> Any:
    """Read a method of a network of some layers that fills a list in these ways."""
    file, rows = folder / "model.py", "\n        ".join(ways)
    last = "2" if sizes == HIDDEN else "4"
    file.write_text(
        "import numpy as np\nclass Net:\n    def __init__(self):\n"
        "        rng = np.random.default_rng(0)\n"
        f"        self.weights = [rng.normal(size=n) for n in ({sizes})]\n"
        "    def step(self, x, y):\n        a = [x]\n        for W in self.weights:\n"
        "            a.append(np.tanh(a[-1] @ W))\n        loss = np.mean((a[-1] - y) ** 2)\n"
        f"        d, grads = 2 * (a[-1] - y) / y.size, []\n        {rows}\n        {returns}\n"
        "rng = np.random.default_rng(1)\n"
        f"net, x, y = Net(), rng.normal(size=(6, 4)), rng.normal(size=(6, {last}))\n"
        f"loss, grads = net.step(x, y)\n{update}\n"
    )
    return read_file(file, "Net.step", None, {}, ())


TOLD = [
    (BACKWARD, "return loss, grads", BACKWARD_UPDATE, SQUARE),
    (BACKWARD, "return loss, grads", SLICED_UPDATE, SQUARE),
    (BACKWARD, "gradients = grads; return loss, gradients", INDEXED_UPDATE, SQUARE),
    (BACKWARD, "return loss, grads[::-1]", FORWARD_UPDATE, SQUARE),
    (BACKWARD, "return loss, grads[::-1]", "", SQUARE),
    (BACKWARD, "grads.reverse(); return loss, grads", "", SQUARE),
    (BACKWARD, "gradients = list(reversed(grads)); return loss, gradients", "", SQUARE),
    (BACKWARD, "return loss, [g / 1 for g in grads[::-1]]", "", SQUARE),
    (INSERTED, "return loss, grads", "", SQUARE),
    (BY_INDEX, "return loss, grads", "", SQUARE),
    (BY_LATER_INDEX, "return loss, grads", "", SQUARE),
    (UNROLLED, "return loss, [g_first, g_middle, g_last]", "net.weights[0] -= grads[0]", SQUARE),
    (BACKWARD, "return loss, grads", "", HIDDEN),  # the shapes tell
    (BACKWARD, "return loss, grads", BACKWARD_UPDATE, HIDDEN),
    (INSERTED, "return loss, grads", "", HIDDEN),
]  # fmt: skip


@pytest.mark.table(15)
@pytest.mark.parametrize(("ways", "returns", "update", "sizes"), TOLD)
def test_a_list_is_read_in_the_order_that_shapes_or_the_code_tell(
    ways: tuple[str, ...], returns: str, update: str, sizes: str, tmp_path: Path
) -> None:
    found = write(tmp_path, ways, returns, update, sizes)
    assert len(found.params) == sizes.count("(")
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert report, report
    wrong = write(
        tmp_path, ways, f"grads[1:2] = [-g for g in grads[1:2]]; {returns}", update, sizes
    )
    if ways is not UNROLLED:
        assert not verify_own_model(wrong.gradients, wrong.loss, wrong.params, cases=2)


UNTOLD = [
    (UNROLLED, "return loss, [g_last, g_middle, g_first]", ""),
    (UNROLLED, "return loss, [g_first, g_middle, g_last]", ""),
    (UNROLLED, "return loss, [g_first, g_middle, g_last]", f"{FORWARD_UPDATE}\n{BACKWARD_UPDATE}"),
    (UNROLLED, "return loss, [g_first, g_middle, g_last]", CONTRADICTORY),
]  # fmt: skip


@pytest.mark.parametrize(("ways", "returns", "update"), UNTOLD)
def test_an_order_that_nothing_tells_is_asked(
    ways: tuple[str, ...], returns: str, update: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="in the order of the gradients with --params"):
        write(tmp_path, ways, returns, update)


NAMED = {
    "argument": "def step(weights, x, y):\n    ws, grads = weights, []",
    "globals": "def step(x, y):\n    ws, weights_grad = weights, []",
}


@pytest.mark.parametrize("start", NAMED)
@pytest.mark.parametrize("turned", ["", "[::-1]"])
def test_a_list_named_after_its_arrays_is_refused_from_the_last_to_the_first(
    start: str, turned: str, tmp_path: Path
) -> None:
    file, name = tmp_path / "model.py", "grads" if start == "argument" else "weights_grad"
    file.write_text(
        "import numpy as np\nrng = np.random.default_rng(0)\n"
        "weights, x, y = [rng.normal(size=(4, 4)) for _ in range(3)], *rng.normal(size=(2, 5, 4))\n"
        f"{NAMED[start]}\n    hs = [x]\n    for w in ws:\n        hs.append(np.tanh(hs[-1] @ w))\n"
        "    loss = np.mean((hs[-1] - y) ** 2)\n    d = 2 * (hs[-1] - y) / y.size\n"
        "    for k in reversed(range(len(ws))):\n        d = d * (1 - hs[k + 1] ** 2)\n"
        f"        {name}.append(hs[k].T @ d)\n        d = d @ ws[k].T\n"
        f"    return loss, {name}{turned}\n"
    )
    if not turned:
        with pytest.raises(ValueError, match=r"begins with the last; return it reversed"):
            read_file(file, "step", True, {}, ())
    else:
        found = read_file(file, "step", True, {}, ())
        assert verify_own_model(found.gradients, found.loss, found.params, cases=2)


def test_code_without_source_tells_no_direction() -> None:
    assert find_direction(len, "weights", ("result", 1)) == "unknown"
