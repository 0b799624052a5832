"""Verdicts on kernels in float16 whose results are not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.adapters import Kernel, from_jax
from bptt_verifier.report import Report

X = np.array([0.001, 0.5, 1.5, 2, 6], np.float16)  # 1000 x comes near 65504 at the last entry


def times(x: Any) -> Any:
    return x * 1000.0


def judge_output(change: Any, x: Any = X) -> Report:
    """Judge a forward pass whose result is changed; its gradient is right."""

    def values(arguments: Any) -> Any:
        with np.errstate(over="ignore"):
            return change((arguments[0].astype(np.float32) * 1000).astype(np.float16))

    backward = lambda a, d: ((d.astype(np.float32) * 1000).astype(np.float16),)  # noqa: E731
    return verify_vjp(Kernel(backward, values), times, (x,), cases=1)


@pytest.mark.table(2)
@pytest.mark.parametrize(
    "change",
    [
        lambda y: np.full_like(y, np.nan),
        lambda y: np.where(np.arange(5) < 4, np.nan, y),
        lambda y: np.where(np.arange(5) < 4, 7, np.inf).astype(np.float16),
    ],
    ids=["NaN everywhere", "NaN at small entries", "7 at small entries"],
)
def test_an_entry_that_may_overflow_excuses_no_other_entry_of_an_output(change: Any) -> None:
    (mistake,) = judge_output(change).mistakes
    assert mistake.name == "forward-differs"


def test_entries_of_an_output_that_overflow_are_left_out_and_the_report_says_so() -> None:
    report = judge_output(lambda y: y, (X * np.float16(16)))  # 96000
    assert report.verdict is Verdict.AGREES, str(report)
    assert "These entries are not compared, with the arguments given" in " ".join(report.notes)
    assert not any("not compared" in note for note in judge_output(lambda y: y).notes)


def judge_gradient(first: int) -> Report:
    """Judge the gradient 1000 x d of 500 x², with NaN from an entry on, where x is as long as X."""

    def backward(arguments: Any, d: Any) -> Any:
        gradient = (d.astype(np.float64) * 1000 * arguments[0]).astype(np.float16)
        spoilt = (len(d) == len(X)) & (np.arange(len(d)) >= first)
        return (np.where(spoilt, np.float16("nan"), gradient),)

    settings, ones = [(X,), (X[1:3],)], np.ones(5, np.float16)
    return verify_vjp(backward, lambda x: x * x * 500.0, settings, cotangents=ones, cases=1)


def test_an_entry_that_may_overflow_excuses_no_other_entry_of_a_gradient() -> None:
    (mistake,) = judge_gradient(3).mistakes
    assert mistake.name == "not-finite"
    assert "entry [3], where autodiff gives 2" in mistake.explanation
    report = judge_gradient(4)
    assert report.verdict is Verdict.AGREES
    assert "Left out: the arguments given." in str(report)


def plain_softmax(a: Any) -> Any:
    e = jnp.exp(a)
    return e / e.sum(-1, keepdims=True)


def plain_tanh(a: Any) -> Any:
    return (jnp.exp(a) - jnp.exp(-a)) / (jnp.exp(a) + jnp.exp(-a))


@pytest.mark.table(2)
@pytest.mark.parametrize(
    ("plain", "stated"),
    [
        (plain_softmax, lambda a: jax.nn.softmax(a, -1)),
        (plain_tanh, jnp.tanh),
    ],
    ids=["softmax without a shift", "tanh"],
)
def test_a_right_formula_whose_exponentials_overflow_is_left_out(plain: Any, stated: Any) -> None:
    logits = np.array([[12, 11.5, -3], [1, 0.5, 2]], np.float16)
    report = verify_vjp(from_jax(jax.jit(plain)), stated, [(logits,), (logits[1:],)], cases=1)
    assert report.verdict is not Verdict.DISAGREES, str(report)
    assert "Left out: the arguments given." in str(report)


def test_a_variance_by_squares_that_overflow_is_left_out() -> None:
    def values(arguments: Any) -> Any:
        (x,) = arguments
        with np.errstate(all="ignore"):
            return np.mean(x * x, dtype=np.float16) - np.mean(x, dtype=np.float16) ** 2

    def backward(arguments: Any, d: Any) -> Any:
        x = arguments[0].astype(float)
        return ((d * 2 / 3 * (x - x.mean())).astype(np.float16),)

    x = np.array([300, 310, 290], np.float16)
    report = verify_vjp(Kernel(backward, values), jnp.var, (x,), cases=1)
    assert report.verdict is Verdict.AGREES, str(report)
    assert "These entries are not compared" in str(report)
    spoilt = Kernel(backward, lambda a: a[0][0] * np.float16("nan"))
    (mistake,) = verify_vjp(spoilt, jnp.var, (x / np.float16(100),), cases=1).mistakes
    assert mistake.name == "forward-differs"


@pytest.mark.table(2)
@pytest.mark.parametrize("stated", [lambda a: jax.nn.softmax(a, -1), jax.nn.relu])
def test_a_number_whose_exponential_would_overflow_excuses_no_other_row(stated: Any) -> None:
    logits = np.array([[12, 11.5, -3], [1, 0.5, 2]], np.float16)
    row = 1 if stated is not jax.nn.relu else 0  # which has no exponential

    def backward(arguments: Any, d: Any) -> Any:
        (gradient,) = jax.vjp(stated, jnp.asarray(arguments[0]))[1](jnp.asarray(d))
        return (np.where(np.arange(2)[:, None] == row, np.float16("nan"), gradient),)

    (mistake,) = verify_vjp(backward, stated, (logits,), cases=1).mistakes
    assert mistake.name == "not-finite"
    assert f"entry [{row}, 0]" in mistake.explanation


@pytest.mark.parametrize(("scale", "right"), [(1, True), (0, False)])
def test_a_zero_that_is_one_over_infinity_is_left_out_and_any_other_is_wrong(
    scale: int, right: bool
) -> None:
    def forward(x: Any) -> Any:
        return x / (1 + x * x)

    def values(arguments: Any) -> Any:
        (x,) = arguments
        with np.errstate(over="ignore"):
            return np.where(np.arange(4) == 1, scale, 1).astype(x.dtype) * forward(x)

    def backward(arguments: Any, d: Any) -> Any:
        x, d = (each.astype(np.float32) for each in (arguments[0], d))
        return ((d * (1 - x**2) / (1 + x**2) ** 2).astype(np.float16),)

    x = np.array([0.5, 2, 3, 300], np.float16)  # 300² is beyond 65504
    report = verify_vjp(Kernel(backward, values), forward, (x,), cases=1)
    names = [mistake.name for mistake in report.mistakes]
    assert names == ([] if right else ["forward-differs"]), report
    assert ("may overflow" in " ".join(report.notes)) == right


@pytest.mark.rest
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # where all overflows
def test_a_number_that_overflows_by_rounding_alone_ends_no_verdict() -> None:
    def forward(x: Any, w: Any) -> Any:  # rounding in float32 moves w by up to 8
        return jnp.sin(x), jnp.exp((w + 1e8) - 1e8) * 1e-300

    def backward(arguments: Any, d: Any) -> Any:
        x = arguments[0].astype(np.float64)
        near = (arguments[1] + np.float32(1e8) - np.float32(1e8)).astype(np.float64)
        with np.errstate(all="ignore"):
            found = d[0] * np.cos(x), d[1] * np.exp(near) * 1e-300
            return tuple(each.astype(np.float32) for each in found)

    given = tuple(np.linspace(*ends, 8).astype(np.float32) for ends in ((0.1, 1), (704, 705)))
    report = verify_vjp(backward, forward, given, cases=1)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    assert report.parameters["x"].verdict is Verdict.AGREES
