"""Inner products of a forward mode and a pull-back: docs/derivation.md, section 18, (V6), (V7)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.tolerance.comparison import Array
from bptt_verifier.tolerance.formats import find_smallest, find_unit, is_half
from bptt_verifier.tolerance.projections import allow_bias
from bptt_verifier.tolerance.scatter import find_critical_ratio
from bptt_verifier.tolerance.sizes import root_mean_square

RESULTS = 2.0  # units of noise, in 16 bits, up to which results alone are rounded
LARGEST_NOISE = 2.0**-4  # what exceeds it is no rounding of a linear function


class Pairing(NamedTuple):
    """⟨J v, w⟩ and ⟨v, Jᵀ w⟩ at the first neighbour, their mean difference, and what is allowed."""

    forward: float
    backward: float
    difference: float
    allowed: float
    size: float

    @property
    def wrong(self) -> bool:
        """True if rounding does not explain the difference."""
        return not self.difference <= self.allowed

    @property
    def resolution(self) -> float:
        """The relative error of either side that would have been seen."""
        return self.allowed / self.size if self.size > 0 else np.inf


def measure_additivity(whole: Mapping[str, Array], *parts: Mapping[str, Array]) -> float:
    """Measure the rounding noise of a linear function: of its value for a sum of two parts."""
    noises = [0.0]
    for name, value in whole.items():
        left, right = (part[name].astype(np.float64) for part in parts)
        wide = value.astype(np.float64)
        size = root_mean_square(wide)
        noises += [root_mean_square(wide - left - right) / size] if size > 0 else []  # (V8)
    return min(max(noises), LARGEST_NOISE)


def pair(
    forward: tuple[Array, Array], backward: tuple[Array, Array], noise: float, tests: int
) -> Pairing:
    """Compare w · (J v) with v · (Jᵀ w), both stacked over the neighbours on the first axis.

    Each pair holds the computed array and the one that it is multiplied by. `noise` is the relative
    rounding error of the computed ones, `tests` the number of comparisons of the verdict.
    """
    dtypes = [each.dtype for each in (*forward, *backward)]
    dtype: Any = max(dtypes, key=find_unit)
    products = [
        (left.astype(np.float64) * right.astype(np.float64)).reshape(len(left), -1)
        for left, right in (forward, backward)
    ]
    sides = [each.sum(axis=1) for each in products]
    d = sides[0] - sides[1]  # (V6)
    both = np.concatenate(products, axis=1)
    total, spread = float(np.abs(both).sum(axis=1).mean()), float(d.std(ddof=1))
    size = float(np.abs(sides).mean())
    alike = float(allow_bias(noise, dtype)) * total
    if is_half(dtype) and noise <= RESULTS * find_unit(dtype):
        alike = min(alike, 2 * find_unit(dtype) * size)
    largest = max(float(np.abs(each[1].astype(np.float64)).max()) for each in (forward, backward))
    lost = 2 * both.shape[1] * find_smallest(dtype) * largest
    # (V7)
    allowed = find_critical_ratio(len(d), tests) * spread + alike + lost
    return Pairing(
        float(sides[0][0]), float(sides[1][0]), abs(float(d.mean())), float(allowed), size
    )
