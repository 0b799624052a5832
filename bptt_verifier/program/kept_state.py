"""State that a function keeps in its file's globals: put back after calls of the judge's own.

The judge calls a loss with complex numbers, numbers in higher precision and JAX's tracers. What the
loss keeps of them, as in a dict of moments, would reach the submission, which runs as it would
alone.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from types import CellType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.kept_defaults import list_defaults
from bptt_verifier.program.own_globals import find_globals

MOST = 1000  # entries of a container; a larger one is data, such as a vocabulary
COUNTERS = 4  # numbers of an array that is a global; a larger one is data, unless asked for
NUMBERS = 2**14  # of an array; a larger one is data, too
BUDGET = 10_000  # entries of all that is remembered
ATOMS = (int, float, complex, str, bytes, type(None), ModuleType)
Restore = Callable[[], None]


def put_back_globals(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Make the function that leaves the globals of a loss as they are before each call."""

    @wraps(loss)
    def call(*arguments: Any) -> Any:
        with hold_globals(loss):
            return loss(*arguments)

    call.__module__ = __name__  # whose globals it has
    return call


def hold_globals(
    function: Callable[..., Any], arrays: bool = False
) -> AbstractContextManager[None]:
    """Put back, in the end, the globals of a function; see `hold_space`."""
    return hold_space(find_globals(function), arrays)


@contextmanager
def hold_space(space: dict[str, Any], arrays: bool = False) -> Iterator[None]:
    """Put back, in the end, what is assigned to globals inside, or to what is in them.

    That is what dicts, lists, sets, deques, objects of the file's own classes, these classes, the
    variables around its inner functions, the defaults of its functions and their attributes hold.
    Arrays that are globals themselves are data, unless `arrays` are put back as well, or one is as
    small as a counter of calls.
    """
    restores = list[Restore]()
    remember_items(space, restores)
    data = () if arrays else (v for v in space.values() if isinstance(v, np.ndarray))
    left_out = {id(value) for value in data if value.size > COUNTERS}
    remember([v for v in space.values() if id(v) not in left_out], space, restores)
    try:
        yield
    finally:
        for restore in restores:
            restore()


def remember(values: list[Any], space: Any, restores: list[Restore]) -> None:
    """Add what puts back the contents of values, and of what is in them, if they change."""
    waiting, seen, left = deque(values), {id(space)}, BUDGET
    while waiting and left > 0:
        value = waiting.popleft()
        if isinstance(value, ATOMS) or id(value) in seen:
            continue
        seen.add(id(value))
        inner = list_inside(value, space, restores)
        left -= 1 + len(inner)
        waiting.extend(inner)


def list_inside(value: Any, space: Any, restores: list[Restore]) -> list[Any]:
    """List what is in a value, and add what puts that back; nothing is in data."""
    if isinstance(value, dict) and len(value) <= MOST:
        remember_items(value, restores)
        return [*value.values()]
    if isinstance(value, list | deque | set) and len(value) <= MOST:
        before = [*value]
        restores.append(lambda: refill(value, before))
        return before
    if isinstance(value, tuple):
        return [*value[:MOST]]
    if type(value) is np.ndarray and value.size <= NUMBERS and value.dtype != object:
        numbers = value.copy()
        restores.append(lambda: rewrite(value, numbers))
        return []
    if isinstance(value, FunctionType) and value.__globals__ is space:
        cells = [remember_cell(cell, restores) for cell in value.__closure__ or ()]
        return [*cells, *list_defaults(value), vars(value)]
    if type(value) is SimpleNamespace:
        return [vars(value)]
    own = space.get("__name__")
    if isinstance(value, type) and value.__module__ == own:
        return remember_attributes(value, restores)
    if type(value).__module__ == own and isinstance(getattr(value, "__dict__", None), dict):
        return [vars(value)]
    return []


def remember_attributes(kind: type[Any], restores: list[Restore]) -> list[Any]:
    """Add what puts back the attributes of a class, and list them."""
    before = {n: v for n, v in vars(kind).items() if not n.startswith("__")}

    def restore() -> None:
        now = {n: v for n, v in vars(kind).items() if not n.startswith("__")}
        for name in now.keys() - before.keys():
            delattr(kind, name)
        for name, value in before.items():
            if name not in now or now[name] is not value:
                setattr(kind, name, value)

    restores.append(restore)
    return [v for v in before.values() if not isinstance(v, FunctionType)]


def remember_items(items: dict[Any, Any], restores: list[Restore]) -> None:
    """Add what puts back the items of a dict, in their order, if one changes."""
    before = dict(items)

    def restore() -> None:
        for key in [key for key in items if key not in before]:
            del items[key]
        for key, value in before.items():
            if key not in items or items[key] is not value:
                items[key] = value
        if [*items] != [*before]:  # one was taken out, and is the last now
            items.clear()
            items.update(before)

    restores.append(restore)


def remember_cell(cell: CellType, restores: list[Restore]) -> Any:
    """Add what puts back a variable around an inner function, and return its value if it has one.

    Functions that are globals have such variables, as `update = make_adam()`.
    """
    before = attempt(lambda: cell.cell_contents)
    if isinstance(before, Failure):
        return None

    def restore() -> None:
        cell.cell_contents = before

    restores.append(restore)
    return before


def refill(container: Any, before: list[Any]) -> None:
    """Put back the entries of a list, deque or set if one changes."""
    now = [*container]
    if len(now) != len(before) or any(a is not b for a, b in zip(now, before, strict=True)):
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(before)


def rewrite(array: Any, before: Any) -> None:
    """Put back the numbers of an array if one changes."""
    if array.tobytes() != before.tobytes():
        array[...] = before
