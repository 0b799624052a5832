"""Mistakes in a kernel's gradient, told from its own rounding: docs/derivation.md, section 17.

The errors at neighbouring points are projected on the exact gradient, in each slice of it. Rounding
averages out over the entries of a slice and over the neighbours; a mistake does not.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.tolerance.bounds import ELEMENTARY
from bptt_verifier.tolerance.comparison import Array
from bptt_verifier.tolerance.formats import find_smallest, find_unit, is_half, round_once
from bptt_verifier.tolerance.noise import SAFETY
from bptt_verifier.tolerance.scatter import POOLED, find_critical_ratio, find_normal_ratio
from bptt_verifier.tolerance.sizes import (
    divide_by_power,
    find_deviations,
    find_exponent,
    find_factors,
    find_sizes,
    root_mean_square,
)

COARSE = 16  # noise of so many units is that of a coarser format inside
APPROXIMATE = 2.0**-11  # relative errors of functions such as tanh on graphics processors
LOST = 2  # units of the largest entry below which an entry may be lost beside it
UNMOVED = 32  # units that an entry has to have so that neighbours draw its last one anew
# Two roundings of terms to a spacing s err by up to s together. What is left of a number g is a
# multiple of s: nothing, or at least s, and then at least g / 2.
KEPT = 0.5
DRAWN_ANEW = 4  # times the scatter near the point is that of rounding in a coarser format
ONE_SIDED = 8  # a coarser format inside may be truncated: its bias is up to so many times its noise


class Noise(NamedTuple):
    """The scattering part of a kernel's errors, relative to the exact gradient.

    `relative` is its root mean square; `unit` the unit roundoff of the gradient's dtype, and `bias`
    the relative error alike at all neighbours that rounding may have. `of_rounding` is the error
    relative to that of rounding the exact gradient once.
    """

    relative: float
    unit: float
    bias: float
    of_rounding: float


class Slices(NamedTuple):
    """The factors of the error on the exact gradient in the slices along one axis.

    `axis` is None for the whole gradient. `factor` is the mean over the neighbours, `limit` what
    rounding may give; both are infinite or zero where the exact gradient is zero. `error` is the
    size of the mean errors relative to the slice, whatever their direction, and `noise` that of
    their scatter.
    """

    axis: int | None
    factor: Array
    limit: Array
    error: Array
    noise: Array

    @property
    def wrong(self) -> Array:
        """The slices whose factor rounding does not explain."""
        found: Array = np.abs(self.factor) > self.limit
        return found


class Measurement(NamedTuple):
    """Errors of one gradient at the neighbours of one point: noise, slices and entries.

    `mean` and `limit` are of each entry: its mean error, and what rounding may give. `visible` is
    the smallest error of this entry alone that would have been seen, in it or in a slice with it.
    `explained` tells whether an error is rounding only because every operation may have been
    rounded.
    """

    noise: Noise
    slices: tuple[Slices, ...]
    mean: Array
    limit: Array
    visible: Array
    explained: bool = False

    @property
    def wrong_entries(self) -> Array:
        """The entries whose mean error rounding does not explain."""
        found: Array = np.abs(self.mean) > self.limit
        return found

    @property
    def wrong(self) -> bool:
        """True if any slice or entry is wrong."""
        return bool(self.wrong_entries.any() or any(each.wrong.any() for each in self.slices))

    @property
    def resolution(self) -> float:
        """The relative error of the whole gradient that would have been seen."""
        return float(self.slices[0].limit[0])

    @property
    def excess(self) -> float:
        """The largest error of an entry or a slice in units of its limit."""
        with np.errstate(all="ignore"):
            ratios = [np.abs(self.mean) / self.limit]
            ratios += [np.abs(each.factor) / each.limit for each in self.slices]
        return max(float(np.nan_to_num(ratio).max(initial=0.0)) for ratio in ratios)


class Explained(NamedTuple):
    """What rounding every operation of the stated function explains of a submission's errors.

    `alike` (V, M, …) are errors that are the same at all of M neighbours, in V samples. `lost` is
    the error of each entry that may have lost all its digits, and 0 for the others.
    """

    alike: Array
    lost: Array


def measure(
    errors: Array,
    exact: Array,
    dtype: Any,
    tests: int,
    uncertainty: Any = 0.0,
    near: Measurement | None = None,
    imitated: Array | None = None,
    share: float | None = None,
    terms: float | None = None,
) -> Measurement:
    """Measure the errors (K, …) of a gradient at K neighbours, where it is `exact` (K, …).

    `dtype` is that of the kernel's gradient, and `tests` the number of all slices and entries of
    the verdict. `uncertainty` (K, …) is the size of the rounding errors in `exact`: a slice that
    is zero to rounding is not projected on. `near` are the errors at nearer neighbours: rounding
    scatters there as well, and a mistake that changes with the point does not. `imitated` (V, M, …)
    are the errors of the stated function's own pull-back at the first M neighbours with every
    operation rounded, in V samples, in each of which an operation errs alike at all neighbours.
    The submission makes a `share` of them, by default the one that fits its errors. Small entries
    may be lost beside `terms` of a formula that cancels in them.
    """
    precise = find_precise(errors, exact, dtype)
    noise = measure_noise(errors, exact, dtype, near, precise)
    smallest = find_smallest(dtype)
    ratio = find_critical_ratio(len(errors), tests)
    doubt = SAFETY * np.broadcast_to(uncertainty, exact.shape)
    explained = Explained(np.zeros((1, 1, *exact.shape[1:])), np.zeros(exact.shape[1:]))
    if imitated is not None:
        times = find_normal_ratio(tests)
        explained = explain_errors(errors, exact, imitated, times, dtype, share)
    if terms is not None:
        lost = allow_loss(exact, LOST * float(allow_bias(0.0, dtype)) * terms)
        explained = explained._replace(lost=np.maximum(explained.lost, lost))
    slices = tuple(measure_slices(errors, exact, dtype, doubt, ratio, near, explained))
    mean, deviation = errors.mean(axis=0), find_deviations(errors)
    largest = float(np.abs(exact).max(initial=0.0))
    floor = POOLED * root_mean_square(deviation[precise] if precise.any() else deviation)
    # (V5)
    bias = np.maximum(2 * noise.bias * largest, find_common_size(explained.alike))
    bias = np.maximum(bias, explained.lost)
    limit = ratio * np.maximum(deviation, floor) + bias + smallest
    limit += root_mean_square(doubt)
    return Measurement(noise, slices, mean, limit, find_visible(exact, limit, slices))


def find_visible(exact: Array, limit: Array, slices: Sequence[Slices]) -> Array:
    """Find the smallest error of each entry alone that would be seen.

    It exceeds the limit of the entry, or its projection exceeds that of a slice.
    """
    size, exponent = find_sizes(exact), find_exponent(exact)
    relative, visible = divide_by_power(size, exponent), limit
    power = relative**2
    for each in slices:
        others = tuple(i for i in range(power.ndim) if each.axis is None or i != each.axis)
        whole = power.sum(axis=others, keepdims=True)
        with np.errstate(all="ignore"):
            projected = np.ldexp(each.limit.reshape(whole.shape) * whole / relative, exponent)
        visible = np.fmin(visible, projected)
    return visible


def measure_noise(
    errors: Array, exact: Array, dtype: Any, near: Measurement | None, precise: Array
) -> Noise:
    """Measure the part of the errors that scatters between neighbours.

    The bias that it allows is that of the `precise` entries alone, if there are any.
    """
    size, factor = root_mean_square(exact), find_factors(errors, exact, None)
    relative = root_mean_square(scatter_around(errors, factor, exact)) / size if size > 0 else 0.0
    rounding = root_mean_square(round_once(exact, dtype) - exact)
    total = root_mean_square(errors)
    of_others = relative
    if precise.any():
        of_others = root_mean_square(scatter_alone(errors, exact)[precise]) / size
    bias = allow_bias(
        of_others if near is None else limit_noise(of_others, near.noise.relative), dtype
    )
    return Noise(relative, find_unit(dtype), bias, total / rounding if rounding else 0.0)


def scatter_alone(errors: Array, exact: Array) -> Array:
    """Compute the scatter of each entry's errors, or of what a factor of its own leaves of them."""
    factor = find_factors(errors, exact)
    parts = (scatter_around(errors, each, exact) for each in (0.0, factor))
    return np.asarray(np.minimum(*map(find_sizes, parts)))


def find_precise(errors: Array, exact: Array, dtype: Any) -> Array:
    """Find the entries that scatter as in the dtype, if they are most of those that are not zero.

    A coarser format inside makes all entries scatter that depend on it, by its own unit or by the
    distance of the neighbours, so that the others tell what is left of it: a mistake on a few
    entries may scatter as well, and is no noise. No entry is precise where most are not, and none
    in 16 bits.
    """
    size, own = find_sizes(exact), scatter_alone(errors, exact)
    precise: Array = (own <= COARSE * find_unit(dtype) * size) & (size > 0)
    precise &= not is_half(dtype)
    most = 2 * np.count_nonzero(precise) > np.count_nonzero(size)  # (V13)
    return precise if most else np.zeros_like(precise)


def find_kept(errors: Array, exact: Array, dtype: Any) -> Array:
    """Find the entries that follow the exact gradient in proportion, and have lost no digits.

    None in 16 bits. An entry that is lost, with the factor −1 on its error, is in proportion too.
    """
    factor, size = find_factors(errors, exact), find_sizes(exact)
    scatter = find_sizes(scatter_around(errors, factor, exact))
    small = scatter <= COARSE * find_unit(dtype) * size
    kept: Array = small & (size > 0) & (np.abs(1 + factor) >= KEPT)
    return kept & (not is_half(dtype))


def allow_loss(exact: Array, least: float) -> Array:
    """Allow entries that are smaller than a number to be lost whole."""
    size = find_sizes(exact)
    lost: Array = np.where(size < least, least, 0.0)
    return lost


def limit_noise(noise: Any, near: Any) -> Any:
    """Limit the noise further away by that near the point, of which it is at most a few times.

    The errors of approximate functions are smooth near the point and scatter further away alone.
    """
    return np.minimum(noise, np.maximum(DRAWN_ANEW * near, APPROXIMATE))


def scatter_around(errors: Array, factor: Any, exact: Array) -> Array:
    """Compute the part of the errors that scatters, without what a factor makes of a mistake."""
    left = errors - factor * exact
    scatter: Array = (left - left.mean(axis=0)) * (len(left) / (len(left) - 1)) ** 0.5
    return scatter


def allow_bias(relative: Any, dtype: Any) -> Any:
    """Allow for rounding errors that are alike at all neighbours, relative to the gradient."""
    unit = find_unit(dtype)
    least = unit if is_half(dtype) else ELEMENTARY * unit
    coarse = (relative > COARSE * unit) & (not is_half(dtype))
    times = np.where(coarse, ONE_SIDED, 1)
    return np.maximum(least, times * relative)  # (V4)


def find_common_size(samples: Array) -> Array:
    """Find the root mean square, over samples, of the means over neighbours."""
    return find_sizes(samples.mean(axis=1))


def explain_errors(
    errors: Array, exact: Array, imitated: Array, times: float, dtype: Any, known: float | None
) -> Explained:
    """Find what imitated errors, so many `times`, explain of a submission's.

    It makes the share of them that is `known`, or else the one that fits its errors.

    An entry is legible if `times` its imitated error is smaller than the entry. An entry is
    precise if its errors are a factor, common to the legible entries, and two roundings of the
    result; if no entry is legible, the factor is common to all, and a lost gradient is not precise.

    - A legible entry has errors alike at all neighbours: a share of the imitated ones, or none if
      all legible entries are precise.
    - An illegible entry that is precise, or follows the exact gradient, has no further errors.
    - Any other entry may be lost: it may err by `times` its imitated error.

    The deviation is that of a few samples, so `times` it is an estimate, not a bound.
    """
    # (V9)
    hiding, size = times * find_common_size(imitated), find_sizes(exact)
    legible, share = np.asarray(hiding < size), np.zeros(size.shape)
    base = legible if legible.any() else np.ones_like(legible)
    factor, left = remove_factor(errors[:, base], exact[:, base])
    rounding = find_unit(dtype) * np.abs((1 + factor) * exact) + find_smallest(dtype)
    precise = np.all(np.abs(errors - factor * exact) <= 2 * rounding, axis=0)
    if not legible.any() and abs(1 + factor) < KEPT:
        precise = np.zeros_like(legible)
    precise |= find_kept(errors, exact, dtype)
    if legible.any() and not precise[legible].all():
        every, first = imitated[..., legible], exact[: imitated.shape[1], legible]
        of_all = root_mean_square(np.stack([remove_factor(each, first)[1] for each in every]))
        # (V10)
        fitted = min(1.0, root_mean_square(left) / of_all) if of_all > 0 else 1.0
        known = fitted if known is None else known
        if known:
            share[legible] = np.maximum(known, hiding[legible] / size[legible])
    return Explained(times * share * imitated, np.where(legible | precise, 0.0, hiding))


def remove_factor(errors: Array, exact: Array) -> tuple[float, Array]:
    """Find the factor on the exact gradient that fits errors best, and what it leaves of them."""
    factor = float(find_factors(errors, exact, None))
    return factor, errors - factor * exact


def is_scaled(errors: Array, exact: Array, dtype: Any) -> bool:
    """Tell whether a submission is a multiple of the exact gradient, but for two roundings.

    It has lost no digits then, in whatever formula.
    """
    if not exact.any():
        return False
    factor, left = remove_factor(errors, exact)
    rounding = find_unit(dtype) * np.abs((1 + factor) * exact) + find_smallest(dtype)
    return abs(1 + factor) >= KEPT and bool(np.all(np.abs(left) <= 2 * rounding))


def measure_slices(
    errors: Array,
    exact: Array,
    dtype: Any,
    doubt: Array,
    ratio: float,
    near: Measurement | None,
    explained: Explained,
) -> Iterator[Slices]:
    """Project the errors on the exact gradient: as a whole, and in the slices along each axis."""
    exponent = find_exponent(errors, exact)  # of numbers in which all quotients are the same
    errors, exact, doubt, alike, lost_alone, smallest = (
        divide_by_power(each, exponent)
        for each in (errors, exact, doubt, *explained, find_smallest(dtype))
    )
    magnitude = np.abs(exact)
    every = tuple(range(1, exact.ndim))
    least = float(allow_bias(0.0, dtype)) * magnitude.max(axis=every, keepdims=True)
    small = np.where(magnitude < LOST * least, magnitude * np.minimum(magnitude, least), 0.0)
    unmoved = np.where((small == 0) & (magnitude < UNMOVED * least), magnitude * least, 0.0)
    small = small + magnitude * np.minimum(np.abs(errors), lost_alone)
    for number, axis in enumerate((None, *range(exact.ndim - 1))):
        summed = tuple(i for i in range(1, exact.ndim) if axis is None or i != axis + 1)
        product = (errors * exact).sum(axis=summed, keepdims=True)
        power = (exact**2).sum(axis=summed, keepdims=True)
        entries = exact.size / power.size
        with np.errstate(all="ignore"):
            factors = product / power  # (V1)
            scatter = scatter_around(errors, factors.mean(axis=0), exact) ** 2
            own = np.sqrt(
                scatter.sum(axis=summed, keepdims=True).sum(axis=0) / power.sum(axis=0)
            )  # (V2)
            shared = (errors.mean(axis=0, keepdims=True) ** 2).sum(axis=summed, keepdims=True)
            error = np.sqrt(shared[0] / power.mean(axis=0))
            noise = own if near is None else limit_noise(own.ravel(), near.slices[number].noise)
            spread = factors.std(axis=0, ddof=1)
            floor = POOLED * np.nanmedian(spread) if np.isfinite(spread).any() else 0.0
            size = np.sqrt(power.min(axis=0) / entries)
            lost = smallest / size
            beside = small.sum(axis=summed, keepdims=True)
            beside = beside + np.sqrt((unmoved**2).sum(axis=summed, keepdims=True))
            lost += (beside / power).mean(axis=0)
            first = slice(alike.shape[1])
            within = (alike * exact[first]).sum(axis=tuple(i + 1 for i in summed), keepdims=True)
            within /= power[first]
            bias = np.maximum(allow_bias(noise, dtype).reshape(own.shape), find_common_size(within))
            limit = ratio * np.maximum(spread, floor) + bias + lost  # (V3)
        unsure = np.sqrt((doubt**2).sum(axis=summed, keepdims=True).max(axis=0) / entries)
        known = np.isfinite(limit) & (size > unsure)
        yield Slices(
            axis,
            np.where(known, factors.mean(axis=0), 0.0).ravel(),
            np.where(known, limit, np.inf).ravel(),
            np.where(known, error, 0.0).ravel(),
            np.nan_to_num(own).ravel(),
        )
