"""Which method of a class is judged, and what is proposed where it cannot be."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.candidates import (
    choose_loss_method,
    choose_method,
    list_candidates,
    suggest_name,
)
from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.attempt import CodeRaisedError
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.source_file import find_definitions
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.own_files import list_wrong, read_own


def define(source: str) -> Any:
    cell: Any = SimpleNamespace(name="model.py", source=source)
    return find_definitions(Path("model.py"), [cell])


SENTENCES = """
import numpy as np
class Net:
    def __init__(self):
        self.U, self.W = np.ones((2, 3)) / 3, np.eye(2) / 2
    def forward_propagation(self, x):
        s = [np.zeros(2)]
        for each in x:
            s.append(np.tanh(self.U[:, each] + self.W @ s[-1]))
        return s
    def calculate_loss(self, x, y):
        return sum(self.sentence_loss(*each) for each in zip(x, y, strict=True)) / sum(map(len, y))
    def sentence_loss(self, x, y):
        return 0.5 * sum(np.sum((s - each) ** 2) for s, each in zip(self.run(x)[1:], y))
    def run(self, x):
        return self.forward_propagation([*x])
    def bptt(self, x, y):
        s = self.run(x)
        dLdU, dLdW, d = np.zeros((2, 3)), np.zeros((2, 2)), 0
        for t in reversed(range(len(x))):
            d = (d + s[t + 1] - y[t]) * (1 - s[t + 1] ** 2)
            dLdU[:, x[t]] += d
            dLdW += np.outer(d, s[t])
            d = self.W.T @ d
        return [dLdU, dLdW]
"""
# No method has the name of the loss of one sentence; that of all divides by their length.
UNNAMED_SENTENCES = SENTENCES.replace("sentence_loss", "sentence")
BOTH_OF_SENTENCES = "    def both(self, x, y):\n        return (LOSS, *self.bptt(x, y))\n"
NAMED_OF_SENTENCES = """    def both(self, x, y):
        dLdU, dLdW = self.bptt(x, y)
        loss = self.sentence(x, y)
        return loss, dLdU, dLdW
"""
CALL_OF_SENTENCES = (
    "if __name__ == '__main__':\n    net = Net()\n"
    "    for a, b in [(np.array([0, 2, 1]), np.array([1, 0, 1]))]:\n        net.{}(a, b)\n"
)


def read_sentences(folder: Path, source: str, name: str) -> Any:
    file = folder / "model.py"
    file.write_text(source, encoding="utf-8")
    return read_file(file, name, None, {})


@pytest.mark.parametrize("name", ["Net", "Net.bptt"])
def test_the_loss_of_one_of_several_sentences_is_judged(name: str, tmp_path: Path) -> None:
    found = read_sentences(tmp_path, SENTENCES + CALL_OF_SENTENCES.format("bptt"), name)
    assert "the gradients of sentence_loss(x, y)" in found.said
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert report.verdict is Verdict.AGREES, str(report)


@pytest.mark.parametrize("name", ["Net", "Net.bptt"])
def test_the_advice_for_a_loss_of_several_sentences_works(name: str, tmp_path: Path) -> None:
    source = UNNAMED_SENTENCES + CALL_OF_SENTENCES.format("bptt")
    with pytest.raises(ValueError, match="add a method") as raised:
        read_sentences(tmp_path, source, name)
    assert type(raised.value) is ValueError  # the user's code has no fault
    advice = re.search("`return (.*?)`", str(raised.value))
    assert advice is not None
    assert f"        return {advice[1]}\n" in BOTH_OF_SENTENCES
    method = BOTH_OF_SENTENCES.replace("LOSS", "self.sentence(x, y)")
    source = UNNAMED_SENTENCES + method + CALL_OF_SENTENCES.format("both")
    found = read_sentences(tmp_path, source, "Net.both")
    assert sorted(found.params) == ["U", "W"]
    report = verify_own_model(found.gradients, found.loss, found.params, cases=4)
    assert report.verdict is Verdict.AGREES, str(report)


def test_a_method_of_the_class_that_returns_both_is_proposed(tmp_path: Path) -> None:
    source = UNNAMED_SENTENCES + NAMED_OF_SENTENCES + CALL_OF_SENTENCES.format("both")
    for name in ("Net", "Net.bptt"):
        with pytest.raises(ValueError, match=r"or judge Net\.both, .*: FILE:Net\.both$"):
            read_sentences(tmp_path, source, name)
    assert sorted(read_sentences(tmp_path, source, "Net.both").params) == ["U", "W"]


def test_a_loss_that_fails_in_a_call_of_the_file_is_a_fault_of_the_code(tmp_path: Path) -> None:
    call = "net = Net()\nnet.calculate_loss(np.array([0]), np.array([0]))\n"
    with pytest.raises(CodeRaisedError):
        read_sentences(tmp_path, SENTENCES + call, "Net")


UPDATES = """
class Net:
    def __init__(self, W):
        self.W = W
    def train(self, x):
        loss = (self.W * x).sum()
        dW = x
        self.W = self.W - 0.1 * dW
        return loss
    def show(self):
        print(self.W)
"""


def test_a_class_is_judged_by_its_one_method_that_updates_the_parameters() -> None:
    assert choose_method(define(UPDATES), "Net") == "Net.train"
    assert choose_method(define(UPDATES.replace("return loss", "print(loss)")), "Net") == "Net"
    other = UPDATES.replace("    def show", "    def fit(self, x):\n        dW = self.W\n"
                            "        self.W = dW\n        return x\n    def show")  # fmt: skip
    assert choose_method(define(other), "Net") == "Net"
    assert suggest_name(define("def f(x):\n    return x\n" + UPDATES)) == "Net.train"


STEP = """
import numpy as np
class RNN:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.lr, self.params = 0.1, {"U": rng.normal(size=(3, 2))}
        self.W, self.V = rng.normal(size=(3, 3)) / 2, rng.normal(size=(1, 3))
        self.h = np.zeros(3)
    def step(self, x, y):
        U = self.params["U"]
        hs = [self.h]
        for each in x:
            hs.append(np.tanh(U @ each + self.W @ hs[-1]))
        e = self.V @ hs[-1] - y
        dV, dU, dW = np.outer(e, hs[-1]), np.zeros((3, 2)), np.zeros((3, 3))
        dh = self.V.T @ e
        for t in reversed(range(len(x))):
            da = dh * (1 - hs[t + 1] ** 2)
            dU, dW = dU + np.outer(da, x[t]), dW + np.outer(da, hs[t])
            dh = self.W.T @ da
        self.params["U"] = self.params["U"] - self.lr * dU
        self.W, self.V = self.W - self.lr * dW, self.V - self.lr * dV
        self.h = hs[-1]
        return 0.5 * np.sum(e**2)
RNN().step(np.random.default_rng(1).normal(size=(4, 2)), 0.5)
"""


@pytest.mark.rest
def test_parameters_that_a_step_replaces_by_less_of_themselves_are_judged(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(STEP, encoding="utf-8")
    found = read_file(file, "RNN.step", None, {})
    assert sorted(found.params) == ["U", "V", "W"]  # and not the state h
    assert verify_own_model(found.gradients, found.loss, found.params, cases=3).verdict == "agrees"
    file.write_text(STEP.replace("self.W.T @ da", "self.W @ da"), encoding="utf-8")
    found = read_file(file, "RNN.step", None, {})
    report = verify_own_model(found.gradients, found.loss, found.params, cases=3)
    assert [mistake.name for mistake in report.mistakes] == ["untransposed-recurrent-weight"]


def test_what_a_step_computes_anew_is_no_parameter(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(STEP.replace("self.W - self.lr * dW", "2 - self.lr * dW"), encoding="utf-8")
    found = read_file(file, "RNN.step", None, {})
    assert sorted(found.params) == ["U", "V"]


BUFFERS = """
import numpy as np
class Weights:
    def __init__(self):
        self.W, self.b = np.eye(2) / 2, np.ones(2) / 3
        self.W_diff, self.b_diff = np.zeros((2, 2)), np.zeros(2)
def step(weights, x):
    h = np.tanh(weights.W @ x + weights.b)
    da = 2 * h * (1 - h**2)
    weights.W_diff += np.outer(da, x)
    weights.b_diff += da
    return np.sum(h**2), {name: getattr(weights, name + "_diff") for name in RETURNED}
RETURNED = ("W", "b")
step(Weights(), np.array([0.3, -0.7]))
"""


def test_an_array_that_holds_the_gradient_of_one_beside_it_is_no_parameter(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(BUFFERS, encoding="utf-8")
    found = read_file(file, "step", None, {})
    assert sorted(found.params) == ["W", "b"]
    assert verify_own_model(found.gradients, found.loss, found.params, cases=3).verdict == "agrees"
    file.write_text(BUFFERS.replace('= ("W", "b")', '= ("W",)'), encoding="utf-8")
    found = read_file(file, "step", None, {})
    report = verify_own_model(found.gradients, found.loss, found.params, cases=3)
    assert [mistake.name for mistake in report.mistakes] == ["wrong-shape"]  # b has no gradient


PASSES = """
import numpy as np
class Net:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.U, self.W = rng.normal(size=(3, 3)) / 2, rng.normal(size=(3, 2))
        self.V, self.L, self.h0 = rng.normal(size=(1, 3)), 4, rng.normal(size=3)
    def forward(self, x, y):
        self.x, self.h = x, [self.h0]
        for each in x:
            self.h.append(np.tanh(self.W @ each + self.U @ self.h[-1]))
        self.e = self.V @ self.h[-1] - y
        {loss}
    def backward(self{more}):
        self.dU, self.dW = {penalty}, np.zeros((3, 2))
        self.dV = np.outer(self.e, self.h[-1])
        dh = self.V.T @ self.e
        for t in reversed(range(len(self.x))):
            da = dh * (1 - self.h[t + 1] ** 2)
            self.dU, self.dW = self.dU + np.outer(da, self.h[t]), self.dW + np.outer(da, self.x[t])
            dh = self.U.T @ da
net, x = Net(), np.random.default_rng(1).normal(size=(4, 2))
net.forward(x, np.array([0.5]))
net.backward({given})
"""
USUAL = {"penalty": "np.zeros((3, 3))", "more": "", "given": ""}
HALF = "0.5 * np.sum(self.e**2)"


@pytest.mark.parametrize(
    "parts",
    [
        {"loss": f"return {HALF}"},  # and L is a length
        {"loss": f"self.loss = {HALF}; return self.loss + np.sum(self.U**2) / 2",
         "penalty": "1.0 * self.U"},
        {"loss": f"value = {HALF}; self.loss = value / 3; return value"},
        {"loss": "sq = 0.5 * self.e**2; return sq"},
        {"loss": f"return {HALF}", "more": ", inputs", "given": "x"},
        {"loss": f"return {HALF}", "more": ", clip", "given": "9.0"},
        {"loss": f"self.loss = {HALF}; return self.V @ self.h[-1]"},
    ],
)  # fmt: skip
def test_the_loss_is_what_forward_returns_unless_that_is_a_prediction(
    parts: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "model.py"
    file.write_text(PASSES.format(**(USUAL | parts)), encoding="utf-8")
    found = read_file(file, "Net", None, {})
    assert sorted(found.params) == ["U", "V", "W"]
    assert verify_own_model(found.gradients, found.loss, found.params, cases=3).verdict == "agrees"


def test_a_state_that_is_computed_from_itself_is_no_parameter(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    stateful = STEP.replace("self.h = hs[-1]", "self.h = self.h + 0.5 * hs[-1]")
    file.write_text(stateful, encoding="utf-8")
    found = read_file(file, "RNN.step", None, {})
    assert sorted(found.params) == ["U", "V", "W"]


@pytest.mark.parametrize(
    "update",
    ["self.W = -self.lr * dW + self.W", "self.W = np.subtract(self.W, self.lr * dW)",
     "self.W = self.W.copy() - self.lr * dW"],
)  # fmt: skip
def test_a_parameter_may_be_replaced_in_any_form(update: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    pair = "self.W, self.V = self.W - self.lr * dW, self.V - self.lr * dV"
    file.write_text(STEP.replace(pair, f"self.V = self.V - self.lr * dV; {update}"), "utf-8")
    assert sorted(read_file(file, "RNN.step", None, {}).params) == ["U", "V", "W"]


def test_a_parameter_with_the_name_of_a_gradient_is_no_buffer(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    used = BUFFERS.replace("weights.W @ x", "(weights.W + weights.W_g) @ x")
    file.write_text(used.replace("self.W_diff,", "self.W_g = self.W / 3; self.W_diff,"), "utf-8")
    found = read_file(file, "step", None, {})
    assert "W_g" in flatten(found.params).leaves
    report = verify_own_model(found.gradients, found.loss, found.params, cases=3)
    assert [mistake.name for mistake in report.mistakes] == ["wrong-shape"]  # W_g has no gradient


def test_a_loss_of_an_earlier_forward_pass_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    both = "    def both(self):\n        self.backward()\n        loss = 0.5 * np.sum(self.e**2)\n"
    both += "        return loss, self.dU, self.dW, self.dV\nnet, x = "
    source = PASSES.format(**(USUAL | {"loss": "return self.e"})).replace("net, x = ", both)
    file.write_text(source + "net.both()\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a loss that depends on the parameters, found the same"):
        read_file(file, "Net.both", None, {}, ["U", "W", "V"])


def test_what_the_file_updates_is_a_parameter_though_its_gradient_is_wrong(tmp_path: Path) -> None:
    source = """
import numpy as np
def f(weights, trans, x):
    h = np.tanh(weights @ x + trans)
    d = 2 * h * (1 - h**2)
    dweights, dtrans = np.outer(d, x), 3 * d
    return np.sum(h**2), dweights, dtrans
weights, trans, x = np.eye(2), np.ones(2), np.array([0.3, 0.5])
"""
    file = tmp_path / "model.py"
    file.write_text(source + "f(weights, trans, x)\n", encoding="utf-8")
    with pytest.raises(ValueError, match="--params weights,trans if all of these are some"):
        read_file(file, "f", None, {})
    update = "loss, a, b = f(weights, trans, x)\nx -= x.mean()\ntrans -= 0.1 * b\n"
    file.write_text(source + update, encoding="utf-8")
    assert sorted(read_file(file, "f", None, {}).params) == ["trans", "weights"]


LISTED = """
import numpy as np
class Net:
    def __init__(self):
        self.W, self.b = [np.eye(3) / 2, np.ones((2, 3)) / 3], [np.zeros(3), np.ones(2) / 4]
    def loss(self, x, y):
        self.h = np.tanh(self.W[0] @ x + self.b[0])
        self.e = self.W[1] @ self.h + self.b[1] - y
        return 0.5 * np.sum(self.e**2)
    def train(self, x, y):
        loss = self.loss(x, y)
        dW, db = [None, np.outer(self.e, self.h)], [None, self.e]
        db[0] = self.W[1].T @ self.e * (1 - self.h**2)
        dW[0] = np.outer(db[0], x)
        for i in range(2):
            self.W[i] -= 0.1 * dW[i]
            self.b[i] -= 0.1 * db[i]
        return loss
net = Net()
net.train(np.array([0.3, 0.5, -0.2]), np.ones(2))
"""


@pytest.mark.parametrize("chosen", [[], ["W", "b"]])
def test_a_method_may_update_lists_of_parameters(chosen: list[str], tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(LISTED, encoding="utf-8")
    found = read_file(file, None if not chosen else "Net.train", None, {}, chosen)
    assert sorted(found.params) == ["W[0]", "W[1]", "b[0]", "b[1]"]
    _, slopes = found.gradients(found.params)
    assert slopes["b[1]"].shape == (2,)
    before = found.loss
    assert before is not None
    moved = found.params | {"b[1]": found.params["b[1]"] + 1e-6 * np.array([1.0, 0.0])}
    difference = (before(moved) - before(found.params)) / 1e-6
    assert abs(difference - slopes["b[1]"][0]) < 1e-5


PASSING = """
import numpy as np
class RNN:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.W, self.v = rng.normal(size=(3, 3)) / 3, rng.normal(size=3)
    def forward(self, X):
        self.X, self.h = X, [np.zeros((len(X), 3))]
        for t in range(X.shape[1]):
            self.h.append(np.tanh(X[:, t] + self.h[-1] @ self.W))
        return self.h[-1] @ self.v
    def backward(self, dout):
        self.dW, self.dv = np.zeros_like(self.W), self.h[-1].T @ dout
        dh = np.outer(dout, self.v)
        for t in reversed(range(self.X.shape[1])):
            da = dh * (1 - self.h[t + 1] ** 2)
            self.dW += self.h[t].T @ da
            dh = da @ self.W.T
    def loss(self, X, y):
        diff = self.forward(X) - y
        self.backward(diff / len(X))
        return 0.5 * np.mean(diff ** 2)
rng = np.random.default_rng(1)
X, y = rng.normal(size=(8, 4, 3)), rng.normal(size=8)
net = RNN()
net.loss(X, y)
"""


@pytest.mark.parametrize("name", [None, "RNN", "net"])
def test_what_a_loss_passes_to_the_backward_pass_is_judged(
    tmp_path: Path, name: str | None
) -> None:
    found = read_own(tmp_path, PASSING, name)
    assert ".loss is taken for a function that returns the loss" in found.said
    assert not list_wrong(found)
    wrong = PASSING.replace("diff / len(X)", "diff")
    assert list_wrong(read_own(tmp_path, wrong, name)) == {"W", "v"}


def test_what_a_step_of_training_passes_to_the_backward_pass_is_said_not_to_be_judged(
    tmp_path: Path,
) -> None:
    found = read_own(tmp_path, PASSING.replace("loss(", "train_step("))
    assert found.said.startswith("RNN is taken for a class with forward, backward")
    assert found.said.endswith(" What train_step passes to the backward pass is not judged.")
    assert not list_wrong(found)


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        ("d = self.forward(X)\n        self.backward(d)\n        return d", True),
        ("d = self.forward(X)\n        self.backward(d)", False),  # no loss
        ("d = self.forward(X)\n        self.backward()\n        return d", False),
        ("d = self.run(X)\n        self.backward(d)\n        return d", False),
        ("d = self.forward(X)\n        self.update(d)\n        return d", False),
    ],
)
def test_a_loss_that_runs_both_passes_is_chosen(body: str, passes: bool) -> None:
    text = f"class Net:\n    def loss(self, X):\n        {body}\n"
    assert choose_loss_method(define(text), "Net") == ("Net.loss" if passes else "Net")
    assert choose_loss_method(define(text), "Other") == "Other"
    two = text + text.partition("\n")[2].replace("def loss", "def cost")
    assert choose_loss_method(define(two), "Net") == "Net"


@pytest.mark.parametrize("layer", ["input", "inp", "x", "layer"])
def test_the_weights_of_a_layer_by_a_name_of_data_are_parameters(
    tmp_path: Path, layer: str
) -> None:
    text = f"""
import numpy as np
class Linear:
    def __init__(self, rng):
        self.W = rng.normal(size=(3, 3))
        self.W_grad = np.zeros((3, 3))
class Net:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.{layer}, self.rec = Linear(rng), Linear(rng)
    def forward(self, x, y):
        self.data, self.h = x, [np.zeros(3)]
        for each in x:
            self.h.append(np.tanh(self.{layer}.W @ each + self.rec.W @ self.h[-1]))
        self.d = self.h[-1] - y
        return 0.5 * self.d @ self.d
    def backward(self):
        self.{layer}.W_grad, self.rec.W_grad = np.zeros((3, 3)), np.zeros((3, 3))
        d = self.d
        for t in reversed(range(4)):
            a = d * (1 - self.h[t + 1] ** 2)
            self.{layer}.W_grad += 1 * np.outer(a, self.data[t])
            self.rec.W_grad += np.outer(a, self.h[t])
            d = self.rec.W.T @ a
net = Net()
net.forward(np.ones((4, 3)) / 2, np.zeros(3))
net.backward()
"""
    found = read_own(tmp_path, text)
    assert {*flatten(found.params).leaves} == {f"{layer}.W", "rec.W"}
    assert not list_wrong(found)
    assert list_wrong(read_own(tmp_path, text.replace("1 * np", "7 * np"))) == {f"{layer}.W"}


@pytest.mark.parametrize("forward", ["forward", "fprop", "fwd", "__call__"])
def test_a_class_that_is_only_called_is_a_candidate_where_nothing_else_is(forward: str) -> None:
    layer = f"class A:\n    def {forward}(self, x):\n        return x\n"
    layer += "    def backward(self, d):\n        return d\n"
    whole = "def f(W, x):\n    loss, dW = 1.0, W\n    return loss, dW\n"
    assert list_candidates(define(layer)) == ["A"]
    both = list_candidates(define(layer + whole))
    assert sorted(both) == (["f"] if forward == "__call__" else ["A", "f"])
