"""The search for a name ends in time, with what it has, and says what it has tried."""

import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify, verify_own_model
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.mistakes import effort
from bptt_verifier.mistakes.effort import Effort, find_effort, limit_effort
from bptt_verifier.report import Report
from tests.support.diagnosis import diagnose_numbers


def loss(p: Any, xp: Any) -> Any:
    return xp.sum(xp.tanh(p["W"] @ p["x"] + p["b"]) ** 2)


PARAMS = {"W": np.full((2, 2), 0.5), "x": np.array([0.3, 0.4]), "b": np.array([0.1, 0.2])}


def wrong(p: Any) -> dict[str, Any]:
    return {name: np.sin(3 * value) + np.arange(len(value)) for name, value in p.items()}


def test_a_search_goes_on_until_its_processor_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = iter([0.0, 1.0, 2.0, 1.0]), []
    monkeypatch.setattr(effort.time, "thread_time", lambda: next(clock))
    search = Effort(2.0, lambda done, total: told.append((done, total)))
    search.list(8)
    assert search.goes_on()
    assert not search.ended
    assert not search.goes_on(3)
    assert search.ended
    assert not search.goes_on()  # nor does it start again
    assert told == [(0, 8), (3, 8), (3, 8)]


def test_a_busy_machine_leaves_a_search_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = iter([0.0, 5.0, 7.9, 8.0])
    monkeypatch.setattr(effort.time, "monotonic", lambda: next(passed))
    monkeypatch.setattr(effort.time, "thread_time", lambda: 1.0)
    search = Effort(2.0)
    assert search.goes_on()
    assert search.goes_on()
    assert not search.goes_on()  # a person waits


def test_the_time_of_a_search_is_not_that_of_sleep() -> None:
    with limit_effort(0.2) as search:
        time.sleep(0.3)
        assert search.goes_on()
        while time.thread_time() - search.start < 0.2:
            pass
        assert not search.goes_on()


def test_a_search_without_a_limit_goes_on() -> None:
    assert find_effort().goes_on()
    with limit_effort(0.0) as limited:
        assert find_effort() is limited
        assert not find_effort().goes_on()
    assert find_effort().goes_on()


def test_what_was_not_tried_is_not_said_to_be_no_explanation() -> None:
    with limit_effort(0.0):
        (mistake,) = diagnose_numbers(loss, PARAMS, wrong)
    assert mistake.name == "unknown"
    assert "no mistake among the 0 likeliest" in mistake.explanation
    assert "the search ended after its limit of 0 s" in mistake.explanation
    assert "no known mistake" not in mistake.explanation


def test_a_search_reports_its_progress() -> None:
    told: list[tuple[int, int]] = []
    with limit_effort(None, lambda done, total: told.append((done, total))):
        (mistake,) = diagnose_numbers(loss, PARAMS, wrong)
    assert "limit" not in mistake.explanation
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 100


def verify_own(**options: Any) -> Report:
    return verify_own_model(wrong, loss, PARAMS, cases=2, **options)


def verify_cell(**options: Any) -> Report:
    return verify(lambda p, x, y: [np.sin(3 * v) + 1 for v in p], examples=2, **options)


@pytest.mark.parametrize("run", [verify_own, pytest.param(verify_cell, marks=pytest.mark.slow)])
def test_a_timeout_ends_the_search_and_keeps_the_verdict(run: Callable[..., Report]) -> None:
    report = run(timeout=0)
    assert report.verdict == "disagrees"
    (mistake,) = report.mistakes
    assert mistake.name == "unknown"
    assert "no known mistake" not in mistake.explanation
    with pytest.raises(ValueError, match="timeout: expected seconds from 0, or None, found '5'"):
        run(timeout="5")


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_during_the_search_keeps_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(OwnSubject, "diagnose", interrupt)
    report = verify_own()
    assert report.verdict == "disagrees"
    assert any("was interrupted" in note for note in report.notes)
    assert "no known mistake" not in report.mistakes[0].explanation
    assert report.counterexample is not None
