"""Defaults of arguments in which a function keeps what it has computed, as in `hist=[]`."""

from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

CONTAINERS = (list, dict, set, tuple)


def list_kept_defaults(code: CodeType, space: Mapping[str, Any]) -> list[Any]:
    """List the defaults that a called function of a file may fill.

    `def step(x, hist=[])` has one list for all its calls, as a global would be: it is no argument
    of one of them. A container of arrays or of floats is, since these may be parameters.
    """
    function = space.get(code.co_name)
    if not isinstance(function, FunctionType) or function.__code__ is not code:
        return []
    may_grow = (each for each in list_defaults(function) if isinstance(each, list | dict | set))
    return [each for each in may_grow if is_plain(each)]


def list_defaults(function: FunctionType) -> list[Any]:
    """List the defaults of a function's arguments."""
    return [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def is_plain(value: Any) -> bool:
    """True for integers, texts, None and containers of these, or of nothing."""
    if isinstance(value, CONTAINERS):
        return all(map(is_plain, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | str | bytes | None)
