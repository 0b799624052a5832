"""Interrupts: how Ctrl-C ends a command."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

INTERRUPTED = 130  # the exit code of a process that Ctrl-C ended


def reasons(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, the exception that caused it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def end_at_once(*_: Any) -> NoReturn:
    """End the process with one sentence, wherever it is.

    A callback of the garbage collector could swallow an exception, and an interpreter that shuts
    down while JAX compiles may crash.
    """
    visible = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""  # erase a progress bar, show the cursor
    with suppress(OSError):
        os.write(2, f"{visible}bptt: interrupted\n".encode())
    os._exit(INTERRUPTED)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once, unless it is ignored or handled otherwise."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is end_at_once:
            signal.signal(signal.SIGINT, before)


@contextmanager
def ending_by_exception() -> Iterator[None]:
    """Inside `ending_at_once`, Ctrl-C raises KeyboardInterrupt, so that child processes are ended.

    Where the exception is swallowed, it is raised again a second later.
    """
    if signal.getsignal(signal.SIGINT) is not end_at_once:
        yield
        return
    repeats = hasattr(signal, "setitimer")

    def interrupt(*_: Any) -> NoReturn:
        if repeats:
            signal.setitimer(signal.ITIMER_REAL, 1)
        raise KeyboardInterrupt

    if repeats:
        signal.signal(signal.SIGALRM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if repeats:
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, end_at_once)
