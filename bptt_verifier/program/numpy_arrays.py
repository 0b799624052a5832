"""NumPy arrays over traced values: concrete numbers and the JAX values that compute them.

Everything is evaluated twice: in NumPy, which decides on shapes, dtypes, views, casts and errors,
and in JAX, which is traced. What does not depend on the parameters is evaluated in NumPy alone.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.decisions import CURRENT, UntraceableError, is_formatting
from bptt_verifier.program.numpy_memory import Memory, index_statically


class TracedArray(NDArrayOperatorsMixin):
    """An array as NumPy's: a view of a memory, whose traced value is known.

    `value` is the view in NumPy.
    """

    is_number = False

    def __init__(self, memory: Memory, value: Array, traced: Any = None) -> None:
        self.memory, self.value = memory, value
        self.known = memory.version, traced

    # `numpy_methods` defines these and the other methods by functions of NumPy.
    __array_ufunc__: Any
    __array_function__: Any
    shape = property(lambda self: self.value.shape, lambda self, new: self.reshape_in_place(new))
    dtype = property(lambda self: self.value.dtype)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    itemsize = property(lambda self: self.value.itemsize)
    nbytes = property(lambda self: self.value.nbytes)
    strides = property(lambda self: self.value.strides)
    flags = property(lambda self: self.value.flags)
    T = property(lambda self: self.select(lambda x: x.T))
    base = property(lambda self: None if self.memory.is_whole(self.value) else self)

    @property
    def is_constant(self) -> bool:
        """True if no entry is traced."""
        return not self.memory.is_traced(self.value)

    @property
    def traced(self) -> Any:
        """The value in JAX; in NumPy, if it is constant."""
        version, traced = self.known
        if version != self.memory.version or traced is None:
            traced = self.memory.read(self.value)
            self.known = self.memory.version, traced
        return traced

    def select(self, of: Callable[[Any], Any]) -> "TracedArray":
        """Make a view; `of` takes it from an array of NumPy or JAX."""
        value, memory = of(self.value), self.memory
        piece = memory.find_piece(value)
        if piece is None:
            version, known = self.known
            whole = known if version == memory.version else None
            whole = memory.find_piece(self.value) if whole is None else whole
            piece = None if whole is None else of(whole)
        return TracedArray(memory, value, piece)

    def reshape_in_place(self, shape: Any) -> None:
        """Give the array another shape, as an assignment to `shape` does."""
        value = self.value.reshape(shape)
        if not np.may_share_memory(value, self.value):
            raise AttributeError("Incompatible shape for in-place modification.")
        self.value = value
        self.known = self.memory.version, None

    def write(self, value: Any) -> None:
        """Note what NumPy has written over the whole view: a traced value, or constants."""
        traced = isinstance(value, jax.Array)
        self.memory.write(self.value, jnp.asarray(value, self.dtype) if traced else None)

    # Indices.

    def __getitem__(self, index: Any) -> Any:
        """Select entries: a view where NumPy makes a view, or else a copy."""
        concrete = unwrap_index(index)
        found = self.value[concrete]
        if self.is_constant and not depends(index):
            return wrap(found, None, [self])
        if depends(index) and is_mask(index, self):
            return MaskedEntries(found, index, jnp.asarray(self.traced))
        if isinstance(found, np.ndarray) and np.may_share_memory(found, self.memory.numbers):
            fix_parts(index)
            return self.select(lambda x: index_any(x, concrete))
        if depends(index) and is_integer_index(index):
            return wrap(found, jnp.asarray(self.traced)[trace_of(index)])
        fix_parts(index)
        memory = self.memory
        if memory.sources is None:
            return wrap(found, index_any(self.traced, concrete))
        positions = memory.positions(self.value)[concrete]
        sources, offsets = memory.sources[positions], memory.offsets[positions]
        return wrap(found, memory.join(np.asarray(sources), np.asarray(offsets), found))

    def __setitem__(self, index: Any, value: Any) -> None:
        """Assign to entries, with NumPy's casts."""
        concrete, before = unwrap_index(index), None
        if depends(index) and is_mask(index, self):
            self.assign_masked(index, value)
            return
        given = join_traced(trace_of(value))
        if depends(index) and is_integer_index(index):
            before = jnp.asarray(self.traced)
        else:
            fix_parts(index)
        self.value[concrete] = unwrap(value)
        if before is not None:
            given = jnp.asarray(given).astype(self.dtype)
            self.write(before.at[trace_of(index)].set(given))
            return
        cast = given.astype(self.dtype) if isinstance(given, jax.Array) else None
        selected = self.value[concrete]
        if isinstance(selected, np.ndarray) and np.may_share_memory(selected, self.memory.numbers):
            self.memory.write(selected, cast)
        else:
            positions = np.asarray(self.memory.positions(self.value)[concrete])
            self.memory.write_at(positions, cast)

    def assign_masked(self, mask: "TracedArray", value: Any) -> None:
        """Assign where a traced mask is true."""
        everywhere: Any = None
        given: Any = None
        before = jnp.asarray(self.traced)
        if isinstance(value, MaskedEntries) and value.is_of(mask):
            everywhere = value.everywhere
        else:
            given = join_traced(trace_of(value))
            everywhere = jnp.asarray(given) if np.ndim(given) == 0 else None
        self.value[mask.value] = unwrap(value)
        if everywhere is not None:
            where = expand(mask.traced, self.ndim)
            self.write(jnp.where(where, everywhere.astype(self.dtype), before))
            return
        fix_parts(mask)
        positions = self.memory.positions(self.value)[mask.value]
        traced = isinstance(given, jax.Array)
        self.memory.write_at(positions, given.astype(self.dtype) if traced else None)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the first axis."""
        return (self[i] for i, _ in enumerate(iter(self.value)))

    def __len__(self) -> int:
        return len(self.value)

    def __contains__(self, item: Any) -> bool:
        return bool((self == item).any())

    # Conversions. What depends on the parameters decides the path of the loss.

    def fix(self, outcome: Any) -> Any:
        """Note that the path of the loss depends on the value; return the outcome to follow."""
        if not self.is_constant and not is_formatting():
            value: Any = jnp.asarray(self.traced)
            return CURRENT.get().note(value.astype(np.asarray(outcome).dtype), outcome)
        return outcome

    def __bool__(self) -> bool:
        return bool(self.fix(bool(self.value)))

    def __int__(self) -> int:
        return int(self.fix(int(self.value)))

    def __index__(self) -> int:
        return int(self.fix(self.value.__index__()))

    def __float__(self) -> float:
        if not self.is_constant and not is_formatting():
            raise UntraceableError("it converts a number that depends on the parameters to float")
        return float(self.value)

    def __complex__(self) -> complex:
        if not self.is_constant:
            raise UntraceableError("it converts a number that depends on the parameters to complex")
        return complex(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if not self.is_constant:
            raise UntraceableError("it hands numbers that depend on the parameters to other code")
        return np.array(self.value, dtype, copy=copy)

    def __reduce__(self) -> Any:
        raise UntraceableError("it pickles an array that depends on the parameters")

    def __copy__(self) -> "TracedArray":
        found: TracedArray = wrap(self.value.copy(), self.traced)
        return found

    def __deepcopy__(self, memo: Any) -> "TracedArray":
        return self.__copy__()

    def __repr__(self) -> str:
        return repr(unwrap_one(self))

    def __str__(self) -> str:
        return str(unwrap_one(self))

    def __format__(self, spec: str) -> str:
        return format(self.value[()], spec)

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError as NumPy does, or say that the attribute cannot be traced."""
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"'numpy.ndarray' object has no attribute '{name}'")
        if not self.is_constant:
            raise UntraceableError(f"it uses .{name} of an array that depends on the parameters")
        return getattr(self.value, name)


class TracedNumber(TracedArray):
    """A number as NumPy's scalars: without axes, and never modified."""

    is_number = True

    def __hash__(self) -> int:
        if not self.is_constant:
            raise UntraceableError("it uses a number that depends on the parameters as a key")
        return hash(self.value[()])


def refuse_in_place(self: Any, other: Any) -> Any:
    """Leave an augmented assignment to the operator that makes a new number."""
    return NotImplemented


for operator in "add sub mul matmul truediv floordiv mod pow lshift rshift and xor or".split():
    setattr(TracedNumber, f"__i{operator}__", refuse_in_place)


class MaskedEntries(TracedArray):
    """The entries that a traced mask selects: their number is that of the point at hand.

    `everywhere` has the traced values at all entries of the mask, of which those that are not
    selected are ½. While only functions of single entries are applied, the path of the loss does
    not depend on the mask.
    """

    def __init__(self, selected: Array, mask: TracedArray, everywhere: Any) -> None:
        super().__init__(Memory(np.array(selected)), selected)
        self.value = self.memory.numbers
        self.mask, self.chosen = mask.traced, np.array(mask.value)
        self.replace(everywhere)

    def replace(self, everywhere: Any) -> None:
        """Replace the traced values at all entries, after NumPy has written those selected."""
        # A function is defined at ½, so that no NaN arises where nothing is selected.
        harmless = jnp.asarray(0.5).astype(everywhere.dtype)
        self.everywhere = jnp.where(expand(self.mask, everywhere.ndim), everywhere, harmless)

    @property
    def is_constant(self) -> bool:
        """False: which entries they are depends on the parameters."""
        return False

    @property
    def is_lazy(self) -> bool:
        """True while the path of the loss does not depend on the mask."""
        return self.memory.is_constant

    def is_of(self, mask: Any) -> bool:
        """True if another mask is the same."""
        return self.is_lazy and mask.traced is self.mask

    @property
    def traced(self) -> Any:
        """The selected values in JAX: from here on the path of the loss depends on the mask."""
        if self.is_lazy:
            CURRENT.get().note(self.mask, self.chosen)
            self.memory.write(self.value, self.everywhere[np.nonzero(self.chosen)])
        return self.memory.read(self.value)

    def select(self, of: Callable[[Any], Any]) -> TracedArray:
        """Make a view."""
        _ = self.traced
        return super().select(of)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Assign to entries."""
        _ = self.traced
        super().__setitem__(index, value)


# Conversion of arguments and results. Lists, tuples, dicts and slices may contain arrays.


def map_nested(x: Any, convert: Callable[[Any], Any]) -> Any:
    """Convert what containers contain; a container in which nothing changes stays the same."""
    if isinstance(x, list | tuple):
        parts = [map_nested(part, convert) for part in x]
        if all(new is old for new, old in zip(parts, x, strict=True)):
            return x
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    if isinstance(x, dict):
        return {key: map_nested(part, convert) for key, part in x.items()}
    if isinstance(x, slice):
        parts = [map_nested(part, convert) for part in (x.start, x.stop, x.step)]
        return slice(*parts)
    return convert(x)


def unwrap(x: Any) -> Any:
    """Replace arrays by those of NumPy."""
    return map_nested(x, unwrap_one)


def unwrap_one(x: Any) -> Any:
    """Replace an array by that of NumPy, and a name that stands in for another by that one."""
    if isinstance(x, TracedArray):
        return x.value[()] if x.is_number else x.value
    return getattr(x, "stands_for", x) if callable(x) else x


def unwrap_index(index: Any) -> Any:
    """Replace the arrays of an index, lists by arrays, and NumPy's integers by Python's."""

    def convert(part: Any) -> Any:
        part = unwrap(part)
        if isinstance(part, list | range):
            return np.asarray(part, None if len(part) else np.intp)
        return int(part) if isinstance(part, np.integer) else part

    return tuple(map(convert, index)) if isinstance(index, tuple) else convert(index)


def trace_of(x: Any) -> Any:
    """Replace arrays by their traced values, and constants by copies: a trace keeps them."""

    def convert(part: Any) -> Any:
        if not isinstance(part, TracedArray):
            return np.array(part) if isinstance(part, np.ndarray) else unwrap_one(part)
        return np.array(part.value) if part.is_constant else part.traced

    return map_nested(x, convert)


def list_arrays(x: Any) -> list[TracedArray]:
    """List the arrays in containers."""
    found: list[TracedArray] = []

    def note(part: Any) -> Any:
        if isinstance(part, TracedArray):
            found.append(part)
        return part

    map_nested(x, note)
    return found


def depends(x: Any) -> bool:
    """True if an array in containers depends on the parameters."""
    return any(not array.is_constant for array in list_arrays(x))


def join_traced(x: Any) -> Any:
    """Join nested lists with traced values to one; anything else stays as it is."""
    if not isinstance(x, list | tuple) or not contains_traced(x):
        return x
    parts = [jnp.asarray(join_traced(part)) for part in x]
    dtype = np.result_type(*(part.dtype for part in parts))
    return jnp.stack([part.astype(dtype) for part in parts])


def contains_traced(x: Any) -> bool:
    """True if nested lists contain a traced value."""
    if isinstance(x, list | tuple):
        return any(map(contains_traced, x))
    return isinstance(x, jax.Array)


def wrap(found: Any, traced: Any = None, owners: Any = ()) -> Any:
    """Make an array of a result in NumPy and its traced value; None: it is a constant.

    A result that shares memory with one of the owners is a view of that memory. Constants that are
    no arrays stay as they are.
    """
    if isinstance(found, np.ndarray) and found.dtype.kind in "biufc":
        for owner in owners:
            if np.may_share_memory(found, owner.memory.numbers):
                if found.dtype == owner.dtype:
                    return TracedArray(owner.memory, found, as_traced(found, traced))
                if traced is None and not owner.is_constant:
                    raise UntraceableError("it views an array as another dtype")
                found = np.array(found)
        memory = Memory(found, as_traced(found, traced))
        return TracedArray(memory, memory.numbers)
    if traced is None or not isinstance(found, bool | int | float | complex | np.generic):
        return found
    value = np.asarray(found)
    return TracedNumber(Memory(value, as_traced(value, traced)), value)


def as_traced(found: Array, traced: Any) -> Any:
    """Convert a traced value to the dtype of the result in NumPy; None, if it is constant."""
    if not isinstance(traced, jax.Array):
        return None
    if traced.shape != found.shape:
        raise UntraceableError("NumPy and JAX give results of different shapes")
    return traced if traced.dtype == found.dtype else traced.astype(found.dtype)


def index_any(x: Any, index: Any) -> Any:
    """Index an array of NumPy or JAX."""
    return index_statically(x, index) if isinstance(x, jax.Array) else x[index]


def expand(mask: Any, ndim: int) -> Any:
    """Append axes to a mask of leading axes."""
    return mask.reshape((*mask.shape, *[1] * (ndim - mask.ndim)))


def is_mask(index: Any, array: TracedArray) -> bool:
    """True for a boolean array that selects among the leading axes of an array."""
    return (
        isinstance(index, TracedArray)
        and index.dtype == bool
        and 0 < index.ndim <= array.ndim
        and index.shape == array.shape[: index.ndim]
    )


def is_integer_index(index: Any) -> bool:
    """True if what is traced in an index is integers."""
    return all(a.is_constant or a.dtype.kind in "iu" for a in list_arrays(index))


def fix_parts(index: Any) -> None:
    """Note that the path of the loss depends on an index."""
    for array in list_arrays(index):
        if not array.is_constant:
            CURRENT.get().note(array.traced, array.value)
