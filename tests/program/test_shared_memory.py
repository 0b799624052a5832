"""Arrays that share memory do so in every copy, and have what replaces one of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program import shared_memory
from bptt_verifier.program.shared_memory import (
    MOST,
    copy_shared,
    find_shared,
    is_inside,
    lies_as,
    list_arrays,
)
from bptt_verifier.program.source_file import copy_deeply
from bptt_verifier.tolerance.comparison import Verdict


def make_views(order: Any = "C") -> dict[str, Any]:
    """An array, and others that are views of it in every way."""
    whole = np.array(np.arange(12.0).reshape(3, 4), order=order)
    return {
        "whole": whole, "transposed": whole.T, "backwards": whole[::-1, ::2],
        "row": whole[1], "entry": whole[1, 2:3].reshape(()), "part": whole[1:, 1:3],
        "broadcast": np.broadcast_to(whole[0], (2, 4)),
    }  # fmt: skip


@pytest.mark.parametrize("order", ["C", "F"])
def test_views_are_views_of_the_copy(order: Any) -> None:
    given = make_views(order) | {"alone": np.ones(3), "more": [SimpleNamespace()]}
    given["more"][0].row = given["row"]  # in an object, too
    copied = copy_deeply(given, {})
    before = copy_deeply(given, {})
    copied["whole"] *= 2
    for name in make_views():
        assert np.array_equal(copied[name], 2 * given[name])
        assert not np.shares_memory(copied[name], given[name])
        assert copied[name].flags.writeable is given[name].flags.writeable
    assert copied["more"][0].row is copied["row"]
    assert copied["alone"].tolist() == [1, 1, 1]
    again = copy_deeply(before, {})  # a copy of a copy
    again["row"][:] = -1
    assert again["whole"][1].tolist() == [-1] * 4


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_views_have_what_replaces_the_whole(order: Any, dtype: Any) -> None:
    given = make_views(order)
    new = np.array(np.arange(12.0).reshape(3, 4) ** 2, dtype, order=order)
    copied = copy_deeply(given, {id(given["whole"]): new})
    assert copied["whole"] is new
    new[1, 2] = -7  # as an update in place does
    assert copied["entry"] == -7
    assert copied["transposed"][2, 1] == -7
    assert copied["broadcast"].tolist() == [[0, 1, 4, 9]] * 2
    assert copied["row"].dtype == dtype


@pytest.mark.parametrize("layout", ["other order", "strided", "backwards"])
def test_what_lies_in_another_layout_replaces_the_whole_as_well(layout: str) -> None:
    given, squares = make_views(), np.arange(12.0).reshape(3, 4) ** 2
    new = {
        "other order": np.asfortranarray(squares),
        "strided": np.repeat(squares, 2, axis=1)[:, ::2],
        "backwards": squares[::-1].copy()[::-1],
    }[layout]
    copied = copy_deeply(given, {id(given["whole"]): new})
    assert copied["whole"].tolist() == squares.tolist()
    assert copied["part"].tolist() == [[25, 36], [81, 100]]
    copied["transposed"][2, 1] = -7  # which is one of the whole, and none of the user's
    assert copied["whole"][1, 2] == copied["row"][2] == -7
    assert new[1, 2] == 36


def test_the_whole_has_what_replaces_its_parts() -> None:
    theta = np.zeros(5)
    given = {"theta": theta, "W": theta[:4].reshape(2, 2), "b": theta[4:], "first": theta[:1]}
    new = {id(given["W"]): np.arange(1.0, 5.0).reshape(2, 2).T, id(given["b"]): np.array([9.0])}
    copied = copy_deeply(given, dict(new))
    assert copied["theta"].tolist() == [1, 3, 2, 4, 9]
    assert copied["first"].tolist() == [1]
    copied["theta"] *= 2
    assert copied["W"].tolist() == [[2, 6], [4, 8]]
    assert new[id(given["W"])].tolist() == [[1, 3], [2, 4]]
    both = {id(given["theta"]): np.ones(5), id(given["W"]): np.ones((2, 2))}
    less = {name: given[name] for name in ("theta", "W")}
    alike = copy_deeply(less, dict(both))  # two arrays in the place of two
    assert not np.shares_memory(alike["theta"], alike["W"])
    narrow = copy_deeply(given, {id(given["b"]): np.array([9.0], np.float32)})
    assert narrow["theta"].dtype == np.float32
    assert copy_deeply(given, {id(given["b"]): "text"})["theta"].tolist() == [0] * 5
    alone = copy_deeply(given, {id(given["b"]): np.array([9.0])})
    assert alone["theta"].tolist() == [0, 0, 0, 0, 9]


def test_arrays_of_one_memory_that_have_no_entry_in_common_are_copied_alone() -> None:
    data = np.arange(10.0)
    assert find_shared([data[:5], data[5:]]) == []
    (shared,) = find_shared([data[:6], data[5:]])
    assert shared.root is data
    assert find_shared([data, data[:0]]) == []
    assert find_shared([data, data.view(np.int64)]) == []  # other numbers
    assert find_shared([data, np.ones(10)]) == []
    assert copy_shared({"a": data[:6], "b": data[7:]}, {}) == {}


@pytest.mark.parametrize(
    ("one", "other", "inside"),
    [
        ("row", "whole", True),
        ("part", "whole", True),
        ("entry", "row", True),
        ("whole", "row", False),
        ("transposed", "whole", False),  # all of them
        ("row", "part", False),
        ("part", "transposed", True),
    ],
)
def test_a_part_of_an_array_is_inside_of_it(one: str, other: str, inside: bool) -> None:
    views = make_views()
    assert is_inside(views[one], views[other]) is inside
    assert not is_inside(views["row"], np.arange(12.0))
    assert not is_inside(views["whole"][:2, :1], views["row"])  # but for one entry


def test_other_values_than_arrays_do_not_lie_in_memory_as_one() -> None:
    assert lies_as([1.0, 2.0], np.ones(2)) is False
    assert lies_as(np.ones(2), np.ones(2)) is True


def test_a_large_memory_is_not_copied_for_small_parts_of_it() -> None:
    data = np.arange(16.0)
    (shared,) = find_shared([data[:2], data[1:3]])
    assert shared.root is data
    larger = np.arange(17.0)
    assert find_shared([larger[:2], larger[1:3]]) == []
    copied = copy_deeply([larger[:2], larger[1:3]], {})
    assert not np.shares_memory(*copied)


def test_arrays_are_listed_once_and_not_beyond_a_number_of_values() -> None:
    array, inner = np.ones(2), SimpleNamespace()
    inner.itself, inner.a, inner.f, inner.words = inner, array, np.tanh, np.array(["a"], object)
    found = [*list_arrays({"x": [array, (inner, {"y": np.zeros(1)})], "n": 1, "m": np})]
    assert [each.tolist() for each in found] == [[1, 1], [0]]
    many = [[] for _ in range(MOST)] + [array]  # type: ignore[var-annotated]
    assert MOST == 10_000
    assert [*list_arrays(many[1:])] == []
    assert len([*list_arrays(many[2:])]) == 1


def test_an_array_stands_for_one_of_numpy_only_while_code_is_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(shared_memory.sys.modules, "bptt_verifier.program.numpy_arrays")
    assert not shared_memory.is_traced(np.ones(2))


# Code of users.

START = "import numpy as np\nr = np.random.default_rng(0)\n"
TIED = """
class AE:
    def __init__(self):
        self.enc = 0.4 * r.normal(size=(6, 3)); self.dec = self.enc.T; self.b = np.zeros(3)
    def both(self, X):
        h = np.tanh(X @ self.enc + self.b); e = h @ self.dec - X; d = 2 * e / e.size
        da = d @ self.dec.T * (1 - h * h)
        return np.mean(e * e), {"enc": X.T @ da + d.T @ h, "b": da.sum(0)}
m, X = AE(), r.normal(size=(7, 6))
L, g = m.both(X)
"""
KEPT = """
class Net:
    def __init__(self):
        self.W1, self.W2 = r.normal(size=(3, 4)), r.normal(size=(4, 2)); self.back = self.W2.T
    def forward(self, x, y):
        self.x = x; self.h = np.tanh(x @ self.W1); self.e = self.h @ self.W2 - y
        return np.mean(self.e ** 2)
    def backward(self):
        d = 2 * self.e / self.e.size; self.dW2 = self.h.T @ d
        self.dW1 = self.x.T @ ((d @ self.back) * (1 - self.h ** 2))
n, x, y = Net(), r.normal(size=(5, 3)), r.normal(size=(5, 2))
for _ in range(3):
    n.forward(x, y); n.backward(); n.W1 -= 0.1 * n.dW1; n.W2 -= 0.1 * n.dW2
"""
FLAT = """
class Net:
    def __init__(self):
        self.theta, self.dtheta = 0.5 * r.normal(size=16), np.zeros(16)
        self.W, self.b = self.theta[:12].reshape(3, 4), self.theta[12:]
        self.dW, self.db = self.dtheta[:12].reshape(3, 4), self.dtheta[12:]
    def forward(self, X, y):
        self.X = X; self.h = np.tanh(X @ self.W + self.b); self.e = self.h - y
        return np.mean(self.e ** 2)
    def backward(self):
        da = 2 * self.e / self.e.size * (1 - self.h ** 2)
        self.dW[...] = self.X.T @ da; self.db[...] = da.sum(0)
n, X, y = Net(), r.normal(size=(5, 3)), r.normal(size=(5, 4))
n.forward(X, y); n.backward()
"""
OF_FILE = """
We = 0.4 * r.normal(size=(6, 3)); Wd = We.T; X = r.normal(size=(7, 6))
def f(X):
    h = np.tanh(X @ We); e = h @ Wd - X; d = 2 * e / e.size; da = d @ Wd.T * (1 - h * h)
    dWe = X.T @ da + d.T @ h
    return np.mean(e * e), dWe
f(X)
"""
OUTSIDE = """
theta = 0.5 * r.normal(size=16); W = theta[:12].reshape(3, 4); b = theta[12:]
X, y = r.normal(size=(5, 3)), r.normal(size=(5, 4))
def f(X, y):
    h = np.tanh(X @ W + b); e = h - y; da = 2 * e / e.size * (1 - h * h)
    dtheta = np.concatenate([(X.T @ da).ravel(), da.sum(0)])
    return np.mean(e * e), dtheta
f(X, y)
"""
# The name, the text, what it is taken for, and a mistake.
CODE = {
    "a tied weight": ("AE.both", TIED, "parameters: enc, b.", (" + d.T @ h", "")),
    "a kept transpose": ("Net", KEPT, "parameters: W1, W2.", ("self.W2.T", "self.W2.T.copy()")),
    "a flat vector": ("Net", FLAT, "parameters: theta;", ("da.sum(0)", "da.mean(0)")),
    "tied globals": ("f", OF_FILE, "parameters: We.", (" + d.T @ h", "")),
    "a flat global": ("f", OUTSIDE, "parameters: theta.", ("da.sum(0)]", "da.mean(0)]")),
}


@pytest.mark.table(5)
@pytest.mark.parametrize("kind", CODE)
def test_a_view_of_a_parameter_changes_with_it(kind: str, tmp_path: Path) -> None:
    name, text, said, change = CODE[kind]
    file = tmp_path / "model.py"
    for wrong in (False, True):
        file.write_text(START + (text.replace(*change) if wrong else text), encoding="utf-8")
        found = read_file(file, name, None, {}, ())
        if not wrong:
            assert said in found.said
        report = verify_own_model(found.gradients, found.loss, found.params, cases=3)
        assert report.verdict is (Verdict.DISAGREES if wrong else Verdict.AGREES), str(report)
        assert not any("central differences" in note for note in report.notes)  # it is traced


def test_both_of_two_tied_weights_are_parameters_where_both_have_gradients(tmp_path: Path) -> None:
    text = TIED.replace('"enc": X.T @ da + d.T @ h', '"enc": X.T @ da, "dec": h.T @ d')
    file = tmp_path / "model.py"
    file.write_text(START + text, encoding="utf-8")
    found = read_file(file, "AE.both", None, {}, ())
    assert "parameters: enc, dec, b." in found.said
    assert verify_own_model(found.gradients, found.loss, found.params, cases=3)


def test_a_view_that_cannot_be_written_to_is_replaced_as_well() -> None:
    whole = np.zeros(4)
    view = whole[:2]
    view.flags.writeable = False
    copied = copy_deeply({"whole": whole, "view": view}, {id(view): np.ones(2)})
    assert copied["whole"].tolist() == [1, 1, 0, 0]


def test_what_is_replaced_by_no_array_shares_nothing() -> None:
    theta = np.zeros(3)
    given = {"theta": theta, "W": theta[:2], "b": theta[2:]}
    copied = copy_deeply(given, {id(given["W"]): np.ones(2), id(given["b"]): "text"})
    assert copied["theta"].tolist() == [0, 0, 0]
    assert copied["b"] == "text"
