"""The pages of the docket: a table of all entries, and a page for each, as Markdown."""

from pathlib import Path

from bptt_verifier.commands.docket_findings import DocketRow, describe_findings
from bptt_verifier.docket.absent import ABSENT
from bptt_verifier.docket.entry import Entry, Kind
from bptt_verifier.judge.published import DocketCase

INTRODUCTION = """\
Written by `make docket`. Each entry is a module of `bptt_verifier/docket`: the claim as formulas,
the same as code written from the formulas, and the verdict, which `bptt docket` reaches afresh.

- *Agrees* means that the claim gives the gradient, in the convention stated.
- *Right as defined* means that it gives another vector, which the source defines and does not call
  the gradient, such as a truncation; that it gives this one is checked as well (K2).
- *Disagrees* means that it gives another vector than the source says.

*Exactly* is what rational arithmetic decides, without rounding
([Certification](certification.md), section 6).
"""
HEADINGS = ("entry", "claim", "verdict", "named", "exactly", "source seen")
TOCTREE = "```{toctree}\n:hidden:\n:glob:\n\ndocket/*\n```"
LEGEND = """\
The errors are relative, ‖claimed − true‖ / ‖true‖. [Certification](../certification.md), section 6,
explains certificates.
"""
DESCENT = """\
The descent is gradient descent on the loss of the entry, from its parameters. The bars are the
losses after 4, 8, … 60 steps: █ is the first loss or more, ▁ the lowest that the gradient reaches.
The last loss follows as a number.
"""
TRAINING = """\
Training is gradient descent on the colours of `bptt train`: three phrases of two words, of which
the second decides; the first follows up to four times more, if the gradient still learns then. The
bars are the losses after 20, 40, … 300 steps: ▁ below 10⁻⁶, one higher for each power of ten, █
from 1 on. The last loss follows as a number.
"""


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
    """The part of an entry's page that does not depend on a run, as Markdown."""
    lines = [f"# {case.name}", "", f"**{case.entry.title}**", ""]
    for heading, text in describe_source(case.entry):
        if heading in ("Claim", "Corrected"):
            lines += [f"{heading}:", "", *(f"    {line}" for line in text.split("\n")), ""]
        else:
            lines += [f"{heading}: {text}", ""]
    return "\n".join(lines)


def render_entry(row: DocketRow) -> str:
    """The page of an entry: its source, and what a run finds."""
    named = f", {row.mistake}" if row.mistake else ""
    model, file = row.case.entry.model, f"{row.case.name.replace('-', '_')}.py"
    trained = [TRAINING if model else DESCENT] if row.case.entry.corrected else []
    return "\n".join([
        render_source(row.case), "## Found", "", f"**{row.word}**{named}.", "",
        *(f"{line}\n" for line in describe_findings(row)), LEGEND, *trained,
        f"The claim as code: [{file}](../../bptt_verifier/docket/{file}). "
        "[All entries](../docket.md).", "",
    ])  # fmt: skip


def format_entry(row: DocketRow) -> tuple[str, ...]:
    """The cells of an entry's row, in the order of `HEADINGS`."""
    entry = row.case.entry
    seen = "yes" if entry.seen else "no"
    return row.case.name, entry.title, row.word, row.mistake or "–", row.certificate, seen


def count_kinds(words: list[str]) -> str:
    """Count the entries by what the judge finds."""
    right, defined = words.count(Kind.RIGHT), words.count(Kind.AS_DEFINED)
    return (
        f"{len(words)} entries: {right} claims give the gradient, {defined} give another vector "
        f"that they define, and {len(words) - right - defined} are wrong."
    )


def render_table(rows: list[DocketRow], folder: str = "docket") -> str:
    """The page of all entries: a table with a link to the page of each, in a folder beside it."""
    cells = [format_entry(row) for row in rows]
    linked = [(f"[{name}]({folder}/{name}.md)", *others) for name, *others in cells]
    return "\n".join([
        "# The docket: published derivations and the verdict on each", "",
        INTRODUCTION, count_kinds([row.word for row in rows]), "",
        *(f"| {' | '.join(line)} |" for line in [HEADINGS, ("---",) * len(HEADINGS), *linked]), "",
        "Claims that have no entry, and why:", "",
        *(f"- {claim}: {reason}." for claim, reason in ABSENT), "", TOCTREE, "",
    ])  # fmt: skip


def require_pages(option: str, table: Path) -> None:
    """Raise ValueError unless a folder for the pages of entries can be beside their table."""
    folder = table.with_suffix("")
    if folder == table or (folder.exists() and not folder.is_dir()):
        raise ValueError(
            f"{option}: expected a file such as docket.md, and beside it no file docket, found "
            f"{table}"
        )


def write_pages(table: Path, rows: list[DocketRow]) -> None:
    """Write the page of all entries, and one for each into the folder of the same name."""
    folder = table.with_suffix("")
    folder.mkdir(exist_ok=True)
    for row in rows:
        (folder / f"{row.case.name}.md").write_text(render_entry(row), encoding="utf-8")
    table.write_text(render_table(rows, folder.name), encoding="utf-8")
