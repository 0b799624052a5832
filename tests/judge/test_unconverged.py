"""A gradient of a fixed point is right where the iteration of the loss converges, and only there.

What further steps may change is allowed where it ends early. What disagrees far from the parameters
given is left out where the iteration has not converged.
"""

from collections.abc import Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.unconverged import (
    MOST,
    OWN_ITERATIONS,
    SAID,
    SECOND_DERIVATIVES,
    SEVERAL,
    allow_unconverged,
    count_telling,
    describe_early,
    has_converged,
    is_left_out,
)
from bptt_verifier.program.fixed_points import Limit
from bptt_verifier.reference.points import Point
from bptt_verifier.tolerance.comparison import compare_all
from bptt_verifier.tolerance.noise import SAFETY
from tests.support.stated_cases import state_compared

ONES = {"w": np.ones(2)}


def state_found(number: int, fails: bool, near: bool = False, error: float = 0.5) -> Compared:
    found = state_compared({"w": np.ones(2) + error * fails}, ONES, {"w": np.full(2, 1e-14)})
    return found._replace(case=found.case._replace(point=Point(number, near=near)))


TRUE = {"w": np.ones(2)}
NEAR, FAR = Limit(True, TRUE, 1e-12), Limit(False, {})


def state_limit(value: float, uncertain: float = 1e-12) -> Limit:
    return Limit(True, {"w": np.full(2, value)}, uncertain / SECOND_DERIVATIVES)


def state_subject(known: dict[int, Limit | None], iterated: Any = None) -> Any:
    places = iterated or (lambda number: {"there"})
    return SimpleNamespace(
        find_iterated=lambda case: frozenset(places(case.point.number)),
        find_limits=lambda case: filter(None, [known[case.point.number]]), zeros=frozenset(),
        describe_iteration=lambda case: " there", has_vanishing_steps=False,
        may_be_outside=lambda case: case.point.number != 0,
        displace=lambda case, number, distance: case,
    )  # fmt: skip


def allow(*found: tuple[Compared, Limit | None], attempt: Any = None, iterated: Any = None) -> Any:
    """What is allowed in cases of which it is known how far from a fixed point they end."""
    known = {each.case.point.number: limit for each, limit in found}
    every = {each.case.point.number: each for each, _ in found}
    return allow_unconverged(
        attempt or (lambda case: every[case.point.number]),
        state_subject(known, iterated),
        [each for each, _ in found],
    )


def state_right(number: int) -> Iterator[tuple[Compared, Limit]]:
    return ((state_found(100 + k, fails=False), NEAR) for k in range(number))


def test_what_disagrees_is_left_out_where_several_cases_have_converged() -> None:
    failing = state_found(1, fails=True)
    for limit in (FAR, state_limit(1 + 2 * MOST), state_limit(1.0, 2 * MOST)):
        found = allow((failing, limit), *state_right(SEVERAL))
        assert len(found.compared) == len(found.allowed) == len(found.settled) == SEVERAL
        said = "In 1 case the iteration of your loss there has not converged"
        assert found.notes[0].startswith(said)
        assert found.notes[0].endswith("your gradients agree in 4 cases in which it has converged.")
        assert found.notes[1].startswith("4 of 4 cases could")
    assert allow((failing, FAR), *state_right(SEVERAL - 1)) is None


def test_nothing_is_decided_where_more_cases_are_left_out_than_kept() -> None:
    failing = [(state_found(1 + k, fails=True), FAR) for k in range(SEVERAL + 1)]
    assert allow(*failing[:SEVERAL], *state_right(SEVERAL)).doubts == ()
    found = allow(*failing, *state_right(SEVERAL))
    assert len(found.compared) == SEVERAL
    (doubt,) = found.doubts
    assert doubt.startswith("5 of 9 cases are too many to leave out")


def test_what_agrees_is_kept_where_the_iteration_has_not_converged() -> None:
    found = allow(
        (state_found(1, fails=True), FAR), (state_found(2, fails=False), FAR),
        *state_right(SEVERAL),
    )  # fmt: skip
    assert len(found.compared) == SEVERAL + 1
    assert "in 4 cases in which" in found.notes[0]


@pytest.mark.parametrize(
    ("failing", "limit"),
    [
        (state_found(1, fails=True), NEAR),
        (state_found(1, fails=True), None),  # no iteration
        (state_found(0, fails=True), FAR),  # the parameters given
        (state_found(1, fails=True, near=True), FAR),
        (state_found(1, fails=False), FAR),
    ],
)
def test_nothing_else_is_left_out(failing: Compared, limit: Limit | None) -> None:
    assert allow((failing, limit), *state_right(SEVERAL)) is None
    assert is_left_out(state_subject({failing.case.point.number: limit}), failing) is False


def test_a_case_near_the_parameters_given_is_left_out_where_the_iteration_converges_at_these() -> (
    None
):
    near, others = (state_found(1, fails=True, near=True), FAR), [*state_right(SEVERAL - 1)]
    found = allow(near, (state_found(0, fails=False), NEAR), *others)
    assert len(found.compared) == SEVERAL
    for limit in (FAR, None):
        assert allow(near, (state_found(0, fails=False), limit), *state_right(SEVERAL)) is None
    wrong = state_found(0, fails=True), NEAR
    assert allow(near, wrong, *state_right(SEVERAL)) is None
    nearly = state_found(0, fails=True, error=1e-4), state_limit(1 + 1e-4)
    found = allow(near, nearly, *others)
    assert not found.fails
    assert len(found.compared) == SEVERAL
    loosely = state_found(0, fails=True, error=1e-5), state_limit(1.0, 1.6e-7)
    assert allow(near, loosely, *others) is None
    by_decision = loosely[1]._replace(by_decision=True)
    found = allow(near, (loosely[0], by_decision), *others)
    assert found.doubts
    assert not found.fails
    assert len(found.compared) == SEVERAL


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("error", "passes"), [(0.9, True), (-0.9, True), (1.1, False)])
def test_gradients_are_those_of_a_fixed_point_as_far_as_values_are(
    number: int, error: float, passes: bool
) -> None:
    """At the parameters given, too, and without another case that agrees."""
    failing = state_found(number, fails=True, error=3e-4 + error * 1e-5)
    found = allow((failing, state_limit(1 + 3e-4, 1e-5)))
    assert (found is not None) is passes
    if passes:
        assert found.compared == [failing]
        assert found.allowed[0].allowed["w"] == pytest.approx(1e-5, rel=1e-3)
        assert found.settled[0].agrees
        (said,) = found.notes
        assert said.startswith("In 1 case the iteration of your loss there ends before rounding")
        assert "differ from the derivative of the loss by up to 0.0003 of their" in said


def test_the_gradient_of_a_fixed_point_is_near_that_of_the_loss() -> None:
    failing = state_found(0, fails=True, error=MOST)
    assert allow((failing, state_limit(1 + MOST))) is not None
    assert allow((failing, state_limit(1.0, MOST))) is not None
    assert allow((failing, state_limit(1.0, 1.01 * MOST))) is None
    assert allow((state_found(0, fails=True, error=SAID), state_limit(1 + SAID))) is not None
    far = state_found(0, fails=True, error=1.01 * SAID)
    assert allow((far, state_limit(1 + 1.01 * SAID))) is None
    subject = state_subject({0: state_limit(1 + 2 * MOST, 2 * MOST)})
    failing = state_found(0, fails=True, error=2 * MOST)
    (said,) = describe_early(subject, [failing])
    assert "the iteration of your loss there ends before its fixed point: with further" in said
    assert "change by 0.00012 of the largest, and the gradients of the loss by 0.002. Yours" in said
    assert describe_early(state_subject({0: NEAR}), [failing]) == []
    beyond = state_found(0, fails=True, error=0.1)
    assert describe_early(state_subject({0: state_limit(1.1)}), [beyond]) == []


def test_where_terms_cancel_a_gradient_is_as_uncertain_as_rounding_shows() -> None:
    """A deviation of 2⁻⁴⁵ by errors of 2⁻⁵³ is one of 2⁻²² by errors of 2⁻³⁰."""
    failing = state_found(0, fails=True, error=0.9 * 2.0**-22)
    allowed = {"w": np.full(2, SAFETY * 2.0**-45)}
    comparisons = compare_all(failing.submitted, failing.values, allowed)
    failing = failing._replace(allowed=allowed, comparisons=comparisons)
    limit = Limit(True, {"w": np.ones(2)}, 2.0**-30)
    found = allow((failing, limit))
    assert not found.fails
    assert found.allowed[0].allowed["w"] == pytest.approx(2.0**-22, rel=1e-3)
    further = failing._replace(submitted={"w": np.full(2, 1 + 1.1 * 2.0**-22)})
    assert allow((further, limit)) is None
    largest = failing._replace(submitted={"w": np.full(2, 1 + 1.1 * MOST)})
    assert allow((largest, limit._replace(apart=2.0**-15))) is None


def test_a_loop_that_ends_too_early_by_decision_leaves_a_fixed_point_undecided() -> None:
    """Whoever states a tolerance means the fixed point; so many steps may be the loss itself."""
    limit = state_limit(1 + 1e-3, 4 * MOST)._replace(by_decision=True)
    failing = state_found(0, fails=True, error=2e-3)
    found = allow((failing, limit))
    assert not found.fails
    (doubt,) = found.doubts
    assert doubt.startswith(
        "At the parameters given, the iteration of your loss there ends before its fixed"
    )
    assert allow((failing, limit._replace(by_decision=False))) is None
    assert allow((failing, limit._replace(apart=2 * SAID / SECOND_DERIVATIVES))) is None
    wrong = state_found(0, fails=True, error=0.5)
    assert allow((wrong, limit)) is None
    drawn = state_found(1, fails=True, error=2e-3)
    kept = allow((drawn, limit), *state_right(SEVERAL))
    assert kept.doubts == ()
    assert len(kept.compared) == SEVERAL  # it is left out
    few = allow((drawn, limit), *state_right(SEVERAL - 1))
    assert len(few.compared) == SEVERAL
    assert few.doubts[0].startswith("At a case, the iteration")
    other = state_found(2, fails=True), NEAR
    assert allow((failing, limit), other) is None
    explained = state_found(3, fails=True, error=1e-4), state_limit(1 + 1e-4)
    beside = allow((failing, limit), explained, other)
    assert beside.fails
    assert beside.doubts == ()
    assert [each.fails for each in beside.settled] == [True, False, True]


def test_gradients_may_read_more_of_the_last_step_than_the_loss_does() -> None:
    """The largest singular value converges to twice as many digits as its vectors."""
    failing = state_found(0, fails=True, error=0.9e-6)
    limit = Limit(True, TRUE, 1e-13, inside=1e-6 / SECOND_DERIVATIVES)
    assert not allow((failing, limit)).fails
    assert allow((failing, limit._replace(inside=0.8e-6 / SECOND_DERIVATIVES))) is None
    largest = state_found(0, fails=True, error=1.1 * MOST)
    assert allow((largest, limit._replace(inside=2.0**-5))) is None


def test_a_gradient_with_an_iteration_of_its_own_may_be_further_away() -> None:
    """It solves for an eigenvector of the transpose, say, to the tolerance of the loss."""
    apart = 1e-12
    limit = Limit(True, TRUE, apart, by_decision=True)
    failing = state_found(0, fails=True, error=0.9 * OWN_ITERATIONS * apart)
    found = allow((failing, limit))
    assert not found.fails
    (doubt,) = found.doubts
    assert doubt.startswith(
        "At the parameters given, your gradients differ from those of the fixed point that your "
        "loss iterates to there by 9.2e-10, and further steps change its values by 1e-12 of"
    )
    assert allow((failing, limit._replace(by_decision=False))) is None
    further = state_found(0, fails=True, error=1.1 * OWN_ITERATIONS * apart)
    assert allow((further, limit)) is None
    loose = limit._replace(apart=0.5 * MOST / SECOND_DERIVATIVES)
    (doubt,) = allow((state_found(0, fails=True, error=0.9 * MOST), loose)).doubts
    assert doubt.startswith("At the parameters given, your gradients differ from those of the fix")
    assert allow((state_found(0, fails=True, error=1.1 * MOST), loose)) is None


def test_a_case_is_left_out_where_a_loop_of_one_kind_has_not_converged() -> None:
    failing = state_found(1, fails=True)
    subject = state_subject({})
    subject.find_limits = lambda case: iter([FAR, NEAR])
    assert is_left_out(subject, failing)
    subject.find_limits = lambda case: iter([NEAR, NEAR])
    assert not is_left_out(subject, failing)


def test_the_kind_of_loop_that_explains_is_the_one_compared_with() -> None:
    failing = state_found(0, fails=True, error=1e-4)
    subject = state_subject({})
    for order in ([FAR, state_limit(1 + 1e-4)], [state_limit(1.0), state_limit(1 + 1e-4)]):
        subject.find_limits = lambda case, order=order: iter(order)
        kept = allow_unconverged(lambda case: failing, subject, [failing])
        assert kept is not None
        assert not kept.fails


def test_a_mistake_shows_in_gradients_that_are_not_always_zero() -> None:
    true = {"w": np.ones(2), "unused": np.zeros(2), "loss": np.ones(())}
    limits = {"w": np.full(2, 1e-9), "unused": np.ones(2), "loss": np.full((), 1e5)}
    cases = [state_compared(true, true, limits)] * 2
    subject: Any = SimpleNamespace(zeros=frozenset(["unused"]))
    (said,) = count_telling(subject, cases)
    assert said.startswith("2 of 2 cases could")
    subject.zeros = frozenset(["w", "unused"])
    assert count_telling(subject, cases)[0].startswith("0 of 2 cases could")
    assert count_telling(subject, [])[0].startswith("0 of 0 cases could")


@pytest.mark.parametrize("limit", [FAR, state_limit(1.0, 1e-4)])
def test_what_scatters_like_rounding_is_kept(limit: Limit) -> None:
    true, sign = {"w": np.ones(2)}, cycle([1.0, -1.0])
    failing = state_found(1, fails=True, error=1e-5)

    def attempt(case: Any) -> Compared:
        if case.point.number != 1:
            return failing._replace(submitted=true)
        return failing._replace(submitted={"w": 1 + 1e-5 * next(sign) * np.ones(2)})

    assert allow((failing, limit), *state_right(SEVERAL), attempt=attempt) is None


def test_what_scatters_by_all_of_a_gradient_is_left_out() -> None:
    failing, sign = state_found(1, fails=True, error=2.0), cycle([2.0, -2.0])

    def attempt(case: Any) -> Compared:
        return failing._replace(submitted={"w": 1 + next(sign) * np.ones(2)})

    found = allow((failing, FAR), *state_right(SEVERAL), attempt=attempt)
    assert len(found.compared) == SEVERAL


def test_nothing_is_left_out_where_another_case_disagrees() -> None:
    wrong = state_found(2, fails=True), NEAR
    left = state_found(1, fails=True), FAR
    assert allow(left, wrong, *state_right(SEVERAL)) is None


def test_what_is_nearly_a_fixed_point_is_no_evidence_beside_what_disagrees() -> None:
    nearly = state_found(0, fails=True, error=1e-4), state_limit(1 + 1e-4)
    wrong, left = (state_found(2, fails=True), NEAR), (state_found(3, fails=True), FAR)
    found = allow(nearly, wrong, left, *state_right(SEVERAL))
    assert found.fails
    assert [each.fails for each in found.settled[:3]] == [False, True, True]
    assert len(found.compared) == 3 + SEVERAL
    (said,) = found.notes
    assert "ends before rounding would end it" in said


def test_too_few_steps_to_repeat_are_left_out_beside_what_is_nearly_a_fixed_point() -> None:
    nearly = state_found(0, fails=True, error=1e-4), state_limit(1 + 1e-4)
    brief = state_found(1, fails=True), None
    found = allow(nearly, brief, *state_right(SEVERAL))
    assert not found.fails
    assert len(found.compared) == 1 + SEVERAL
    assert "has not converged, or takes a single step, so that" in found.notes[1]
    assert "in 5 cases in which" in found.notes[1]
    elsewhere = allow(
        nearly,
        brief,
        *state_right(SEVERAL),
        iterated=lambda number: {"there"} if number != 1 else set(),
    )
    assert elsewhere.fails  # on a path without the iteration
    given = state_found(0, fails=True), None
    near = state_found(5, fails=True, error=1e-4), state_limit(1 + 1e-4)
    assert allow(near, given, *state_right(SEVERAL)).fails


def test_a_loop_on_a_path_of_its_own_is_not_left_out() -> None:
    """An integration in time on one path is no iteration to the fixed point on the other."""
    failing = state_found(1, fails=True)
    others = [*state_right(SEVERAL)]
    assert allow((failing, FAR), *others) is not None
    apart = {1: {"there", "elsewhere"}}
    assert allow((failing, FAR), *others, iterated=lambda n: apart.get(n, {"there"})) is None


def state_scaled(number: int, true: dict[str, float], errors: dict[str, float]) -> Compared:
    """A case with these gradients, of one entry, and relative errors."""
    values = {name: np.full(1, value) for name, value in true.items()}
    submitted = {name: value * (1 + errors.get(name, 0.0)) for name, value in values.items()}
    found = state_compared(submitted, values, {n: 1e-14 * np.abs(v) for n, v in values.items()})
    return found._replace(case=found.case._replace(point=Point(number)))


def limit_of(found: Compared, away: dict[str, float], apart: float = 1e-14) -> Limit:
    return Limit(True, {n: v * (1 + away.get(n, 0.0)) for n, v in found.values.items()}, apart)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_what_a_fixed_point_explains_is_relative_to_the_gradient(size: float) -> None:
    def explains(error: float, away: float, apart: float = 1e-14) -> bool:
        found = state_scaled(0, {"w": size}, {"w": error})
        return allow((found, limit_of(found, {"w": away}, apart))) is not None

    # Up to 2⁻⁴ away from the derivative of the loss.
    assert explains(0.99 * 2.0**-4, 0.99 * 2.0**-4)
    assert not explains(1.01 * 2.0**-4, 1.01 * 2.0**-4)
    # Uncertain by 16 times what the values of the last step are.
    assert explains(15e-9, 0.0, 1e-9)
    assert not explains(17e-9, 0.0, 1e-9)


def test_where_rounding_shows_much_the_uncertainty_is_a_part_of_the_gradient() -> None:
    found = state_scaled(0, {"w": 1e3}, {"w": 0.9 * MOST})
    vague = found._replace(allowed={"w": np.full(1, 1e-2)})
    limit = limit_of(found, {}, 2.0**-15)
    assert allow((vague, limit)) is not None
    further = state_scaled(0, {"w": 1e3}, {"w": 1.1 * MOST})._replace(allowed=vague.allowed)
    assert allow((further, limit)) is None


def test_each_gradient_is_near_that_of_the_fixed_point() -> None:
    found = state_scaled(0, {"a": 1.0, "b": 1.0}, {"a": 0.1, "b": 1e-5})
    assert allow((found, limit_of(found, {"a": 0.1, "b": 1e-5}))) is None
    found = state_scaled(0, {"a": 1.0, "b": 1.0}, {"a": 1e-3, "b": 1e-5})
    kept = allow((found, limit_of(found, {"a": 1e-3, "b": 1e-5})))
    assert "derivative of the loss by up to 0.001 of their largest entry" in kept.notes[0]
    other = state_scaled(1, {"a": 1.0, "b": 1.0}, {"a": 1e-4})
    both = allow(
        (found, limit_of(found, {"a": 1e-3, "b": 1e-5})), (other, limit_of(other, {"a": 1e-4}))
    )
    assert "In 2 cases" in both.notes[0]
    assert "derivative of the loss by up to 0.001 of their largest entry" in both.notes[0]


def test_an_iteration_has_converged_or_not_or_there_is_none() -> None:
    found = state_found(1, fails=True)
    for limit, known in (
        (NEAR, True), (FAR, False), (None, None),
        (NEAR._replace(apart=2.0**-14), True), (NEAR._replace(apart=1.01 * 2.0**-14), False),
    ):  # fmt: skip
        assert has_converged(state_subject({1: limit}), found) is known


def test_loops_end_early_only_where_nothing_else_explains_a_gradient() -> None:
    explained = state_found(0, fails=True, error=1e-4)
    near = state_limit(1 + 1e-4)._replace(by_decision=True)
    assert describe_early(state_subject({0: near}), [explained]) == []
    # The sentence of a loss that is further from its fixed point than 2⁻¹⁴, and that of one nearer.
    found = state_scaled(0, {"a": 1.0, "b": 1.0}, {"a": 2e-3, "b": 0.9 * MOST})
    limit = limit_of(found, {"a": 2e-3}, 1.01 * 2.0**-14)._replace(by_decision=True)
    (early,) = describe_early(state_subject({0: limit}), [found])
    assert "the iteration of your loss there ends before its fixed point" in early
    near = limit_of(found, {"a": 2e-3}, 1e-6)._replace(by_decision=True)
    (early,) = describe_early(state_subject({0: near}), [found])
    assert "your loss iterates to there by 0.00088, and" in early


def test_all_cases_that_are_left_out_are_at_lines_that_converge_elsewhere() -> None:
    left = [(state_found(n, fails=True), FAR) for n in (1, 2)]
    apart = {2: {"there", "elsewhere"}}
    found = allow(*left, *state_right(SEVERAL), iterated=lambda n: apart.get(n, {"there"}))
    assert found is None
    nearly = state_found(0, fails=True, error=1e-4), state_limit(1 + 1e-4)
    brief = state_found(3, fails=True), None
    found = allow(nearly, brief, left[0], *state_right(SEVERAL))
    assert "has not converged, or takes a single step, so that" in found.notes[1]
