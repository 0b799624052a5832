"""Each step from a function to its report, for a loss whose gradient is its parameter."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import path
from bptt_verifier.judge.judgement import Judgement
from bptt_verifier.judge.path import LEARNING, SubjectJudgement
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.unconverged import SEVERAL
from bptt_verifier.program.fixed_points import Limit
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.points import Point
from bptt_verifier.report import Mistake, Report
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.comparison import Verdict
from bptt_verifier.tolerance.scatter import NEIGHBOURS
from tests.support.squares import Squares, begin, case_at, fail, right, wrong_at_two
from tests.support.stated_cases import state_case, state_compared, state_overflow


class Steps(Judgement):
    """A judgement whose steps find these."""

    def __init__(self, *found: Report | None) -> None:
        self.found, self.taken = found, list[Report | None]()

    def take(self, found: Report | None) -> Report | None:
        self.taken.append(found)
        return found

    @property
    def steps(self) -> Any:
        return [lambda found=each: self.take(found) for each in self.found]

    def conclude(self) -> Report:
        return Report("concluded", Verdict.AGREES)


def test_steps_are_taken_until_one_ends_the_judgement() -> None:
    first, second = Report("first", Verdict.AGREES), Report("second", Verdict.AGREES)
    ended = Steps(None, first, second)
    assert ended.judge() is first
    assert ended.taken == [None, first]
    through = Steps(None, None)
    assert through.judge().subject == "concluded"
    assert through.taken == [None, None]


# Reports before the conclusion.


@pytest.mark.parametrize(
    ("by_loss", "names", "raised"),
    [
        (False, [], False),
        (True, [], True),
        (False, ["raised", "unknown"], True),
        (False, ["unknown"], False),
    ],
)
def test_a_report_tells_whether_the_users_code_raised(
    by_loss: bool, names: list[str], raised: bool
) -> None:
    judgement = begin(right)
    judgement.subject.raised = by_loss
    judgement.compare_cases()
    mistakes = [Mistake(name, "", {}) for name in names]
    found = judgement.report(Verdict.INCONCLUSIVE, *mistakes, notes=("said",))
    assert found.raised is raised
    assert found.mistakes == (*mistakes,)
    # The cases that could tell are counted among those that were compared.
    assert found.notes == ("a note", f"1 of 1 case {COUNTED}", "said")
    assert (found.cases, found.largest_sizes) == (1, {"cases": 1})


def test_a_report_has_the_sizes_of_calls_that_gave_nothing_to_compare() -> None:
    found = begin(fail, contract=[case_at(1.0)]).check_contract()
    assert found is not None
    assert (found.cases, found.largest_sizes) == (0, {"cases": 1})
    assert f"0 of 0 cases {COUNTED}" in found.notes
    found = begin(fail).compare_cases()
    assert found is not None
    assert (found.cases, found.largest_sizes) == (0, {"cases": 1})


def test_a_function_that_raises_is_refused_before_numbers_are_compared() -> None:
    found = begin(fail, contract=[case_at(1.0)]).check_contract()
    assert found is not None
    assert found.verdict is Verdict.DISAGREES
    assert [each.name for each in found.mistakes] == ["raised"]


@pytest.mark.parametrize(
    ("gradients", "names"),
    [
        (right, []),
        (lambda w: {"w": w, "loss": 1.0}, []),
        (lambda w: {"w": w, "loss": 2.0}, ["forward-differs"]),
    ],
)
def test_a_subject_may_refuse_every_verdict_but_one_on_the_loss(
    gradients: Any, names: list[str]
) -> None:
    judgement = begin(gradients, contract=[case_at(1.0)])
    assert judgement.check_contract() is None
    judgement.subject.refusal = "refused"
    found = judgement.check_contract()
    assert found is not None
    assert [each.name for each in found.mistakes] == names
    assert found.verdict is (Verdict.DISAGREES if names else Verdict.INCONCLUSIVE)
    assert found.notes[-1] == "refused"


def test_what_contradicts_the_reference_ends_the_judgement() -> None:
    judgement = begin(right, [case_at(1.0), case_at(2.0)])
    assert judgement.compare_cases() is None
    judgement = begin(right, [case_at(1.0), case_at(2.0)])
    assert isinstance(judgement.subject, Squares)
    judgement.subject.doubts = {1: "in doubt"}
    found = judgement.compare_cases()
    assert found is not None
    assert (found.verdict, found.cases) == (Verdict.INCONCLUSIVE, 1)
    assert found.notes[-1] == "in doubt"


def test_a_case_is_compared_or_ends_the_judgement() -> None:
    judgement, seen = begin(right), list[tuple[int, int]]()
    judgement.progress = lambda done, total: seen.append((done, total))
    assert judgement.compare_case(case_at(1.0)) is None
    assert seen == [(1, 7)]
    assert [each.fails for each in judgement.compared] == [False]
    assert judgement.attempt(case_at(1.0)) is not None
    for gradients, name in [
        (fail, "raised"),
        (lambda w: {"w": w, "loss": 2.0}, "forward-differs"),
    ]:
        ending = begin(gradients)
        report = ending.compare_cases()
        assert report is not None
        assert [each.name for each in report.mistakes] == [name]
        assert ending.compared == []
    assert begin(fail).attempt(case_at(1.0)) is None


def test_only_results_of_the_forward_pass_that_fail_are_weighed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[Any]()

    def weigh(attempt: Any, subject: Any, found: Any, names: Any, entries: int) -> Any:
        asked.append(names)
        return found

    monkeypatch.setattr(path, "weigh", weigh)
    for loss, factor in [(1.0, 1.5), (2.0, 1.5), (2.0, 1.0)]:
        judgement = begin(lambda w, loss=loss, by=factor: {"w": by * w, "loss": loss})
        judgement.learnt = LEARNING
        judgement.compare_case(case_at(1.0))
    assert asked == [["loss"], ["loss"]]


@pytest.mark.parametrize(
    ("precision", "learnt", "dtype", "learns"),
    [
        (None, LEARNING - 1, np.float64, True),
        (None, LEARNING, np.float64, False),
        (np.float32, 0, np.float64, False),
        (None, 0, np.float32, False),
    ],
)
def test_a_format_is_learnt_from_the_first_cases_in_float64(
    precision: Any, learnt: int, dtype: Any, learns: bool
) -> None:
    judgement, asked = begin(right), list[Any]()
    judgement.precision, judgement.learnt = precision, learnt

    def learn(found: Compared) -> Compared:
        asked.append(found)
        return found

    judgement.learn_precision = learn  # type: ignore[method-assign]
    judgement.compare_case(case_at(1.0, dtype=dtype))
    assert bool(asked) is learns


def wrong_loss_at_two(w: Any) -> Any:
    return {"w": w, "loss": w[0] ** 2 + 1.0 * (w[0] == 2)}


def begin_iteration(values: Sequence[float]) -> SubjectJudgement:
    """The judgement of a wrong loss at 2, where the iteration of the loss has not converged."""
    cases = [case_at(value)._replace(point=Point(number)) for number, value in enumerate(values, 1)]
    judgement = begin(wrong_loss_at_two, cases)
    judgement.subject.find_limits = lambda case: iter(  # type: ignore[method-assign]
        [Limit(bool(case.arguments["w"][0] != 2), {})]
    )
    return judgement


def test_another_loss_where_an_iteration_has_not_converged_waits_for_cases_where_it_has() -> None:
    judgement = begin_iteration([2.0, 1.0])
    assert judgement.compare_cases() is None
    assert [each.case.arguments["w"][0] for each in judgement.compared] == [2.0, 1.0]
    report = judgement.conclude()
    assert report.verdict is Verdict.DISAGREES
    assert [each.name for each in report.mistakes] == ["forward-differs"]


def test_another_loss_is_left_out_beside_several_cases_that_have_converged() -> None:
    judgement = begin_iteration([2.0, *range(3, 3 + SEVERAL)])
    assert judgement.compare_cases() is None
    report = judgement.conclude()
    assert (report.verdict, report.cases) == (Verdict.AGREES, SEVERAL)
    assert report.notes[0].startswith("In 1 case the iteration of your loss has not converged")


def test_extreme_cases_are_asked_only_while_nothing_fails() -> None:
    extreme = [case_at(3.0), case_at(4.0)]
    agreeing = begin(right, extreme=extreme)
    assert agreeing.compare_extreme_cases() is None
    assert len(agreeing.compared) == 2
    ended = begin(fail, extreme=extreme).compare_extreme_cases()
    assert ended is not None
    assert [each.name for each in ended.mistakes] == ["raised"]
    failing = begin(wrong_at_two, [case_at(1.0), case_at(2.0)], extreme=extreme)
    failing.compare_cases()
    assert failing.compare_extreme_cases() is None
    assert len(failing.compared) == 2


# Results that are not finite.


def test_the_numbers_of_a_judgement_are_those_of_section_10() -> None:
    assert (path.LEARNING, path.SCALES_NEARER_ZERO) == (4, (2.0**-10, 2.0**-12))


def test_values_are_scaled_down_no_further_than_a_half_float_can_hold_their_squares() -> None:
    """The square of 2⁻¹² is the smallest number of float16, 2⁻²⁴; that of 2⁻¹³ is zero."""

    def normalise(w: Any) -> Any:
        h = w.astype(np.float16)
        with np.errstate(all="ignore"):
            return {"w": (h / np.sqrt((h * h).sum())).astype(np.float64)}

    assert begin(normalise, smaller=scale).is_finite_elsewhere(case_at(1.0))


def scale(case: Case, factors: Sequence[float]) -> Iterable[Case]:
    """The same case at each smaller value."""
    return [case_at(factor) for factor in factors]


@pytest.mark.parametrize(
    ("dtype", "known", "is_finite", "outcome"),
    [
        (None, True, True, "refused"),  # nothing that may have overflowed
        (np.float16, True, False, "left out"),
        (np.float32, True, True, "left out"),
        (np.float32, True, False, "refused"),
        (np.float32, False, True, "left out"),
        (np.float32, False, False, "doubtful"),
        (np.float16, False, False, "doubtful"),
    ],
)
def test_a_case_is_left_out_where_a_right_formula_may_overflow(
    dtype: Any, known: bool, is_finite: bool, outcome: str
) -> None:
    judgement = begin(right if is_finite else fail, smaller=scale)
    judgement.precision_known = known
    report = judgement.excuse(state_overflow(dtype, "it"), case_at(1.0))
    assert bool(judgement.overflows) is (outcome == "left out")
    assert bool(judgement.doubtful) is (outcome == "doubtful")
    assert (report is not None) is (outcome == "refused")
    if report is not None:
        assert report.verdict is Verdict.DISAGREES
        assert [each.name for each in report.mistakes] == ["not-finite"]
        assert report.notes[-1] == "With it."
    judgement.subject.draws_zeros = lambda case: True  # type: ignore[method-assign]
    judgement.overflows, judgement.doubtful = [], []
    report = judgement.excuse(state_overflow(dtype, "it"), case_at(1.0))
    assert report is None
    assert [each.notes for each in judgement.zeroed] == [(f"With {case_at(1.0).label}.",)]
    assert judgement.overflows == judgement.doubtful == []


def test_values_a_thousand_times_smaller_are_asked_where_results_are_not_finite() -> None:
    asked = list[float]()

    def note(case: Case, factors: Sequence[float]) -> Iterable[Case]:
        asked.extend(factors)
        return scale(case, factors)

    assert begin(right, smaller=note).is_finite_elsewhere(case_at(1.0)) is True
    assert max(asked) == pytest.approx(1e-3, rel=0.05)
    assert 0 < min(asked) < max(asked)


@pytest.mark.parametrize(
    "gradients",
    [
        fail,
        lambda w: {"w": w + np.array([0.0, np.inf])},
        lambda w: {"w": w, "loss": np.inf},
        lambda w: {"w": w if w[0] > 2.0**-11 else w * np.nan},
        lambda w: {"w": w} if w[0] > 2.0**-11 else fail(w),
    ],
    ids=["raises", "one entry", "one result", "at some", "raises at some"],
)
def test_all_results_have_to_be_finite_at_all_smaller_values(gradients: Any) -> None:
    assert begin(gradients, smaller=scale).is_finite_elsewhere(case_at(1.0)) is False
    assert begin(right).is_finite_elsewhere(case_at(1.0)) is False  # none is known


@pytest.mark.parametrize(
    ("dtype", "known", "refused"),
    [(np.float16, True, False), (np.float16, False, True), (np.float32, True, True)],
)
def test_a_doubtful_case_is_left_out_only_if_the_format_is_known_to_be_half_precision(
    dtype: Any, known: bool, refused: bool
) -> None:
    judgement = begin(right)
    judgement.precision_known = known
    judgement.learnt = LEARNING
    judgement.doubtful = [state_overflow(dtype, "doubtful")]
    judgement.overflows = [state_overflow(np.float16, "left out")]
    report = judgement.compare_cases()
    assert (report is not None) is refused
    if report is None:
        said = [each.mistake.explanation for each in judgement.overflows]
        assert said == ["doubtful", "left out"]
    else:
        assert report.notes[-1] == "With doubtful."


# Probes of single steps.


def test_probes_are_compared_step_by_step_or_end_the_judgement() -> None:
    """Of two steps, whose adjoints are 1 and 2, with half of the former allowed, and none else."""
    true = {"U": np.array([[1.0, 2.0]])}
    limits = {"U": np.full((1, 2), 1e5), "adjoints": np.array([[[0.5]], [[0.0]]])}
    probe = state_compared({"U": np.array([[1.5, 2.0]])}, true, {"U": limits["U"]})
    probe = probe._replace(case=state_case(true, limits, true))
    breach, half = state_overflow(None, "it"), state_overflow(np.float16, "it")
    answers: dict[str, list[Any]] = {
        "all": [probe, probe], "left out": [half, probe], "refused": [probe, breach, probe],
    }  # fmt: skip
    for kind, number in [("all", 2), ("left out", 1), ("refused", 1)]:
        judgement, seen, left = begin(right), list[int](), iter(answers[kind])
        judgement.precision_known = True
        judgement.progress = lambda done, total, seen=seen: seen.append(done)  # type: ignore[misc]
        judgement.subject.draw_probes = lambda kind=kind: [probe.case] * len(answers[kind])  # type: ignore[method-assign, misc]
        judgement.compare_at = lambda case, copy=None, left=left: next(left)  # type: ignore[method-assign, misc, assignment]
        report = judgement.compare_probes()
        assert (report is not None) is (kind == "refused")
        assert len(judgement.probes) == number
        assert judgement.called == [probe.case] * 2  # and none behind a refusal
        assert seen == [*range(1, number + 1)]
        assert judgement.probes[0].allowed["U"].tolist() == [[0.5, 0.0]]
        assert len(judgement.overflows) == (kind == "left out")


def test_scatter_decides_on_a_loss_in_half_precision_at_up_to_eight_cases() -> None:
    calls = list[float]()

    def gradients(w: Any) -> Any:
        calls.append(float(w[0]))
        return np.float16(0.5 * (w * w).sum()), {"w": w}

    cases = [case_at(1.0 + number / 8) for number in range(path.DECISIVE + 2)]
    judgement = begin(gradients, cases=cases)
    assert judgement.compare_cases() is None
    few = NEIGHBOURS + 2  # with the case itself, and once more
    assert len(calls) == path.DECISIVE * few + 2
    assert all(each.allowed["loss"] > 1e-9 for each in judgement.compared[: path.DECISIVE])


def test_scatter_alone_decides_on_a_loss_in_half_precision() -> None:
    """The loss is off by less than the bound allows, and by the same at all neighbours."""
    judgement = begin(lambda w: (np.float16(1.25), {"w": w}), [case_at(1.0, allowed=0.5)])
    report = judgement.compare_cases()
    assert report is not None
    assert [each.name for each in report.mistakes] == ["forward-differs"]
