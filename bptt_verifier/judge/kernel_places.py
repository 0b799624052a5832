"""Places of a kernel's wrong numbers: by argument, and by index along each axis."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.problems.problem import Array
from bptt_verifier.tolerance.projections import Measurement

TILES = (128, 64, 32, 16)  # sizes of tiles and chunks whose edges are looked at, the largest first
SMALLER = 8  # times smaller are errors at indices that count as right beside wrong ones
LISTED = 8  # indices in a sentence


class WrongIndices(NamedTuple):
    """Wrong indices on one axis: a stable name, and words that follow "wrong"."""

    name: str
    said: str
    axis: int
    indices: tuple[int, ...]


def list_wrong_indices(measured: Measurement, axis: int) -> Array:
    """List the indices on an axis at which a slice or an entry is wrong."""
    others = tuple(i for i in range(measured.mean.ndim) if i != axis)
    wrong = np.asarray(measured.wrong_entries.any(axis=others))
    for slices in measured.slices:
        if slices.axis == axis:
            wrong = wrong | slices.wrong
    return np.flatnonzero(wrong)


def is_right_elsewhere(measured: Measurement, axis: int, indices: Sequence[int]) -> bool:
    """Tell whether errors at the other indices of an axis are much smaller, whatever they are.

    The projection of a wrong slice on the exact one may be small by chance; its size is not.
    """
    wrong = np.isin(np.arange(measured.mean.shape[axis]), indices)
    others = tuple(i for i in range(measured.mean.ndim) if i != axis)
    for slices in measured.slices:
        if slices.axis == axis and slices.wrong.any():
            return bool(slices.error[~wrong].max() <= slices.error[slices.wrong].min() / SMALLER)
    errors = np.sqrt((measured.mean**2).sum(axis=others))
    return bool(errors[~wrong].max() <= errors[wrong].min() / SMALLER)


def list_places(measured: Measurement) -> Iterator[WrongIndices]:
    """List where a gradient is wrong along each axis on which it is right elsewhere."""
    for axis, size in enumerate(measured.mean.shape):
        indices = [int(i) for i in list_wrong_indices(measured, axis)]
        if 0 < len(indices) < size and is_right_elsewhere(measured, axis, indices):
            name, said = describe_indices(indices, size)
            yield WrongIndices(name, f"{said} of axis {axis}", axis, tuple(indices))


def describe_indices(indices: Sequence[int], size: int) -> tuple[str, str]:
    """Describe wrong indices among `size`: a name, and words that follow "wrong"."""
    first, last, count = indices[0], indices[-1], len(indices)
    joined = count == last - first + 1
    tile = find_tile(indices, size)
    if tile and joined and last == size - 1:
        rest = f", the last {count}" if size % tile else ""
        return "wrong-last-tile", f"from index {first}, a multiple of {tile}, to the end{rest}"
    if tile:
        return "wrong-tile-edge", f"at multiples of {tile}, first index {first},"
    if count == 1:
        which = ", the first" if first == 0 else ", the last" if first == size - 1 else ""
        return "wrong-index", f"at index {first}{which}"
    if joined and first == 0:
        said = f"at indices 0 to {last} (going backward, {last} is the first)"
        return "wrong-range", said
    if joined and last == size - 1:
        return "wrong-range", f"from index {first} to the end"
    if joined:
        return "wrong-range", f"at indices {first} to {last}"
    listed = ", ".join(map(str, indices[:LISTED])) + (", …" if count > LISTED else "")
    return "wrong-indices", f"at {count} of {size} indices ({listed})"


def find_tile(indices: Sequence[int], size: int) -> int:
    """Find the tile at whose edges the indices are: 0 for none.

    They are one tile, or what is left of one at the end, or one index of every tile but the first.
    """
    first, last, count = indices[0], indices[-1], len(indices)
    for tile in TILES:
        if first == 0 or first % tile or size <= tile:
            continue
        if last == size - 1 and count == size - first <= tile:
            return tile
        if [*indices] == [*range(first, size, tile)] and first == tile:
            return tile
    return 0


def find_beyond_length(found: Found, data: Mapping[str, Any], name: str) -> str:
    """Find the lengths beyond which alone a gradient is wrong; empty if there are none.

    Lengths are integers, one for each index of one axis, that are at most another axis' size.
    """
    wrong = found.nearest.gradients[name].wrong_entries
    for label, given in data.items():
        lengths = np.asarray(given)
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not wrong.any():
            continue
        for of in range(wrong.ndim):
            for along in range(wrong.ndim):
                fits = of != along and wrong.shape[of] == len(lengths)
                if not fits or lengths.max() > wrong.shape[along] or lengths.min() < 0:
                    continue
                shape = [-1 if axis == of else 1 for axis in range(wrong.ndim)]
                index = np.arange(wrong.shape[along])
                index = index.reshape([-1 if axis == along else 1 for axis in range(wrong.ndim)])
                beyond = index >= lengths.reshape(shape)
                if not (wrong & ~beyond).any() and (wrong & beyond).any():
                    return label
    return ""


def draw_map(measured: Measurement) -> Array:
    """Draw the errors of a gradient by its first two axes, in units of what rounding may give.

    An entry is as wrong as it is itself, or as the least wrong of the slices that it is in.
    """
    whole, *by_axis = (divide(each.factor, each.limit) for each in measured.slices)
    every, dimensions = divide(measured.mean, measured.limit), measured.mean.ndim
    if by_axis:
        shapes = [[-1 if i == axis else 1 for i in range(dimensions)] for axis in range(dimensions)]
        across = [ratio.reshape(shape) for ratio, shape in zip(by_axis, shapes, strict=True)]
        least = across[0]
        for each in across[1:]:
            least = np.minimum(least, each)
        every = np.maximum(every, least)
    if every.max() <= 1 < whole[0]:
        every = np.full_like(every, whole[0])
    return np.atleast_2d(
        every.reshape(*every.shape[:2], -1).max(axis=-1) if dimensions > 2 else every
    )


def divide(errors: Array, limits: Array) -> Array:
    """Divide absolute errors by their limits; 0 where nothing is known."""
    with np.errstate(all="ignore"):
        return np.asarray(np.nan_to_num(np.abs(errors) / limits))
