"""Draws of a kernel's arguments and cotangents, and their neighbours, in the dtypes given.

Everything is rounded to its dtype when it is drawn: the reference is computed at exactly these
numbers. docs/derivation.md, section 17.
"""

from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array

SPREAD = 0.3  # relative standard deviation of the values drawn near those given
FURTHEST = 2.5  # in standard deviations: no drawn value changes its sign


# A number that is added to scores in the place of −∞: its exponential is zero in every format, also
# beside scores of hundreds. It is the smallest of its array, and the others are far from it.
EXCLUDED, FAR = -1000.0, 100.0


def is_mask(values: Array) -> bool:
    """Tell whether an array holds zeros and one other number, as masks do, dropout's included."""
    distinct = np.unique(values.astype(np.float64))
    return len(distinct) == 2 and bool((distinct == 0).any())


def is_additive_mask(values: Array) -> bool:
    """Tell whether an array holds zeros and a number that stands for −∞, or −∞ itself."""
    return is_mask(values) and bool(find_excluded(values).any())


def find_excluded(values: Array, numbers: bool = True) -> Array:
    """Find the entries that are −∞, or `numbers` that may stand for it: scores that are masked."""
    wide = values.astype(np.float64)
    if not numbers:
        return np.asarray(wide == -np.inf)
    lowest = wide.min(initial=np.inf)
    at: Array = wide == lowest
    largest = float(np.abs(wide[~at]).max(initial=0.0))
    apart = not at.all() and lowest <= EXCLUDED and largest * FAR <= -lowest
    return at if apart else np.zeros_like(at)


def draw_near(given: Array, rng: np.random.Generator, excludes: bool = False) -> Array:
    """Draw values near those given, which keep their signs; a mask stays as it is.

    Values that all lie between 0 and 1, such as decays, stay there. Zeros are drawn at the size of
    the others, or with standard deviation 0.5. −∞ stays, and what may stand for it if the array
    `excludes` scores.
    """
    if is_mask(given):
        return given.copy()
    values, excluded = given.astype(np.float64), find_excluded(given, excludes)
    z = SPREAD * np.clip(rng.normal(size=values.shape), -FURTHEST, FURTHEST)
    size = find_size(values[~excluded]) or 0.5 / SPREAD
    if values.size and 0 < values.min() <= values.max() < 1:
        odds = values / (1 - values) * np.exp(z)
        drawn = odds / (1 + odds)
    else:
        drawn = np.where(values == 0, size * z, values * (1 + z))
    return np.where(excluded, given, drawn.astype(given.dtype))


def find_size(values: Array) -> float:
    """Find the root mean square of some values, whose squares may leave float64."""
    most = float(np.max(np.abs(values), initial=0.0))
    return most * float(np.sqrt(np.mean((values / most) ** 2))) if 0 < most < np.inf else most


def draw_cotangents(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Array:
    """Draw cotangents: normal, of standard deviation 1, and away from zero."""
    z = rng.normal(size=shape)
    return np.asarray((z + np.sign(z) / 6).astype(dtype))


def displace(
    values: Array, distance: float, rng: np.random.Generator, excludes: bool = False
) -> Array:
    """Move every entry by a random part of itself, at most `distance`; a mask stays as it is.

    Zeros move by such a part of the array's size: a kink at zero is then off the point. −∞
    stays, and what may stand for it if the array `excludes` scores.
    """
    if is_mask(values):
        return values.copy()
    wide, excluded = values.astype(np.float64), find_excluded(values, excludes)
    size = find_size(wide[~excluded])
    wide = np.where(excluded, 0.0, wide)
    moved = np.where(wide == 0, size, wide) * distance * rng.uniform(-1, 1, wide.shape)
    return np.where(excluded, values, (wide + moved).astype(values.dtype))
