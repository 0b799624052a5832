"""Samples of float32's errors that serve float64, too, and where they do not."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program import measured_errors
from bptt_verifier.program.measured_errors import (
    add_exact_sample,
    are_finite,
    gradient_and_noise,
    leaves_out_errors,
    plan_samples,
)
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace

FLOAT64, FLOAT32 = 2.0**-53, 2.0**-24
X = np.random.default_rng(0).uniform(1.0, 2.0, (5, 3))


def measure_both(
    loss: Callable[[Any, Any], Any], monkeypatch: pytest.MonkeyPatch, **params: Any
) -> tuple[list[Any], list[Any], list[list[float]]]:
    """What is allowed in float32 and float64 together, and apart; what was measured together."""
    measured, measure = list[list[float]](), measured_errors.measure

    def record(program: Any, params: Any, roundoffs: Any, **options: Any) -> Any:
        measured.append([*roundoffs])
        return measure(program, params, roundoffs, **options)

    monkeypatch.setattr(measured_errors, "measure", record)
    params = {name: np.array(value) for name, value in params.items()}
    with use_float64():
        program = trace(loss, params)
        truth = jax.grad(lambda p: loss(p, jnp))(params)
        both = gradient_and_noise(program, params, [FLOAT32, FLOAT64], truth)
        together = [*measured]
        alone = [gradient_and_noise(program, params, [u], truth)[0] for u in (FLOAT32, FLOAT64)]
    return both, alone, together


def test_the_samples_of_float32_give_the_errors_of_float64_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.tanh(X @ p["a"]) ** 2)

    both, alone, measured = measure_both(loss, monkeypatch, a=[0.3, -0.2, 0.1])
    assert measured == [[FLOAT32, FLOAT64]]
    assert both[0][0] == alone[0][0]
    np.testing.assert_array_equal(both[0][1]["a"], alone[0][1]["a"])
    for found, expected in zip(
        (both[1][0], both[1][1]["a"]), (alone[1][0], alone[1][1]["a"]), strict=True
    ):
        assert np.all(found < 1.5 * expected)
        assert np.all(found > expected / 1.5)


def kinked(p: Any, xp: Any) -> Any:
    """A kink that errors of float32 cross, and those of float64 do not."""
    return xp.sum(xp.maximum(p["a"] * 3.0 - 1.5 - 2.0**-26, 0.0)) * 1e-3 + xp.sum(p["a"] ** 2)


def saturated(p: Any, xp: Any) -> Any:
    """A sum with a constant of which errors of float32 are larger than the other term."""
    e = xp.exp(-40.0 * p["a"])
    return xp.sum((1.0 + e) * 1e-3 + xp.sqrt(e))


@pytest.mark.parametrize(
    ("terms", "unlike"),
    [
        ([2.0**-21, 1.0], False),  # an eighth of it is the error of float32
        ([2.0**-22, 1.0], True),
        ([2.0**-40, 1.0], True),
        ([2.0**-41, 1.0], False),  # nor are float64's errors added
        ([0.0, -1.0], False),  # and none to a zero, whatever the sum is
    ],
)
def test_errors_are_left_out_of_terms_that_they_leave_no_digits(
    terms: list[float], unlike: bool
) -> None:
    a, constant = np.array(terms), 1.0 - terms[0]  # the first sum is 1
    with use_float64():
        program = trace(lambda p, xp: xp.sum(xp.sqrt(constant + p["a"])), {"a": a})
        values = forward(program, {"a": a})
        assert leaves_out_errors(program, values, FLOAT32) is unlike
        without = trace(lambda p, xp: xp.sum(p["a"] + p["a"]), {"a": a})
        assert leaves_out_errors(without, forward(without, {"a": a}), FLOAT32) is False
        # The last sample is the exact one.
        rows = [np.concatenate([0.0 * v + 7.0, v]) if v is not None else v for v in values]
        assert leaves_out_errors(program, rows, FLOAT32) is unlike


def test_errors_are_finite_if_all_are() -> None:
    ones, one_infinite = np.ones(2), np.array([1.0, np.inf])
    assert are_finite((1.0, {"a": ones, "b": ones}))
    for of_loss, a, b in [
        (np.inf, ones, ones), (1.0, one_infinite, ones), (1.0, ones, one_infinite),
        (1.0, np.full(2, np.inf), ones),
    ]:  # fmt: skip
        assert not are_finite((of_loss, {"a": a, "b": b}))


def test_the_last_of_the_samples_has_no_errors_and_gives_their_magnitudes() -> None:
    _, errors = plan_samples([FLOAT64])
    exact = add_exact_sample(errors)
    assert exact.exact
    assert exact.sizes is not None
    assert exact.sizes.tolist() == [2.0**-43] * 8 + [2.0**-46] * 2 + [0.0]


def in_another_format(p: Any, xp: Any) -> Any:
    return xp.sum(xp.sin(p["a"].astype(xp.float32)).astype(xp.float64))


@pytest.mark.parametrize(
    ("loss", "measured"),
    [
        (kinked, [[FLOAT32, FLOAT64], [FLOAT64]]),
        (saturated, [[FLOAT32, FLOAT64], [FLOAT64]]),
        (in_another_format, [[FLOAT32], [FLOAT64]]),
    ],
)
def test_float64_has_samples_of_its_own_where_those_of_float32_do_not_serve(
    loss: Any, measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, alone, found = measure_both(loss, monkeypatch, a=[0.5])
    assert found == measured
    for together, apart in zip(both, alone, strict=True):
        assert together[0] == apart[0]
        np.testing.assert_array_equal(together[1]["a"], apart[1]["a"])
