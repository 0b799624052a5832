"""Gradients of a loss that nothing can differentiate: central differences, extrapolated.

Source: Ridders 1982, "Accurate computation of F'(x) and F'(x) F''(x)": Richardson's extrapolation,
whose error is estimated by the distances of the extrapolated values from each other.
"""

from collections.abc import Callable, Mapping
from math import comb
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.tolerance.noise import SAFETY

FIRST = 2.0**-5  # the largest step, relative to the size of the parameter
STEPS = 5  # each half of the one before
NEAR = 2.0**-36, 2.0**-24, 2.0**-12  # relative distances of points that show the loss's noise
SPACINGS = 2.0**-6, 2.0**-9  # relative, of the points that show jumps of the loss
POINTS, LINES = 65, 2  # on each line, and lines
LOW, HIGH = 4, 8  # orders of differences: those of a smooth loss are smaller, the higher they are
DECIMALS, DIGITS = 8, 12  # of a loss that is rounded, at most: those of float64 have several more
FLAT, LEVELS = 8, 3  # of eleven values that a step of NEAR leaves as they are, and other ones
ORDER = 5  # of the differences between them
CARRIED = 2.0**-56  # relative noise below which a loss computes in longdouble throughout

Point = Mapping[str, Array]
Loss = Callable[[Point], Any]  # a number; raises where it cannot be computed


class Differences(NamedTuple):
    """The loss at a point, its gradient, and the measured error of each entry."""

    loss: float
    values: dict[str, Array]
    errors: dict[str, Array]


def find_dtype(loss: Loss, point: Point) -> Any:
    """Find the finest dtype in which the loss computes: longdouble, or float64."""
    if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps:
        try:
            value, noise = measure_noise(loss, point, np.longdouble)
        except Exception:  # it takes no longdouble
            return np.float64
        if np.isfinite(noise) and noise <= CARRIED * abs(value):
            return np.longdouble
    return np.float64


def move(point: Point, along: Point, step: Any) -> dict[str, Array]:
    """Move a point by a relative step along a direction; zeros move as if they were ones."""
    return {
        name: value + step * along[name] * np.where(value == 0, 1.0, value).astype(value.dtype)
        for name, value in point.items()
    }


def measure_noise(loss: Loss, point: Point, dtype: Any) -> tuple[Any, float]:
    """Measure the noise of the loss at a point; return the loss, too.

    The points of each row are equally spaced, and so near that differences of a smooth loss of this
    order are noise. A coarse loss shows its noise only between points that are further apart.
    """
    rng = np.random.default_rng(0)
    along = {name: rng.choice([-1.0, 1.0], value.shape) for name, value in point.items()}

    wide = {name: value.astype(dtype) for name, value in point.items()}

    def at(distance: float) -> Any:
        return dtype(loss(move(wide, along, dtype(distance))))

    value = at(0.0)
    largest = np.finfo(dtype).eps * abs(value)
    for distance in NEAR:
        row = np.array([value, *(at(k * distance) for k in range(1, 2 * ORDER))])
        high = np.diff(row, ORDER)
        largest = max(largest, np.sqrt(np.mean(high**2) / comb(2 * ORDER, ORDER)))  # (N6)
    return value, float(largest)


def differentiate(loss: Loss, point: Point, dtype: Any) -> Differences:
    """Differentiate a loss entry by entry. The calls are 2 · STEPS for each entry."""
    wide = {name: value.astype(dtype) for name, value in point.items()}
    value, noise = measure_noise(loss, point, dtype)
    values, errors = {}, {}
    for name, own in wide.items():
        size = float(np.sqrt(np.mean(own**2))) or 1.0
        values[name], errors[name] = np.zeros(own.shape), np.zeros(own.shape)
        for entry in np.ndindex(own.shape):

            def at(step: Any, name: str = name, entry: Any = entry) -> Any:
                moved = {n: v.copy() for n, v in wide.items()}
                moved[name][entry] += step
                return dtype(loss(moved))

            step = dtype(FIRST * max(size, abs(float(own[entry]))))
            values[name][entry], errors[name][entry] = extrapolate(at, step, noise)
    return Differences(float(value), values, errors)


def extrapolate(at: Callable[[Any], Any], step: Any, noise: float) -> tuple[float, float]:
    """Extrapolate central differences to step 0; return the slope and its allowed error."""
    best, least = np.nan, np.inf
    before: list[Any] = []
    for _ in range(STEPS):
        row = [(at(step) - at(-step)) / (2 * step)]
        for order, coarser in enumerate(before, 1):
            row.append(row[-1] + (row[-1] - coarser) / (4**order - 1))  # (N5)
        for order in range(1, len(row)):
            apart = max(abs(row[order] - row[order - 1]), abs(row[order] - before[order - 1]))
            error = float(apart + noise / step)
            if error < least:
                best, least = float(row[order]), error
        before, step = row, step / 2
    return best, SAFETY * least


def is_rounded(loss: Loss, point: Point) -> bool:
    """Tell whether a loss is rounded: then small steps change nothing, or too much.

    Its values on a line through the point have few decimals, all of them, which others have by
    chance in one of 10⁴ cases; or most do not change nearby, and those are not all equal. A loss
    that is flat where no unit is active, as a hinge is, has one value there.
    """
    rng = np.random.default_rng(1)
    along = {n: np.asarray(rng.uniform(-1.0, 1.0, v.shape)) for n, v in point.items()}
    steps = FIRST * np.arange(-ORDER, ORDER + 1)
    rows = [[loss(move(point, along, step)) for step in row] for row in (steps, steps + NEAR[-1])]
    values, nearby = np.array(rows, float)
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        return False
    whole = np.log10(np.maximum(1.0, np.abs(values))).astype(int)
    if all(v == round(v, min(DECIMALS, DIGITS - n)) for v, n in zip(values, whole, strict=True)):
        return True
    flat = values[values == nearby]
    return len(flat) >= FLAT and len(np.unique(flat)) >= LEVELS


def is_rough(loss: Loss, point: Point) -> bool:
    """Tell whether a loss jumps, or bends, on some line through a point beyond its rounding.

    So does one with a solver in it that a tolerance ends, at another step from one point to the
    next. Differences of a smooth loss are smaller, the higher their order is; those of a jump grow.
    """
    rng = np.random.default_rng(2)
    for spacing in SPACINGS * LINES:
        along = {n: np.asarray(rng.uniform(-1.0, 1.0, v.shape)) for n, v in point.items()}
        steps = spacing * np.arange(-(POINTS // 2), POINTS // 2 + 1)
        row = [float(loss(move(point, along, step))) for step in steps]
        low, high = (np.max(np.abs(np.diff(row, order))) for order in (LOW, HIGH))
        rounding = comb(2 * HIGH, HIGH) * np.finfo(np.float64).eps * np.max(np.abs(row))
        if high >= low and high > rounding:
            return True
    return False
