"""Exact identities: a claim on a polynomial loss, decided without rounding.

The claim and the derivative are polynomials in the parameters. At integers up to `LARGEST`, with
integer data and a number of steps that is a power of two, every operation on float64 is exact: in
the loss all values are multiples of 2⁻² below 2⁴⁶, and in the gradients of 2⁻¹⁰ below 2⁴³, so that
none needs more than 53 bits. Two different polynomials of degree d are equal at
a random point of a set of n values for each parameter with probability d/n at most (Schwartz 1980,
Zippel 1979).
"""

from fractions import Fraction
from math import log10
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.published import DocketCase
from bptt_verifier.tolerance.comparison import find_symbol

LARGEST, POINTS = 5, 120
# The derivative at 0 of a polynomial of degree 6 at most, from its values at −3 … 3, times 60.
WEIGHTS = {-3: -1, -2: 9, -1: -45, 1: 45, 2: -9, 3: 1}


class ExactComparison(NamedTuple):
    """The outcome: the points tried, log₁₀ of the chance of an error, the first refutation."""

    points: int
    log10_error: float
    refuted: str | None = None


def differentiate_exactly(
    loss: Any, params: dict[str, Any], name: str, entry: tuple[int, ...]
) -> Fraction:
    """Differentiate a polynomial loss by one entry, in which its degree is 6 at most."""
    total = Fraction(0)
    for step, weight in WEIGHTS.items():
        moved = params[name].copy()
        moved[entry] += step
        total += weight * Fraction(float(loss(params | {name: moved})))
    return total / 60


def certify_identity(case: DocketCase, points: int = POINTS, seed: int = 0) -> ExactComparison:
    """Compare a claim with the derivative at random integer points, exactly.

    The module's data `x` and `y` are integers while this runs.
    """
    rng, module = np.random.default_rng(seed), case.module
    data = module.x, module.y
    chance = (case.entry.degree - 1) / (2 * LARGEST + 1)
    try:
        module.x, module.y = (rng.choice([-2.0, -1.0, 1.0, 2.0], each.shape) for each in data)
        for point in range(points):
            params = {
                name: rng.integers(-LARGEST, LARGEST + 1, value.shape).astype(float)
                for name, value in module.params.items()
            }
            claimed = module.gradients(params)
            for name, value in params.items():
                for entry in np.ndindex(value.shape):
                    true = differentiate_exactly(module.loss, params, name, entry)
                    found = Fraction(float(claimed[name][entry]))
                    if found != true:
                        where = f"{find_symbol(name)}[{', '.join(map(str, entry))}]"
                        refuted = f"at an integer point {where} is {true}, the claim gives {found}"
                        return ExactComparison(point + 1, 0.0, refuted)
    finally:
        module.x, module.y = data
    return ExactComparison(points, points * log10(chance))
