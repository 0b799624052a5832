"""Parameters that a method updates by `setattr`, `vars` or `__dict__` are found and judged."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.tolerance.comparison import Verdict

SOURCE = """
import numpy as np


class Net:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.W1, self.W2 = rng.normal(size=(3, 2)), rng.normal(size=(1, 3))
        self.h, self.speed = np.zeros(3), {"W1": 0.0, "W2": 0.0}

    def train(self, x, y, lr=0.1, momentum=0.9):
        h = np.tanh(self.W1 @ x)
        e = self.W2 @ h - y
        grads = {"W2": np.outer(e, h), "W1": np.outer(self.W2[0] * e * (1 - h**2), x)}
        for k, g in grads.items():
            UPDATE
        self.h = h
        return 0.5 * float(e @ e)


net = Net()
for _ in range(3):
    net.train(np.array([0.3, -0.5]), np.array([0.2]))
"""
MOMENTUM = "self.speed[k] = momentum * self.speed[k] - lr * g; "
UPDATES = {
    "momentum that begins as a number": MOMENTUM
    + "setattr(self, k, getattr(self, k) + self.speed[k])",
    "a name in parts": 'setattr(self, f"W{k[1:]}", getattr(self, k) - lr * g)',
    "a value computed before": "new = getattr(self, k) - lr * g; setattr(self, k, new)",
    "the dict of the object": "self.__dict__[k] = self.__dict__[k] - lr * g",
    "the variables of the object": "vars(self)[k] = vars(self)[k] - lr * g",
}  # fmt: skip


def read(folder: Path, source: str, name: str | None = None) -> Any:
    file = folder / "model.py"
    file.write_text(source, encoding="utf-8")
    return read_file(file, name, None, {})


@pytest.mark.table(5)
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_parameters_set_by_name_are_judged(update: str, tmp_path: Path) -> None:
    found = read(tmp_path, SOURCE.replace("UPDATE", update), "Net.train")
    assert sorted(found.params) == ["W1", "W2"]
    assert verify_own_model(found.gradients, found.loss, found.params, cases=3)
    wrong = SOURCE.replace("UPDATE", update).replace("(1 - h**2)", "(1 - h)")
    found = read(tmp_path, wrong, "Net.train")
    report = verify_own_model(found.gradients, found.loss, found.params, cases=3)
    assert report.verdict is Verdict.DISAGREES


def test_the_only_method_that_sets_attributes_by_name_is_judged_without_one(tmp_path: Path) -> None:
    source = SOURCE.replace("UPDATE", UPDATES["a value computed before"])
    assert sorted(read(tmp_path, source).params) == ["W1", "W2"]
    with pytest.raises(ValueError, match="expected a function gradients"):
        read(tmp_path, source.replace("grads", "others"))
    fit = (
        "    def fit(self):\n        grads = {}\n        setattr(self, 'a', 1)\n        return 1\n"
    )
    second = source.replace("\n\nnet =", f"\n{fit}\n\nnet =")
    with pytest.raises(ValueError, match="expected a function gradients"):
        read(tmp_path, second)


def test_an_attribute_that_is_assigned_by_its_name_is_no_parameter(tmp_path: Path) -> None:
    source = SOURCE.replace("UPDATE", UPDATES["a value computed before"]).replace(
        "self.h", "self.Z"
    )
    source = source.replace("grads = {", 'grads = {"Z": h, ').replace(
        "self.Z = h", "self.Z = h + 1"
    )
    source = source.replace("for k, g in grads.items()", "for k, g in [*grads.items()][1:]")
    assert sorted(read(tmp_path, source, "Net.train").params) == ["W1", "W2"]
