"""The terminal: progress bars, tables that are not cut off, and readers that leave early."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

R = TypeVar("R")
INTERVAL = 0.2  # seconds between two messages to a notebook


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error, if that is a terminal, or in a notebook.

    Yield a function of done and total.
    """
    if Console().is_jupyter:
        with show_progress_in_notebook(what) as notebook_progress:
            yield notebook_progress
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def show_progress_in_notebook(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress as a line of a notebook's cell, which is empty in the end.

    Yield a function of done and total.
    """
    handle = import_module("IPython.display").display(
        {"text/plain": f"{what} …"}, raw=True, display_id=True
    )
    shown = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > INTERVAL:
            shown = time.monotonic()
            handle.update({"text/plain": f"{what} {done} of {total}"}, raw=True)

    try:
        yield progress
    finally:
        handle.update({"text/plain": ""}, raw=True)


def collect_rows(what: str, rows: Iterable[R], total: int) -> list[R]:
    """Collect rows that take long to compute behind a progress bar."""
    found: list[R] = []
    with progress_bar(what, total) as progress:
        for row in rows:
            found.append(row)
            progress(len(found), total)
    return found


def print_uncut(shown: RenderableType) -> None:
    """Print on as many columns as it needs: a narrow terminal wraps lines and loses nothing."""
    console = Console()
    needed = Measurement.get(console, console.options.update(width=1000), shown).maximum
    Console(width=max(console.width, needed)).print(shown)


def discard_output(*descriptors: int) -> None:
    """Discard whatever is still written to these descriptors, by default standard output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors or (sys.stdout.fileno(),):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """End printing inside early and quietly, where standard output has lost its reader."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except SystemExit as ended:  # Rich turns a broken pipe into this
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        discard_output()
