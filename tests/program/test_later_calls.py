"""What an object keeps from one call to the next is no part of right gradients."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program import later_calls
from bptt_verifier.program.later_calls import (
    CALLS,
    describe_untried,
    is_same,
    list_kept,
    repeat,
    set_places,
)

NET = """
import numpy as np
rng = np.random.default_rng(0)
x, y = rng.normal(size=(5, 4, 3)), rng.normal(size=(4, 2))
class Net:
    def __init__(self):
        self.U, self.W = rng.normal(size=(3, 4)), 0.4 * rng.normal(size=(4, 4))
        self.V, self.h, self.start = rng.normal(size=(4, 2)), [], np.zeros((4, 4))
        self.calls, self.last, self.dW, self.kept = 0, None, np.zeros((4, 4)), None
    def forward(self, x):
        {forward}
        for x_t in x:
            self.h.append(np.tanh(x_t @ self.U + self.h[-1] @ self.W))
        self.out = self.h[-1] @ {output}
        return self.out
    def loss(self, out, y):
        return ((out - y)**2).sum()
    def backward(self, out, y):
        self.calls += 1
        d = 2 * (out - y)
        dU, dW, dV, d = 0, np.zeros((4, 4)), self.h[len(x)].T @ d, d @ self.V.T
        for t in reversed(range(len(x))):
            d = d * (1 - self.h[t + 1]**2)
            dU, dW = dU + x[t].T @ d, dW + self.h[t].T @ d
            d = d @ self.W.T
        {backward}
        return dU, dW, dV
    {more}
{file}
"""
ONCE = "net = Net()\nout = net.forward(x); net.loss(out, y); net.backward(out, y)"
FORWARD = "self.h = [np.zeros((4, 4))]"
# A transpose that is kept while nothing is said to have changed, and how the file says it.
KEPT = {
    "forward": f"{FORWARD}; self.kept, self.last = (self.kept, self.last) if self.last == "
    "self.version else (self.V.T.copy(), self.version)",
    "output": "self.kept.T", "more": "version = 0",
}  # fmt: skip
WRONG = {
    "states of the call before": {"forward": "self.h.append(np.zeros((4, 4)))"},
    "a factor from the second call on": {"backward": "dW = dW * (1.01 if self.calls > 1 else 1)"},
    "a factor at the second call alone": {"backward": "dW = dW * (1.01 if self.calls == 2 else 1)"},
    "a factor at every fiftieth call": {
        "backward": "dW = dW * (1 if self.calls % 50 else 1.01)"
    },
    "the first gradient": {
        "backward": "self.kept = dV if self.kept is None else self.kept; dV = self.kept"
    },
    "the first gradient, where the file computes the data of its only call": {
        "backward": "self.kept = dV if self.kept is None else self.kept; dV = self.kept",
        "file": ONCE.replace("forward(x)", "forward(x.copy())"),
    },
    "a transpose that is kept": KEPT,
    "a sum with the call before": {"backward": "self.dW = dW + self.dW / 2; dW = self.dW"},
    "a factor beside gradients that add up": {
        "backward": "self.dW += dW; dW = self.dW; dV = dV * (1.01 if self.calls > 1 else 1)"
    },
}  # fmt: skip
CLEARINGS = {
    "a version that a step counts": {
        "more": "version = 0\n    def step(self):\n        self.version += 1"
    },
    "set by a name": {
        "more": "version = 0\n    def step(self):\n        setattr(self, 'last', None)"
    },
    "set by any name": {
        "more": "version = 0\n    def step(self, name):\n        setattr(self, name, None)"
    },
    "taken from the object": {"file": f"{ONCE}\nvars(net).pop('last')"},
    "by another variable": {"file": f"{ONCE}\nlast = net.last"},
    "in a copy": {"file": f"{ONCE}\nimport copy\ncopy.copy(net)"},
    "by a method that a dict has": {
        "more": "version, seen = 0, {}\n    def update(self):\n        self.last = None",
        "backward": "self.seen.update(a=1)",
    },
    "by setting attributes": {
        "more": "version = 0\n    def __setattr__(self, name, value):\n"
        "        object.__setattr__(self, name, value)",
    },
}  # fmt: skip
RIGHT = {
    "nothing": {},
    "a state that is carried on": {
        "forward": "self.h = [self.start]", "backward": "self.start = self.h[-1]"
    },
    "gradients that add up": {"backward": "self.dW += dW; dW = self.dW"},
    "a step": {"backward": "self.W = self.W - 0.1 * dW"},
    "states that the file clears": {
        "forward": "self.h.append(np.zeros((4, 4)))", "file": f"{ONCE}\nnet.h = []"
    },
    "states that the file clears in place": {
        "forward": "self.h.append(np.zeros((4, 4)))", "file": f"{ONCE}\nnet.h.clear()"
    },
    "states that a method clears": {
        "forward": "self.h.append(np.zeros((4, 4)))",
        "more": "def reset(self):\n        del self.h[:]",
    },
    "an object for every sequence": {
        "forward": "self.h.append(np.zeros((4, 4)))",
        "file": "for _ in range(2):\n    " + ONCE.replace("\n", "\n    "),
    },
    "several objects": {
        "forward": "self.h.append(np.zeros((4, 4)))", "file": f"{ONCE}\nother = Net()"
    },
    "slots in the place of a dict": {
        "more": "__slots__ = 'U W V h start calls last dW kept out'.split()"
    },
    "what can be called once": {"forward": f"assert self.calls == 0; {FORWARD}"},
    "what raises at the parameters of the first call": {
        "forward": f"assert not np.isclose(self.W[0, 0], 0.75 * FIRST); {FORWARD}",
        "file": ONCE.replace("\n", "\nFIRST = net.W[0, 0]\n", 1),
    },
    "a state that is forgotten": {
        "forward": "self.h = [1e-12 * self.start]", "backward": "self.start = self.h[-1]"
    },
    "a parameter that the call makes anew": {"backward": "self.W = self.W.astype(np.float64)"},
    "a rate that begins at zero": {
        "backward": "self.W = self.W - self.rate * dW; self.rate = 0.1",
        "more": "rate = 0.0",
    },
} | {
    f"a transpose that is kept, {how}": KEPT | clearing
    for how, clearing in CLEARINGS.items()
}  # fmt: skip


def judge(folder: Path, changes: dict[str, str]) -> Any:
    """Judge the class with these statements in the place of its own."""
    parts = {"forward": FORWARD, "output": "self.V", "backward": "pass", "more": "", "file": ONCE}
    parts |= changes
    file = folder / "net.py"
    file.write_text(NET.format(**parts))
    found = read_file(file, "Net", True, {}, ())
    return verify_own_model(found.gradients, found.loss, found.params, cases=2)


@pytest.mark.parametrize("kind", WRONG)
def test_what_an_object_keeps_makes_a_later_call_wrong(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later_calls, "SECONDS", 60.0)  # enough on a machine that does more
    report = judge(tmp_path, WRONG[kind])
    assert [m.name for m in report.mistakes] == ["depends-on-calls"], str(report)
    assert "at a later call on the same object" in report.mistakes[0].explanation


LAYER = """
import numpy as np
rng = np.random.default_rng(2)
class Dense:
    def __init__(self):
        self.W, self.first, self.WT = 0.4 * rng.normal(size=(4, 3)), None, None
    def forward(self, x):
        self.x, self.a = x, x @ self.W
        {forward}
        return np.maximum(self.a, 0)
    def backward(self, dout):
        da = dout * (self.a > 0)
        self.dW = {left}.T @ da
        return da @ {right}
layer = Dense()
{file}
"""
CALLED = {
    "once with data that are computed": "layer.forward(rng.normal(size=(5, 4)))\n"
    "layer.backward(np.ones((5, 3)))",
    "with batches": "for x in rng.normal(size=(2, 5, 4)):\n"
    "    layer.forward(x); layer.backward(np.ones((5, 3)))",
}
FIRST = "self.first = x if self.first is None else self.first"
BY_INPUT = "self.WT = self.W.T.copy() if self.first is not x else self.WT; self.first = x"


@pytest.mark.parametrize("how", CALLED)
def test_inputs_of_the_first_call_are_wrong_at_a_later_one(how: str, tmp_path: Path) -> None:
    for forward, left, right, names in [
        (FIRST, "self.first", "self.W.T", ["depends-on-calls"]),
        (FIRST, "self.x", "self.W.T", []),
        (BY_INPUT, "self.x", "self.WT", []),  # which other inputs make anew
    ]:
        text = LAYER.format(forward=forward, left=left, right=right, file=CALLED[how])
        (tmp_path / "layer.py").write_text(text)
        found = read_file(tmp_path / "layer.py", "Dense", True, {}, ())
        report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
        assert [m.name for m in report.mistakes] == names, str(report)
        assert not any("No later call" in remark for remark in found.remarks())


UNTRIED = {
    "several objects": "make several objects",
    "a state that is carried on": "the loss changes from call to call",
    "what can be called once": "at one, your code raised ",
    "gradients that add up": "",  # of which another sentence tells
    "nothing": "",
}


@pytest.mark.parametrize("kind", UNTRIED)
def test_the_report_says_why_no_later_call_is_compared(kind: str, tmp_path: Path) -> None:
    judge(tmp_path, RIGHT[kind])
    found = read_file(tmp_path / "net.py", "Net", True, {}, ())
    assert not any("No later call" in remark for remark in found.remarks())
    verify_own_model(found.gradients, found.loss, found.params, cases=2)
    said = [remark for remark in found.remarks() if "No later call" in remark]
    assert len(said) == bool(UNTRIED[kind])
    assert UNTRIED[kind] in "".join(said)
    assert ("net.py:" in "".join(said)) == ("raised" in UNTRIED[kind])


def test_nothing_is_said_where_a_later_call_is_compared_in_some_case() -> None:
    for later, number in [([], 0), ([""], 0), (["a", ""], 0), (["a", "b"], 1)]:
        calls: Any = SimpleNamespace(later=later)
        assert len(describe_untried(calls)) == number


@pytest.mark.rest
@pytest.mark.table(1)
@pytest.mark.parametrize("kind", RIGHT)
def test_what_may_differ_at_a_later_call_is_no_mistake(kind: str, tmp_path: Path) -> None:
    report = judge(tmp_path, RIGHT[kind])
    assert report.verdict.value == "agrees", str(report)


class Owner:
    """An object with arrays in attributes, a list and a dict."""

    def __init__(self, W: Any) -> None:
        self.W, self.layers, self.named = W, [{"U": W}, W], {"V": W}
        self.cell = SimpleNamespace(U=W)


def test_parameters_are_set_at_all_their_places() -> None:
    owner, new = Owner(np.zeros(2)), {name: np.full(2, k) for k, name in enumerate("WUV", 1)}
    places: Any = {
        ("self", "W"): "W", ("self", "layers", 0, "U"): "U", ("self", "layers", 1): "W",
        ("self", "named", "V"): "V", ("self", "cell", "U"): "U",
    }  # fmt: skip
    set_places({"self": owner}, places, new)
    assert owner.W is owner.layers[1] is new["W"]
    assert owner.layers[0]["U"] is owner.cell.U is new["U"]
    assert owner.named["V"] is new["V"]


def test_gradients_are_the_same_up_to_half_their_digits() -> None:
    one, last = np.array([0.5, 0.125]), np.array([0.0, 2.0**-27])
    for size, same in [(0.0, True), (1.0, True), (1.01, False)]:
        assert is_same(one + size * last, one) is same
        assert is_same(np.float32(one + size * 2**14.5 * last), np.float32(one)) is same
    assert is_same(one, one[:1]) is False
    assert is_same(one[:0], one[:0]) is True


def test_what_a_call_keeps_is_what_it_sets_or_changes() -> None:
    before: Any = {("W",): np.ones(2), ("h",): np.ones(2), ("cell", "c"): np.ones(1)}
    after = before | {("h",): np.zeros(2), ("memo", 0): np.ones(1)}
    assert list_kept(before, after) == {"h", "memo"}
    assert list_kept(before, before | {("cell", "c"): np.zeros(1)}) == {"cell", "c"}


@pytest.mark.parametrize(
    ("changes", "seconds", "wrong_at", "number"),
    [(False, 60.0, 0, CALLS), (False, -1.0, 0, 1), (True, 60.0, 0, 1), (False, 60.0, 5, 5)],
)
def test_a_call_is_repeated_until_another_gradient_while_there_is_time(
    changes: bool, seconds: float, wrong_at: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later_calls, "SECONDS", seconds)
    made = list[Any]()

    def run_on(run: Any, roots: Any) -> dict[str, Any]:
        made.append(roots)
        return roots | {"loss": 1.0, "g": np.full(2, 2.0 if len(made) == wrong_at else 1.0)}

    calls: Any = SimpleNamespace(run_on=run_on, run=None, roots={"self": None})
    state = {"self": Owner(None), "loss": 1.0, "g": np.ones(2)}
    found = repeat(calls, state, [("loss",), ("g",)], changes)
    assert len(made) == number
    assert not isinstance(found, str | None)
    assert found["g"][0] == (2.0 if wrong_at else 1.0)
    assert all([*roots] == ["self"] for roots in made)
