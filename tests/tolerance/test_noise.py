"""Measured errors: large enough for every correct derivation, small enough to show mistakes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.tolerance.noise import SAFETY, Roundoff, Underflow, add_noise, measure_error


def test_an_exact_operation_is_followed_by_no_error_and_a_rounded_one_is() -> None:
    x = np.arange(1.0, 7.0)
    with jax.enable_x64(True):
        salt = jnp.uint64(1)
        for exact in (
            lambda x: -x.reshape(2, 3).T,
            lambda x: jnp.where(x > 3, x, 0.0),
            lambda x: jnp.stack(jnp.unstack(x.reshape(2, 3))),
        ):
            assert (add_noise(exact)(salt, 2.0**-20, x) == exact(x)).all()
        for rounded in (lambda x: x * x, jnp.tanh, lambda x: x @ x, jnp.sum):
            clean = np.asarray(rounded(x))
            moved = np.abs(np.asarray(add_noise(rounded)(salt, 2.0**-20, x)) - clean)
            assert (moved > 0).all()
            assert (moved <= 16 * 6**0.5 * 2.0**-20 * np.abs(clean)).all()


def test_every_step_of_a_scan_errs_on_its_own() -> None:
    def repeated(x: Any) -> Any:
        return lax.scan(lambda carry, _: (carry, carry * 1.25), x, None, length=5)[1]

    with jax.enable_x64(True):
        moved = np.asarray(add_noise(repeated)(jnp.uint64(3), 2.0**-20, jnp.float64(1.0))) - 1.25
    assert len(set(moved)) == 5


@pytest.mark.rest
def test_every_step_of_a_loop_of_unknown_length_errs_on_its_own() -> None:
    def summed(x: Any) -> Any:
        return lax.while_loop(lambda s: s[0] < 6, lambda s: (s[0] + 1, s[1] + x), (0, x))[1]

    def error(salt: int) -> float:
        return float(add_noise(summed)(jnp.uint64(salt), 2.0**-20, jnp.float64(1.0))) - 7

    with jax.enable_x64(True):
        errors = [error(salt) for salt in range(40)]
    # Six errors up to 2, 3 … 7 units: their sum exceeds one step's, and differs between samples.
    assert len(set(errors)) == 40
    assert 7 * 2.0**-20 < max(map(abs, errors)) < 27 * 2.0**-20


def test_no_two_steps_of_a_loop_of_unknown_length_have_one_error() -> None:
    def repeated(x: Any) -> Any:
        def step(state: Any) -> Any:
            t, found = state
            return t + 1, lax.dynamic_update_slice(found, (x * 1.25)[None], (t,))

        return lax.while_loop(lambda state: state[0] < 5, step, (0, jnp.zeros(5)))[1]

    with jax.enable_x64(True):
        moved = np.asarray(add_noise(repeated)(jnp.uint64(3), 2.0**-20, jnp.float64(1.0)))
    assert len(set(moved)) == 5
    assert (abs(moved - 1.25) <= 1.25 * 2.0**-20).all()


def test_equal_numbers_err_differently_and_one_place_does_so_alike() -> None:
    with jax.enable_x64(True):
        one, small = (
            np.asarray(add_noise(jnp.tanh)(jnp.uint64(1), size, np.full(4, 0.5))) - np.tanh(0.5)
            for size in (2.0**-20, 2.0**-23)
        )
    assert len({*np.asarray(one).tolist()}) == 4
    np.testing.assert_allclose(one, 8 * small, rtol=1e-6)


def test_both_parts_of_a_complex_number_err_and_an_infinity_does_not() -> None:
    with jax.enable_x64(True):
        z = jnp.array([1.0 + 1.0j, 2.0 - 1.0j])
        moved = np.asarray(add_noise(lambda z: z * z)(jnp.uint64(1), 2.0**-20, z) - z * z)
        infinite = add_noise(lambda x: x * 2.0)(jnp.uint64(1), 2.0**-20, jnp.array([-jnp.inf]))
    assert (moved.real != 0).all()
    assert (moved.imag != 0).all()
    assert (moved.real != moved.imag).all()  # each has its own
    assert float(infinite[0]) == -np.inf


@pytest.mark.parametrize(
    ("function", "size"),
    [
        (jnp.fft.fft, 10.0),  # in units of the largest entry: no entry is exact that cancels
        (lambda x: jnp.cumsum(x - 2.0), 2.0),
        (lambda x: jnp.linalg.cholesky(jnp.outer(x, x) + jnp.eye(4)).ravel(), 2.0),
    ],
    ids=["fourier", "cumulative", "cholesky"],
)
def test_sums_that_cancel_round_in_units_of_their_terms(function: Any, size: float) -> None:
    x = np.array([1.0, 2.0, 3.0, 2.0])
    with jax.enable_x64(True):
        moved = [
            np.abs(np.asarray(add_noise(function)(jnp.uint64(salt), 2.0**-20, x) - function(x)))
            for salt in range(8)
        ]
    largest = np.max(moved, axis=0)
    assert np.count_nonzero(largest > 0.1 * size * 2.0**-20) >= 3
    assert (largest < 64 * size * 2.0**-20).all()


def test_two_salts_give_two_samples_and_one_salt_one() -> None:
    with jax.enable_x64(True):
        one, same, other = (
            float(add_noise(jnp.tanh)(jnp.uint64(salt), 2.0**-20, jnp.float64(0.5)))
            for salt in (1, 1, 2)
        )
    assert one == same != other


@pytest.mark.parametrize("roundoff", [2.0**-24, 2.0**-53])
def test_the_allowed_error_is_proportional_to_the_roundoff_and_to_the_condition(
    roundoff: float,
) -> None:
    def difference(x: Any) -> Any:
        return (x * 1.1) - (x * 1.1 - 1e-3 * x)

    with jax.enable_x64(True):
        clean, allowed = jax.jit(partial(measure_error, difference))(roundoff, jnp.float64(1.0))
        _, well = jax.jit(partial(measure_error, lambda x: x * 1e-3))(roundoff, jnp.float64(1.0))
    assert float(clean) == pytest.approx(1e-3)
    assert 0.05 * roundoff <= float(allowed) / SAFETY <= 4 * roundoff
    assert float(well) / SAFETY <= 1e-3 * roundoff * 1.01


def test_a_custom_derivative_is_looked_into() -> None:
    with jax.enable_x64(True):
        gradient = jax.grad(lambda x: jnp.sum(jax.nn.relu(x) * 1.1))
        _, allowed = measure_error(gradient, 2.0**-53, np.array([1.0, -1.0]))
    assert allowed.shape == (2,)


def difference(x: Any) -> Any:
    return (x + 1e3) - 1e3 * x


def with_jvp_of_its_own(x: Any) -> Any:
    function = jax.custom_jvp(difference)
    function.defjvps(lambda slope, result, x: -999 * slope)
    return function(x)


def with_vjp_of_its_own(x: Any) -> Any:
    function = jax.custom_vjp(difference)
    function.defvjp(lambda x: (difference(x), None), lambda _, slope: (-999 * slope,))
    return function(x)


@pytest.mark.parametrize(
    "function",
    [jax.jit(difference), jax.checkpoint(difference), with_jvp_of_its_own, with_vjp_of_its_own],
    ids=["compiled", "repeated for memory", "custom jvp", "custom vjp"],
)
def test_a_computation_inside_a_call_errs_as_it_does_elsewhere(function: Any) -> None:
    x = np.linspace(0.9, 1.1, 5)
    with jax.enable_x64(True):
        plain, called = (add_noise(f)(jnp.uint64(1), 2.0**-20, x) for f in (difference, function))
    np.testing.assert_array_equal(plain, called)


def test_an_error_that_is_not_finite_is_none() -> None:
    # The terms of the sum are finite, and the sum of their sizes is not.
    x = np.array([1e308, -1e308])
    with jax.enable_x64(True):
        assert float(add_noise(lambda x: x @ np.ones(2))(jnp.uint64(1), 2.0**-20, x)) == 0.0


def test_of_a_choice_only_the_branch_that_is_taken_errs() -> None:
    def chosen(which: Any, x: Any) -> Any:
        return lax.switch(which, [lambda x: -x, lambda x: x * 1.1, jnp.tanh], x)

    x = np.linspace(0.5, 1.0, 4)
    with jax.enable_x64(True):
        for which, errs in enumerate([False, True, True]):
            moved = add_noise(chosen)(jnp.uint64(1), 2.0**-20, jnp.int64(which), x)
            assert bool((moved != chosen(which, x)).all()) == errs


SMALLEST, UNIT = 2.0**-126, 2.0**-24  # of float32
ZEROS = np.zeros(400, int)


@pytest.mark.parametrize(
    ("function", "largest"),
    [
        (lambda x: jnp.sum(x * x) * 1e30, 100 * SMALLEST * 1e30),  # the terms alone are lost
        (lambda x: (x @ x) * 1e30, 100 * SMALLEST * 1e30),
        (lambda x: (x @ (8 * x)) * 1e30, 400 * SMALLEST * 1e30),  # no more than all terms
        (lambda x: jnp.cumsum(x * x)[-1] * 1e30, 100 * SMALLEST * 1e30),
        (lambda x: jnp.zeros(1).at[ZEROS].add(x * x)[0] * 1e30, 100 * SMALLEST * 1e30),
        (lambda x: (x[:1] @ (64 * x[:1])) * 1e30, SMALLEST * 1e30),  # no more than one
        (lambda x: (x[0] * x[0]) * 1e30, SMALLEST / 4 * 1e30),
        (lambda x: (x[0] * 32 * x[0]) * 1e30, SMALLEST * 1e30),
        (lambda x: (x[0] - x[0]) * 1e30, 0.0),
        (lambda x: jnp.sqrt(x[0]) * 1e30, 0.0),  # rounding alone, which is far below
    ],
    ids="sum dot larger-terms cumsum scatter one-term product larger-product zero large".split(),
)
@pytest.mark.parametrize("share", [1.0, 0.125])
def test_each_small_term_of_a_sum_may_be_lost_and_no_more_than_all_of_them(
    function: Callable[[Any], Any], largest: float, share: float
) -> None:
    form = Roundoff(0.0, 0.0, underflow=Underflow(SMALLEST, UNIT))
    with jax.enable_x64(True):
        x = jnp.full(400, SMALLEST**0.5 / 2)
        salts, unit = jnp.arange(1, 33, dtype=jnp.uint64), share * UNIT
        noisy = jax.vmap(lambda salt: add_noise(function, form)(salt, unit, x))(salts)
        error = float(np.abs(np.asarray(noisy) - float(function(x))).max()) / share
        rounding = 100 * UNIT * abs(float(function(x)))
    assert 0.7 * largest <= error <= 1.3 * largest + rounding


def test_numbers_beyond_the_range_of_a_format_lose_their_digits() -> None:
    form = Roundoff(0.0, 1, 2.0**-24 / 2.0**-11, 65504.0)
    x = np.float64(12.0)
    cases: dict[str, Any] = {
        "too small": (lambda x: jnp.exp(-2 * x) * jnp.exp(x), 1e-3, 0.1),
        "too large": (lambda x: jnp.exp(x) * jnp.exp(-x), 0.01, 1.0),
        "too large inside": (lambda x: (30 * x) ** -2 * 1.0, 5e-6, 8e-6),
        "large inside": (lambda x: (16 * x) ** -2 * 1.0, 0.0, 1e-6),
        "largest": (lambda x: x - 12 + 65504.0, 1.0, 32.0),
        "neither": (lambda x: jnp.exp(x / 3) * jnp.exp(-x / 3), 1e-6, 5e-3),
        "zero": (lambda x: (x - 12.0) * 1e4, 0.0, 0.0),
    }
    with jax.enable_x64(True):
        for name, (function, least, most) in cases.items():
            salts = jnp.arange(1, 9, dtype=jnp.uint64)
            noisy = jax.vmap(lambda salt: add_noise(function, form)(salt, 2.0**-11, x))(salts)  # noqa: B023
            error = float(np.abs(np.asarray(noisy) - float(function(x))).max())
            assert least <= error <= most, f"{name}: {error}"
            assert float(add_noise(function, form)(salts[0], 0.0, x)) == float(function(x))


LOGITS = np.array([-np.inf, -1001, -1000, -11, -10, 0.5, 10, 11, 1000, 1001, np.inf])


@pytest.mark.parametrize(
    ("function", "spoilt"),
    [
        (jnp.tanh, [-1000, -11, 11, 1000, 1001]),  # what is below -1000 is a mask
        (jax.nn.sigmoid, [-1000, -11, 11, 1000, 1001]),
        (lambda x: jnp.maximum(x, -1000.0), [-np.inf, -1001, -1000, -11, 11, 1000, 1001]),
        (lambda x: jnp.max(x[:, None], 1), [-1000, -11, 11, 1000, 1001]),
        (lambda x: x - 0.5, [-1000, 1000]),  # so is what is above 1000, of a difference
        (lambda x: 0.5 - x, [-1000, 1000]),
        (jnp.exp, []),  # of which there is no other formula
        (lambda x: x * x, []),
        (lambda x: jnp.tanh(x.astype(np.float32)), []),
        (lambda x: jnp.maximum(x[3:-2].astype(int), -5), []),
        (lambda x: x[3:-2].astype(int) - 5, []),
    ],
    ids="tanh sigmoid maximum largest minuend subtrahend exp square float32 integers"
    " whole-differences".split(),
)
def test_only_what_may_overflow_in_another_formula_is_spoilt(
    function: Callable[[Any], Any], spoilt: list[float]
) -> None:
    form = Roundoff(0.0, largest=1000.0, exponent=10.0, root=100.0)
    with jax.enable_x64(True):
        salt = jnp.uint64(1)
        own = np.asarray(function(LOGITS))
        found = np.asarray(add_noise(function, form)(salt, 0.0, LOGITS))
        unlimited = np.asarray(add_noise(function)(salt, 0.0, LOGITS))
    expected = np.where(np.isin(LOGITS, spoilt), np.nan, own) if spoilt else own
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(unlimited, own)
    assert found.dtype == own.dtype


@pytest.mark.parametrize("limits", [{"exponent": 10.0}, {"root": 100.0}])
def test_a_program_without_exponentials_or_squares_is_not_spoilt_by_them(
    limits: dict[str, float],
) -> None:
    x = np.array([500.0, 1.0])
    form = Roundoff(0.0, **limits)
    with jax.enable_x64(True):
        for function, limit in ((jnp.tanh, "exponent"), (lambda x: x - 1.0, "root")):
            found = np.isnan(add_noise(function, form)(jnp.uint64(1), 0.0, x))
            assert found.tolist() == [limit in limits, False]
