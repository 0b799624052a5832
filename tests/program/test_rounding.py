"""Rounding errors for the samples of a program: their sizes, and which of them are equal."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program.rounding import (
    EXACTLY,
    RESOLUTION,
    Pending,
    RoundingErrors,
    find_smallest,
    find_unit,
)

SIZES = np.array([2.0**-20, 2.0**-20, 2.0**-23])


def round_in(sizes: Any = SIZES, units: Any = None, draws: Any = (0, 1, 0)) -> RoundingErrors:
    units = sizes if units is None else units
    return RoundingErrors(sizes, units, np.array(draws), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        (np.float64, 2.0**-53), (np.float32, 2.0**-24), (np.float16, 2.0**-11),
        (jnp.bfloat16, 2.0**-8), (np.complex128, 2.0**-53),
    ],
)  # fmt: skip
def test_the_unit_roundoff_is_half_of_the_distance_from_one_to_the_next_number(
    dtype: Any, unit: float
) -> None:
    assert find_unit(np.dtype(dtype)) == unit


def test_coarse_values_round_in_their_own_format_where_a_sample_imitates_a_finer_one() -> None:
    units, sizes = np.array([2.0**-24, 2.0**-53]), np.array([2.0**-24, 2.0**-43])
    errors = round_in(sizes, units, (0, 1))
    for dtype, factors in [
        (np.float64, [1.0, 1.0]),
        (np.float32, [1.0, 2.0**29]),
        (np.float16, [2.0**13, 2.0**42]),
    ]:
        found = errors.in_precision(dtype)
        assert found.sizes is not None
        assert found.sizes.tolist() == (sizes * factors).tolist()
        assert found.units is not None
        assert found.units.tolist() == np.maximum(units, find_unit(np.dtype(dtype))).tolist()
    assert errors.in_precision(np.int64) is EXACTLY
    assert EXACTLY.in_precision(np.float32) is EXACTLY


def test_an_error_is_signed_and_at_most_its_size_times_the_magnitude() -> None:
    magnitudes = np.array([1.0, 4.0])[:, None] * np.ones(500)
    q = np.full((1, 2, 500), 3.0)
    share = (round_in().add(q, magnitudes) - q) / (SIZES[:, None, None] * magnitudes)
    for each in share.reshape(6, 500):
        assert -1.001 < each.min() < -0.9
        assert 0.9 < each.max() < 1.001
        assert abs(each.mean()) < 0.2
    # Samples of one draw have the same random numbers, in units of their own size.
    np.testing.assert_allclose(share[0], share[2], atol=1e-6)
    assert not np.isclose(share[0], share[1], atol=1e-6).all()


@pytest.mark.parametrize(
    ("unit", "smallest"), [(2.0**-53, 2.0**-1022), (2.0**-24, 2.0**-126), (2.0**-8, 2.0**-126),
                           (2.0**-11, 2.0**-24)],
)  # fmt: skip
def test_what_underflows_is_lost_once_for_each_term_and_at_most_whole(
    unit: float, smallest: float
) -> None:
    assert find_smallest(unit) == smallest
    errors = round_in(np.array([unit / 4, unit]), draws=(0, 1))
    sizes = np.array([0.0, smallest / 4, smallest, 5 * smallest, 1.0])
    for terms in (1, 3):
        expected = np.minimum(sizes, terms * smallest) / unit
        assert errors.measure_lost(sizes, terms).tolist() == expected.tolist()
        above = terms * smallest / unit
        assert errors.measure_lost(np.array([above, 1.0]), terms) == 0.0
        assert np.any(errors.measure_lost(np.array([0.999 * above, 1.0]), terms))
    assert errors.measure_lost(np.zeros(0)) == 0.0


def test_a_number_that_underflows_is_lost_in_the_samples_and_a_zero_and_a_large_one_are_not() -> (
    None
):
    errors, tiny = round_in(np.full(200, 2.0**-24), draws=range(200)), 2.0**-126
    q = np.array([[0.0, tiny / 8, 2 * tiny, 1.0]])
    lost = np.abs(errors.add(q, np.zeros((1, 4))) - q).max(axis=0)
    np.testing.assert_allclose(lost, [0.0, tiny / 8, tiny, 0.0], rtol=0.1)


def test_what_underflows_is_lost_beside_the_error_of_rounding() -> None:
    tiny, unit = 2.0**-126, 2.0**-24
    errors = round_in(np.full(200, unit), draws=range(200))
    found = errors.add(np.full((1, 1), tiny / 8), np.full((1, 1), tiny / 8 / unit))
    assert np.abs(found - tiny / 8).max() == pytest.approx(tiny / 4, rel=0.1, abs=0)


def test_both_parts_of_a_complex_number_err_and_an_integer_does_not() -> None:
    z = np.full((1, 300), 3 + 4j)
    moved = (round_in().add(z, np.abs(z)) - z) / (5 * SIZES[:, None])
    for part in (moved.real, moved.imag):
        assert (part != 0).all()
        assert (np.abs(part) < 1.001).all()
    assert (moved.real != moved.imag).all()
    integers = np.arange(3)[None]
    assert round_in().add(integers, 1.0) is integers


def test_an_error_of_infinite_size_or_above_the_largest_one_is_left_out() -> None:
    q = np.array([[5.0, 1.0]])
    masked = round_in().add(q, np.array([[np.inf, 1.0]]))
    assert (masked[:, 0] == 5.0).all()
    assert (masked[:, 1] != 1.0).all()
    limited = round_in().add(q, np.ones((1, 2)), np.array([[2.0**-20, 2.0**-21]]))
    assert (limited[:, 0] != 5.0).all()
    assert (limited[:, 1] == 1.0).tolist() == [True, True, False]
    by_size = round_in().add(q, np.array([[4.0, 0.25]]), np.array([[2.0**-20, 2.0**-21]]))
    assert (by_size[:, 0] == 5.0).tolist() == [True, True, False]
    assert (by_size[:, 1] != 1.0).all()


def test_samples_of_one_draw_have_one_salt_and_others_none_alike() -> None:
    salts = round_in(np.ones(301), draws=[*range(300), 0]).draw_salts().tolist()
    assert len({*salts}) == 300
    assert salts[300] == salts[0]


def test_magnitudes_are_those_of_the_exact_sample_where_there_is_one() -> None:
    q = np.array([[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]])
    errors = round_in()
    assert errors.measure(q).tolist() == np.abs(q).tolist()
    assert errors._replace(exact=True).measure(q).tolist() == [[5.0, 6.0]]


def test_magnitudes_may_differ_between_samples() -> None:
    q, magnitude = np.zeros((3, 200)), np.array([1.0, 0.0, 8.0])[:, None] * np.ones(200)
    found = np.abs(round_in().add(q, magnitude) / SIZES[:, None]).max(axis=1)
    assert (found <= [1, 0, 8]).all()
    assert (found >= [0.9, 0, 7.2]).all()
    two = round_in(SIZES[:2], draws=(1, 0)).add(np.zeros((2, 1)), np.array([[0.0], [8.0]]))
    assert (two != 0).ravel().tolist() == [False, True]


def test_a_number_of_one_sample_gets_the_errors_of_all() -> None:
    found = round_in().add(np.full((1, 5), 2.0), np.ones((1, 5)))
    assert found.shape == (3, 5)
    assert len({*found.ravel().tolist()}) == 15


def test_several_errors_have_the_variance_of_one_and_the_sum_of_two_in_their_tails() -> None:
    """A uniform error has the variance 1/3, and is at most 1; of (N7), (1 − 1/√2)² are larger.

    4000 numbers of a variance have a mean square within 10 % of it, four standard deviations.
    """
    ones = np.ones((1, 4000))
    for several in (False, True):
        share = round_in().add(0 * ones, ones, several=several)[0] / SIZES[0]
        assert abs(3 * np.mean(share**2) - 1) < 0.1
        assert 0.06 * several <= np.mean(np.abs(share) > 1) <= 0.11 * several
        assert np.abs(share).max() <= (1.4143 if several else 1.0001)


def test_the_squares_of_pending_errors_add_and_so_do_their_numbers() -> None:
    one = Pending(np.array([[3.0, 0.0]]))
    assert one.join(None) is one
    assert one.magnitude is one.largest
    both = one.join(Pending(np.array([[4.0, 2.0]]), 2))
    np.testing.assert_allclose(both.magnitude, [[5.0, 2.0]])
    assert both.number == 3
    three = both.join(Pending(np.array([[12.0, 0.0]])))
    np.testing.assert_allclose(three.magnitude, [[13.0, 2.0]])


@pytest.mark.parametrize("size", [2.0**-1000, 2.0**-470, 2.0**1000])
def test_pending_errors_whose_squares_float64_cannot_hold_are_as_large_as_the_largest(
    size: float,
) -> None:
    """float64 has the digits of the squares of numbers of 2⁻⁴⁷⁰."""
    with np.errstate(over="ignore"):
        one = Pending(np.array([3 * size])).join(Pending(np.array([4 * size])))
        (found,) = one.magnitude / size
    assert 5.0 <= found <= 4 * 2**0.5
    assert (found == 5.0) == (size == 2.0**-470)


def test_no_pending_error_is_lost_beside_larger_ones() -> None:
    tiny = 2.0**-540
    together = Pending(np.array([tiny, 1.0])).join(Pending(np.array([0.0, 1.0])))
    assert (together.magnitude >= [tiny, 1.4]).all()


def test_the_random_numbers_are_spread_evenly() -> None:
    numbers = round_in().draw_signed((10001,))
    assert numbers.shape == (2, 10001)
    assert abs(numbers).max() <= 1 / RESOLUTION
    shares, _ = np.histogram(numbers, bins=16, range=(-(2**15), 2**15))
    assert (abs(shares / numbers.size - 1 / 16) < 0.01).all()
