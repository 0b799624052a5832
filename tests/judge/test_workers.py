"""Several processes give the report of one, and a worker that is killed takes nothing with it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge import workers
from bptt_verifier.judge.builtin import (
    AUTODIFF,
    DERIVATIONS,
    CaseFindings,
    Subjects,
    verify_builtin,
)
from bptt_verifier.judge.workers import Campaign, compare_cases, verify_with_workers
from tests.support.command_line import Command

CAMPAIGN = Campaign(seed=3, dtype="float64")


RNN = {"adjoint recursion": DERIVATIONS["adjoint recursion"]}


@pytest.fixture
def one_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one derivation is compared, which compiles less."""
    monkeypatch.setattr(workers, "choose_subjects", lambda _: Subjects(RNN, {}, {}, AUTODIFF))


def alone(examples: int) -> dict[str, Any]:
    """The report of one process on that derivation."""
    subjects: dict[str, Any] = {"cell_derivations": {}, "tangent_derivations": {}}
    return verify_builtin(examples, seed=3, derivations=RNN, **subjects).to_dict()


def in_this_process(
    parts: dict[int, range],
    campaign: Campaign,
    number: int,
    keep: Callable[[int, list[CaseFindings]], None],
) -> None:
    """A pool whose last part comes first."""
    for start in reversed(parts):
        keep(start, compare_cases(campaign, parts[start]))


def test_the_report_does_not_depend_on_who_compares_or_in_which_order(
    monkeypatch: pytest.MonkeyPatch, one_derivation: None
) -> None:
    done: list[int] = []
    monkeypatch.setattr(workers, "run_pool", in_this_process)
    shared = verify_with_workers(7, CAMPAIGN, 2, done.append, together=3)
    assert shared.to_dict() == alone(7)
    assert done == [1, 4, 7]


@pytest.mark.parametrize("pools", [1, 3, 99])
def test_what_a_killed_worker_had_is_compared_again(
    pools: int, monkeypatch: pytest.MonkeyPatch, one_derivation: None
) -> None:
    asked: list[list[int]] = []

    def breaking(parts: dict[int, range], *others: Any) -> None:
        asked.append(list(parts))
        if len(asked) > pools:
            in_this_process(parts, *others)
            return
        start, cases = next(iter(parts.items()))
        others[-1](start, compare_cases(CAMPAIGN, cases))
        raise BrokenProcessPool

    monkeypatch.setattr(workers, "run_pool", breaking)
    monkeypatch.setattr(workers, "POOLS", 3)
    found = verify_with_workers(5, CAMPAIGN, 2, together=1)
    assert found.to_dict() == alone(5)
    assert asked[:2] == [[0, 1, 2, 3, 4], [1, 2, 3, 4]]
    assert len(asked) <= 3


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
        verify_with_workers(examples, CAMPAIGN, number)


def test_workers_are_for_the_built_in_derivations(bptt: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.touch()
    ended = bptt("verify", file, "--workers", 2)
    assert ended.code == 2
    assert "--workers: expected it without a FILE to judge" in ended.err


START = [sys.executable, "-c", "from bptt_verifier.commands.main import main; main()"]


def children(pid: int) -> list[int]:
    """The processes that a process has started and that do its work: not the resource tracker."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == pid and "spawn_main" in command:
            found.append(int(status.parent.name))
    return found


def wait_for_children(process: subprocess.Popen[str], number: int) -> list[int]:
    """Wait until a process has so many workers."""
    for _ in range(1200):
        found = children(process.pid)
        if len(found) == number:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{process.pid} has {children(process.pid)}")


def started(file: Path) -> subprocess.Popen[str]:
    arguments = ["verify", "--examples", "400", "--workers", "2", "--json", str(file)]
    return subprocess.Popen(
        [*START, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")


@pytest.mark.slow
@needs_proc
def test_a_worker_that_is_killed_changes_nothing_in_the_report(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    process = started(file)
    victim, _ = wait_for_children(process, 2)
    time.sleep(1)
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    report = json.loads(file.read_text(encoding="utf-8"))
    known = verify_builtin(400).to_dict()
    assert {name: report[name] for name in known} == json.loads(json.dumps(known))


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(ending: signal.Signals, tmp_path: Path) -> None:
    process = started(tmp_path / "report.json")
    pids = wait_for_children(process, 2)
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
