"""What a judgement concludes from its steps, for a loss whose gradient is its parameter."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import path
from bptt_verifier.judge.path import SubjectJudgement, judge
from bptt_verifier.judge.submission import Breach, Submission
from bptt_verifier.judge.unconverged import Kept
from bptt_verifier.report import Mistake, Report
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.squares import UNKNOWN, Squares, begin, case_at, fail, right, wrong_at_two
from tests.support.stated_cases import state_case, state_compared, state_overflow

# The whole path.


def test_what_agrees_is_reported_with_all_notes_in_order() -> None:
    cases, extreme = [case_at(1.0), case_at(3.0)], [case_at(5.0)]
    report = judge(
        lambda w: right(w) | {"other": 1.0}, Squares(cases, [case_at(2.0)], extreme), "a name"
    )
    assert report.verdict is Verdict.AGREES
    assert (report.subject, report.cases, report.largest_sizes) == ("a name", 3, {"cases": 3})
    assert report.notes == (
        "a note",
        f"24 of 24 cases {COUNTED}",
        "unseen",
        "Not checked: other. Results of this model that can be compared have the names w, loss.",
    )


def test_what_disagrees_is_reported_with_the_cases_where_it_does() -> None:
    cases = [case_at(1.0, "first"), case_at(2.0, "second")]
    report = judge(wrong_at_two, Squares(cases, extreme=[case_at(3.0)]), "")
    assert report.verdict is Verdict.DISAGREES
    assert report.mistakes == (UNKNOWN,)
    assert report.cases == 2  # extreme cases are not asked then
    assert report.notes[:2] == ("failing: second", "a note")
    assert "unseen" not in report.notes


def test_what_is_undecided_is_reported_without_what_was_unseen() -> None:
    report = judge(right, Squares([case_at(1.0, allowed=1e5)]), "")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.notes[:2] == ("a note", f"24 of 24 cases {COUNTED}")
    assert not any(note.startswith(("failing", "unseen")) for note in report.notes)


def test_cases_are_counted_once_where_a_coarser_format_hides_mistakes() -> None:
    cases = [case_at(1.0), case_at(1.0, allowed=0.5)]
    report = judge(lambda w: {"w": w.astype(np.float32)}, Squares(cases), "")
    assert report.verdict is Verdict.AGREES
    counted = [note for note in report.notes if note.endswith(COUNTED)]
    assert counted == [f"In float32, 1 of 2 cases {COUNTED}"]
    assert "a note" in report.notes


@pytest.mark.parametrize(("number", "refused"), [(1, False), (2, True)])
def test_more_cases_that_are_left_out_than_compared_are_refused(number: int, refused: bool) -> None:
    judgement = begin(right)
    judgement.compare_cases()
    overflows = [state_overflow(np.float16, label) for label in ("first", "second")]
    judgement.overflows = overflows[:number]
    report = judgement.conclude()
    assert report.verdict is (Verdict.DISAGREES if refused else Verdict.AGREES)
    if refused:
        assert [each.explanation for each in report.mistakes] == ["first"]


def test_results_that_depend_on_earlier_calls_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    judgement = begin(right)
    judgement.compare_cases()
    monkeypatch.setattr(path, "find_dependence", lambda *given: (UNKNOWN, ()))
    report = judgement.conclude()
    assert (report.verdict, report.mistakes) == (Verdict.DISAGREES, (UNKNOWN,))


# Gradients that read what the loss keeps.


def follow(gradients: Callable[..., Any]) -> Callable[..., Submission]:
    return lambda submission, case, answer: Submission(gradients)


@pytest.mark.parametrize(
    ("alone", "followed", "refusal", "names"),
    [
        (fail, right, None, []),
        (right, fail, None, ["raised"]),
        (right, lambda w: {"w": w, "loss": 2.0}, "refused", []),
        (right, fail, "refused", []),
    ],
)
def test_a_submission_is_asked_after_the_loss_whose_values_it_reads(
    alone: Any, followed: Any, refusal: str | None, names: list[str]
) -> None:
    judgement = begin(alone, contract=[case_at(1.0)])
    judgement.subject.follow_loss = follow(followed)  # type: ignore[method-assign]
    judgement.subject.refusal = refusal
    found = judgement.check_contract()
    assert judgement.submission.gradients is followed
    if refusal is not None:
        assert found is not None
        assert (found.verdict, found.notes[-1]) == (Verdict.INCONCLUSIVE, "refused")
    assert [each.name for each in (() if found is None else found.mistakes)] == names


# Half precision that errors alone tell.


@pytest.mark.parametrize(
    ("precision", "inferred", "decides"),
    [(np.float16, True, False), (np.float16, False, True), (np.float32, True, True)],
)
def test_half_precision_in_doubt_decides_nothing(
    precision: Any, inferred: bool, decides: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    judgement = begin(right)
    judgement.compare_cases()
    judgement.precision, judgement.inferred = precision, inferred
    monkeypatch.setattr(path, "doubt_format", lambda *given: ["in doubt"])
    report = judgement.conclude()
    assert report.verdict is (Verdict.AGREES if decides else Verdict.INCONCLUSIVE)
    assert (report.notes[0] == "in doubt") is not decides
    assert "a note" in report.notes


# Gradients that are rounded.


@pytest.mark.parametrize(
    ("names", "doubts", "kept"),
    [
        (["unknown"], [], False),
        (["unknown", "clipped"], [], True),
        (["unknown"], ["in doubt"], True),
        ([], [], False),
    ],
)
def test_another_name_or_a_doubt_comes_before_that_of_a_rounded_gradient(
    names: list[str], doubts: list[str], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = list[Any]()

    def conclude(*given: Any) -> Report:
        stated.append(given[5])
        mistakes = tuple(Mistake(name, "", {}) for name in names)
        return Report("", Verdict.DISAGREES, mistakes)

    monkeypatch.setattr(path, "conclude", conclude)
    monkeypatch.setattr(path, "list_doubts", lambda *given: doubts)
    assert (begin(right).find_other_name() is not None) is kept
    assert stated == [("a note", f"24 of 24 cases {COUNTED}")]
    judgement = begin(right, [case_at(1.0), case_at(1.0, allowed=1e5)])
    judgement.subject.notes = ("a note",)  # as where the cases are not counted ahead
    judgement.compare_cases()
    judgement.find_other_name()
    assert stated[1] == ("a note", f"1 of 2 cases {COUNTED}")


def test_a_loss_that_scatter_shows_to_be_another_one_is_reported_with_what_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judgement = begin(right, [case_at(1.0)])
    judgement.compare_cases()
    (found,) = judgement.compared
    decided = found._replace(allowed={"w": np.full(2, 0.5)})
    monkeypatch.setattr(path, "decide_by_scatter", lambda *given: ([decided, found], ["slight"]))
    monkeypatch.setattr(path, "find_new_difference", lambda *given: UNKNOWN)
    report = judgement.conclude()
    assert (report.verdict, report.mistakes) == (Verdict.DISAGREES, (UNKNOWN,))
    assert judgement.compared == [decided]


@pytest.mark.parametrize("other", [None, Report("another", Verdict.INCONCLUSIVE)])
def test_a_rounded_gradient_disagrees_unless_its_errors_have_another_reason(
    other: Report | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    judgement = begin(right)
    judgement.compare_cases()
    monkeypatch.setattr(path, "find_rounded", lambda compared: UNKNOWN)
    judgement.find_other_name = lambda: other  # type: ignore[method-assign]
    report = judgement.conclude()
    if other is None:
        assert (report.verdict, report.mistakes) == (Verdict.DISAGREES, (UNKNOWN,))
    else:
        assert report is other


# Cases that are left out, or compared in another way.

FAILING: Any = begin(wrong_at_two).attempt(case_at(2.0))
AGREEING: Any = begin(right).attempt(case_at(1.0))


def keep(*found: Any, note: str = "", doubt: str = "") -> Kept:
    said, doubts = (tuple(filter(None, [each])) for each in (note, doubt))
    return Kept([*found], [*found], [*found], said, doubts)


@pytest.mark.parametrize(
    ("unconverged", "guarded", "notes"),
    [
        (None, None, None),
        (None, keep(AGREEING, note="guarded"), ("guarded",)),
        (None, keep(FAILING, note="guarded"), ("guarded",)),
        (keep(AGREEING, note="early"), keep(AGREEING, note="guarded"), ("early",)),
        (keep(FAILING, note="early"), keep(AGREEING, note="guarded"), ("guarded",)),
        (keep(FAILING, note="early"), None, ("early",)),
    ],
)
def test_guards_are_looked_for_where_iterations_do_not_explain_all(
    unconverged: Kept | None,
    guarded: Kept | None,
    notes: tuple[str, ...] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(path, "allow_unconverged", lambda *given: unconverged)
    monkeypatch.setattr(path, "leave_out_guarded", lambda *given: guarded)
    kept = begin(right).excuse_cases([AGREEING])
    assert (None if kept is None else kept.notes) == notes


def begin_with(
    monkeypatch: pytest.MonkeyPatch,
    gradients: Any,
    excused: Kept | None,
    narrow: Kept | None = None,
    **more: Any,
) -> SubjectJudgement:
    """A judgement whose cases have been compared, and what is excused of them."""
    judgement = begin(gradients, **more)
    judgement.compare_cases()
    judgement.excuse_cases = lambda compared: excused  # type: ignore[method-assign]
    monkeypatch.setattr(path, "leave_out_narrow", lambda *given: narrow)
    return judgement


@pytest.mark.parametrize(
    ("excused", "narrow", "agrees", "note"),
    [
        (None, None, False, ""),
        (keep(AGREEING, note="early"), None, True, "early"),
        (keep(AGREEING, note="early"), keep(FAILING, note="narrow"), True, "early"),
        (keep(FAILING, note="early"), None, False, "early"),
        (keep(FAILING, note="early"), keep(AGREEING, note="narrow"), True, "narrow"),
        (None, keep(AGREEING, note="narrow"), True, "narrow"),
    ],
)
def test_what_is_kept_of_the_cases_decides(
    excused: Kept | None,
    narrow: Kept | None,
    agrees: bool,
    note: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = [case_at(2.0), case_at(1.0)]
    judgement = begin_with(monkeypatch, wrong_at_two, excused, narrow, cases=cases)
    report = judgement.conclude()
    assert report.verdict is (Verdict.AGREES if agrees else Verdict.DISAGREES)
    assert (not note) or note in report.notes
    if note:  # of the two cases one is kept: the notes on it count
        assert report.cases == 1
        (counted,) = [each for each in report.notes if each.endswith(COUNTED)]
        assert "of 1 case " in counted


@pytest.mark.parametrize(
    ("excused", "differs"), [(None, True), (keep(FAILING), True), (keep(AGREEING), False)]
)
def test_a_forward_pass_that_differs_where_nothing_has_converged_waits_for_what_is_kept(
    excused: Kept | None, differs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    judgement = begin_with(monkeypatch, right, excused)
    judgement.differs = Mistake("forward-differs", "", {})
    report = judgement.conclude()
    assert [each.name for each in report.mistakes] == ["forward-differs"] * differs
    assert report.verdict is (Verdict.DISAGREES if differs else Verdict.AGREES)


def test_what_is_kept_in_doubt_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    judgement = begin_with(monkeypatch, right, keep(AGREEING, note="kept", doubt="in doubt"))
    report = judgement.conclude()
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.notes[:2] == ("in doubt", "kept")


@pytest.mark.parametrize(
    ("excused", "cases", "counted"),
    [(None, 1, True), (keep(AGREEING, AGREEING), 2, True), (keep(AGREEING), 1, False)],
)
def test_cases_are_counted_again_where_some_are_left_out(
    excused: Kept | None, cases: int, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a case and a probe, which shows single steps and is no case."""
    monkeypatch.setattr(path, "find_dependence", lambda *given: (None, ()))
    judgement = begin_with(monkeypatch, right, excused)
    steps = {"w": np.ones(2), "U": np.ones((1, 2))}
    probe = state_compared(steps, steps, dict.fromkeys(steps, np.full((1, 2), 1e-9)))
    judgement.probes = [probe._replace(case=state_case(steps, steps, steps))]
    report = judgement.conclude()
    assert report.cases == cases + (excused is None)  # what is kept has no probes
    assert (f"24 of 24 cases {COUNTED}" in report.notes) is counted
    assert len(report.steps) == 2 * (excused is None)


# Draws at which the function raises.

RAISED = Breach(Mistake("raised", "it raised", {}), ("ValueError.",))


@pytest.mark.parametrize("raised", [0, 1])
@pytest.mark.parametrize("compared", [0, 1])
def test_nothing_that_could_be_compared_is_inconclusive(raised: int, compared: int) -> None:
    judgement = begin(right, cases=[case_at(1.0)] * compared)
    judgement.compare_cases()
    judgement.raised = [RAISED] * raised
    report = judgement.conclude()
    assert ("Nothing could be compared." in report.notes) is bool(raised and not compared)
    assert any("was left out: it raised there" in each for each in report.notes) is bool(raised)
    if raised and not compared:
        assert (report.verdict, report.cases) == (Verdict.INCONCLUSIVE, 0)


@pytest.mark.parametrize(
    ("few", "missing", "verdict"),
    [
        ([], [], Verdict.AGREES),
        (["few"], [], Verdict.INCONCLUSIVE),
        ([], ["missing"], Verdict.INCONCLUSIVE),
        (["few"], ["missing"], Verdict.INCONCLUSIVE),
    ],
)
def test_too_few_cases_or_a_gradient_that_is_missing_decide_nothing(
    few: list[str], missing: list[str], verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "doubt_few", lambda *given: few)
    monkeypatch.setattr(path, "doubt_missing", lambda *given: missing)
    judgement = begin(right)
    judgement.compare_cases()
    report = judgement.conclude()
    assert report.verdict is verdict
    assert report.notes[: len(few) + len(missing)] == (*few, *missing)
    assert ("unseen" in report.notes) is (verdict is Verdict.AGREES)


# What disagrees.


def test_an_iteration_that_ends_early_is_told_of_at_cases_that_are_the_users_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = list[list[str]]()

    def describe(subject: Any, cases: Any) -> list[str]:
        seen.append([each.case.label for each in cases])
        return ["early"]

    monkeypatch.setattr(path, "describe_early", describe)
    judgement = begin(wrong_at_two, [case_at(2.0, "given"), case_at(2.0, "drawn")])
    judgement.subject.may_be_outside = lambda case: case.label == "drawn"  # type: ignore[method-assign]
    judgement.compare_cases()
    report = judgement.conclude()
    assert seen == [["given"]]
    assert report.verdict is Verdict.DISAGREES
    assert report.notes[:2] == ("early", "failing: given, drawn")


@pytest.mark.parametrize("later", [None, right])
def test_a_class_is_asked_on_an_object_of_a_later_call(
    later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Any]()

    def find_dependence(settled: Any, ask: Any, on_object: Any, _: Any) -> Any:
        asked.append(on_object)
        return None, ("a remark",)

    def gradients(w: Any) -> Any:
        return right(w)

    if later is not None:
        gradients.at_later_call = later  # type: ignore[attr-defined]
    monkeypatch.setattr(path, "find_dependence", find_dependence)
    judgement = begin(gradients)
    judgement.compare_cases()
    assert "a remark" in judgement.conclude().notes
    (on_object,) = asked
    assert (on_object is not None) is (later is not None)
    if on_object is not None:
        assert on_object.func == judgement.compare_with
        assert on_object.args[0].gradients is right


@pytest.mark.parametrize(
    ("gradients", "excused", "changes", "asked"),
    [
        (right, None, False, True),
        (wrong_at_two, None, False, False),  # at one of two cases
        (right, keep(AGREEING), False, False),
        (right, None, True, False),
    ],
)
def test_stale_answers_are_sought_where_nothing_else_is_wrong_or_excused(
    gradients: Any, excused: Kept | None, changes: bool, asked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls, stale = list[Any](), Mistake("depends-on-calls", "It is stale.", {})
    other = Mistake("depends-on-calls", "It changes.", {})
    judgement = begin_with(monkeypatch, gradients, excused, cases=[case_at(1.0), case_at(2.0)])
    judgement.probes = []

    def find_stale(subject: Any, compared: Any, ask: Any) -> Mistake:
        assert subject is judgement.subject
        calls.append([each.case.label for each in compared])
        return stale

    monkeypatch.setattr(path, "find_stale", find_stale)
    monkeypatch.setattr(path, "find_dependence", lambda *given: (other if changes else None, ()))
    report = judgement.conclude()
    assert calls == [["a case", "a case"]] * asked
    assert (stale in report.mistakes) is asked
    assert (other in report.mistakes) is changes


@pytest.mark.parametrize("outside", [False, True])
def test_a_case_outside_of_a_domain_at_which_a_function_raises_is_noted(outside: bool) -> None:
    judgement = begin(fail)
    judgement.subject.may_be_outside = lambda case: outside  # type: ignore[method-assign]
    report = judgement.compare_cases()
    assert [each.mistake.name for each in judgement.raised] == ["raised"] * outside
    assert (report is None) is outside


def test_an_underflow_that_the_function_takes_for_an_exception_ends_no_verdict() -> None:
    def underflow_at_two(w: Any) -> Any:
        with np.errstate(all="raise"):
            return {"w": w + (np.exp(np.float32(-100)) if w[0] == 2 else 0)}

    judgement = begin(underflow_at_two, [case_at(1.0), case_at(2.0)])
    assert judgement.compare_cases() is None
    assert [each.by_settings for each in judgement.raised] == [True]
    judgement = begin(underflow_at_two)
    refused = judgement.compare_case(case_at(2.0))  # the first case, which is the user's own
    assert refused is not None
    assert [each.name for each in refused.mistakes] == ["raised"]
