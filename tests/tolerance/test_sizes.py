"""Sizes and factors of arrays whose squares leave the range of float64."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.tolerance.projections import Measurement, measure
from bptt_verifier.tolerance.sizes import (
    divide_by_power,
    find_deviations,
    find_exponent,
    find_factors,
    find_sizes,
    root_mean_square,
)

FAR = [-1000, -600, 600, 1000]  # powers of two whose squares float64 does not hold
VALUES = np.random.default_rng(0).normal(size=(16, 4, 5))


@pytest.mark.parametrize("power", FAR)
def test_sizes_are_those_of_numbers_near_one(power: int) -> None:
    scaled = np.ldexp(VALUES, power)
    assert np.ldexp(root_mean_square(scaled), -power) == root_mean_square(VALUES)
    assert root_mean_square(VALUES) == pytest.approx(np.sqrt(np.mean(VALUES**2)), rel=1e-15)
    for find in (find_sizes, find_deviations):
        assert np.array_equal(np.ldexp(find(scaled), -power), find(VALUES))
    np.testing.assert_allclose(find_deviations(VALUES), VALUES.std(axis=0, ddof=1), rtol=1e-14)


@pytest.mark.parametrize("power", [0, *FAR])
def test_factors_are_found_at_any_size(power: int) -> None:
    exact = np.ldexp(VALUES, power)
    np.testing.assert_allclose(find_factors(0.25 * exact, exact), 0.25, rtol=1e-15)
    assert find_factors(-exact, exact, None) == -1
    assert not find_factors(exact, np.zeros_like(exact)).any()


@pytest.mark.parametrize(
    ("arrays", "exponent"),
    [([0.0], 0), ([np.inf, 2.0], 0), ([np.nan], 0), ([], 0), ([-3.0, 1.0], 2), ([0.5], 0)],
)
def test_the_power_of_two_is_above_the_largest_number(arrays: Any, exponent: int) -> None:
    assert find_exponent(np.array(arrays)) == exponent
    assert find_exponent(np.array([1e-9]), np.array([-3.0])) == 2


def test_numbers_of_any_format_are_divided_in_float64() -> None:
    divided = divide_by_power(np.float32([3]), 2)
    assert divided.dtype == np.float64
    assert divided == [0.75]
    assert divide_by_power(1.0, -2000) == np.inf


def measure_scaled(factor: Any, power: int) -> Measurement:
    """Measure the errors of numbers that are multiplied by a factor, at a power of two."""
    exact = np.ldexp(VALUES, power)
    rounding = np.random.default_rng(1).uniform(-1, 1, VALUES.shape) * 2.0**-53
    return measure((factor - 1 + rounding) * exact, exact, np.float64, 100)


@pytest.mark.parametrize("power", [-900, -600, 600, 900])
@pytest.mark.parametrize("place", [None, 3])
def test_errors_are_measured_at_any_size_as_near_one(power: int, place: int | None) -> None:
    factor = np.ones(5)
    if place is not None:
        factor[place] = 1.001
    far, near = measure_scaled(factor, power), measure_scaled(factor, 0)
    assert far.wrong == near.wrong == (place is not None)
    assert far.resolution == pytest.approx(near.resolution)
    assert far.noise == pytest.approx(near.noise)
    np.testing.assert_allclose(np.ldexp(far.limit, -power), near.limit, rtol=1e-12)
    np.testing.assert_allclose(np.ldexp(far.visible, -power), near.visible, rtol=1e-12)
    for here, there in zip(far.slices, near.slices, strict=True):
        assert np.array_equal(here.wrong, there.wrong)


def test_no_numbers_have_the_size_zero() -> None:
    assert root_mean_square(np.zeros((0, 3))) == 0
