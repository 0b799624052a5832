"""Several processes give the report of one, and a worker that is killed takes nothing with it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge import campaign, workers
from bptt_verifier.judge.builtin import (
    AUTODIFF,
    DERIVATIONS,
    Subjects,
    verify_builtin,
)
from bptt_verifier.judge.campaign import Campaign, Keep, Ledger, compare_cases, run_campaign
from bptt_verifier.judge.processes import started_workers
from bptt_verifier.judge.tally import Tally
from bptt_verifier.judge.workers import choose_execution
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.processes import needs_proc, wait_for_children

CAMPAIGN = Campaign(seed=3, dtype="float64")


RNN = {"adjoint recursion": DERIVATIONS["adjoint recursion"]}


@pytest.fixture
def one_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one derivation is compared, which compiles less."""
    monkeypatch.setattr(campaign, "choose_subjects", lambda _: Subjects(RNN, {}, {}, AUTODIFF))


def alone(examples: int) -> dict[str, Any]:
    """The report of one process on that derivation."""
    subjects: dict[str, Any] = {"cell_derivations": {}, "tangent_derivations": {}}
    return verify_builtin(examples, seed=3, derivations=RNN, **subjects).to_dict()


def in_this_process(parts: Iterator[range], campaign: Campaign, number: int, keep: Keep) -> None:
    """A pool whose last part comes first."""
    for cases in reversed(list(parts)):
        keep(cases, compare_cases(campaign, cases))


def test_the_report_does_not_depend_on_who_compares_or_in_which_order(
    monkeypatch: pytest.MonkeyPatch, one_derivation: None
) -> None:
    done: list[int] = []
    monkeypatch.setattr(workers, "run_pool", in_this_process)
    shared = run_campaign(7, CAMPAIGN, choose_execution(2), together=3, progress=done.append)
    assert shared.to_dict() == alone(7)
    assert done == [1, 4, 7]


def test_no_one_waits_for_workers_that_are_not_ready_when_all_is_done() -> None:
    started = time.monotonic()
    with started_workers(1, time.sleep, 600):
        pass
    assert time.monotonic() - started < 300


@pytest.mark.parametrize(("pools", "kept"), [(1, 1), (2, 0), (4, 1), (99, 0)])
def test_what_a_killed_worker_had_is_compared_again(
    pools: int,
    kept: int,
    monkeypatch: pytest.MonkeyPatch,
    one_derivation: None,
) -> None:
    """Pools that keep a part before they break count as none; three others in a row are enough."""
    asked: list[list[int]] = []
    notes: list[str] = []

    def breaking(parts: Iterator[range], *others: Any) -> None:
        given = list(parts)
        asked.append([cases.start for cases in given])
        if len(asked) > pools:
            in_this_process(iter(given), *others)
            return
        for cases in given[:kept]:
            others[-1](cases, compare_cases(CAMPAIGN, cases))
        raise BrokenProcessPool

    monkeypatch.setattr(workers, "run_pool", breaking)
    monkeypatch.setattr(workers, "POOLS", 3)
    found = run_campaign(5, CAMPAIGN, choose_execution(2, notes.append), together=1)
    assert found.to_dict() == alone(5)
    assert asked[:2] == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4][kept:]]
    assert len(asked) == min(pools + 1, 3 if not kept else 6)
    assert [note.partition("; ")[2] for note in notes] == (
        ["this process compares the rest"] if pools == 99 else []
    )


class Pool:
    """A pool of processes that breaks, or is interrupted, when it is given a part."""

    def __init__(self, error: BaseException, part: int) -> None:
        self.error, self.part = error, part
        self.given: list[range] = []

    def submit(self, function: Callable[..., Tally], campaign: Campaign, cases: range) -> Any:
        self.given.append(cases)
        future: Future[Tally] = Future()
        if cases.start != self.part:
            future.set_result(function(campaign, cases))
        elif isinstance(self.error, KeyboardInterrupt):
            raise self.error
        else:
            future.set_exception(self.error)
        return future


def test_all_that_has_come_is_kept_where_the_pool_breaks(
    monkeypatch: pytest.MonkeyPatch, one_derivation: None
) -> None:
    pool = Pool(BrokenProcessPool(), part=2)
    monkeypatch.setattr(workers, "started_workers", lambda number: nullcontext(pool))
    kept: list[int] = []
    parts = iter([range(n, n + 1) for n in range(4)])
    with pytest.raises(BrokenProcessPool):
        workers.run_pool(parts, CAMPAIGN, 2, lambda cases, tally: kept.append(cases.start))
    assert sorted({*kept, 2}) == [case.start for case in pool.given]
    assert 2 not in kept


@pytest.mark.parametrize("number", [1, 2])
def test_ctrl_c_loses_no_part_that_is_done(
    number: int, monkeypatch: pytest.MonkeyPatch, one_derivation: None
) -> None:
    monkeypatch.setattr(
        workers, "started_workers", lambda _: nullcontext(Pool(KeyboardInterrupt(), part=7))
    )

    def progress(done: int) -> None:
        if done == 2 and number == 1:
            raise KeyboardInterrupt

    ledger, execute = Ledger(), choose_execution(number)
    with pytest.raises(KeyboardInterrupt):
        run_campaign(9, CAMPAIGN, execute, together=1, ledger=ledger, progress=progress)
    report = ledger.report(CAMPAIGN)
    assert (report.examples, len(report.shapes), report.verdict) == (2, 2, Verdict.AGREES)
    assert number > 1 or report.to_dict() == alone(2)
    whole = run_campaign(9, CAMPAIGN, choose_execution(1), together=4, ledger=ledger)
    assert whole.to_dict() == alone(9)


@pytest.mark.parametrize(
    ("examples", "number", "exception", "message"),
    [
        (0, 1, ValueError, "examples: expected at least 1, found 0"),
        (1, 0, ValueError, "workers: expected at least 1, found 0"),
        (1, 1.5, TypeError, "workers: expected an integer, found float"),
    ],
)
def test_numbers_that_are_none_are_refused(
    examples: int, number: Any, exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception, match=f"^{message}$"):
        run_campaign(examples, CAMPAIGN, choose_execution(number), together=1)


START = [sys.executable, "-c", "from bptt_verifier.commands.main import main; main()"]


def started(file: Path) -> subprocess.Popen[str]:
    arguments = ["verify", "--examples", "400", "--workers", "2", "--json", str(file)]
    return subprocess.Popen(
        [*START, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
@needs_proc
def test_a_worker_that_is_killed_changes_nothing_in_the_report(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    process = started(file)
    victim, _ = wait_for_children(process.pid, 2, "spawn_main")
    time.sleep(1)
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    report = json.loads(file.read_text(encoding="utf-8"))
    known = verify_builtin(400).to_dict()
    assert {name: report[name] for name in known} == json.loads(json.dumps(known))


@pytest.mark.slow
@needs_proc
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(ending: signal.Signals, tmp_path: Path) -> None:
    process = started(tmp_path / "report.json")
    pids = wait_for_children(process.pid, 2, "spawn_main")
    time.sleep(8)  # until they work
    process.send_signal(ending)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGKILL)
    assert "Traceback" not in err
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").is_dir() for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError("a worker is still there")
