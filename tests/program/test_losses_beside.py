"""A method that returns gradients alone is judged with the loss beside it in its class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.losses_beside import is_name_of_gradients, is_name_of_loss
from bptt_verifier.program.own_code import OwnCode
from bptt_verifier.program.own_results import hold_same
from bptt_verifier.tolerance.comparison import Verdict

# The loss of a list of sequences, a sum and a mean; the gradients of one sequence.
LISTS = """
import numpy as np


class Network:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.W, self.V = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))

    def forward_propagation(self, x):
        h = [np.zeros(3)]
        for each in x:
            h.append(np.tanh(self.W @ h[-1] + each))
        return [np.array([self.V @ each for each in h[1:]]), np.array(h)]

    def calculate_loss(self, x, y):
        return self.calculate_total_loss(x, y) / sum(len(each) for each in y)

    def calculate_total_loss(self, x, y):
        total = 0.0
        for one, other in zip(x, y):
            o, h = self.forward_propagation(one)
            total += np.sum((o - other) ** 2) / 2
        return total

    def bptt(self, x, y):
        o, h = self.forward_propagation(x)
        dLdW, dLdV = np.zeros_like(self.W), np.zeros_like(self.V)
        d = np.zeros(3)
        for t in range(len(x))[::-1]:
            dLdV += np.outer(o[t] - y[t], h[t + 1])
            s = (self.V.T @ (o[t] - y[t]) + d) * (1 - h[t + 1] ** 2)
            dLdW += np.outer(s, h[t])
            d = self.W.T @ s
        return dLdW, dLdV


if __name__ == "__main__":
    rng = np.random.default_rng(1)
    x, y = [rng.normal(size=(n, 3)) for n in (4, 5)], [rng.normal(size=(n, 2)) for n in (4, 5)]
    network = Network()
    print(network.calculate_loss(x, y))
    for one, other in zip(x, y):
        network.bptt(one, other)
"""
MEAN = LISTS.replace(
    "return dLdW, dLdV", "return dLdW / len(y), dLdV / len(y)"
)  # of calculate_loss

# The loss and the gradients take the same arguments, and each runs the forward pass.
BESIDE = """
import numpy as np


class Filter:
    def __init__(self, n=3):
        rng = np.random.default_rng(0)
        self.A, self.C = rng.normal(size=(n, n)), rng.normal(size=(1, n))

    def run(self, U):
        X = [np.zeros(3)]
        for u in U:
            X.append(np.tanh(self.A @ X[-1] + u))
        return np.array(X)

    def cost(self, U, D, decay=0.1):
        return np.sum((self.run(U)[1:] @ self.C.T - D) ** 2) + decay * np.sum(self.C**2)

    def gradient(self, U, D, decay=0.1):
        X = self.run(U)
        e = 2 * (X[1:] @ self.C.T - D)
        gC = e.T @ X[1:] + 2 * decay * self.C
        gA, d = np.zeros_like(self.A), np.zeros(3)
        for t in range(len(U))[::-1]:
            s = (self.C[0] * e[t] + d) * (1 - X[t + 1] ** 2)
            gA += np.outer(s, X[t])
            d = self.A.T @ s
        return gA, gC

    def fit(self, U, D):
        for _ in range(2):
            gA, gC = self.gradient(U, D)
            self.A -= 0.1 * gA
            self.C -= 0.1 * gC
        return self.cost(U, D)


if __name__ == "__main__":
    rng = np.random.default_rng(1)
    print(Filter().fit(rng.normal(size=(5, 1)), rng.normal(size=(5, 1))))
"""
# A dict of gradients, of data that the file holds at its top level.
DICT = (
    BESIDE.replace("def gradient(", "def compute_grads(")
    .replace("self.gradient(", "self.compute_grads(")
    .replace("def cost(", "def objective(")
    .replace("self.cost(", "self.objective(")
    .replace("return gA, gC", "return {'A': gA, 'C': gC}")
    .replace("gA, gC = self.compute_grads(U, D)", "gA, gC = self.compute_grads(U, D).values()")
)
FILES = {"lists": LISTS, "mean": MEAN, "beside": BESIDE, "dict": DICT}
TAKEN = {
    "lists": "calculate_total_loss([x], [y])",
    "mean": "calculate_loss([x], [y])",
    "beside": "cost(U, D, decay)",
    "dict": "objective(U, D, decay)",
}


def read(tmp_path: Path, source: str) -> OwnCode:
    file = tmp_path / "model.py"
    file.write_text(source, encoding="utf-8")
    found = read_file(file, None, None, {})
    assert found.loss is not None, found.said
    return OwnCode(found.loss, found.gradients, found.params, found.said)


@pytest.mark.parametrize("name", FILES)
def test_a_method_of_gradients_is_judged_with_the_loss_beside_it(tmp_path: Path, name: str) -> None:
    code = read(tmp_path, FILES[name])
    assert f"the gradients of {TAKEN[name]}," in code.said
    report = verify_own_model(code.gradients, code.loss, code.params, cases=2)
    assert report.verdict is Verdict.AGREES, str(report)


@pytest.mark.rest
@pytest.mark.parametrize("name", FILES)
def test_a_wrong_one_disagrees_with_the_same_loss(tmp_path: Path, name: str) -> None:
    source = FILES[name].replace("d = self.W.T @ s", "d = self.W @ s")
    code = read(tmp_path, source.replace("d = self.A.T @ s", "d = self.A @ s"))
    assert f"the gradients of {TAKEN[name]}," in code.said
    report = verify_own_model(code.gradients, code.loss, code.params, cases=2)
    assert report.verdict is Verdict.DISAGREES, str(report)


def test_a_loss_of_lists_of_which_no_gradient_is_right_may_be_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a call with the same x"):
        read(tmp_path, LISTS.replace("return dLdW, dLdV", "return 3 * dLdW, 3 * dLdV"))


def test_a_loss_that_does_not_depend_on_the_parameters_is_none(tmp_path: Path) -> None:
    constant = "return np.sum((self.run(U)[1:] @ self.C.T - D) ** 2) + decay * np.sum(self.C**2)"
    assert constant in BESIDE
    with pytest.raises(ValueError, match="expected the loss and the gradients"):
        read(tmp_path, BESIDE.replace(constant, "return float(np.sum(D**2))"))


def test_a_loss_with_other_arguments_is_not_beside_it(tmp_path: Path) -> None:
    other = BESIDE.replace("def cost(self, U, D,", "def cost(self, U, D, mask,")
    with pytest.raises(ValueError, match="expected"):
        read(tmp_path, other.replace("return self.cost(U, D)", "return 0.0"))


def test_a_loss_that_is_not_finite_is_none(tmp_path: Path) -> None:
    source = BESIDE.replace("return np.sum((self.run", "return np.inf + np.sum((self.run")
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="without a scalar"):
        read(tmp_path, source)


def test_names_tell_losses_from_gradients() -> None:
    assert all(map(is_name_of_loss, ("cost", "calculate_total_loss", "nll", "squared_error")))
    assert not any(map(is_name_of_loss, ("loss_gradient", "backprop_error", "train_loss", "run")))
    assert all(map(is_name_of_gradients, ("gradient", "cost_grad", "compute_gradients", "bptt")))
    assert not any(map(is_name_of_gradients, ("upgrade", "gradient_check", "cost")))


NUMBERS = """
import numpy as np
x, y = np.arange(8.0).reshape(2, 4) / 8, np.ones(2)
def run(u, w):
    h = [np.zeros(2)]
    for x_t in x.T:
        h.append(u * x_t + w * h[-1])
    return h
def loss(u, w):
    return np.sum((run(u, w)[-1] - y) ** 2)
def gradients(u, w):
    h = run(u, w)
    d, gu, gw = 2 * (h[-1] - y), 0.0, 0.0
    for t in reversed(range(4)):
        gu, gw = gu + np.sum(d * x[:, t]), gw + np.sum(d * h[t])
        d = d * w
    return gu, gw
loss(CALL); gradients(CALL)
"""


@pytest.mark.parametrize("kind", ["np.float64", "np.array"])
def test_numbers_of_the_same_name_in_two_calls_are_one_parameter(kind: str, tmp_path: Path) -> None:
    source = NUMBERS.replace("CALL", f"{kind}(0.9), {kind}(-0.5)")
    for text, verdict in [(source, "agrees"), (source.replace("gw +", "gw -"), "disagrees")]:
        code = read(tmp_path, text)
        report = verify_own_model(code.gradients, code.loss, code.params, cases=4)
        assert report.verdict.value == verdict, str(report)


def test_an_empty_container_is_not_shared_by_two_calls(tmp_path: Path) -> None:
    source = NUMBERS.replace("CALL", "np.array(0.9), np.array(-0.5), []").replace(
        "w):", "w, seen):"
    )
    source = source.replace("return np.sum", "seen.append(1); return np.sum")
    source = source.replace("run(u, w, seen):", "run(u, w):")
    source = source.replace("return gu", "return (2 if seen else 1) * gu")
    code = read(tmp_path, source)
    report = verify_own_model(code.gradients, code.loss, code.params, cases=4)
    assert report.verdict is Verdict.AGREES, str(report)


@pytest.mark.parametrize(
    ("returned", "chosen"),
    [("gu, gw", ("u", "w")), ("dict(u=gu, w=gw)", ()), ("(du := gu), (dw := gw)", ("u", "w"))],
)
def test_parameters_that_are_numbers_of_python_are_read_as_those_of_numpy(
    returned: str, chosen: tuple[str, ...], tmp_path: Path
) -> None:
    file, source = tmp_path / "model.py", NUMBERS.replace("CALL", "0.9, -0.5")
    source = source.replace("return gu, gw", f"return {returned}")
    for text, verdict in [(source, "agrees"), (source.replace("gw +", "gw -"), "disagrees")]:
        file.write_text(text, encoding="utf-8")
        code: Any = read_file(file, None, None, {}, chosen)
        report = verify_own_model(code.gradients, code.loss, code.params, cases=4)
        assert report.verdict.value == verdict, str(report)


OF_CLASS = """
import numpy as np
x, y = np.arange(8.0).reshape(4, 2) / 8, np.ones(2)
class Net:
    def __init__(self):
        self.u, self.w, self.rate = -0.5, 0.9, 0.1
    def forward(self, x):
        self.h = [np.zeros(2)]
        for x_t in x:
            self.h.append(self.u * x_t + self.w * self.h[-1])
        return self.h[-1]
    def loss(self, out, y):
        return np.sum((out - y) ** 2)
    def backward(self, out, y):
        d, du, dw = 2 * (out - y), 0.0, 0.0
        for t in reversed(range(4)):
            du, dw = du + np.sum(d * x[t]), dw + np.sum(d * self.h[t])
            d = d * self.w
        return du, dw
net = Net()
out = net.forward(x); net.loss(out, y); net.backward(out, y)
"""


def test_so_are_the_numbers_of_an_object(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    for text, verdict in [(OF_CLASS, "agrees"), (OF_CLASS.replace("dw +", "dw -"), "disagrees")]:
        file.write_text(text, encoding="utf-8")
        code: Any = read_file(file, "Net", None, {})
        assert [*code.params] == ["u", "w"]
        report = verify_own_model(code.gradients, code.loss, code.params, cases=4)
        assert report.verdict.value == verdict, str(report)


def test_a_name_of_no_number_and_no_array_is_refused_without_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(NUMBERS.replace("CALL", "0.9, -0.5"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"found weights$"):
        read_file(file, None, None, {}, ("weights",))


def test_values_hold_the_same_where_every_part_of_their_structures_is_equal() -> None:
    one = {"w": np.ones(2), "b": [np.zeros(1), 0.5]}
    assert hold_same(one, {"w": np.ones(2), "b": [np.zeros(1), 0.5]})
    assert not hold_same(one, {"w": np.ones(2), "b": [np.zeros(1), 0.6]})
    assert not hold_same(one, {"w": np.ones(3), "b": [np.zeros(1), 0.5]})
    more = one | {"c": np.ones(1)}
    assert not hold_same(one, more)
    assert not hold_same(more, one)
