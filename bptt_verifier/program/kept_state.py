"""State that a function keeps in its file's globals: put back after calls of the judge's own.

The judge calls a loss with complex numbers, numbers in higher precision and JAX's tracers. What the
loss keeps of them, as in a dict of moments, would reach the submission, which runs as it would
alone.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import CellType, FunctionType
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.own_globals import find_globals

MOST = 1000  # entries of a container; a larger one is data, such as a vocabulary
NUMBERS = 2**14  # of an array; a larger one is data, too
Restore = Callable[[], None]


def put_back_globals(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Make the function that leaves the globals of a loss as they are before each call."""

    @wraps(loss)
    def call(*arguments: Any) -> Any:
        with hold_globals(loss):
            return loss(*arguments)

    call.__module__ = __name__  # whose globals it has
    return call


@contextmanager
def hold_globals(function: Callable[..., Any]) -> Iterator[None]:
    """Put back, in the end, what is assigned to globals inside, or to what is in them.

    That is what dicts, lists, sets, deques, objects of the file's own classes and the variables
    around its inner functions hold.
    """
    space = find_globals(function)
    restores = list[Restore]()
    remember_items(space, restores)
    seen = {id(space)}
    for value in [*space.values()]:
        if not isinstance(value, np.ndarray):  # the user's data
            remember(value, space, seen, restores)
    try:
        yield
    finally:
        for restore in restores:
            restore()


def remember(value: Any, space: Any, seen: set[int], restores: list[Restore]) -> None:
    """Add what puts back the contents of a value, and of what is in it, if they change."""
    inner: list[Any] = []
    if id(value) in seen:
        return
    if isinstance(value, dict) and len(value) <= MOST:
        remember_items(value, restores)
        inner = [*value.values()]
    elif isinstance(value, list | deque | set) and len(value) <= MOST:
        inner = [*value]
        restores.append(lambda: refill(value, inner))
    elif isinstance(value, tuple):
        inner = [*value[:MOST]]
    elif type(value) is np.ndarray and value.size <= NUMBERS and value.dtype != object:
        before = value.copy()
        restores.append(lambda: rewrite(value, before))
    elif isinstance(value, FunctionType) and value.__globals__ is space:
        inner = [remember_cell(cell, restores) for cell in value.__closure__ or ()]
    elif type(value).__module__ == space.get("__name__") and hasattr(value, "__dict__"):
        inner = [vars(value)]
    seen.add(id(value))
    for each in inner:
        remember(each, space, seen, restores)


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
