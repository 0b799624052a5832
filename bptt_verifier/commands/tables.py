"""Tables: the results of the built-in derivations on a terminal."""

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from bptt_verifier.judge.builtin import BuiltinReport
from bptt_verifier.report.text import STYLES
from bptt_verifier.tolerance.comparison import Verdict, find_symbol


def empty_table(*headings: str, justify: JustifyMethod = "left") -> Table:
    """A table without lines, whose cells keep their line breaks."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify=justify)
    return table


def verdict_text(verdict: Verdict) -> Text:
    """The verdict in its colour."""
    return Text(str(verdict), style=STYLES[verdict])


def builtin_table(report: BuiltinReport) -> Table:
    """A row for each gradient of each derivation; the table fits eighty columns."""
    shape = "largest shape\nT×B×D×H×O"
    table = empty_table("derivation", "gradient", "cases", "error\n÷ bound", shape, "verdict")
    for column in table.columns[2:4]:
        column.justify = "right"
    previous = None
    for row in report.rows:
        if previous not in (None, row.derivation):
            table.add_row()
        error = row.worst.comparison.error
        worst = f"{error:.3f}" if error < 1000 else f"{error:.1e}"
        name = "" if row.derivation == previous else row.derivation
        largest = "×".join(map(str, row.largest))
        cells = name, find_symbol(row.gradient), str(row.cases), worst, largest
        table.add_row(*cells, verdict_text(row.verdict))
        previous = row.derivation
    return table


def summary(report: BuiltinReport) -> Text:
    """The verdict on all derivations, and the worst case."""
    row = max(report.rows, key=lambda row: row.worst.comparison.error)
    case, worst = row.worst
    entry = f"[{', '.join(map(str, worst.entry))}]" if worst.entry else ""
    return Text.assemble(
        verdict_text(report.verdict),
        f": {report.examples} random problems in {report.dtype}, seed {report.seed}. "
        f"The largest error is {worst.error:.2g} of its bound: {row.derivation}, "
        f"{find_symbol(row.gradient)}{entry} of case {case}, by hand {worst.yours:.9g}, "
        f"{report.reference} {worst.reference:.9g}.",
    )
