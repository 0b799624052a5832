"""A cluster gives the report of one process, also where it loses workers."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import count
from typing import Any

import pytest

from bptt_verifier.judge import campaign, cluster
from bptt_verifier.judge.builtin import AUTODIFF, DERIVATIONS, Subjects, verify_builtin
from bptt_verifier.judge.campaign import Campaign, Ledger, run_campaign
from bptt_verifier.judge.cluster import ClusterFailed, compare_with, connected, execute_on
from bptt_verifier.proofs.extras import MissingExtra
from bptt_verifier.report.versions import find_versions
from tests.support.command_line import Command

CAMPAIGN = Campaign(seed=3, dtype="float64")
RNN = {"adjoint recursion": DERIVATIONS["adjoint recursion"]}
there = find_spec("distributed") is not None
needs_dask = pytest.mark.skipif(not there, reason="distributed, of Dask, is not installed")


@pytest.fixture
def one_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one derivation is compared, which compiles less."""
    monkeypatch.setattr(campaign, "choose_subjects", lambda _: Subjects(RNN, {}, {}, AUTODIFF))


class KilledWorker(Exception):  # noqa: N818 - as Dask names it
    """All workers that had a part have ended."""


class Future:
    """A part that a scheduler has taken: finished, or ended by an error."""

    def __init__(self, status: str, outcome: Any) -> None:
        self.status, self.outcome = status, outcome

    def result(self, timeout: float) -> Any:
        assert timeout == cluster.TIMEOUT
        return self.outcome

    def exception(self) -> Any:
        return self.outcome

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        call(self)


class Client:
    """A scheduler whose workers lose each part so many times, or fail otherwise."""

    def __init__(self, losses: int = 0, failure: Future | None = None, threads: int = 2) -> None:
        self.losses, self.failure, self.threads = losses, failure, threads
        self.lost = Counter[range]()
        self.most = 0

    def nthreads(self) -> dict[str, int]:
        return {"tcp://a": self.threads} if self.threads else {}

    def submit(self, compare: Callable[[range], Any], cases: range, *, pure: bool) -> Future:
        assert not pure
        if self.failure is not None:
            return self.failure
        if self.lost[cases] < self.losses:
            self.lost[cases] += 1
            return Future("error", KilledWorker())
        return Future("finished", compare(cases))


class Unfetched(Future):
    """A part whose result is there and does not come in time, so many times."""

    def __init__(self, times: int, outcome: Any = None, status: str = "finished") -> None:
        super().__init__("finished", outcome)
        self.times, self.after = times, status

    def result(self, timeout: float) -> Any:
        if not self.times:
            return super().result(timeout)
        self.times -= 1
        self.status = self.after
        raise TimeoutError


class Unreachable(Client):
    """A scheduler that ends: the second question for its workers, or a submission, fails."""

    def __init__(self, failure: Future | None = None, calls: int = 1) -> None:
        super().__init__(failure=failure)
        self.calls = calls

    def nthreads(self) -> dict[str, int]:
        self.calls -= 1
        if self.calls < 0:
            raise OSError("in <TCP>: Stream is closed")
        return super().nthreads()

    def submit(self, compare: Any, cases: range, *, pure: bool) -> Future:
        if self.failure is None:
            raise ClosedClientError("Client is closed.")
        return self.failure


class ClosedClientError(Exception):
    """The client has given the scheduler up, as Dask names it."""


def run(client: Client, examples: int = 5, ledger: Ledger | None = None) -> Any:
    """The report of a campaign on a cluster."""

    def execute(*arguments: Any) -> None:
        execute_on(client, *arguments)

    return run_campaign(examples, CAMPAIGN, execute, together=2, ledger=ledger)


@pytest.mark.parametrize("losses", [0, 1, cluster.TRIES])
def test_lost_parts_are_compared_again_and_the_report_is_that_of_one_process(
    losses: int, one_derivation: None
) -> None:
    known = verify_builtin(5, seed=3, derivations=RNN, cell_derivations={}, tangent_derivations={})
    assert run(Client(losses)).to_dict() == known.to_dict()


@pytest.mark.parametrize(
    ("client", "sentence"),
    [
        (Client(cluster.TRIES + 1), "--cluster: expected workers that stay, found none for the "),
        (Client(failure=Future("lost", None)), "--cluster: expected workers that stay, found none"),
        (
            Client(failure=Unfetched(99)),
            "--cluster: expected workers that stay, found none for the",
        ),
        (
            Unreachable(failure=Future("cancelled", None)),
            "--cluster: expected the scheduler to stay, found it gone",
        ),
        (Unreachable(calls=99), "--cluster: expected the scheduler to stay, found it gone"),
        (
            Client(failure=Future("error", ModuleNotFoundError("No module 'x'\nat all"))),
            "--cluster: expected workers that can run this package, found ModuleNotFoundError: No "
            "module 'x'",
        ),
        (Client(failure=Future("error", ClusterFailed("other versions"))), "other versions"),
    ],
)
def test_a_cluster_that_cannot_go_on_says_why_in_one_sentence(
    client: Client, sentence: str, one_derivation: None
) -> None:
    with pytest.raises(ClusterFailed) as ended:
        run(client)
    assert str(ended.value).startswith(sentence)
    assert "\n" not in str(ended.value)


@pytest.mark.parametrize("losses", [1, cluster.TRIES])
@pytest.mark.parametrize(
    "lose",
    [
        lambda outcome: Future("lost", None),
        lambda outcome: Future("pending", None),
        lambda outcome: Future("cancelled", None),
        lambda outcome: Unfetched(1, outcome),
        lambda outcome: Unfetched(1, outcome, "pending"),
        lambda outcome: Unfetched(1, KilledWorker(), "error"),
    ],
    ids=["lost", "pending", "cancelled", "late", "late and lost", "late and killed"],
)
def test_a_result_that_is_lost_before_it_is_fetched_is_computed_again(
    lose: Callable[[Any], Future], losses: int, one_derivation: None
) -> None:
    class Losing(Client):
        def submit(self, compare: Any, cases: range, *, pure: bool) -> Future:
            finished = super().submit(compare, cases, pure=pure)
            self.lost[cases] += 1
            return lose(finished.outcome) if self.lost[cases] <= losses else finished

    assert run(Losing()).to_dict() == run(Client()).to_dict()


def test_a_full_disk_is_not_taken_for_a_scheduler_that_ended(one_derivation: None) -> None:
    def keep(*_: object) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left") as ended:
        execute_on(Client(), CAMPAIGN, lambda: iter([range(1)]), keep)
    assert not isinstance(ended.value, ClusterFailed)


def test_results_that_no_worker_has_any_more_do_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = count()
    monkeypatch.setattr(cluster.time, "monotonic", lambda: 10.0 * next(clock))
    with pytest.raises(ClusterFailed, match=r"^--cluster: expected a worker within 60 s, found"):
        run(Client(failure=Unfetched(99), threads=0))


def test_a_cluster_without_workers_is_given_up_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(Client):
        def submit(self, *_: Any, **__: Any) -> Any:
            future = Future("pending", None)
            future.add_done_callback = lambda call: None  # type: ignore[method-assign]
            return future

    clock = count()
    monkeypatch.setattr(cluster.time, "monotonic", lambda: 10.0 * next(clock))
    monkeypatch.setattr(cluster, "POLL_INTERVAL", 0.001)
    with pytest.raises(ClusterFailed, match=r"^--cluster: expected a worker within 60 s, found"):
        run(Silent(threads=0))


def test_no_more_parts_are_submitted_than_workers_need(one_derivation: None) -> None:
    class Counting(Client):
        """A scheduler that finishes a part only when the next one is asked for."""

        def submit(self, compare: Any, cases: range, *, pure: bool) -> Future:
            given.append(cases)
            return super().submit(compare, cases, pure=pure)

    given: list[range] = []
    ledger = Ledger()

    def keep(cases: range, tally: Any) -> None:
        if not ledger.done:
            assert len(given) == cluster.WAITING
        ledger.keep(cases, tally)

    client = Counting(threads=1)
    execute_on(client, CAMPAIGN, lambda: ledger.remaining(8, 1), keep)
    assert ledger.done == (range(8),)


def test_a_worker_with_another_version_does_not_compare() -> None:
    versions = find_versions() | {"numpy": "1.0"}
    with pytest.raises(ClusterFailed, match=r"expected numpy 1\.0 on every worker, found "):
        compare_with(versions, CAMPAIGN, range(1))


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bptt_verifier.proofs.extras.find_spec", lambda name: None)
    with (
        pytest.raises(MissingExtra, match=r"pip install 'verified-bptt\[cluster\]'$"),
        connected("local", 1),
    ):
        pass


@needs_dask
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--cluster", "tcp://127.0.0.1:1"),
            "--cluster: expected a scheduler of Dask at tcp://127.0.0.1:1, found none: ",
        ),
        (
            ("--cluster", "no-such://place"),
            "--cluster: expected a scheduler of Dask at no-such://place, found none: ",
        ),
        (
            ("--cluster", "127.0.0.1:1", "--workers", 2),
            "--workers: expected --cluster local with it, found 127.0.0.1:1\n",
        ),
    ],
)
def test_a_cluster_that_is_not_there_is_refused_in_one_sentence(
    arguments: tuple[object, ...], sentence: str, bptt: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "TIMEOUT", 0.2)
    ended = bptt("verify", "--examples", 1, *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"bptt: {sentence}")


@needs_dask
@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_give_the_report_of_one_process() -> None:
    with ExitStack() as opened:
        execute = opened.enter_context(connected("local", 2))
        (client,) = execute.args  # type: ignore[attr-defined]
        killed: list[int] = []

        def kill_one(done: int) -> None:
            if not killed:
                workers = client.scheduler_info(n_workers=-1)["workers"]
                victim = sorted(workers)[0]
                killed.extend(client.run(os.getpid, workers=[victim]).values())
                os.kill(killed[0], signal.SIGKILL)

        report = run_campaign(60, CAMPAIGN, execute, together=5, progress=kill_one)
    assert killed
    assert json.dumps(report.to_dict()) == json.dumps(verify_builtin(60, seed=3).to_dict())
