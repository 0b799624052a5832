"""A check of a reference: derivatives of the loss in NumPy, along some directions.

They are complex steps, if the loss takes complex numbers. If these fail or differ from the
reference, central differences in longdouble decide. A contradicted reference gives no verdict.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.reference.case import Truth
from bptt_verifier.reference.complex_step import STEP

ENTRIES = 12  # of each parameter, checked one by one
SECONDS = 1.0  # for more than one entry of a parameter; random signs check all entries anyway
# Steps of central differences; a kink may lie within the wide ones.
WIDE, SHORT = (2.0**-12, 2.0**-13), (2.0**-20, 2.0**-21)

Point = Mapping[str, Array]
Loss = Callable[[Point], Any]  # a scalar, or None where it cannot be computed


class Opinion(NamedTuple):
    """Autodiff's derivative along a direction, and what contradicts it, if anything does."""

    by_autodiff: str
    contradiction: str | None
    by_complex_steps: bool


def contradict_entries(
    loss: Loss, point: Point, known: Truth, seed: int, noise: float = 0.0
) -> str | None:
    """Check some entries of the reference; return a sentence if one is contradicted.

    `noise` is the error of the loss in NumPy, where its dtype does not tell.
    """
    rng, end = np.random.default_rng(seed), time.monotonic() + SECONDS
    for name, value in point.items():
        for number, i in enumerate(rng.permutation(value.size)[:ENTRIES]):
            if number and time.monotonic() > end:
                break
            entry = tuple(int(k) for k in np.unravel_index(i, value.shape))
            along = np.zeros(value.shape)
            along[entry] = 1.0
            found = compare_derivatives(loss, point, known, {name: along}, noise)
            if found.contradiction is not None:
                where = f"∂L/∂{name}{list(entry)}"
                return f"jax.grad says {found.by_autodiff} for {where}, {found.contradiction}"
            if not found.by_complex_steps:
                break  # differences are slow: one a parameter
    return None


def contradict_signs(
    loss: Loss, point: Point, known: Truth, seed: int, noise: float = 0.0
) -> str | None:
    """Check the reference along random signs; return a sentence if it is contradicted."""
    rng = np.random.default_rng([seed, 1])
    along = {name: rng.choice([-1.0, 1.0], np.shape(value)) for name, value in point.items()}
    if compare_derivatives(loss, point, known, along, noise).contradiction is None:
        return None
    # Name a single parameter if its part alone is contradicted.
    for part in (*({name: signs} for name, signs in along.items()), along):
        found = compare_derivatives(loss, point, known, part, noise)
        if found.contradiction is not None:
            where = f"along random signs in {', '.join(part)}"
            return f"jax.grad says {found.by_autodiff} {where}, {found.contradiction}"
    return None


def compare_derivatives(
    loss: Loss, point: Point, known: Truth, along: Point, noise: float = 0.0
) -> Opinion:
    """Compare the derivative of the loss in one direction with the reference.

    A sum of entries has the sum of their allowed errors, which `known` has for float64.
    """
    true = sum(float(np.sum(known.values[name] * d)) for name, d in along.items())
    allowed = sum(
        float(np.sum(known.allowed[name][d != 0] * np.abs(d[d != 0]))) for name, d in along.items()
    )
    if not np.isfinite(allowed):
        return Opinion(f"{true:.12g}", None, by_complex_steps=False)  # nothing can contradict it
    by_complex = differentiate_complex(loss, point, along)
    smallest = float(np.finfo(np.float64).smallest_normal)
    if by_complex is not None and abs(by_complex - true) <= allowed + smallest:
        return Opinion(f"{true:.12g}", None, by_complex_steps=True)
    for steps in (WIDE, SHORT):
        by_difference, uncertain = difference_centrally(loss, point, along, steps)
        uncertain += noise / steps[1]
        # Without a derivative there is no second opinion: the loss may use a function that takes
        # neither complex nor longdouble numbers.
        if not abs(by_difference - true) > uncertain + allowed:
            return Opinion(f"{true:.12g}", None, by_complex_steps=False)
    contradiction = (
        f"and central differences of the loss say {by_difference:.12g} ± {uncertain:.2g}: "
        "the reference itself is in doubt."
    )
    return Opinion(f"{true:.12g}", contradiction, by_complex_steps=False)


def differentiate_complex(loss: Loss, point: Point, along: Point) -> float | None:
    """Compute Im L(θ + isd)/s; None where the loss does not take complex numbers."""
    at = {name: value + 1j * STEP * along.get(name, 0.0) for name, value in point.items()}
    before, logging.raiseExceptions = logging.raiseExceptions, False
    try:  # `log.info("%.4f", loss)` fails for a complex number, and logging would print a traceback
        found = loss(at)
    finally:
        logging.raiseExceptions = before
    if found is None or not np.isfinite(complex(found)):
        return None
    return float(complex(found).imag / STEP)


def difference_centrally(
    loss: Loss, point: Point, along: Point, steps: tuple[float, float]
) -> tuple[float, float]:
    """Compute an extrapolated central difference and its uncertainty; NaN if the loss fails.

    It is computed in longdouble, or in float64 where the loss does not take longdouble.
    """
    for dtype in (np.longdouble, np.float64):
        found = difference_in(dtype, loss, point, along, steps)
        if np.isfinite(found).all():
            return found
    return np.nan, np.nan


def difference_in(
    dtype: Any, loss: Loss, point: Point, along: Point, steps: tuple[float, float]
) -> tuple[float, float]:
    """Compute an extrapolated central difference in one dtype, and its uncertainty."""

    def at(step: float) -> tuple[Any, float]:
        moved = {
            name: value.astype(dtype) + dtype(step) * along.get(name, 0.0)
            for name, value in point.items()
        }
        found = loss(moved)
        if found is None:
            return dtype(np.nan), np.nan
        form = np.result_type(np.asarray(found).dtype, np.float16)  # of an integer, too
        return dtype(found), float(np.finfo(form).eps)

    slopes = list[float]()
    for h in steps:
        (above, eps), (below, _) = at(h), at(-h)
        slopes.append(float((above - below) / (2 * h)))
        size = float(abs(above) + abs(below))
    wide, narrow = slopes
    return (4 * narrow - wide) / 3, abs(narrow - wide) + 64 * eps * size / steps[1]
