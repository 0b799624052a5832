"""Worker processes of this machine, which compute parts of a verification."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from types import ModuleType
from typing import Any

WAITING = 3  # parts for each worker that are given out before they are asked for
POOLS = 5  # so many pools may break, one after the other, before any of them has computed a part
PATH = tuple(sys.path)  # before the folder of a submission is put on it


def prepare_worker(warm_up: Callable[..., object] | None, *arguments: Any) -> None:
    """Leave Ctrl-C to the parent, and end as soon as the parent has ended; then warm up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    if warm_up is not None:
        warm_up(*arguments)


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; processes that start meanwhile never get it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def hide_user_code() -> Iterator[None]:
    """Hide the user's script and folders, of which a new process needs none.

    It would run the script again, and might take a file beside the submission for a library.
    """
    main, path = sys.modules["__main__"], sys.path[:]
    sys.modules["__main__"] = ModuleType("__main__")
    sys.path[:] = PATH
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        sys.path[:] = path


@contextmanager
def started_workers(
    number: int, warm_up: Callable[..., object] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Workers that are ended at once where an exception, such as Ctrl-C, ends the block.

    Each calls `warm_up(*arguments)` before it takes work.
    """
    pool = ProcessPoolExecutor(number, get_context("spawn"), prepare_worker, (warm_up, *arguments))
    try:
        with hold_interrupts(), hide_user_code():
            for _ in range(number):  # each starts a process
                pool.submit(int)
        yield pool
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()
