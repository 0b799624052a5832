"""Names that stand in for NumPy's, SciPy's and Python's in the user's code while it is traced.

A name that stands in for another behaves like it where nothing depends on the parameters, except
that arrays are those of `numpy_arrays`. Its attribute `stands_for` is the other.
"""

import builtins
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np

from bptt_verifier.program import numpy_methods
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.numpy_arrays import (
    TracedArray,
    TracedNumber,
    depends,
    map_nested,
    unwrap,
    wrap,
)
from bptt_verifier.program.numpy_calls import call
from bptt_verifier.program.numpy_rules import MATH

LIBRARIES = ("numpy", "scipy", "math")


class StandInModule(ModuleType):
    """A module whose functions take traced values."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        self.stands_for = module

    def __getattr__(self, name: str) -> Any:
        return stand_in(getattr(self.stands_for, name))

    def __dir__(self) -> list[str]:
        return dir(self.stands_for)


class StandInType(type):
    """The metaclass of types that stand in for `float` and NumPy's types."""

    stands_for: Any

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        """Convert a number; an array of another dtype, if it is one."""
        if cls.stands_for is type:
            return StandInForType.find(*arguments) if len(arguments) == 1 else type(*arguments)
        if cls.stands_for is not np.ndarray and depends(list(arguments)):
            dtype = np.dtype(cls.stands_for)
            (given,) = arguments
            return numpy_methods.item(call(np.asarray, given).astype(dtype))
        return lift(cls.stands_for(*map(unwrap, arguments), **unwrap(options)))

    def __instancecheck__(cls, value: Any) -> bool:
        """True for what the type stands for, and for what behaves so."""
        if not isinstance(value, TracedArray):
            return isinstance(value, cls.stands_for)
        if cls.stands_for is np.ndarray:
            return not value.is_number
        return value.is_number and isinstance(value.value[()], cls.stands_for)

    def __subclasscheck__(cls, other: Any) -> bool:
        """True for a subclass of what the type stands for."""
        return issubclass(getattr(other, "stands_for", other), cls.stands_for)


class StandInForType(type, metaclass=StandInType):
    """`type`, by which code compares the class of an array with NumPy's."""

    stands_for = type

    @staticmethod
    def find(value: Any) -> Any:
        """Find the class of a value, as the code names it."""
        if isinstance(value, TracedArray):
            real: Any = type(value.value[()]) if value.is_number else np.ndarray
        else:
            standing = isinstance(value, StandInType | StandInFunction | StandInModule)
            real = type(value.stands_for if standing else value)
        return StandInForType if real is type else TYPES.get(real, real)


class StandInFunction:
    """A function of a library, or a universal function, that takes traced values."""

    def __init__(self, function: Any) -> None:
        self.stands_for = function

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        function = self.stands_for
        if isinstance(function, np.ufunc):
            plain = not any(isinstance(x, TracedArray) for x in (*arguments, *options.values()))
            if plain and any(map(is_nested, arguments)):
                arguments = tuple(call(np.asarray, x) if is_nested(x) else x for x in arguments)
            return lift(function(*arguments, **map_nested(options, unwrap_dtype)))
        return call(function, *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stands_for, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "StandInFunction":
        return self  # as a function: it may be an argument, such as `act=np.tanh`


def unwrap_dtype(x: Any) -> Any:
    """Replace a type that stands in for another."""
    return x if isinstance(x, TracedArray) else unwrap(x)


def is_nested(x: Any) -> bool:
    """True for a list or tuple, of which NumPy would make an array."""
    return isinstance(x, list | tuple)


def lift(x: Any) -> Any:
    """Make arrays of those of NumPy, also in tuples and lists; they are constants."""
    return map_nested(x, lambda part: wrap(part) if type(part) is np.ndarray else part)


# Functions of single numbers.


def stand_in_math(name: str, function: Any) -> Any:
    """Make a function of the module math that takes traced numbers."""

    def compute(*arguments: Any, **options: Any) -> Any:
        if name in OF_SEQUENCES:  # also generators and other iterables
            arguments = tuple([*x] for x in arguments)
        if not depends([*arguments, options]):
            return function(*map(unwrap, arguments), **unwrap(options))
        if name in OF_SEQUENCES:
            found = OF_SEQUENCES[name](*(call(np.array, x) for x in arguments), **options)
            return wrap(function(*map(unwrap, arguments), **unwrap(options)), found.traced)
        if name == "isclose":
            return are_close(*arguments, **options)
        outcome = function(*(x.value.item() if isinstance(x, TracedArray) else x
                             for x in arguments))  # fmt: skip
        given = [call(np.asarray, x).reshape(()) for x in arguments]
        if isinstance(outcome, bool):
            return bool(getattr(np, MATH[name])(*given))
        if name == "log" and len(given) == 2:
            found = np.log(given[0]) / np.log(given[1])
        else:
            known = MATH.get(name, name)
            special = import_module("scipy.special")
            other = getattr(special, known, None) or getattr(np, known, None)
            if other is None:
                raise UntraceableError(f"JAX has no counterpart of math.{name}")
            found = other(*given)
        if isinstance(outcome, int):
            return int(found)
        return wrap(outcome, found.traced)

    return compute


def are_close(a: Any, b: Any, *, rel_tol: Any = 1e-9, abs_tol: Any = 0.0) -> bool:
    """math.isclose, whose outcome decides on the path of the loss."""
    larger = np.maximum(np.abs(a), np.abs(b))
    return bool(np.abs(a - b) <= np.maximum(rel_tol * larger, abs_tol))


# Functions of the module math that take sequences of numbers.
OF_SEQUENCES: Mapping[str, Callable[..., Any]] = {
    "fsum": lambda x: x.sum(),
    "prod": lambda x, start=1: x.prod() * start,
    "dist": lambda x, y: np.sqrt(((x - y) ** 2).sum()),
    "sumprod": lambda x, y: x.dot(y),
}


def stand_in_extreme(function: Any, pairwise: Any) -> Any:
    """Make `max` or `min`, which compute the extreme of traced numbers."""

    def compute(*arguments: Any, **options: Any) -> Any:
        items = [*arguments[0]] if len(arguments) == 1 else [*arguments]
        numbers = all(isinstance(x, TracedNumber | int | float | np.generic) for x in items)
        if options or not numbers or not depends(items):
            return function(items, **options) if len(arguments) == 1 else function(*items)
        found = items[0]
        for each in items[1:]:
            found = pairwise(found, each)
        return found

    return compute


class Vectorize:
    """np.vectorize: a function of numbers, called for every entry."""

    def __init__(self, pyfunc: Any, otypes: Any = None, **options: Any) -> None:
        self.pyfunc, self.otypes, self.options = pyfunc, otypes, options

    def __call__(self, *arguments: Any) -> Any:
        """Call the function for every entry of the arguments, which broadcast."""
        if any(self.options.get(each) for each in ("excluded", "signature")):
            raise UntraceableError("it calls np.vectorize with options")
        arrays = call(np.broadcast_arrays, *arguments)
        rows = zip(*(array.ravel() for array in arrays), strict=True)
        results = [self.pyfunc(*row) for row in rows]
        kind = self.otypes[0] if self.otypes else np.asarray(unwrap(results[0])).dtype
        found = call(np.array, results, kind)
        return found.reshape(arrays[0].shape)[()]


def apply_along_axis(function: Any, axis: int, array: Any, *arguments: Any, **named: Any) -> Any:
    """np.apply_along_axis."""
    last = call(np.moveaxis, array, axis, -1)
    rows = last.reshape((-1, last.shape[-1]))
    found = call(np.array, [function(row, *arguments, **named) for row in rows])
    found = found.reshape((*last.shape[:-1], *found.shape[1:]))
    return found if found.ndim < last.ndim else call(np.moveaxis, found, -1, axis)


def enumerate_entries(array: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """np.ndenumerate."""
    array = call(np.asarray, array)
    return ((index, array[index]) for index in np.ndindex(array.shape))


class StandInIterator:
    """np.nditer over one array, in its order."""

    KNOWN = frozenset(
        "finished iternext multi_index index has_index has_multi_index iterindex iterrange itersize"
        " ndim nop shape reset close".split()
    )  # fmt: skip

    def __init__(self, array: Any, flags: Any = (), *arguments: Any, **options: Any) -> None:
        if isinstance(array, list | tuple):
            raise UntraceableError("it calls np.nditer with several arrays")
        self.array, self.whole = call(np.asarray, array), "external_loop" in flags
        in_order = self.array.value.flags.c_contiguous and not options.keys() & {"order"}
        if self.whole and not in_order:
            raise UntraceableError("it calls np.nditer with external_loop on parts of an array")
        flags = [*{*flags, *(() if self.whole else ("multi_index",))} - {"buffered"}]
        self.places = np.nditer(self.array.value, flags, *arguments, **options)

    def __iter__(self) -> "StandInIterator":
        return self

    def __next__(self) -> Any:
        next(self.places)
        return self[0]

    def __getitem__(self, operand: int) -> Any:
        if operand not in {0, -1}:
            raise IndexError(f"index {operand} is out of bounds")
        if self.whole:
            return self.array.reshape(-1)
        return self.array[(*self.places.multi_index, ...)]

    def __setitem__(self, operand: int, value: Any) -> None:
        self[operand][...] = value

    @property
    def value(self) -> Any:
        """The entry at which the iterator is."""
        return self[0]

    @property
    def operands(self) -> tuple[Any]:
        """The array."""
        return (self.array,)

    def __getattr__(self, name: str) -> Any:
        if name not in self.KNOWN:  # which may have entries without their derivatives
            raise UntraceableError(f"it uses {name} of np.nditer")
        return getattr(self.places, name)

    def __enter__(self) -> "StandInIterator":
        return self

    def __exit__(self, *_: object) -> None:
        self.places.close()


def collect_entries(entries: Any, dtype: Any = float, count: int = -1, **_: Any) -> Any:
    """np.fromiter."""
    return call(np.array, [*islice(entries, None if count < 0 else count)], unwrap(dtype))


class Joiner:
    """np.r_ or np.c_."""

    def __init__(self, real: Any) -> None:
        self.stands_for = real

    def __getitem__(self, key: Any) -> Any:
        """Join the arrays of an index."""
        parts = key if isinstance(key, tuple) else (key,)
        if not depends(list(parts)):
            return lift(self.stands_for[unwrap(key)])
        if isinstance(parts[0], str):
            raise UntraceableError("it joins arrays by an index with a directive")
        arrays = [
            lift(np.r_[part]) if isinstance(part, slice) else call(np.atleast_1d, part)
            for part in parts
        ]
        if type(self.stands_for) is type(np.r_):
            return call(np.concatenate, arrays)
        columns = [array if array.ndim > 1 else array[:, None] for array in arrays]
        return call(np.concatenate, columns, axis=-1)


# Tables.


JOINERS = (type(np.r_), type(np.c_))


def make_type(real: Any) -> Any:
    """Make the type that stands in for another; NumPy takes it for that dtype."""
    parent: Any = object if real is np.ndarray else real
    names = {"stands_for": real, "__slots__": ()}
    if real is float:
        names["dtype"] = np.dtype(float)  # by which NumPy takes it for that
    return StandInType(real.__name__, (parent,), names)


TYPES = {real: make_type(real) for real in (np.ndarray, float, *(
    getattr(np, name)
    for name in "generic number integer signedinteger inexact floating"
    " float16 float32 float64 int8 int16 int32 int64 uint8".split()
))}  # fmt: skip
OTHERS: dict[Any, Any] = {
    np.vectorize: Vectorize, np.apply_along_axis: apply_along_axis,
    np.ndenumerate: enumerate_entries, np.nditer: StandInIterator, np.fromiter: collect_entries,
}  # fmt: skip
# What Python's own names stand for in the user's modules.
BUILTINS = {
    "float": TYPES[float],
    "type": StandInForType,
    "max": stand_in_extreme(builtins.max, np.maximum),
    "min": stand_in_extreme(builtins.min, np.minimum),
}


@lru_cache(maxsize=4096)
def stand_in_hashable(real: Any) -> Any:
    """Make the name that stands in for another, or return that other."""
    if isinstance(real, ModuleType):
        top = real.__name__.partition(".")[0]
        return StandInModule(real) if top in LIBRARIES else real
    if isinstance(real, type):
        return TYPES.get(real, OTHERS.get(real, real))
    if real in OTHERS:
        return OTHERS[real]
    module = str(getattr(real, "__module__", None) or "")
    if module == "math":
        return stand_in_math(real.__name__, real)
    library = isinstance(real, np.ufunc) or module.partition(".")[0] in {"numpy", "scipy"}
    bound = getattr(real, "__self__", None)
    if bound is not None and type(bound).__module__.startswith("numpy.random"):
        library = True
    return StandInFunction(real) if library and not isinstance(real, type) else real


def stand_in(real: Any) -> Any:
    """Find the name that stands in for another: itself, if none does."""
    if type(real) in JOINERS:
        return Joiner(real)
    if type(real) is np.vectorize:
        return Vectorize(real.pyfunc, real.otypes, excluded=real.excluded, signature=real.signature)
    if not callable(real) and not isinstance(real, ModuleType):
        return real
    try:
        return stand_in_hashable(real)
    except TypeError:  # it has no hash
        return real


def stand_in_import(real: Callable[..., Any], is_of_user: Callable[[Any], bool]) -> Any:
    """Make an `__import__` that gives the user's code the modules that stand in."""

    def import_module(name: str, *arguments: Any, **options: Any) -> Any:
        found = real(name, *arguments, **options)
        names = arguments[0] if arguments else options.get("globals")
        return stand_in(found) if is_of_user(names) else found

    return import_module
