"""Noise of a kernel that rounding does not make in any format: docs/derivation.md, section 17.

Rounding to a coarser format inside is a step function of the arguments. Between neighbours that
differ in their last digits alone it hardly ever makes another step, so its errors hardly scatter
there. Noise that is as large there as further away has another cause.
"""

from collections.abc import Callable, Mapping

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import KernelCase, Neighbours, draw_neighbours
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.reference.pullbacks import Pullback
from bptt_verifier.tolerance.formats import find_unit
from bptt_verifier.tolerance.noise import SAFETY
from bptt_verifier.tolerance.projections import APPROXIMATE, Measurement
from bptt_verifier.tolerance.scatter import IN_HALF
from bptt_verifier.tolerance.sizes import root_mean_square

CLOSEST = 8  # roundings by which the closest neighbours are moved, at most
VISIBLE = APPROXIMATE  # noise beyond that of approximate functions
# Of roundings to a format whose unit is so many times the distance of the closest neighbours, few
# are others between them: 2⁻⁸, or 2⁻⁴ where numbers inside move by 16 times as much as the
# arguments. Their errors scatter by a quarter there.
COARSER = 2.0**8
ALIKE = 0.5  # of the noise further away, at least, is noise that no step function makes
IMITATED = 4  # neighbours at which rounding is imitated

Measured = Mapping[str, Measurement]
Measure = Callable[[float], Measured | None]


def find_excessive_noise(
    calls: KernelCalls, case: KernelCase, near: Measured, measure: Measure, seed: int
) -> dict[str, float]:
    """Find gradients with noise that no rounding makes, and how many times it exceeds the limit.

    `near` was measured at the usual neighbours, and `measure(distance)` measures at others.
    Nothing is found where an argument has 16 bits, whose last digit is a step of bfloat16 itself,
    where the operations of the stated function are unknown, and where a number inside is so large
    that another formula may lose as many digits.
    """
    noisy = [name for name, each in near.items() if is_visible(each)]
    if not noisy or case.distance == IN_HALF:
        return {}
    unit = max(find_unit(value.dtype) for value in case.point.values())
    distance = CLOSEST * unit
    closest = measure(distance)
    if closest is None:
        return {}
    noise = {name: closest[name].noise.relative for name in noisy}
    kept = [n for n in noisy if noise[n] > max(VISIBLE, ALIKE * near[n].noise.relative)]
    if not kept:
        return {}
    around = draw_neighbours(case, distance, seed)
    own = imitate_own_rounding(calls.pullback, around, case)
    limits = {n: find_limit(own[n], unit) for n in kept if n in own}
    beyond = {n: noise[n] / limit for n, limit in limits.items() if noise[n] > limit}
    if not beyond:
        return {}
    largest = min(noise[name] for name in beyond) / (SAFETY * unit)
    largest = float(2.0 ** np.floor(np.log2(largest)))  # of few values: each is compiled for
    return {
        name: times
        for name, times in beyond.items()
        if not may_lose_digits(calls.pullback, around, name, largest)
    }


def find_limit(own: float, unit: float) -> float:
    """Find the noise that rounding may make between the closest neighbours.

    `own` is that of rounding every operation of the stated function. Another formula may have the
    square of its condition number, as a variance by squares has.
    """
    return max(VISIBLE, COARSER * CLOSEST * own, SAFETY * own**2 / unit)  # (V12)


def is_visible(measured: Measurement) -> bool:
    """Tell whether a gradient that is not zero has more noise than approximate functions make."""
    return bool(np.isfinite(measured.resolution)) and measured.noise.relative > VISIBLE


def imitate_own_rounding(
    pullback: Pullback, around: Neighbours, case: KernelCase
) -> dict[str, float]:
    """Imitate rounding in the format of the arguments, relative to each gradient."""
    first = around.points[:IMITATED], around.cotangents[:IMITATED]
    coarsest = max((value.dtype for value in case.point.values()), key=find_unit)
    errors = attempt(pullback.imitate_rounding, *first, coarsest)
    exact = attempt(pullback.pull_back, *first)
    if isinstance(errors, Failure) or isinstance(exact, Failure):
        return {}
    return {
        name: root_mean_square(errors.gradients[name]) / size
        for name, g in exact.gradients.items()
        if (size := root_mean_square(g)) > 0 and np.isfinite(errors.gradients[name]).all()
    }


def may_lose_digits(pullback: Pullback, around: Neighbours, name: str, largest: float) -> bool:
    """Tell whether a gradient depends on a number beyond `largest`, in some formula.

    Two such numbers may be subtracted there. True where the operations are unknown.
    """
    first = around.points[:1], around.cotangents[:1]
    found = attempt(pullback.find_overflows, *first, largest)
    return isinstance(found, Failure) or bool(found.gradients[name].any())
