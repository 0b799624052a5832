"""Certificates: every claim of the docket is decided in rational arithmetic, without rounding."""

from math import log10
from pathlib import Path

import pytest

from bptt_verifier.commands.docket_findings import (
    UNDECIDED,
    DocketRow,
    certify_entry,
    describe_certificates,
)
from bptt_verifier.docket.entry import Kind
from bptt_verifier.judge.exact_identity import (
    SIZES,
    certify_definition,
    certify_identity,
    evaluate_exactly,
)
from bptt_verifier.judge.published import FOLDER, DocketCase, list_entries, read_entry
from bptt_verifier.proofs.free_values import LARGEST
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.modules import ROOT

CASES = {name: read_entry(name) for name in list_entries()}
DEFINED = [name for name, case in CASES.items() if case.entry.exactly]


@pytest.mark.parametrize("name", CASES)
def test_rational_arithmetic_decides_as_the_entry_states(name: str) -> None:
    case = CASES[name]
    found = certify_identity(case)
    assert (found.refuted is None) is (case.entry.kind is Kind.RIGHT)
    if found.refuted is None:
        assert found.log10_error < -9


@pytest.mark.parametrize("name", DEFINED)
def test_a_claim_is_exactly_what_its_entry_says(name: str) -> None:
    found = certify_definition(CASES[name])
    assert found.refuted is None
    assert found.log10_error < -9


def plant(folder: Path, name: str, right: str, wrong: str) -> DocketCase:
    """Plant a change in the code of an entry; it occurs once there."""
    source = (FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    assert source.count(right) == 1
    (folder / "planted.py").write_text(source.replace(right, wrong), encoding="utf-8")
    return read_entry(str(folder / "planted.py"))


@pytest.mark.parametrize(
    ("name", "right", "wrong", "gradient"),
    [
        # far below what floats can show
        ("d2l-immediate", "output, h[t])", "output, h[t]) * (1 + 2.0**-50)", "W_qh"),
        ("lstm-peepholes", "c[t + 1] * do", "c[t + 1] * do * (1 - 2.0**-50)", "po"),
        ("cs231n-rnn-step", "db += dtanh.sum", "db += (1 + 2.0**-50) * dtanh.sum", "b"),
        ("min-char-rnn", "(1 - h[t + 1] ** 2) *", "(1 + h[t + 1] ** 2) *", "Wxh"),
        ("layer-norm-rnn", "q - q.mean() -", "q -", "W_hh"),
        ("attention-decoder", " + inner @", " - inner @", "h"),
    ],
)
def test_a_planted_change_breaks_a_certificate(
    name: str, right: str, wrong: str, gradient: str, tmp_path: Path
) -> None:
    assert certify_identity(plant(tmp_path, name, right, wrong)).refuted == gradient


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("gers-truncated-lstm", "np.zeros_like(dh), ds * f", "np.zeros_like(dh), ds * f * f"),
        ("truncated-bptt", "range(max(T - 4, 0), T)", "range(max(T - 3, 0), T)"),
        ("min-char-rnn-clipped", "return {name: np.clip(value, -5, 5) for name, value in d.",
         "return {name: np.clip(value, -5, 6) for name, value in d."),
    ],
)  # fmt: skip
def test_a_planted_change_breaks_the_certificate_of_a_definition(
    name: str, right: str, wrong: str, tmp_path: Path
) -> None:
    assert certify_definition(plant(tmp_path, name, right, wrong)).refuted


def test_clipping_is_decided_where_it_changes_some_entries_and_not_others() -> None:
    claimed = evaluate_exactly(read_entry("min-char-rnn-clipped")).claimed
    sizes = [abs(entry) for gradient in claimed.values() for entry in gradient.flat]
    assert max(sizes) == 5
    assert 5 <= sum(size < 5 for size in sizes) <= len(sizes) - 5


def test_the_data_of_a_claim_are_not_rounded() -> None:
    """E-prop multiplies inputs by 3/4 again and again; in floats the last bit would be lost."""
    assert certify_identity(read_entry("eprop-ideal")).refuted is None


def certified_row(case: DocketCase, verdict: Verdict) -> DocketRow:
    return DocketRow(case, Report("x", verdict), {}, {}, *certify_entry(case))


def describe(case: DocketCase, verdict: Verdict) -> list[str]:
    return describe_certificates(certified_row(case, verdict))


def test_a_certificate_says_what_is_equal_and_which_values_are_free() -> None:
    (line,) = describe(read_entry("pascanu-jacobian"), Verdict.DISAGREES)
    assert line.startswith("In rational arithmetic the claim is refuted: ∂L/∂W_rec is another")
    (line,) = describe(read_entry("d2l-immediate"), Verdict.AGREES)
    assert "the claim equals the derivative of the loss at a random rational point. If" in line
    assert "below 10^-18." in line
    (line,) = describe(read_entry("gru-pytorch"), Verdict.AGREES)
    assert "with the values of exp, tanh as free variables" in line
    refuted, defined = describe(read_entry("truncated-bptt"), Verdict.DISAGREES)
    assert "refuted" in refuted
    assert f"the claim equals {read_entry('truncated-bptt').entry.exactly} at" in defined


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("d2l-immediate", "equal"), ("d2l-total", "refuted"), ("truncated-bptt", "as defined"),
        ("nicodjimenez-without-carousel", "refuted"),
    ],
)  # fmt: skip
def test_the_table_has_a_word_for_what_is_decided(name: str, word: str) -> None:
    case = read_entry(name)
    assert certified_row(case, case.entry.verdict).certificate == word


def test_a_certificate_that_contradicts_what_an_entry_states_is_noticed() -> None:
    case = read_entry("d2l-immediate")
    wrong = case._replace(entry=case.entry._replace(verdict=Verdict.DISAGREES))
    row = DocketRow(wrong, Report("x", Verdict.DISAGREES), {}, {})
    assert row.as_stated
    assert not row._replace(identity=certify_identity(case)).as_stated


def write_own(folder: Path, loss: str, gradient: str) -> DocketCase:
    """Write the template of an entry with another loss of w, and its gradient."""
    source = (ROOT / "examples" / "docket_entry.py").read_text(encoding="utf-8")
    code = f'def loss(p):\n    w = p["w"]\n    return {loss}\n\n\ndef gradients(p):\n    w = p["w"]\n    return {{"w": {gradient}}}\n'  # noqa: E501
    text = source[: source.index("def loss")] + code
    (folder / "own.py").write_text(text, encoding="utf-8")
    return read_entry(str(folder / "own.py"))


def test_a_right_claim_by_a_relation_that_is_not_known_is_not_accused(tmp_path: Path) -> None:
    """exp 2w is (exp w)²; the free values do not know it, and nothing is said against the claim."""
    case = write_own(tmp_path, "np.exp(w) ** 2", "2 * np.exp(2 * w)")
    assert certify_identity(case).refuted == "w"
    assert describe(case, Verdict.AGREES) == [UNDECIDED]
    assert certified_row(case, Verdict.AGREES).certificate == "–"


def test_the_degree_is_that_of_the_difference_and_of_what_may_collide(tmp_path: Path) -> None:
    """(1 − t²) d has degree 3; that one argument is zero by chance has degree 2 · 1 · 1."""
    found = certify_identity(write_own(tmp_path, "np.tanh(w)", "1 - np.tanh(w) ** 2"))
    assert (found.refuted, found.functions, found.degree) == (None, ["tanh"], 3 + 2)
    assert found.log10_error == pytest.approx(log10(5 / 2**64))  # of one in 2⁶⁴ numbers, 5
    refuted = certify_identity(write_own(tmp_path, "np.tanh(w)", "1 + np.tanh(w) ** 2"))
    assert (refuted.refuted, refuted.log10_error) == ("w", 0)  # the chance 1: nothing is proved


def test_sizes_and_numbers_are_those_that_the_page_on_certification_states() -> None:
    text = (ROOT / "docs" / "certification.md").read_text(encoding="utf-8")
    sizes = ", ".join(f"{name} = {size}" for name, size in SIZES._asdict().items())
    assert f"A cell has {sizes} and random data" in text
    assert "$0 < |k| \\le 2^{63}$; for a claim that is clipped $k / 2^{61}$" in text
    assert LARGEST == 2**63
    for name, scale in [("pascanu-jacobian", 1), ("min-char-rnn-clipped", 2**61)]:
        assert evaluate_exactly(CASES[name]).values.scale == scale


def test_sizes_at_which_numbers_grow_too_long_give_no_certificate(tmp_path: Path) -> None:
    case = write_own(tmp_path, "w ** 10**9", "w")
    assert describe(case, Verdict.DISAGREES) == [UNDECIDED]


def test_a_function_without_a_free_value_gives_no_certificate(tmp_path: Path) -> None:
    case = write_own(tmp_path, "np.sin(w)", "np.cos(w)")
    assert describe(case, Verdict.AGREES) == [UNDECIDED]
