"""A gradient of a fixed point is right where the iteration of the loss converges, and only there.

What further steps may change is allowed where it ends early. What disagrees far from the parameters
given is left out where the iteration has not converged.
"""

from collections.abc import Iterator
from functools import partial
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import own_model
from bptt_verifier.judge.own_model import TRIED, OwnSubject
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.unconverged import (
    MOST,
    SAID,
    SECOND_DERIVATIVES,
    SEVERAL,
    allow_unconverged,
    count_telling,
    describe_early,
    is_left_out,
)
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.fixed_points import Limit
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point
from bptt_verifier.tolerance.comparison import Verdict, compare_all
from bptt_verifier.tolerance.noise import SAFETY
from tests.support.stated_cases import state_compared

WEIGHTS = np.random.default_rng(3).uniform(0.5, 2, 4)
W = 0.2 * np.random.default_rng(1).normal(size=(3, 3))
X, AIM = np.array([0.7, -0.4, 0.9]), np.array([0.1, 0.2, -0.3])
ONES = {"w": np.ones(2)}


def settle(p: Any) -> Any:
    z = np.zeros(3)
    for _ in range(60):
        z = np.tanh(p["W"] @ z + X)
    return z


def loss(p: Any) -> Any:
    return np.sum((settle(p) - AIM) ** 2)


def differentiate(p: Any, inverse: float = 1.0) -> Any:
    z = settle(p)
    slope = 1 - z**2
    jacobian = inverse * slope[:, None] * p["W"]
    adjoint = np.linalg.solve(np.eye(3) - jacobian.T, 2 * (z - AIM))
    return {"W": np.outer(adjoint * slope, z)}


@pytest.mark.rest
def test_an_own_model_tells_where_its_iteration_is_and_converges() -> None:
    own = OwnSubject(prepare(loss, {"W": W}, cases=1))
    given = own.model.make_case(Point(0))
    (near,) = own.find_limits(given)
    assert near.converged
    assert near.apart < 1e-13
    np.testing.assert_allclose(near.gradients["W"], differentiate({"W": W})["W"], rtol=1e-10)
    assert [*own.find_limits(given)] == [near]
    (far,) = own.find_limits(given._replace(arguments={"W": -9 * np.eye(3)}))
    assert not far.converged
    assert own.describe_iteration(given).startswith(" at `z = np.tanh(p[")

    def without_iteration(p: Any) -> Any:
        return np.sum(np.tanh(p["W"]) ** 2)

    direct = OwnSubject(prepare(without_iteration, {"W": W}, cases=1))
    assert [*direct.find_limits(direct.model.make_case(Point(0)))] == []
    assert direct.describe_iteration(direct.model.make_case(Point(0))) == ""


@pytest.mark.slow
def test_cases_are_left_out_in_which_the_iteration_has_not_converged() -> None:
    report = verify_own_model(differentiate, loss, {"W": W})
    assert report.verdict is Verdict.AGREES, str(report)
    early, unconverged = report.notes[:2]
    for note in (early, unconverged):
        assert "the iteration of your loss at `z = np.tanh(p[" in note
    assert "ends before rounding would end it" in early
    assert "has not converged" in unconverged
    left = int(unconverged.split()[1])
    assert left > 0
    assert report.cases == 24 - left
    kept = f"{report.cases} of {report.cases} cases could have shown a mistake in every gradient."
    assert report.notes[2] == kept
    assert sum(note.endswith("in every gradient.") for note in report.notes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("inverse", [0.0, 0.999])
def test_a_wrong_gradient_of_a_fixed_point_disagrees(inverse: float) -> None:
    report = verify_own_model(lambda p: differentiate(p, inverse), loss, {"W": W}, timeout=1)
    assert report.verdict is Verdict.DISAGREES
    assert report.cases == 24


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (1.0 + 1e-9, False)])
def test_the_loss_of_a_fixed_point_may_be_another_one_where_none_is_reached(
    factor: float, right: bool
) -> None:
    def gradients(p: Any) -> Any:
        z = settle(p)
        for _ in range(1001):
            z = np.tanh(p["W"] @ z + X)
        return factor * np.sum((z - AIM) ** 2), differentiate(p)

    report = verify_own_model(gradients, loss, {"W": W})
    assert report.verdict is (Verdict.AGREES if right else Verdict.DISAGREES), str(report)
    assert [found.name for found in report.mistakes] == ["forward-differs"] * (not right)
    assert right is ("has not converged" in " ".join(report.notes))


def take_cube_root(p: Any) -> Any:
    """Newton's method, which a loose tolerance ends after a step or none."""
    a = 1 + 0.1 * np.tanh(p["w"])
    z = (2 + a) / 3
    while np.max(np.abs(z**3 - a)) > 1e-4:
        z = z - (z**3 - a) / (3 * z * z)
    return z


@pytest.mark.parametrize(
    ("factor", "right"), [(1.0, True), pytest.param(1.003, False, marks=pytest.mark.rest)]
)
def test_a_loop_that_a_loose_tolerance_ends_at_once_has_a_fixed_point(
    factor: float, right: bool
) -> None:
    def gradients(p: Any) -> Any:
        z = take_cube_root(p)
        return {"w": factor * WEIGHTS * 0.1 * (1 - np.tanh(p["w"]) ** 2) / (3 * z * z)}

    def weigh_root(p: Any) -> Any:
        return WEIGHTS @ take_cube_root(p)

    params = {"w": np.random.default_rng(3).normal(size=4) * 0.1}
    report = verify_own_model(gradients, weigh_root, params, timeout=1)
    assert report.verdict is (Verdict.AGREES if right else Verdict.DISAGREES), str(report)
    if right:
        said = " at `while np.max(np.abs(z**3 - a)) > 1e-4:` ("
        assert any(f"the iteration of your loss{said}" in note for note in report.notes)
        assert report.cases == 24


@pytest.mark.rest
def test_further_steps_are_traced_once_for_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, find = list[Any](), own_model.continue_loops

    def count(trace: Any, params: Any, known: Any, *, patient: bool) -> Any:
        asked.append((dict(known), patient))
        return find(trace, params, known, patient=patient)

    monkeypatch.setattr(own_model, "continue_loops", count)

    def take(p: Any) -> Any:
        z, small = p["w"], 0
        while small < 2:
            new = z - 0.9 * (z - 0.1 * np.tanh(p["w"]))
            small = small + 1 if np.max(np.abs(new - z)) < 1e-3 else 0
            z = new
        return np.sum(z)

    own = OwnSubject(prepare(take, {"w": np.array([0.3, -0.5])}, cases=1))
    given = own.model.make_case(Point(0))
    limits = [*own.find_limits(given)]
    assert [limit.by_decision for limit in limits].count(True) == 1
    assert [*own.find_limits(given)][-1].gradients.keys() == {"w"}
    assert asked == [({}, False)]
    assert own.find_iterated(given)
    further = given._replace(arguments={"w": np.array([300.0, 0.1])})  # takes more steps
    assert [*own.find_limits(further)][-1].by_decision
    known, patient = asked[-1]
    assert len(asked) == 2
    assert patient
    assert [site[0].text.startswith("small = ") for site in known] == [True]

    def branch(p: Any) -> Any:
        return np.sum(np.tanh(p["w"])) if np.sum(p["w"]) > 0 else np.sum(p["w"])

    asked.clear()
    other = OwnSubject(prepare(branch, {"w": np.array([0.3, 0.5])}, cases=1))
    given = other.model.make_case(Point(0))
    assert [each for _ in range(TRIED + 1) for each in other.find_limits(given)] == []
    assert len(asked) == TRIED
    assert other.describe_iteration(given) == ""


AMOUNT = {"c": np.array([0.4, 0.9])}
BEGIN, GOAL = np.array([1.0, -0.5]), np.array([0.3, 0.1])


def take_implicit_step(p: Any, tolerance: float) -> Any:
    """One step of implicit Euler for x' = −c x³, by Newton's method up to a tolerance."""
    z = BEGIN
    for _ in range(30):
        r = z - BEGIN + p["c"] * z**3
        if np.linalg.norm(r) < tolerance:
            break
        z = z - r / (1 + 3 * p["c"] * z**2)
    return z


def lose_step(p: Any, tolerance: float) -> Any:
    return 0.5 * np.sum((take_implicit_step(p, tolerance) - GOAL) ** 2)


def differentiate_step(p: Any, tolerance: float, factor: float = 1.0) -> Any:
    z = take_implicit_step(p, tolerance)
    return {"c": -factor * (z - GOAL) * z**3 / (1 + 3 * p["c"] * z**2)}


def verify_step(tolerance: float, factor: float) -> Any:
    return verify_own_model(
        partial(differentiate_step, tolerance=tolerance, factor=factor),
        partial(lose_step, tolerance=tolerance),
        AMOUNT,
        cases=6,
        timeout=1,
    )


@pytest.mark.rest
@pytest.mark.parametrize("tolerance", [pytest.param(1e-6, marks=pytest.mark.slow), 1e-7])
def test_the_gradient_of_a_fixed_point_is_right_where_a_tolerance_ends_the_iteration(
    tolerance: float,
) -> None:
    report = verify_step(tolerance, 1.0)
    assert report.verdict is Verdict.AGREES, str(report)
    (said,) = (note for note in report.notes if "ends before rounding would end it" in note)
    assert "the iteration of your loss at `z = z - r / (1 + 3 *" in said
    assert "compared there with those of its fixed point, which differ from the derivative" in said
    assert float(said.split("by up to ")[1].split()[0]) > 1e-12
    assert not any("scatter like rounding" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize(("tolerance", "factor"), [(1e-9, 1 + 1e-3), (1e-5, 1.01)])
def test_more_than_further_steps_change_is_wrong(tolerance: float, factor: float) -> None:
    report = verify_step(tolerance, factor)
    assert report.verdict is Verdict.DISAGREES
    assert "ends before rounding" not in str(report)


@pytest.mark.slow
def test_the_report_says_so_where_too_few_steps_are_taken_at_the_parameters_given() -> None:
    matrix, vector = np.diag([2.0, 1.2, 0.5]), np.ones(3) / 3**0.5

    def find_largest(p: Any) -> Any:
        v = vector
        for _ in range(12):
            v = p["A"] @ v
            v = v / np.linalg.norm(v)
        return v

    def find_value(p: Any) -> Any:
        return find_largest(p) @ p["A"] @ find_largest(p)

    report = verify_own_model(
        lambda p: {"A": np.outer(find_largest(p), find_largest(p))},
        find_value,
        {"A": matrix},
        cases=2,
        timeout=1,
    )
    assert report.verdict is Verdict.DISAGREES
    early = "At the parameters given, the iteration of your loss at `v = v / np.linalg.norm(v)`"
    assert report.notes[0].startswith(early)
    assert "let the loss take more steps" in report.notes[0]


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


def test_a_doubt_is_the_first_sentence_of_a_report_that_decides_nothing() -> None:
    def gradients(p: Any) -> Any:
        a = 1 + 0.01 * np.tanh(p["w"])
        return {"w": WEIGHTS * 0.01 * (1 - np.tanh(p["w"]) ** 2) / (3 * a ** (2 / 3))}

    def take_root(p: Any) -> Any:
        a = 1 + 0.01 * np.tanh(p["w"])
        z = (2.0005 + a) / 3
        while np.max(np.abs(z**3 - a)) > 0.05:
            z = z - (z**3 - a) / (3 * z * z)
        return WEIGHTS @ (z - 1)

    params = {"w": np.random.default_rng(3).normal(size=4) * 0.1}
    report = verify_own_model(gradients, take_root, params, cases=4, timeout=1)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    assert "ends before its fixed point" in report.notes[0]


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
    assert count_telling(subject, cases) == []


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


def test_a_single_step_is_one_at_the_place_of_an_iteration() -> None:
    """A closed form on another path is none: mistakes in it are seen."""

    def solve_in_pieces(p: Any) -> Any:
        a = p["a"]
        if np.sum(a) < 0:
            return np.sum(np.exp(a))
        z = a
        for _ in range(2 if np.sum(a) < 4 else 1):
            z = z - (z**2 - a) / (2 * z)
        return np.sum(z)

    own = OwnSubject(prepare(solve_in_pieces, {"a": np.ones(2)}, cases=1))
    given = own.model.make_case(Point(0))

    def move(value: float) -> Any:
        return given._replace(arguments={"a": np.full(2, value)})

    assert own.find_iterated(move(3.0)) == frozenset()  # no iteration is known yet
    assert [*own.find_limits(given)]
    assert own.find_iterated(given)
    assert own.find_iterated(move(3.0)) == own.find_iterated(given)
    assert own.find_iterated(move(-1.0)) == frozenset()


def test_a_loop_on_a_path_of_its_own_is_not_left_out() -> None:
    """An integration in time on one path is no iteration to the fixed point on the other."""
    failing = state_found(1, fails=True)
    others = [*state_right(SEVERAL)]
    assert allow((failing, FAR), *others) is not None
    apart = {1: {"there", "elsewhere"}}
    assert allow((failing, FAR), *others, iterated=lambda n: apart.get(n, {"there"})) is None
