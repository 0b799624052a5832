"""Rounding inside a kernel, as its own errors show it: docs/derivation.md, section 17.

A kernel that rounds its results alone may have a mistake where rounding every operation would hide
one. Factors, which a mistake makes, are told from rounding, which they cannot make.
"""

from typing import Any

import numpy as np
from scipy.special import bdtrc

from bptt_verifier.tolerance.comparison import Array
from bptt_verifier.tolerance.formats import find_smallest, find_unit
from bptt_verifier.tolerance.projections import find_common_size
from bptt_verifier.tolerance.scatter import find_normal_ratio
from bptt_verifier.tolerance.sizes import find_sizes

OF_RESULTS = 2  # roundings of a result by a kernel that rounds its results alone
# Probability that a kernel that rounds its results alone is thought to round inside. The mistake
# that this would hide is at most as large as rounding every operation. The level is a choice: at
# the distance of 16 bits, four entries of four decide at any from 1.0e-7 to 5.6e-6.
EXCUSED = 1e-6


def find_share_inside(
    errors: Array, exact: Array, imitated: Array, tests: int, dtype: Any, distance: float
) -> float:
    """Find the share of the imitated errors that a submission shows; 0 if it shows none.

    `errors` and `exact` (K, …) are of neighbours at a `distance`, and `imitated` (V, M, …) are the
    errors of rounding every operation.
    """
    return choose_share(list_shares(errors, exact, imitated, tests, dtype), distance)


def list_shares(errors: Array, exact: Array, imitated: Array, tests: int, dtype: Any) -> Array:
    """List the share of the imitated errors that each entry shows which is asked.

    Asked are the legible entries whose imitated error exceeds the roundings of a result.
    """
    sizes, exact_sizes = find_common_size(imitated), find_sizes(exact)
    rounded = find_unit(dtype) * exact_sizes + find_smallest(dtype)
    legible = find_normal_ratio(tests) * sizes < exact_sizes
    asked = legible & (sizes >= OF_RESULTS * rounded)
    ranges = find_ranges(errors[:, asked], exact[:, asked], dtype)
    # (V11): uniform errors have a range of 2 √3 times their root mean square.
    shares: Array = ranges * exact_sizes[asked] / (2 * 3**0.5 * sizes[asked])
    return shares


def choose_share(shares: Array, distance: float) -> float:
    """Choose the share that enough of the entries show which were asked, of one case or several.

    Where the results alone are rounded and a mistake is a factor, which may be another one beyond a
    threshold, it is 0 but for a probability of `EXCUSED`.
    """
    needed = find_critical_count(len(shares), find_chance(distance))
    return 0.0 if needed > len(shares) else float(min(1.0, np.sort(shares)[-needed]))


def find_chance(distance: float) -> float:
    """Find how often the neighbours of an entry lie on both sides of two thresholds, at most."""
    return min(1.0, 2 * distance / (1 - distance)) ** 2


def find_critical_count(number: int, chance: float, probability: float = EXCUSED) -> int:
    """Find how many of a number of independent events do not happen by chance.

    One more than the number, if even all of them may.
    """
    counts = np.arange(1, number + 1)
    rare = bdtrc(counts - 1, number, chance) <= probability
    return int(np.argmax(rare)) + 1 if rare.any() else number + 1


def find_ranges(errors: Array, exact: Array, dtype: Any) -> Array:
    """Find the range of submitted ÷ exact numbers in each entry; 0 if two factors explain them.

    A factor c with roundings of the results explains ratios from c (1 − 2u) to c (1 + 2u).
    """
    unit, smallest = find_unit(dtype), find_smallest(dtype)
    with np.errstate(all="ignore"):
        ratios = np.sort((exact + errors) / exact, axis=0)
        lost = OF_RESULTS * smallest / np.abs(exact).min(axis=0)

        def find_end(start: Array) -> Array:
            width = 2 * OF_RESULTS * unit * (1 + 2 * OF_RESULTS * unit)
            return np.asarray(start + width * np.abs(start) + 2 * lost)

        second = np.where(ratios > find_end(ratios[0]), ratios, np.inf).min(axis=0)
        beyond = np.isfinite(second) & (ratios[-1] > find_end(second))
        return np.where(beyond, np.nan_to_num(ratios[-1] - ratios[0]), 0.0)
