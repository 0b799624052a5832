"""Places of a kernel's wrong numbers: by argument, and by index along each axis."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_axes import find_ends
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.problems.problem import Array
from bptt_verifier.report.findings import OF_MAP
from bptt_verifier.tolerance.projections import Measurement
from bptt_verifier.tolerance.sizes import find_sizes

TILES = (128, 64, 32, 16)  # sizes of tiles and chunks whose edges are looked at, the largest first
CONTRAST = 8  # errors at wrong indices are so many times as large as those at right ones
FEW = 4  # indices of a tile are at its edge if they are at most this part of it
LISTED = 8  # indices in a sentence
LARGEST_MAP = 128  # rows and columns of a map of errors


class WrongIndices(NamedTuple):
    """Wrong indices on one axis: a stable name, and words that follow "wrong"."""

    name: str
    said: str
    axis: int
    indices: tuple[int, ...]


class ErrorMap(NamedTuple):
    """The errors of a gradient over one or two of its axes.

    A cell has the largest error of so many indices of each axis, and of all of the other axes.
    """

    errors: Array
    axes: tuple[int, ...]
    blocks: tuple[int, ...]

    def describe(self, dimensions: int) -> str:
        """Describe what is along the rows and columns; empty where each cell is an entry."""
        axes = [
            f"axis {axis}" + (f" in blocks of {block}" if block > 1 else "")
            for axis, block in zip(self.axes, self.blocks, strict=True)
        ]
        if dimensions == len(axes) and max(self.blocks, default=1) == 1:
            return ""
        along = " and ".join(axes)
        return f"{OF_MAP} {along}, with the largest error of each cell"


class TileEdges(NamedTuple):
    """Indices at the edges of tiles: their number in each, minus the tile's size, and words."""

    number: int
    negative: int
    said: str


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

    The projection of a wrong slice on the exact one may be small by chance; its size is not. Where
    the gradient itself is next to nothing, an error as large as it tells nothing.
    """
    wrong = np.isin(np.arange(measured.mean.shape[axis]), indices)
    others = tuple(i for i in range(measured.mean.ndim) if i != axis)
    errors = find_sizes(measured.mean, others)
    for slices in measured.slices:
        if slices.axis == axis and slices.wrong.any():
            most = np.where(errors <= errors[slices.wrong].min() / CONTRAST**2, 0.0, slices.error)
            return bool(most[~wrong].max() <= slices.error[slices.wrong].min() / CONTRAST)
    return bool(errors[~wrong].max() <= errors[wrong].min() / CONTRAST)


def list_places(measured: Measurement) -> Iterator[WrongIndices]:
    """List where a gradient is wrong along each axis on which it is right elsewhere."""
    for axis, size in enumerate(measured.mean.shape):
        indices = [int(i) for i in list_wrong_indices(measured, axis)]
        if 0 < len(indices) < size and is_right_elsewhere(measured, axis, indices):
            name, said = describe_indices(indices, size)
            yield WrongIndices(name, f"{said} of axis {axis}", axis, tuple(indices))


def select_telling(places: Sequence[WrongIndices], exact: Array) -> list[WrongIndices]:
    """Select the places on axes at whose other indices an error of the same kind would show.

    Nothing would where the exact gradient (K, …) is zero there, as that of a sequence that has
    ended: which rows are wrong beyond its length says nothing of the row.
    """
    kept = [*places]
    for place in places:
        here: list[Any] = [slice(None)] * exact.ndim
        for other in kept:
            here[other.axis + 1] = [*other.indices]
        here[place.axis + 1] = [
            i for i in range(exact.shape[place.axis + 1]) if i not in place.indices
        ]
        rows, *others = (
            [*range(size)] if isinstance(chosen, slice) else chosen
            for chosen, size in zip(here, exact.shape, strict=True)
        )
        if len(kept) > 1 and not exact[np.ix_(rows, *others)].any():
            kept.remove(place)
    return kept


def describe_indices(indices: Sequence[int], size: int) -> tuple[str, str]:
    """Describe wrong indices among `size`: a name, and words that follow "wrong"."""
    first, last, count = indices[0], indices[-1], len(indices)
    tile, joined = find_tile(first, size), count == last - first + 1
    if tile >= count and joined and last == size - 1:
        rest = f", the last {count}" if size % tile else ""
        return "wrong-last-tile", f"from index {first}, a multiple of {tile}, to the end{rest}"
    edges = min(find_edges(indices, size), default=None)
    if edges is not None:
        return "wrong-tile-edge", f"{edges.said} ({list_some(indices)})"
    if joined:
        return describe_range(first, last, size)
    step, listed = indices[1] - first, list_some(indices)
    if count > 2 and [*indices] == [*range(first, size, step)]:
        return "wrong-indices", f"at indices {listed} in steps of {step}"
    return "wrong-indices", f"at {count} of {size} indices ({listed})"


def describe_range(first: int, last: int, size: int) -> tuple[str, str]:
    """Describe one index or consecutive ones, and the multiples of tiles that they lie between."""
    if first == last:
        which = ", the first" if first == 0 else ", the last" if first == size - 1 else ""
        return "wrong-index", f"at index {first}{which}"
    start, end = find_tile(first, size), find_tile(last + 1, size)
    if last == size - 1:
        multiple = f", a multiple of {start}," if start else ""
        return "wrong-range", f"from index {first}{multiple} to the end"
    said = f"at indices {first} to {last}"
    if end and (start or first == 0):
        said += f", between multiples of {min(start or end, end)}"
    return "wrong-range", said


def find_tile(index: int, size: int) -> int:
    """Find the largest tile that begins at an index within an axis; 0 for none."""
    begins = (tile for tile in TILES if 0 < index < size and index % tile == 0)
    return next(begins, 0)


def find_edges(indices: Sequence[int], size: int) -> Iterator[TileEdges]:
    """Find the sizes of tiles at whose edges the indices are, in every tile or all but the first.

    Each tile has `count` of them: the first ones, the last ones, or half of them on either side of
    the edge to the next tile.
    """
    for tile in TILES:
        count = len({index % tile for index in indices})
        half, edges = count // 2, [*range(tile, size, tile)]
        last = sorted({*range(tile - 1, size, tile), size - 1})
        if len(indices) > 1 and [*indices] == last:
            yield TileEdges(1, -tile, f"at the last index of every tile of {tile}")
        if count > tile // FEW:
            continue
        many = "index" if count == 1 else f"{count} indices"
        starts = [index for index in range(size) if index % tile < count]
        ends = [index for index in range(size) if index % tile >= tile - count]
        sides = [i for edge in edges for i in range(edge - half, min(edge + half, size))]
        if [*indices] == edges:
            yield TileEdges(count, -tile, f"at multiples of {tile} from {tile} on")
        elif len({index // tile for index in indices}) < 2:
            pass  # one run of indices tells nothing of every tile
        elif [*indices] == starts:
            yield TileEdges(count, -tile, f"at the first {many} of every tile of {tile}")
        elif [*indices] == [i for i in starts if i >= tile]:
            said = f"at the first {many} of every tile of {tile} but the first"
            yield TileEdges(count, -tile, said)
        elif [*indices] == ends:
            yield TileEdges(count, -tile, f"at the last {many} of every tile of {tile}")
        elif [*indices] == sides:
            yield TileEdges(count, -tile, f"on both sides of every multiple of {tile}")


def list_some(indices: Sequence[int]) -> str:
    """List the first of some indices."""
    return ", ".join(map(str, indices[:LISTED])) + (", …" if len(indices) > LISTED else "")


def find_beyond_length(found: Found, arrays: Mapping[str, Any], name: str) -> str:
    """Find the lengths, or the mask, beyond which alone a gradient is wrong; empty for none.

    The exact gradient is zero beyond lengths, and that of the kernel is wrong at every index of
    each axis at which anything is beyond them. Other integers, such as classes, say nothing.
    """
    wrong, exact = found.nearest.gradients[name].wrong_entries, found.nearest.exact[name]
    every = [tuple(i for i in range(wrong.ndim) if i != axis) for axis in range(wrong.ndim)]
    for label, beyond in find_ends(arrays, wrong.shape):
        if not wrong.any() or (wrong & ~beyond).any() or exact[:, beyond].any():
            continue
        if all(np.array_equal(wrong.any(axis=i), beyond.any(axis=i)) for i in every):
            return label
    return ""


def draw_map(measured: Measurement) -> ErrorMap:
    """Draw the errors of a gradient over two of its axes, in units of what rounding may give.

    The axes are those on which it is wrong at some indices alone, and otherwise the first ones. An
    entry is as wrong as it is itself, or as the least wrong of the slices that it is in.
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
    chosen = dict.fromkeys([*(place.axis for place in list_places(measured)), *range(dimensions)])
    axes = tuple(sorted([*chosen][:2]))
    drawn = every.max(axis=tuple(axis for axis in range(dimensions) if axis not in axes))
    blocks = tuple(-(-size // LARGEST_MAP) for size in drawn.shape)
    for axis, block in enumerate(blocks):
        drawn = np.maximum.reduceat(drawn, np.arange(0, drawn.shape[axis], block), axis=axis)
    return ErrorMap(np.atleast_2d(drawn), axes, blocks)


def divide(errors: Array, limits: Array) -> Array:
    """Divide absolute errors by their limits; 0 where nothing is known."""
    with np.errstate(all="ignore"):
        return np.asarray(np.nan_to_num(np.abs(errors) / limits))
