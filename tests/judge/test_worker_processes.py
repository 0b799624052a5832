"""Worker processes start without the user's code, and end with the block or with their parent."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bptt_verifier.judge import processes
from bptt_verifier.judge.processes import (
    PATH,
    hide_user_code,
    hold_interrupts,
    prepare_worker,
    started_workers,
)


class Thread:
    """A thread that runs when it is started, here."""

    def __init__(self, target: Callable[[], None], daemon: bool) -> None:
        assert daemon  # Python waits at its end for the threads that are none
        self.target = target

    def start(self) -> None:
        self.target()


@pytest.mark.parametrize("has_parent", [True, False])
def test_a_worker_leaves_ctrl_c_to_its_parent_and_ends_after_it(
    has_parent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    parent = SimpleNamespace(join=lambda: seen.append("the parent has ended"))
    monkeypatch.setattr(processes, "parent_process", lambda: parent if has_parent else None)
    monkeypatch.setattr(processes, "Thread", Thread)
    monkeypatch.setattr(signal, "signal", lambda *given: seen.append(given))
    monkeypatch.setattr(os, "_exit", seen.append)
    prepare_worker(lambda *given: seen.append(given), "a", "b")
    ignored = (signal.SIGINT, signal.SIG_IGN)
    assert seen == [ignored, *(["the parent has ended"] if has_parent else []), 1, ("a", "b")]
    prepare_worker(None)
    assert seen[-1] == 1


def find_blocked() -> bool:
    """Tell whether this thread holds Ctrl-C back."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_is_held_back_inside_also_where_something_is_raised() -> None:
    before = find_blocked()
    with suppress(KeyError), hold_interrupts():
        assert find_blocked()
        raise KeyError
    assert find_blocked() is before is False


def test_nothing_is_held_back_where_signals_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask")
    with hold_interrupts():
        pass


def test_the_users_script_and_folders_are_hidden_also_where_something_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script, path = ModuleType("__main__"), [*sys.path, "/of/the/user"]
    monkeypatch.setitem(sys.modules, "__main__", script)
    monkeypatch.setattr(sys, "path", path[:])
    with suppress(KeyError), hide_user_code():
        assert sys.modules["__main__"] is not script
        assert sys.modules["__main__"].__name__ == "__main__"
        assert sys.path == [*PATH]
        raise KeyError
    assert sys.modules["__main__"] is script
    assert sys.path == path


class Pool:
    """A pool that notes what it is asked, and in which state of this process."""

    def __init__(self, number: int, context: Any, prepare: Any, arguments: Any) -> None:
        self.made = number, context.get_start_method(), prepare, arguments
        self.seen: list[Any] = []
        self._processes: Any = None

    def submit(self, function: Any) -> None:
        if self._processes is None:
            self._processes = {}
        self._processes[len(self._processes)] = self
        self.seen.append((function, find_blocked(), sys.path == [*PATH]))

    def shutdown(self, **options: bool) -> None:
        self._processes = None  # as a pool does that is shut down
        self.seen.append(options)

    def terminate(self) -> None:
        self.seen.append("terminated")


@pytest.mark.parametrize("number", [0, 1, 3])
def test_workers_are_started_without_the_users_code_and_ended_at_once(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(sys, "path", [*sys.path, "/of/the/user"])
    with suppress(KeyError), started_workers(number, print, 1, 2) as found:
        pool: Any = found
        assert pool.made == (number, "spawn", prepare_worker, (print, 1, 2))
        assert pool.seen == [(int, True, True)] * number
        assert not find_blocked()
        assert "/of/the/user" in sys.path
        raise KeyError
    ended = {"wait": False, "cancel_futures": True}
    assert pool.seen[number:] == [ended, *["terminated"] * number]
