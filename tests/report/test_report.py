"""A report is a value: true where the verdict is agrees, and rendered as text and as a page."""

import pytest

from bptt_verifier.report import (
    Curve,
    DerivationError,
    Mistake,
    ParameterResult,
    Report,
    StepResult,
)
from bptt_verifier.report.findings import Findings
from bptt_verifier.tolerance.comparison import Verdict

WRONG = Report(
    "<mine>",
    Verdict.DISAGREES,
    mistakes=(Mistake("transposed", "W & Wᵀ are swapped.", {}, "B3"),),
    first_wrong_step=2,
    parameters={"W": ParameterResult(Verdict.DISAGREES, 1e9, (0, 1), 1.5, 2.5, 1e-9, 3, 1e-10)},
    steps=(
        StepResult(1, Verdict.DISAGREES, 2.4, 1e-12),
        StepResult(2, Verdict.AGREES, 1e-14, 1e-12),
    ),
    curves=(Curve("a probe", (2.4, 1e-14), (1e-12, 1e-12)),),
    cases=3,
)


@pytest.mark.parametrize("verdict", Verdict)
def test_a_report_is_true_where_the_verdict_is_agrees_and_nowhere_else(verdict: Verdict) -> None:
    assert bool(Report("mine", verdict)) is (verdict is Verdict.AGREES)
    assert Findings("mine", verdict)  # which as a tuple is true whatever the verdict


def test_a_changed_report_is_a_report() -> None:
    changed = WRONG._replace(verdict=Verdict.AGREES)
    assert type(changed) is Report
    assert changed
    assert not hasattr(changed, "__dict__")
    assert changed == WRONG._replace(verdict=Verdict.AGREES)


def test_the_text_names_the_mistake_the_entry_and_the_worst_step() -> None:
    text = str(WRONG)
    assert text.startswith("disagrees: <mine>, 3 cases\n")
    assert "transposed: W & Wᵀ are swapped. See equation (B3)." in text
    assert "∂L/∂W     1e+09          0, 1   1.5    2.5       1e-10       disagrees" in text
    assert "1 of 2 adjoints δ_t disagree; the worst is δ_1, relative error 2.4 (allowed 1e" in text


def test_steps_of_which_nothing_is_known_are_not_counted_as_right() -> None:
    vague = tuple(step._replace(verdict=Verdict.INCONCLUSIVE) for step in WRONG.steps)
    assert "Single steps" not in str(WRONG._replace(steps=vague))
    assert "0 of 2 adjoints" in str(WRONG._replace(steps=(vague[0], WRONG.steps[1])))


def test_the_page_shows_the_same_and_escapes_it() -> None:
    page = WRONG.to_html()
    assert "<!doctype html>" in page
    assert WRONG._repr_html_() in page
    assert "&lt;mine&gt;" in page
    assert "W &amp; Wᵀ are swapped. See equation (" in page
    for cell in ("∂L/∂W", "1e+09", "0, 1", "1.5", "2.5"):
        assert f">{cell}</t" in page
    assert page.count("<polyline") == 1


def test_the_representation_is_the_report_on_one_line() -> None:
    assert repr(WRONG) == (
        "<Report: disagrees: transposed, at ∂L/∂W[0, 1], first wrong δ_2: "
        "W & Wᵀ are swapped. See equation (B3).>"
    )


def test_the_error_carries_the_report_and_its_text() -> None:
    error = DerivationError(WRONG)
    assert error.report is WRONG
    assert str(error) == str(WRONG)
