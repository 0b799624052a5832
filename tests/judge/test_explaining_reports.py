"""What a report says of formats, of single steps, and of the search for a mistake's name."""

import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.conclusion import (
    conclude,
    describe_hidden,
    describe_precision,
    fail_alike,
    make_counterexample,
    measure_steps,
    separate_steps,
)
from bptt_verifier.judge.submission import Breach
from bptt_verifier.judge.undecided import is_reference_precise
from bptt_verifier.mistakes.effort import find_effort
from bptt_verifier.reference.case import Truth
from bptt_verifier.report import Curve, Mistake, Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.stated_cases import FACTOR, state_case, state_compared, state_overflow

ONES = {"a": np.ones(1), "b": np.ones(1)}
SMALL = dict.fromkeys("ab", np.full(1, 1e-9))
HALF = state_overflow(np.dtype(np.float16), "one", "More.")
SINGLE = state_overflow(np.dtype(np.float32), "another", "More.")


def test_each_coarser_format_that_is_returned_is_said_once() -> None:
    single = {"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}
    found = state_compared(single, ONES, SMALL)
    mixed = state_compared(ONES | {"a": np.ones(1, np.float16)}, ONES, SMALL)
    assert [
        *describe_precision([found, mixed, found], [found, mixed, found], (None, None), ())
    ] == [
        "You return float32 numbers for a, b where arguments are finer: judged in float32.",
        "You return float16 numbers for a where arguments are finer: judged in float16.",
    ]
    right = state_compared(ONES, ONES, SMALL)
    assert [*describe_precision([right], [right], (None, None), ())] == []


def test_the_format_of_a_rounded_prediction_is_said() -> None:
    true = {"prediction": np.ones(1), "a": np.ones(1)}
    found = state_compared(true | {"prediction": np.ones(1, np.float16)}, true, true)
    assert [*describe_precision([found], [found], (None, None), ())] == [
        "You return float16 numbers for prediction where arguments are finer: judged in float16."
    ]


def test_a_returned_format_is_not_said_where_a_coarser_one_judges() -> None:
    found = state_compared({"a": np.ones(1, np.float32)}, {"a": np.ones(1)}, {"a": np.ones(1)})
    said = "Your errors are those of rounding in half precision: all results are judged in float16."
    assert [*describe_precision([found], [found], (np.float16, None), ())] == [said]


def test_the_format_of_what_is_computed_in_half_precision_by_parts_is_said() -> None:
    found = state_compared(ONES, ONES, ONES)
    found.dtypes["a"] = np.dtype(np.float16)
    assert [*describe_precision([found], [found], (None, None), ())] == [
        "Errors of a are those of rounding in half precision: judged in float16."
    ]
    assert len([*describe_precision([found], [found], (np.float16, None), ())]) == 1  # of all
    half = state_compared(ONES | {"a": np.ones(1, np.float16)}, ONES, ONES)
    (said,) = describe_precision([half], [half], (None, None), ())
    assert said.startswith("You return float16 numbers for a")


def test_the_format_that_the_loss_rounds_to_is_said() -> None:
    found = state_compared({"a": 1.0}, {"a": 1.0}, {"a": 1.0}, np.float64)
    (said,) = describe_precision([found], [found], (np.float32, np.float32), ())
    assert said == (
        "As it stands, your loss rounds to float32 inside, as where it makes constants: all "
        "results are judged in float32."
    )


def test_a_returned_format_is_said_beside_the_same_one_that_all_are_judged_in() -> None:
    found = state_compared(ONES | {"a": np.ones(1, np.float32)}, ONES, ONES)
    assert [*describe_precision([found], [found], (np.float32, None), ())] == [
        "You return float32 numbers for a where arguments are finer: judged in float32.",
        "Your errors are those of rounding to float32: all results are judged in float32.",
    ]


def test_a_format_that_is_that_of_the_parameters_given_is_no_coarser_one() -> None:
    single = {"a": np.ones(1, np.float32)}
    found = state_compared(single, {"a": np.ones(1)}, {"a": np.ones(1)})
    for given in (np.float32, np.float16):
        (said,) = describe_precision([found], [found], (None, None), (), given)
        assert said.startswith(
            "You return float32 numbers for a, as the parameters given are: judged in"
        )
    (said,) = describe_precision([found], [found], (None, None), (), np.float64)
    assert said == "You return float32 numbers for a where arguments are finer: judged in float32."


def test_the_format_that_a_submission_computes_in_is_said() -> None:
    right = state_compared(ONES, ONES, SMALL)
    said = "Your errors are those of rounding to float32: all results are judged in float32."
    assert [*describe_precision([right], [right], (np.float32, None), ())] == [said]


@pytest.mark.parametrize(
    ("overflows", "said"),
    [
        ([HALF], "1 case was left out: float16 overflows there. With one."),
        ([HALF, SINGLE], "2 cases were left out: float16 overflows there. With one."),
        (
            [SINGLE],
            "1 case was left out: your results, in float32, are not finite there, and finite at "
            "values a thousand times smaller. With another.",
        ),
    ],
)
def test_cases_that_overflow_are_counted_and_the_first_is_described(
    overflows: list[Breach], said: str
) -> None:
    assert [*describe_precision([], [], (None, None), overflows)] == [said]


@pytest.mark.parametrize(("given", "wider"), [(np.float64, True), (np.float32, False)])
def test_what_overflows_in_float32_may_be_finite_in_the_format_given(
    given: Any, wider: bool
) -> None:
    known = (None, None), [SINGLE], np.dtype(given)
    (said,) = describe_precision([], [], *known)
    assert ("a thousand times smaller, or in float64. With another." in said) is wider
    assert ("a thousand times smaller. With another." in said) is not wider


def test_errors_that_count_as_rounding_are_said_with_the_number_of_their_cases() -> None:
    off = {"a": np.full(1, 1.5), "b": np.full(1, 1.5)}
    before = [state_compared(each, ONES, SMALL) for each in (off, ONES, off)]
    wide = SMALL | {"a": np.ones(1)}  # for b, nothing is explained
    after = [before[0], before[1], state_compared(off, ONES, wide)]
    assert [*describe_precision(before, after, (None, None), ())] == [
        "Beyond the bound, errors of a scatter like rounding at neighbouring points in 1 case, and "
        "count as rounding."
    ]
    assert [*describe_precision(before, before, (None, None), ())] == []


@pytest.mark.parametrize(("largest", "said"), [(0.5, "0.5"), (1.5, "1")])
def test_the_largest_error_that_a_format_hides_is_said_and_is_at_most_the_gradient(
    largest: float, said: str
) -> None:
    """One of the entries is zero, which hides no more than others."""
    values = dict.fromkeys("ab", np.array([0.0, 1.0]))
    seen = state_compared(values, values, dict.fromkeys("ab", np.full(2, 1e-3)), np.float32)
    limits = {"a": np.full(2, 0.25), "b": np.full(2, largest)}
    hidden = state_compared(values, values, limits, np.float32)
    other = hidden._replace(case=hidden.case._replace(label="another case"))
    for cases, more in [([seen, hidden], ""), ([hidden, seen, other], ", and in 1 more")]:
        assert [*describe_hidden(cases, None, ())][1] == (
            f"In float32, rounding hides relative errors below {said} of a, b in a case{more}; "
            "the resolution is that of the other cases."
        )


# Probes of three steps, whose adjoints are the columns 1, 2 and 4 of ∂L/∂U.

STEPS = {"U": np.array([[1.0, 2.0, 4.0]]), "a": np.ones(1)}
CURVE = Curve("a step", (0.5,), (0.25,))


def probe(*errors: float, bound: float = 1e-9) -> Any:
    """A probe with these errors of the three columns."""
    submitted = STEPS | {"U": STEPS["U"] + np.array([errors])}
    allowed = {"U": np.full((1, 3), bound), "a": np.full(1, 1e-9)}
    found = state_compared(submitted, STEPS, allowed)
    return found._replace(case=found.case._replace(arguments=STEPS))


def test_each_column_of_a_probe_is_held_to_what_is_allowed_in_its_step() -> None:
    steps = np.array([[[0.125]], [[0.25]], [[0.5]]])  # step, example, unit
    found = probe(0.125, 0.5, 0.5, bound=1.0)
    known = state_case({"U": STEPS["U"]}, {"adjoints": steps}, STEPS)
    found = separate_steps(found._replace(case=known))
    assert found.allowed["U"].tolist() == [[0.125, 0.25, 0.5]]
    assert found.allowed["a"].tolist() == [1e-9]
    of_steps, other = found.comparisons
    assert (of_steps.name, of_steps.entry, of_steps.error) == ("U", (0, 1), 2.0)
    assert (other.name, other.error) == ("a", 0.0)
    assert measure_steps(found).relative.tolist() == [0.125, 0.25, 0.125]
    assert measure_steps(found).error.tolist() == [1.0, 2.0, 1.0]


def subject_that(diagnoses: Any = lambda *given: (), charts: Any = lambda cases: ()) -> Any:
    """A subject that diagnoses, and charts steps, so."""
    return SimpleNamespace(
        doubt="Too few cases.", zeros=frozenset(), may_leave=lambda cases, error: False,
        differentiate_unrounded=lambda case: ({}, ""), may_be_outside=lambda case: True,
        doubt_far=lambda compared: [],
        find_largest_sizes=lambda cases: {},
        diagnose=diagnoses, chart_steps=charts, shrink=lambda attempt, found: found,
        describe_sizes=lambda found: found.case.label, reproduce=lambda found: "",
        write_case=lambda found: "", choose_for_exact_values=lambda compared: iter(()),
    )  # fmt: skip


def explain_wrong(
    diagnoses: Any = lambda *given: (),
    charts: Any = lambda cases: (),
    probes: Any = (),
    seconds: float | None = None,
    right: bool = False,
) -> Report:
    """The report on two cases, of which the gradient `a` of the second is wrong, if not `right`."""
    off = ONES if right else ONES | {"a": np.full(1, 1.5)}
    compared = [state_compared(each, ONES, SMALL) for each in (ONES, off, off)]
    for number, each in enumerate(compared):
        compared[number] = each._replace(case=each.case._replace(label=f"case {number}"))
    given = subject_that(diagnoses, charts)
    return conclude(lambda case: None, given, "", compared, probes, (), seconds)


@pytest.mark.parametrize(("near", "rounded"), [(True, False), (True, True), (False, False)])
def test_what_may_hold_near_the_parameters_given_alone_is_not_called_wrong(
    near: bool, rounded: bool
) -> None:
    given = subject_that()
    given.doubt_far = lambda compared: ["It holds near them."] * near
    unrounded = {"a": np.full(1, 1.5)} if rounded else {}
    given.differentiate_unrounded = lambda case: (unrounded, " there")
    compared = [state_compared(each, ONES, SMALL) for each in (ONES, ONES | {"a": np.full(1, 1.5)})]
    found = conclude(lambda case: None, given, "", compared, [], ())
    assert found.verdict is (Verdict.INCONCLUSIVE if near else Verdict.DISAGREES)
    assert ("It holds near them." in found.notes) is (near and not rounded)
    assert any(note.startswith("The loss is rounded there") for note in found.notes) is rounded


def test_the_last_step_that_is_wrong_is_the_first_on_the_way_back() -> None:
    asked = list[Any]()

    def diagnose(attempt: Any, cases: Any, probes: Any) -> Any:
        asked.append((cases, probes))
        return ()

    wrong = probe(0.0, 0.5, 0.25)
    found = explain_wrong(diagnose, probes=[probe(0, 0, 0), wrong], right=True)
    assert found.verdict is Verdict.DISAGREES
    assert [step.verdict is Verdict.AGREES for step in found.steps] == [True, False, False]
    assert found.first_wrong_step == 3
    assert found.cases == 5
    assert asked == [([], [wrong])]
    assert [each.relative_errors for each in found.curves] == [(0, 0, 0), (0, 0.25, 0.0625)]
    assert [each.label for each in found.curves] == ["float64"] * 2


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ([1e5, 1e5, 1e5], "No probe was precise enough to check a single step."),
        ([1e5, 1e-9, 1e5], "Too few cases."),
        ([1e-9, 1e-9, 1e-9], "Too few cases."),
    ],
)
def test_that_no_step_was_checked_is_said(bounds: list[float], said: str) -> None:
    precise = probe(0, 0, 0)
    unsharp = precise._replace(allowed=precise.allowed | {"U": np.array([bounds])})
    found = explain_wrong(probes=[unsharp], right=True)
    assert found.notes == (said,)


def test_failing_cases_alone_are_explained_and_the_first_of_them_is_shown() -> None:
    asked = list[Any]()

    def diagnose(attempt: Any, cases: Any, probes: Any) -> Any:
        asked.extend(each.case.label for each in cases)
        return (Mistake("sign-flipped", "", {}),)

    found = explain_wrong(diagnose)
    assert asked == ["case 1", "case 2"]
    assert found.mistakes == (Mistake("sign-flipped", "", {}),)
    assert found.counterexample is not None
    assert found.counterexample.sizes == "case 1"
    assert found.counterexample.gradient == "a"


def test_a_mistake_without_a_name_says_whose_numbers_it_made() -> None:
    (mistake,) = explain_wrong().mistakes
    assert mistake.name == "unknown"
    assert mistake.details == {"gradients": ["a"]}
    said = "no known mistake, or pair of mistakes, reproduces your numbers for a."
    assert mistake.explanation == said


def test_a_search_that_ends_early_says_so() -> None:
    def diagnose(*given: Any) -> Any:
        find_effort().goes_on()
        return ()

    (mistake,) = explain_wrong(diagnose, seconds=0.0).mistakes
    assert mistake.explanation == "the search for a name ended early; a remains unexplained."


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_search_leaves_the_verdict() -> None:
    def diagnose(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    found = explain_wrong(diagnose)
    assert found.verdict is Verdict.DISAGREES
    said = "The search for a name was interrupted; the verdict does not depend on it."
    assert found.notes == (said,)
    (mistake,) = found.mistakes
    assert mistake.explanation == "the search for a name ended early; a remains unexplained."


def test_a_search_that_raises_leaves_the_verdict_and_says_what_it_raised() -> None:
    def diagnose(*given: Any) -> Any:
        raise ValueError("shape mismatch")

    found = explain_wrong(diagnose)
    assert found.verdict is Verdict.DISAGREES
    (mistake,) = found.mistakes
    assert mistake.explanation == (
        "the judge's search for a name raised ValueError: shape mismatch, so a remains "
        "unexplained; the verdict stands, since it does not depend on a name."
    )
    assert {*mistake.details} == {"gradients", "raised", "raised_at"}
    assert mistake.details["raised"] == "ValueError: shape mismatch"


def fail(*given: Any) -> Any:
    raise ValueError("no curve")


@pytest.mark.parametrize(
    ("charts", "expected"),
    [(lambda cases: (CURVE,), "a step"), (lambda cases: (), "a mistake"), (fail, "a mistake")],
)
def test_errors_step_by_step_are_charted_or_those_of_the_mistake(
    charts: Any, expected: str
) -> None:
    named = (Mistake("sign-flipped", "", {}, curves=(CURVE._replace(label="a mistake"),)),)
    found = explain_wrong(lambda *given: named, charts)
    assert [each.label for each in found.curves] == [expected]
    probed = explain_wrong(lambda *given: named, charts, probes=[probe(0, 0, 0)])
    assert [each.label for each in probed.curves] == ["float64"]


def test_an_error_that_nothing_is_known_of_is_shown_as_zero() -> None:
    true, limit = {"w": np.array([np.inf, 1.0, 3.0])}, {"w": np.array([np.inf, 0.5, 0.0])}
    found = state_compared({"w": np.array([1.0, 2.0, 3.0])}, true, limit)
    assert make_counterexample(subject_that(), found).error_over_bound == [0.0, 2.0, 0.0]


def answer_with(found: Any) -> Any:
    """The call of a submission that finds this at every case."""
    return lambda case: found


@pytest.mark.parametrize(
    ("error", "fails"), [(1e-3, True), (2.0**-40, True), (2.0**-41, False), (np.nan, True)]
)
def test_another_case_fails_only_by_errors_like_those_of_the_wrong_gradients(
    error: float, fails: bool
) -> None:
    limits = dict.fromkeys("ab", np.full(2, 2.0**-60))

    def find(of_a: float = 0.0, of_b: float = 0.0, largest: float = 4.0) -> Any:
        """A case with errors of these parts of the largest entries, each at one entry."""
        true = {"a": np.array([2.0, largest]), "b": np.full(2, 2.0)}
        submitted = {"a": true["a"] + [largest * of_a, 0], "b": true["b"] + [0, 2 * of_b]}
        return state_compared(submitted, true, limits)

    first, second, other = find(2.0**-20), find(2.0**-10), find(0.0, 0.5)
    larger = find(error, largest=32.0)
    asked = [(find(error), fails), (larger, fails), (other, False), (first, True), (find(), False)]
    for found, still in asked:
        for failing in ([first, second, other], [second, other, first]):
            again = fail_alike(answer_with(found), failing, ["a"])(first.case)
            assert again is not None
            assert again.fails is still
    assert fail_alike(answer_with(None), [first], ["a"])(first.case) is None


def test_the_precision_of_a_large_reference_is_asked_for_by_name() -> None:
    """The reference of a large problem has the results alone that it is asked for."""

    def truth(dtype: Any, names: Any) -> Truth:
        return Truth(dict.fromkeys(names, np.ones(1)), dict.fromkeys(names, np.full(1, 1e-14)))

    found = state_compared(ONES, ONES, ONES)
    assert is_reference_precise(found._replace(case=found.case._replace(truth=truth)), "a")


def test_a_factor_that_other_cases_lack_is_no_constant_one() -> None:
    (mistake,) = explain_wrong(lambda *given: (FACTOR,)).mistakes
    assert (mistake.name, mistake.details) == ("unknown", {"gradients": ["a"], "factor": "1.5"})
    assert mistake.explanation == (
        "in ∂L/∂a, every entry is 1.5 times what it should be with case 1 and in 1 more, and right "
        "in 1 other: no known mistake shows at these values only. What limits a number, or takes "
        "another branch there, may."
    )
    for other in (
        FACTOR._replace(name="sign-flipped"),
        FACTOR._replace(details={"gradients": ["a"]}),
    ):
        assert explain_wrong(lambda *given, other=other: (other,)).mistakes == (other,)
