"""Which sides of the user's conditions no call takes, and which conditions are about data."""

import linecache
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import pytest

from bptt_verifier.program import taken_sides
from bptt_verifier.program.taken_sides import SIDES, WATCHED, TakenSides, digest, find_value

SOURCE = """
def plain(x, n=3, clip=None, limit=5.0):
    if x > 100:
        x = 0.0
    elif x < -100:
        x = 1.0
    if x > 0:
        x = x + 1
    if n > 3 or limit > 7.0:
        x = x + 2
    if clip is not None and x > clip:
        x = clip
    while x > 50:
        x = x / 2
    return x
def on_one_line(x):
    if x < -100: x = 0.0
    return [1.0 if y > 200 else y for y in (x, x + 1)], 2 if x < 300 else 3
def inside(x):
    def inner(y):
        if y > 100:
            y = 0.0
        return y
    return inner(x)
def split(x):
    if (
        x > 100
        and x < 200
    ):
        x = 0.0
    return x
def refusing(x):
    if x > 100:
        x = 0.0
        raise ValueError(x)
    return x
def raising(x):
    if x > 100:
        return 0.0
    raise KeyError(x)
"""


@pytest.fixture
def space() -> dict[str, Any]:
    lines = SOURCE.splitlines(keepends=True)
    linecache.cache["sides.py"] = len(SOURCE), None, lines, "sides.py"
    names: dict[str, Any] = {}
    exec(compile(SOURCE, "sides.py", "exec"), names)
    return names


def watch(function: Callable[..., Any], *calls: Any) -> list[str]:
    """The sides that these calls of a function do not take: expression and outcome."""
    sides = TakenSides()
    watched = sides.watch(function)
    for each in calls:
        assert watched(each) == function(each)
    return [each.replace("the condition is ", "") for each in sides.list_untaken()]


@pytest.mark.parametrize(
    ("name", "calls", "untaken"),
    [
        (
            "plain",
            [1.0, 2.0],
            [
                "`x > 100` (sides.py:3): true", "`x < -100` (sides.py:5): true",
                "`x > 0` (sides.py:7): false", "`x > 50` (sides.py:13): true",
            ],
        ),
        ("plain", [1.0, -200.0, -1.0, 120.0, 70.0], []),
        ("plain", [1.0, 1.0], []),  # of numbers that do not change, nothing is known
        (
            "on_one_line",
            [1.0, 2.0],
            [
                "`x < -100` (sides.py:17): true", "`y > 200` (sides.py:18): true",
                "`x < 300` (sides.py:18): false",
            ],
        ),
        ("on_one_line", [1.0, 400.0, -200.0], []),
        ("inside", [1.0, 2.0], ["`y > 100` (sides.py:21): true"]),
        ("split", [1.0, 2.0], ["`x > 100` (sides.py:27): true"]),
        ("split", [1.0, 150.0], []),
        ("refusing", [1.0, 2.0], []),
    ],
)  # fmt: skip
def test_sides_that_no_call_takes_are_listed(
    name: str, calls: list[float], untaken: list[str], space: dict[str, Any]
) -> None:
    assert watch(space[name], *calls) == untaken


def test_sides_that_worker_threads_take_count(space: dict[str, Any]) -> None:
    def work(x: float) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(space["inside"], x).result()

    assert watch(work, 1.0, 2.0) == ["`y > 100` (sides.py:21): true"]
    assert watch(work, 1.0, 200.0) == []
    assert threading.gettrace() is None


def test_an_exception_ends_the_trace_of_a_call(space: dict[str, Any]) -> None:
    sides = TakenSides()
    watched = sides.watch(space["raising"])
    for x in (1.0, 2.0):
        with pytest.raises(KeyError):
            watched(x)
    assert sys.gettrace() is None
    assert sides.list_untaken() == [f"`x > 100` (sides.py:38): {SIDES[True]}"]


def test_what_has_no_open_side_is_traced_no_more(space: dict[str, Any]) -> None:
    sides = TakenSides()
    watched = sides.watch(space["inside"])
    watched(1.0)
    watched(200.0)
    events = sides.events
    for _ in range(5):
        watched(1.0)
    assert sides.events == events > 0


def test_beside_a_debugger_or_after_many_events_nothing_is_said(
    space: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides, before = TakenSides(), sys.gettrace()
    watched = sides.watch(space["plain"])
    sys.settrace(lambda *_: None)
    try:
        watched(1.0)
    finally:
        sys.settrace(before)
    assert not sides.complete
    monkeypatch.setattr(taken_sides, "EVENTS", 3)
    assert watch(space["plain"], 1.0, 2.0) == []


def test_the_code_of_installed_packages_is_not_watched(
    space: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taken_sides, "INSTALLED", ("sides",))
    assert watch(space["plain"], 1.0, 2.0) == []


def test_a_function_that_is_watched_already_stays_as_it_is(space: dict[str, Any]) -> None:
    @wraps(space["plain"])
    def other(x: float) -> Any:
        return space["plain"](x)

    setattr(other, WATCHED, True)
    assert TakenSides().watch(other) is other


def test_a_function_without_a_name_is_watched(space: dict[str, Any]) -> None:
    class Nameless:
        bptt_watches_lines = "something else"

        @property
        def __name__(self) -> str:
            raise RuntimeError

        def __call__(self, x: float) -> Any:
            return space["inside"](x)

    assert watch(Nameless(), 1.0, 2.0) == ["`y > 100` (sides.py:21): true"]


@pytest.mark.parametrize("more", [0, 2])
def test_five_branches_are_described_at_most(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = TakenSides()
    monkeypatch.setattr(sides, "list_untaken", lambda: [f"b{k}" for k in range(5 + more)])
    (said,) = sides.describe("your gradients")
    assert said.startswith("No case takes these branches of your gradients: b0; b1; ")
    assert said.endswith("b4, and 2 more." if more else "b4.")
    monkeypatch.setattr(sides, "list_untaken", list)
    assert sides.describe("the loss") == []


class Pair(NamedTuple):
    first: Any
    second: Any


class Holder:
    def __init__(self) -> None:
        self.held = Pair(1.0, 2.0)

    @property
    def asked(self) -> Any:
        raise AssertionError


def test_values_are_found_without_running_code() -> None:
    holder = Holder()
    assert find_value({"a": holder}, "a", "held", "second") == 2.0
    assert find_value({"a": holder}, "a", "asked") is holder
    assert find_value({}, "a") is None


def test_floats_and_truth_values_of_arrays_are_digested() -> None:
    for other, changed in (
        (1.0, 2.0), (np.float32(1), np.float32(2)), (np.bool_(1), np.bool_(0)),
        (np.ones(3), np.zeros(3)), ({"a": [1.0]}, {"a": [2.0]}), (Pair(1.0, 2), Pair(2.0, 2)),
    ):  # fmt: skip
        assert digest(other) != digest(changed)
        assert digest(other)
    for without in (1, True, None, "a", np.arange(3), len, {"a": {"b": {"c": 1.0}}}):
        assert digest(without) == b""
