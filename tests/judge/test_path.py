"""The path from a submission to a report, step by step."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import path
from bptt_verifier.judge.neighbours import ENTRIES
from bptt_verifier.judge.path import SubjectJudgement
from bptt_verifier.judge.submission import Submission
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.scatter import FAR, NEIGHBOURS, measure_scatter
from tests.support.stated_cases import (
    CASE_OF_ONES,
    attempt_with,
    state_case,
    state_compared,
    state_overflow,
)


def begin(progress: Any = lambda done, total: None, **more: Any) -> SubjectJudgement:
    """Begin to judge a function; its subject has neighbours and these attributes as well."""

    def displace(case: Any, number: int, distance: float) -> Any:
        return case._replace(point=(number, distance))

    stated = {
        "displace": displace,
        "has_vanishing_steps": False,
        "format_given": None,
        "precision": None,
    }
    return SubjectJudgement(Submission(lambda w: w), SimpleNamespace(**stated | more), "", progress)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", [None, np.float16])
def test_a_format_that_the_subject_states_is_known_and_not_inferred(precision: Any) -> None:
    judgement = begin(precision=precision)
    assert judgement.precision is precision
    assert judgement.precision_known is (precision is not None)
    assert judgement.inferred is False


def test_the_format_of_parts_is_learnt_with_those_of_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, after = see(1e-13, True)
    judgement = begin()
    monkeypatch.setattr(path, "weigh", lambda *given, far: after)
    monkeypatch.setattr(path, "find_formats_inside", lambda *given: {"w": np.float16})
    again = see_precisely(1.0)[0]
    judgement.attempt = lambda case: again  # type: ignore[method-assign]
    assert judgement.learn_precision(found) is again
    assert judgement.inside == {"w": np.float16}


def test_far_neighbours_are_asked_until_the_format_is_known() -> None:
    ones = {"w": np.ones(2)}
    found = state_compared({"w": np.full(2, 1.5)}, ones, {"w": np.full(2, 1e-9)})
    distances = list[float]()

    def displace(case: Any, number: int, distance: float) -> Any:
        distances.append(distance)
        return case

    judgement = begin(displace=displace)
    judgement.attempt = lambda case: found  # type: ignore[method-assign]
    assert judgement.learn_precision(found) is found
    assert distances == [FAR] * NEIGHBOURS
    assert judgement.precision_known
    assert judgement.confirmed == ["w"]


@pytest.mark.parametrize(("mean", "confirmed"), [(3.0, []), (9.0, ["w"])])
def test_near_neighbours_are_asked_before_a_mistake_is_confirmed(
    mean: float, confirmed: list[str]
) -> None:
    # The limit is 8.5 standard deviations, near and far.
    errors = 1e-6 * np.array([1.0, -1.0] * (NEIGHBOURS // 2))[:, None]
    (limit,) = measure_scatter(list(errors), np.full(1, 1e-12), np.zeros(1), ENTRIES).limit
    attempt = attempt_with(
        lambda i, _: errors[i] + mean * limit, np.array([mean * limit]), np.full(1, 1e-12)
    )
    judgement = begin()
    judgement.attempt = attempt  # type: ignore[method-assign]
    found = attempt(CASE_OF_ONES)
    assert judgement.learn_precision(found) is found
    assert judgement.confirmed == confirmed


@pytest.mark.parametrize(("error", "known"), [(1e-3, True), (0.5, False)])
def test_the_format_is_sought_again_where_the_scatter_explains_whole_results(
    error: float, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones, allowed = {"w": np.ones(2)}, {"w": np.full(2, 1e-9)}
    found = state_compared({"w": 1 + error * np.ones(2)}, ones, allowed)
    after = state_compared({"w": 1 + error * np.ones(2)}, ones, {"w": np.ones(2)})
    judgement = begin()
    monkeypatch.setattr(path, "weigh", lambda *given, far: after)
    assert judgement.learn_precision(found) is found
    assert judgement.precision_known is known
    assert judgement.learnt == known  # such a case does not count
    assert judgement.confirmed == []


def test_nothing_is_computed_ahead_of_extreme_cases_once_a_case_fails() -> None:
    ones, allowed = {"w": np.ones(2)}, {"w": np.full(2, 1e-9)}
    agreeing, failing = (state_compared({"w": ones["w"] + d}, ones, allowed) for d in (0, 0.5))
    asked, shown = list[str](), list[tuple[int, int]]()
    judgement = begin(
        lambda done, total: shown.append((done, total)),
        compute_ahead=lambda: asked.append("next"), total=7,
    )  # fmt: skip
    judgement.probes = [agreeing]
    for found in (agreeing, agreeing, agreeing, failing, agreeing):
        judgement.compared.append(found)
        judgement.advance(found)
    assert asked == ["next"] * 3
    assert shown == [(done, 7) for done in (2, 3, 4, 5, 6)]  # with the probe


@pytest.mark.parametrize("by_scatter", [True, False])
def test_what_scatters_like_rounding_leaves_no_extreme_case_out_and_is_settled_once(
    by_scatter: bool,
) -> None:
    ones, allowed = {"w": np.ones(2)}, {"w": np.full(2, 1e-9)}
    asked = list[Any]()

    def compare_near(case: Any) -> Any:
        asked.append(case.point)
        number = case.point[0] if isinstance(case.point, tuple) else 0
        errors = (-1.0) ** number if by_scatter else 1.0
        return state_compared({"w": 1 + 1e-3 * errors * np.ones(2)}, ones, allowed)

    extreme: Any = state_case(ones, allowed)
    judgement = begin(draw_extreme_cases=lambda: [extreme], is_extreme=lambda case: False)
    judgement.attempt = compare_near  # type: ignore[method-assign]
    compared: list[Any] = judgement.compared
    # What is compared at the extreme case.
    taken = state_compared({"w": np.ones(2)}, ones, allowed)._replace(case=extreme)
    judgement.compare_case = lambda case: compared.append(taken)  # type: ignore[assignment,method-assign]
    compared.append(state_compared({"w": 1 + 1e-3 * np.ones(2)}, ones, allowed))
    judgement.compare_extreme_cases()
    assert [each.case is extreme for each in compared[1:]] == [True] * by_scatter
    assert [case is extreme for case in judgement.extreme] == [True] * by_scatter
    first = len(asked)
    assert first > 16
    (settled,) = judgement.settle(compared[:1])
    assert settled.fails is not by_scatter
    assert (len(asked) == first) is by_scatter  # what is wrong is looked at once more


def test_what_was_settled_of_a_case_that_is_lost_is_not_taken_for_another() -> None:
    ones, allowed = {"w": np.ones(2)}, {"w": np.full(2, 1e-9)}
    judgement = begin()
    judgement.attempt = lambda case: None  # type: ignore[method-assign]
    for number in range(50):  # each of which may be where the one before it was
        found = state_compared({"w": (2.0 + number) * np.ones(2)}, ones, allowed)
        (settled,) = judgement.settle([found])
        assert settled.submitted["w"][0] == 2 + number
        del found, settled


def learn(
    *seen: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, given: Any = None
) -> SubjectJudgement:
    """The judgement after these comparisons in float64 and after the scatter was asked."""
    judgement = begin(format_given=given)
    weighed = iter([after for _, after in seen])
    monkeypatch.setattr(path, "weigh", lambda *given, far: next(weighed))
    in_format = state_compared({"w": np.ones(2)}, {"w": np.ones(2)}, {"w": np.ones(2)})
    judgement.attempt = lambda case: in_format  # type: ignore[method-assign]
    for found, _ in seen:
        if judgement.precision is None and judgement.learnt < path.LEARNING:
            judgement.compared.append(judgement.learn_precision(found))
    return judgement


def see(error: float, explained: bool, single: float = 1.0) -> tuple[Any, Any]:
    """A comparison whose error is beyond 1e-14 in float64, and at most `single` in float32."""
    ones, submitted = {"w": np.ones(2)}, {"w": np.full(2, 1 + error)}
    before = state_compared(submitted, ones, {"w": np.full(2, 1e-14)})
    before = before._replace(case=state_case(ones, {"w": np.full(2, single)}))
    return before, state_compared(submitted, ones, {"w": np.full(2, 1.0 if explained else 1e-14)})


def see_precisely(value: float) -> tuple[Any, Any]:
    """A comparison without an error of a true value."""
    known = {"w": np.full(2, value)}
    found = state_compared(known, known, {"w": np.full(2, 1e-14)})
    return found, found


SHORT, FILLED = 2.0**-9, 3 * 2.0**-23  # 1 + these fill half of the digits of float32, or all


def test_a_format_is_learnt_at_a_later_case_where_the_first_cannot_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact, rounded = see(0.0, True), see(FILLED, True, 1e-5)
    small = see(1e-13, True)  # explained by scatter, and far below what is typical of float32
    assert learn(exact, small, rounded, monkeypatch=monkeypatch).precision is np.float32
    judgement = learn(*[small] * path.LEARNING, rounded, monkeypatch=monkeypatch)
    assert judgement.precision is None
    assert len(judgement.compared) == path.LEARNING


def test_a_rounded_result_that_does_not_scatter_waits_for_a_case_that_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saturated, rounded = see(SHORT, False, 1.0), see(FILLED, True, 1e-5)
    judgement = learn(saturated, rounded, monkeypatch=monkeypatch)
    assert judgement.precision is np.float32
    assert judgement.confirmed == []
    assert judgement.learnt == 1
    assert not any(found.fails for found in judgement.compared)  # both are judged in float32


@pytest.mark.parametrize(
    ("error", "single"), [(SHORT + 1e-12, 1.0), (SHORT, 1e-5)], ids=["finer", "beyond float32"]
)
def test_a_result_that_is_not_rounded_is_wrong_at_once(
    error: float, single: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, rounded = see(error, False, single), see(FILLED, True, 1e-5)
    judgement = learn(wrong, rounded, monkeypatch=monkeypatch)
    assert (judgement.precision, judgement.confirmed) == (None, ["w"])


@pytest.mark.parametrize(
    ("given", "single", "precision"),
    [
        (None, 1.0, None),
        (np.float64, 1.0, None),
        (np.float32, 1.0, np.float32),
        (np.float32, 1e-9, None),
    ],
)
def test_errors_of_code_for_parameters_of_float32_may_be_those_of_its_constants(
    given: Any, single: float, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = see(1e-8 + 1e-12, False, single)  # alike at all neighbours
    judgement = learn(constant, monkeypatch=monkeypatch, given=given)
    assert judgement.precision is precision
    assert judgement.confirmed == ([] if precision else ["w"])


@pytest.mark.parametrize(("value", "precision"), [(0.25, np.float32), (1 / 3, None)])
def test_what_is_precise_and_no_float32_number_was_not_computed_in_float32(
    value: float, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = see(FILLED, True, 1e-5)
    judgement = learn(see_precisely(value), rounded, monkeypatch=monkeypatch)
    assert judgement.precision is precision


def test_one_precise_gradient_that_is_no_float32_number_tells_the_format() -> None:
    known = {"w": np.full(2, 0.25), "v": np.full(2, 1 / 3)}
    found = state_compared(known, known, dict.fromkeys("wv", np.full(2, 1e-14)))
    judgement = begin()
    assert judgement.learn_precision(found) is found
    assert judgement.precision_known is True
    assert judgement.learnt == path.LEARNING


@pytest.mark.parametrize("answers", [True, False])
def test_a_case_is_compared_again_in_the_format_that_is_learnt_if_that_succeeds(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, after = see(FILLED, True, 1e-5)
    judgement = begin()
    monkeypatch.setattr(path, "weigh", lambda *given, far: after)
    again = see_precisely(1.0)[0] if answers else None
    judgement.attempt = lambda case: again  # type: ignore[method-assign]
    assert judgement.learn_precision(found) is (again or found)
    assert judgement.precision is np.float32


@pytest.mark.parametrize(("steps", "precision"), [(False, None), (True, np.float32)])
def test_results_that_move_smoothly_within_the_spacing_of_a_format_are_not_computed_in_it(
    steps: bool, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, after = see(FILLED, True, 1e-5)
    judgement, asked = begin(), list[float]()
    monkeypatch.setattr(path, "weigh", lambda *given, far: after)

    def move(case: Any) -> Any:
        if not isinstance(case.point, tuple):
            return found
        number, distance = case.point
        asked.append(distance)
        true = np.full(2, 1 + number * distance)
        yours = np.ones(2) if steps else true
        limits = {"w": np.full(2, 1e-14)}
        return state_compared({"w": yours + FILLED}, {"w": true}, limits)

    judgement.attempt = move  # type: ignore[method-assign]
    assert judgement.learn_precision(found) is found
    assert judgement.precision is precision
    # Where the submission rounds its parameters, what moves smoothly comes of others.
    cast = begin()
    monkeypatch.setattr(path, "specify_format", lambda *given: (given[-1], True))
    cast.attempt = move  # type: ignore[method-assign]
    cast.learn_precision(found)
    assert (cast.precision, cast.inferred) == (np.float32, True)
    assert {*asked} == ({2.0**-29, 2.0**-30} if steps else {2.0**-29})
    assert judgement.confirmed == []


@pytest.mark.parametrize(
    ("overflows", "counted", "said"),
    [
        (0, False, ["24 of 24 cases " + COUNTED, "Else."]),
        (1, False, ["1 of 2 cases " + COUNTED, "Else."]),
        (0, True, ["Else."]),
        (1, True, ["Else."]),
    ],
)
def test_cases_that_overflow_are_not_counted_among_those_that_tell(
    overflows: int, counted: bool, said: list[str]
) -> None:
    judgement = begin(notes=["24 of 24 cases " + COUNTED, "Else."], zeros=frozenset())
    judgement.overflows = [state_overflow(np.dtype(float), "one", "More.")] * overflows
    ones = {"w": np.ones(2)}
    cases = [state_compared(ones, ones, {"w": np.full(2, allowed)}) for allowed in (1e-9, 1.0)]
    assert judgement.describe_cases(cases, counted) == said
