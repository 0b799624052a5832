"""Calls while a file is read leave no trace: what is wrong at the first calls is compared."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import FileSubmission, read_file
from bptt_verifier.judge.verify import verify_own_model

CODE = """
import numpy as np
rng = np.random.default_rng(0)
x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
params = {{"W": rng.normal(size=(3, 2))}}
{before}
def step(params, x, y):
    error = np.tanh(x @ params["W"]) - y
    dW = x.T @ (2 * error * (1 - (error + y) ** 2))
    {count}
    if {wrong}: dW = 1.01 * dW
    return (error ** 2).sum(), {{"W": dW}}
step(params, x, y)
"""
COUNTERS = {
    "a list": ("calls = [0]", "calls[0] += 1; n = calls[0]"),
    "a global": ("calls = 0", "global calls; calls += 1; n = calls"),
    "an array": ("calls = np.zeros(1)", "calls[0] += 1; n = calls[0]"),
    "an attribute": ("", "step.n = getattr(step, 'n', 0) + 1; n = step.n"),
}
OWN = """
import numpy as np
calls = [0]
params = {"W": np.linspace(0.1, 1.0, 6).reshape(3, 2)}
def loss(params):
    return (np.tanh(params["W"]) ** 2).sum()
def slopes(params):
    calls[0] += 1
    h = np.tanh(params["W"])
    return {"W": 2 * h * (1 - h ** 2)}
"""


def read(folder: Path, text: str, name: str | None = None) -> FileSubmission:
    """Read a file with this text."""
    file = folder / "code.py"
    file.write_text(text)
    return read_file(file, name, None, {}, ())


def judge(found: FileSubmission) -> Any:
    """Judge what a file defines."""
    assert found.loss is not None
    return verify_own_model(found.gradients, found.loss, found.params, cases=4)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_is_wrong_at_one_of_the_first_calls_disagrees(number: int, tmp_path: Path) -> None:
    before, count = COUNTERS["a list"]
    report = judge(read(tmp_path, CODE.format(before=before, count=count, wrong=f"n == {number}")))
    name = "not-deterministic" if number < 3 else "depends-on-calls"
    assert [mistake.name for mistake in report.mistakes] == [name], str(report)


@pytest.mark.parametrize("kind", COUNTERS)
def test_the_first_call_that_is_compared_is_the_first_of_all(kind: str, tmp_path: Path) -> None:
    before, count = COUNTERS[kind]
    text = CODE.format(before=before, count=count, wrong="n == 1")
    assert judge(read(tmp_path, text)).verdict.value == "disagrees"
    assert judge(read(tmp_path, text.replace("n == 1", "False"))).verdict.value == "agrees"


def test_gradients_of_an_own_model_are_not_counted_while_it_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, OWN, "slopes")
    assert inspect.unwrap(found.gradients).__globals__["calls"] == [0]
    found.gradients(found.params)
    assert inspect.unwrap(found.gradients).__globals__["calls"] == [1]
