"""Globals of the user's functions: those that a call uses, and others in their place for a while.

An argument may have a global object as its default, such as `def forward(x, p=parameters)`. It is
used and replaced as that global is.
"""

import dis
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import find_code
from bptt_verifier.program.leaves import find_node, walk
from bptt_verifier.program.own_results import is_float_array
from bptt_verifier.program.shared_memory import LARGEST

GLOBAL = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"))  # how Python uses a global name


@contextmanager
def set_globals(
    function: Callable[..., Any], values: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Set globals of a function for a while, and defaults that are the same; yield all of them."""
    space = find_globals(function)
    before = {name: space[name] for name in values}
    instead = {id(before[name]): value for name, value in values.items()}
    defaults = {
        each: tuple(each.__defaults__ or ())
        for each in [*space.values()]
        if takes_default(each, space)
    }
    space.update(values)
    for each, given in defaults.items():
        each.__defaults__ = tuple(instead.get(id(value), value) for value in given)
    try:
        yield space
    finally:
        space.update(before)
        for each, given in defaults.items():
            each.__defaults__ = given


def takes_default(value: Any, space: Mapping[str, Any]) -> bool:
    """True for a function of a file that has arguments with defaults."""
    own = isinstance(value, FunctionType) and value.__globals__ is space
    return own and bool(value.__defaults__)


def find_globals(function: Callable[..., Any]) -> dict[str, Any]:
    """Find the globals of a function, or of what it wraps."""
    inner: Any = inspect.unwrap(getattr(function, "__func__", function))
    return getattr(inner, "__globals__", {})


def find_rates(function: Callable[..., Any]) -> dict[str, Any]:
    """Find the numbers among the globals of a function."""
    space = find_globals(function).items()
    return {name: value for name, value in space if isinstance(value, int | float | np.floating)}


def find_used_globals(function: Callable[..., Any]) -> dict[str, Any]:
    """Find the globals that hold float arrays, of a function and of those of its file it calls."""
    code, space = find_code(function), find_globals(function)
    waiting, seen, found = [code], set[Any](), dict[str, Any]()
    while waiting:
        code = waiting.pop()
        if code is None or code in seen:
            continue
        seen.add(code)
        waiting += [const for const in code.co_consts if hasattr(const, "co_names")]
        read = [each for each in dis.get_instructions(code) if each.opname in GLOBAL]
        for name in dict.fromkeys(each.argval for each in read):  # `cache.W` reads no global W
            value = space.get(name)
            if isinstance(value, FunctionType):
                waiting += [value.__code__] if value.__globals__ is space else []
                given = value.__defaults__ or () if takes_default(value, space) else ()
                same = [n for n, v in space.items() if find_node(v) and any(v is d for d in given)]
                found |= {n: space[n] for n in same if holds_float_array(space[n], n)}
            elif isinstance(value, type) and value.__module__ == space.get("__name__"):
                waiting += [f.__code__ for f in vars(value).values() if isinstance(f, FunctionType)]
            elif holds_float_array(value, name):
                found[name] = value
    found |= find_viewed(space, [v for v in found.values() if isinstance(v, np.ndarray)])
    return {name: found[name] for name in space if name in found}


def find_viewed(space: Mapping[str, Any], arrays: Iterable[Any]) -> dict[str, Any]:
    """Find the global arrays of which these are views, and a large part, as of a flat vector."""
    views = [each for each in arrays if each.base is not None]
    return {
        name: value for name, value in space.items()
        if isinstance(value, np.ndarray) and is_float_array(value)
        and value.size <= LARGEST * sum(each.size for each in views if each.base is value)
    }  # fmt: skip


def holds_float_array(value: Any, name: str) -> bool:
    """True for a float array, or a structure of a global name that holds some."""
    return any(is_float_array(each) for _, each in walk(value, (name,), ()))
