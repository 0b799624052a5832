"""The text of a report: unbroken in a file, and broken between words only on a terminal."""

from io import StringIO

import pytest
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from bptt_verifier.console.terminal import fit, print_paragraphs, print_uncut
from bptt_verifier.report import Counterexample, Mistake, ParameterResult, Report
from bptt_verifier.report.text import render_text
from bptt_verifier.tolerance.comparison import Verdict

CALL = "gradients(" + "0.123456789, " * 20 + ")"
REPORT = Report(
    "mine.py",
    Verdict.DISAGREES,
    mistakes=(Mistake("missing-transpose", "W is used where its transpose belongs, " * 4, {}),),
    parameters={
        "layers[0].Wx": ParameterResult(Verdict.DISAGREES, 1e9, (0, 1), -1.5, 2.5, 1e-9, 3, 1e-10)
    },
    notes=("A note [bold] of several words, which is longer than a narrow terminal is wide.",),
    counterexample=Counterexample("T=2", {}, "W", [0.123456789] * 9, [1.0] * 9, [0.0] * 9, CALL),
)


def words(text: str) -> list[str]:
    return text.split()


def test_a_report_for_a_file_has_one_line_for_each_paragraph() -> None:
    text = render_text(REPORT)
    assert text == str(REPORT)
    assert max(map(len, text.splitlines())) > 200
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("columns", [36, 60, 100])
def test_a_terminal_breaks_lines_between_words_and_leaves_code_whole(columns: int) -> None:
    text = render_text(REPORT, columns)
    lines = text.splitlines()
    assert f"Reproduce: {CALL}".rstrip() in lines
    assert all(
        len(line) <= columns for line in lines if not line.startswith(("Reproduce", "https:"))
    )
    every = set(words(str(REPORT)))
    assert set(words(text)) <= every | {word + ":" for word in every}
    for found in ("∂L/∂layers[0].Wx", "1e+09", "-1.5", "1e-10", "0, 1"):
        assert found in text
    assert "[bold]" in text


def test_a_terminal_with_colours_shows_the_verdict_in_its_colour() -> None:
    text = render_text(REPORT, 80, "standard")
    assert text.startswith("\x1b[1;31mdisagrees\x1b[0m: mine.py")
    assert "\x1b[1mmissing-transpose\x1b[0m" in text
    stacked = render_text(REPORT, 60, "standard")
    assert "\x1b[1mentry: \x1b[0m0, 1\n" in stacked
    assert "\x1b[1mverdict: \x1b[0m\x1b[1;31mdisagrees\x1b[0m\n" in stacked


def test_the_table_of_a_usual_report_fits_eighty_columns() -> None:
    """Values that agree have few digits, and others as many as show the difference."""
    verdicts = (Verdict.AGREES, Verdict.INCONCLUSIVE, Verdict.DISAGREES)
    report = Report(
        "mine.py", Verdict.DISAGREES,
        parameters={
            name: ParameterResult(each, 1.23e-13, (10, 12), -0.123456789, -0.123466789, 1, 3, 1e-14)
            for name, each in zip(("Wxh", "Whh", "Why"), verdicts, strict=True)
        },
    )  # fmt: skip
    lines = render_text(report, 80).splitlines()
    agrees, inconclusive, disagrees = (line.split() for line in lines[-3:])
    assert agrees[0] == "∂L/∂Wxh"
    assert agrees[4:6] == ["-0.1235", "-0.1235"]
    assert inconclusive[4:6] == disagrees[4:6] == ["-0.12346", "-0.12347"]


def make_table() -> Table:
    table = Table("name", "a long\nheading", box=None, header_style="bold")
    table.add_row("one", Text("first cell"))
    table.add_row()
    table.add_row("two", Text("second cell"))
    return table


def show(width: int, *, terminal: bool) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_uncut(Group("title", make_table()), console)
    print_paragraphs("a paragraph of words", Text("another one"), console=console)
    print_paragraphs(console=console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().split("\n"))


def test_a_table_too_wide_for_a_terminal_is_stacked_and_nowhere_else() -> None:
    stacked = "title\nname: one\na long heading:\nfirst cell\n\n\nname: two\n"
    assert show(16, terminal=True).startswith(stacked)
    assert "a paragraph of\nwords\nanother one\n" in show(16, terminal=True)
    for wide in (show(80, terminal=True), show(16, terminal=False)):
        assert " one   first cell" in wide
        assert "a paragraph of words\nanother one\n" in wide
        assert not wide.endswith("\n\n")


def test_what_fits_is_left_as_it_is() -> None:
    table = make_table()
    assert fit(table, Console(width=80)) is table
    assert fit("text", Console(width=2)) == "text"
