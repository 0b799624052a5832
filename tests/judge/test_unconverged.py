"""A gradient of a fixed point is right where the iteration of the loss converges, and only there.

What disagrees far from the parameters given is left out where the iteration has not converged.
"""

from collections.abc import Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.unconverged import (
    SEVERAL,
    count_telling,
    is_left_out,
    leave_out_unconverged,
)
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.stated_cases import state_compared

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
    assert own.has_converged(given) is True
    assert own.has_converged(given._replace(arguments={"W": -9 * np.eye(3)})) is False
    assert own.describe_iteration(given).startswith(" at `z = np.tanh(p[")

    def without_iteration(p: Any) -> Any:
        return np.sum(np.tanh(p["W"]) ** 2)

    direct = OwnSubject(prepare(without_iteration, {"W": W}, cases=1))
    assert direct.has_converged(direct.model.make_case(Point(0))) is None
    assert direct.describe_iteration(direct.model.make_case(Point(0))) == ""


@pytest.mark.slow
def test_cases_are_left_out_in_which_the_iteration_has_not_converged() -> None:
    report = verify_own_model(differentiate, loss, {"W": W})
    assert report.verdict is Verdict.AGREES, str(report)
    assert "the iteration of your loss at `z = np.tanh(p[" in report.notes[0]
    assert "has not converged" in report.notes[0]
    left = int(report.notes[0].split()[1])
    assert left > 0
    assert report.cases == 24 - left
    kept = f"{report.cases} of {report.cases} cases could have shown a mistake in every gradient."
    assert report.notes[1] == kept
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


def state_found(number: int, fails: bool, near: bool = False) -> Compared:
    found = state_compared({"w": np.ones(2) + 0.5 * fails}, ONES, {"w": np.full(2, 1e-9)})
    return found._replace(case=found.case._replace(point=Point(number, near=near)))


def leave_out(*found: tuple[Compared, bool | None], attempt: Any = None) -> Any:
    """What is left out of cases of which it is known whether they have converged."""
    known = {each.case.point.number: converged for each, converged in found}
    subject: Any = SimpleNamespace(
        has_converged=lambda case: known[case.point.number], zeros=frozenset(),
        describe_iteration=lambda case: " there", has_vanishing_steps=False,
        displace=lambda case, number, distance: case,
    )  # fmt: skip
    every = {each.case.point.number: each for each, _ in found}
    return leave_out_unconverged(
        attempt or (lambda case: every[case.point.number]), subject, [each for each, _ in found]
    )


def state_right(number: int) -> Iterator[tuple[Compared, bool]]:
    return ((state_found(100 + k, fails=False), True) for k in range(number))


def test_what_disagrees_is_left_out_where_several_cases_have_converged() -> None:
    failing = state_found(1, fails=True)
    found = leave_out((failing, False), *state_right(SEVERAL))
    assert len(found.compared) == len(found.settled) == SEVERAL
    assert found.notes[0].startswith("In 1 case the iteration of your loss there has not converged")
    assert found.notes[0].endswith("your gradients agree in 4 cases in which it has converged.")
    assert found.notes[1].startswith("4 of 4 cases could")
    assert leave_out((failing, False), *state_right(SEVERAL - 1)) is None


def test_what_agrees_is_kept_where_the_iteration_has_not_converged() -> None:
    found = leave_out(
        (state_found(1, fails=True), False), (state_found(2, fails=False), False),
        *state_right(SEVERAL),
    )  # fmt: skip
    assert len(found.compared) == SEVERAL + 1
    assert "in 4 cases in which" in found.notes[0]


@pytest.mark.parametrize(
    ("failing", "converged"),
    [
        (state_found(1, fails=True), True),
        (state_found(1, fails=True), None),  # no iteration
        (state_found(0, fails=True), False),  # the parameters given
        (state_found(1, fails=True, near=True), False),
        (state_found(1, fails=False), False),
    ],
)
def test_nothing_else_is_left_out(failing: Compared, converged: bool | None) -> None:
    assert leave_out((failing, converged), *state_right(SEVERAL)) is None
    subject: Any = SimpleNamespace(has_converged=lambda case: converged)
    assert is_left_out(subject, failing) is False


def test_a_mistake_shows_in_gradients_that_are_not_always_zero() -> None:
    true = {"w": np.ones(2), "unused": np.zeros(2), "loss": np.ones(())}
    limits = {"w": np.full(2, 1e-9), "unused": np.ones(2), "loss": np.full((), 1e5)}
    cases = [state_compared(true, true, limits)] * 2
    subject: Any = SimpleNamespace(zeros=frozenset(["unused"]))
    (said,) = count_telling(subject, cases)
    assert said.startswith("2 of 2 cases could")
    subject.zeros = frozenset(["w", "unused"])
    assert count_telling(subject, cases) == []


def test_what_scatters_like_rounding_is_kept() -> None:
    true, sign = {"w": np.ones(2)}, cycle([1.0, -1.0])
    failing = state_found(1, fails=True)

    def attempt(case: Any) -> Compared:
        if case.point.number != 1:
            return failing._replace(submitted=true)
        return failing._replace(submitted={"w": 1 + 0.5 * next(sign) * np.ones(2)})

    assert leave_out((failing, False), *state_right(SEVERAL), attempt=attempt) is None


def test_nothing_is_left_out_where_another_case_disagrees() -> None:
    wrong = state_found(2, fails=True), True
    left = state_found(1, fails=True), False
    assert leave_out(left, wrong, *state_right(SEVERAL)) is None
