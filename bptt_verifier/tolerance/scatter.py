"""The scatter of a submission's errors at neighbouring points tells rounding from a mistake.

A rounding error is drawn anew when the point moves; a mistake stays. Where an error exceeds what is
allowed, the submission is asked at neighbours, and the mean of its errors is compared with their
scatter. docs/derivation.md, section 10.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bptt_verifier.tolerance.comparison import Array

NEIGHBOURS = 16
# The largest relative change of an entry. Neighbours are further away where a submission may
# compute in half precision, and still further where it does: up to 64 units in the last place, so
# that rounding in 2σ(2a) − 1, a difference that loses most of its digits, is drawn anew as well.
DISTANCE, FAR, IN_HALF = 2.0**-10, 2.0**-6, 2.0**-4
# Still 2⁸ units of float32: rounding scatters as widely there, and a mistake a 64th as much.
NEAR = 2.0**-16
# Still 2¹⁷ units of float64, where a loss that doubles a displacement 30 times is smooth.
NEARER = 2.0**-36
FALSE_ALARM = 1e-9  # probability that rounding alone is called a mistake, in one verdict
# An entry whose errors happen to be alike has at least this part of the gradient's mean scatter, in
# units of the allowed errors.
POOLED = 0.25


class Scatter(NamedTuple):
    """The absolute mean of an entry's errors at neighbours, and the mean that noise may have."""

    mean: Array
    limit: Array


def find_critical_ratio(number: int, entries: int, false_alarm: float = FALSE_ALARM) -> float:
    """Find the ratio of mean to standard deviation that `number` errors do not reach by chance.

    Student's t, two-sided, for all of `entries` together (Bonferroni).
    """
    from scipy.special import stdtrit  # noqa: PLC0415 - a right derivation needs none

    return float(-stdtrit(number - 1, false_alarm / (2 * entries)) / number**0.5)


def find_normal_ratio(entries: int, false_alarm: float = FALSE_ALARM) -> float:
    """Find how many standard deviations a normal error does not reach by chance.

    Two-sided, for all of `entries` together (Bonferroni). The deviation has to be known: of one
    that is estimated from a few errors, the probability is larger.
    """
    from scipy.special import ndtri  # noqa: PLC0415

    return float(-ndtri(false_alarm / (2 * entries)))


def measure_scatter(
    errors: Sequence[Array], allowed: Array, spacing: Array, entries: int
) -> Scatter:
    """Measure the scatter of one gradient's errors, at least two, one for each neighbour.

    `allowed` says how the rounding errors of the entries compare. `spacing` is the distance between
    the submission's numbers: a result that stays the same number at all neighbours has an error
    that does not scatter, and so has a smaller term that is lost in a sum.
    """
    samples = np.asarray(errors)
    with np.errstate(all="ignore"):
        size = np.max(np.abs(samples), axis=0)
        units = np.where((size > 1) & np.isfinite(size), size, 1.0)  # a square may overflow
        deviation = (samples / units).std(axis=0, ddof=1) * units
        relative = deviation / allowed
        known = relative[np.isfinite(relative)]
        largest = known.max(initial=0.0)  # a square may overflow
        pooled = largest * np.sqrt(np.mean((known / largest) ** 2)) if largest else 0.0
        floor = np.nan_to_num(POOLED * pooled * allowed, nan=0.0, posinf=np.inf)
        noise = np.maximum(deviation, floor)
        limit = find_critical_ratio(len(samples), entries) * noise + spacing  # (N3)
        return Scatter(np.abs((samples / units).mean(axis=0) * units), limit)


def displace(values: Array, distance: float, rng: np.random.Generator, size: float = 0.0) -> Array:
    """Move every entry by a random part of itself, at most `distance`; integers stay.

    Zeros are moved by that part of `size`. Without one they stay.
    """
    if values.dtype.kind != "f":
        return values.copy()
    parts = distance * rng.uniform(-1, 1, values.shape)
    moved = np.where(values == 0, size * parts, values * (1 + parts))
    return np.asarray(moved.astype(values.dtype))
