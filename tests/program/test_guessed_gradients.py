"""A result without a name is a wrong gradient where it can be nothing else."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.tolerance.comparison import Verdict

SOURCE = """
import numpy as np
rng = np.random.default_rng(0)
W, b, V = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=(2, 4))
def step(x, labels):
    h = np.tanh(x @ W.T + b)
    z = h @ V.T
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    n = np.arange(len(x))
    loss = -np.log(p[n, labels]).mean()
    dz = p.copy()
    dz[n, labels] -= 1
    dz /= len(x)
    da = dz @ V * (1 - h**2)
    dV, dW, total = dz.T @ h, da.T @ x, [da.sum(0)]
    return loss, dW, RESULT, dV
step(rng.normal(size=(5, 3)), np.array([0, 1, 1, 0, 1]))
"""


def read(folder: Path, result: str, source: str = SOURCE) -> Any:
    file = folder / "model.py"
    file.write_text(source.replace("RESULT", result), encoding="utf-8")
    return read_file(file, "step", None, {})


@pytest.mark.table(4)
@pytest.mark.parametrize(
    "result", ["da.mean(0)", "-da.sum(0)", "np.ones(5) @ da / 5", "0.1 * b + da.sum(0)"]
)
def test_a_wrong_gradient_of_a_shape_of_its_own_disagrees(result: str, tmp_path: Path) -> None:
    found = read(tmp_path, result)
    assert "a result without a name is taken for the gradient of b, by its shape" in found.said
    report = verify_own_model(found.gradients, found.loss, found.params, cases=3)
    assert report.verdict is Verdict.DISAGREES
    assert "∂L/∂b" in str(report)


def test_a_right_gradient_is_compared_as_before(tmp_path: Path) -> None:
    found = read(tmp_path, "da.sum(0)")
    assert "by its shape" not in found.said
    assert verify_own_model(found.gradients, found.loss, found.params, cases=3)


@pytest.mark.parametrize(
    "result",
    [
        "h.sum(0)",  # a state, which no target changes
        "total[0] + np.ones(4)",  # no product, and no sum
        "-total[0] + 1",
        "da.mean(0), da.sum(0) * 1.1",  # two of one shape
    ],
)
def test_a_result_that_may_be_another_is_asked_for(result: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--params"):
        read(tmp_path, result)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def step(x, labels):", "def step(x, labels, extra=np.ones(4)):"),  # data of that shape
        ("labels", "k"),  # no targets by name
    ],
)
def test_other_arrays_of_the_shape_or_no_targets_leave_a_doubt(
    old: str, new: str, tmp_path: Path
) -> None:
    source = SOURCE.replace(old, new)
    if "extra" in new:
        source = source.replace("0, 1]))\n", "0, 1]), np.ones(4))\n")
    with pytest.raises(ValueError, match="expected the gradient of b in a result without a name"):
        read(tmp_path, "da.mean(0)", source)
