"""Ctrl-C while a mistake's name is sought ends the search in the child, and keeps the verdict."""

import json
import signal
import subprocess
import threading
from typing import IO, Any

import pytest

from bptt_verifier.commands import child_process
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict


class Lines:
    """Lines of a child, with a Ctrl-C in the parent where None stands."""

    def __init__(self, *messages: dict[str, Any] | None) -> None:
        self.left = [*messages]

    def get(self, timeout: float) -> bytes:
        if not self.left:
            return b""  # the child has ended
        message = self.left.pop(0)
        if message is None:
            raise KeyboardInterrupt
        return json.dumps(message).encode()


def judge(
    monkeypatch: pytest.MonkeyPatch, *messages: dict[str, Any] | None
) -> tuple[Any, list[int]]:
    """Judge by a child that sends these messages; return the outcome and the signals it gets."""
    sent: list[int] = []

    def read_lines(source: IO[bytes]) -> tuple[Lines, threading.Thread]:
        done = threading.Thread(target=source.close)
        done.start()
        return Lines(*messages), done

    monkeypatch.setattr(child_process, "read_lines", read_lines)
    monkeypatch.setattr(child_process.os, "kill", lambda child, number: sent.append(number))
    monkeypatch.setattr(
        child_process,
        "start_child",
        lambda request: subprocess.Popen(
            ["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        ),
    )  # fmt: skip
    return child_process.judge_file({"file": "own.py"}, 20, lambda done, total: None), sent


def advance(*, searching: bool) -> dict[str, Any]:
    return {"progress": [1, 2], "searching": searching}


def test_ctrl_c_during_the_search_ends_it_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    report = child_process.render(Report("own.py", Verdict.DISAGREES), {})
    end = {"outcome": [*report]}
    outcome, sent = judge(monkeypatch, advance(searching=True), None, end)
    assert outcome.verdict == "disagrees"
    assert sent == [signal.SIGINT]


@pytest.mark.parametrize(
    "messages",
    [
        [advance(searching=False), None],
        [advance(searching=True), None, None],
        [advance(searching=True), advance(searching=False), None],
    ],
    ids=["before the search", "a second time", "after the search"],
)
def test_another_ctrl_c_ends_the_command(monkeypatch: pytest.MonkeyPatch, messages: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        judge(monkeypatch, *messages)
