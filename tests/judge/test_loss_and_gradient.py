"""A loss and its gradient as two functions of the same arguments, found without a name."""

from pathlib import Path

import numpy as np
import pytest

from bptt_verifier.judge.candidates import list_candidates, list_pairs
from bptt_verifier.judge.loss_and_gradient import (
    find_loss_and_gradient,
    shares_data,
    takes_parameters,
    takes_separately,
)
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.notebooks import Cell
from bptt_verifier.program.source_file import find_definitions
from tests.support.own_files import list_wrong, read_own

LOGISTIC = """
import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def sigmoid_derivative(z):
    return sigmoid(z) * (1 - sigmoid(z))


def mse(p, y):
    return np.mean((p - y) ** 2)


def mse_grad(p, y):
    return 2 * (p - y) / p.size


def cost(w, x, y):
    return mse(sigmoid(x @ w), y)


def gradient(w, x, y):
    z = x @ w
    return x.T @ (mse_grad(sigmoid(z), y) * sigmoid_derivative(z))


def numerical_gradient(w, x, y, step=1e-5):
    both = [[cost(w + s * e, x, y) for s in (step, -step)] for e in np.eye(3)]
    return np.array([(up - down) / step / 2 for up, down in both])


rng = np.random.default_rng(0)
w, x, y = rng.normal(size=3), rng.normal(size=(5, 3)), rng.normal(size=5)
"""
DICT = """
import numpy as np


def loss(p, x, y):
    return 0.5 * np.sum((np.tanh(x @ p["U"]) @ p["V"] - y) ** 2)


def grad(p, x, y):
    h = np.tanh(x @ p["U"])
    d = h @ p["V"] - y
    return {"U": x.T @ (d @ p["V"].T * (1 - h**2)), "V": h.T @ d}


rng = np.random.default_rng(0)
weights = {"U": rng.normal(size=(3, 4)), "V": rng.normal(size=(4, 2))}
grad(weights, rng.normal(size=(5, 3)), rng.normal(size=(5, 2)))
"""
LIST = DICT.replace('p["U"]', "p[0]").replace('p["V"]', "p[1]")
LIST = LIST.replace('{"U": ', "[").replace('"V": h.T @ d}', "h.T @ d]")
LIST = LIST.replace('{"U": rng', "[rng").replace('"V": rng', "rng").replace("(4, 2))}", "(4, 2))]")
GLOBAL = """
import numpy as np

rng = np.random.default_rng(0)
W, x, y = rng.normal(size=(3, 2)), rng.normal(size=(5, 3)), rng.normal(size=(5, 2))


def objective(x, y):
    return 0.5 * np.sum((x @ W - y) ** 2)


def backward(x, y):
    gW = x.T @ (x @ W - y)
    return gW
"""


@pytest.mark.parametrize(
    ("text", "pair", "of"),
    [
        (LOGISTIC, "cost,gradient", "w"),
        (DICT, "loss,grad", "U V"),
        (LIST, "loss,grad", "p[0] p[1]"),
        (GLOBAL, "objective,backward", "W"),
    ],
)
def test_both_functions_are_found(tmp_path: Path, text: str, pair: str, of: str) -> None:
    found = read_own(tmp_path, text)
    assert found.said.startswith(f"{pair} are taken for a loss and its gradient")
    assert {*flatten(found.params).leaves} == {*of.split()}
    assert not list_wrong(found)


SHARED = DICT.replace("def grad", "def gradients").replace("weights =", "params =")
SHARED = SHARED.replace("(p, x", "(params, x").replace("p[", "params[").replace(
    "grad(weights, rng.normal(size=(5, 3)), rng.normal(size=(5, 2)))",
    "x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))",
)  # fmt: skip


@pytest.mark.parametrize("name", ["gradients", "bptt"])
def test_params_and_data_that_the_loss_shares_are_those_of_the_file(
    tmp_path: Path, name: str
) -> None:
    text = SHARED.replace("def gradients", f"def {name}")
    for asked in (None, name) if name == "gradients" else (name,):
        found = read_own(tmp_path, text, name=asked)
        assert found.said.startswith(f"loss,{name} are taken for a loss and its gradient")
        assert not list_wrong(found)
    assert list_wrong(read_own(tmp_path, text.replace("h**2", "h"), name=name)) == {"U"}


@pytest.mark.parametrize(
    ("argument", "given", "call"),
    [
        ("p", "params", ""), ("theta", "theta", "gradients({}, x, y)"), ("w", "weights", ""),
        ("p", "p", "gradients({}, x, y)"), ("p", "weights", "gradients({}, x, y)"),
    ],
)  # fmt: skip
def test_parameters_may_have_another_usual_name_and_be_called(
    tmp_path: Path, argument: str, given: str, call: str
) -> None:
    text = SHARED.replace("(params, x", f"({argument}, x").replace("params[", f"{argument}[")
    text = text.replace("params = ", f"{given} = ") + call.format(given) + "\n"
    found = read_own(tmp_path, text)
    assert found.said.startswith("loss,gradients are taken for a loss and its gradient")
    assert not list_wrong(found)
    assert list_wrong(read_own(tmp_path, text.replace("h**2", "h"))) == {"U"}


@pytest.mark.parametrize("data", ["", "x = 1", "gradients(params, x, y)"])
def test_without_data_gradients_are_those_of_a_derivation(tmp_path: Path, data: str) -> None:
    text = "params = {}\ndef loss(params, x, y): return x\ndef gradients(params, x, y): return x\n"
    defined = find_definitions(tmp_path, [Cell("x", text + data)])
    assert shares_data(defined, "gradients") is data.startswith("gradients")
    other = text.replace("def loss(params, x, y)", "def loss(params, x)")
    assert not shares_data(find_definitions(tmp_path, [Cell("x", other + data)]), "gradients")
    alone = text.replace("def loss", "def cost") + "x = y = 1\n"
    assert shares_data(find_definitions(tmp_path, [Cell("x", alone)]), "gradients") is False


@pytest.mark.parametrize(
    ("arguments", "variables", "shared"),
    [
        ("params, x", "params x", True), ("params, x, y", "params x y", True),
        ("params", "params", False), ("p, x", "params x", True), ("params, x", "weights x", True),
        ("p, x", "params weights x", False), ("p, x", "params", False),
    ],
)  # fmt: skip
def test_a_file_has_the_parameters_and_the_data_of_its_functions(
    tmp_path: Path, arguments: str, variables: str, shared: bool
) -> None:
    text = "".join(f"def {n}({arguments}): return 1\n" for n in ("loss", "gradients"))
    text += "".join(f"{name} = 1\n" for name in variables.split())
    defined = find_definitions(tmp_path, [Cell("x", text)])
    assert shares_data(defined, "gradients") is shared


@pytest.mark.parametrize("result", ["loss, g", "g, loss", "0.5 * np.sum(d * d), g", "g"])
def test_the_loss_beside_the_gradients_is_compared(tmp_path: Path, result: str) -> None:
    given = 'g = {"U": x.T @ (d @ params["V"].T * (1 - h**2)), "V": h.T @ d}'
    text = SHARED.replace("return {", "g = {").replace(
        given, f"loss = 0.5 * np.sum(d * d)\n    {given}\n    return {result}"
    )
    for factor in (0.5, 0.51):
        found = read_own(tmp_path, text.replace("0.5 * np.sum(d * d)", f"{factor} * np.sum(d * d)"))
        yours, true = found.gradients(found.params)[0], found.loss(found.params)
        assert np.isclose(yours / true, 1 if result == "g" else 2 * factor)


def test_a_wrong_gradient_is_seen(tmp_path: Path) -> None:
    assert list_wrong(read_own(tmp_path, DICT.replace("(1 - h**2)", "(1 - h)"))) == {"U"}


@pytest.mark.parametrize(
    ("loss", "gradient"),
    [
        ("f", "df"), ("J", "dJ"), ("forward_loss", "dloss"), ("loss", "loss_gradient"),
        ("compute_cost", "compute_gradient"), ("nll", "grad_nll"), ("cost", "cost_prime"),
        ("objective", "gradients"), ("f", "grad_f"), ("energy", "backprop"),
    ],
)  # fmt: skip
def test_usual_names_are_known(loss: str, gradient: str, tmp_path: Path) -> None:
    text = f"def {loss}(w, x, y):\n    return w * x\ndef {gradient}(w, x, y):\n    return x\n"
    defined = find_definitions(tmp_path, [Cell("x", text)])
    assert find_loss_and_gradient(defined) == f"{loss},{gradient}"


@pytest.mark.parametrize(
    "text",
    [
        "def mse(p, y): return p\ndef mse_grad(p, y): return y",
        "def loss(w, x): return w\ndef gradient_check(w, x): return x",
        "def loss(w, x): return w\ndef grad(w, cache): return x",
        "def tanh(z): return z\ndef dtanh(z): return z",
    ],
)
def test_parts_and_checks_are_no_such_pair(text: str, tmp_path: Path) -> None:
    assert find_loss_and_gradient(find_definitions(tmp_path, [Cell("x", text)])) == ""


TAKING = "def {}({}):\n    return {}\n"


@pytest.mark.parametrize(
    ("functions", "before", "found"),
    [
        ("f(w, x) tanh(w, x) df(w, x)", "", "f,df"),  # tanh is not named as a loss
        ("wave(w, x) tanh(w, x) dwave(w, x)", "", "wave,dwave"),  # none is
        ("wave(w, x) gradient(w, x)", "", ""),  # a gradient of what?
        ("loss(w, x) cost(w, x) cost_grad(w, x)", "", "cost,cost_grad"),  # the one of that name
        ("loss(w, x) cost(w, x) gradient(w, x)", "", ""),  # either
        ("total_cost(w, x) gradient(w, x)", "", "total_cost,gradient"),
        ("loss(w, x) grad(w, y)", "", ""),  # other data
        ("loss(w, x, k=1) grad(w, x)", "", "loss,grad"),  # what is not needed
        ("loss(p, q) grad(p, q)", "", ""),  # predictions, not parameters
        ("loss(p, x) grad(p, x)", "", "loss,grad"),  # beside inputs, p is a parameter
        ("loss(p, w) grad(p, w)", "", "loss,grad"),
        ("loss(n, x) grad(n, x)", "", ""),  # numbers, not parameters
        ("loss(x) grad(x)", "W", "loss,grad"),  # of a variable that both read
        ("loss(x) grad(x)", "params", "loss,grad"),
        ("loss(x) grad(x)", "size, W", "loss,grad"),
        ("loss(x) grad(x)", "size", ""),
    ],
)
def test_both_take_the_same_data_and_a_parameter(
    functions: str, before: str, found: str, tmp_path: Path
) -> None:
    text = f"{before} = 3\n" if before else ""
    for each in functions.replace(", ", ",").split():
        name, _, arguments = each.rstrip(")").partition("(")
        text += TAKING.format(name, arguments, before or "x")
    assert find_loss_and_gradient(find_definitions(tmp_path, [Cell("x", text)])) == found


@pytest.mark.parametrize("returned", ["Wx", "xW"])
def test_a_variable_that_only_one_of_both_reads_is_no_parameter(
    returned: str, tmp_path: Path
) -> None:
    text = "W = 3\ndef loss(x):\n    return {}\ndef grad(x):\n    return {}\n".format(*returned)
    assert find_loss_and_gradient(find_definitions(tmp_path, [Cell("x", text)])) == ""


def test_functions_of_other_arguments_share_no_parameters(tmp_path: Path) -> None:
    text = "def loss(w, x): return w\ndef grad(w, y): return y\n"
    defined = find_definitions(tmp_path, [Cell("x", text)])
    assert takes_parameters(defined, "loss", "loss") is True
    assert takes_parameters(defined, "loss", "grad") is False


def test_without_data_one_sentence_asks_for_a_call(tmp_path: Path) -> None:
    text = LOGISTIC.partition("rng =")[0]
    expected = r"^cost: expected .* found none for w, x, y; call it once .*: cost\(w, x, y\)$"
    with pytest.raises(ValueError, match=expected):
        read_own(tmp_path, text)


@pytest.mark.parametrize(
    "names", ["net_fwd,net_bwd", "fprop,bprop", "forward,back", "forward_prop,back_prop"]
)
def test_short_names_of_passes_make_a_pair(names: str, tmp_path: Path) -> None:
    one, other = names.split(",")
    text = f"def {one}(x): return x\ndef {other}(d): return d\n"
    assert list_pairs(find_definitions(tmp_path, [Cell("x", text)])) == [(one, other)]


def test_a_method_may_return_the_loss_and_leave_the_gradients(tmp_path: Path) -> None:
    text = "class Net:\n    def loss_and_backward(self, x): return x\n"
    text += "    def loss(self, x): return x\n"
    assert list_candidates(find_definitions(tmp_path, [Cell("x", text)])) == [
        "Net.loss_and_backward"
    ]


@pytest.mark.parametrize(
    "names", ["fprop,bprop", "fwd,bwd", "forward,back", "forward_pass,back_pass", "fprop,backprop"]
)
def test_methods_by_other_names_are_the_passes_of_a_class(names: str, tmp_path: Path) -> None:
    one, other = names.split(",")
    text = f"""
import numpy as np
class Net:
    def __init__(self):
        self.W = np.linspace(0.1, 0.6, 6).reshape(2, 3)
    def {one}(self, x):
        self.x, self.h = x, np.tanh(self.W @ x)
        return self.h @ self.h / 2
    def {other}(self):
        return {{"W": np.outer(self.h * (1 - self.h**2), self.x) * FACTOR}}
net = Net()
net.{one}(np.ones(3)), net.{other}()
"""
    found = read_own(tmp_path, text.replace("FACTOR", "1.0"))
    assert verify_own_model(found.gradients, found.loss, found.params, cases=2)
    wrong = read_own(tmp_path, text.replace("FACTOR", "1.3"))
    assert not verify_own_model(wrong.gradients, wrong.loss, wrong.params, cases=2)


IN_LISTS = """
import math
import numpy as np
rows, kinds = [[0.5, -1.2], [1.5, 0.3], [-0.7, 2.0]], [1, 0, 1]
w, b = np.array([0.2, -0.4]), np.array(0.1)
def cost(w, b, rows, kinds):
    total = 0.0
    for x, y in zip(rows, kinds):
        p = 1 / (1 + math.exp(-(w[0] * x[0] + w[1] * x[1] + b)))
        total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total
def gradient(w, b, rows, kinds):
    dw, db = np.zeros(2), 0.0
    for x, y in zip(rows, kinds):
        d = 1 / (1 + math.exp(-(w[0] * x[0] + w[1] * x[1] + b))) - y
        dw += d * np.array(x)
        db += d
    return dw, np.array(db)
cost(w, b, rows, kinds), gradient(w, b, rows, kinds)
"""


def test_data_may_be_rows_in_lists(tmp_path: Path) -> None:
    found = read_own(tmp_path, IN_LISTS, "cost,gradient")
    assert [*found.params] == ["w", "b"]
    assert not list_wrong(found)
    assert list_wrong(read_own(tmp_path, IN_LISTS.replace("db += d", "db -= d"))) == {"b"}


@pytest.mark.parametrize(
    ("of_loss", "of_gradient", "separate"),
    [
        ("W, b", "W, b", True), ("W, b", "b, W", True), ("W, b, xp", "W, b", True),
        ("W, b", "W, c", False), ("W", "W, b", False), ("params", "W, b", True),
        ("params, xp", "W, b", True), ("b, params", "W, b", False), ("W", "W", False),
        ("params, x", "params, x", False), ("p, x", "p, x", False), ("w, x", "w, x", True),
        ("x, params", "x, params", True),
    ],
)  # fmt: skip
def test_each_parameter_may_be_an_argument_where_the_loss_takes_the_same_ones(
    of_loss: str, of_gradient: str, separate: bool, tmp_path: Path
) -> None:
    pair = f"def loss({of_loss}): ...\ndef slopes({of_gradient}): ...\n"
    defined = find_definitions(tmp_path, [Cell("x", pair)])
    assert takes_separately(defined, "slopes") is separate
    assert takes_separately(defined, "others") is False
