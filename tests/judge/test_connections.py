"""Connections to a scheduler, and the questions to it, without Dask and without a comparison."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bptt_verifier.judge import cluster
from bptt_verifier.judge.campaign import Campaign
from bptt_verifier.judge.cluster import (
    LOCAL,
    TRIES,
    ClusterFailed,
    asking_scheduler,
    compare_with,
    connected,
    count_threads,
    execute_on,
    fetch,
    require_retry,
)
from bptt_verifier.judge.tally import Tally

CAMPAIGN = Campaign(seed=3, dtype="float64")


class Opened:
    """What is opened, with its arguments, and closed at the end of a block."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.given, self.named, self.log = given, named, list[str]()

    def __enter__(self) -> "Opened":
        self.log.append("open")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("closed")


@pytest.fixture
def dask(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Dask, whose clusters and clients are noted."""
    found = SimpleNamespace(Client=Opened, LocalCluster=Opened)
    modules = {"distributed": found}
    asked: list[Any] = []
    monkeypatch.setattr(cluster, "require", lambda *given: asked.append(given))
    monkeypatch.setattr(cluster, "import_module", modules.__getitem__)
    yield found
    assert asked[0] == ("distributed", "distributed, of Dask", "--cluster", "cluster")


def test_a_scheduler_is_asked_at_its_address_and_left_at_the_end(dask: Any) -> None:
    logger = logging.getLogger("distributed")
    logger.setLevel(logging.INFO)
    with connected("tcp://a:1", None) as execute:
        chosen: Any = execute
        (client,) = chosen.args
        assert chosen.func is execute_on
        assert client.given == ("tcp://a:1",)
        assert client.named == {"timeout": cluster.TIMEOUT, "set_as_default": False}
        assert client.log == ["open"]
        assert logger.level == logging.CRITICAL
    assert client.log == ["open", "closed"]
    assert logger.level == logging.INFO


@pytest.mark.parametrize(
    ("workers", "processors", "number"), [(3, 5, 3), (None, 5, 5), (None, None, 1)]
)
def test_a_cluster_here_has_a_worker_for_each_processor(
    workers: int | None, processors: int | None, number: int, dask: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(cluster.os, "cpu_count", lambda: processors)
    with connected(LOCAL, workers) as execute:
        chosen: Any = execute
        (here,) = chosen.args[0].given
        assert here.named == {
            "n_workers": number, "threads_per_worker": 1, "dashboard_address": None,
            "silence_logs": logging.CRITICAL,
        }  # fmt: skip
    assert here.log == ["open", "closed"]


def test_workers_are_for_a_cluster_here(dask: Any) -> None:
    said = r"^--workers: expected --cluster local with it, found tcp://a:1$"
    with pytest.raises(ValueError, match=said), connected("tcp://a:1", 2):
        pass


@pytest.mark.parametrize(
    ("error", "why"),
    [(OSError("no route\nat all"), "no route"), (OSError(), "OSError"), (ValueError("v"), "v")],
)
def test_a_scheduler_that_is_not_there_is_named_in_one_sentence(
    error: Exception, why: str, dask: Any
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    dask.Client = fail
    expected = "--cluster: expected a scheduler of Dask at tcp://a:1, found none: "
    with pytest.raises(ClusterFailed) as ended, connected("tcp://a:1", None):
        pass
    assert str(ended.value) == expected + why


class Scheduler:
    """A scheduler that counts questions, and ends each part in a way of its own."""

    def __init__(self, *threads: int, ends: Callable[[range], Any] | None = None) -> None:
        self.threads, self.asked, self.ends = list(threads), 0, ends
        self.given: list[range] = []

    def nthreads(self) -> dict[str, int]:
        self.asked += 1
        return {"a": self.threads.pop(0) if len(self.threads) > 1 else self.threads[0]}

    def submit(self, compare: Any, cases: range, *, pure: bool) -> Any:
        assert not pure
        self.given.append(cases)
        return Part("finished", cases) if self.ends is None else self.ends(cases)


class Part:
    """A part with its result, which is there at once."""

    def __init__(self, status: str, outcome: Any, *, never: bool = False) -> None:
        self.status, self.outcome, self.never = status, outcome, never

    def result(self, timeout: float) -> Any:
        assert timeout == cluster.TIMEOUT
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return Tally()

    def exception(self) -> Any:
        return self.outcome

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        if not self.never:
            call(self)


def run(
    scheduler: Any, parts: int, monkeypatch: pytest.MonkeyPatch, step: float = 1.0
) -> list[int]:
    """Execute parts with a clock that advances at each look; return which are kept, in order."""
    clock = iter([10.0 + step * k for k in range(60)])
    kept: list[int] = []
    monkeypatch.setattr(cluster, "find_versions", dict)
    monkeypatch.setattr(cluster, "POLL_INTERVAL", 2.0**-8)
    monkeypatch.setattr(cluster.time, "monotonic", lambda: next(clock))
    given: Iterator[range] = iter([range(k, k + 1) for k in range(parts)])
    execute_on(scheduler, CAMPAIGN, lambda: given, lambda cases, _: kept.append(cases.start))
    return kept


def test_workers_are_counted_again_after_more_than_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An interval is two steps of the clock, and so the third look is too early."""
    scheduler = Scheduler(1)
    assert run(scheduler, 6, monkeypatch, step=2.0**-9) == [*range(6)]
    assert scheduler.asked == 3  # at the first look, the fourth and the seventh


def test_four_parts_wait_for_each_thread_and_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    class Counting(Scheduler):
        def nthreads(self) -> dict[str, int]:
            lengths.append(len(self.given))
            return super().nthreads()

    for threads, most in ((0, 4), (1, 4), (2, 8)):
        lengths.clear()
        assert len(run(Counting(threads), 12, monkeypatch)) == 12
        assert lengths[:3] == [0, most, most + 1]


def test_a_cluster_without_workers_is_given_up_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "--cluster: expected a worker within 60 s, found none"
    for threads, step, looks in (((0,), 20.0, 4), ((1, 0), 20.0, 5), ((0, 1, 0), 20.0, 6)):
        scheduler = Scheduler(*threads, ends=lambda _: Part("pending", None, never=True))
        with pytest.raises(ClusterFailed) as ended:
            run(scheduler, 9, monkeypatch, step)
        assert str(ended.value) == said
        assert len(scheduler.given) == 4
        assert scheduler.asked == looks


class KilledWorker(Exception):  # noqa: N818 - as Dask names it
    """All workers that had a part have ended."""


@pytest.mark.parametrize("threads", [0, 1])
def test_a_result_that_does_not_come_is_fetched_again_or_computed_again(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Part("finished", TimeoutError())

    class Late(Scheduler):
        def submit(self, compare: Any, cases: range, *, pure: bool) -> Any:
            super().submit(compare, cases, pure=pure)
            late.status = "finished"
            return late

    scheduler: Scheduler = Late(threads)
    with pytest.raises(ClusterFailed) as ended:
        run(scheduler, 1, monkeypatch, step=2.0)
    assert scheduler.given == [range(1)]  # the result is there, and is never computed again
    assert ("lost each time" in str(ended.value)) is (threads == 1)
    scheduler = Scheduler(threads, ends=lambda _: Part("lost", None))
    with pytest.raises((ClusterFailed, StopIteration)):
        run(scheduler, 1, monkeypatch)
    assert (len(scheduler.given) == TRIES + 1) is (threads == 1)
    scheduler = Scheduler(threads, ends=lambda _: Part("error", KilledWorker()))
    with pytest.raises(ClusterFailed, match=r"each that had them ended$"):
        run(scheduler, 1, monkeypatch)
    assert len(scheduler.given) == TRIES + 1


def test_what_ended_a_part_is_fetched() -> None:
    error = KilledWorker()
    assert isinstance(fetch(Part("finished", None)), Tally)
    assert fetch(Part("error", error)) is error
    assert fetch(Part("finished", error)) is None
    assert fetch(Part("pending", error)) is None
    assert count_threads(SimpleNamespace(nthreads=lambda: {"a": 2, "b": 3})) == 5


class ClosedClientError(Exception):
    """The client has given the scheduler up, as Dask names it."""


def test_only_errors_of_the_connection_tell_that_the_scheduler_is_gone() -> None:
    said = "^--cluster: expected the scheduler to stay, found it gone$"
    for error in (OSError("closed"), ClosedClientError()):
        with pytest.raises(ClusterFailed, match=said), asking_scheduler():
            raise error
    with pytest.raises(KeyError), asking_scheduler():
        raise KeyError


def test_a_part_is_tried_again_so_many_times() -> None:
    for error, why in ((None, "its result was lost each time"), (KilledWorker(), "ended")):
        lost = Counter[range]()
        for number in range(1, TRIES + 1):
            require_retry(error, range(4, 9), lost)
            assert lost == {range(4, 9): number}
        require_retry(error, range(9, 11), lost)
        with pytest.raises(ClusterFailed, match=f"random problems 4 to 8: .*{why}$"):
            require_retry(error, range(4, 9), lost)
    other, lost = ClusterFailed("other versions"), Counter[range]()
    with pytest.raises(ClusterFailed) as ended:
        require_retry(other, range(1), lost)
    assert ended.value is other
    with pytest.raises(ClusterFailed, match=r"found MemoryError: no$"):
        require_retry(MemoryError("no\nmore"), range(1), lost)
    assert not lost


def test_workers_of_these_versions_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_versions", lambda: {"numpy": "2", "jax": "1"})
    monkeypatch.setattr(cluster, "compare_cases", lambda *given: given)
    found: Any = compare_with({"jax": "1"}, CAMPAIGN, range(2))
    assert found == (CAMPAIGN, range(2))
    said = "^--cluster: expected numpy 1 on every worker, found 2$"
    with pytest.raises(ClusterFailed, match=said):
        compare_with({"jax": "1", "numpy": "1"}, CAMPAIGN, range(2))
