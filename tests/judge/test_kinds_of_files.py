"""What a file is taken for by its text, and how its functions, classes and objects are found."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict
from bptt_verifier.judge import files
from bptt_verifier.judge.candidates import (
    choose_method,
    count_required,
    list_candidates,
    returns_both,
    suggest_name,
)
from bptt_verifier.judge.files import (
    CODE,
    DERIVATION,
    OWN,
    check_signature,
    choose_kind,
    count_positional,
    find_zero_gradients,
    is_number_alone,
    read_code,
    read_file,
    takes_data,
    takes_other_inputs,
)
from bptt_verifier.program.notebooks import Cell
from bptt_verifier.program.source_file import RecordedCall, find_definitions
from bptt_verifier.report import Mistake, Report
from tests.support.own_files import note_calls

FILE = Path("model.py")
BOTH = "    loss = w.sum()\n    dw = w\n    return loss, dw\n"


def define(source: str) -> Any:
    return find_definitions(FILE, [SimpleNamespace(name="model.py", source=source)])  # type: ignore[list-item]


def choose(source: str, name: str | None = None, own: bool | None = None) -> str:
    return choose_kind(FILE, define(source), name, own)[0]


@pytest.mark.parametrize(
    ("source", "own", "kind"),
    [
        ("f = make()\n", None, DERIVATION),  # what it takes is not known before it runs
        ("f = make()\n", True, CODE),
        ("def f(x, y, w):\n" + BOTH, None, CODE),
        ("def f(params, y, w):\n" + BOTH, None, DERIVATION),
        ("def f(x, params, w):\n" + BOTH, None, CODE),
        ("def f(x, y, w):\n    return w\n", None, DERIVATION),
        ("def f(params, y, w):\n    return w\n", None, DERIVATION),
        ("def f(x, y, w):\n    return w\n", True, CODE),
        ("def f(x, y):\n    return x\n", None, CODE),
        ("def f(*given):\n    return given\n", None, DERIVATION),
        ("W = 1\ndef f(x, y, h):\n    dW = W * x\n    return dW\n", None, CODE),
        ("W = 1\ndef f(x, y, h):\n    dV = W * x\n    return dV\n", None, DERIVATION),
        ("params, loss = 1, max\ndef f(p, scale=1):\n    return p\n", None, OWN),
        ("params, loss = 1, max\ndef f(p, x, y):\n    return p\n", None, DERIVATION),
    ],
)
def test_a_function_that_is_named_is_taken_for_what_it_reads_and_returns(
    source: str, own: bool | None, kind: str
) -> None:
    assert choose(source, "f", own) == kind


NET = "class Net:\n    def forward(self): ...\n    def backward(self): ...\n"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def gradients(params, x):\n" + BOTH, CODE),
        ("def gradients(params, x, y):\n" + BOTH, DERIVATION),
        (NET + NET.replace("Net", "Layer") + "net = Net()\n", CODE),  # Layer is a part of net
    ],
)
def test_without_a_name_a_file_is_taken_for_what_it_defines(source: str, kind: str) -> None:
    assert choose(source) == kind


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        (NET + "net = Net()\ndef f(w):\n" + BOTH, None, "to define gradients, found Net, f;"),
        ("def f(x):\n    return x\n", "f,g", "expected functions f,g in model.py, found f"),
        ("x = 1\n", "f", "expected a function f in model.py, found none"),
    ],
)
def test_what_is_not_defined_or_not_clear_is_said(source: str, name: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        choose(source, name)


def test_what_an_own_model_lacks_is_said_with_the_remedy() -> None:
    for arguments, own, remedy in [
        ("p", None, "add what is missing"),
        ("p, x, y", True, "add what is missing, or leave out --own for a derivation"),
    ]:
        with pytest.raises(ValueError, match="to define params, loss") as raised:
            choose(f"params = 1\ndef gradients({arguments}):\n    return 1\n", own=own)
        assert str(raised.value).endswith(f"found no loss; {remedy}")


def test_arguments_with_a_default_are_not_required() -> None:
    defined = define("def f(p, /, x, y=1, z=2, *, k):\n    return p\n")
    assert count_required(defined, "f") == 2
    assert count_required(defined, "g") is None
    for arguments, number in {
        "*all": None,
        "p, *all": 1,
        "p, /, *all": 1,
        "p, /, q, *all": 2,
    }.items():
        assert count_required(define(f"def f({arguments}):\n    return 1\n"), "f") == number


def test_an_argument_is_weights_if_it_has_three_matrices_of_several_shapes() -> None:
    def takes(first: Any) -> bool:
        return takes_data(RecordedCall(None, {"first": first}))

    assert takes(np.ones(3))
    assert takes([np.ones(2), np.ones(2)])
    U, W, V = np.ones((2, 3)), np.ones((2, 2)), np.ones((1, 2))
    assert not takes([U, W, V])
    assert not takes({"U": U, "W": W, "V": V, "b": np.ones(2)})
    assert takes([U, W])  # of another model
    assert takes([U, W, np.ones(2)])
    assert takes([{"U": U, "W": W, "V": V}])
    assert takes({"W": np.ones(2), "b": np.ones(1)})  # of another model


def test_inputs_of_one_or_two_axes_are_none_of_a_derivation() -> None:
    for inputs, other in [([1, 2], True), (np.ones((2, 2)), True), (np.ones((2, 2, 2)), False)]:
        assert takes_other_inputs(RecordedCall(None, {"params": [], "x": inputs})) is other
    assert not takes_other_inputs(RecordedCall(None, {"params": []}))
    assert not takes_other_inputs(RecordedCall(None, {"params": [], "x": 1}))
    assert takes_other_inputs(RecordedCall(None, {"params": [], "x": [1], "y": np.ones((2, 2, 2))}))


def test_arguments_in_order_are_counted_where_a_function_tells_them() -> None:
    assert count_positional(lambda p, /, x, *, y: 0) == 2
    assert count_positional(lambda p, *others: 0) == 3
    assert count_positional(max) == 3


METHODS = "    def {}(self, x):\n        return x\n"


def test_candidates_return_a_loss_with_gradients_or_have_both_methods() -> None:
    def methods(*names: str) -> str:
        return "class Net:\n" + "".join(METHODS.format(name) for name in names)

    step = "    def step(self, w):\n" + BOTH.replace("    ", "        ")
    assert list_candidates(define(methods("forward", "backward"))) == ["Net"]
    assert list_candidates(define(methods("forward", "backward") + step)) == ["Net"]
    assert list_candidates(define(methods("forward") + step)) == ["Net.step"]
    for name in ("forward", "backward", "other"):
        assert list_candidates(define(methods(name))) == []


@pytest.mark.parametrize(
    ("starred", "call", "found"),
    [
        ("Net", "", ["f"]),
        ("f", "", ["Net.step"]),
        ("Net f", "", ["f", "Net.step"]),
        ("Net f", "Net()\n", ["Net.step"]),
        ("Net f", "f(1)\n", ["f"]),
    ],
)
def test_what_a_star_import_brings_comes_after_the_files_own_code_and_if_it_is_called(
    starred: str, call: str, found: list[str]
) -> None:
    step = "class Net:\n    def step(self, w):\n" + BOTH.replace("    ", "        ")
    defined = define(step + "def f(w):\n" + BOTH + call)
    assert list_candidates(defined._replace(starred=frozenset(starred.split()))) == found


def test_of_a_class_that_is_named_the_method_that_returns_both_is_judged() -> None:
    step = "    def {}(self, w):\n" + BOTH.replace("    ", "        ")
    source = "class Net:\n" + step.format("loss") + METHODS.format("predict")
    assert choose_method(define(source), "Net") == "Net.loss"
    assert choose_method(define(source + "net = Net()\n"), "net") == "net.loss"
    assert choose_method(define("class Net:\n" + METHODS.format("step")), "Net") == "Net"
    with pytest.raises(ValueError, match=r"found loss, step; name the one to judge, such as Net\."):
        choose_method(define(source + step.format("step")), "Net")


def test_of_several_functions_the_only_one_that_returns_a_named_loss_is_judged() -> None:
    layer = "def ln(x, g):\n    return g * x, (x, g)\n"
    assert list_candidates(define(layer + "def f(w):\n" + BOTH)) == ["ln", "f"]
    assert choose_kind(FILE, define(layer + "def f(w):\n" + BOTH), None, None) == (CODE, "f")
    with pytest.raises(ValueError, match="name the one to judge"):
        choose(layer + "def f(w):\n" + BOTH + "def e(w):\n" + BOTH)


PACK = "def pack(loss, dW):\n    return loss, {'W': dW}\n"
BACK = "def back(w):\n    return {'w': w}\n"
INNER = "def make():\n    def f(w):\n        {}\n    return f\n{} = make(), 3\n"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (PACK + "def f(W):\n    return pack(1, W)\n", "f"),  # f returns what pack does
        (PACK + "class A:\n    def g(self, W):\n        pack(W)\n        return e**2, dW\n", "A.g"),
        (BACK + "def f(w):\n    return w @ w, back(w)\n", "f"),
        (BACK + "def f(w):\n    return loss, back(w)\n", "f"),
        ("from layers import back\ndef f(w):\n    return loss, back(w)\n", "f"),
        ("class M:\n    def __call__(self, w):\n        return w @ w, {'w': dw}\n", "M.__call__"),
        (INNER.format("return w @ w, {'w': dw}", "objective, n"), "objective"),
        (INNER.format("return w @ w, {'w': dw}", "f").replace(", 3", ""), "f"),
    ],
)  # fmt: skip
def test_what_another_calls_or_makes_is_a_part_of_it(source: str, name: str) -> None:
    assert choose_kind(FILE, define(source), None, None) == (CODE, name)


@pytest.mark.parametrize(
    "source",
    [
        BACK + "def f(w):\n    return back(w), back(w)\n",  # no loss
        BACK + "def f(w):\n    return w, back(w)\n",  # no term that is a loss
        BACK + "def f(dout, w):\n    return w @ w, back(w)\n",  # a backward pass
        "def f(w):\n    return w @ w, {'w': w}\n",  # a cache
        INNER.format("return w @ w, {'w': w}", "objective, n"),
        "def make():\n    def f(w):\n        return w @ w, {'w': dw}\n    return 1\nf = make()\n",
    ],
)
def test_other_functions_are_no_candidates(source: str) -> None:
    assert list_candidates(define(source)) == []


def test_gradients_left_in_tensors_make_a_candidate_without_autograd() -> None:
    left = "def f(w):\n    {}w.grad = 2 * w\n    return w @ w\n"
    assert list_candidates(define(left.format(""))) == ["f"]
    assert list_candidates(define(left.format("loss.backward()\n    "))) == []
    assert list_candidates(define(left.format("").replace("return w @ w", "w = 1"))) == []
    assert list_candidates(define(left.format("").replace("w.grad = 2 *", "2 * w.grad +"))) == []


def test_the_function_that_returns_a_loss_with_other_values_is_suggested() -> None:
    one, two = "def f(w):\n    return cost, w\n", "def g(w):\n    return w, w\n"
    assert suggest_name(define(one + two)) == "f"
    assert suggest_name(define(two)) == "NAME"


@pytest.mark.parametrize(
    ("source", "both"),
    [
        ("def f(w):\n" + BOTH, True),
        ("def f(w):\n    return w.sum(), dw\n", True),  # an expression may be the loss
        ("def backward(w):\n    return w * 2, dw\n", False),  # it is passed on
        ("def f(w, dout):\n    return w * 2, dw\n", False),
        ("def backward(w):\n" + BOTH, True),
        ("def f_grad(w):\n    loss = w\n    return loss, {'w': w}\n", True),
        ("def f(w):\n    loss = w\n    return loss, {'w': w}\n", True),
        ("def f(w):\n    return w.sum(), {'w': w}\n", False),  # any two results
        ("def f_grad(w):\n    loss = w\n    return loss, w\n", False),
        ("def f(w):\n    loss = w\n    return loss\n", False),
        ("def f(w):\n    return {'loss': w.sum(), 'grads': w}\n", True),
        ("def f(w):\n    return {'loss': w.sum(), 'hidden': w}\n", False),
        ("def f(w):\n    return w.sum(), ((dw, dv), db)\n", True),
        ("def f(p: P):\n    loss = p\n    return loss, P(w)\n", True),
        ("def f(p: P):\n    loss = p\n    return loss, Q(w)\n", False),
        ("def f(w):\n    dw = w\n    return J, dw\n", True),  # J is a usual name
        ("def f(w):\n    dw = w\n    return squared_error, dw\n", True),  # by its end
        ("def f(w):\n    return {'hidden': w, 'grads': w}\n", False),
        ("def f_grad(w):\n    return {'w': w}\n", False),  # one value
        ("def loss(w):\n    return [grads]\n", False),  # one value
        ("def f(w):\n    return h, {'w': dw}\n", False),  # no loss
        ("def loss_and_grad(w):\n    return a, b\n", True),  # its own name says so
        ("def loss_and_grad(w):\n    if w: return a\n    return a, b\n", True),
        ("def loss_and_grad(w):\n    return (a,)\n", False),
        ("def f(w):\n    return w @ w, get_grads(w)\n", True),
        ("def f(w):\n    return w @ w, prepare(w)\n", False),
        ("def f(w):\n    return [get_grads(loss)]\n", False),  # of the loss alone
    ],
)
def test_a_function_returns_a_loss_and_gradients_by_their_names(source: str, both: bool) -> None:
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert returns_both(function, own=("get_grads", "prepare")) is both


def test_a_signature_is_that_of_a_derivation_or_the_remedy_is_said() -> None:
    for right, model in [
        (lambda p, x, y: 0, "rnn"),
        (lambda p, x, y, h0: 0, "rnn"),
        (lambda p, x, y, h, c: 0, "lstm"),
        (lambda p, x, y, *, h0: 0, "gru"),
    ]:
        check_signature(right, "f", FILE, {"model": model})
    own, lstm = "; judge another model as an own model", "; --model lstm judges an LSTM"
    for wrong, model, remedy in [
        (lambda p: 0, "rnn", own),
        (lambda p, x, y, h, c: 0, "rnn", own),
        (lambda p, x, y, h0, c0: 0, "rnn", lstm),
        (lambda p, x, c0, h0, a, b: 0, "lstm", own),
    ]:
        with pytest.raises(ValueError, match="expected f") as raised:
            check_signature(wrong, "f", FILE, {"model": model})
        assert remedy in str(raised.value)


def read(folder: Path, source: str, name: str | None, own: bool | None = None) -> str:
    file = folder / "model.py"
    file.write_text(source, encoding="utf-8")
    return read_file(file, name, own, {}).said


def test_a_file_that_cannot_run_and_defines_nothing_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no_such_package"):
        read(tmp_path, "import no_such_package\n", None)
    with pytest.raises(ValueError, match="expected a function or a class in"):
        read(tmp_path, "x = 1\n", None)


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        (f"def f(w):\n{BOTH}def g(w):\n{BOTH}", None, "found f, g"),
        (f"def f(w):\n{BOTH}", "g", "expected a function g in"),
        ("params = 1\ndef gradients(p):\n    return p\n", None, "found no loss"),
    ],
)
def test_a_file_that_defines_something_is_not_run_for_what_it_lacks(
    source: str, name: str | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        read(tmp_path, "import no_such_package\n" + source, name)


def test_parameters_that_are_gone_after_the_run_are_missing(tmp_path: Path) -> None:
    source = "params = {}\ndel params\nloss = max\ndef gradients(p):\n    return p\n"
    with pytest.raises(ValueError, match="to define params, a dict of float arrays"):
        read(tmp_path, source, None)


def test_one_number_is_no_gradient_of_several_entries() -> None:
    one, two = {"w": np.ones(1)}, {"w": np.ones(2)}
    number = lambda p: 1.0  # noqa: E731
    assert is_number_alone(number, two) is True
    assert is_number_alone(number, one) is False
    assert is_number_alone(number, {"w": "text"}) is False
    for other in (lambda p: p["w"], lambda p: {"w": 1.0}, lambda p: 1 / 0):
        assert is_number_alone(other, two) is False


@pytest.mark.parametrize(
    ("call", "own", "derivation"),
    [
        ("", None, True),
        ("gradients([W, W @ W.T, W], 1, 2)", None, True),  # three matrices, of several shapes
        ("gradients([W, W @ W.T, W], 1, 2)", False, True),
        ("gradients(W, 1, 2)", False, True),
    ],
)
def test_a_call_in_the_file_shows_what_a_function_of_three_arguments_takes(
    call: str, own: bool | None, derivation: bool, tmp_path: Path
) -> None:
    source = (
        "import numpy as np\nW, b = np.ones((2, 3)), np.ones(2)\n"
        f"def gradients(params, x, y):\n    return params\n{call}\n"
    )
    said = read(tmp_path, source, "gradients", own)
    assert ("is taken for a derivation" in said) is derivation


@pytest.mark.parametrize(("called", "name", "cases", "refuted"), [
    (True, "raised", 0, True),
    (False, "raised", 0, False),  # nothing in the file shows other parameters
    (True, "unknown", 0, False),
    (True, "raised", 3, False),  # it ran before
])  # fmt: skip
def test_a_derivation_is_refuted_where_its_file_calls_it_and_it_raises_at_once(
    called: bool, name: str, cases: int, refuted: bool, tmp_path: Path
) -> None:
    source = "import numpy as np\nU, W = np.ones((3, 2)), np.ones((3, 3))\n"
    source += "def mine(params, x, y):\n    return params\n" + "mine([U, W, U.T], 1, 2)\n" * called
    file = tmp_path / "mine.py"
    file.write_text(source, encoding="utf-8")
    found = read_file(file, "mine", None, {})
    mistake = Mistake(name, "your function raised ValueError: x", {})
    report = Report("mine", Verdict.DISAGREES, (mistake,), cases=cases)
    assert found.is_refuted(report) is refuted


def test_a_call_with_data_first_is_no_derivation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = SimpleNamespace(gradients=abs, loss=abs, said="It is code.", params={}, data={})
    monkeypatch.setattr(files, "read_code", lambda *given: code)
    source = "import numpy as np\ndef f(x, y, z):\n    return x\n"
    for call in ("f(np.ones(3), 1, 2)\n", 'if __name__ == "__main__":\n    f(np.ones(3), 1, 2)\n'):
        assert read(tmp_path, source + call, "f") == "It is code."


def answer_later(
    monkeypatch: pytest.MonkeyPatch, later: dict[int, Any], zero: tuple[str, ...] = ("W",)
) -> tuple[Any, list[int]]:
    """What is read of a file whose first call has these zero gradients, and its later calls."""
    asked = list[int]()

    def read_call(*given: Any) -> Any:
        asked.append(given[-1])
        found = later.get(given[-1], ValueError("no such call"))
        if isinstance(found, Exception):
            raise found
        ended, said = found
        code = SimpleNamespace(said=said, _replace=lambda said: said)
        return SimpleNamespace(ended=ended, calls={"f": 1}), code

    monkeypatch.setattr(files, "read_call", read_call)
    monkeypatch.setattr(
        files, "find_zero_gradients", lambda code: () if "full" in code.said else zero
    )
    defined: Any = None
    found: Any = read_code(FILE, defined, "f", (), lambda function, what: function)
    return getattr(found, "said", found), asked


def test_a_later_call_is_read_where_the_data_of_the_first_show_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (True, "its first call."), (True, "its first call, full.")
    said = "call 2, full; the gradient of W is zero with the data of the first call."
    assert answer_later(monkeypatch, {0: first, 1: second}) == (said, [0, 1])
    assert answer_later(monkeypatch, {0: second}) == ("its first call, full.", [0])
    # A run that ends before such a call, or fails, has none later.
    assert answer_later(monkeypatch, {0: first, 1: (False, "full")}) == (first[1], [0, 1])
    assert answer_later(monkeypatch, {0: first}) == (first[1], [0, 1])
    said = said.replace("call 2", "call 5")
    assert answer_later(monkeypatch, {0: first, 1: first, 4: second}) == (said, [0, 1, 4])


def test_a_gradient_is_zero_if_all_its_entries_are() -> None:
    params = {"W": np.ones(2), "b": np.ones(2)}
    slopes = {"W": np.array([0.0, 1.0]), "b": np.zeros(2)}
    code: Any = SimpleNamespace(params=params, gradients=lambda p: (0.0, slopes))
    assert find_zero_gradients(code) == ("b",)
    failing: Any = SimpleNamespace(params=params, gradients=lambda p: 1 / 0)
    assert find_zero_gradients(failing) == ()
    unnamed: Any = SimpleNamespace(params=params, gradients=lambda p: (0.0, np.zeros(2)))
    assert find_zero_gradients(unnamed) == ()


GUARD = 'if __name__ == "__main__":\n    '


@pytest.mark.parametrize(
    ("calls", "runs", "reads"),
    [
        ("f(1, 2)\n", 1, 1),
        ("", 1, 1),
        (f"f(1, 2)\n{GUARD}f(3, 4)\n", 1, 1),
        (f"{GUARD}f(1, 2)\n", 2, 2),  # once more, as the main program
        (f"{GUARD}x = 1\n", 2, 1),
    ],
)
def test_a_file_whose_call_cannot_be_read_is_run_no_more_than_it_may_help(
    calls: str, runs: int, reads: int, tmp_path: Path
) -> None:
    told = list[str]()
    file = tmp_path / "model.py"
    file.write_text("def f(x, y):\n    return x\n" + calls, encoding="utf-8")
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is missing
        read_file(file, "f", True, {}, (), note_calls(told))
    assert told.count("running model.py") == runs
    assert told.count("a call of f") == reads


def test_a_notebook_is_guarded_if_one_of_its_cells_is() -> None:
    plain, guarded = Cell("one", "x = 1\n"), Cell("two", f"{GUARD}x = 1\n")
    for cells, expected in [([plain, guarded, plain], True), ([plain, plain], False)]:
        assert find_definitions(FILE, cells).guarded is expected


@pytest.mark.parametrize("returned", ["total, grads", "value, gradients", "(total, aux), grads"])
def test_a_method_named_loss_that_returns_gradients_returns_both(returned: str) -> None:
    source = (
        f"class Net:\n    def loss(self, x):\n        return {returned}\ndef discount(r): ...\n"
    )
    assert list_candidates(define(source)) == ["Net.loss"]
    for other in (source.replace("def loss", "def run"), source.replace(returned, "total, d")):
        assert list_candidates(define(other)) == []
