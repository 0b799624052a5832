"""The user's objects that a loss refers to, with names and arrays replaced for a while.

Functions, methods and closures of the user's files find NumPy in their modules' globals. While the
loss is traced, names there stand in for NumPy's, and arrays for its arrays. Afterwards everything
is as it was, also what the code itself has changed meanwhile.
"""

import builtins
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from bptt_verifier.program.numpy_arrays import TracedArray
from bptt_verifier.program.numpy_memory import Memory, address
from bptt_verifier.program.numpy_namespace import BUILTINS, stand_in, stand_in_import
from bptt_verifier.program.precision import ATOMS, REACHED, is_of_library

LARGEST = 2**27  # bytes of an array that is copied for a trace; larger ones may not be modified
UNTOUCHED = ("__builtins__", "__loader__", "__spec__")  # of a module's globals


class Replacement:
    """The containers that have been changed, with what they had before."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []
        self.globals: dict[int, Any] = {}
        self.memories: dict[int, tuple[Any, Memory]] = {}
        self.lifted: dict[int, tuple[Any, TracedArray]] = {}
        self.seen: dict[int, Any] = {}
        self.waiting: deque[Any] = deque()

    def replace_in(self, roots: Any) -> None:
        """Replace names and arrays in everything that the roots refer to."""
        self.wait(*roots)
        while self.waiting and len(self.seen) < REACHED:
            found = self.waiting.popleft()
            if id(found) not in self.seen:
                self.seen[id(found)] = found
                self.visit(found)

    def wait(self, *found: Any) -> None:
        """Visit these later: code first, since data may be more than can be visited."""
        for each in found:
            if isinstance(each, FunctionType | MethodType | ModuleType | CellType | type):
                self.waiting.appendleft(each)
            elif not isinstance(each, ATOMS):
                self.waiting.append(each)

    def visit(self, found: Any) -> None:
        """Replace what one object holds, and go on to the objects it refers to."""
        if isinstance(found, FunctionType):
            self.visit_function(found)
        elif isinstance(found, MethodType):
            self.wait(found.__self__, found.__func__)
        elif isinstance(found, functools.partial):
            self.wait(found.func, *found.args, *found.keywords.values())
        elif isinstance(found, staticmethod | classmethod):
            self.wait(found.__func__)
        elif isinstance(found, property):
            self.wait(found.fget, found.fset)
        elif isinstance(found, CellType):
            self.visit_cell(found)
        elif isinstance(found, dict):
            self.replace_items(found)
        elif isinstance(found, list | deque | set):
            self.replace_entries(found)
        elif isinstance(found, functools._lru_cache_wrapper):
            self.wait(found.__wrapped__)
            self.undo.append(found.cache_clear)  # of arrays of the trace
        elif isinstance(found, tuple):
            self.wait(*found)
        elif isinstance(found, ModuleType):
            if not is_of_library(found):
                self.visit_globals(vars(found))
        elif isinstance(found, type):
            if not is_of_library(found):
                self.visit_class(found)
        elif not is_of_library(type(found)) or is_of_judge(type(found)):
            if not is_of_judge(type(found)):
                self.wait(type(found))
            own = getattr(found, "__dict__", None)
            if type(own) is dict:
                self.replace_items(own)
            self.replace_slots(found)

    def visit_function(self, function: FunctionType) -> None:
        """Visit what a function refers to: of the judge's own, its closure alone."""
        self.wait(*(function.__closure__ or ()))
        self.wait(getattr(function, "__wrapped__", None))
        if is_of_library(function):
            return
        self.visit_globals(function.__globals__)
        given = function.__defaults__
        if given:
            function.__defaults__ = tuple(self.convert(x) for x in given)
            self.undo.append(lambda: setattr(function, "__defaults__", given))
        if function.__kwdefaults__:
            self.replace_items(function.__kwdefaults__)

    def visit_globals(self, names: dict[str, Any]) -> None:
        """Replace the names of a module."""
        if id(names) in self.globals:
            return
        self.globals[id(names)] = names
        self.replace_items(names)
        for name, replaced in BUILTINS.items():
            names.setdefault(name, replaced)

    def visit_cell(self, cell: CellType) -> None:
        """Replace what a closure refers to."""
        with suppress(ValueError):  # it may be empty
            before = cell.cell_contents
            cell.cell_contents = self.convert(before)
            self.undo.append(lambda: setattr(cell, "cell_contents", before))

    def visit_class(self, found: type) -> None:
        """Replace the attributes of a class."""
        self.wait(*found.__mro__[1:])
        for name, before in [*vars(found).items()]:
            after = self.convert(before)
            if after is not before and not name.startswith("__"):
                with suppress(AttributeError, TypeError):  # its metaclass may refuse
                    setattr(found, name, after)
                    self.undo.append(functools.partial(setattr, found, name, before))

    def replace_items(self, found: dict[Any, Any]) -> None:
        """Replace the values of a dict."""
        before = dict(found)
        self.undo.append(lambda: restore(found, before))
        for key, value in before.items():
            if key not in UNTOUCHED:
                after = self.convert(value)
                if after is not value:
                    found[key] = after

    def replace_slots(self, found: Any) -> None:
        """Replace the values of an object's slots."""
        names = (getattr(each, "__slots__", ()) for each in type(found).__mro__)
        for name in (n for own in names for n in ((own,) if isinstance(own, str) else own)):
            with suppress(AttributeError):  # it may be unset
                before = getattr(found, name)
                setattr(found, name, self.convert(before))
                self.undo.append(functools.partial(setattr, found, name, before))

    def replace_entries(self, found: Any) -> None:
        """Replace the entries of a list, a deque or a set."""
        if len(found) > 1000 and all(isinstance(x, ATOMS) for x in found):
            return  # a text, or tokens
        before = list(found)
        add = found.update if isinstance(found, set) else found.extend

        def undo() -> None:
            found.clear()
            add(before)

        self.undo.append(undo)
        if not isinstance(found, set):
            after = [*map(self.convert, before)]
            found.clear()
            add(after)

    def convert(self, value: Any) -> Any:
        """Find what replaces a value, or visit it later."""
        if type(value) is np.ndarray:
            copied = value.dtype.kind in "biufc" and value.nbytes <= LARGEST
            return self.lift(value) if copied else value
        if isinstance(value, ATOMS) or value is sys.modules or is_replaced(value):
            return value
        if type(value) is tuple or (isinstance(value, tuple) and hasattr(value, "_fields")):
            parts = tuple(map(self.convert, value))
            same = all(new is old for new, old in zip(parts, value, strict=True))
            named: Any = type(value)
            return value if same else parts if named is tuple else named(*parts)
        replaced = stand_in(value)
        if replaced is value:
            self.wait(value)
        elif type(value) is np.vectorize:
            self.wait(value.pyfunc)
        return replaced

    def lift(self, array: np.ndarray[Any, Any]) -> TracedArray:
        """Make an array of constants, or return the one that was made of this array before."""
        if id(array) not in self.lifted:
            self.lifted[id(array)] = array, self.make_array(array)
        return self.lifted[id(array)][1]

    def make_array(self, array: np.ndarray[Any, Any]) -> TracedArray:
        """Make an array of constants, whose memory other arrays share if they did before."""
        base: Any = array
        while type(base.base) is np.ndarray and base.base.dtype == array.dtype:
            base = base.base
        if not (base.flags.c_contiguous or base.flags.f_contiguous):
            base = array
        if id(base) not in self.memories:
            self.memories[id(base)] = base, Memory(np.array(base, order="K"))
        memory = self.memories[id(base)][1]
        if base is array:
            return TracedArray(memory, memory.numbers)
        start = address(array) - address(base)
        view = np.ndarray(array.shape, array.dtype, memory.numbers.data, start, array.strides)
        return TracedArray(memory, view)


def is_replaced(value: Any) -> bool:
    """True for what stands in for another value: a dict may be visited by several ways."""
    kind = type(value)
    return kind.__module__ in {TracedArray.__module__, stand_in.__module__}


def is_of_judge(kind: type) -> bool:
    """True for a type of this package, whose objects may hold the user's."""
    return kind.__module__.partition(".")[0] == "bptt_verifier" and kind is not TracedArray


def restore(found: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Give a dict the items that it had before."""
    for key in [key for key in found if key not in before]:
        del found[key]
    for key, value in before.items():
        if key not in found or found[key] is not value:
            found[key] = value


@contextmanager
def replace_numpy(*roots: Any) -> Iterator[None]:
    """Replace NumPy and its arrays in the user's code that the roots refer to, for a while."""
    replacement, real = Replacement(), builtins.__import__

    def is_of_user(names: Any) -> bool:
        return id(names) in replacement.globals

    try:
        replacement.replace_in(roots)
        builtins.__import__ = stand_in_import(real, is_of_user)
        yield
    finally:
        builtins.__import__ = real
        for undo in reversed(replacement.undo):
            with suppress(Exception):  # one object may refuse; the others are restored
                undo()
