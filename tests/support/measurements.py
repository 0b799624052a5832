"""Measurements of errors made by hand."""

from typing import Any

import numpy as np

from bptt_verifier.tolerance.projections import Measurement, Noise, Slices


def make_slices(axis: int | None, factor: Any, error: Any = None, limit: Any = 1.0) -> Slices:
    """Factors along an axis, and errors of any direction of that size, unless others are given."""
    factor = np.array(factor, np.float64)
    error = np.abs(factor) if error is None else np.array(error, np.float64)
    return Slices(axis, factor, np.full(factor.shape, limit), error, 0 * factor)


def make_measurement(
    mean: Any, *by_axis: Slices, whole: float = 0.0, limit: Any = 1.0, relative: float = 0.0
) -> Measurement:
    """Mean errors of entries, each of which may be up to `limit`, and the noise."""
    mean = np.array(mean, np.float64)
    every = (make_slices(None, [whole]), *by_axis)
    limits = np.broadcast_to(limit, mean.shape)
    return Measurement(Noise(relative, 0, 0, 0), every, mean, limits, mean)
