"""Calls of the user's code that wait for what never comes.

The judge calls it with arguments that it was not written for: arrays that are traced, or raise. A
thread that takes them from a queue may end by that, and whoever waits for its answer would do so
for ever.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.source_lines import is_of_judge, is_of_user

TICK, IDLE = 1.0, 5  # seconds, and how many of them in a row a call may do nothing
BUSY = 0.05  # of a second: processor time of a call that does something
WAITED: ContextVar[float] = ContextVar("WAITED", default=0.0)


def find_idle_limit() -> float:
    """Find the seconds that a call may wait before it is interrupted; 0 where none will be."""
    return WAITED.get()


@contextmanager
def interrupt_idle(most: float = float("inf")) -> Iterator[None]:
    """Raise UntraceableError in the code inside where it waits for seconds and does nothing.

    It is also raised where the code takes `most` seconds. Only in the main thread, where the system
    has alarms and the user's code has set none. Nothing is printed of what ends other threads
    meanwhile, since that is the judge's doing.
    """
    alarm: Any = getattr(signal, "SIGALRM", None)
    inside = alarm is not None and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(alarm) if inside else None
    if before is None or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    used, idle, ticks = time.thread_time(), 0, 0

    def note(*_: Any) -> None:
        nonlocal used, idle, ticks
        last, used = used, time.thread_time()
        idle = idle + 1 if used - last < BUSY else 0
        if idle >= IDLE:
            raise UntraceableError("it waits, as for a thread or a process that has ended")
        ticks += 1
        if ticks * TICK > most:
            raise UntraceableError(f"it takes more than {most:g} s")

    printing, threading.excepthook = threading.excepthook, lambda _: None
    token = WAITED.set(IDLE * TICK)
    signal.signal(alarm, note)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(alarm, before)
        threading.excepthook = printing
        WAITED.reset(token)


def has_threads() -> bool:
    """Tell whether threads of the user's run, which an exception of the judge's making may end."""
    return any(is_of_user(file) for file in list_threads())


def may_print() -> bool:
    """Tell whether there are threads of the user's, or pools of threads, which may print."""
    return any(not is_of_judge(file) for file in list_threads())


def list_threads() -> Iterator[str]:
    """List the files of the functions and methods that threads run, beside the main one."""
    for thread in threading.enumerate():
        function = getattr(thread, "_target", None) or type(thread).run
        code = getattr(function, "__code__", None)
        if code is not None and thread is not threading.main_thread():
            yield code.co_filename
