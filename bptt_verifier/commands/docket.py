"""`bptt docket`: judge published derivations afresh, list them, and show one of them whole."""

from pathlib import Path
from typing import Annotated

from rich.text import Text
from typer import Argument, Exit, Option

from bptt_verifier.commands.docket_findings import DocketRow, describe_findings, judge_entries
from bptt_verifier.commands.docket_pages import (
    HEADINGS,
    describe_source,
    format_entry,
    require_pages,
    write_pages,
)
from bptt_verifier.commands.tables import empty_table, verdict_text
from bptt_verifier.console.files import require_writable
from bptt_verifier.console.terminal import collect_rows, print_paragraphs, print_uncut
from bptt_verifier.docket.entry import Kind
from bptt_verifier.judge.published import list_entries, read_entry


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
    if page is not None:
        require_pages("--markdown", page)
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
        write_pages(page, rows)
    raise Exit(0 if all(row.as_stated for row in rows) else 1)
