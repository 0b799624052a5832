"""A cache for functions of problems.

The verdict on the next derivation needs the reference of the same problems. Problems are equal if
every bit of their arrays and every option is equal.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, Generic, ParamSpec, TypeVar

import jax
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


def collect_content(value: Any) -> Hashable:
    """Collect what identifies a problem: every bit of its arrays, and its options.

    Entries that are objects are compared by equality.
    """
    if isinstance(value, dict):
        return tuple((name, collect_content(each)) for name, each in value.items())
    if isinstance(value, tuple):
        return type(value).__name__, *map(collect_content, value)
    if hasattr(value, "__array__") and not isinstance(value, type):
        array = np.asarray(value)
        numbers = tuple(array.flat) if array.dtype.hasobject else array.tobytes()
        return array.dtype.str, array.shape, numbers
    found: Hashable = value
    return found


@dataclass(frozen=True)
class CachedCall:
    """The arguments of a call, equal to others if their content is equal."""

    content: Hashable
    arguments: tuple[Any, ...] = field(compare=False)
    named: dict[str, Any] = field(compare=False)


def make_read_only(found: R) -> R:
    """Make the arrays of a value read-only, because it is returned more than once."""
    for array in jax.tree.leaves(found):
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    return found


class Recent(Generic[R]):
    """The values of a number of keys, those that were asked for last."""

    def __init__(self, size: int) -> None:
        self.size, self.values = size, dict[Hashable, R]()

    def find(self, key: Hashable) -> R | None:
        """Find the value of a key, which then was asked for last."""
        found = self.values.pop(key, None)
        return None if found is None else self.keep(key, found)

    def keep(self, key: Hashable, value: R) -> R:
        """Keep a value; return it. The one that was not asked for longest makes room."""
        self.values[key] = value
        if len(self.values) > self.size:
            self.values.pop(next(iter(self.values)), None)  # another thread may have done so
        return value


def cached_by_content(size: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function of problems so that it keeps its last `size` results, read-only."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @lru_cache(maxsize=size)
        def known(call: CachedCall) -> R:
            return make_read_only(function(*call.arguments, **call.named))

        @wraps(function)
        def answer(*arguments: P.args, **named: P.kwargs) -> R:
            return known(CachedCall(collect_content((arguments, named)), arguments, named))

        return answer

    return decorate
