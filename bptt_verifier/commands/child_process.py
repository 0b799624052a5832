"""A child process that judges a file, which may hang, crash, exit or print as it likes.

The child writes one line of JSON for every event to a channel that the submission does not see.
What the submission prints goes to a pipe, of which the parent keeps the beginning. The parent
waits, and ends the child when a single call of the submission exceeds its time limit. Judging a
file runs the code in it.
"""

import gc
import json
import os
import queue
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import IO, Any, NamedTuple

from bptt_verifier.commands.collection import pausing_collection
from bptt_verifier.commands.ending import end_with, register
from bptt_verifier.commands.waiting_child import take
from bptt_verifier.console.terminal import discard_output
from bptt_verifier.program.attempt import CodeRaisedError, find_raised_by_user
from bptt_verifier.program.decisions import find_trace_limit
from bptt_verifier.program.idle_calls import find_idle_limit, may_print
from bptt_verifier.program.notebooks import write_places
from bptt_verifier.program.source_file import COMPUTING_LOSS, GUARD
from bptt_verifier.report import Mistake, Report, write_count
from bptt_verifier.report.text import render_text
from bptt_verifier.report.versions import find_versions
from bptt_verifier.tolerance.comparison import Verdict

START_UP = 120  # seconds for the child's imports, before any code of the submission runs
PRINTED = 4000  # bytes of the submission's output that are kept at its beginning and its end
ENDING = 2.0  # seconds that the code may take to end after the verdict
LEFT = 1.0  # seconds for the last lines; a process that has left the group may keep the pipe open
ALIVE = 1.0  # seconds from one look at whether the parent runs to the next
WAITING = 4  # times its processor time that a trace may take, where other processes run as well
FIRST, LAST, WIDE = 5, 3, 200  # lines of it that are shown, and characters of a line


class Outcome(NamedTuple):
    """The verdict, and the report as text, as plain values and as a page.

    `ended` is true if the submission ended the process, so that it was not judged, and `raised` if
    it raised an exception.
    """

    verdict: Verdict
    text: str
    plain: dict[str, Any]
    html: str
    ended: bool = False
    raised: bool = False


class Output:
    """The beginning and the end of what arrives in a pipe, and the number of lines."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe, self.ending = pipe, False
        self.start, self.end, self.size, self.breaks = b"", b"", 0, 0
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        """Read what arrives, so that nobody waits who prints, to the end or until `close`."""
        while True:
            # Windows cannot wait for a pipe with a time limit.
            if os.name == "nt" or select.select([self.pipe], [], [], 0.1)[0]:
                part = os.read(self.pipe.fileno(), 2**16)
                if not part:
                    return
                part = part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # progress bars
                self.start += part[: PRINTED - len(self.start)]
                self.end = (self.end + part)[-PRINTED:]
                self.size += len(part)
                self.breaks += part.count(b"\n")
            elif self.ending:  # a process that has left the group may keep the pipe open
                return

    def close(self) -> None:
        """Read what has been printed, and close the pipe."""
        self.ending = True
        self.reader.join(1 if os.name == "nt" else None)
        if not self.reader.is_alive():
            self.pipe.close()

    def __str__(self) -> str:
        """What was printed, on lines that any terminal can show; empty if nothing was."""
        if not self.size:
            return ""
        total = self.breaks + (not self.end.endswith(b"\n"))
        first, last = decode_lines(self.start), decode_lines(self.end)
        if total <= FIRST + LAST and self.size <= PRINTED:
            return "\n".join(["Your code printed:", *first])
        if total <= FIRST + LAST:  # they are long
            return "\n".join([f"Your code printed {self.size} bytes, which begin:", *first])
        said = f"Your code printed {total} lines; the first {FIRST} and the last {LAST} are:"
        return "\n".join([said, *first[:FIRST], "…", *last[-LAST:]])


def decode_lines(text: bytes) -> list[str]:
    """Decode lines, in characters that any terminal can show, and cut long ones."""
    every = text.decode(errors="replace").removesuffix("\n").split("\n")
    lines = (line.replace("\t", "    ") for line in every)
    shown = ("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)
    return [line if len(line) <= WIDE else f"{line[:WIDE]}…" for line in shown]


def render(report: Report, request: dict[str, Any], *, ended: bool = False) -> Outcome:
    """The report in the forms that a request asks for."""
    text = render_text(report, request.get("columns"), request.get("color_system"))
    html = report.to_html() if request.get("html") else ""
    return Outcome(report.verdict, text, report.to_dict(), html, ended, report.raised)


def start_child(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Give a request to the process that judges its file, which may be waiting already."""
    child = take()
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin:  # it may have ended
        child.stdin.write(json.dumps(request).encode())
    return child


def read_lines(source: IO[bytes]) -> tuple[queue.Queue[bytes], threading.Thread]:
    """Read lines in a thread, which closes their source, into a queue whose last line is empty."""
    lines: queue.Queue[bytes] = queue.Queue()

    def forward() -> None:
        with source:
            for line in source:
                lines.put(line)
        lines.put(b"")

    reader = threading.Thread(target=forward, daemon=True)
    reader.start()
    return lines, reader


def judge_file(
    request: dict[str, Any],
    timeout: float,
    progress: Callable[[int, int], None],
    show: Callable[[str], object] = lambda printed: None,
) -> Outcome:
    """Judge the file of a request: "file", "function" and "own" as `read_file` takes them.

    "params" are the names of an own model's parameters, "options" those of `verify` that a
    derivation needs, and "seed" is that of the cases. "command" gives the report again. "columns"
    and "color_system" are those of the terminal, if the text is for one, and "html" is true if the
    page is needed.

    `timeout` is the limit for each single call of the submission, and for the search for the name
    of a mistake, in seconds. Ctrl-C ends that search, and keeps the verdict. `show` is called with
    what the submission has printed, if anything.
    Raises ValueError, with one sentence, where the file cannot be used at all.
    """
    child = start_child(request | {"timeout": timeout})
    source, pipe = child.stdout, child.stderr
    assert source is not None
    assert pipe is not None
    output, (lines, reader) = Output(pipe), read_lines(source)

    def fail(name: str, verdict: Verdict, explanation: str, **details: Any) -> Outcome:
        mistake = Mistake(name, explanation, details)
        report = Report(
            Path(request["file"]).name, verdict, (mistake,), notes=(write_count({}, 0),),
            seed=request.get("seed", 0), options=request["options"], versions=find_versions(),
            command=request.get("command", ""),
        )  # fmt: skip
        return render(report, request, ended=name == "exited")

    running: str | None = "the start"
    since, limit, searching = time.monotonic(), float(START_UP), False
    try:
        while True:
            try:
                line = lines.get(timeout=max(0.0, since + limit - time.monotonic()))
            except KeyboardInterrupt:
                if not searching:
                    raise
                # The verdict stands: the child ends its search, and reports what it has.
                if os.name != "nt":  # Windows interrupts every process of a terminal by itself
                    os.kill(child.pid, signal.SIGINT)
                searching = False
                continue
            except queue.Empty:
                what = f"{running} did not end within {limit:g} s."
                if running == f"running {Path(request['file']).name}":
                    raise ValueError(f"FILE: {what[:-1]}; {GUARD}, or set --timeout") from None
                if running == COMPUTING_LOSS:  # what is judged are the gradients
                    what = (
                        f"{what[:-1]}, so your gradients were not judged. Set a longer --timeout."
                    )
                verdict = Verdict.INCONCLUSIVE if running == COMPUTING_LOSS else Verdict.DISAGREES
                return fail("timed-out", verdict, what, seconds=limit)
            if not line:
                code = child.wait()
                how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
                what = f"your code ended the process, {how}, so it was not judged."
                return fail("exited", Verdict.INCONCLUSIVE, what, code=code)
            message, since = json.loads(line), time.monotonic()
            if "refused" in message:
                let_end(lines)
                raise (CodeRaisedError if message["raised"] else ValueError)(message["refused"])
            if "outcome" in message:
                let_end(lines)
                verdict, *rendered = message["outcome"]
                return Outcome(Verdict(verdict), *rendered)
            if "progress" in message:
                progress(*message["progress"])
                searching = message["searching"]
            else:
                running = message["running"]
                allowed = timeout + WAITING * message["trace"] if running else float("inf")
                limit = min(allowed, threading.TIMEOUT_MAX / 2)
    finally:
        end_group(child)
        child.wait()
        reader.join(LEFT)
        output.close()
        if printed := str(output):
            show(printed)


def let_end(lines: queue.Queue[bytes]) -> None:
    """Wait until a child that has a verdict ends its lines, for some seconds or until Ctrl-C."""
    end = time.monotonic() + ENDING
    with suppress(queue.Empty, KeyboardInterrupt):
        while lines.get(timeout=max(0.0, end - time.monotonic())):
            pass


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End the child, with the processes that the code has started where the system has groups."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()


def main() -> None:
    """Judge the file of the request in the child, and report every event to the parent."""
    # A copy of stdout, to the parent, which stays open until this process ends.
    channel = os.fdopen(os.dup(1), "wb", buffering=0, closefd=False)
    output = os.dup(2)  # what the submission prints; what libraries print meanwhile is not shown
    discard_output(1, 2)

    def send(**message: Any) -> None:
        channel.write(write_places(json.dumps(message)).encode() + b"\n")

    @contextmanager
    def show_output() -> Iterator[None]:
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # the submission may have closed or replaced it
                    stream.flush()
            if not may_print():
                discard_output(1, 2)

    def announce(function: Callable[..., Any], what: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            send(running=what, trace=max(find_trace_limit(), find_idle_limit()))
            try:
                with show_output():
                    return function(*arguments, **named)
            finally:
                send(running=None, trace=0.0)

        return call

    import_judge()
    register()  # what libraries have registered before is not run
    request = sys.stdin.buffer.read()
    if not request:  # the parent needs no child, or has ended
        return
    end_with_parent()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the submission has nothing to read
    known = json.loads(request)
    try:
        send(outcome=judge_in_child(known, announce, send))
    except BaseException as error:
        found = find_raised_by_user(error)
        if found is None and not isinstance(error, Exception):
            raise
        said = describe_failure(error) if found is None else f"FILE: your code raised {found.said}"
        send(refused=said, raised=found is not None or isinstance(error, CodeRaisedError))
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    from bptt_verifier.judge.computed_ahead import LOADERS  # noqa: PLC0415

    end_with(Path(known["file"]), LOADERS)


def describe_failure(error: BaseException) -> str:
    """Describe what ended a judgement: a sentence that was raised, or a fault of the judge."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    by_statement = (frame.line or "raise").startswith("raise")
    if by_statement and isinstance(error, ValueError | TypeError | AttributeError):
        return str(error)
    # What Python says of the judge's own code tells a user nothing.
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"the judge itself failed: {type(error).__name__}: {error} at {where}"


def end_with_parent() -> None:
    """End this process, and what it has started, soon after its parent, which may be killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ALIVE)
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def import_judge() -> None:
    """Import what judges a right derivation, before there is a file."""
    with pausing_collection():
        from bptt_verifier.judge import files, verify  # noqa: F401, PLC0415
    gc.freeze()  # a collection need not look at all of this again


@contextmanager
def naming_option(argument: str) -> Iterator[None]:
    """Let a ValueError that begins with an argument begin with the option of that name."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(f"{argument}:"):
            raise
        raise ValueError(f"--{error}") from error


def judge_in_child(
    request: dict[str, Any],
    announce: Callable[[Callable[..., Any], str], Any],
    send: Callable[..., None],
) -> Outcome:
    """Judge the file of the request, and announce every call of its code."""
    # The parent needs none of these.
    from bptt_verifier.judge.files import read_file  # noqa: PLC0415
    from bptt_verifier.judge.verify import verify, verify_own_model  # noqa: PLC0415
    from bptt_verifier.mistakes.effort import find_effort  # noqa: PLC0415
    from bptt_verifier.program.source_file import order_path  # noqa: PLC0415

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    file = Path(request["file"])
    sys.path[:] = order_path(file)
    named, chosen = request["options"], request.get("params", ())
    judged = read_file(file, request["function"], request["own"], named, chosen, announce)
    options: dict[str, Any] = {"subject": file.name, "seed": request.get("seed", 0)}
    options["timeout"] = request.get("timeout")

    def advance(done: int, total: int) -> None:
        send(progress=[done, total], searching=find_effort().seconds is not None)

    options["progress"] = advance
    command, case = request.get("command", ""), request.get("case")
    if judged.loss is None and case is not None:
        raise ValueError("--case: expected a model of your own, found a derivation")
    report = None
    if judged.loss is None:
        with naming_option("sizes"):
            report = verify(judged.gradients, **options, **named)
            if "bias" not in named and judged.reads_biases(report):
                report = verify(judged.gradients, **options, **named, bias=True)
                judged = judged._replace(said=f"{judged.said} It reads biases, and is given them.")
        if judged.is_refuted(report):
            what = report.mistakes[0].explanation.rstrip(".")
            try:
                judged = read_file(file, request["function"], True, named, chosen, announce)
            except ValueError as error:
                raise ValueError(
                    "FILE: expected a derivation of the RNN of this project, or code of your own; "
                    f"with U, W and V for its parameters {what}; {error}"
                ) from error
    if judged.loss is not None and case is not None:
        from bptt_verifier.judge.one_case import compare_case  # noqa: PLC0415

        given = judged.gradients, judged.loss, judged.params, case
        with naming_option("case"):
            report = compare_case(*given, seed=options["seed"], subject=file.name)
    elif judged.loss is not None:
        report = verify_own_model(judged.gradients, judged.loss, judged.params, **options)
    assert report is not None
    report = judged.write_reproduction(report, command)
    of_case = "" if case is None else f" --case {shlex.quote(case)}"
    report = report._replace(command=command and command + of_case)
    remarks = judged.remarks() if report and case is None else ()
    notes = (judged.said, *remarks, *report.notes)
    return render(report._replace(notes=notes), request)
