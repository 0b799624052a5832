"""Statistics of timings: quartiles, bootstrap intervals, exponents of growth.

SciPy's bootstrap (Efron 1979) draws rounds with replacement; 95 % of resamples lie in the interval.
Contenders of one round run seconds apart, so ratios are resampled by round: a slow machine slows
both.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from bptt_verifier.problems.problem import Array

RESAMPLES = 2000
COVERED = 0.95


class Interval(NamedTuple):
    """A number with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """The first quartile, the median and the third quartile."""
    first, median, third = np.percentile(samples, [25, 50, 75])
    return float(first), float(median), float(third)


def bootstrapped(
    statistic: Callable[..., Array], *samples: Sequence[float] | Array, paired: bool, seed: int = 0
) -> Interval:
    """A statistic of several series of samples, with its bootstrap interval.

    `statistic` takes arrays (…, n) and reduces the last axis. `paired` draws the same rounds of all
    series, which must then have the same length. Raises ValueError where a series is empty, or
    where paired ones differ in length.
    """
    series = [np.asarray(each, np.float64) for each in samples]
    lengths = [len(each) for each in series]
    if min(lengths) == 0 or (paired and len(set(lengths)) > 1):
        raise ValueError(
            f"samples: expected {'as many of each' if paired else 'some of each'}, found {lengths}"
        )
    # SciPy wants two samples at least; to draw from one, and from two that are equal, is the same.
    drawn_from = [np.repeat(each, 2) if len(each) == 1 else each for each in series]

    def along_axis(*drawn: Array, axis: int) -> Array:
        return statistic(*(np.moveaxis(each, axis, -1) for each in drawn))

    low, high = bootstrap(
        drawn_from, along_axis, paired=paired, vectorized=True, n_resamples=RESAMPLES,
        confidence_level=COVERED, method="percentile", random_state=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(float(statistic(*series)), float(low), float(high))


def median_ratio(above: Array, below: Array) -> Array:
    """The median along the last axis of the rounds' ratios above / below."""
    quotient: Array = np.median(above / below, axis=-1)
    return quotient


def ratio(baseline: Sequence[float], seconds: Sequence[float]) -> Interval:
    """The speed relative to the baseline, round by round: above 1 is faster."""
    return remember_ratio(tuple(baseline), tuple(seconds))


@cache
def remember_ratio(baseline: tuple[float, ...], seconds: tuple[float, ...]) -> Interval:
    """`ratio`, which several tables show, computed once."""
    return bootstrapped(median_ratio, baseline, seconds, paired=True)


def change(
    old: tuple[Sequence[float], Sequence[float]], new: tuple[Sequence[float], Sequence[float]]
) -> Interval:
    """The new ratio over the old one, each of (baseline, seconds), from two runs."""
    before, after = (np.divide(*pair) for pair in (old, new))

    def quotient(now: Array, then: Array) -> Array:
        found: Array = np.median(now, axis=-1) / np.median(then, axis=-1)
        return found

    return bootstrapped(quotient, after, before, paired=False)


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios: exp of the mean logarithm."""
    return float(np.exp(np.mean(np.log(values))))


def exponent(sizes: Sequence[float], samples: Sequence[Sequence[float]]) -> Interval:
    """p in time ∝ size^p: the slope of log median over log size, by least squares.

    `samples` holds the rounds of each size, which are resampled within it. Raises ValueError for
    fewer than two sizes.
    """
    if len(sizes) < 2 or len(sizes) != len(samples):
        raise ValueError(
            f"sizes: expected at least 2, and samples of each, found {len(sizes)} and "
            f"{len(samples)}"
        )
    logs = np.log(sizes)
    centred = logs - logs.mean()

    def slope(*series: Array) -> Array:
        medians = np.log(np.stack([np.median(each, axis=-1) for each in series]))
        fitted: Array = np.tensordot(centred, medians, axes=1) / (centred @ centred)
        return fitted

    return bootstrapped(slope, *samples, paired=False)
