"""One case that a report names is compared again, and nothing else."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier import Report, compare_case
from bptt_verifier.program import decisions
from bptt_verifier.tolerance.comparison import Verdict

SETTINGS = [{"W": np.ones((2, 2)), "b": np.ones(2)}, {"W": np.ones((2, 3)), "b": np.ones(2)}]


def loss(p: Any) -> Any:
    return np.sum(np.tanh(p["W"].sum(1) + p["b"]) ** 2)


def gradients(p: Any, factor: float = 1.0) -> Any:
    h = np.tanh(p["W"].sum(1) + p["b"])
    d = 2 * h * (1 - h**2)
    return {"W": np.outer(d, np.ones(p["W"].shape[1])), "b": factor * d}


def test_a_case_is_compared_at_the_values_that_its_name_draws() -> None:
    report = compare_case(gradients, loss, SETTINGS, "4,setting=2,digits=1", seed=3)
    assert report.verdict is Verdict.AGREES
    assert report.tried.startswith("1 case up to W=(2, 3)")
    assert report.counterexample is not None
    assert np.shape(report.counterexample.arrays["W"]) == (2, 3)
    counted, note = report.notes
    assert counted == "1 of 1 case could have shown a mistake in every gradient."
    assert note.startswith(f"At W = {report.counterexample.arrays['W']}, b = [")
    wrong = compare_case(lambda p: gradients(p, 2.0), loss, SETTINGS[0], "0")
    assert [wrong.parameters[name].verdict for name in "Wb"] == [
        Verdict.AGREES, Verdict.DISAGREES,
    ]  # fmt: skip
    assert wrong.notes[1:] == ("At W = [[1, 1], [1, 1]], b = [1, 1].",)
    for shown in (str, Report.to_html):
        assert "smallest failing case" not in shown(report)
        assert "The case that was compared" in shown(report)
        assert "The smallest failing case" in shown(wrong)
    raised = compare_case(lambda p: 1 / 0, loss, SETTINGS[0], "0")
    assert [mistake.name for mistake in raised.mistakes] == ["raised"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("x", "expected a name such as 7,digits=1"),
        ("1,setting=3", "found setting 3 of 2"),
        ("1,V*2.0", "expected factors of W, b, found one of V"),
    ],
)
def test_what_names_no_case_is_refused(case: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compare_case(gradients, loss, SETTINGS, case)


def test_a_loss_without_a_reference_is_refused() -> None:
    def failing(p: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ValueError, match=r"can be compared, found none: loss.* raised Zero"):
        compare_case(gradients, failing, SETTINGS[0], "1")


def test_a_report_has_the_name_and_the_seed_that_are_given() -> None:
    report = compare_case(gradients, loss, SETTINGS[0], "0")
    assert (report.subject, report.seed, report.mistakes) == ("your model", 0, ())
    assert compare_case(gradients, loss, SETTINGS[0], "0", subject="mine").subject == "mine"


def test_a_loss_that_differs_is_the_one_mistake() -> None:
    report = compare_case(lambda p: (2 * loss(p), gradients(p)), loss, SETTINGS[0], "0")
    assert report.verdict is Verdict.DISAGREES
    assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]


@pytest.mark.parametrize(("entries", "written"), [(40, True), (41, False)])
def test_parameters_of_40_entries_are_written_out(entries: int, written: bool) -> None:
    def square(p: Any) -> Any:
        return np.sum(p["w"] ** 2)

    report = compare_case(lambda p: {"w": 2 * p["w"]}, square, {"w": np.ones(entries)}, "0")
    assert any(note.startswith("At w = ") for note in report.notes) == written


def settle(weight: float, tolerance: float) -> float:
    z, step = 0.0, np.inf
    while abs(step) > tolerance:
        step = np.tanh(weight * z + 1) - z
        z += step
    return z


@pytest.mark.parametrize(
    ("tolerance", "wrong", "verdict", "said"),
    [
        (1e-5, False, Verdict.AGREES, " ends before rounding would end it. "),
        (1e-5, True, Verdict.DISAGREES, ""),
        (1e-2, False, Verdict.INCONCLUSIVE, "let the loss take more steps."),
    ],
)
def test_an_iteration_that_ends_early_is_allowed_for_at_one_case(
    tolerance: float, wrong: bool, verdict: Verdict, said: str
) -> None:
    def implicit(p: Any) -> Any:
        z = settle(p["w"][0], tolerance)
        slope = 1 - z**2
        return {"w": np.array([2 * z**2 * slope / (1 - (not wrong) * p["w"][0] * slope)])}

    def square(p: Any) -> Any:
        return settle(p["w"][0], tolerance) ** 2

    report = compare_case(implicit, square, {"w": np.array([0.8])}, "0")
    assert report.verdict is verdict
    assert any(said in note for note in report.notes)


@pytest.mark.parametrize(("off", "verdict"), [(2.0**-21, False), (2.0**-19, True)])
def test_what_a_solver_without_a_trace_may_leave_is_no_mistake_at_one_case(
    off: float, verdict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "OPERATIONS", 0)

    def square(p: Any) -> Any:
        return np.sum(np.square(p["w"]))

    def slope(p: Any) -> Any:
        return {"w": 2 * p["w"] * (1 + off)}

    report = compare_case(slope, square, {"w": np.array([0.8])}, "0")
    assert report.verdict is (Verdict.DISAGREES if verdict else Verdict.INCONCLUSIVE)
    assert report.parameters["w"].verdict is report.verdict
    assert any("a solver or a loop in it" in note for note in report.notes) != verdict


@pytest.mark.parametrize(("off", "verdict"), [(0.0, Verdict.AGREES), (1e-4, Verdict.DISAGREES)])
def test_errors_that_scatter_are_those_of_rounding_at_one_case(
    off: float, verdict: Verdict
) -> None:
    weights, x = np.random.default_rng(0).normal(size=(6, 6)), np.arange(6) / 6

    def square(p: Any) -> Any:
        return np.sum(np.tanh(p["W"] @ np.tanh(p["W"] @ x)) ** 2)

    def in_float32(p: Any) -> Any:
        w, given = p["W"].astype(np.float32), x.astype(np.float32)
        h = np.tanh(w @ given)
        k = np.tanh(w @ h)
        d = 2 * k * (1 - k * k)
        found = np.outer(d, h) + np.outer((1 + off) * w.T @ d * (1 - h * h), given)
        # No number of float32, so that neighbours alone can tell.
        return {"W": found.astype(float) * (1 + 1e-9 * np.sin(1e9 * p["W"]))}

    assert compare_case(in_float32, square, {"W": weights}, "0").verdict is verdict
