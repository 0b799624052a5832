"""Functions whose names say that they return the loss and the gradients are judged unnamed."""

from pathlib import Path

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.tolerance.comparison import Verdict

SOURCE = """
from typing import NamedTuple

import numpy as np


class Weights(NamedTuple):
    U: np.ndarray
    W: np.ndarray


def make_weights(rng):
    return Weights(rng.normal(size=(3, 2)), rng.normal(size=(3, 3)))


def NAME(weights, sequence):
    U, W = weights
    h = [np.zeros(3)]
    for x in sequence:
        h.append(np.tanh(U @ x + W @ h[-1]))
    total = np.sum(h[-1] ** 2) / 2
    d, first, second = h[-1], 0 * U, 0 * W
    for t in range(len(sequence))[::-1]:
        s = d * (1 - h[t + 1] ** 2)
        first = first + np.outer(s, sequence[t])
        second = second + np.outer(s, h[t])
        d = W.T @ s
    return total, Weights(first, second)


def main():
    rng = np.random.default_rng(0)
    print(NAME(make_weights(rng), rng.normal(size=(4, 2))))


if __name__ == "__main__":
    main()
"""


@pytest.mark.table(3)
@pytest.mark.parametrize("name", ["value_and_gradient", "cost_and_grads", "rnn_loss_with_grad"])
def test_the_name_of_a_function_may_say_what_it_returns(tmp_path: Path, name: str) -> None:
    file = tmp_path / "model.py"
    for right in (True, False):
        source = SOURCE.replace("NAME", name)
        source = source if right else source.replace("d = W.T @ s", "d = W @ s")
        file.write_text(source, encoding="utf-8")
        found = read_file(file, None, None, {})
        assert found.loss is not None, found.said
        report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
        assert report.verdict is (Verdict.AGREES if right else Verdict.DISAGREES), str(report)


def test_a_function_that_returns_one_value_is_no_candidate_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    one = "return total, Weights(first, second)", "return Weights(first, second)"
    source = SOURCE.replace("NAME", "value_and_gradient").replace(*one)
    file.write_text(source, encoding="utf-8")
    with pytest.raises(ValueError, match="expected a function gradients"):
        read_file(file, None, None, {})


def test_parameters_in_tuples_of_numbers_are_asked_for_as_arrays(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    source = (
        "class Net:\n"
        "    def __init__(self):\n        self.w = [0.5, 0.25]\n"
        "    def forward(self, x):\n        self.x = x\n"
        "        return sum(w * x for w in self.w)\n"
        "    def backward(self):\n        self.dw = [self.x, self.x]\n"
        "net = Net()\nloss = net.forward(2.0)\nnet.backward()\n"
    )
    file.write_text(source, encoding="utf-8")
    assert read_file(file, None, None, {}).params["w"].tolist() == [0.5, 0.25]
    file.write_text(source.replace("[0.5, 0.25]", "(0.5, 0.25)"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"hold the parameters in float arrays of NumPy"):
        read_file(file, None, None, {})
