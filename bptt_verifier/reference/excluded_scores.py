"""Arguments that exclude scores: by −∞, or by a large negative number that stands for it.

docs/derivation.md, section 17.
"""

from typing import Any

import numpy as np

from bptt_verifier.problems.kernel_draws import find_excluded
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt

# Scores lose digits when a large number is added. Where all scores of a softmax are excluded, that
# changes an output by ROUNDING times the number, or by nothing beyond DIGITLESS: no digit is left.
ROUNDING, DIGITLESS = 2.0**-49, 2.0**42


def find_excluding(pullback: Any) -> frozenset[str]:
    """Find the arguments whose smallest number stands for −∞: twice the number gives no change.

    `pullback` computes the outputs of the stated function in float64.
    """
    leaves = {n: value.astype(np.float64) for n, value in pullback.arguments.leaves.items()}
    places = {name: find_excluded(value) for name, value in leaves.items()}
    names = [name for name, at in places.items() if at.any()]
    if not names:
        return frozenset()
    with np.errstate(over="ignore"):  # twice the smallest number of float64 is −∞
        doubled = [leaves | {n: np.where(places[n], 2 * leaves[n], leaves[n])} for n in names]
    nothing = {name: np.zeros(each.shape) for name, each in pullback.outputs.items()}
    points = [leaves, *doubled]
    found = attempt(pullback.pull_back, points, [nothing] * len(points))
    if isinstance(found, Failure):
        return frozenset()
    outputs = found.outputs.values()
    lowest = [-float(leaves[name].min()) for name in names]
    return frozenset(
        name
        for k, (name, size) in enumerate(zip(names, lowest, strict=True), 1)
        if all(is_same(each[0], each[k], size) for each in outputs)
    )


def is_same(one: Array, other: Array, lowest: float) -> bool:
    """Tell whether two outputs are equal to what the rounding of scores beside −lowest changes."""
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
    allowed = ROUNDING * lowest * largest if lowest < DIGITLESS else 0.0
    return np.allclose(one, other, rtol=0, atol=allowed, equal_nan=True)
