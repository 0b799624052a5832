"""Files to be judged: what they are taken for, and the loss and gradients found in them."""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import files
from bptt_verifier.judge.files import FileSubmission, read_file
from bptt_verifier.judge.one_case import compare_case
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.leaves import flatten
from bptt_verifier.report import Mistake, Report
from bptt_verifier.report.findings import Counterexample
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.own_code import DATA, LAYER, METHODS, OUTPUT, SHAPES, Shape
from tests.support.own_files import note_calls


def read(
    folder: Path, source: str, name: str | None = None, suffix: str = ".py", **options: Any
) -> FileSubmission:
    file = folder / f"model{suffix}"
    file.write_text(source, encoding="utf-8")
    given = {"own": None, "options": {}} | options
    return read_file(file, name, **given)


def test_arguments_without_names_may_be_those_of_a_derivation(tmp_path: Path) -> None:
    found = read(
        tmp_path, "def gradients(*given):\n    (U, W, V), x, y = given\n    return U, W, V\n"
    )
    assert found.loss is None
    assert "is taken for a derivation of the RNN" in found.said


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_loss_and_the_gradients_are_found_in_code_as_it_stands(
    shape: Shape, tmp_path: Path
) -> None:
    found = read(tmp_path, shape.source, shape.name, own=True, chosen=shape.chosen)
    assert found.loss is not None
    tree = flatten(found.params)
    assert [*tree.leaves] == sorted(shape.params, key=[*tree.leaves].index)
    assert {*tree.leaves} == {*shape.params}
    rng = np.random.default_rng(1)
    point = {n: v + rng.normal(size=v.shape) / 4 for n, v in tree.leaves.items()}
    kept = {n: v.copy() for n, v in point.items()}
    loss, gradients = found.gradients(tree.rebuild(point))
    named = tree.read(gradients)
    takes_xp = len(inspect.signature(found.loss).parameters) == 2

    def evaluate(at: Any) -> float:
        return float(found.loss(tree.rebuild(at), *([np] if takes_xp else [])))  # type: ignore[misc]

    assert np.isclose(
        loss, evaluate(point), rtol=1e-13
    )  # 450 unit roundoffs, for sums in any order
    # The error of a central difference: step² L‴ / 6, of 1e-12, and 2⁻⁵³ L / step, of 1e-10 L.
    for name, value in point.items():
        way, step = rng.normal(size=value.shape), 1e-6
        ends = [evaluate(point | {name: value + sign * step * way}) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert np.isclose(np.sum(named[name] * way), slope, rtol=1e-7, atol=1e-9), name
        assert np.array_equal(value, kept[name])


def test_nothing_of_the_users_is_changed_and_no_state_is_kept(tmp_path: Path) -> None:
    shape = SHAPES["forward returns the loss"]
    found = read(tmp_path, shape.source, "net")
    assert found.loss is not None
    params = {name: value + 1 for name, value in found.params.items()}
    first = found.gradients(params)[0]
    assert found.gradients(params)[0] == first
    source = SHAPES["arrays of the file, as in min-char-rnn"].source
    found = read(tmp_path, source, "lossFun")
    space = inspect.unwrap(found.gradients).__globals__
    before = space["W"]
    assert found.gradients({n: v + 1 for n, v in found.params.items()})
    assert space["W"] is before


METHOD = SHAPES["a method that returns both"].source
GRADIENTS = f"{DATA}\nparams = dict(W=W)\ndef loss(p, xp):\n    return 1.0\n"
DERIVATION = "def gradients(params, x, y):\n    return params\n"
OF_ARGUMENT = SHAPES["a dict of parameters"].source.replace("params, x, y", "x, y, params")
OF_ARGUMENT = OF_ARGUMENT.replace("f({", "grads = f(x, y, {").replace("}, x, y)", "})")
OF_ARGUMENT = OF_ARGUMENT.replace("return loss, {", "grads = {").replace(
    "db}", "db}; return loss, grads"
)
MIN_CHAR = SHAPES["arrays of the file, as in min-char-rnn"].source
SHORT_FIRST = MIN_CHAR.replace("while", "lossFun([0], y, np.ones(2))\nwhile")
WRITTEN = f"{DATA}params = dict(b=b)\ndef loss_and_grads(params):\n    return np.sum(params['b']), {{'b': 1 + 0 * b}}\n"
SHORT_ALWAYS = MIN_CHAR.replace("[0, 2, 1]", "[0]")


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        (DERIVATION, None, "model.py:gradients is taken for a derivation of the RNN"),
        (DERIVATION.replace("gradients", "mine"), "mine", "model.py:mine is taken for a derivation"),
        (f"{GRADIENTS}{DERIVATION}", None, "is taken for a derivation"),
        (f"{GRADIENTS}def gradients(p):\n    return p\n", None, "is taken for an own model of params"),
        (f"{GRADIENTS}def mine(p):\n    return p\n", "mine", "an own model of params, loss and mine"),
        (f"{GRADIENTS}gradients = dict\n", None, "is taken for an own model of params"),
        (f"{DATA}params = [W]\ndef gradients(params):\n    loss = params[0].sum()\n    dW = 1 + 0 * W\n"
         "    return loss, [dW]\n", None, "gradients is taken for a function that returns the loss"),
        (f"{DATA}def f(x):\n    return np.sum(W @ x), x\ndef g(x):\n    dW = 1 + 0 * W\n"
         "    return np.sum(W @ x), dW\ndef h(x):\n    grads = 0\n    return grads, x\nx = y\n", None, "g is taken"),
        (MIN_CHAR, None, "with the inputs, y, hprev of its first call in the file; parameters"),
        (SHORT_FIRST, None, "of call 2 in the file; parameters: W, V, b; returned, and not compared: item 4; the gradient of W is zero with the data of the first call."),
        (SHORT_ALWAYS, None, "with the inputs, y, hprev of its first call in the file; parameters: W, V, b; returned, and not compared: item 4."),
        (OF_ARGUMENT, "f", "the gradients of params, with the x, y of its first call in the file."),
        (MIN_CHAR, "lossFun", "parameters: W, V, b; returned, and not compared: item 4."),
        (SHAPES["arguments"].source, None, "parameters: W, V, b; without a gradient, and taken for data: x, y."),
        (SHAPES["two functions of a dict, called in the file"].source, "step,back", "parameters: W, V; without a gradient, and taken for data: x."),
        (SHAPES["forward returns the loss"].source, None, "Net is taken for a class with forward"),
        (SHAPES["forward returns the loss"].source, "net", "W, V, b; without a gradient, and taken for data: dh."),
        (SHAPES["backward takes the gradient of the output"].source, "layer", "times fixed random weights"),
        (f"{DATA}{OUTPUT}", None, "a class with forward, backward, called with x; the loss is the sum of"),
        (f"{DATA}{LAYER}{OUTPUT}", None, "Net is taken for a class"),
        (WRITTEN, None, "loss_and_grads is taken for a function that returns the loss and the gradients of params"),
        (SHAPES["an object that is a default"].source, "f", "f is taken for a function that returns"),
        (METHOD.replace("return loss, dict(W=dW, V=dV, b=db)", "return loss, dW, dV, db"), None, "Net.loss is taken for a function"),
    ],
)  # fmt: skip
def test_a_file_is_taken_for_what_it_defines_and_that_is_said(
    source: str, name: str | None, said: str, tmp_path: Path
) -> None:
    assert said in read(tmp_path, source, name).said


UPDATES = SHAPES["backward updates, and returns nothing"].source
# A prediction that is one number, and a target that forward has not seen.
NUMBER = f"""{DATA}
class Net:
    def __init__(self):
        self.V = V[0].copy()
    def forward(self, x):
        self.x, self.y = x[0], self.V @ x[0]
        return self.y
    def backward(self, target):
        self.dV = 2 * (self.y - target) * self.x
net = Net()
net.forward(x)
net.backward(0.5)
"""
PROBABLE = f"""{DATA}
class Net:
    def __init__(self): self.W = W
    def forward(self, x):
        p = 1 / (1 + np.exp(-self.W @ x))
        return p
    def backward(self, dp, x): return {{"W": np.outer(dp, x)}}
net = Net()
net.backward(net.forward(y) - 1, y)
"""
OF_ERROR = f"{DATA}{OUTPUT}".replace("hs, y):", "e, y):").replace("(hs - y) **", "e **")
OF_ERROR = OF_ERROR.replace("loss(hs, y)", "loss(hs - y, y)").replace("dhs", "e")
OF_OTHER_DATA = f"{DATA}{OUTPUT}".replace("loss(self, hs, y):", "loss(self, x, y):\n        hs = x")
OF_OTHER_DATA = OF_OTHER_DATA.replace("loss(hs, y)", "loss(x + 1, y)")
STEPWISE = f"""{DATA}
class Net:
    def __init__(self): self.W, self.tape = W.copy(), [np.zeros(2)]
    def forward(self, x):
        self.tape.append(np.tanh(x + self.W @ self.tape[-1]))
        return self.tape[-1]
    def backward(self, dout):
        self.dW = 0
        for h, before in zip(self.tape[:0:-1], self.tape[-2::-1]):
            da = dout * (1 - h**2)
            self.dW, dout = self.dW + np.outer(da, before), self.W.T @ da
net = Net()
for each in x:
    out = net.forward(each)
net.backward(out - y)
"""
PAIR_ONLY = (
    "def net_forward(x): return x\ndef net_backward(d): return d\nwhile True: net_forward(1)\n"
)
LEAVING = SHAPES["objects of a value and its gradient"].source
NET = f"{DATA}{METHODS}        return dW, dV, db\n"


@pytest.mark.parametrize(
    ("source", "name", "options", "sentence"),
    [
        ("def gradients(p):\n    return p\n", None, {}, "found no params and no loss; add what is"),
        (DERIVATION, None, {"own": True}, "or leave out --own for a derivation"),
        (f"{DERIVATION}params = {{}}\n", None, {"own": True}, "found no loss; add"),
        ("def f(): ...\nclass A: ...", None, {}, "expected a function gradients in .*, found f, A; name"),
        (DERIVATION, "gradients,other", {}, "expected functions gradients,other in .*, found gradients"),
        (DERIVATION, "other", {}, "expected a function other in .*, found gradients"),
        (MIN_CHAR + NET, None, {}, "found lossFun, Net; name the one to judge, such as .*:lossFun"),
        ("def gradients(params, x, y, h0, c0): ...", None, {}, "--model lstm judges an LSTM, which has c0"),
        ("def gradients(params, x): ...", None, {}, r"expected gradients\(params, x, y\)"),
        ("def gradients(params, *, x, y, dtype=None): ...", None, {}, r"gradients\(params, x, y\) .*, found gradients\(params, \*, x, y, dtype"),
        (DERIVATION, None, {"chosen": ["W"]}, "--params: expected a model of your own"),
        (NET, "Net", {"options": {"model": "lstm"}}, "--model: expected a derivation"),
        (f"{GRADIENTS}def gradients(p): ...", None, {"chosen": ["W"]}, "--params: expected a function or"),
        ("def f(data):\n    return 1.0, data\n", "f", {"own": True}, "variables named as .* none for data"),
        (f"{DATA}def f(x):\n    return x\n", "f", {"own": True}, "without a scalar that could be"),
        (f"{DATA}def f(x):\n    return 1 / 0\n", "f", {"own": True}, r"f raised ZeroDivisionError.* at `1 / 0` \(.*:7:12\)"),
        (f"{DATA}params = dict(W=W)\ndef loss(p):\n    return p['W'].sum()\n", "loss", {}, "found loss, which returns the loss alone; .*:NAME"),
        (f"{GRADIENTS}def gradients(p):\n    return p\ndef compute_loss(params, x, y): return 1", "compute_loss", {}, "loss alone; .*:gradients"),
        (f"{GRADIENTS}def gradients(p):\n    return p\ndef total(p): return 1.0", "total", {}, "found total, which returns the loss alone"),
        (f"{DATA}def f(x):\n    return 1.0, 2 * W[:1]\n", "f", {"own": True}, "found tuple of item 0, item 1; name the"),
        (f"{DATA}def f():\n    return W.sum(), W\n", "f", {"chosen": ["Q"]}, "uses, W, found Q"),
        (UPDATES.replace("learn_rate * db", "learn_rate * db / 2"), "net", {}, "found backward to update arrays, and no local variables"),
        (UPDATES.replace("learn_rate", "factor"), "net", {}, "or in one usual step; let it return the loss and the gradients"),
        (f"{NET}", "Net.forth", {}, "expected a method forth of Net, found forward, backward$"),
        ("class Bare:\n    pass\n", "Bare.forth", {}, "expected a method forth of Bare, found none$"),
        (f"{NET}class B(Net):\n    def __init__(self, n): ...\n", "B", {}, "one object of it in the file, found none"),
        (f"{NET}a, c = Net(), Net()\n", "Net", {}, "one object of it in the file, found several"),
        (f"{DATA}{LAYER.replace('dh):', 'y):')}net = Layer(2)\n", "net", {}, "or a method loss to return"),
        (f"{GRADIENTS}def gradients(): ...", None, {}, r"expected gradients\(params\) in .*, found 0 arg"),
        (OF_OTHER_DATA, "net", {}, "with the same x as the call of forward before it, found another"),
        (f"{DATA}{OUTPUT}net.backward(x)".replace("dhs", "error"), "net", {}, "found error, which is computed elsewhere"),
        (OF_ERROR, "net", {}, "a loss that depends on the parameters, found the same for others"),
        (STEPWISE, "net", {}, "expected one call before backward, found several that depend on one"),
        (PAIR_ONLY, None, {}, "such as .*:net_forward,net_backward"),
        (NUMBER, "net", {}, "found forward to return float64 and backward.target"),
        (NUMBER.replace("(self, target)", "(self)").replace("(0.5)", "()").replace("(self, x)", "(self, x, target=0.5)").replace("target)\n", "0.5)\n"), "net", {}, "found forward to return float64"),
        (f"{PROBABLE}", "net", {}, "or a method loss to return the loss, or to leave it in self.loss, or backward.dout. to take"),
        (PROBABLE.replace("return p", "logits = p\n        return logits - 3"), "net", {}, "or a method loss to"),
        (f"{DATA}lock = __import__('threading').Lock()\nclass A:\n    def __init__(self):\n        self.W, self.f = W, lock\n    def forward(self): ...\n    def backward(self): ...\n", "A", {}, "that can be copied for every call"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_said_in_one_sentence_with_the_remedy(
    source: str, name: str | None, options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        read(tmp_path, source, name, **options)
    assert "\n" not in str(raised.value)


def test_a_notebook_is_judged_by_its_code_cells(tmp_path: Path) -> None:
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "source": ["# A network"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", *DATA.splitlines(keepends=True)]},
        {"cell_type": "code", "source": "def f(x, y):\n    h = np.tanh(W @ x[0])\n"
         "    dW = np.outer(2 * h * (1 - h**2), x[0])\n    return np.sum(h**2), dW\n"},
        {"cell_type": "code", "source": "f(x, y)\n1 / 0"},
    ]  # fmt: skip
    found = read(tmp_path, json.dumps({"cells": cells}), "f", suffix=".ipynb")
    assert found.said.endswith("1 line of magics and shell commands left out.")
    assert "parameters: W" in found.said
    assert inspect.getsource(inspect.unwrap(found.gradients)).startswith("def f(x, y):")
    cells[2]["source"] = "def gradients(params, x, y): ..."
    with pytest.raises(ValueError, match=r"cell 4, line 1: NameError.*; the cells are run from"):
        read(tmp_path, json.dumps({"cells": cells}), suffix=".ipynb")


def test_a_counterexample_of_the_users_code_is_repeated_by_one_command(tmp_path: Path) -> None:
    source = SHAPES["a namespace"].source.replace("2 * h", "3 * h")
    found = read(tmp_path, source, "f", own=True, chosen=["b"])
    assert found.loss is not None
    report = verify_own_model(found.gradients, found.loss, found.params, cases=3)
    right = Report("x", Verdict.AGREES)
    assert found.write_reproduction(right, "bptt verify x").counterexample is None
    case = found.write_reproduction(report, "bptt verify model.py:f --params b").counterexample
    assert case is not None
    assert case.reproduce == f"bptt verify model.py:f --params b --case {case.case}"
    again = compare_case(found.gradients, found.loss, found.params, case.case).counterexample
    assert again is not None
    assert (again.arrays, again.yours) == (case.arrays, case.yours)


@pytest.mark.parametrize(
    "source",
    [
        LEAVING.replace("f(", "loss("),
        f"{DATA}\ndW = 0 * W\ndef run_backward():\n    global dW\n    dW = 1 + 0 * W\n"
        "def loss():\n    run_backward()\n    return np.sum(W)\nloss()\n",
    ],
    ids=["attributes", "a call"],
)
def test_a_function_with_the_name_of_a_loss_may_leave_gradients(
    source: str, tmp_path: Path
) -> None:
    assert "parameters: W" in read(tmp_path, source, "loss", own=True).said


def test_a_result_that_is_called_gradients_is_no_function(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    step = "def step(x):\n    return np.sum(W * x[0]), dict(W=x[0] + 0 * W)\n"
    file.write_text(f"{DATA}{step}loss, gradients = step(x)\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a function gradients in .*, found step; name"):
        read_file(file, None, None, {})
    named = step.replace("return np.sum(W * x[0]), dict(W=x[0] + 0 * W)", "loss = np.sum(W * x[0])\n"
                         "    dW = x[0] + 0 * W\n    return loss, dW")  # fmt: skip
    file.write_text(f"{DATA}{named}loss, gradients = step(x)\n", encoding="utf-8")
    found = read_file(file, None, None, {})
    assert {*found.params} == {"W"}


def test_the_class_that_is_made_of_others_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    part = "class {}:\n    def __init__(self):\n        {}\n    def forward(self, x):\n        return x\n"
    part += "    def backward(self, dout):\n        return dout\n"
    parts = [("A", "self.W = W"), ("Whole", "self.parts = A(), B()"), ("B", "self.V = V")]
    file.write_text(DATA + "".join(part.format(*each) for each in parts), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^Whole: expected"):  # which no call shows
        read_file(file, None, None, {})
    parts[1] = ("Whole", "self.part = A()")
    file.write_text(DATA + "".join(part.format(*each) for each in parts), encoding="utf-8")
    with pytest.raises(ValueError, match=r"found Whole, B; name .*:Whole$"):
        read_file(file, None, None, {})


@pytest.fixture
def code_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of one's own is not read, but said to be."""
    code = SimpleNamespace(gradients=abs, loss=abs, said="It is code.", params={}, data={})
    monkeypatch.setattr(files, "read_code", lambda *given: code)


WEIGHTS = "import numpy as np\nW = np.ones((2, 3))\n"
RETURNS_BOTH = "    loss = x.sum()\n    dW = params\n    return loss, dW\n"
FIRST = "[W, W @ W.T, W]"  # as the weights of this project may be


@pytest.mark.usefixtures("code_is_read")
@pytest.mark.parametrize(
    ("returned", "call", "said"),
    [
        (RETURNS_BOTH, f"f({FIRST}, np.ones(3), 1)", "It is code."),
        (RETURNS_BOTH, f"f({FIRST}, np.ones((3, 3, 3)), 1)", "derivation"),
        (RETURNS_BOTH, "", "derivation"),
        ("    return params\n", f"f({FIRST}, np.ones(3), 1)", "derivation"),
    ],
)
def test_what_returns_a_loss_and_takes_other_inputs_is_no_derivation(
    returned: str, call: str, said: str, tmp_path: Path
) -> None:
    source = f"{WEIGHTS}def f(params, x, y):\n{returned}{call}\n"
    assert said in read(tmp_path, source, "f").said


@pytest.mark.parametrize(
    ("calls", "runs"),
    [
        ("print(f)\n", 2),  # for its calls, and for its function
        (f"f({FIRST}, 1, 2)\nif __name__ == '__main__':\n    f(1, 2, 3)\n", 2),
        (f"if __name__ == '__main__':\n    f({FIRST}, 1, 2)\n", 3),
    ],
)
def test_a_derivation_is_run_as_the_main_program_if_it_is_guarded_and_not_called_otherwise(
    calls: str, runs: int, tmp_path: Path
) -> None:
    told = list[str]()
    announce = note_calls(told)
    source = f"{WEIGHTS}def f(params, x, y):\n    return params\n{calls}"
    assert "derivation" in read(tmp_path, source, "f", announce=announce).said
    assert told == ["running model.py"] * runs


@pytest.mark.parametrize(
    "calls", ["print(f)\n", f"if __name__ == '__main__':\n    f({FIRST}, 1, 2)\n"]
)
def test_every_run_begins_in_the_folder_of_the_user_whatever_the_file_changes_it_to(
    calls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    told = list[str]()
    here = "import os\nassert os.path.isdir('inner')\nos.chdir('inner')\n"
    Path("model.py").write_text(
        f"{here}{WEIGHTS}def f(params, x, y):\n    return params\n{calls}", encoding="utf-8"
    )
    found = read_file(Path("model.py"), "f", None, {}, (), note_calls(told))
    assert "derivation" in found.said
    assert len(told) > 1


MADE = "def make():\n    return lambda {}: a\nf = make()\n"


@pytest.mark.usefixtures("code_is_read")
def test_a_function_of_two_arguments_that_another_makes_is_no_derivation(tmp_path: Path) -> None:
    for arguments, said in [("a", "It is code."), ("a, b", "It is code."), ("a, b, c", "derivati")]:
        assert said in read(tmp_path, MADE.format(arguments), "f").said
    with pytest.raises(ValueError, match=r"^(?!.*It is code).*f\("):
        read(tmp_path, MADE.format("a, b"), "f", options={"model": "lstm"})


def test_a_derivation_is_found_again_by_python_unless_it_is_in_a_notebook(tmp_path: Path) -> None:
    found = read(tmp_path, DERIVATION)
    assert found.python == (
        f"import runpy; gradients = runpy.run_path({str(tmp_path / 'model.py')!r})['gradients']; "
    )
    cells = [{"cell_type": "code", "source": DERIVATION}]
    assert read(tmp_path, json.dumps({"cells": cells}), suffix=".ipynb").python == ""


def test_a_counterexample_is_repeated_in_python_where_no_command_finds_it() -> None:
    shown = Counterexample("", {}, "W", [], [], [], "print(1)", "case 3")
    report = Report("x", Verdict.DISAGREES, counterexample=shown)
    for loss, command, line in [
        (None, "bptt verify f.py", "run; print(1)"), (abs, "", "run; print(1)"),
        (abs, "bptt verify f.py", "bptt verify f.py --case 'case 3'"),
    ]:  # fmt: skip
        found = FileSubmission(abs, "", loss, python="run; ").write_reproduction(report, command)
        assert found.counterexample is not None
        assert found.counterexample.reproduce == line


def test_what_is_not_guessed_to_be_a_derivation_is_not_refuted() -> None:
    raised = Report("x", Verdict.DISAGREES, (Mistake("raised", "", {}),))
    assert not FileSubmission(abs, "").is_refuted(raised)
    assert FileSubmission(abs, "", guessed=True).is_refuted(raised)


def test_what_may_be_judged_instead_is_said_after_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise ValueError("f: expected a call, found none")

    monkeypatch.setattr(files, "read_code", fail)
    for other, said in [("", "found none"), ("or name g", "found none; or name g")]:
        monkeypatch.setattr(files, "suggest_instead", lambda *given, other=other: other)
        with pytest.raises(ValueError, match=f"{said}$"):
            read(tmp_path, "def f(w):\n    return w\n", "f")
