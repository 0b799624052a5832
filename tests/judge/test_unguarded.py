"""Gradients that leave a guard of the loss out are right where no value reaches it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier.judge.one_case import compare_case
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.unconverged import SEVERAL
from bptt_verifier.judge.unguarded import (
    are_those,
    doubt_rounded,
    doubt_traced,
    is_close,
    is_special,
    is_symmetric,
    is_unguarded,
    leave_out_guarded,
)
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.fixed_points import Limit
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.stated_cases import state_compared

X, Y = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 3
PARAMS = {"W": 8 * np.random.default_rng(1).normal(size=(3, 3)) / 3}


def find_probabilities(p: Any) -> Any:
    z = np.maximum(X @ p["W"], 0)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return z, e / e.sum(axis=1, keepdims=True)


def loss(p: Any) -> Any:
    _, q = find_probabilities(p)
    return -np.mean(np.log(np.clip(q, 1e-7, 1 - 1e-7)[np.arange(8), Y]))


def gradients(p: Any, masked: bool = True) -> Any:
    z, q = find_probabilities(p)
    d = (q - np.eye(3)[Y]) / 8
    return {"W": X.T @ (d * (z > 0) if masked else d)}


@pytest.mark.rest
def test_cases_are_left_out_in_which_a_value_reaches_the_guard() -> None:
    report = verify_own_model(gradients, loss, PARAMS)
    assert report.verdict is Verdict.AGREES, str(report)
    said = report.notes[0]
    assert "a value reaches the limit at `return -np.mean(np.log(np.clip(q, 1e-7, 1 - 1e-7)" in said
    assert report.cases == 24 - int(said.split()[1])


@pytest.mark.slow
def test_another_mistake_is_found_beside_a_guard_that_is_left_out() -> None:
    report = verify_own_model(lambda p: gradients(p, masked=False), loss, PARAMS, timeout=20)
    assert report.verdict is Verdict.DISAGREES
    assert report.mistakes[0].name == "activation-derivative-missing"


def test_an_own_model_differentiates_its_loss_without_guards() -> None:
    own = OwnSubject(prepare(loss, {"W": 60 * np.eye(3)}, cases=1))
    given = own.model.make_case(Point(0))
    limited, free = own.differentiate_unguarded(given)
    np.testing.assert_allclose(free["W"], gradients(given.arguments)["W"], rtol=1e-9)
    assert np.max(np.abs(limited["W"] - free["W"])) > 1e-3
    assert own.describe_guard(given).startswith(" at `return -np.mean(np.log(np.clip(")

    def plain(p: Any) -> Any:
        return np.sum(np.maximum(p["W"], 0))

    without = OwnSubject(prepare(plain, PARAMS, cases=1))
    assert without.differentiate_unguarded(without.model.make_case(Point(0))) == []


ONES = {"w": np.ones(2)}


def state_found(number: int, submitted: float, near: bool = False) -> Compared:
    found = state_compared({"w": np.full(2, submitted)}, {"w": np.ones(2)}, {"w": np.full(2, 1e-9)})
    return found._replace(case=found.case._replace(point=Point(number, near=near)))


def state_subject(limit: Any = None, unguarded: float = 3.0) -> Any:
    """A loss whose gradient without the guard is that at case 1, and its own elsewhere."""

    def differentiate(case: Any) -> Any:
        other = unguarded if case.point.number <= 1 else 1.0
        return [{"w": np.full(2, 7.0)}, {"w": np.full(2, other)}]

    return SimpleNamespace(
        differentiate_unguarded=differentiate, describe_guard=lambda case: " there",
        zeros=frozenset(), has_vanishing_steps=False,
        find_limits=lambda case: filter(None, [limit]),
        displace=lambda case, number, distance: case,
    )  # fmt: skip


def leave_out(*found: Compared) -> Any:
    known = {each.case.point.number: each for each in found}
    return leave_out_guarded(lambda case: known[case.point.number], state_subject(), found)


def state_right(number: int) -> list[Compared]:
    return [state_found(100 + k, 1.0) for k in range(number)]


def test_what_agrees_with_the_loss_without_its_guard_is_left_out() -> None:
    found = leave_out(state_found(1, 3.0), *state_right(SEVERAL))
    assert len(found.compared) == len(found.allowed) == len(found.settled) == SEVERAL
    assert found.notes[0].startswith("In 1 case a value reaches the limit there, beyond which")
    assert found.notes[0].endswith("and your gradients agree in 4 others.")
    assert found.notes[1].startswith("4 of 4 cases could")


@pytest.mark.parametrize(
    "found",
    [
        [state_found(1, 3.0), *state_right(SEVERAL - 1)],  # too few
        [state_found(1, 3.0), state_found(2, 3.0), *state_right(SEVERAL)],  # another is wrong
        [state_found(1, 2.9), *state_right(SEVERAL)],  # neither gradient
        [state_found(1, 1.0), *state_right(SEVERAL)],
        [state_found(0, 3.0), *state_right(SEVERAL)],  # the parameters given
        [state_found(1, 3.0, near=True), *state_right(SEVERAL)],
    ],
)
def test_nothing_else_is_left_out(found: list[Compared]) -> None:
    assert leave_out(*found) is None


def test_another_loss_is_not_excused_by_a_guard() -> None:
    found = state_found(1, 3.0)
    values = {"w": np.ones(2), "loss": np.ones(())}
    wrong = state_compared({**found.submitted, "loss": np.full((), 2.0)}, values, {
        "w": np.full(2, 1e-9), "loss": np.full((), 1e-9),
    })._replace(case=found.case)  # fmt: skip
    assert leave_out(wrong, *state_right(SEVERAL)) is None


@pytest.mark.parametrize(("units", "close"), [(0.9, True), (1.1, False)])
def test_a_gradient_may_differ_by_rounding_from_that_without_the_guard(
    units: float, close: bool
) -> None:
    error = units * (2.0**-43 * 3.0 + 1e-15)  # 2¹⁰ units of roundoff
    sharp = state_compared(
        {"w": np.full(2, 3.0 + error)}, {"w": np.ones(2)}, {"w": np.full(2, 1e-15)}
    )
    found = sharp._replace(case=state_found(1, 3.0).case)
    assert (leave_out(found, *state_right(SEVERAL)) is not None) is close


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        ([0.0, 0.0], [0.0, 0.0], True),
        ([1.0, 2.0], [1.0, 1.0], False),
        ([2e-15, 1e-15], [1e-15, 1e-15], False),  # the units are those of the gradient
    ],
)
def test_all_entries_of_two_gradients_are_close(
    one: list[float], other: list[float], close: bool
) -> None:
    none = state_compared({"w": np.ones(2)}, {"w": np.ones(2)}, {"w": np.zeros(2)})
    assert is_close(none, "w", np.array(one), np.array(other)) is close


def test_all_gradients_that_disagree_are_those_without_the_guard() -> None:
    true, allowed = {"a": np.ones(1), "b": np.ones(1)}, {"a": np.zeros(1), "b": np.zeros(1)}
    found = state_compared({"a": np.full(1, 3.0), "b": np.full(1, 5.0)}, true, allowed)
    found = found._replace(case=state_found(1, 3.0).case)
    for other, those in (({"a": 3.0, "b": 5.0}, True), ({"a": 3.0, "b": 4.0}, False)):
        gradients = {name: np.full(1, value) for name, value in other.items()}
        subject: Any = SimpleNamespace(differentiate_unguarded=lambda case, g=gradients: [g])
        assert is_unguarded(subject, found) is those
        assert are_those(found, gradients) is those
    right = state_compared(true, true, allowed)
    assert is_unguarded(subject, right) is False
    assert not are_those(found, {"a": np.full(1, 3.0)})


def test_gradients_that_no_rounding_explains_are_no_reason_to_doubt() -> None:
    found = state_found(1, 3.0)
    for unrounded, doubted in ((3.0, True), (2.0, False)):
        known = {"w": np.full(2, unrounded)}, " there"
        subject: Any = SimpleNamespace(differentiate_unrounded=lambda case, k=known: k)
        assert doubt_rounded(subject, [state_found(2, 1.0)]) == []
        said = doubt_rounded(subject, [state_found(2, 1.0), found])
        assert (
            said[:1]
            == [
                "The loss is rounded there, and the derivative of that is zero. Your gradients are "
                "those of the number that is rounded: let the loss use that."
            ]
            * doubted
        )


def test_cases_are_special_where_the_loss_has_another_derivative() -> None:
    assert is_special(state_subject(), state_found(1, 1.0))
    assert is_special(state_subject(Limit(False, {})), state_found(100, 1.0))
    for limit, special in (
        (None, False),
        (Limit(True, ONES, 1e-12), False),
        (Limit(False, {}), True),
    ):
        plain: Any = SimpleNamespace(
            differentiate_unguarded=lambda case: [],
            find_limits=lambda case, limit=limit: filter(None, [limit]),
        )
        assert is_special(plain, state_found(1, 1.0)) is special


def judge_rounded(wrong: bool, rounding: Any) -> Any:
    def data(p: Any) -> Any:
        found = np.sum(np.tanh(X @ p["W"]) ** 2)
        return rounding(found)

    def derive(p: Any) -> Any:
        h = np.tanh(X @ p["W"])
        return {"W": X.T @ (2 * h * (1 - h ** (3 if wrong else 2))) + p["W"]}

    def penalise(p: Any) -> Any:
        return data(p) + np.sum(p["W"] ** 2) / 2

    return verify_own_model(derive, penalise, PARAMS, cases=4)


ROUNDED: dict[str, Callable[[Any], Any]] = {
    "round": lambda found: np.round(found, 3),
    "remainder": lambda found: found - found % 0.01,
    "integer": lambda found: (100 * found).astype(int) / 100,
    "itself": lambda found: found,
}


@pytest.mark.table(3)
@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("name", ROUNDED)
def test_gradients_of_what_a_part_of_the_loss_rounds_are_not_called_wrong(
    wrong: bool, name: str
) -> None:
    verdict = Verdict.AGREES if name == "itself" else Verdict.INCONCLUSIVE
    verdict = Verdict.DISAGREES if wrong else verdict
    report = judge_rounded(wrong, ROUNDED[name])
    assert report.verdict is report.parameters["W"].verdict is verdict
    said = "The loss is rounded at `"
    rounded = [note for note in report.notes if note.startswith(said)]
    assert bool(rounded) == (verdict is Verdict.INCONCLUSIVE)


SYMMETRIC = np.array([[2.0, 0.5, -0.3], [0.5, 1.0, 0.4], [-0.3, 0.4, -1.0]])


def judge_eigenvalue(S: Any, factor: float = 1.0, case: str | None = None) -> Any:
    def largest(p: Any) -> Any:
        return np.linalg.eigvalsh(p["S"])[-1]

    def outer(p: Any) -> Any:
        _, vectors = np.linalg.eigh(p["S"])
        return {"S": factor * np.outer(vectors[:, -1], vectors[:, -1])}

    with jax.numpy_dtype_promotion("standard"):  # as in JAX's own rule for eigenvalues
        if case is not None:
            return compare_case(outer, largest, {"S": S}, case)
        return verify_own_model(outer, largest, {"S": S}, cases=4)


@pytest.mark.rest
@pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.rest), "0"])
def test_the_gradient_of_a_symmetric_matrix_is_undecided_where_numpy_reads_a_triangle(
    case: str | None,
) -> None:
    report = judge_eigenvalue(SYMMETRIC, case=case)
    assert report.verdict is report.parameters["S"].verdict is Verdict.INCONCLUSIVE
    said = "At the parameters given, your ∂L/∂S is that of autodiff, which differences of the loss"
    assert report.notes[0].startswith(said)
    for wrong in (judge_eigenvalue(SYMMETRIC, 1.01, case), judge_eigenvalue(SHEARED, case=case)):
        assert wrong.verdict is Verdict.DISAGREES


SHEARED = SYMMETRIC + np.triu(np.full((3, 3), 0.1), 1)


@pytest.mark.parametrize(
    ("value", "symmetric"),
    [
        (SYMMETRIC, True), (np.stack([SYMMETRIC, np.eye(3)]), True), (SHEARED, False),
        (np.ones(3), False), (np.ones((2, 3)), False), (np.ones(()), False),
        (np.stack([SHEARED, SHEARED]), False),
    ],
)  # fmt: skip
def test_a_symmetric_matrix_equals_its_transpose(value: Any, symmetric: bool) -> None:
    assert is_symmetric(value) is symmetric


def test_the_gradients_of_symmetric_matrices_alone_are_undecided() -> None:
    true = {"S": np.eye(2), "v": np.ones(2)}
    submitted = {name: value + 1 for name, value in true.items()}
    found = state_compared(submitted, true, {n: np.zeros_like(v) for n, v in true.items()})
    found = found._replace(case=found.case._replace(arguments=true))
    subject: Any = SimpleNamespace(
        may_be_outside=lambda case: False, differentiate_traced=lambda case: submitted
    )
    assert doubt_traced(subject, [found]) == []
    arguments = {"S": true["S"], "v": np.eye(2)}
    alike = found._replace(case=found.case._replace(arguments=arguments))
    (said,) = doubt_traced(subject, [alike])
    assert said.startswith("At the parameters given, your ∂L/∂S, ∂L/∂v is that of autodiff")
    without = found._replace(case=found.case._replace(arguments={"S": true["S"]}))
    assert doubt_traced(subject, [without]) == []
    elsewhere = state_compared({"u": np.ones(1)}, {"u": np.zeros(1)}, {"u": np.zeros(1)})
    subject.may_be_outside = lambda case: case.label == "elsewhere"
    elsewhere = elsewhere._replace(case=elsewhere.case._replace(label="elsewhere"))
    assert doubt_traced(subject, [alike, elsewhere]) == [said]
    assert doubt_traced(subject, [elsewhere]) == []
    subject.may_be_outside = lambda case: True
    assert doubt_traced(subject, [alike]) == []


def test_autodiff_differentiates_a_loss_with_a_trace_beside_differences() -> None:
    def loss(p: Any) -> Any:
        return np.linalg.eigvalsh(p["S"])[-1]

    def square(p: Any) -> Any:
        return np.sum(p["S"] ** 2)

    S = np.array([[2.0, 0.5], [0.5, -1.0]])
    _, vectors = np.linalg.eigh(S)
    with jax.numpy_dtype_promotion("standard"):  # as in JAX's own rule for eigenvalues
        own = OwnSubject(prepare(loss, {"S": S}, cases=1))
        given = own.model.make_case(Point(0))
        traced = own.differentiate_traced(given)["S"]
    np.testing.assert_allclose(traced, np.outer(vectors[:, -1], vectors[:, -1]))
    assert given.truth is not None
    of_differences = given.truth(np.float64, ()).values["S"]
    np.testing.assert_allclose(of_differences, np.tril(2 * traced) - np.diag(np.diag(traced)))
    plain = OwnSubject(prepare(square, {"S": S}, cases=1))
    assert plain.differentiate_traced(given) == {}
