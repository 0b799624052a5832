"""Gradients of fixed points that losses iterate to, judged as whole submissions.

They are right where the iteration converges, and where a tolerance ends it near its fixed point.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import own_model
from bptt_verifier.judge.own_model import TRIED, OwnSubject
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program import decisions
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point
from bptt_verifier.tolerance.comparison import Verdict

WEIGHTS = np.random.default_rng(3).uniform(0.5, 2, 4)
W = 0.2 * np.random.default_rng(1).normal(size=(3, 3))
X, AIM = np.array([0.7, -0.4, 0.9]), np.array([0.1, 0.2, -0.3])


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


@pytest.mark.rest
@pytest.mark.parametrize(
    ("factor", "right"), [(1.0, True), pytest.param(1.003, False, marks=pytest.mark.slow)]
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


ROWS = np.random.default_rng(2).normal(size=(4, 3))


def keep_best(p: Any) -> Any:
    """The state whose step is the shortest, of a search that gives up where none is shorter."""
    z = found = np.zeros_like(ROWS)
    best, failed = np.inf, 0
    while best > 1e-9 and failed < 5:
        new = np.tanh(z @ p["W"].T + ROWS)
        size = float(np.linalg.norm(new - z))
        failed = 0 if size < best else failed + 1
        best, found = (size, new) if size < best else (best, found)
        z = new
    return found


def freeze_rows(p: Any) -> Any:
    """Each row takes steps until it has converged."""
    z, active = np.zeros_like(ROWS), np.ones(len(ROWS), bool)
    for _ in range(100):
        new = np.tanh(z @ p["W"].T + ROWS)
        moved = np.max(np.abs(new - z), axis=1)
        z = np.where(active[:, None], new, z)
        active = active & (moved > 1e-9)
        if not active.any():
            break
    return z


@pytest.mark.slow
@pytest.mark.parametrize("solve", [keep_best, freeze_rows])
@pytest.mark.parametrize(("inverse", "right"), [(1.0, True), (0.99, False)])
def test_a_search_may_keep_its_best_step_and_rows_that_have_converged(
    solve: Any, inverse: float, right: bool
) -> None:
    def gradients(p: Any) -> Any:
        z = solve(p)
        slope, total = 1 - np.tanh(z @ p["W"].T + ROWS) ** 2, np.zeros((3, 3))
        for state, d in zip(z, slope, strict=True):
            jacobian = inverse * d[:, None] * p["W"]
            total += np.outer(np.linalg.solve(np.eye(3) - jacobian.T, state - AIM) * d, state)
        return {"W": total}

    def lose(p: Any) -> Any:
        return np.sum((solve(p) - AIM) ** 2) / 2

    report = verify_own_model(gradients, lose, {"W": W}, timeout=1)
    assert report.verdict is (Verdict.AGREES if right else Verdict.DISAGREES), str(report)


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


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [1e-6, 1e-7])
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


def judge_untraced(off: float, *, decides: bool) -> Any:
    """Judge gradients that are `off` by this part, of a loop that is too long for a trace."""

    def solve(p: Any) -> Any:
        z: Any
        z, before = 0.5 * p["w"], np.inf
        for n in range(60):
            if decides and np.max(np.abs(z - before)) < 1e-4:
                break
            before, z = z, p["w"] + 0.3 * np.tanh(z)
            if not decides and n == 30:
                z = z + 1e-30 * float(z[0])  # a trace ends here
        return z

    def gradients(p: Any) -> Any:
        z = solve(p)
        return {"w": (1 + off) * 2 * z / (1 - 0.3 * (1 - np.tanh(z) ** 2))}

    def sum_squares(p: Any) -> Any:
        return np.sum(solve(p) ** 2)

    return verify_own_model(gradients, sum_squares, {"w": WEIGHTS}, cases=4)


@pytest.mark.rest
@pytest.mark.parametrize(
    ("decides", "off", "verdict"),
    [
        (True, 0.0, Verdict.INCONCLUSIVE),
        (True, 2.0**-11, Verdict.INCONCLUSIVE),
        (True, 2.0**-9, Verdict.DISAGREES),
        (False, 0.0, Verdict.AGREES),
        (False, 2.0**-21, Verdict.INCONCLUSIVE),
        (False, 2.0**-19, Verdict.DISAGREES),  # of a loss that is smooth
    ],
)
def test_what_a_loop_without_a_trace_may_leave_is_no_mistake(
    decides: bool, off: float, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "OPERATIONS", 40)
    report = judge_untraced(off, decides=decides)
    assert report.verdict is report.parameters["w"].verdict is verdict
    assert bool(report.mistakes) == (verdict is Verdict.DISAGREES)
    doubt = "a loop in it may stop this early. If there is one, let it take more steps."
    assert any(doubt in note for note in report.notes) == (verdict is Verdict.INCONCLUSIVE)
