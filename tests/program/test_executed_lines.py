"""What the calls of the user's code leave untried: branches, and data that are the same."""

import ast
import linecache
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from bptt_verifier.program import executed_lines
from bptt_verifier.program.executed_lines import (
    ExecutedLines,
    describe_data,
    find_untaken,
    is_constant,
)

SOURCE = """
def helper(x):
    if x > 2:
        return 0
    return 1
def f(x, mask=None):
    if mask is not None:
        x = x * mask
    for each in [][:x]:
        x += each
    if x > 0:
        x = 2 * x
    elif x < -5:
        x = 0
    while x > 100:
        x = x / 2
    if x == 7: x = 8
    return x + helper(
        x
    )
def never_called(x):
    if x:
        return 1
"""


@pytest.fixture
def space() -> dict[str, Any]:
    linecache.cache["user.py"] = len(SOURCE), None, SOURCE.splitlines(keepends=True), "user.py"
    names: dict[str, Any] = {}
    exec(compile(SOURCE, "user.py", "exec"), names)
    return names


def test_branches_that_no_call_takes_are_listed_with_their_places(space: dict[str, Any]) -> None:
    lines = ExecutedLines()
    watched = lines.watch(space["f"])
    assert watched(1) == space["f"](1)
    assert lines.list_untaken() == [
        "`x > 2` (user.py:3) is never true",
        "`mask is not None` (user.py:7) is never true",
        "the loop over `[][:x]` (user.py:9) makes no step",
        "`x > 0` (user.py:11) is always true",
        "`x > 100` (user.py:15) is never true",
    ]


def test_a_branch_that_one_of_the_calls_takes_is_not_listed(space: dict[str, Any]) -> None:
    lines = ExecutedLines()
    watched = lines.watch(space["f"])
    for x in (1, 3, -3, -10):
        watched(x)
    watched(1, mask=500)
    assert lines.list_untaken() == ["the loop over `[][:x]` (user.py:9) makes no step"]


@pytest.mark.parametrize(
    ("head", "constant"),
    [
        ("True", True), ("1 + 1 == 2", True), ("[]", True), ("range(0)", True),
        ("range(n)", False), ("n", False), ("range", False), ("f()", False),
        ("self.training", False),
    ],
)  # fmt: skip
def test_a_branch_that_no_data_could_take_is_not_listed(head: str, constant: bool) -> None:
    assert is_constant(ast.parse(head, mode="eval").body) == constant
    source = f"def f(n):\n    if {head} and False:\n        n = 1\n    return n\n"
    linecache.cache["user.py"] = len(source), None, source.splitlines(keepends=True), "user.py"
    listed = [*find_untaken("user.py", {(2, 4)})]
    assert listed == ([] if constant else [f"`{head} and False` (user.py:2) is never true"])


def test_nothing_is_said_of_branches_unless_all_calls_were_watched(space: dict[str, Any]) -> None:
    lines, before = ExecutedLines(), sys.gettrace()
    watched = lines.watch(space["f"])
    watched(1)
    sys.settrace(lambda *_: None)  # as a debugger does
    try:
        watched(1)
    finally:
        sys.settrace(before)
    assert lines.list_untaken() == []
    slow = ExecutedLines()
    slow.left = 0.0
    slow.watch(space["f"])(1)
    assert slow.list_untaken() == []


def test_data_that_are_the_same_number_everywhere_are_named() -> None:
    data = {"x": np.arange(3), "mask": np.ones((2, 2)), "hprev": np.zeros(3)}
    notes = describe_data(data, ExecutedLines())
    assert notes == (
        "Only the parameters vary: every case has the same data, x, mask, hprev.",
        "The same number everywhere, which may hide a mistake: mask (1), hprev (0).",
    )
    assert describe_data({}, ExecutedLines()) == ()


def test_the_branches_of_a_library_are_not_the_users() -> None:
    lines = ExecutedLines()

    def call() -> Any:
        return ml_dtypes.finfo(ml_dtypes.bfloat16).eps

    lines.watch(call)()
    assert lines.list_untaken() == []


def test_neither_are_those_of_any_other_installed_package(
    space: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executed_lines, "INSTALLED", ("user",))
    lines = ExecutedLines()
    lines.watch(space["f"])(1)
    assert lines.list_untaken() == []
    assert lines.steps[space["f"].__code__] is None
