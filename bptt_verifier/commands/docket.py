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
from bptt_verifier.docket.absent import ABSENT
from bptt_verifier.docket.entry import Entry, Kind
from bptt_verifier.judge.exact_identity import ExactComparison, certify_identity
from bptt_verifier.judge.published import (
    ROUNDING,
    DocketCase,
    is_as_stated,
    judge_entry,
    list_entries,
    measure_defined_errors,
    measure_errors,
    read_entry,
)
from bptt_verifier.judge.small_sizes import find_smallest
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import find_symbol

SHOWN = 8  # numbers of a counterexample that fit a line


class DocketRow(NamedTuple):
    """An entry, the report on it, and the relative errors of its gradients on ordinary data.

    `errors` are those against the gradient, `defined_errors` those against what the entry says
    that the claim is exactly.
    """

    case: DocketCase
    report: Report
    errors: dict[str, float]
    defined_errors: dict[str, float]

    @property
    def as_defined(self) -> bool:
        """True if the claim is what the entry says that it is exactly, or if that says nothing."""
        found = self.defined_errors.values()
        small = [error < ROUNDING for error in found]  # False where an error is not a number
        return not self.case.entry.exactly or (bool(small) and all(small))

    @property
    def as_stated(self) -> bool:
        """True if the report is what the entry states."""
        return is_as_stated(self.case.entry, self.report) and self.as_defined

    @property
    def word(self) -> str:
        """The verdict in the table: the judge's, or that the claim is right as defined."""
        kind = self.case.entry.kind
        return kind if self.as_stated and kind is Kind.AS_DEFINED else str(self.report.verdict)

    @property
    def mistake(self) -> str:
        """The names of the mistakes that the judge finds, if it finds any."""
        return ", ".join(m.name for m in self.report.mistakes if m.name != "unknown")


def judge_entries(names: list[str]) -> Iterator[DocketRow]:
    """Judge the entries of these names, one by one."""
    for name in names:
        case = read_entry(name)
        measured = (attempt(measure, case) for measure in (measure_errors, measure_defined_errors))
        found = [{} if isinstance(each, Failure) else each for each in measured]
        yield DocketRow(case, judge_entry(case), *found)


def list_errors(errors: dict[str, float]) -> str:
    """List the relative errors that exceed rounding, by gradient."""
    if not errors:
        return "not measured"
    found = {name: error for name, error in errors.items() if error > ROUNDING}
    listed = ", ".join(f"{find_symbol(name)} {error:.2g}" for name, error in found.items())
    return listed or "none beyond rounding"


def describe_errors(row: DocketRow) -> list[str]:
    """Describe the relative errors against the gradient, and against what the claim is exactly."""
    lines = [f"Relative error on ordinary data: {list_errors(row.errors)}."]
    if row.case.entry.exactly:
        found = list_errors(row.defined_errors)
        lines.append(f"Against {row.case.entry.exactly}: {found}.")
    return lines


def write_digits(values: Any, digits: int = 3) -> str:
    """Write nested lists of numbers with so many significant digits."""
    if isinstance(values, list):
        return f"[{', '.join(write_digits(each, digits) for each in values)}]"
    return f"{values:.{digits}g}"


def write_apart(claimed: Any, true: Any) -> tuple[str, str]:
    """Write two lists of numbers with three digits, or with as many as tell them apart."""
    for digits in range(3, 18):
        texts = write_digits(claimed, digits), write_digits(true, digits)
        if texts[0] != texts[1]:
            break
    return texts


def describe_counterexample(row: DocketRow) -> list[str]:
    """Describe the smallest failing case; list the numbers where they are few.

    An own model's sizes are made smaller here; the judge leaves them as they are.
    """
    if row.report.counterexample is None:
        return []
    if row.case.entry.model:
        case = row.report.counterexample
        return describe_values(case.sizes, case.gradient, case.yours, case.autodiff, "autodiff")
    small = attempt(find_smallest, row.case)
    if small is None or isinstance(small, Failure):
        return []
    sizes = " ".join(f"{letter}={size}" for letter, size in small.sizes.items())
    claimed, true = small.claimed.tolist(), small.true.tolist()
    return describe_values(sizes, small.gradient, claimed, true, "complex steps")


def describe_values(sizes: str, gradient: str, claimed: Any, true: Any, by: str) -> list[str]:
    """Describe a failing case by its sizes, and by one gradient of it if the numbers are few."""
    lines = [f"Smallest failing case: {sizes}."]
    if prod(np.shape(claimed)) <= SHOWN:
        by_claim, by_other = write_apart(claimed, true)
        lines.append(
            f"There {find_symbol(gradient)} is {by_claim} by the claim and {by_other} by {by}."
        )
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
    found = [*describe_errors(row), *describe_counterexample(row)]
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
    return " ".join([f"**{row.word}**{named}.", *describe_findings(row)])


INTRODUCTION = (
    "Written by `make docket`. Each entry is a module of `bptt_verifier/docket`: the claim as",
    "formulas, the same as code written from the formulas, and the verdict, which `bptt docket`",
    "reaches afresh. *Agrees* means that the claim gives the gradient, in the convention stated.",
    "*Right as defined* means that it gives another vector, which the source defines and does not",
    "call the gradient, such as a truncation; that it gives this one is checked as well (K2).",
    "*Disagrees* means that it gives another vector than the source says. The errors are relative,",
    "‖claimed − true‖ / ‖true‖. Training is gradient descent on the colours of `bptt train`: three",
    "phrases of two words, of which the second decides; the first follows up to four times more,",
    "if the gradient still learns then. The bars are the losses after 20, 40, … 300 steps: ▁ below",
    "10⁻⁶, one higher for each power of ten, █ from 1 on. The last loss follows as a number. An",
    "entry's own model descends on its own loss instead.",
)  # fmt: skip
HEADINGS = ("entry", "claim", "verdict", "named", "source seen")


def format_entry(row: DocketRow) -> tuple[str, ...]:
    """The cells of an entry's row, in the order of `HEADINGS`."""
    entry = row.case.entry
    seen = "yes" if entry.seen else "no"
    return row.case.name, entry.title, row.word, row.mistake or "–", seen


def count_kinds(words: list[str]) -> str:
    """Count the entries by what the judge finds."""
    right, defined = words.count(Kind.RIGHT), words.count(Kind.AS_DEFINED)
    return (
        f"{len(words)} entries: {right} claims give the gradient, {defined} give another vector "
        f"that they define, and {len(words) - right - defined} are wrong."
    )


def render_page(rows: list[DocketRow]) -> str:
    """The page docs/docket.md: a table, and a section for each entry."""
    cells = [format_entry(row) for row in rows]
    linked = [(f"[{name}](#{name})", *others) for name, *others in cells]
    table = [HEADINGS, ("---",) * len(HEADINGS), *linked]
    sections = [f"{render_source(row.case)}\n{render_finding(row)}" for row in rows]
    return "\n".join([
        "# The docket: published derivations and the verdict on each", "",
        *INTRODUCTION, "",
        count_kinds([row.word for row in rows]), "",
        *(f"| {' | '.join(line)} |" for line in table), "",
        "Claims that have no entry yet, and why:", "",
        *(f"- {claim}: {reason}." for claim, reason in ABSENT), "",
        "\n\n".join(sections), "",
    ])  # fmt: skip


def show_entry(row: DocketRow) -> None:
    """Print one entry whole: its source, its claim, and what the judge finds."""
    print_paragraphs(Text(row.case.entry.title, style="bold"))
    for heading, text in describe_source(row.case.entry):
        indented = text.replace("\n", "\n  ")
        print_paragraphs(f"\n{heading}:\n  {indented}")
    print_paragraphs("", verdict_text(row.report.verdict))
    if row.word == Kind.AS_DEFINED:
        print_paragraphs(f"{row.word}: {row.case.entry.exactly}")
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
            entry, _, word, *others = format_entry(row)
            coloured = verdict_text(row.report.verdict)
            table.add_row(entry, word if word == Kind.AS_DEFINED else coloured, *others)
        print_uncut(table)
    for row in (row for row in rows if not row.as_stated):
        stated = ", ".join([str(row.case.entry.verdict), *row.case.entry.mistake])
        found = ", ".join(filter(None, [str(row.report.verdict), row.mistake]))
        if not row.as_defined:
            found += f"; not {row.case.entry.exactly}"
        print_paragraphs(f"{row.case.name}: stated {stated}; found {found}")
    if page is not None:
        page.write_text(render_page(rows), encoding="utf-8")
    raise Exit(0 if all(row.as_stated for row in rows) else 1)
