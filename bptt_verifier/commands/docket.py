"""`bptt docket`: judge published derivations afresh, list them, and show one of them whole."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from rich.text import Text
from typer import Argument, Exit, Option

from bptt_verifier.commands.docket_training import describe_training
from bptt_verifier.commands.tables import empty_table, verdict_text
from bptt_verifier.console.files import require_writable
from bptt_verifier.console.terminal import collect_rows, print_paragraphs, print_uncut
from bptt_verifier.docket.entry import Entry
from bptt_verifier.judge.exact_identity import ExactComparison, certify_identity
from bptt_verifier.judge.published import (
    DocketCase,
    is_as_stated,
    judge_entry,
    list_entries,
    measure_errors,
    read_entry,
)
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict, find_symbol

ROUNDING = 1e-12  # relative; an error on ordinary data that is smaller is shown as none
SHOWN = 8  # numbers of a counterexample that fit a line


class DocketRow(NamedTuple):
    """An entry, the report on it, and the relative errors of its gradients on ordinary data."""

    case: DocketCase
    report: Report
    errors: dict[str, float]

    @property
    def as_stated(self) -> bool:
        """True if the report is what the entry states."""
        return is_as_stated(self.case.entry, self.report)

    @property
    def mistake(self) -> str:
        """The names of the mistakes that the judge finds, if it finds any."""
        return ", ".join(m.name for m in self.report.mistakes if m.name != "unknown")


def judge_entries(names: list[str]) -> Iterator[DocketRow]:
    """Judge the entries of these names, one by one."""
    for name in names:
        case = read_entry(name)
        report, errors = judge_entry(case), attempt(measure_errors, case)
        yield DocketRow(case, report, {} if isinstance(errors, Failure) else errors)


def describe_errors(errors: dict[str, float]) -> str:
    """Describe the relative errors that exceed rounding, by gradient."""
    if not errors:
        return "Relative error on ordinary data: not measured."
    found = {name: error for name, error in errors.items() if error > ROUNDING}
    listed = ", ".join(f"{find_symbol(name)} {error:.2g}" for name, error in found.items())
    return f"Relative error on ordinary data: {listed or 'none beyond rounding'}."


def write_digits(values: Any) -> str:
    """Write nested lists of numbers with three significant digits."""
    if isinstance(values, list):
        return f"[{', '.join(map(write_digits, values))}]"
    return f"{values:.3g}"


def describe_counterexample(report: Report) -> list[str]:
    """Describe the smallest failing case; list the numbers where they are few."""
    case = report.counterexample
    if case is None:
        return []
    lines = [f"Smallest failing case: {case.sizes}."]
    if prod(np.shape(case.yours)) <= SHOWN:
        symbol = find_symbol(case.gradient)
        claimed, true = (write_digits(each) for each in (case.yours, case.autodiff))
        lines.append(f"There {symbol} is {claimed} by the claim and {true} by autodiff.")
    return lines


def describe_exact_comparison(found: ExactComparison) -> str:
    """Describe what exact arithmetic decides of a claim."""
    if found.refuted:
        return f"In exact arithmetic the claim is refuted: {found.refuted}."
    return (
        f"In exact arithmetic the claim equals the derivative at {found.points} random integer "
        f"points. If it were another polynomial, the chance of that would be below "
        f"10^{found.log10_error:.0f}."
    )


def describe_findings(row: DocketRow) -> list[str]:
    """Describe the size of the error, the smallest failing case, exact values, and training."""
    found = [describe_errors(row.errors), *describe_counterexample(row.report)]
    if row.case.entry.degree:
        exact = attempt(certify_identity, row.case)
        found += [] if isinstance(exact, Failure) else [describe_exact_comparison(exact)]
    training = attempt(describe_training, row.case)
    return [line for line in [*found, training] if line and not isinstance(line, Failure)]


def describe_source(entry: Entry) -> list[tuple[str, str]]:
    """List the parts of an entry that are text, with their headings."""
    seen = "seen" if entry.seen else "not seen"
    parts = [
        ("Source", entry.source), ("Claim", "\n".join(entry.claim)),
        ("Convention", entry.convention), (f"The source was {seen}; this rests on", entry.rests_on),
        ("Reading", entry.reading), ("Corrected", "\n".join(entry.corrected)),
    ]  # fmt: skip
    return [(heading, text) for heading, text in parts if text]


def render_source(case: DocketCase) -> str:
    """The part of an entry's section that does not depend on a run, as Markdown."""
    entry, lines = case.entry, [f"## {case.name}", "", f"**{case.entry.title}**", ""]
    for heading, text in describe_source(entry):
        if heading in ("Claim", "Corrected"):
            lines += [f"{heading}:", "", *(f"    {line}" for line in text.split("\n")), ""]
        else:
            lines += [f"{heading}: {text}", ""]
    return "\n".join(lines)


def render_finding(row: DocketRow) -> str:
    """The part of an entry's section that a run finds, as Markdown."""
    named = f", {row.mistake}" if row.mistake else ""
    return " ".join([f"**{row.report.verdict}**{named}.", *describe_findings(row)])


INTRODUCTION = (
    "Written by `make docket`. Each entry is a module of `bptt_verifier/docket`: the claim as",
    "formulas, the same as code written from the formulas, and the verdict, which `bptt docket`",
    "reaches afresh. *Agrees* means that the claim gives the gradient, in the convention stated.",
    "*Disagrees* means that it gives another vector; where its authors state an approximation, the",
    "entry says so. The errors are relative, ‖claimed − true‖ / ‖true‖.",
)  # fmt: skip
HEADINGS = ("entry", "claim", "verdict", "named", "source seen")


def format_entry(case: DocketCase, verdict: Verdict, mistake: str) -> tuple[str, ...]:
    """The cells of an entry's row, in the order of `HEADINGS`."""
    seen = "yes" if case.entry.seen else "no"
    return case.name, case.entry.title, str(verdict), mistake or "–", seen


def render_page(rows: list[DocketRow]) -> str:
    """The page docs/docket.md: a table, and a section for each entry."""
    cells = [format_entry(row.case, row.report.verdict, row.mistake) for row in rows]
    linked = [(f"[{name}](#{name})", *others) for name, *others in cells]
    table = [HEADINGS, ("---",) * len(HEADINGS), *linked]
    right = sum(row.report.verdict is Verdict.AGREES for row in rows)
    sections = [f"{render_source(row.case)}\n{render_finding(row)}" for row in rows]
    return "\n".join([
        "# The docket: published derivations and the verdict on each", "",
        *INTRODUCTION, "",
        f"{len(rows)} entries; {right} claims are right.", "",
        *(f"| {' | '.join(line)} |" for line in table), "", "\n\n".join(sections), "",
    ])  # fmt: skip


def show_entry(row: DocketRow) -> None:
    """Print one entry whole: its source, its claim, and what the judge finds."""
    print_paragraphs(Text(row.case.entry.title, style="bold"))
    for heading, text in describe_source(row.case.entry):
        indented = text.replace("\n", "\n  ")
        print_paragraphs(f"\n{heading}:\n  {indented}")
    print_paragraphs("", verdict_text(row.report.verdict))
    for mistake in row.report.mistakes:
        print_paragraphs(f"{mistake.name}: {mistake.explanation}")
    print_paragraphs(*describe_findings(row))


def docket(
    name: Annotated[
        str | None, Argument(metavar="NAME", help="Entry to show, or a file of your own entry.")
    ] = None,
    page: Annotated[
        Path | None, Option("--markdown", metavar="FILE", help="Write all entries as Markdown.")
    ] = None,
) -> None:
    """Judge published derivations afresh; list them, or show one whole."""
    require_writable("--markdown", page)
    if page is not None and name is not None:
        raise ValueError(f"--markdown: expected no NAME with it, found {name}")
    names = list_entries() if name is None else [read_entry(name) and name]
    rows = collect_rows("judging", judge_entries(names), len(names))
    if name is not None:
        show_entry(rows[0])
    else:
        table = empty_table(*HEADINGS[:1], *HEADINGS[2:])
        for row in rows:
            entry, _, _, *others = format_entry(row.case, row.report.verdict, row.mistake)
            table.add_row(entry, verdict_text(row.report.verdict), *others)
        print_uncut(table)
    for row in (row for row in rows if not row.as_stated):
        stated = ", ".join([str(row.case.entry.verdict), *row.case.entry.mistake])
        found = ", ".join(filter(None, [str(row.report.verdict), row.mistake]))
        print_paragraphs(f"{row.case.name}: stated {stated}; found {found}")
    if page is not None:
        page.write_text(render_page(rows), encoding="utf-8")
    raise Exit(0 if all(row.as_stated for row in rows) else 1)
