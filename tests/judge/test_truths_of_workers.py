"""Which truths workers compute, and which this process does, by problems that are numbers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import shared_truths
from bptt_verifier.judge.processes import POOLS, WAITING
from bptt_verifier.judge.shared_truths import (
    copy_asked,
    find_here,
    find_in_worker,
    find_prepared,
    note_and_find,
    run_pool,
    select,
    share_truths,
    warm_up,
)
from bptt_verifier.reference.case import Truth
from jax_reference import blocks

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def make(number: int) -> Any:
    """A problem that is a number: in float64 and float32 by turns."""
    return SimpleNamespace(number=number, x=np.zeros(1, (DOUBLE, SINGLE)[number % 2]))


def draw(cases: range) -> Iterator[Any]:
    """Draw the problems of these numbers."""
    return map(make, cases)


def state(**values: Any) -> Truth:
    """A truth with these values; 10 times as much is allowed."""
    return Truth(values, {name: 10 * value for name, value in values.items()})


def find(problem: Any, dtype: Any, names: Any) -> Truth:
    """The truth of a problem: its number for each of U, W and V, allowed 10 times as much."""
    return state(U=problem.number, W=problem.number, V=problem.number)


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> int:
    """Truths that need no reference, and parts of two problems; the usual size of a part."""
    size = shared_truths.TOGETHER

    def prefetch_truths(problems: Iterable[Any]) -> Iterator[Any]:
        return ((problem, partial(find, problem)) for problem in problems)

    monkeypatch.setattr(shared_truths, "prefetch_truths", prefetch_truths)
    monkeypatch.setattr(shared_truths, "TOGETHER", 2)
    return size


def test_parts_fill_the_blocks_that_are_compiled(usual: int) -> None:
    assert usual % blocks.SIZE == 0


class Pool:
    """A pool that computes at once, notes which parts, is ready late and breaks at some parts."""

    def __init__(self, *breaks_at: int, late: int = 0) -> None:
        self.breaks_at, self.late = [*breaks_at], late
        self.log: list[Any] = []

    @contextmanager
    def start(self, number: int, *warmed: Any) -> Iterator["Pool"]:
        assert warmed[:2] == (warm_up, draw)
        assert len(self.log) < 99
        self.log.append((number, warmed[2]))
        yield self

    def submit(self, function: Any, *given: Any) -> Any:
        if function is int:
            answers = iter([False] * self.late)
            return SimpleNamespace(done=lambda: next(answers, True))
        cases = given[1]
        assert (function, given[0]) == (find_in_worker, draw)
        future: Future[Any] = Future()
        if cases.start in self.breaks_at:
            self.breaks_at.remove(cases.start)
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(function(*given))
        self.log.append(cases.start)
        return future


def start(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers be those of a pool."""
    monkeypatch.setattr(shared_truths, "started_workers", pool.start)


ASKED = {DOUBLE: {SINGLE: ("U",)}}


def run(pool: Pool, parts: int, workers: int = 1) -> Iterator[list[int]]:
    """Run a pool on parts of two problems; yield the numbers of each part."""
    remaining = deque(range(start, start + 2) for start in range(0, 2 * parts, 2))
    for number, found in enumerate(run_pool(draw, remaining, ASKED, workers)):
        assert len(remaining) == parts - number  # a part that is taken is removed
        yield [problem.number for problem, _ in found]
    assert not remaining


def test_workers_are_given_three_parts_each_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WAITING == 3
    pool = Pool()
    start(pool, monkeypatch)
    seen = run(pool, 5)
    assert next(seen) == [0, 1]
    assert pool.log == [(1, ASKED), 0, 2, 4]
    assert next(seen) == [2, 3]
    assert pool.log[4:] == [6]
    assert [*seen] == [[4, 5], [6, 7], [8, 9]]
    assert pool.log[5:] == [8]
    pool.log.clear()
    assert next(run(pool, 9, workers=2)) == [0, 1]
    assert len(pool.log) == 1 + 2 * WAITING


def test_this_process_computes_while_the_workers_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(late=2)
    start(pool, monkeypatch)
    assert [*run(pool, 4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert pool.log[1:] == [4, 6]


def test_the_truths_of_a_worker_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    start(Pool(), monkeypatch)
    ((problem, known), _) = next(run_pool(draw, deque([range(4, 6)]), ASKED, 1))
    assert known.func is find_prepared
    assert known.args == (problem, {SINGLE: state(U=4)})


def share(pool: Pool, number: int, monkeypatch: pytest.MonkeyPatch, workers: int = 2) -> list[int]:
    """Share the truths of so many problems; return their numbers."""
    start(pool, monkeypatch)
    shared = islice(share_truths(draw, number, workers), number + 1)
    return [problem.number for problem, _ in shared]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 9])
def test_all_problems_come_once_and_in_order(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    assert share(pool, number, monkeypatch) == [*range(number)]
    assert pool.log[1:] == [*range(2, number, 2)]  # the first part is computed here


@pytest.mark.parametrize(("number", "started"), [(3, 1), (5, 2), (7, 3), (60, 3)])
def test_no_more_workers_start_than_there_are_parts(
    number: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool()
    share(pool, number, monkeypatch, workers=3)
    assert pool.log[0][0] == started


def count_starts(pool: Pool) -> int:
    """Count how often workers were started."""
    return sum(isinstance(each, tuple) for each in pool.log)


def test_five_broken_pools_in_a_row_leave_the_rest_to_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    four = POOLS - 1
    for breaks_at, starts in (
        ([2] * four, POOLS),
        ([2] * POOLS, POOLS),
        ([2, 4] * four + [4] * four, four + 1 + four),  # the fifth pool finds 2, and breaks at 4
    ):
        pool = Pool(*breaks_at)
        assert share(pool, 7, monkeypatch) == [*range(7)]
        assert count_starts(pool) == starts


def test_where_no_process_can_start_this_one_computes_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def fail(number: int, *_: Any) -> Any:
        tried.append(number)
        assert len(tried) < 99
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr(shared_truths, "started_workers", fail)
    assert [problem.number for problem, _ in share_truths(draw, 5, 2)] == [*range(5)]
    assert tried == [2] * POOLS
    pool = Pool()
    monkeypatch.setattr(shared_truths, "current_process", lambda: SimpleNamespace(daemon=True))
    assert share(pool, 5, monkeypatch) == [*range(5)]
    assert not pool.log


def test_workers_are_told_what_was_asked_of_the_first_problems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Pool()
    start(pool, monkeypatch)
    found = share_truths(draw, 4, 1)
    _, known = next(found)
    assert known(np.float32, ["U"]).values["U"] == 0
    assert known("float32", ["V", "U"]).values["V"] == 0
    next(found)
    problem, known = next(found)
    assert problem.number == 2
    expected = {DOUBLE: {SINGLE: ("U", "V")}, SINGLE: {}}
    assert pool.log[0] == (1, expected)
    assert known.args == (problem, {SINGLE: state(U=2, V=2)})


def test_what_is_asked_here_is_noted_under_the_format_of_the_problem() -> None:
    asked: Any = {}
    for problem, known in find_here(draw, range(2), asked):
        assert known(np.float64, ["W"]).allowed["W"] == 10 * problem.number
    assert asked == {DOUBLE: {DOUBLE: ("W",)}, SINGLE: {DOUBLE: ("W",)}}
    note_and_find(asked[SINGLE], partial(find, make(1)), np.float32, ["U"])
    assert asked[SINGLE] == {DOUBLE: ("W",), SINGLE: ("U",)}


def test_a_copy_of_what_was_asked_does_not_grow() -> None:
    asked: Any = {DOUBLE: {SINGLE: ("U",)}}
    copied = copy_asked(asked)
    assert copied == asked
    asked[DOUBLE][DOUBLE] = ("V",)
    assert copied == {DOUBLE: {SINGLE: ("U",)}}


def test_a_worker_finds_no_more_than_what_was_asked() -> None:
    (first, second) = find_in_worker(draw, range(4, 6), ASKED)
    assert first[1] == {SINGLE: state(U=4)}
    assert (second[0].number, second[1]) == (5, {})  # nothing was asked of one in float32
    assert select(find(make(7), SINGLE, ()), ["V"]) == state(V=7)


def test_what_no_worker_has_prepared_is_computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_truths, "truth", lambda *asked: asked)
    problem, prepared = make(3), {SINGLE: state(U=1, V=2)}
    find: Callable[..., Any] = partial(find_prepared, problem, prepared)
    assert find(np.float32, ["V"]) is find("float32", {"U", "V"}) is prepared[SINGLE]
    assert find(np.float32, ["W", "V"]) == (problem, np.float32, ["W", "V"])
    assert find(np.float64, ["V"]) == (problem, np.float64, ["V"])


@pytest.mark.parametrize("derived", [True, False])
def test_a_worker_compiles_what_the_problems_need(
    derived: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def find_in_worker(*given: Any) -> Any:
        seen.append(given)
        return [(make(0), {}), (make(1), {})]

    monkeypatch.setattr(shared_truths, "find_in_worker", find_in_worker)
    monkeypatch.setattr(shared_truths, "has_derived_bound", lambda problem: derived)
    monkeypatch.setattr(shared_truths, "measure_truth", lambda *given: seen.append(given[1:]))
    warm_up(draw, ASKED)
    assert seen[0] == (draw, range(2), ASKED)
    assert seen[1:] == ([(DOUBLE, (), len(shared_truths.LOSSES))] if derived else [])
