"""The docket: every entry states what the judge finds, and the page has every entry's text."""

import re
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify_own_model
from bptt_verifier.commands.docket_findings import (
    DocketRow,
    certify_entry,
    judge_entries,
    write_apart,
)
from bptt_verifier.commands.docket_pages import (
    DESCENT,
    LEGEND,
    TOCTREE,
    TRAINING,
    count_kinds,
    render_entry,
    render_source,
)
from bptt_verifier.docket import nicodjimenez_without_carousel
from bptt_verifier.docket.absent import ABSENT
from bptt_verifier.docket.entry import Entry, Kind
from bptt_verifier.judge import published
from bptt_verifier.judge.published import (
    ROUNDING,
    differentiate_first,
    is_as_stated,
    judge_entry,
    list_entries,
    measure_defined_errors,
    measure_errors,
    read_entry,
)
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.report import Mistake, Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.modules import ROOT

TABLE = (ROOT / "docs" / "docket.md").read_text(encoding="utf-8")
PAGES = ROOT / "docs" / "docket"
NAMES = list_entries()
CASES = {name: read_entry(name) for name in NAMES}
EXACT = [name for name in NAMES if CASES[name].entry.exactly]
QUICK = [name for name in NAMES if not CASES[name].entry.model]  # no cell to compile
TURN = date.today().toordinal()


def words_of(entry: Entry) -> set[str]:
    return set(re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)+", entry.reading + entry.convention))


# What an entry states.


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_has_all_that_a_reader_needs(name: str) -> None:
    entry = CASES[name].entry
    assert all((entry.title, entry.source, entry.claim, entry.convention, entry.rests_on))
    assert entry.verdict in (Verdict.AGREES, Verdict.DISAGREES)
    if entry.verdict is Verdict.AGREES:
        assert not entry.corrected
        assert not entry.mistake
        assert not entry.exactly
    else:
        assert entry.corrected
    assert entry.exactly or not entry.deliberate
    module = CASES[name].module
    assert (hasattr(module, "held_loss") ^ hasattr(module, "change")) is bool(entry.exactly)
    # An entry may name another one only if that is there.
    families = {each.split("-")[0] for each in NAMES}
    named = {w for w in words_of(entry) if f"see {w}" in entry.reading + entry.convention}
    assert {w for w in named if w.split("-")[0] in families} <= set(NAMES)


def test_there_are_twenty_entries_and_seven_of_them_are_right() -> None:
    verdicts = [CASES[name].entry.verdict for name in NAMES]
    assert len(verdicts) >= 20
    assert verdicts.count(Verdict.AGREES) >= 7


def test_truncations_and_clipping_are_right_as_defined() -> None:
    defined = [name for name in NAMES if CASES[name].entry.kind is Kind.AS_DEFINED]
    assert defined == [
        "eprop-approximation", "gers-truncated-lstm", "hochreiter-schmidhuber-1997",
        "min-char-rnn-clipped", "truncated-bptt",
    ]  # fmt: skip


# What a claim is exactly, where it is not the gradient.


@pytest.mark.parametrize("name", EXACT)
def test_a_claim_is_exactly_what_its_entry_says(name: str, monkeypatch) -> None:
    monkeypatch.setattr(published, "ORDINARY", Sizes(T=6, B=2, D=2, H=3, O=2))
    errors = measure_defined_errors(read_entry(name))
    assert max(errors.values()) < ROUNDING


def test_what_is_held_constant_has_no_part_in_the_derivative() -> None:
    """ℓ(w, w′) = w w′² has the derivative w′², a third of that of w³."""
    w = published.np.array([2.0, -3.0])
    found = differentiate_first(lambda p: (p["w"] * w**2).sum(), {"w": w})
    assert found["w"] == pytest.approx(w**2)


def write_own(folder: Path, *replaced: tuple[str, str]) -> str:
    """Write the template of an entry with other lines; return its path."""
    text = (ROOT / "examples" / "docket_entry.py").read_text(encoding="utf-8")
    for old, new in replaced:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "own.py").write_text(text, encoding="utf-8")
    return str(folder / "own.py")


LOSS = "    return s**2 / 2"


def test_complex_steps_refuse_a_loss_with_an_absolute_value() -> None:
    """The absolute value of a complex number has no imaginary part."""
    w = {"w": np.array([2.0, -3.0])}
    with pytest.raises(ValueError, match="analytic"):
        differentiate_first(lambda p: abs(p["w"]).sum(), w)


def test_a_loss_that_is_not_analytic_is_differentiated_by_autodiff(tmp_path: Path) -> None:
    """|s²/2| is s²/2, so that the template's gradient stays right."""
    own = write_own(tmp_path, (LOSS, "    return abs(s**2 / 2)"))
    assert max(measure_errors(read_entry(own)).values()) < ROUNDING


@pytest.mark.parametrize("errors", [{"W": 0.1, "U": 0.0}, {"U": 0.0, "W": np.nan}, {}])
def test_a_claim_that_is_not_what_its_entry_says_is_noticed(errors: dict[str, float]) -> None:
    case = read_entry("truncated-bptt")
    report = Report("x", Verdict.DISAGREES, (Mistake("truncated", "", {}),))
    row = DocketRow(case, report, {"W": 0.5}, {"W": 1e-16})
    assert row.as_stated
    assert row.word == "right as defined"
    wrong = row._replace(defined_errors=errors)
    assert not wrong.as_stated
    assert wrong.word == "disagrees"


def test_a_wrong_claim_without_its_correction_is_no_entry(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "docket_entry.py").read_text(encoding="utf-8")
    file = tmp_path / "mine.py"
    file.write_text(text.replace("AGREES", "DISAGREES"), encoding="utf-8")
    with pytest.raises(ValueError, match="to correct its wrong claim, found no formulas"):
        read_entry(str(file))


def test_an_entry_on_a_cell_that_names_no_model_is_told_so(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "docket_entry.py").read_text(encoding="utf-8")
    file = tmp_path / "mine.py"
    cell = text.partition("params = ")[0] + "def gradients(params, x, y):\n    return params\n"
    file.write_text(cell, encoding="utf-8")
    with pytest.raises(ValueError, match=r'found none; for a cell .*, set model="rnn" in ENTRY'):
        read_entry(str(file))


def test_a_reading_that_the_source_does_not_state_leaves_a_claim_wrong() -> None:
    assert read_entry("nicodjimenez-without-carousel").entry.kind is Kind.WRONG


# What the judge finds.


def check_verdict(name: str) -> None:
    case = read_entry(name)
    report = judge_entry(case)
    assert is_as_stated(case.entry, report), str(report)
    errors = measure_errors(case)
    assert (max(errors.values()) < 1e-12) is (case.entry.verdict is Verdict.AGREES)


@pytest.mark.rest
def test_the_entry_whose_turn_it_is_today_has_the_verdict_that_it_states() -> None:
    check_verdict(QUICK[TURN % len(QUICK)])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_entry_has_the_verdict_that_it_states(name: str) -> None:
    check_verdict(name)


def test_another_verdict_or_name_than_the_stated_one_is_noticed() -> None:
    entry = read_entry("min-char-rnn-clipped").entry
    clipped, zero = (Mistake(name, "", {}) for name in ("clipped", "zero-gradient"))
    found = Report("x", Verdict.DISAGREES, (clipped,))
    assert is_as_stated(entry, found)
    assert not is_as_stated(entry, found._replace(verdict=Verdict.INCONCLUSIVE))
    assert not is_as_stated(entry, found._replace(mistakes=(zero,)))
    assert not is_as_stated(entry, found._replace(mistakes=(clipped, zero)))
    assert not is_as_stated(entry, found._replace(mistakes=()))
    unnamed = entry._replace(mistake=())
    assert is_as_stated(unnamed, found._replace(mistakes=(Mistake("unknown", "", {}),)))


# The pages.


def read_page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_the_table_has_every_entry_and_no_other_in_order() -> None:
    assert re.findall(r"(?m)^\| \[([^]]+)\]\(docket/\1\.md\)", TABLE) == NAMES
    assert count_kinds([CASES[name].entry.kind for name in NAMES]) in TABLE
    assert TABLE.endswith(f"\n{TOCTREE}\n")


def test_every_entry_has_a_page_and_no_other_page_is_there() -> None:
    assert sorted(file.stem for file in PAGES.glob("*")) == NAMES


def test_the_table_says_which_claims_have_no_entry_and_why() -> None:
    assert all(f"\n- {claim}: {reason}.\n" in TABLE for claim, reason in ABSENT)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_the_text_the_verdict_and_the_certificate_of_its_entry(name: str) -> None:
    case, page = CASES[name], read_page(name)
    assert page.startswith(render_source(case))
    named = ", ".join(case.entry.mistake)
    assert f"\n**{case.entry.kind}**{', ' if named else ''}{named}.\n\nRelative error" in page
    if case.entry.kind is Kind.RIGHT or case.entry.exactly:
        assert "\nCertificate, in rational arithmetic: the claim equals " in page
    if case.entry.kind is not Kind.RIGHT:
        assert "\nIn rational arithmetic the claim is refuted: " in page
    assert LEGEND in page
    trained, cell = bool(case.entry.corrected), bool(case.entry.model)
    assert (TRAINING in page, DESCENT in page) == (trained and cell, trained and not cell)


def test_a_changed_entry_is_not_in_its_page() -> None:
    case = read_entry("tan-for-tanh")
    changed = case._replace(entry=case.entry._replace(convention="Another."))
    assert not read_page("tan-for-tanh").startswith(render_source(changed))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_page_has_what_the_judge_finds_but_for_the_digits(name: str) -> None:
    def without_digits(text: str) -> str:
        return re.sub(r"-?\d[\d.e+-]*|[▁-█]+", "#", text).replace(" ", "")

    case = read_entry(name)
    errors = measure_errors(case), measure_defined_errors(case)
    row = DocketRow(case, judge_entry(case), *errors, *certify_entry(case))
    assert without_digits(render_entry(row)) == without_digits(read_page(name))


def test_numbers_are_written_with_as_many_digits_as_tell_them_apart() -> None:
    assert write_apart([[1.19]], [[0.791]]) == ("[[1.19]]", "[[0.791]]")
    assert write_apart([1.1942, 2.0], [1.1938, 2.0]) == ("[1.1942, 2]", "[1.1938, 2]")


# The command.

COMMAND = "bptt_verifier.commands.docket"


@pytest.fixture
def two_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = {
        "tan-for-tanh": Report("a", Verdict.DISAGREES, (Mistake("unknown", "no name.", {}),)),
        "min-char-rnn": Report("b", Verdict.AGREES),
    }
    monkeypatch.setattr(COMMAND + ".list_entries", lambda: sorted(reports))
    monkeypatch.setattr(COMMAND + "_findings.judge_entry", lambda case: reports[case.name])
    monkeypatch.setattr(COMMAND + "_findings.measure_errors", lambda case: {"W": 0.25})


def test_the_list_ends_with_0_where_all_verdicts_are_as_stated(bptt, two_entries, tmp_path) -> None:
    ended = bptt("docket", "--markdown", tmp_path / "page.md")
    assert ended.code == 0
    assert re.search(r"min-char-rnn +agrees +– +equal +no", ended.out)
    assert re.search(r"tan-for-tanh +disagrees +– +refuted +yes", ended.out)
    written = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "2 entries: 1 claims give the gradient, 0 give another" in written
    assert "| [tan-for-tanh](page/tan-for-tanh.md) |" in written
    page = (tmp_path / "page" / "tan-for-tanh.md").read_text(encoding="utf-8")
    assert "**disagrees**.\n\nRelative error on ordinary data: ∂L/∂W 0.25.\n" in page
    assert sorted(file.stem for file in (tmp_path / "page").glob("*")) == [
        "min-char-rnn", "tan-for-tanh",
    ]  # fmt: skip


class Pool:
    """A pool of processes that does its work at once, or of which every worker is killed."""

    def __init__(self, killed: bool) -> None:
        self.killed, self.handed = killed, list[str]()

    def submit(self, function: Any, name: str) -> Future[Any]:
        self.handed.append(name)
        future: Future[Any] = Future()
        if self.killed:
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result((*function(name)[:1], {"by": "another process"}, {}, None, None))
        return future


@pytest.mark.parametrize("killed", [False, True])
def test_of_many_entries_a_second_process_judges_some(killed: bool, monkeypatch) -> None:
    pool, here = Pool(killed), Report("here", Verdict.AGREES)
    names = ["d2l-total", "gers-truncated-lstm", "min-char-rnn", "tan-for-tanh"]
    found = COMMAND + "_findings."
    monkeypatch.setattr(found + "MANY", len(names))
    monkeypatch.setattr(found + "started_workers", lambda number: nullcontext(pool))
    monkeypatch.setattr(found + "find_all", lambda name: (here, {}, {}, None, None))
    rows = list(judge_entries(names))
    assert [row.case.name for row in rows] == names
    assert pool.handed == names[1::2]
    assert [bool(row.errors) for row in rows] == [False, not killed, False, not killed]
    list(judge_entries(names[1:]))
    assert pool.handed == names[1::2]


@pytest.mark.parametrize("name", ["pages", "taken.md"])
def test_a_file_beside_which_no_folder_can_be_is_refused(bptt, name: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    ended = bptt("docket", "--markdown", tmp_path / name)
    assert ended.code == 2
    assert ended.err.startswith("bptt: --markdown: expected a file such as docket.md, and beside")


def test_the_list_ends_with_1_where_one_verdict_is_another(bptt, two_entries, monkeypatch) -> None:
    monkeypatch.setattr(COMMAND + "_findings.judge_entry", lambda case: Report("a", Verdict.AGREES))
    ended = bptt("docket")
    assert ended.code == 1
    assert "tan-for-tanh: stated disagrees; found agrees" in ended.out


def test_one_entry_is_shown_whole(bptt, two_entries) -> None:
    ended = bptt("docket", "tan-for-tanh")
    assert ended.code == 0
    entry = read_entry("tan-for-tanh").entry
    for text in (entry.title, entry.source, *entry.claim, entry.reading, *entry.corrected):
        assert text in ended.out
    assert "disagrees" in ended.out
    assert "∂L/∂W 0.25" in ended.out


@pytest.mark.parametrize("name", ["nobody", "entry", "no/such.py"])
def test_a_name_that_is_no_entry_is_refused_in_one_sentence(bptt, name: str) -> None:
    ended = bptt("docket", name)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("bptt: NAME: expected ")
    assert ended.err.count("\n") == 1


def test_a_file_of_ones_own_is_an_entry(tmp_path: Path) -> None:
    case = read_entry(write_own(tmp_path))
    assert case.name == "own"
    assert measure_errors(case)
    (tmp_path / "bare.py").write_text("ENTRY = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"to define ENTRY, found none"):
        read_entry(str(tmp_path / "bare.py"))


STATED = "    corrected=(),"


@pytest.mark.parametrize(
    ("stated", "missing"),
    [
        (
            '    exactly="the gradient of another loss",',
            "to define held_loss or change, found none",
        ),
        ("    deliberate=True,", "to say what its claim is exactly, found nothing"),
    ],
)
def test_an_approximation_without_its_definition_is_refused(
    stated: str, missing: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=missing):
        read_entry(write_own(tmp_path, (STATED, f"{stated}\n{STATED}")))


@pytest.mark.parametrize("line", ['raise KeyError("w")', "return {}", "return 1"])
def test_an_entry_whose_code_fails_disagrees_without_a_traceback(
    line: str, bptt, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bptt_verifier.judge.published.CASES", 1)
    body = "    s, T = [0.0], len(x)\n"
    ended = bptt("docket", write_own(tmp_path, (body, f"    {line}\n{body}")))
    assert ended.code == 1
    assert "own: stated agrees; found disagrees" in ended.out
    assert "Relative error on ordinary data: not measured." in ended.out
    assert "Traceback" not in ended.out + ended.err


def test_a_gradient_that_is_zero_is_compared_absolutely() -> None:
    zero = {"W": published.np.zeros(2)}
    assert published.compare_sizes({"W": published.np.ones(2)}, zero, ("W",))["W"] > 1


def test_a_loss_that_every_step_continues_does_not_end_the_search_for_a_name() -> None:
    """Nothing after the steps computes the loss, so nothing can be repeated at every state."""
    entry = nicodjimenez_without_carousel

    def unlike_any_mistake(p: Any) -> Any:
        return {name: value + np.sin(p[name]) for name, value in entry.gradients(p).items()}

    report = verify_own_model(unlike_any_mistake, entry.loss, entry.params, cases=2, timeout=0.1)
    (mistake,) = report.mistakes
    assert mistake.name == "unknown"
    assert "KeyError" not in str(report)


def test_the_lines_of_an_entry_are_shown_and_not_where_it_is_installed() -> None:
    entry = nicodjimenez_without_carousel
    report = verify_own_model(entry.gradients, entry.loss, entry.params, cases=2)
    (mistake,) = report.mistakes
    assert mistake.name == "recurrent-path-dropped"
    assert "`s = g * i + s * f` (bptt_verifier/docket/nicodjimenez_lstm.py:" in mistake.explanation
