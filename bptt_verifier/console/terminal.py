"""How results look on a terminal: tables and progress, plain text where there is no colour."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bptt_verifier.judge.builtin import Report
from bptt_verifier.tolerance.comparison import SYMBOLS, Verdict

STYLES = {Verdict.AGREES: "green", Verdict.DISAGREES: "bold red", Verdict.INCONCLUSIVE: "yellow"}


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal; yields a function of done and total."""
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_uncut(shown: RenderableType) -> None:
    """Print on as many columns as it needs: what the terminal wraps is better than what is lost."""
    console = Console()
    needed = Measurement.get(console, console.options.update(width=1000), shown).maximum
    Console(width=max(console.width, needed)).print(shown)


def discard_output() -> None:
    """Send nowhere what is still to be written to standard output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Printing inside ends early, and quietly, where nobody reads standard output any longer."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except SystemExit as ended:  # what Rich makes of it
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        discard_output()


def verdict_text(verdict: Verdict) -> Text:
    """The verdict in its colour."""
    return Text(str(verdict), style=STYLES[verdict])


def builtin_table(report: Report) -> Table:
    """A row for each gradient of each derivation."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("derivation", "gradient"):
        table.add_column(heading, no_wrap=True)
    for heading in ("cases", "worst error\n÷ bound"):
        table.add_column(heading, justify="right")
    table.add_column("largest shape", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    previous = None
    for row in report.rows:
        if previous not in (None, row.derivation):
            table.add_row()
        table.add_row(
            row.derivation if row.derivation != previous else "",
            SYMBOLS[row.gradient],
            str(row.cases),
            f"{row.worst.error:.3f}" if row.worst.error < 1000 else f"{row.worst.error:.1e}",
            str(row.largest),
            verdict_text(row.verdict),
        )
        previous = row.derivation
    return table


def summary(report: Report) -> Text:
    """The verdict on everything, in a sentence that names the worst case."""
    worst = max(report.rows, key=lambda row: row.worst.error)
    entry = ", ".join(map(str, worst.worst.entry))
    at = f"{SYMBOLS[worst.gradient]}[{entry}]" if entry else SYMBOLS[worst.gradient]
    return Text.assemble(
        verdict_text(report.verdict),
        f": {len(report.shapes)} random problems in {report.dtype}, seed {report.seed}. "
        f"The largest error is {worst.worst.error:.2g} of its bound: {worst.derivation}, {at} "
        f"of case {worst.worst_case}, by hand {worst.worst.yours:.9g}, "
        f"{report.oracle} {worst.worst.reference:.9g}.",
    )


def require_writable(option: str, path: Path | None) -> None:
    """Raises ValueError unless a file can be written there, by trying, before any work is done.

    Nothing is left behind, and a file that is there stays as it is.
    """
    if path is None:
        return
    try:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ValueError(f"{option}: expected a file in an existing folder, found {path}")
        if path.is_file():
            with path.open("ab"):
                pass
        elif not path.exists():  # no pipe or device is opened: that could wait, or be noticed
            with tempfile.TemporaryFile(dir=path.absolute().parent):
                pass
    except OSError as error:
        raise ValueError(
            f"{option}: expected a file that can be written, found {path}: {error.strerror}"
        ) from None
