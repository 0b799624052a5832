"""The terminal: progress bars, tables that are not cut off, and readers that leave early."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TypeVar

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

R = TypeVar("R")
VALUE = 24  # columns of a value, which is not broken; longer cells are sentences
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


def measure(shown: RenderableType, console: Console) -> int:
    """The columns that it needs to be printed unbroken."""
    return Measurement.get(console, console.options.update(width=1000), shown).maximum


def print_uncut(shown: RenderableType, console: Console | None = None) -> None:
    """Print tables whole. On a terminal lines are broken between words only, elsewhere never.

    `console` is by default that of standard output.
    """
    found = console or Console()
    if found.is_terminal:
        found.print(fit(shown, found), crop=False)
    else:
        found.width = max(found.width, measure(shown, found))
        found.print(shown)


def print_paragraphs(*paragraphs: Text | str, console: Console | None = None) -> None:
    """Print text as it stands. On a terminal lines are broken between words only, elsewhere never.

    `console` is by default that of standard output.
    """
    found = console or Console()
    plain = [Text(each) if isinstance(each, str) else each for each in paragraphs]
    if plain:
        found.print(*plain, sep="\n", soft_wrap=not found.is_terminal)


def fit(shown: RenderableType, console: Console) -> RenderableType:
    """Stack the rows of each table that is too wide for the console."""
    if isinstance(shown, Group):
        return Group(*(fit(each, console) for each in shown.renderables))
    if isinstance(shown, Table) and measure(shown, console) > console.width:
        return stack_rows(shown, console.width)
    return shown


def stack_rows(table: Table, width: int) -> Group:
    """Put the cells of each row below each other, each with the heading of its column."""
    headings = [" ".join(str(column.header).split()) for column in table.columns]
    lines: list[RenderableType] = []
    for row in zip(*(column.cells for column in table.columns), strict=True):
        for heading, cell in zip(headings, row, strict=True):
            text = cell.copy() if isinstance(cell, Text) else Text(str(cell))
            if not text.plain:
                continue
            label = Text.assemble((f"{heading}: " if heading else "", table.header_style))
            if label and label.cell_len + text.cell_len > width:
                lines.append(label)
                label = Text()
            found = Text.assemble(label, text)
            if text.cell_len <= VALUE:
                found.no_wrap, found.overflow = True, "ignore"
            lines.append(found)
        lines.append("")
    return Group(*lines[:-1])


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
