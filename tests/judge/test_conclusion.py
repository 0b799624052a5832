"""What a report concludes from comparisons that agree, or that decide nothing."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.conclusion import (
    ask_exact_values,
    conclude,
    describe_hidden,
    make_counterexample,
)
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.undecided import (
    ENTRIES,
    accept_zeros,
    describe_allowed_zeros,
    doubt_solver,
    explain_untestable,
    is_reference_precise,
    state_excused_resolutions,
    state_resolutions_of_formats,
)
from bptt_verifier.reference import exact_values
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from bptt_verifier.tolerance.scatter import DISTANCE, measure_scatter
from tests.support.stated_cases import state_case, state_compared

ONES = {"a": np.ones(1), "b": np.ones(1)}


def subject(doubt: str | None = None) -> Any:
    return SimpleNamespace(
        doubt=doubt, zeros=frozenset(), find_largest_sizes=lambda cases: {},
        choose_for_exact_values=lambda compared: iter(()),
    )  # fmt: skip


def conclude_with(
    monkeypatch: pytest.MonkeyPatch,
    decided: dict[str, Any],
    allowed: float = 1.0,
    doubt: str | None = None,
) -> Report:
    """The report on two gradients, of which this error is allowed, by these exact values."""
    monkeypatch.setattr(exact_values, "is_available", lambda: True)
    monkeypatch.setattr(exact_values, "decide", lambda chosen, vague, one_sided: decided)
    compared = [state_compared(ONES, ONES, dict.fromkeys("ab", np.full(1, allowed)))]
    return conclude(lambda case: None, subject(doubt), "", compared, [], ())


def decide(verdict: Verdict, deviation: float = 1e-9) -> Any:
    return SimpleNamespace(verdict=verdict, deviation=deviation)


RIGHT, WRONG = decide(Verdict.AGREES), decide(Verdict.DISAGREES)
WORST = decide(Verdict.AGREES, 1e-8)
VAGUE = decide(Verdict.INCONCLUSIVE)


def test_agreement_that_shows_too_little_is_inconclusive() -> None:
    compared = [state_compared(ONES, ONES, dict.fromkeys("ab", np.full(1, 1e-9)))]
    for doubt, verdict, notes in [
        (None, Verdict.AGREES, ("first",)),
        ("Too few cases.", Verdict.INCONCLUSIVE, ("first", "Too few cases.")),
    ]:
        found = conclude(lambda case: None, subject(doubt), "", compared, [], ("first",))
        assert found.verdict is verdict
        assert found.notes == notes


def test_cases_in_which_a_coarser_format_hides_mistakes_are_said() -> None:
    values, both = {"a": np.ones(1), "b": np.zeros(1)}, dict[str, Any]
    seen = state_compared(values, values, both(a=[1e-3], b=[1e-3]), np.float32)
    hidden = state_compared(values, values, both(a=[1.0], b=[1e-3]), np.float32)
    wide = hidden._replace(dtypes=dict.fromkeys("ab", np.dtype(float)))
    said = (
        "In float32, rounding hides relative errors below 1 of a in a case; the resolution is that "
        "of the other cases."
    )
    counted = "In float32, 1 of 2 cases could have shown a mistake in every gradient."
    assert [*describe_hidden([seen, hidden], None, "b")] == [counted, said]
    none = "In float32, 0 of 1 case could have shown a mistake in every gradient."
    assert [*describe_hidden([hidden], None, "b")] == [none]
    assert [*describe_hidden([seen, wide], None, "b")] == []  # the arguments' own format
    assert [*describe_hidden([seen, hidden], None, "ab")] == []
    # `b` is zero in all of these cases, though not by its formula.
    assert [*describe_hidden([seen, hidden], None, ())] == [counted.replace("1 of", "0 of"), said]


def test_no_resolution_is_finer_than_where_errors_counted_as_rounding() -> None:
    off, bound = ONES | {"a": np.full(1, 1 + 1e-4)}, dict.fromkeys("ab", np.full(1, 1e-9))
    before = [state_compared(each, ONES, bound) for each in (ONES, off, off)]
    limits = [bound["a"], np.full(1, 3e-4), np.full(1, 5e-4)]
    after = [
        state_compared(each.submitted, ONES, bound | {"a": limit})
        for each, limit in zip(before, limits, strict=True)
    ]
    report = conclude(lambda case: None, subject(), "", after, [], ())
    assert report.parameters["a"].resolution == pytest.approx(1e-9)
    stated = state_excused_resolutions(report, before, after).parameters
    assert stated["a"].resolution == pytest.approx(3e-4)
    assert stated["b"].resolution == pytest.approx(1e-9)


def test_no_resolution_is_finer_than_an_error_that_counted_as_rounding() -> None:
    true = {"a": np.array([1.0, 0.0]), "b": np.ones(2)}
    off, bound = true | {"a": np.array([1 + 4e-4, 0.0])}, dict.fromkeys("ab", np.full(2, 1e-9))
    before = [state_compared(off, true, bound)] * 2
    after = [  # the smaller limit is that of a case with an error of its own
        state_compared(each, true, bound | {"a": np.full(2, limit)})
        for each, limit in [(off, 5e-4), (true | {"a": np.array([1 + 1e-4, 0.0])}, 2e-4)]
    ]
    report = conclude(lambda case: None, subject(), "", after, [], ())
    stated = state_excused_resolutions(report, before, after).parameters
    assert stated["a"].resolution == pytest.approx(4e-4)


def excuse(
    *limits: float, bound: float = 1e-9, dtype: Any = float
) -> tuple[Report, list[Any], list[Any]]:
    """The report on a gradient of ones whose errors count as rounding up to these limits."""
    off, allowed = ONES | {"a": np.full(1, 1.5)}, dict.fromkeys("ab", np.full(1, bound))
    allowed["b"] = np.full(1, 1e-9)
    wrong = [state_compared(off, ONES, allowed, dtype) for _ in limits]
    right = state_compared(ONES, ONES, dict.fromkeys("ab", np.full(1, 1e-9)), dtype)
    weighed = [
        state_compared(off, ONES, allowed | {"a": np.full(1, limit)}, dtype) for limit in limits
    ]
    after = [right, *weighed]
    return conclude(lambda case: None, subject(), "", after, [], ()), [right, *wrong], after


@pytest.mark.parametrize(
    "excused",
    [
        excuse(1.0),  # an error of the gradient itself would not have passed
        excuse(0.9, 1.2),  # nor in one of several cases
        excuse(1.2, bound=2.0**-5),  # the bound shows no more
        excuse(1.2, dtype=np.float16),
    ],
)
def test_an_error_that_scatters_less_widely_or_in_half_precision_is_rounding(excused: Any) -> None:
    assert excused[0].verdict is Verdict.AGREES
    assert state_excused_resolutions(*excused).verdict is Verdict.AGREES


def test_an_error_that_scatters_as_widely_as_the_gradient_is_undecided() -> None:
    report, before, after = excuse(1.2)
    assert report.verdict is Verdict.AGREES
    found = state_excused_resolutions(report, before, after)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.parameters["a"].verdict is Verdict.INCONCLUSIVE
    assert found.parameters["b"].verdict is Verdict.AGREES
    assert found.notes[-1].startswith("Errors of a beyond the bound")


def test_no_resolution_is_finer_than_in_the_coarsest_format_of_a_gradient() -> None:
    def in_format(limit: float, dtype: Any, arguments: Any = np.float64) -> Compared:
        known = state_compared(ONES, ONES, dict.fromkeys("ab", np.full(1, limit)))
        given = {name: value.astype(arguments) for name, value in known.case.arguments.items()}
        dtypes = known.dtypes | {"a": np.dtype(dtype)}
        return known._replace(dtypes=dtypes, case=known.case._replace(arguments=given))

    fine, rounded = in_format(1e-9, np.float64), in_format(3e-4, np.float32)
    for compared, stated in [
        ([fine, rounded], 3e-4),
        ([rounded, in_format(2e-4, np.float32), fine], 2e-4),
        ([fine, rounded, in_format(5e-3, np.float16)], 5e-3),  # the coarsest of all
        ([fine, rounded, in_format(5e-3, np.float32, arguments=np.float32)], 3e-4),
        ([fine, in_format(1.0, np.float32)], 1e-9),  # which a note says
        # The judge's own choice of a format is no rounding.
        ([fine, in_format(3e-4, np.float32, arguments=np.float32)], 1e-9),
    ]:
        report = conclude(lambda case: None, subject(), "", compared, [], ())
        found = state_resolutions_of_formats(report, compared).parameters
        assert found["a"].resolution == pytest.approx(stated)
        assert found["b"] == report.parameters["b"]


def test_only_what_is_undecided_and_zero_is_accepted_as_zero() -> None:
    report = conclude_of([state_compared(ONES, ONES, {"a": np.ones(1), "b": np.full(1, 1e-9)})])
    found = report.parameters | {"c": report.parameters["b"]._replace(verdict=Verdict.DISAGREES)}
    assert found["a"].verdict is Verdict.INCONCLUSIVE
    accepted = accept_zeros(found, {"a", "c"})
    assert accepted == found | {
        "a": found["a"]._replace(verdict=Verdict.AGREES, resolution=np.inf),
        "c": found["c"]._replace(resolution=np.inf),
    }
    assert accept_zeros(found, {"b"}) == found | {"b": found["b"]._replace(resolution=np.inf)}


def test_the_entries_that_pass_as_zero_are_those_of_the_most_sensitive_case() -> None:
    limits = [{"a": np.array([3e-9, 1e-12]), "b": np.full(1, e)} for e in (1e-9, 2e-10, 5e-9)]
    compared = [state_compared(ONES, ONES, each) for each in limits]
    (note,) = describe_allowed_zeros(compared, {"a", "b", "c"})
    said = "Entries up to 3e-09 of ∂L/∂a and 2e-10 of ∂L/∂b pass as zero,"
    assert note == f"{said} in the most sensitive case."
    nothing = [state_compared(ONES, ONES, {"a": np.full(1, 1e-300), "b": np.zeros(1)})]
    assert not [*describe_allowed_zeros(nothing, {"a", "b"})]


def state_distances(*distances: float, precise: float = 2.0**-8) -> list[Any]:
    """Cases of a gradient whose largest entry is 2, with these errors relative to that.

    Of two further entries one is zero and right, as is the other. No case could tell. `precise` is
    the largest error of the reference, relative to the largest entry.
    """
    true = {"a": np.array([0.0, 2.0, 0.5])}
    known = state_case(true, {"a": np.array([0.0, 2 * precise, 0.0])}, true)
    return [
        state_compared(
            {"a": true["a"] + np.array([0.0, 0.0, 2 * away])}, true, {"a": np.full(3, 1e5)}
        )._replace(case=known)
        for away in distances
    ]


def conclude_of(compared: list[Any], near: Any = None, doubt: str | None = None) -> Report:
    """The report, where the error at each neighbour, relative to the largest entry, is `near`."""

    def attempt(case: Any) -> Any:
        errors = near or (lambda k, distance: 1e-6 * (-1) ** k)
        error = errors(*case.point)
        return None if error is None else state_distances(error)[0]

    displaced = subject(doubt)
    displaced.displace = lambda case, k, distance: case._replace(point=(k, distance))
    displaced.has_vanishing_steps = False
    return conclude(attempt, displaced, "", compared, [], ())


def test_small_errors_that_scatter_agree_although_rounding_may_be_large() -> None:
    found = conclude_of(state_distances(0, 1e-7, 1e-6, 2e-6))
    assert found.verdict is Verdict.AGREES
    assert 2e-6 < found.parameters["a"].resolution < 2e-5  # by (N3)
    said = "your errors are within 2e-06 of it in 4 cases, and scatter around zero"
    assert said in found.notes[-1]


@pytest.mark.parametrize(
    ("near", "agrees"),
    [
        (lambda k, distance: 1e-6 * (-1) ** k if k < 8 else None, True),
        (lambda k, distance: 1e-6 * (-1) ** k if k < 7 else None, False),  # too few answer
        (lambda k, distance: 1e-4 + 1e-6 * (-1) ** k, False),  # an error that stays
        (lambda k, distance: 1e-9 * (-1) ** k, False),  # smaller than those at the cases
        (lambda k, distance: 0.1 * (-1) ** k, False),  # a mistake of 2⁻⁶ would not be seen
        (lambda k, distance: 1e-6 * (-1) ** k if distance == DISTANCE else 1.0, True),
    ],
    ids=["eight", "seven", "stays", "smaller", "wide", "distance"],
)
def test_small_errors_decide_only_if_they_scatter_around_zero(near: Any, agrees: bool) -> None:
    found = conclude_of(state_distances(0, 1e-7, 1e-6, 4e-6), near)
    assert (found.verdict is Verdict.AGREES) == agrees
    if not agrees:
        assert found.notes[-1].startswith("∂L/∂a is not testable")


def test_the_scatter_at_one_case_of_four_may_leave_it_undecided() -> None:
    assert conclude_of(state_distances(0, 1e-7, 1e-6, 1e-4)).verdict is Verdict.INCONCLUSIVE
    # Of more cases, four are asked, and the errors of all have to be small.
    more = state_distances(0, 1e-7, 1e-6, 1e-7, 1e-4)
    assert conclude_of(more).verdict is Verdict.AGREES


def test_small_errors_do_not_remove_a_doubt() -> None:
    found = conclude_of(state_distances(0, 0, 0, 0), doubt="Too few cases.")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.notes[-1] == "Too few cases."
    vague = conclude_of(state_distances(0, 0, 0), doubt="Too few cases.")
    assert vague.notes[-1].startswith("∂L/∂a is not testable")


@pytest.mark.parametrize(("away", "agrees"), [(2.0**-6, True), (2.0**-6 * 1.01, False)])
def test_no_error_may_be_larger_than_what_has_to_be_seen(away: float, agrees: bool) -> None:
    # Errors of 1e-3 that alternate show one of 7e-3, and allow an error of 2.9e-2 at one point.
    found = conclude_of(state_distances(0, 0, 0, away), lambda k, distance: 1e-3 * (-1) ** k)
    assert (found.verdict is Verdict.AGREES) == agrees


@pytest.mark.parametrize(("share", "agrees"), [(4.1, True), (4.15, False)])
def test_an_error_may_be_the_root_of_seventeen_times_what_sixteen_show(
    share: float, agrees: bool
) -> None:
    """√17 is 4.123, √16 is 4, and √18 is 4.243."""
    errors = [np.array([1e-4 * (-1) ** k]) for k in range(16)]
    (limit,) = measure_scatter(errors, np.ones(1), np.zeros(1), ENTRIES).limit
    found = conclude_of(
        state_distances(0, 0, 0, share * limit), lambda k, distance: errors[k].item()
    )
    assert (found.verdict is Verdict.AGREES) == agrees


def test_one_unit_in_the_last_place_of_the_largest_entry_is_rounding_if_it_stays() -> None:
    found = conclude_of(state_distances(0, 0, 0, 2.0**-52), lambda k, distance: 2.0**-52)
    assert found.verdict is Verdict.AGREES


def test_the_resolution_is_that_of_the_case_that_shows_most() -> None:
    one, *others = state_distances(0, 0, 0, 0)
    larger = one._replace(
        submitted={"a": 2 * one.submitted["a"]}, values={"a": 2 * one.values["a"]}
    )
    finest, usual = (
        conclude_of([first, *others]).parameters["a"].resolution for first in (larger, one)
    )
    assert finest == pytest.approx(usual / 2)


@pytest.mark.parametrize(
    "compared",
    [
        state_distances(0, 1e-7, 1e-6, 2.0**-6 * 1.01),  # one is far
        state_distances(0, 1e-7, 1e-6),  # too few
        state_distances(0, 0, 0, 0, precise=2.0**-8 * 1.01),  # nor is the reference precise
    ],
)  # fmt: skip
def test_errors_that_are_not_small_in_enough_cases_decide_nothing(compared: Any) -> None:
    found = conclude_of(compared)
    assert found.verdict is not Verdict.AGREES
    assert found.parameters["a"].verdict is found.verdict


def test_a_case_whose_reference_is_not_precise_or_zero_does_not_count() -> None:
    vague = state_distances(0.5, precise=1e-2)
    assert conclude_of([*vague, *state_distances(0, 0, 0, 0)]).verdict is Verdict.AGREES
    (zero,) = [each._replace(values={"a": np.zeros(3)}) for each in state_distances(0)]
    assert conclude_of([zero, *state_distances(0, 0, 0)]).verdict is Verdict.INCONCLUSIVE
    unknown = [
        each._replace(case=each.case._replace(truth=None)) for each in state_distances(0, 0, 0, 0)
    ]
    assert conclude_of(unknown).verdict is Verdict.INCONCLUSIVE


def test_the_reference_of_a_gradient_is_precise_only_if_it_is_known() -> None:
    (found,) = state_distances(0)
    assert is_reference_precise(found, "a") is True
    assert is_reference_precise(found, "b") is False
    unknown = found._replace(case=found.case._replace(truth=None))
    assert is_reference_precise(unknown, "a") is False


def test_a_gradient_that_is_zero_wherever_it_is_known_is_not_testable() -> None:
    zero = state_compared({"a": np.zeros(2)}, {"a": np.zeros(2)}, {"a": np.ones(2)})
    other = state_compared({"b": np.ones(2)}, {"b": np.ones(2)}, {"b": np.ones(2)})
    said = "∂L/∂a is not testable: it is zero in every case."
    assert explain_untestable("a", [zero, other]) == said


@pytest.mark.parametrize(
    ("allowed", "much"),
    [(0.5, "by 0.5 of its"), (1.0, "by more than its"), (1.5, "by more than its")],
)
def test_it_is_said_by_how_much_rounding_may_move_a_gradient(allowed: float, much: str) -> None:
    found = state_compared({"a": np.ones(2)}, {"a": np.ones(2)}, {"a": np.full(2, allowed)})
    assert f"rounding alone may move it {much} largest entry" in explain_untestable("a", [found])


def test_no_solver_is_doubted_where_a_gradient_is_wrong_by_more_than_it_may_leave() -> None:
    def found(true: Any, error: float) -> Compared:
        values = {"a": np.array(true)}
        return state_compared({"a": values["a"] + error}, values, {"a": np.full(len(true), 1e-12)})

    asked = list[float]()

    def may_leave(cases: Any, error: float) -> bool:
        asked.append(error)
        return error < 1e-3

    subject: Any = SimpleNamespace(may_leave=may_leave)
    (said,) = doubt_solver(subject, [found([1.0, 0.0], 1e-5), found([1.0, 1.0], 1e-6)])
    assert said.startswith("Your results differ from the reference by up to 1e-05 of")
    assert doubt_solver(subject, [found([1.0, 0.0], 1e-5), found([1.0], 0.5)]) == []
    assert doubt_solver(subject, [found([0.0, 0.0], 1e-9)]) == []
    assert doubt_solver(subject, [found([1.0], 0.0)]) == []
    assert asked == [pytest.approx(1e-5), pytest.approx(0.5), np.inf]


def test_one_gradient_that_is_far_leaves_the_verdict_open() -> None:
    ones = {"a": np.ones(1), "b": np.ones(1)}
    known = state_case(ones, dict.fromkeys("ab", np.full(1, 1e-12)), ones)
    off = state_compared(ones | {"b": np.full(1, 3.0)}, ones, dict.fromkeys("ab", np.full(1, 1e5)))
    found = conclude_of([off._replace(case=known)] * 4)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.parameters["a"].verdict is Verdict.AGREES
    assert found.notes[-1].startswith("∂L/∂b is not testable")


SMALLEST, LARGEST = float(np.finfo(np.float32).smallest_normal), float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        # The largest entry of all cases is too small, or the smallest largest one too large.
        ([1e-44, 0.5 * SMALLEST], "its entries, 5.9e-39 at most, are below the normal numbers of"),
        ([1e-44, SMALLEST], "rounding alone may move it by"),
        ([2 * LARGEST, 1e300], "its largest entry, 6.8e+38 at least, is beyond the numbers of"),
        ([LARGEST, 1e300], "rounding alone may move it by"),
        ([1.0], "rounding alone may move it by more than its largest entry in the precision"),
    ],
)
def test_numbers_that_the_format_does_not_hold_are_the_reason(
    sizes: list[float], said: str
) -> None:
    values = [{"a": np.array([0.0, size / 4, size])} for size in sizes]
    cases = [state_compared(v, v, {"a": np.full(3, np.inf)}, np.float32) for v in values]
    for given in (cases, cases[::-1]):
        assert said in conclude_of(given).notes[-1]


def test_the_least_that_rounding_may_move_a_gradient_by_is_the_reason() -> None:
    value = {"a": np.array([0.0, 2.0])}
    cases = [
        state_compared(value, value, {"a": np.array([1e-3, allowed])}) for allowed in (3.0, 1.0)
    ]
    for given in (cases, cases[::-1]):
        assert "may move it by 0.5 of its largest entry" in conclude_of(given).notes[-1]


@pytest.mark.parametrize(
    ("decided", "verdict", "said"),
    [
        ({}, Verdict.INCONCLUSIVE, None),
        ({"a": RIGHT, "b": WORST}, Verdict.AGREES, "the worst relative error is 1e-08."),
        ({"a": RIGHT, "b": VAGUE}, Verdict.INCONCLUSIVE, "Exact values decided on a alone."),
        ({"a": RIGHT}, Verdict.INCONCLUSIVE, "Exact values decided on a alone."),
        ({"a": VAGUE, "b": VAGUE}, Verdict.INCONCLUSIVE, None),
        ({"a": RIGHT, "b": WRONG}, Verdict.DISAGREES, "exact values decided."),
    ],
)  # fmt: skip
def test_exact_values_decide_only_if_they_decide_on_every_gradient(
    decided: Any, verdict: Verdict, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = conclude_with(monkeypatch, decided)
    assert found.verdict is verdict
    if said is None:
        assert not any("xact values decided" in note for note in found.notes)
    else:
        assert found.notes[-1].endswith(said)


def test_exact_values_that_decide_leave_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    found = conclude_with(monkeypatch, {"a": RIGHT, "b": WORST}, doubt="Too few cases.")
    assert found.verdict is Verdict.AGREES
    assert "Too few cases." not in found.notes


def test_exact_values_are_not_asked_where_the_comparisons_decide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert conclude_with(monkeypatch, {"a": WRONG}, allowed=1e-9).verdict is Verdict.AGREES


def test_without_exact_values_the_report_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_values, "is_available", lambda: False)
    compared = [state_compared(ONES, ONES, dict.fromkeys("ab", np.ones(1)))]
    before = conclude(lambda case: None, subject(), "", compared, [], ())
    assert before.verdict is Verdict.INCONCLUSIVE
    again = ask_exact_values(before, lambda case: None, subject(), compared)
    assert again.verdict is Verdict.INCONCLUSIVE


def show(shape: tuple[int, ...], arguments: Any) -> Any:
    """The counterexample of a gradient of this shape, wrong in its last entry."""
    true = np.zeros(shape)
    wrong = true.copy()
    wrong.flat[-1] = 1.0
    found = state_compared({"w": wrong}, {"w": true}, {"w": np.full(shape, 0.5)})
    found = found._replace(case=found.case._replace(arguments=arguments))
    made: Any = SimpleNamespace(
        describe_sizes=lambda found: "sizes",
        reproduce=lambda found: "",
        write_case=lambda found: "",
    )
    return make_counterexample(made, found)


@pytest.mark.parametrize(
    ("shape", "row"),
    [((10, 10), ""), ((101,), ""), ((1, 101), ", row 0 of w"), ((2, 51), ", row 1 of w")],
)
def test_a_large_gradient_is_shown_by_the_row_of_its_worst_entry(
    shape: tuple[int, ...], row: str
) -> None:
    found = show(shape, {})
    assert found.sizes == "sizes" + row
    shown = np.zeros(shape[1:] if row else shape)
    shown.flat[-1] = 1.0
    assert np.array(found.yours).tolist() == shown.tolist()
    assert np.array(found.error_over_bound).tolist() == (2 * shown).tolist()


def test_arguments_are_shown_up_to_four_hundred_numbers() -> None:
    assert show((2,), {"a": np.zeros(200), "b": np.zeros((2, 100))}).arrays.keys() == {"a", "b"}
    assert show((2,), {"a": np.zeros(200), "b": np.zeros(201)}).arrays == {}
