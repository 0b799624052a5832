"""Whoever waits for a thread that has ended of the judge's arguments is interrupted."""

import queue
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify_own_model
from bptt_verifier.program import idle_calls, recording
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.idle_calls import has_threads, interrupt_idle

needs_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs alarms of POSIX")
W = {"w": np.array([0.3, -0.2, 0.5])}
X = np.linspace(-1, 1, 12).reshape(4, 3)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_calls, "TICK", 0.05)
    monkeypatch.setattr(idle_calls, "BUSY", 0.0025)


def loss(p: Any) -> Any:
    return np.sum(np.tanh(X @ p["w"]) ** 2)


def differentiate(w: Any) -> Any:
    h = np.tanh(X @ w)
    return X.T @ (2 * h * (1 - h * h))


def by_thread(p: Any) -> dict[str, Any]:
    asked, answered = queue.Queue[Any](), queue.Queue[Any]()
    worker = threading.Thread(target=lambda: answered.put(differentiate(asked.get())), daemon=True)
    worker.start()
    asked.put(p["w"])
    return {"w": answered.get()}


class Server:
    """A thread that lives as long as the run, and answers one question after the other."""

    def __init__(self) -> None:
        self.asked, self.answered = queue.Queue[Any](), queue.Queue[Any]()
        self.thread = threading.Thread(target=self.answer, daemon=True)
        self.thread.start()

    def answer(self) -> None:
        while (w := self.asked.get()) is not None:
            self.answered.put(differentiate(w))

    def ask(self, p: Any) -> dict[str, Any]:
        self.asked.put(p["w"])
        return {"w": self.answered.get(timeout=5)}


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.asked.put(None)
    found.thread.join(5)


@needs_alarms
@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_gradients_that_wait_for_a_thread_are_judged(factor: float) -> None:
    def scaled(p: Any) -> dict[str, Any]:
        return {"w": factor * by_thread(p)["w"]}

    report = verify_own_model(scaled, loss, W, cases=4)
    assert report.verdict is (Verdict.AGREES if factor == 1 else Verdict.DISAGREES), str(report)
    assert report.cases == 4


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_threads_of_the_users_are_given_no_arguments_that_end_them(
    factor: float, server: Server
) -> None:
    def scaled(p: Any) -> dict[str, Any]:
        return {"w": factor * server.ask(p)["w"]}

    report = verify_own_model(scaled, loss, W, cases=4)
    assert report.verdict is (Verdict.AGREES if factor == 1 else Verdict.DISAGREES), str(report)
    assert server.thread.is_alive()
    said = "No call after an exception was tried, since your code runs threads."
    assert said in report.notes


@needs_alarms
def test_a_loss_that_waits_for_workers_has_differences_as_its_reference() -> None:
    def by_worker(p: Any) -> Any:
        answered = queue.Queue[Any]()
        threading.Thread(target=lambda: answered.put(float(loss(p))), daemon=True).start()
        return answered.get()

    report = verify_own_model(lambda p: {"w": differentiate(p["w"])}, by_worker, W, cases=4)
    assert report.verdict is Verdict.AGREES, str(report)
    assert "it waits, as for a thread" in " ".join(report.notes)


@needs_alarms
def test_what_works_is_not_interrupted() -> None:
    with interrupt_idle():
        end = time.monotonic() + 10 * idle_calls.TICK
        while time.monotonic() < end:
            pass


@needs_alarms
def test_what_waits_is_interrupted_after_a_few_ticks_and_nothing_is_left() -> None:
    before, printing = signal.getsignal(signal.SIGALRM), threading.excepthook
    start = time.monotonic()
    with pytest.raises(UntraceableError, match="it waits"), interrupt_idle():
        queue.Queue[Any]().get(timeout=60)
    assert idle_calls.IDLE * idle_calls.TICK <= time.monotonic() - start < 30
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert threading.excepthook is printing


@needs_alarms
def test_what_takes_longer_than_it_may_is_interrupted() -> None:
    def spin() -> None:
        while True:
            pass

    with pytest.raises(UntraceableError, match=r"more than 0\.2 s"), interrupt_idle(0.2):
        spin()


@needs_alarms
def test_an_alarm_of_the_users_is_left_alone() -> None:
    signal.setitimer(signal.ITIMER_REAL, 60.0)
    try:
        with interrupt_idle():
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
            time.sleep(2 * idle_calls.IDLE * idle_calls.TICK)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def test_other_threads_have_no_alarm() -> None:
    ended = list[str]()

    def wait() -> None:
        with interrupt_idle():
            time.sleep(2 * idle_calls.IDLE * idle_calls.TICK)
        ended.append("by itself")

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert ended == ["by itself"]


def test_a_thread_of_a_library_is_none_of_the_users(server: Server) -> None:
    assert has_threads()
    with pytest.raises(UntraceableError, match="threads"):
        recording.record(lambda p: p, W)
