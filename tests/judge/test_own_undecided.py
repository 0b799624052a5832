"""What cannot be decided of an own model is inconclusive with a reason; what is right agrees."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import (
    DerivationError,
    Verdict,
    assert_own_model_verified,
    verify_own_model,
)
from bptt_verifier.judge.conclusion import describe_hidden
from bptt_verifier.judge.undecided import count_conclusive
from tests.support.square import W, right, square
from tests.support.stated_cases import state_compared


def test_what_is_no_breach_agrees() -> None:
    jax_made = jax.grad(lambda p: square(p, jnp))
    for gradients in (
        lambda p: {"W": right(p)["W"].tolist()},
        lambda p: right(p) | {"loss": square(p, np), "extra": None},
        lambda p: {"W": right({"W": np.longdouble(p["W"])})["W"]},
        lambda p: {"W": np.float32(right(p)["W"])},
        jax_made,
    ):
        assert verify_own_model(gradients, square, W).verdict is Verdict.AGREES


def test_an_array_that_is_returned_and_then_overwritten_is_copied_in_time() -> None:
    kept = np.empty((2, 2))

    def reusing(p: Any) -> Any:
        kept[:] = right(p)["W"]
        return {"W": kept.T.T}

    assert verify_own_model(reusing, square, W).verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("loss", "params", "message"),
    [
        (square, {}, "params: expected a dict of float arrays"),
        (square, {"W": np.array([1, 2])}, r"params\['W'\]: expected a float32 or float64 array"),
        (square, {1: W["W"]}, "params: expected names that are strings, found 1"),
        (3, W, "loss: expected a function, found int"),
        (lambda p, xp: p["W"], W, "expected a real scalar"),
        (lambda p, xp: None, W, "found None; return the loss as a number"),
        (lambda p, xp: (1.0, p), W, "found a tuple of 2 values; return the loss alone"),
    ],
)
def test_what_the_judge_cannot_use_is_said_in_one_sentence(
    loss: Any, params: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        verify_own_model(right, loss, params)
    with pytest.raises(ValueError, match="cases: expected at least 1, found 0"):
        verify_own_model(right, square, W, cases=0)
    with pytest.raises(ValueError, match="seed: expected at least 0, found -1"):
        verify_own_model(right, square, W, seed=-1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loss", "prediction"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_parameter_may_be_called_as_a_result_of_the_forward_pass(
    name: str, shape: tuple[int, ...]
) -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(p[name] ** 2)

    params = {name: np.full(shape, 1.5)}
    assert verify_own_model(lambda p: {name: 2 * p[name]}, loss, params)
    wrong = verify_own_model(lambda p: {name: 3 * p[name]}, loss, params)
    assert [mistake.name for mistake in wrong.mistakes] == ["constant-factor"]


@pytest.mark.rest
@pytest.mark.parametrize(("factor", "said"), [(1 + 1e-9, "1 + 1e-09"), (1 - 1e-5, "1 − 1e-05")])
def test_a_factor_near_one_is_named_alone(factor: float, said: str) -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.tanh(p["U"] + 2 * p["W"]) ** 2)

    def gradients(p: Any) -> Any:
        h = np.tanh(p["U"] + 2 * p["W"])
        return {"U": factor * 2 * h * (1 - h * h), "W": 4 * h * (1 - h * h)}

    report = verify_own_model(gradients, loss, {"U": W["W"], "W": W["W"] + 0.25})
    (mistake,) = report.mistakes
    first, _, guess = mistake.explanation.partition(" A guess: ")
    assert first == f"in ∂L/∂U, every entry is {said} times what it should be."
    assert guess.startswith("look at `factor * 2 * h * (1 - h * h)` (")


# What cannot be decided.


def lopsided(p: Any, xp: Any) -> Any:
    return square(p, xp) * (1.0 if xp is np else 1.5)


def wrongly_stopped(p: Any, xp: Any) -> Any:
    return square(p, xp) + (0.0 if xp is np else jnp.sum(p["W"] - jax.lax.stop_gradient(p["W"])))


def trembling(p: Any, xp: Any) -> Any:
    return xp.cos(1e15 * xp.sum(p["W"] ** 2))


def of_trembling(p: Any) -> Any:
    return {"W": -2e15 * p["W"] * np.sin(1e15 * np.sum(p["W"] ** 2))}


UNDECIDED = {
    "another function in JAX": (lopsided, "the loss must be one function"),
    "another derivative in JAX": (wrongly_stopped, "the reference itself is in doubt"),
    "ill-conditioned": (trembling, "rounding alone may move it"),
    "raises in JAX": (lambda p, xp: np.asarray(p["W"]).sum() * 1.0, "jax.numpy) raised"),
    "raises in NumPy": (lambda p, xp: xp.no_such(p["W"]), "numpy) raised AttributeError"),
    "never finite": (lambda p, xp: xp.sum(xp.log(-(p["W"] ** 2))), "not finite or would overflow"),
    "does not depend": (lambda p, xp: xp.sum(0 * p["W"]), "it is zero in every case"),
    "is constant": (lambda p, xp: 3.0, "it is zero in every case"),
}


@pytest.mark.rest
@pytest.mark.parametrize("case", UNDECIDED)
def test_what_cannot_be_decided_is_inconclusive_with_a_reason(case: str) -> None:
    loss, reason = UNDECIDED[case]
    zero = dict.fromkeys(("does not depend", "is constant"), lambda p: {"W": 0 * p["W"]})
    submissions = zero | {"ill-conditioned": of_trembling}
    report = verify_own_model(submissions.get(case, right), loss, W)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    assert reason in " ".join(report.notes)
    assert report.notes


def test_losses_that_differ_are_their_forward_pass_if_they_return_another_one() -> None:
    report = verify_own_model(lambda p: right(p) | {"loss": 0.0}, lopsided, W)
    assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]


def test_assertion_raises_the_report() -> None:
    assert_own_model_verified(right, square, W, cases=3)
    with pytest.raises(
        DerivationError, match="constant-factor: in ∂L/∂W, every entry is 2 times"
    ) as caught:
        assert_own_model_verified(lambda p: {"W": 2 * right(p)["W"]}, square, W, cases=3)
    assert caught.value.report.verdict is Verdict.DISAGREES


@pytest.mark.slow
def test_cases_are_counted_in_the_format_that_hides_mistakes_alone() -> None:
    tiny = {"a": np.array([0.5, -1.5])}
    report = verify_own_model(
        lambda p: {"a": np.float32(2e-40 * p["a"])}, lambda p, xp: 1e-40 * xp.sum(p["a"] ** 2), tiny
    )
    counted = [note for note in report.notes if "could have shown" in note]
    assert counted == ["In float32, 0 of 24 cases could have shown a mistake in every gradient."]


@pytest.mark.parametrize(("error", "telling"), [(0.2, 1), (0.6, 2)])
def test_a_case_that_shows_a_mistake_could_have_shown_one(error: float, telling: int) -> None:
    """Beyond a bound of half of the gradient, for instance."""
    ones = {"a": np.ones(1)}
    cases = [
        state_compared({"a": np.full(1, 1 + off)}, ones, {"a": np.full(1, bound)}, np.float32)
        for off, bound in ((0.0, 1e-3), (error, 0.5), (0.0, 0.5))
    ]
    counted, hidden = describe_hidden(cases, None, ())
    assert counted == (
        f"In float32, {telling} of 3 cases could have shown a mistake in every gradient."
    )
    assert hidden.endswith("; the resolution is that of the other cases.")
    subject: Any = SimpleNamespace(zeros=())
    assert count_conclusive(subject, cases) == {"a": telling}
    if error > 0.5:  # beside a case that is wrong, no other has a resolution
        (alone,) = describe_hidden(cases[1:], None, ())
        assert alone.startswith("In float32, 1 of 2 cases could have shown")


@pytest.mark.slow
@pytest.mark.rest
@pytest.mark.parametrize(
    ("x", "a", "wrong"),
    [
        ([4.0, 20.0, -12.0], [1.0, 1.0, 1.0], Verdict.DISAGREES),
        pytest.param([20.0], [0.6], Verdict.DISAGREES, marks=pytest.mark.slow),
        # The sign errs by 0.5 % at most in the cases drawn, as a tanh in bfloat16 does.
        ([-200.0], [0.06], Verdict.INCONCLUSIVE),
    ],
    ids=["some saturated", "nearly", "most often"],
)
def test_saturated_units_of_a_submission_that_computes_in_float32_are_judged_in_it(
    x: list[float], a: list[float], wrong: Verdict
) -> None:
    inputs = np.array(x)

    def loss(params: dict[str, Any], xp: Any) -> Any:
        return xp.sum(xp.log(xp.cosh(params["a"] * inputs)))

    def differentiate(activate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        single = inputs.astype(np.float32)

        def gradients(params: dict[str, Any]) -> dict[str, Any]:
            z = params["a"].astype(np.float32) * single
            return {"a": (activate(z) * single).astype(np.float64)}

        return gradients

    given = {"a": np.array(a)}
    assert verify_own_model(differentiate(np.tanh), loss, given).verdict is Verdict.AGREES
    assert verify_own_model(differentiate(np.sign), loss, given).verdict is wrong


@pytest.mark.table(3)
@pytest.mark.slow
@pytest.mark.parametrize("scale", [pytest.param(1e-18, marks=pytest.mark.slow), 1.0, 1e15])
def test_code_for_float32_may_have_constants_that_are_rounded_to_it(scale: float) -> None:
    rng = np.random.default_rng(12)
    x, y = (scale * rng.normal(size=(9, 4))).astype("f4"), (scale * rng.normal(size=9)).astype("f4")

    def loss(params: dict[str, Any]) -> Any:
        return np.mean((x @ params["w"] - y) ** 2)

    def times(factor: float) -> Callable[[Any], Any]:
        share = np.float32(2 / 9) * np.float32(factor)
        return lambda params: {"w": share * x.T @ (x @ params["w"] - y)}

    single, double = {"w": np.ones(4, np.float32)}, {"w": np.ones(4)}
    assert verify_own_model(times(1), loss, single).verdict is Verdict.AGREES
    # At 1e-18 float32 loses the digits of the residuals' products where w is not large.
    factor = 1.01 if scale < 1 else 1.001
    assert verify_own_model(times(factor), loss, single).verdict is Verdict.DISAGREES
    assert verify_own_model(times(1), loss, double).verdict is Verdict.DISAGREES


@pytest.mark.rest
@pytest.mark.parametrize(("limit", "expected"), [(50.0, "clipped"), (np.inf, "")])
def test_a_clipped_gradient_of_a_chaotic_loss_is_no_rounding(limit: float, expected: str) -> None:
    T, B, D, H = 12, 4, 5, 16
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(T, B, D)), rng.normal(size=(B, H))
    params = {"U": rng.normal(size=(D, H)) / 2, "W": rng.normal(size=(H, H)) / 4}

    def run(p: dict[str, Any]) -> list[Any]:
        h = [np.zeros((B, H))]
        for each in x:
            h.append(np.tanh(each @ p["U"] + h[-1] @ p["W"]))
        return h

    def loss(p: dict[str, Any]) -> Any:
        return ((run(p)[-1] - y) ** 2).sum() / 2

    def gradients(p: dict[str, Any]) -> dict[str, Any]:
        h = run(p)
        delta, found = h[-1] - y, {name: np.zeros_like(value) for name, value in p.items()}
        for t in reversed(range(T)):
            delta = delta * (1 - h[t + 1] ** 2)
            found["U"] += x[t].T @ delta
            found["W"] += h[t].T @ delta
            delta = delta @ p["W"].T
        return {name: np.clip(value, -limit, limit) for name, value in found.items()}

    report = verify_own_model(gradients, loss, params)
    assert [each.name for each in report.mistakes] == ([expected] if expected else [])
    assert report.verdict is (Verdict.DISAGREES if expected else Verdict.AGREES)
