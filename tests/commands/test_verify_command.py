"""`bptt verify` on the user's own code: what it prints, and with which exit code it ends."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.command_line import Command

PAIR = """
import numpy as np
w = np.array([[0.5, -1.0], [0.2, 0.7]])
def f(x, xp):
    h = xp.tanh(xp.asarray(x) @ w)
    dw = 2 * xp.asarray(x).T @ (h * (1 - h * h)){mistake}
    return xp.sum(h * h), dw
x = np.array([[1.0, 2.0]])
"""


@pytest.mark.parametrize(("mistake", "code"), [("", 0), (" / 2", 1)])
def test_one_function_is_judged_by_its_own_loss(
    mistake: str, code: int, bptt: Command, tmp_path: Path
) -> None:
    file = tmp_path / "pair.py"
    file.write_text(PAIR.format(mistake=mistake), encoding="utf-8")
    ended = bptt("verify", "--own", f"{file}:f", "--params", "w")
    assert ended.code == code, ended.out + ended.err
    assert "f is taken for a function that returns the loss and the gradients" in ended.out
    assert "parameters: w" in ended.out
    if not mistake:
        assert "every case has the same data, x." in ended.out
        return
    assert "constant-factor" in ended.out
    command = re.search(r"Reproduce: bptt (.*)", ended.out)
    assert command is not None
    again = bptt(*shlex.split(command[1]))
    assert again.code == 1, again.err
    assert "At w = [[" in again.out
    numbers = re.findall(r"(?m)^  (?:yours|autodiff) .*", ended.out)
    assert numbers == re.findall(r"(?m)^  (?:yours|autodiff) .*", again.out)


@pytest.mark.parametrize(
    ("source", "arguments", "sentence"),
    [
        (
            "while True: pass",
            ("--timeout", 0.5),
            "did not end within 0.5 s; put what the file runs",
        ),
        ("def f(x): ...\ndef g(): ...", (), "found f, g; name yours, such as "),
        ("x = 1", (), "found none; put the forward and the backward pass into a function"),
        ("class A:\n def fit(s): ...\n def _f(s): ...", (), "name yours, such as {file}:A.fit"),
        ("params = loss = 1\ndef gradients(p): ...", ("--bias",), "--bias: expected a derivation"),
    ],
)
def test_a_file_that_cannot_be_judged_ends_with_2_and_one_sentence(
    source: str, arguments: tuple[object, ...], sentence: str, bptt: Command, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source, encoding="utf-8")
    ended = bptt("verify", file, *arguments)
    assert ended.code == 2, ended.out
    assert sentence.format(file=file) in ended.err
    assert ended.err.count("\n") == 1


CLOSURE = """
import numpy as np

def make(scale):
    def loss(params, x, y):
        e = np.tanh(params["v"] * x) - y
        return scale * (e**2).sum(), {"v": 2 * scale * e * (1 - (e + y) ** 2) * x}
    return loss

objective = make(0.5)
params, x, y = {"v": np.array([0.3, -0.2])}, np.array([1.0, 2.0]), np.array([0.1, 0.4])
objective(params, x, y)
"""


def test_a_function_of_three_arguments_that_its_file_calls_is_judged_by_that_call(
    bptt: Command, tmp_path: Path
) -> None:
    file = tmp_path / "closure.py"
    file.write_text(CLOSURE, encoding="utf-8")
    run = bptt("verify", f"{file}:objective")
    assert (run.code, run.out.partition(":")[0]) == (0, "agrees"), run
    file.write_text(CLOSURE.replace("make(0.5)", "lambda p, a, b: make(0.5)(p, a, b)"), "utf-8")
    run = bptt("verify", f"{file}:objective")
    assert run.code == 2
    assert "expected a derivation of the RNN of this project, or code of your own" in run.err
