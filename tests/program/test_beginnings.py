"""What a file may do between two calls is read from its code, and what is unknown may be done."""

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.beginnings import (
    ANY,
    are_compared,
    find_changing,
    gets_other_data,
    list_globals,
    list_reached,
    list_set,
    makes_several,
    may_begin_anew,
    mentions,
)


def nodes_of(text: str) -> list[ast.AST]:
    return [*ast.walk(ast.parse(text))]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("net.h = 1", {"h"}), ("del net.h", {"h"}), ("net.h[0] = 1", {"h"}), ("net.h += 1", {"h"}),
        ("net.h.clear()", {"h"}), ("net.h.copy()", set()), ("memo = net.h", {"h"}),
        ("setattr(net, 'h', 1)", {"h"}), ("setattr(net, n, None)", {ANY}),
        ("setattr(net, n, getattr(net, n) - 0.1 * g[n])", set()), ("delattr(net, 'h')", {"h"}),
        ("object.__setattr__(net, 'h', 1)", {"h"}), ("vars(net).clear()", {ANY}),
        ("net.__dict__['h'] = 1", {ANY, "__dict__"}), ("copy.copy(net)", {ANY}),
        ("deepcopy(net)", {ANY}), ("def __setattr__(self, n, v): pass", {ANY}),
        ("print(net.h)", set()), ("setattr(net)", set()),
    ],
)  # fmt: skip
def test_attributes_that_code_sets_or_may_set(text: str, names: set[str]) -> None:
    assert {name for node in nodes_of(text) for name in list_set(node)} == names


def test_attributes_are_mentioned_by_name_or_as_a_text() -> None:
    for text, found in [("net.h", True), ("getattr(net, 'h')", True), ("h = net.x", False)]:
        assert mentions(nodes_of(text), {"h"}) is found


@pytest.mark.parametrize(
    ("text", "several"),
    [
        ("net = Net()", False), ("net = Net()\nother = Net()", True),
        ("for _ in range(2): Net()", True), ("while True: Net()", True),
        ("nets = [Net() for _ in x]", True), ("def make(): return Net()", True),
        ("make = lambda: Net()", True), ("net = Net()\nnet.__init__()", True),
        ("net = Net()\ntype(net)()", True), ("net = Net()\nnet.__class__()", True),
        ("net = Net()\nother = Other()", False), ("other = Other()", False),
    ],
)  # fmt: skip
def test_one_object_is_made_once_and_not_in_a_loop_or_a_function(text: str, several: bool) -> None:
    tree = ast.parse(text)
    assert makes_several(tree, [*ast.walk(tree)], "Net") is several


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a = 1", set()), ("a = 1\na = 2", {"a"}), ("for a in x: b = 1", {"a", "b"}),
        ("a = []\na.append(1)", {"a"}), ("a = x.sum()", set()), ("a = [0]\na[0] = 1", {"a"}),
        ("def f():\n    global a\n", {"a"}), ("a = 1\na += 1", {"a"}), ("del a\na = 1", {"a"}),
    ],
)  # fmt: skip
def test_variables_that_may_change(text: str, names: set[str]) -> None:
    assert find_changing(ast.parse(text)) == names


def test_globals_are_the_variables_that_a_function_reads_and_does_not_set() -> None:
    text = "def f(self, x, *, k=1):\n    y = x + A\n    return y * self.W * k * len(B)"
    assert {*list_globals(ast.parse(text).body)} == {"A", "B", "len"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("net.run(X, Y)", False), ("net.run(X, n=2)", False), ("net.run(data.X)", False),
        ("net.run(X[i], Y)", True), ("net.run(X, k=f())", True), ("net.run(X, it)", True),
        ("net.show(X, it)", False),
    ],
)  # fmt: skip
def test_other_data_are_those_that_change_or_that_are_computed(text: str, other: bool) -> None:
    for repeated in (f"{text}\n{text}", f"for _ in x: {text}", f"def f(): {text}"):
        tree = ast.parse(repeated)
        assert gets_other_data(tree, [*ast.walk(tree)], "run", {"it"}) is other
    once = ast.parse(text)
    assert gets_other_data(once, [*ast.walk(once)], "run", {"it"}) is False


@pytest.mark.parametrize(
    ("arguments", "methods", "compared"),
    [
        ({"run": {"x": "x"}, "back": {"d": "d"}}, 2, True), ({"x": "x"}, 1, True),
        ({"run": {"x": "x", "y": "y"}, "back": {}}, 2, False), ({"x": "x", "n": 1}, 1, False),
        ({"other": {"x": "x"}, "back": {"d": "d"}}, 2, False),
    ],
)  # fmt: skip
def test_data_are_compared_if_all_arguments_are_parameters(
    arguments: Any, methods: int, compared: bool
) -> None:
    arrays: Any = {name: np.ones(2) for name in "xyd"}
    given = {
        key: {n: arrays[v] for n, v in value.items()} if methods == 2 else arrays.get(value, value)
        for key, value in arguments.items()
    }
    calls: Any = SimpleNamespace(
        function="run", backward="back" if methods == 2 else "run",
        roots={"arguments": given}, places={"x": SimpleNamespace(array=arrays["x"])},
    )  # fmt: skip
    assert are_compared(calls, "run") is compared


FILE = """
class Base(list):
    def inherited(self): outer()
class Net(Base):
    def run(self): self.helper(); self.cell.forward(); outer(); self.seen.update(a=1); super()
    def helper(self): self.inherited(); self.box.append(1); self.box.add(1); self.box.dot(1)
    def update(self): pass
    def step(self): pass
class Cell:
    def forward(self): self.inner(); self.last.twice()
    def inner(self): pass
class Box:
    def append(self, x): pass
    def add(self, x): pass
    def dot(self, x): pass
class One:
    def twice(self): pass
class Two:
    def twice(self): pass
    def helper(self): pass
def outer(): pass
def other(net): net.step()
"""


def test_functions_are_reached_that_are_surely_called() -> None:
    tree = ast.parse(FILE)
    classes: Any = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    owners = {id(f): name for name, each in classes.items() for f in each.body}
    reached = [(owners.get(id(f), ""), f.name) for f in list_reached(tree, "Net", {"run"})]
    assert len(reached) == len({*reached})
    assert {*reached} == {
        ("Net", "run"), ("Net", "helper"), ("Base", "inherited"), ("Cell", "forward"),
        ("Cell", "inner"), ("", "outer"),
    }  # fmt: skip


TWO_PASSES = """
class Net:
    def __init__(self): self.seen = []
    def run(self, x): self.seen.append(x)
    def run_back(self, x): return self.seen
    def loss(self, out): return self.seen
net = Net()
net.run(X); net.loss(0); net.run_back(X)
"""
WITHOUT_LOSS = TWO_PASSES.replace("def loss(self, out): return self.seen", "").replace(
    "net.loss(0); ", ""
)


@pytest.mark.parametrize(
    ("text", "backward", "begins"),
    [
        (TWO_PASSES, "run_back", False),  # the loss is called as well, and mentions what is kept
        (TWO_PASSES.replace("(X);", "(X[i]);", 1), "run_back", False),  # which runs once
        (TWO_PASSES + "net.run(X[i])\n", "run_back", True),
        (TWO_PASSES.replace("run_back(X)", "run_back(X[i])"), "run_back", False),
        (TWO_PASSES, "run", True),
        (WITHOUT_LOSS, "run_back", False),
        (WITHOUT_LOSS, "run", True),
        (WITHOUT_LOSS.replace("return self.seen", "pass"), "run", False),
    ],
)
def test_whatever_is_called_as_the_gradients_are_begins_nothing_anew(
    text: str, backward: str, begins: bool, tmp_path: Path
) -> None:
    file = tmp_path / "net.py"
    file.write_text(text)
    found: dict[str, Any] = {"X": 0, "i": 0}
    exec(compile(text.replace("[i]", ""), str(file), "exec"), found)
    net = found["net"]
    arguments = {"run": {"x": 0}, "loss": {"out": 0}} if backward == "run_back" else {"loss": 0}
    roots = {"self": net, "arguments": arguments}
    calls: Any = SimpleNamespace(
        function=net.run, backward=getattr(net, backward), roots=roots, places={}
    )
    assert may_begin_anew(calls, {"seen"}) is begins


STEPS = """
class Net:
    def __init__(self): self.W, self.kept = 1.0, None
    def run(self, x): self.kept = self.kept or self.W; self.dW = self.kept
net = Net()
net.run(X)
STEP
"""


@pytest.mark.parametrize(
    ("step", "gradients", "begins"),
    [
        ("net.W -= 0.1 * net.dW", {"dW"}, False),  # what a step reads
        ("net.W -= 0.1 * net.dW", (), True),
        ("net.W -= 0.1 * net.dW; net.dW = 0.0", {"dW"}, True),
        ("net.W -= 0.1 * net.dW; net.kept = None", {"dW"}, True),
        ("net.W -= 0.1 * net.dW * net.kept", {"dW"}, True),
    ],
)
def test_a_step_that_reads_gradients_begins_nothing_anew(
    step: str, gradients: Any, begins: bool, tmp_path: Path
) -> None:
    file, found = tmp_path / "net.py", dict[str, Any](X=0)
    file.write_text(STEPS.replace("STEP", step))
    exec(compile(STEPS.replace("STEP", ""), str(file), "exec"), found)
    place = SimpleNamespace(path=("W",))
    calls: Any = SimpleNamespace(
        function=found["net"].run, backward=found["net"].run, places={"W": place},
        roots={"self": found["net"], "arguments": {"x": 0}},
    )  # fmt: skip
    assert may_begin_anew(calls, {"dW", "kept"}, gradients) is begins


def test_what_has_no_text_may_begin_anew() -> None:
    found: dict[str, Any] = {"X": 0}
    exec(TWO_PASSES, found)
    net = found["net"]
    calls: Any = SimpleNamespace(function=net.run, backward=net.run, roots={}, places={})
    assert may_begin_anew(calls, {"seen"}) is True
