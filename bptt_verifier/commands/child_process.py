"""Somebody's file judged in a process of its own, which may hang, crash, exit or print as it likes.

The child writes one line of JSON for everything that happens to a channel that their code does not
see; its standard output and error go nowhere. The parent waits, and ends the child when a single
call takes longer than the time it is given. Verifying a file runs the code in it.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import IO, Any, NamedTuple

from bptt_verifier.report.report import Mistake, Report
from bptt_verifier.tolerance.comparison import Verdict

START_UP = 120  # seconds for the child to import what it needs, before it runs any of their code


class Outcome(NamedTuple):
    """The verdict, and the report as text, as plain values and as a page."""

    verdict: Verdict
    text: str
    plain: dict[str, Any]
    html: str


def outcome(report: Report) -> Outcome:
    """The report in all its forms."""
    return Outcome(report.verdict, str(report), report.to_dict(), report.to_html())


def examine(
    request: dict[str, Any], timeout: float, progress: Callable[[int, int], None]
) -> Outcome:
    """The outcome for a request: "file", "function", "own", and the options of `verify`.

    Raises ValueError, with one sentence, where the file cannot be used at all. `timeout` is in
    seconds and for each single call of their code.
    """
    command = [sys.executable, "-m", "bptt_verifier.commands.child_process", json.dumps(request)]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    )
    lines: queue.Queue[bytes] = queue.Queue()
    assert child.stdout is not None
    reader = threading.Thread(target=forward_lines, args=(child.stdout, lines), daemon=True)
    reader.start()
    subject = Path(request["file"]).name
    running: str | None = None
    since, limit = time.monotonic(), float(START_UP)
    try:
        while True:
            try:
                line = lines.get(timeout=max(0.0, since + limit - time.monotonic()))
            except queue.Empty:
                what = running or "the start"
                found = Mistake(
                    "timed-out",
                    f"{what} did not end within {limit:g} s.",
                    {"seconds": limit},
                )
                return outcome(Report(subject, Verdict.DISAGREES, (found,)))
            if not line:
                code = child.wait()
                found = Mistake(
                    "exited",
                    f"your code ended the process, with exit code {code}.",
                    {"code": code},
                )
                return outcome(Report(subject, Verdict.DISAGREES, (found,)))
            message = json.loads(line)
            since = time.monotonic()
            if "refused" in message:
                raise ValueError(message["refused"])
            if "progress" in message:
                progress(*message["progress"])
            elif "outcome" in message:
                verdict, text, plain, html = message["outcome"]
                return Outcome(Verdict(verdict), text, plain, html)
            else:
                running = message["running"]
                limit = timeout if running else float("inf")
                limit = min(limit, threading.TIMEOUT_MAX / 2)
    finally:
        child.kill()
        child.wait()
        reader.join()
        child.stdout.close()


def forward_lines(source: IO[bytes], lines: "queue.Queue[bytes]") -> None:
    """Every line of the channel, and an empty one at its end."""
    for line in source:
        lines.put(line)
    lines.put(b"")


def private_channel() -> IO[bytes]:
    """What was standard output, now known to us alone; output and error go nowhere."""
    channel = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return channel


def main(request: dict[str, Any]) -> None:
    """The child: judge the file of the request and tell the parent."""
    channel = private_channel()

    def tell(**message: Any) -> None:
        channel.write(json.dumps(message).encode() + b"\n")

    def watched(function: Callable[..., Any], what: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            tell(running=what)
            try:
                return function(*arguments, **named)
            finally:
                tell(running=None)

        return call

    from bptt_verifier.judge.own_model import verify_own_model  # noqa: PLC0415
    from bptt_verifier.judge.submission import function_of, load  # noqa: PLC0415
    from bptt_verifier.judge.verify import verify  # noqa: PLC0415 - the parent needs none of this

    file = Path(request["file"])
    sys.path.insert(0, str(file.resolve().parent))
    options = request["options"] | {
        "subject": file.name,
        "progress": lambda done, total: tell(progress=[done, total]),
    }
    try:
        module = watched(load, f"running {file.name}")(file)
        function = function_of(module, request["function"], file)
        gradients = watched(function, f"a call of {request['function']}")
        if request["own"]:
            loss = watched(function_of(module, "loss", file), "a call of loss")
            report = verify_own_model(gradients, loss, module.params, **options)
        else:
            report = verify(gradients, **options)
    except (ValueError, TypeError, AttributeError) as error:
        tell(refused=str(error))
    else:
        tell(outcome=outcome(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
