"""Repeated indices: which lookups of equal rows are one lookup that repeats."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_lookups import list_lookup_mistakes, repeats_index
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace

REPEATED, DISTINCT = np.array([0, 2, 0]), np.array([0, 2, 1])


def step_sizes(p: Any, xp: Any) -> Any:
    """Read each row of `dt` in two places of the same step."""
    return sum(xp.sum(xp.exp(p["dt"][t]) * p["x"][t] + xp.sin(p["dt"][t])) for t in range(3))


def tokens(p: Any, xp: Any) -> Any:
    """Look up one row a step, of which one is the first and the last."""
    return sum(xp.sum(xp.sin(p["dt"][k]) * p["x"][t]) for t, k in enumerate(REPEATED))


def two_tables(p: Any, xp: Any) -> Any:
    """Read the rows in two places, in one of which an index repeats."""
    return tokens(p, xp) + xp.sum(xp.cos(p["dt"][0]))


def array(p: Any, xp: Any) -> Any:
    """Look up equal rows at once."""
    return xp.sum(xp.sin(p["dt"][REPEATED]) * p["x"])


def arrays(p: Any, xp: Any) -> Any:
    """Look up other rows at once, in two places."""
    return xp.sum(xp.sin(p["dt"][DISTINCT]) * xp.cos(p["dt"][DISTINCT]))


LOSSES = {step_sizes: False, tokens: True, two_tables: True, array: True, arrays: False}


@pytest.mark.parametrize(("loss", "repeated"), LOSSES.items())
def test_an_index_repeats_in_one_expression_and_not_in_two(
    loss: Callable[..., Any], repeated: bool
) -> None:
    with use_float64():
        known = structure(trace(loss, {"dt": np.ones((3, 2)), "x": np.ones((3, 2))}))
    said = [each for each in list_lookup_mistakes(known) if "last update" in each.alteration]
    assert any("`dt`" in each.alteration for each in said) == repeated


def list_repeats(loss: Callable[..., Any]) -> list[tuple[str, str]]:
    """The expressions at which lost updates are placed, and what is said of them."""
    with use_float64():
        known = structure(trace(loss, {"dt": np.ones((3, 2)), "x": np.ones((3, 2))}))
    every = [each for each in list_lookup_mistakes(known) if each.name == "repeated-index"]
    operations = known.program.operations
    return [(operations[m.equation].where[0].expression, m.alteration) for m in every]


def test_updates_of_each_lookup_are_lost_where_an_index_repeats_in_one() -> None:
    def loss(p: Any, xp: Any) -> Any:
        one = xp.sum(xp.sin(p["dt"][1]))
        return one + xp.sum(xp.cos(p["dt"][REPEATED]))

    found = [place for place, said in list_repeats(loss) if "`dt` that is looked up" in said]
    assert set(found) == {'p["dt"][REPEATED]', 'p["dt"][1]'}
    each = [place for place, said in list_repeats(loss) if "of each lookup" in said]
    assert set(each) == {'p["dt"][REPEATED]'}


def test_a_parameter_that_is_broadcast_is_not_looked_up() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return sum(xp.sum(xp.sin(p["dt"][0] + t * np.ones((4, 2)))) for t in range(3))

    def whole(p: Any, xp: Any) -> Any:
        return sum(xp.sum(xp.sin(p["dt"] + t * np.ones((4, 3, 2)))) for t in range(3))

    assert list_repeats(loss) != []
    assert list_repeats(whole) == []


@pytest.mark.parametrize(
    ("rows", "repeated"),
    [([0, 0, 1, 1, 2, 2], False), ([0, 1, 2, 0], True), ([1, 1], True), ([0, 1, 2], False)],
)
def test_where_lines_are_unknown_rows_that_are_all_read_equally_often_are_of_two_expressions(
    rows: list[int], repeated: bool
) -> None:
    lookups = [SimpleNamespace(moved=np.array([k]), where=(), position=()) for k in rows]
    known: Any = SimpleNamespace(program=SimpleNamespace(operations=lookups))
    assert repeats_index(known, range(len(rows))) == repeated
