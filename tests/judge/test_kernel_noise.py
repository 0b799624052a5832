"""Random errors of a kernel, told from rounding in any format inside."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.judge import kernel_noise
from tests.support.kernels import backward_of, draw_rnn, rnn, rnn_in_tf32, within


def add_random_errors(size: float, seed: int | None = None) -> Callable[[Any, Any], Any]:
    """The RNN with random errors, which with a seed depend on the last digits of x alone."""
    right, rng = backward_of(rnn), np.random.default_rng(seed)

    def backward(arguments: Any, cotangents: Any) -> Any:
        digits = int.from_bytes(np.asarray(arguments[0]).tobytes()[:8], "little")
        random = rng if seed is None else np.random.default_rng([seed, digits])
        found = right(arguments, cotangents)
        return tuple((g * (1 + size * random.normal(size=g.shape))).astype(g.dtype) for g in found)

    return backward


@pytest.mark.rest
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_errors_of_one_per_cent_are_no_rounding(dtype: Any) -> None:
    report = verify_vjp(add_random_errors(0.01, 3), rnn, draw_rnn(dtype), cases=1)
    (mistake,) = report.mistakes
    assert mistake.name == "noise-beyond-rounding", report
    assert "x, U, W" in mistake.explanation
    assert "differ in their last digits alone" in mistake.explanation
    assert min(each.error for each in report.parameters.values()) > 1
    assert not any("evidently" in note for note in report.notes)


@pytest.mark.rest
def test_random_errors_that_change_from_call_to_call_are_not_deterministic() -> None:
    report = verify_vjp(add_random_errors(0.01), rnn, draw_rnn(np.float32), cases=1)
    assert [mistake.name for mistake in report.mistakes] == ["not-deterministic"], report


def test_random_errors_in_bfloat16_are_as_large_as_rounding_every_operation() -> None:
    report = verify_vjp(add_random_errors(0.01, 3), rnn, draw_rnn(jnp.bfloat16), cases=1)
    assert report.verdict is Verdict.AGREES
    assert "random errors of this size cannot be told from that" in " ".join(report.notes)


def one_pass_norm(x: Any) -> Any:
    """A normalisation whose variance is a difference of squares."""
    mean = x.mean(axis=1, keepdims=True)
    return (x - mean) / jnp.sqrt((x * x).mean(axis=1, keepdims=True) - mean**2 + 1e-5)


def norm(x: Any) -> Any:
    """The same normalisation, with the variance of what is left of the mean."""
    left = x - x.mean(axis=1, keepdims=True)
    return left / jnp.sqrt((left**2).mean(axis=1, keepdims=True) + 1e-5)


def around(mean: float) -> tuple[Any]:
    """Numbers around a mean."""
    return ((mean + np.random.default_rng(0).normal(size=(4, 16))).astype(np.float32),)


def sigmoids(x: Any, W: Any) -> Any:
    """A layer of tanh, written with logistic functions, which lose small numbers."""
    return (2 / (1 + jnp.exp(-2 * (x @ W))) - 1) @ W


def draw_small() -> tuple[Any, ...]:
    """Small inputs of that layer."""
    rng = np.random.default_rng(0)
    shapes = ((4, 6), 1e-6), ((6, 6), 1.0)
    return tuple((size * rng.normal(size=shape)).astype(np.float32) for shape, size in shapes)


RIGHT = {
    "TF32 inside": (rnn_in_tf32, rnn, draw_rnn(np.float32)),
    "bfloat16 inside": (within(rnn, jnp.bfloat16), rnn, draw_rnn(np.float32)),
    "bfloat16 inside float64": (within(rnn, jnp.bfloat16), rnn, draw_rnn(np.float64)),
    "a variance by squares": (one_pass_norm, norm, around(1000)),
    "tanh of small numbers by logistic functions": (
        sigmoids, lambda x, W: jnp.tanh(x @ W) @ W, draw_small()
    ),
}  # fmt: skip


@pytest.mark.table(2)
@pytest.mark.parametrize(("kernel", "forward", "given"), RIGHT.values(), ids=RIGHT)
def test_rounding_in_a_coarser_format_or_another_formula_is_no_such_noise(
    kernel: Any, forward: Any, given: Any
) -> None:
    report = verify_vjp(backward_of(kernel), forward, given, cases=1)
    assert report.verdict is not Verdict.DISAGREES, report


@pytest.mark.table(3)
@pytest.mark.parametrize("excuse", ["large numbers", "condition", "none"])
def test_a_variance_by_squares_is_excused_by_large_numbers_and_by_its_condition(
    excuse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if excuse != "large numbers":
        monkeypatch.setattr(kernel_noise, "may_lose_digits", lambda *_: False)
    if excuse != "condition":
        monkeypatch.setattr(kernel_noise, "find_limit", lambda own, unit: kernel_noise.VISIBLE)
    report = verify_vjp(backward_of(one_pass_norm), norm, around(1000), cases=1)
    named = [mistake.name for mistake in report.mistakes]
    assert named == ([] if excuse != "none" else ["noise-beyond-rounding"])


def test_a_variance_by_squares_is_excused_where_its_numbers_are_not_large() -> None:
    """Numbers of 30 with a deviation of 0.02: noise of a tenth of the gradient."""
    (x,) = around(0)
    given = ((30 + 0.02 * x).astype(np.float32),)
    report = verify_vjp(backward_of(one_pass_norm), norm, given, cases=1)
    assert report.verdict is not Verdict.DISAGREES, report
