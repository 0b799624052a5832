"""The scatter of a submission's errors at neighbouring points tells rounding from a mistake.

A rounding error is drawn anew when the point moves; a mistake stays. Where an error exceeds what is
allowed, the submission is asked at neighbours, and the mean of its errors is compared with their
scatter. docs/derivation.md, section 10.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from bptt_verifier.tolerance.comparison import Array

NEIGHBOURS = 16
DISTANCE = 2.0**-6  # the largest relative change of an entry; 16 roundoffs of half precision
FALSE_ALARM = 1e-9  # probability that rounding alone is called a mistake, in one verdict
# An entry whose errors happen to be alike has at least this part of the gradient's mean scatter.
POOLED = 0.25


class Scatter(NamedTuple):
    """The absolute mean of an entry's errors at neighbours, and the mean that noise may have."""

    mean: Array
    limit: Array


def find_critical_ratio(number: int, entries: int, false_alarm: float = FALSE_ALARM) -> float:
    """Find the ratio of mean to standard deviation that `number` errors do not reach by chance.

    Student's t, two-sided, for all of `entries` together (Bonferroni).
    """
    return float(-stdtrit(number - 1, false_alarm / (2 * entries)) / number**0.5)


def measure_scatter(errors: Sequence[Array], spacing: Array, entries: int) -> Scatter:
    """Measure the scatter of one gradient's errors, at least two, one for each neighbour.

    `spacing` is the distance between the submission's numbers there: a result that stays the same
    number at all neighbours has an error that does not scatter.
    """
    samples = np.asarray(errors)
    with np.errstate(all="ignore"):
        deviation = samples.std(axis=0, ddof=1)
        pooled = np.sqrt(np.mean(deviation**2))
        noise = np.maximum(deviation, POOLED * pooled)
        limit = find_critical_ratio(len(samples), entries) * noise + spacing  # (N3)
        return Scatter(np.abs(samples.mean(axis=0)), limit)


def displace(values: Array, rng: np.random.Generator) -> Array:
    """Move every entry by a random part of itself; zeros and integers stay."""
    if values.dtype.kind != "f":
        return values.copy()
    moved = values * (1 + DISTANCE * rng.uniform(-1, 1, values.shape))
    return np.asarray(moved.astype(values.dtype))
