"""Parts are given to workers in order, a few at a time, and kept as they come."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import pytest

from bptt_verifier.judge import workers
from bptt_verifier.judge.campaign import Campaign, compare_cases, execute_here
from bptt_verifier.judge.processes import POOLS, WAITING
from bptt_verifier.judge.workers import choose_execution, execute_in_processes, run_pool

CAMPAIGN = Campaign(seed=3, dtype="float64")


class Pool:
    """A pool whose parts end when they are waited for: the last one first, or all at once."""

    def __init__(self, breaks_at: tuple[int, ...] = (), *, together: bool = False) -> None:
        self.breaks_at, self.together = breaks_at, together
        self.log: list[Any] = []

    @contextmanager
    def start(self, number: int) -> Iterator["Pool"]:
        self.log.append(f"{number} workers")
        yield self

    def submit(self, function: Any, campaign: Campaign, cases: range) -> Future[int]:
        assert (function, campaign) == (compare_cases, CAMPAIGN)
        self.log.append(f"give {cases.start}")
        future: Future[int] = Future()
        if cases.start in self.breaks_at:
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(cases.start)
        return future

    def wait(self, waiting: Any, return_when: str) -> tuple[set[Any], set[Any]]:
        assert return_when == "FIRST_COMPLETED"
        assert len(self.log) < 99
        self.log.append("wait")
        return (set(waiting) if self.together else {[*waiting][-1]}), set()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run a pool on so many parts; return what happens, in order."""

    def run(pool: Pool, parts: int, number: int = 1) -> list[str]:
        monkeypatch.setattr(workers, "started_workers", pool.start)
        monkeypatch.setattr(workers, "wait", pool.wait)

        def keep(cases: range, found: Any) -> None:
            assert found == cases.start
            pool.log.append(f"keep {cases.start}")

        given = iter([range(n, n + 1) for n in range(parts)])
        try:
            run_pool(given, CAMPAIGN, number, keep)
        except BrokenProcessPool:
            pool.log.append("broken")
        return [
            *(each for each in pool.log if each != "wait"),
            *(f"left {each.start}" for each in given),
        ]

    return run


def test_three_parts_a_worker_wait_and_each_that_comes_is_followed_by_the_next(
    run: Callable[..., list[str]],
) -> None:
    assert WAITING == 3
    seen = run(Pool(), 5)
    assert seen[:4] == ["1 workers", "give 0", "give 1", "give 2"]
    assert seen[4:] == ["keep 2", "give 3", "keep 3", "give 4", "keep 4", "keep 1", "keep 0"]


def test_parts_that_come_together_are_kept_in_their_order(
    run: Callable[..., list[str]],
) -> None:
    seen = run(Pool(together=True), 3)
    assert seen == ["1 workers", "give 0", "give 1", "give 2", "keep 0", "keep 1", "keep 2"]


@pytest.mark.parametrize(("parts", "number"), [(1, 1), (2, 2), (5, 5), (9, 5)])
def test_no_more_workers_start_than_there_are_parts(
    parts: int, number: int, run: Callable[..., list[str]]
) -> None:
    assert run(Pool(), parts, 5)[0] == f"{number} workers"


def test_without_parts_no_worker_starts(run: Callable[..., list[str]]) -> None:
    assert run(Pool(), 0) == []


@pytest.mark.parametrize("together", [True, False])
def test_a_broken_pool_is_given_no_further_parts_and_what_has_come_is_kept(
    together: bool, run: Callable[..., list[str]]
) -> None:
    seen = run(Pool((2,), together=together), 6)
    assert seen[:4] == ["1 workers", "give 0", "give 1", "give 2"]
    if together:  # those before it are followed by others, which the pool has taken
        assert seen[4:8] == ["keep 0", "give 3", "keep 1", "give 4"]
        assert seen[8:] == ["keep 3", "keep 4", "broken", "left 5"]
    else:
        assert seen[4:] == ["keep 1", "keep 0", "broken", "left 3", "left 4", "left 5"]


def execute(pools: list[bool | None]) -> tuple[list[Any], list[str]]:
    """Execute with pools that end well (None), or break, having kept a part or not.

    Returns the parts that are kept, and the notes.
    """
    kept: list[Any] = []
    notes: list[str] = []
    left = iter(pools)

    def run_pool(parts: Any, campaign: Any, number: int, keep: Any) -> None:
        assert (campaign, number, parts) == (CAMPAIGN, 7, "the remaining parts")
        keeps = next(left)
        if keeps is None:
            return
        if keeps:
            keep("part", "tally")
        raise BrokenProcessPool

    def execute_here(campaign: Any, remaining: Any, keep: Any) -> None:
        assert (campaign, remaining()) == (CAMPAIGN, "the remaining parts")
        keep("the rest", "tally")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run_pool", run_pool)
        patch.setattr(workers, "execute_here", execute_here)
        remaining: Any = lambda: "the remaining parts"  # noqa: E731
        execute_in_processes(7, notes.append, CAMPAIGN, remaining, lambda *part: kept.append(part))
    assert next(left, "no more") == "no more"
    return kept, notes


def test_a_pool_that_breaks_is_followed_by_another() -> None:
    part = ("part", "tally")
    assert execute([None]) == ([], [])
    assert execute([False] * (POOLS - 1) + [None]) == ([], [])
    assert execute([False, True] * POOLS + [None]) == ([part] * POOLS, [])


def test_after_five_pools_in_a_row_without_a_part_the_rest_is_compared_here() -> None:
    kept, (note,) = execute([True] + [False] * (POOLS - 1))
    assert kept == [("part", "tally"), ("the rest", "tally")]
    assert note.startswith(f"--workers: expected processes that stay, found {POOLS} times in a row")
    assert execute([False] * POOLS)[0] == [("the rest", "tally")]


def test_one_process_compares_by_itself() -> None:
    assert choose_execution(1) is execute_here
    chosen: Any = choose_execution(2, print)
    assert (chosen.func, chosen.args) == (execute_in_processes, (2, print))
    with pytest.raises(ValueError, match=r"^workers: expected at least 1, found 0$"):
        choose_execution(0)
