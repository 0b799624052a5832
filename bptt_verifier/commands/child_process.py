"""A child process that judges a file, which may hang, crash, exit or print as it likes.

The child writes one line of JSON for every event to a channel that the submission does not see; its
standard output and error are discarded. The parent waits, and ends the child when a single call of
the submission exceeds its time limit. Judging a file runs the code in it.
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
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from bptt_verifier.console.terminal import discard_output
from bptt_verifier.report import Mistake, Report
from bptt_verifier.tolerance.comparison import Verdict

START_UP = 120  # seconds for the child's imports, before any code of the submission runs


class Outcome(NamedTuple):
    """The verdict, and the report as text, as plain values and as a page."""

    verdict: Verdict
    text: str
    plain: dict[str, Any]
    html: str


def render(report: Report) -> Outcome:
    """The report in all its forms."""
    return Outcome(report.verdict, str(report), report.to_dict(), report.to_html())


def judge_file(
    request: dict[str, Any], timeout: float, progress: Callable[[int, int], None]
) -> Outcome:
    """Judge the file of a request: "file", "function", "own", and the options of `verify`.

    `timeout` is the limit for each single call of the submission, in seconds.
    Raises ValueError, with one sentence, where the file cannot be used at all.
    """
    command = [sys.executable, "-m", "bptt_verifier.commands.child_process", json.dumps(request)]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    )
    source = child.stdout
    assert source is not None
    lines: queue.Queue[bytes] = queue.Queue()

    def forward() -> None:
        for line in chain(source, [b""]):  # an empty line at the end
            lines.put(line)

    reader = threading.Thread(target=forward, daemon=True)
    reader.start()

    def fail(name: str, explanation: str, **details: Any) -> Outcome:
        mistake = Mistake(name, explanation, details)
        return render(Report(Path(request["file"]).name, Verdict.DISAGREES, (mistake,)))

    running: str | None = "the start"
    since, limit = time.monotonic(), float(START_UP)
    try:
        while True:
            try:
                line = lines.get(timeout=max(0.0, since + limit - time.monotonic()))
            except queue.Empty:
                what = f"{running} did not end within {limit:g} s."
                return fail("timed-out", what, seconds=limit)
            if not line:
                code = child.wait()
                what = f"your code ended the process, with exit code {code}."
                return fail("exited", what, code=code)
            message, since = json.loads(line), time.monotonic()
            if "refused" in message:
                raise ValueError(message["refused"])
            if "outcome" in message:
                verdict, text, plain, html = message["outcome"]
                return Outcome(Verdict(verdict), text, plain, html)
            if "progress" in message:
                progress(*message["progress"])
            else:
                running = message["running"]
                limit = min(timeout if running else float("inf"), threading.TIMEOUT_MAX / 2)
    finally:
        child.kill()
        child.wait()
        reader.join()
        source.close()


def main(request: dict[str, Any]) -> None:
    """Judge the file of the request in the child, and report every event to the parent."""
    channel = os.fdopen(os.dup(1), "wb", buffering=0)  # a copy of stdout, to the parent
    discard_output(1, 2)

    def send(**message: Any) -> None:
        channel.write(json.dumps(message).encode() + b"\n")

    def announce(function: Callable[..., Any], what: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            send(running=what)
            try:
                return function(*arguments, **named)
            finally:
                send(running=None)

        return call

    # The parent needs none of these.
    from bptt_verifier.judge.submission import find_function, load  # noqa: PLC0415
    from bptt_verifier.judge.verify import verify, verify_own_model  # noqa: PLC0415

    file = Path(request["file"])
    sys.path.insert(0, str(file.resolve().parent))
    options = request["options"] | {"subject": file.name}
    options["progress"] = lambda done, total: send(progress=[done, total])
    try:
        module = announce(load, f"running {file.name}")(file)
        function = find_function(module, request["function"], file)
        gradients = announce(function, f"a call of {request['function']}")
        if request["own"]:
            loss = announce(find_function(module, "loss", file), "a call of loss")
            report = verify_own_model(gradients, loss, module.params, **options)
        else:
            report = verify(gradients, **options)
    except (ValueError, TypeError, AttributeError) as error:
        send(refused=str(error))
    else:
        send(outcome=render(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
