"""Sizes of arrays and the factors between them, where squares leave the range of float64.

Numbers below 2⁻⁵³⁷ have squares of zero, and those above 2⁵¹² infinite ones. So arrays are divided
by a power of two first, which rounds nothing: docs/derivation.md, section 17, (V18).
"""

from typing import Any

import numpy as np

from bptt_verifier.tolerance.comparison import Array

Axis = int | tuple[int, ...] | None


def find_exponent(*arrays: Array) -> int:
    """Find the power of two above the largest number of arrays; 0 if that is zero or infinite."""
    largest = max(float(np.max(np.abs(each), initial=0.0)) for each in arrays)
    return int(np.frexp(largest)[1]) if 0 < largest < np.inf else 0


def divide_by_power(values: Any, exponent: int) -> Array:
    """Divide numbers by a power of two, in float64."""
    with np.errstate(over="ignore"):
        return np.asarray(np.ldexp(np.asarray(values, np.float64), -exponent))


def root_mean_square(values: Array) -> float:
    """Compute the root of the mean of the squares; 0 of no numbers."""
    return float(find_sizes(values, None)) if values.size else 0.0


def find_sizes(values: Array, axis: Axis = 0) -> Array:
    """Find the root mean square along axes: of each entry over the neighbours, by default."""
    exponent = find_exponent(values)
    squares = divide_by_power(values, exponent) ** 2  # (V18)
    return np.asarray(np.ldexp(np.sqrt(squares.mean(axis=axis)), exponent))


def find_deviations(values: Array) -> Array:
    """Find the standard deviation of each entry over the neighbours."""
    exponent = find_exponent(values)
    return np.asarray(np.ldexp(divide_by_power(values, exponent).std(axis=0, ddof=1), exponent))


def find_factors(errors: Array, exact: Array, axis: Axis = 0) -> Array:
    """Find the factors on exact numbers that fit errors best, along axes; 0 on zeros."""
    exponent = find_exponent(errors, exact)
    left, right = (divide_by_power(each, exponent) for each in (errors, exact))
    product, power = (left * right).sum(axis=axis), (right**2).sum(axis=axis)
    with np.errstate(all="ignore"):
        return np.where(power > 0, product / power, 0.0)
