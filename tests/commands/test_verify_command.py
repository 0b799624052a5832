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


@pytest.mark.rest
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


@pytest.mark.rest
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


@pytest.mark.rest
def test_a_function_of_three_arguments_that_its_file_calls_is_judged_by_that_call(
    bptt: Command, tmp_path: Path
) -> None:
    file = tmp_path / "closure.py"
    file.write_text(CLOSURE, encoding="utf-8")
    run = bptt("verify", f"{file}:objective")
    assert (run.code, run.out.partition(":")[0]) == (0, "agrees"), run


VECTORS = """
import numpy as np

def train(params, x, y):
    U, W, V = params
    h, steps = np.zeros(len(W)), []
    for each in x:
        before, h = h, np.tanh(U @ each + W @ h)
        steps.append((each, before, h))
    e = V @ h - y
    dU, dW, dh = np.zeros_like(U), np.zeros_like(W), V.T @ e
    for each, before, h in steps[::-1]:
        da = dh * (1 - h**2)
        dU, dW, dh = dU + np.outer(da, each), dW + np.outer(da, before), W.T @ da
    return (e**2).sum() / 2, [dU, dW, np.outer(e, steps[-1][2])]

rng = np.random.default_rng(0)
U, W, V = rng.normal(size=(3, 2)), rng.normal(size=(3, 3)), rng.normal(size=(1, 3))
x, y = rng.normal(size=(4, 2)), np.array([0.1])
train([U, W, V], x, y)
"""


@pytest.mark.rest
def test_a_guess_that_raises_at_once_is_read_as_code_of_its_own(
    bptt: Command, tmp_path: Path
) -> None:
    """Its parameters have the shapes of the RNN's, and its x is one sequence without a batch."""
    file = tmp_path / "vectors.py"
    file.write_text(VECTORS, encoding="utf-8")
    run = bptt("verify", f"{file}:train")
    assert run.out.startswith("agrees"), run
