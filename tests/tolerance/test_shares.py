"""Ranges of submitted ÷ exact numbers, and the shares of rounding inside, by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.tolerance.rounding_inside import (
    choose_share,
    find_chance,
    find_ranges,
    list_shares,
)
from bptt_verifier.tolerance.scatter import find_normal_ratio

UNIT, TINY = 2.0**-8, 2.0**-126
WIDTH = 4 * UNIT * (1 + 4 * UNIT)  # of the ratios that one factor explains, relative to them


def find_range(*ratios: float, exact: Any = 1.0) -> float:
    """The range of these ratios at as many neighbours, of two entries that have them."""
    sizes = np.broadcast_to(np.asarray(exact, float), len(ratios))[:, None]
    errors = (np.array(ratios)[:, None] - 1) * sizes
    found = find_ranges(
        np.hstack([errors, -errors[::-1]]), np.hstack([sizes, -sizes[::-1]]), jnp.bfloat16
    )
    assert found[0] == found[1]
    return float(found[0])


@pytest.mark.parametrize("first", [1.0, 0.25, -4.0])
def test_ratios_that_two_factors_do_not_explain_have_a_range(first: float) -> None:
    def end(start: float, part: float) -> float:
        return start + part * WIDTH * abs(start)

    second = end(first, 1.003)
    assert find_range(first, end(first, 0.997), end(second, 2)) == 0  # one, and another one
    assert find_range(first, second, end(second, 0.997)) == 0
    last = end(second, 1.003)
    assert find_range(last, first, second) == pytest.approx(last - first)
    assert find_range(first, first, second) == 0


# Of a number of 2⁻¹²⁰, a factor explains ratios that differ by 4 · 2⁻¹²⁶ ÷ 2⁻¹²⁰ = 2⁻⁴ besides.
def test_numbers_near_the_smallest_may_be_lost() -> None:
    small = 2.0**-120
    for sizes in (small, (small, 1.0, 1.0), (1.0, -small, 1.0)):
        for part, found in ((0.99, 0), (1.01, 1)):
            second = 2.0**-4 * 1.01
            last = second * (1 + WIDTH) + part * 2.0**-4
            assert (find_range(0.0, second, last, exact=sizes) > 0) == found
    assert find_range(0.0, 2.0**-4, 1.0, exact=small) == 0  # which the factor 0 explains
    assert find_range(0.0, 1.0, 1 + WIDTH) == 0


def test_exact_numbers_of_zero_have_no_range() -> None:
    exact, errors = np.zeros((3, 1)), np.array([[0.0], [1.0], [-2.0]])
    assert find_ranges(errors, exact, jnp.bfloat16).tolist() == [0]


# Uniform errors of a range R have a root mean square of R / (2 √3).
def test_a_share_is_the_size_of_the_errors_beside_that_of_imitated_ones() -> None:
    ratio = find_normal_ratio(10)
    sizes = np.array([0.99 / ratio, 1.01 / ratio, 1.98 * UNIT, 2.02 * UNIT, 0.05])
    imitated = np.array([1.0, -1.0])[:, None, None] * np.ones((2, 3, 5)) * sizes
    exact = np.ones((4, 5)) * 3.0
    errors = np.array([-0.5, 0, 0.25, 0.5])[:, None] * exact
    shares = list_shares(errors, exact, 3 * imitated, 10, jnp.bfloat16)
    np.testing.assert_allclose(shares, 1 / (2 * 3**0.5 * sizes[[0, 3, 4]]))
    least = np.array([[[2 * UNIT]], [[-2 * UNIT]]])  # two roundings of 1
    assert list_shares(np.zeros((4, 1)), np.ones((4, 1)), least, 10, jnp.bfloat16).size == 1
    small = exact * TINY  # of which rounding errs by the smallest number as well
    asked = list_shares(errors * TINY, small, 3 * TINY * imitated, 10, jnp.bfloat16)
    assert asked.size == 0


def test_a_share_is_that_of_enough_entries() -> None:
    near = 2.0**-4
    assert find_chance(near) == pytest.approx((2 / 15) ** 2)
    assert find_chance(0.2) == pytest.approx(0.25)
    assert find_chance(0.5) == 1
    assert choose_share(np.array([0.5, 0.2, 0.7, 0.4]), near) == 0.2  # all four are needed
    assert choose_share(np.array([0.5, 0.2, 0.7, 0.4, 0.3]), near) == 0.3  # four of five
    assert choose_share(np.array([3.0, 2.0, 7.0, 4.0]), near) == 1
    assert choose_share(np.array([0.5, 0.7, 0.4]), near) == 0
    assert choose_share(np.zeros(0), near) == 0
    assert choose_share(np.full(40, 0.5), 0.5) == 0
