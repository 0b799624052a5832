"""The pages of the documentation show code that runs, and what it prints."""

import re
from typing import Any

import matplotlib as mpl
import pytest

from bptt_verifier import Report, Verdict, verify_own_model
from bptt_verifier.judge.files import read_file
from tests.support.modules import ROOT

DOCS = ROOT / "docs"
GUIDE = (DOCS / "is-my-gradient-right.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "min_char_rnn.py"
FUNCTION = "loss_and_gradients"
WRONG, RIGHT = "dWhh += da @ hs[t].T", "dWhh += da @ hs[t - 1].T"
CLIP = """\
    for gradient in (dWxh, dWhh, dWhy, dbh, dby):
        np.clip(gradient, -5, 5, out=gradient)
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def words(text: str) -> str:
    """A text without line breaks and without the places of expressions in a file."""
    return " ".join(re.sub(r" \(\S+:\d+:\d+\)", "", text).split())


def judge(source: str, folder: Any) -> Report:
    """The report on the example with another source."""
    file = folder / "min_char_rnn.py"
    file.write_text(source, encoding="utf-8")
    code = read_file(file, FUNCTION, True, {}, [])
    return verify_own_model(code.gradients, code.loss, code.params)


def explain(report: Report) -> list[str]:
    return [words(f"{mistake.name}: {mistake.explanation}") for mistake in report.mistakes]


def test_the_guide_shows_the_lines_of_its_example() -> None:
    source = EXAMPLE.read_text(encoding="utf-8")
    *shown, mended = blocks(GUIDE, "python")
    assert shown
    assert [block for block in shown if block not in source] == []
    assert mended.strip() == RIGHT
    assert source.count(WRONG) == source.count(CLIP) == 1


def test_the_guides_example_trains_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """After 150 steps, the wrong gradient multiplies what a processor rounds otherwise."""

    def train(source: str) -> str:
        exec(compile(source, str(EXAMPLE), "exec"), {"__name__": "__main__"})
        return capsys.readouterr().out

    source = EXAMPLE.read_text(encoding="utf-8")
    assert train(source) == blocks(GUIDE, "text")[0]
    longer = source.replace("range(121)", "range(2000)")
    last = [train(each).split()[-1] for each in (longer.replace(WRONG, RIGHT), longer)]
    assert "`range(2000)` steps the loss now falls below 0.2" in GUIDE
    assert float(last[0]) < 0.2
    assert float(last[1]) > 10


@pytest.mark.slow
def test_the_guide_quotes_the_report_on_its_example(tmp_path: Any) -> None:
    report = judge(EXAMPLE.read_text(encoding="utf-8"), tmp_path)
    assert explain(report) == [words(block) for block in blocks(GUIDE, "text")[1:3]]


@pytest.mark.slow
def test_the_guides_example_agrees_without_its_mistakes(tmp_path: Any) -> None:
    source = EXAMPLE.read_text(encoding="utf-8").replace(WRONG, RIGHT).replace(CLIP, "")
    report = judge(source, tmp_path)._replace(subject="min_char_rnn.py")
    assert str(report).splitlines()[0] == blocks(GUIDE, "text")[3].strip()


def test_the_page_on_own_models_shows_one_that_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks((DOCS / "own-models.md").read_text(encoding="utf-8"), "python"))
    exec(code, {"__name__": "page"})
    assert capsys.readouterr().out == "agrees\n"


@pytest.mark.slow
def test_the_page_on_second_derivatives_shows_code_that_agrees(
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_hand, own, cells = blocks((DOCS / "second-order.md").read_text(encoding="utf-8"), "python")
    short = own.replace("(jvp, forward, arguments)", "(jvp, forward, arguments, cases=1)")
    assert short != own
    space: dict[str, Any] = {"__name__": "page"}
    for code in (by_hand, short.replace("loss, arguments)", "loss, arguments, cases=1)"), cells):
        exec(code, space)
    shapes = "(5, 4, 3) (1, 4, 3) (1, 4, 3)"
    assert capsys.readouterr().out.split("\n")[:-1] == ["True", *["agrees"] * 3, shapes]


@pytest.mark.slow
def test_the_page_on_test_suites_shows_a_test_that_passes() -> None:
    (code,) = blocks((DOCS / "test-suites.md").read_text(encoding="utf-8"), "python")
    space: dict[str, Any] = {"__name__": "page"}
    exec(code, space)
    space["test_the_gradients_of_the_rnn"]()


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(DOCS.glob("notebooks/*.md")), ids=lambda page: page.stem)
def test_a_notebook_runs(page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cells = re.findall(r"```\{code-cell\} python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert len(cells) > 2
    with mpl.rc_context({"backend": "agg"}):
        exec("\n".join(cells), {"__name__": "notebook"})


def test_the_reports_page_lists_what_json_contains() -> None:
    page = (DOCS / "reports.md").read_text(encoding="utf-8")
    keys = Report("f", Verdict.AGREES).to_dict()
    rows = re.findall(r"^\| (`.*?) \|", page.partition("## JSON")[2], re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(keys)
