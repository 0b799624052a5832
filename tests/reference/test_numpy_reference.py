"""The reference of a loss in plain NumPy: traced, on every path, or its differences."""

import json
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.paths import Paths
from bptt_verifier.program.precision import use_float64
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict

rng = np.random.default_rng(4)
X = rng.normal(size=(3, 2))
PARAMS = {"W": 0.6 * rng.normal(size=(2, 2)), "b": 0.6 * rng.normal(size=2)}


def states(p: Any) -> Any:
    h = np.zeros((4, 2), p["W"].dtype)
    for t in range(3):
        h[t + 1] = np.tanh(p["W"] @ h[t] + X[t] + p["b"])
    return h


def square(p: Any) -> Any:
    return np.sum(states(p)[-1] ** 2)


def gradients(p: Any, slope: Any = None) -> dict[str, Any]:
    h = states(p)
    dh = 2 * h[-1] * (1 if slope is None else slope(np.sum(h[-1] ** 2)))
    g = {name: np.zeros_like(value) for name, value in p.items()}
    for t in (2, 1, 0):
        da = dh * (1 - h[t + 1] ** 2)
        g["W"] += np.outer(da, h[t])
        g["b"] += da
        dh = p["W"].T @ da
    return g


def branching(p: Any) -> Any:
    total = square(p)
    if total > 0.8:
        total = 2 * total - 0.8
    return total


def through_text(p: Any) -> Any:
    return json.loads(json.dumps({"loss": square(p)}))["loss"]


def through_format(p: Any) -> Any:
    return float(f"{square(p):.17g}")


def judge(gradients: Any, loss: Any, cases: int = 6) -> Report:
    return verify_own_model(gradients, loss, PARAMS, cases=cases)


@pytest.mark.rest
def test_each_point_is_compared_on_its_own_path() -> None:
    def right(p: Any) -> Any:
        return gradients(p, lambda total: 2 if total > 0.8 else 1)

    report = judge(right, branching, cases=8)
    assert report.verdict is Verdict.AGREES, str(report)
    said = "Branches on values are followed as each point takes them: `total > 0.8` ("
    assert said in " ".join(report.notes)
    assert len(prepare(branching, PARAMS, cases=8).paths[0].known) == 2
    # A derivation of one branch alone is wrong on the other.
    assert judge(gradients, branching, cases=8).verdict is Verdict.DISAGREES


def test_paths_are_traced_once_and_at_most_so_many() -> None:
    points = [{"b": np.array([x, 1.0])} for x in (1.0, -1.0, 2.0)]

    def scalar_at(point: Any) -> Any:
        from bptt_verifier.program.numpy_code import over_jax  # noqa: PLC0415

        return over_jax(lambda p: abs(p["b"][0]) if p["b"][0] > 0 else p["b"][1] ** 2, point)

    paths = Paths(scalar_at, most=2)
    with use_float64():
        found = [paths.follow(point) for point in points]
        assert [each and float(each.loss) for each in found] == [1.0, 1.0, 2.0]
        first, second, third = (each and each.path for each in found)
        assert first is third is not second
        assert Paths(scalar_at, most=0).follow(points[0]) is None


@pytest.mark.rest
@pytest.mark.parametrize("loss", [through_text, through_format])
def test_a_loss_that_cannot_be_traced_is_differentiated_by_differences(loss: Any) -> None:
    report = judge(gradients, loss)
    assert report.verdict is Verdict.AGREES, str(report)
    why, seen, *_ = report.notes
    assert "The reference is therefore central differences of the loss in float64" in why
    assert seen.startswith("The smallest relative errors that could have been seen: ")
    if loss is through_text:
        assert 'cannot be traced at `json.dumps({"loss": square(p)})` (' in why
        assert __file__ in why


@pytest.mark.rest
@pytest.mark.parametrize(
    ("loss", "error", "verdict"),
    [
        (through_text, 1e-8, Verdict.INCONCLUSIVE),
        (through_text, 1e-5, Verdict.DISAGREES),
        (square, 1e-8, Verdict.DISAGREES),
    ],
)
def test_what_a_solver_in_code_without_a_trace_may_leave_is_inconclusive(
    loss: Any, error: float, verdict: Verdict
) -> None:
    def nearly(p: Any) -> Any:
        return {name: value * (1 + error) for name, value in gradients(p).items()}

    report = judge(nearly, loss)
    assert report.verdict is verdict, str(report)
    doubted = report.notes[0].startswith("Your results differ from the reference by up to 1e-08 of")
    assert doubted is (verdict is Verdict.INCONCLUSIVE)
    assert not (doubted and report.mistakes)


@pytest.mark.rest
def test_a_loss_with_a_path_for_each_point_is_a_black_box() -> None:
    report = judge(gradients, lambda p: square(p) + 0 * int(p["b"][0] * 1e12), cases=4)
    assert report.verdict is Verdict.AGREES, str(report)
    assert report.notes[0].startswith("The loss takes too many paths through branches: `int(p[")


def test_a_mistake_in_a_single_gradient_of_a_black_box_is_named() -> None:
    report = judge(lambda p: (g := gradients(p)) | {"W": g["W"].T}, through_text, cases=3)
    assert report.verdict is Verdict.DISAGREES
    assert [mistake.name for mistake in report.mistakes] == ["transposed-gradient"]


def test_a_loss_that_changes_from_call_to_call_has_no_verdict() -> None:
    calls = iter(range(100))
    report = judge(gradients, lambda p: square(p) + next(calls))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "loss(params) returns another number when it is called again" in report.notes[-1]


def test_a_loss_that_assigns_to_arrays_of_jax_is_told_what_to_do() -> None:
    def assigning(p: Any, xp: Any) -> Any:
        h = xp.zeros((4, 2))
        h[1] = xp.tanh(p["W"] @ h[0] + p["b"])
        return xp.sum(h**2)

    refusal = prepare(assigning, PARAMS).refusal
    assert refusal is not None
    assert "assigns to an array at `h[1]`" in refusal
    assert "loss(params) in plain NumPy" in refusal
    assert ".at[" not in refusal


def test_the_parameters_given_are_not_modified() -> None:
    def careless(p: Any) -> Any:
        total = square(p)
        p["W"] *= 0
        p["b"][:] = 7
        return total

    before = {name: value.copy() for name, value in PARAMS.items()}
    assert judge(gradients, careless).verdict is Verdict.AGREES
    assert all(np.array_equal(PARAMS[name], value) for name, value in before.items())


@pytest.mark.rest
def test_states_in_float32_are_judged_as_float32() -> None:
    def single(p: Any) -> Any:
        h = np.zeros((4, 2), np.float32)
        for t in range(3):
            h[t + 1] = np.tanh(p["W"] @ h[t] + X[t] + p["b"])
        return np.sum(h[-1] ** 2)

    report = judge(gradients, single)
    assert report.verdict is Verdict.AGREES, str(report)
    wrong = judge(lambda p: {n: 1.01 * g for n, g in gradients(p).items()}, single)
    assert wrong.verdict is Verdict.DISAGREES
