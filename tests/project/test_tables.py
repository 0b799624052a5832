"""`make test` runs every n-th case of a long table, and `make test-tables` the others."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.modules import ROOT
from tests.support.profiles import LONG, SELDOM, divide_tables


def state_case(name: str, every: int | None, number: int) -> Any:
    """A case of a test, in a table of which every n-th case is run."""
    mark = None if every is None else pytest.mark.table(every).mark
    return SimpleNamespace(
        path=Path("test_it.py"), originalname=name, number=number,
        get_closest_marker=lambda each: mark if each == "table" else None,
    )  # fmt: skip


def test_every_nth_case_of_each_table_is_left_to_the_ordinary_run() -> None:
    cases = [state_case("first", 3, i) for i in range(7)]
    cases += [state_case("second", 5, i) for i in range(6)]
    cases += [state_case("no_table", None, i) for i in range(3)]
    rest, _ = divide_tables(cases)
    run = [(case.originalname, case.number) for case in cases if case not in rest]
    assert run == [
        ("first", 0), ("first", 3), ("first", 6), ("second", 0), ("second", 5),
        ("no_table", 0), ("no_table", 1), ("no_table", 2),
    ]  # fmt: skip


def test_of_a_long_table_without_a_mark_every_fifth_case_is_run() -> None:
    for length, left in ((LONG - 1, 0), (40, 32)):
        rest, seldom = divide_tables([state_case("long", None, i) for i in range(length)])
        assert len(rest) == left
        assert len(seldom) == left - -(-left // SELDOM)


def test_most_cases_that_are_left_are_run_by_test_deep_alone() -> None:
    for every in (2, 3, 4, 18):
        cases = [state_case("first", every, i) for i in range(100)]
        rest, seldom = divide_tables(cases)
        assert all(case in rest for case in seldom)
        assert len(rest) - len(seldom) == -(-len(rest) // SELDOM)
        assert not set(range(0, 100, every)) & {case.number for case in seldom}


def test_a_case_of_every_short_table_is_left_to_test_tables() -> None:
    for every in (2, 3, 4, 18):
        rest, seldom = divide_tables([state_case("short", every, i) for i in range(every)])
        assert [case.number for case in rest if case not in seldom] == [1]


def test_together_the_two_commands_run_all_but_the_slow_tests() -> None:
    chosen = re.findall(r'-m "([^"]+)" --hypothesis-profile=ci', (ROOT / "Makefile").read_text())
    assert chosen == ["not slow and not rest", "rest and not slow"]
    assert "expect 0 make test-tables" in (ROOT / ".ci/run").read_text()
