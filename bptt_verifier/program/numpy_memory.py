"""Memory of NumPy arrays under tracing: which entry holds a constant, and which a traced value.

Each entry of a memory is a constant, or an entry of a traced piece that was written there. A read
returns the piece itself where it finds all of it, so a buffer adds no operation to the program: the
state written into `h[t]` is the state read from `h[t]`.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_verifier.problems.problem import Array


class Memory:
    """Numbers that arrays share, with the traced value of each entry.

    `numbers` is dense and has the concrete values. Entry i, in the order of addresses, is a
    constant if `sources[i]` is 0, or else entry `offsets[i]` of `pieces[sources[i]]`, flattened.
    While `sources` is None, all entries are those of `whole`, or constants if that is None.
    """

    def __init__(self, numbers: Array, whole: Any = None) -> None:
        dense = numbers.flags.c_contiguous or numbers.flags.f_contiguous
        self.numbers: Array = numbers if dense else np.array(numbers, order="K")
        self.whole = whole
        self.version = 0
        self.pieces: list[Any] = []
        self.sources: Any = None
        self.offsets: Any = None

    @property
    def is_constant(self) -> bool:
        """True while no entry is traced."""
        return self.whole is None and self.sources is None

    def is_whole(self, view: Array) -> bool:
        """True if a view has all numbers of the memory in their own order."""
        own = self.numbers
        same = view.shape == own.shape and view.strides == own.strides
        return same and address(view) == address(own)

    def positions(self, view: Array) -> Array:
        """Find the positions of a view's entries in the order of addresses."""
        size = self.numbers.itemsize
        found: Any = (address(view) - address(self.numbers)) // size
        for axis, (length, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
            steps = np.arange(length) * (stride // size)
            found = found + steps.reshape(length, *[1] * (view.ndim - axis - 1))
        return np.broadcast_to(found, view.shape)

    def is_traced(self, view: Array) -> bool:
        """True if a view has a traced entry."""
        if self.sources is None:
            return self.whole is not None
        return bool(self.sources[self.positions(view)].any())

    def read(self, view: Array) -> Any:
        """Read the traced value of a view; its numbers, if all are constants."""
        if self.is_constant:
            return np.array(view)
        if self.whole is not None and self.is_whole(view):
            return self.whole
        self.map_entries()
        positions = self.positions(view)
        return self.join(self.sources[positions], self.offsets[positions], view)

    def find_piece(self, view: Array) -> Any:
        """Find the piece that is exactly a view, or None: reading it adds no operation."""
        if self.sources is None:
            return self.whole if self.is_whole(view) else None
        positions = self.positions(view)
        sources, offsets = self.sources[positions], self.offsets[positions]
        first = sources.flat[0] if sources.size else 0
        piece = self.pieces[first]
        exact = piece is not None and piece.shape == view.shape and (sources == first).all()
        return piece if exact and in_order(offsets, piece) else None

    def write(self, view: Array, value: Any) -> None:
        """Note the traced value of a view, or that it is constant (None), after NumPy has written.

        The value broadcasts to the view, and has its dtype.
        """
        self.version += 1
        if self.is_whole(view):
            self.sources, self.pieces, self.whole = None, [], value
            if value is not None and value.shape != view.shape:
                self.whole = None
                self.write_at(self.positions(view), value)
        else:
            self.write_at(self.positions(view), value)

    def write_at(self, positions: Array, value: Any) -> None:
        """Note the traced value of the entries at these positions, or that they are constant."""
        self.version += 1
        if value is None and self.is_constant:
            return
        self.map_entries()
        self.whole = None
        if value is None:
            self.sources[positions] = 0
            return
        shape = value.shape
        while len(shape) > positions.ndim:  # a[0] = ones((1, 3)) drops leading axes of size 1
            shape = shape[1:]
        entries = np.arange(value.size).reshape(shape)
        self.sources[positions] = len(self.pieces)
        self.offsets[positions] = np.broadcast_to(entries, positions.shape)
        self.pieces.append(value)

    def map_entries(self) -> None:
        """Start to keep the source of each entry."""
        if self.sources is not None:
            return
        size = self.numbers.size
        self.sources, self.offsets = np.zeros(size, np.int32), np.zeros(size, np.int64)
        self.pieces = [None]
        if self.whole is not None:
            positions = self.positions(self.numbers)
            self.pieces.append(self.whole)
            self.sources[positions] = 1
            self.offsets[positions] = np.arange(size).reshape(self.numbers.shape)

    def join(self, sources: Array, offsets: Array, numbers: Array) -> Any:
        """Join the entries of several pieces, in few operations."""
        if not sources.size or not sources.any():
            return np.array(numbers)
        if (sources == sources.flat[0]).all():
            return take(self.pieces[sources.flat[0]], offsets)
        for axis in range(sources.ndim):
            across = np.moveaxis(sources, axis, 0).reshape(sources.shape[axis], -1)
            if (across == across[:, :1]).all():
                return self.join_along(axis, across[:, 0], sources, offsets, numbers)
        return self.gather(sources, offsets, numbers)

    def join_along(
        self, axis: int, by_index: Array, sources: Array, offsets: Array, numbers: Array
    ) -> Any:
        """Stack or concatenate along an axis, at each index of which all entries share a piece."""
        starts = [0, *(np.flatnonzero(np.diff(by_index)) + 1)]

        def select(where: Any) -> Any:
            which = (*[slice(None)] * axis, where)
            return self.join(sources[which], offsets[which], numbers[which])

        if len(starts) == len(by_index):
            return jnp.stack([select(i) for i in starts], axis)
        ends = [*starts[1:], len(by_index)]
        parts = [select(slice(*bounds)) for bounds in zip(starts, ends, strict=True)]
        return jnp.concatenate(parts, axis)

    def gather(self, sources: Array, offsets: Array, numbers: Array) -> Any:
        """Gather entries of several pieces from all of them in a row."""
        used = [int(k) for k in np.unique(sources) if k]
        constants = np.array(numbers[sources == 0]).ravel()
        parts = [constants, *(self.pieces[k].reshape(-1) for k in used)]
        starts = np.cumsum([0, *(len(part) for part in parts)])
        index = np.empty(sources.shape, np.int64)
        index[sources == 0] = np.arange(len(constants))
        for k, start in zip(used, starts[1:], strict=False):
            index[sources == k] = start + offsets[sources == k]
        return jnp.concatenate(parts)[index]


def address(array: Array) -> int:
    """The address of an array's first entry."""
    return int(array.__array_interface__["data"][0])


def in_order(offsets: Array, piece: Any) -> bool:
    """True if these are all entries of a piece, in order."""
    return offsets.size == piece.size and bool((offsets.ravel() == np.arange(piece.size)).all())


def take(piece: Any, offsets: Array) -> Any:
    """Take entries of a piece, in the shape of their offsets."""
    if in_order(offsets, piece):
        return piece if piece.shape == offsets.shape else piece.reshape(offsets.shape)
    if piece.size == 1:
        return jnp.broadcast_to(piece.reshape(()), offsets.shape)
    flat, first = offsets.ravel(), int(offsets.flat[0])
    if (flat == np.arange(first, first + flat.size)).all():
        width = int(np.prod(piece.shape[1:]))
        rows, rest = divmod(first, width)
        if not rest and piece.shape[1:] == offsets.shape:
            return lax.index_in_dim(piece, rows, keepdims=False)
        if not rest and piece.shape[1:] == offsets.shape[1:]:
            return lax.slice_in_dim(piece, rows, rows + len(offsets))
    return piece.reshape(-1)[offsets]


def index_statically(piece: Any, index: Any) -> Any:
    """Index by integers and slices, as JAX does; its own indexing takes ten times as long."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, int | slice) for part in parts) or bool in map(type, parts):
        return piece[index]
    if not piece.shape:
        return piece
    bounds, dropped = [(0, size, 1) for size in piece.shape], []
    for axis, part in enumerate(parts):
        size = piece.shape[axis]
        if isinstance(part, int):
            bounds[axis] = (part % size, part % size + 1, 1)
            dropped.append(axis)
        else:
            bounds[axis] = part.indices(size)
    if any(step < 1 or start >= stop for start, stop, step in bounds):
        return piece[index]
    starts, stops, steps = zip(*bounds, strict=True)
    if bounds != [(0, size, 1) for size in piece.shape]:
        piece = lax.slice(piece, starts, stops, None if set(steps) == {1} else steps)
    return lax.squeeze(piece, dropped) if dropped else piece
