"""The path from a kernel to a report, with cases that are given, and its parts by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import kernel_path
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.kernel_comparisons import OVERFLOW, RESOLVED, Found
from bptt_verifier.judge.kernel_memory import OF_MEMORY
from bptt_verifier.judge.kernel_path import (
    FURTHER,
    KernelJudgement,
    choose_shown,
    compare_gradient,
    describe_kept_zeros,
    describe_outputs,
    describe_overflow,
    find_zeros,
    require_settings,
    show_worst,
    summarise_kernel,
)
from bptt_verifier.report import Mistake, Report
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.measurements import make_measurement, make_slices

AGREES, DISAGREES, INCONCLUSIVE = Verdict.AGREES, Verdict.DISAGREES, Verdict.INCONCLUSIVE


def measured(mean: Any = (0.0, 0.0), resolution: float = 0.01, limit: Any = 1.0) -> Any:
    """Errors of a gradient, with the resolution of the whole."""
    found = make_measurement(mean, limit=limit)
    return found._replace(slices=(make_slices(None, [0.0], limit=resolution),))


RIGHT, WRONG, VAGUE, ZERO = (
    measured(),
    measured([0, 9]),
    measured(resolution=1.0),
    measured(resolution=np.inf),
)


def find(setting: int = 0, number: int = 0, **gradients: Any) -> Found:
    """What was found at a case: numbers 1, 2, … of the kernel, where 11, 12, … is exact."""
    case = KernelCase(setting, number, {"w": np.ones(2)}, {})
    shapes = {name: each.mean.shape for name, each in gradients.items()}
    submitted = {
        n: np.stack([1.0 + np.arange(np.prod(s)).reshape(s)] * 2) for n, s in shapes.items()
    }
    for value in submitted.values():
        value[1] += 100  # at the other neighbour
    return Found(case, submitted, {n: v + 10 for n, v in submitted.items()}, gradients, {})


# Single parts.


def test_settings_are_functions_a_number_of_cases_and_a_seed() -> None:
    require_settings({"backward": len}, 1, 0)
    with pytest.raises(TypeError, match="backward"):
        require_settings({"forward": len, "backward": 3}, 1, 0)
    with pytest.raises(ValueError, match="cases"):
        require_settings({}, 0, 0)
    with pytest.raises(ValueError, match="seed"):
        require_settings({}, 1, -1)


def test_cases_that_are_left_out_are_named() -> None:
    assert describe_overflow([]) == ()
    (said,) = describe_overflow(["case 1", "case 2"])
    assert said.startswith("Left out: case 1, case 2. The exact gradient is not finite there")


def test_kept_zeros_in_one_case_are_said() -> None:
    assert describe_kept_zeros([find(), find()]) == ()
    (said,) = describe_kept_zeros([find(), find()._replace(keeps_zeros=True)])
    assert said.startswith("jax.grad of the forward pass is NaN")


def test_outputs_that_overflow_near_or_far_are_said_once_each() -> None:
    near = find()._replace(overflowing=frozenset("z"))
    found = [
        find()._replace(overflowing=frozenset("y"), near=near),
        find(number=1)._replace(overflowing=frozenset("y")),
        find(number=2),
    ]
    first, second = describe_outputs(found)
    assert first.startswith("Your y is not finite, or 1 / ∞, where its format may overflow. These")
    assert first.endswith("compared, with the arguments given, case 1; smaller arguments help.")
    assert second.startswith("Your z is")
    assert second.endswith("with the arguments given; smaller arguments help.")


def test_the_worst_entry_of_a_gradient_is_that_with_the_largest_part_of_its_limit() -> None:
    limits = np.array([[1.0, 10], [0, 4]])
    found = find(w=measured([[-2.0, 9], [0, 9]], limit=limits))
    compared = compare_gradient(found, "w")
    assert (compared.name, compared.entry, compared.yours) == ("w", (1, 1), 4)
    assert tuple(compared)[1:2] == (9 / 4,)
    assert compared[4:] == (14, 4, 0.01)
    assert compare_gradient(found._replace(noisy={"w": 5.0}), "w")[1] == 5
    assert compare_gradient(find(w=RIGHT), "w")[1] == 0
    assert compare_gradient(found._replace(noisy={"v": 5.0}), "w")[1] == 9 / 4


def test_a_gradient_that_is_zero_to_rounding_in_all_cases_is_a_zero() -> None:
    assert find_zeros([find(w=ZERO, v=RIGHT), find(w=ZERO, v=ZERO)]) == ["w"]
    assert find_zeros([find(w=ZERO), find(w=ZERO)]) == []
    assert find_zeros([]) == []


def test_verdicts_are_those_of_the_worst_case_and_the_sharpest_resolution() -> None:
    def verdicts(*found: Found) -> Any:
        return {name: each.verdict for name, each in summarise_kernel(found).items()}

    assert verdicts(find(w=RIGHT, v=VAGUE), find(w=WRONG, v=RIGHT)) == {"w": DISAGREES, "v": AGREES}
    assert verdicts(find(w=VAGUE)) == {"w": INCONCLUSIVE}
    assert verdicts(find(w=measured(resolution=RESOLVED))) == {"w": AGREES}
    assert verdicts(find(w=ZERO, v=RIGHT)) == {"w": AGREES, "v": AGREES}
    assert verdicts(find(w=ZERO)) == {"w": INCONCLUSIVE}
    unsure = find(w=RIGHT, v=WRONG, b=RIGHT)._replace(unsure=frozenset("wv"))
    assert verdicts(find(w=RIGHT, v=RIGHT, b=RIGHT), unsure) == {
        "w": INCONCLUSIVE, "v": DISAGREES, "b": AGREES,
    }  # fmt: skip


def test_twenty_entries_around_the_worst_are_shown() -> None:
    assert choose_shown(3, 8) == range(8)
    assert choose_shown(3, 20) == range(20)
    assert choose_shown(3, 30) == range(20)
    assert choose_shown(15, 30) == range(5, 25)
    assert choose_shown(29, 30) == range(10, 30)


def show(found: Any) -> Any:
    every: Any = [
        SimpleNamespace(arguments=SimpleNamespace(leaves={"x": np.ones((k + 1, 2))}))
        for k in range(2)
    ]
    return show_worst(found, every, "again()")


def test_the_row_of_the_worst_entry_of_all_cases_is_shown() -> None:
    worst = find(1, 2, w=RIGHT, v=measured([[0, 2], [3, 5], [0.0, 0]]))
    shown = show([find(w=WRONG._replace(mean=np.array([0.0, 4]))), worst])
    assert shown.sizes.startswith("case 2 of setting 2, x=(2, 2), row [1] of v")
    assert shown.reproduce == "again()"
    assert (shown.gradient, shown.yours, shown.autodiff) == ("v", [3, 4], [13, 14])
    assert shown.error_over_bound == [[0, 2], [3, 5], [0, 0]]


def test_the_worst_entry_is_that_with_the_largest_part_of_its_limit() -> None:
    limits = np.array([[4.0, 1], [1, 1]])
    shown = show([find(w=measured([[6.0, 0], [3, 0]], limit=limits))])
    assert ", row [1] of w" in shown.sizes


def test_a_long_row_is_shown_around_its_worst_entry() -> None:
    mean = np.zeros(30)
    mean[12] = 9
    shown = show([find(w=measured(mean))])
    assert shown.sizes.startswith("the arguments given, x=(1, 2), entries 2 to 21 of w")
    assert shown.yours == [*range(3, 23)]
    rows = np.zeros((2, 30))
    rows[1, 29] = 9
    shown = show([find(w=measured(rows))])
    assert "x=(1, 2), entries 10 to 29 of row [1] of w" in shown.sizes


def test_a_gradient_without_axes_is_one_number() -> None:
    shown = show([find(w=measured(9.0))])
    assert shown.sizes == "the arguments given, x=(1, 2)"
    assert shown.yours == [1]


def test_the_map_is_that_nearest_to_the_point() -> None:
    near = find(w=measured([0, 7]))
    shown = show([find(w=WRONG)._replace(near=near)])
    assert shown.error_over_bound == [[0, 7]]


# The path.


class Judged(KernelJudgement):
    """A judgement of kernels whose cases are given."""

    call = "verify(kernel"

    def describe(self) -> Any:
        return ("described",)

    def explain(self) -> Any:
        names = ("unknown", "noise-beyond-rounding", "factor")
        return [Mistake(name, "", {"gradients": [name]}) for name in names]

    def reword(self, mistake: Mistake) -> Mistake:
        return mistake._replace(explanation=f"{mistake.explanation} (reworded)")


class Path:
    """What is compared and asked, case by case; the answers are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[Any] = []
        self.asked, self.questions = list[Any](), list[Any]()
        self.lazy: Any = ()
        self.unwritten, self.changing = False, ""
        for name, replaced in {
            "prepare_cotangents": lambda calls, given, seed: given,
            "draw_cases": lambda setting, calls, given, number, seed: [
                KernelCase(setting, k, {}, {"c": given}) for k in range(number)
            ],
            "compare_kernel": self.compare,
            "prepare_question": self.prepare,
            "find_lazy_answer": self.find_lazy,
            "is_unwritten": lambda calls, case: self.unwritten,
            "describe_indeterminacy": lambda question: self.changing,
            "show_worst": lambda found, every, call: call,
            "settle_doubts": lambda found: found,
        }.items():
            monkeypatch.setattr(kernel_path, name, replaced)

    def compare(
        self, calls: Any, case: KernelCase, tests: int, seed: int, doubtful: Any = ()
    ) -> Any:
        self.asked.append((case.setting, case.number, case.cotangents["c"], tests, doubtful))
        found = self.answers.pop(0) if self.answers else find(w=RIGHT)
        return found._replace(case=case) if isinstance(found, Found) else found

    def prepare(self, calls: Any, found: Found, other: KernelCase, compared: Any) -> Any:
        self.questions.append((found.case.number, other.number))
        self.compared = [each.case.number for each in compared]
        return SimpleNamespace(noisy=found.noisy, number=found.case.number)

    def find_lazy(self, question: Any, questions: Any) -> Any:
        self.asked_of = questions
        return self.lazy

    def run(self, *answers: Any, settings: int = 1, number: int = 2) -> Any:
        self.answers = [*answers]
        results = {"w": np.ones((2, 3))}
        calls: Any = [
            SimpleNamespace(results=results, arguments=SimpleNamespace(leaves=results))
            for _ in range(settings)
        ]
        self.judgement = Judged("mine", calls, "given", number, 7)
        return self.judgement.judge()


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Path:
    return Path(monkeypatch)


def test_a_right_kernel_agrees(path: Path) -> None:
    report = path.run(settings=2)
    assert report.verdict is AGREES
    assert (report.subject, report.cases) == ("mine", 4)
    assert report.notes[:-1] == ("described",)
    tests = 2 * 2 * (6 + 2 + 3 + 1)
    assert path.asked == [
        (0, 0, "given", tests, ()), (0, 1, "given", tests, ()),
        (1, 0, None, tests, ()), (1, 1, None, tests, ()),
    ]  # fmt: skip
    assert path.questions == [(1, 2), (1, 2)]  # of a further case
    assert path.asked_of is KernelJudgement.questions
    path.changing = "they change"
    assert path.run().notes[:-1] == ("described", "they change")


def test_a_finding_stays_as_it_is_unless_it_is_reworded(path: Path) -> None:
    path.run()
    finding = Mistake("raised", "It was raised.", {})
    assert KernelJudgement.reword(path.judgement, finding) is finding


def test_a_wrong_kernel_is_explained(path: Path) -> None:
    report = path.run(find(w=WRONG))
    assert report.verdict is DISAGREES
    names = [mistake.name for mistake in report.mistakes]
    assert names == ["unknown", "noise-beyond-rounding", "factor"]
    assert report.counterexample == "verify(kernel, seed=7, cases=2)"


def test_a_question_that_fails_comes_first_and_says_more_than_vague_names(path: Path) -> None:
    path.lazy, path.changing = (Mistake("keeps", "it keeps", {}),), "they change"
    report = path.run()
    assert report.verdict is DISAGREES
    assert [mistake.explanation for mistake in report.mistakes] == ["it keeps (reworded)"]
    assert report.counterexample is None
    assert report.notes[:-1] == ("described",)
    report = path.run(find(w=WRONG))
    assert [mistake.name for mistake in report.mistakes] == ["keeps", "factor"]


def test_gradients_whose_finding_gives_way_to_a_question_are_named(path: Path) -> None:
    for of, left in ((["v"], "∂L/∂unknown, ∂L/∂noise-beyond-rounding"),
                     (["unknown"], "∂L/∂noise-beyond-rounding")):  # fmt: skip
        path.lazy = (Mistake("keeps", "it keeps", {"gradients": of}),)
        described, _, said = path.run(find(w=WRONG)).notes
        assert described == "described"
        assert said.startswith(f"The cause of what is wrong in {left} was not found;")
    path.lazy = (Mistake("keeps", "", {"results": ["unknown", "noise-beyond-rounding"]}),)
    assert path.run(find(w=WRONG)).notes[:-1] == ("described",)
    path.lazy = ()
    assert path.run(find(w=WRONG)).notes[:-1] == ("described",)


def test_noise_answers_the_questions_of_memory_alone(path: Path) -> None:
    path.run(*[find(w=RIGHT)._replace(noisy={"w": 2.0})] * 2)
    assert path.asked_of is OF_MEMORY


def test_questions_are_asked_at_the_last_right_case_or_the_last_of_all(path: Path) -> None:
    for wrong, chosen in (((), 2), ((2,), 1), ((0,), 2), ((0, 1, 2), 2), ((1, 2), 0)):
        path.questions.clear()
        path.run(*[find(w=WRONG if k in wrong else RIGHT) for k in range(3)], number=3)
        assert path.questions == [(chosen, 3)]
        assert path.compared == [0, 1, 2]


def test_a_case_in_which_all_may_overflow_is_left_out(path: Path) -> None:
    over = Mistake("not-finite", "infinite.", {OVERFLOW: True})
    report = path.run(over, find(w=RIGHT))
    assert report.verdict is AGREES
    assert report.cases == 1
    assert report.notes[0].startswith("Left out: the arguments given.")
    report = path.run(over, over)
    assert report.verdict is INCONCLUSIVE
    assert path.questions == [(1, 2)]
    assert report.notes == (f"0 of 0 cases {COUNTED}", report.notes[-1])
    assert report.notes[-1].startswith("Left out: the arguments given, case 1.")


def test_a_breach_of_the_contract_ends_the_comparison(path: Path) -> None:
    raised = Mistake("raised", "it raised.", {OVERFLOW: False})
    report = path.run(find(w=RIGHT), raised, settings=2)
    assert report.verdict is DISAGREES
    assert [mistake.explanation for mistake in report.mistakes] == ["it raised. (reworded)"]
    assert report.cases == 1
    assert len(path.asked) == 2
    assert path.questions == []


@pytest.mark.parametrize(
    ("name", "unwritten", "found"),
    [
        ("not-finite", True, "unwritten-output"),
        ("not-finite", False, "not-finite"),
        ("raised", True, "raised"),
    ],
)
def test_what_is_not_finite_may_be_what_memory_held(
    path: Path, name: str, unwritten: bool, found: str
) -> None:
    path.unwritten = unwritten
    (mistake,) = path.run(Mistake(name, "found nan.", {"entry": [1]})).mistakes
    assert mistake.name == found
    assert mistake.details == {"entry": [1]}
    if found == "unwritten-output":
        said = "found nan; what is not finite changes with what freed memory holds. (reworded)"
        assert mistake.explanation == said


def test_further_cases_are_drawn_as_long_as_a_gradient_is_open(path: Path) -> None:
    report = path.run(*[find(w=VAGUE)] * 3, find(w=RIGHT))
    assert report.verdict is AGREES
    assert report.cases == 4
    tests = 2 * (6 + 2 + 3 + 1)
    assert path.asked[2:] == [
        (0, 3, "given", 2 * tests, ["w"]), (0, 4, "given", 2 * tests, ["w"]),
    ]  # fmt: skip
    path.asked.clear()
    report = path.run(*[find(w=VAGUE)] * 20)
    assert report.verdict is INCONCLUSIVE
    assert len(path.asked) == 2 + FURTHER
    assert path.asked[-1][:2] == (0, 2 + FURTHER)


def test_no_further_case_is_drawn_for_a_wrong_kernel_nor_after_a_breach(path: Path) -> None:
    path.run(find(w=VAGUE, v=WRONG), find(w=VAGUE, v=WRONG))
    assert len(path.asked) == 2
    path.asked.clear()
    report = path.run(*[find(w=VAGUE)] * 2, Mistake("raised", "it raised.", {}))
    assert report.verdict is DISAGREES
    assert len(path.asked) == 3
    assert report.mistakes[0].name == "raised"
    path.asked.clear()
    report = path.run(*[find(w=VAGUE)] * 4, settings=2)
    assert path.asked[4:6] == [(0, 3, "given", 96, ["w"]), (1, 3, None, 96, ["w"])]


def test_doubts_are_settled_before_and_after_further_cases(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = list[int]()

    def settle(found: Any) -> Any:
        settled.append(len(found))
        return (
            [each._replace(gradients={"w": RIGHT}) for each in found] if len(found) == 4 else found
        )

    monkeypatch.setattr(kernel_path, "settle_doubts", settle)
    assert path.run(*[find(w=VAGUE)] * 9).verdict is AGREES
    assert settled == [2, 3, 4]


def test_a_setting_without_arguments_has_no_further_case(path: Path) -> None:
    path.answers = [find(w=VAGUE)] * 9
    calls: Any = [
        SimpleNamespace(results={}, arguments=SimpleNamespace(leaves=each))
        for each in ({}, {"x": 1})
    ]
    report = Judged("mine", calls, None, 1, 0).compare_further()
    assert report is None
    judgement = Judged("mine", calls, None, 1, 0)
    judgement.found = [find(w=VAGUE)]
    judgement.compare_further()
    assert {setting for setting, *_ in path.asked} == {1}
    assert isinstance(judgement.found[0], Found)
    assert not isinstance(judgement.found[0], Report)
