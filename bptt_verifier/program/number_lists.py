"""Lists of numbers in the place of arrays, as pure Python code has them: `dW[i][j] += d * x[j]`.

A list of equal lists of numbers is an array where its name and shape say so: one of gradients has
the shape of the array, or of the list, of which it has the gradient's name. Other lists are kept: a
list may also hold one number for each of several parameters.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.gradient_names import is_named_gradient
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.numpy_arrays import TracedArray
from bptt_verifier.program.own_globals import find_globals
from bptt_verifier.program.own_results import follow, is_float_array, list_items


def measure(value: Any) -> tuple[int, ...] | None:
    """Measure the shape of a list of numbers, or of equal such lists; None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    if not any(isinstance(each, list) for each in value):
        numbers = all(is_real(each) for each in value)
        return (len(value),) if numbers else None
    inner = [measure(each) for each in value]
    return None if inner[0] is None or len({*inner}) > 1 else (len(value), *inner[0])


def is_real(value: Any) -> bool:
    """True for a number, or an array without axes, traced or not."""
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    return isinstance(value, np.floating | np.ndarray | TracedArray) and np.shape(value) == ()


def join(value: Any) -> Any:
    """Join a list of numbers, or of equal such lists, into an array of floats."""
    if all(isinstance(each, int | float) for each in value):
        return np.array(value, float)
    return np.stack([join(each) if isinstance(each, list) else each for each in value])


def join_at(result: Any, paths: Collection[Keys]) -> Any:
    """Join the lists at these paths in what a function returned."""
    if () in paths:
        return join(result)
    if not paths:
        return result
    inner = {key: join_at(follow(result, (key,)), list_below(key, paths)) for key, *_ in paths}
    if isinstance(result, Mapping):
        return {**result, **inner}
    items = [inner.get(i, each) for i, each in enumerate(result)]
    return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)


def list_below(key: Any, paths: Collection[Keys]) -> list[Keys]:
    """List the rest of the paths that start with a key."""
    return [path[1:] for path in paths if path[0] == key]


def find_joined(
    result: Any, names: Mapping[Keys, str], roots: Mapping[str, Any]
) -> frozenset[Keys]:
    """Find the lists of numbers among returned values that are gradients of arrays in the roots."""
    arrays = {(str(p[-1]), np.shape(v)) for p, v in walk(roots, (), ()) if is_float_array(v)}
    return frozenset(
        path
        for path, spelled, shape in list_measured(result, names)
        if any(shape == of and is_gradient_at(path, spelled, name) for name, of in arrays)
    )


def find_list_parameters(
    function: Callable[..., Any], result: Any, names: Mapping[Keys, str]
) -> dict[str, Any]:
    """Find the global lists of numbers whose gradients a function returns, as arrays."""
    space = find_globals(function)
    return {
        name: join(space[name])
        for path, spelled, shape in list_measured(result, names)
        for name in space
        if is_gradient_at(path, spelled, name) and measure(space[name]) == shape
    }


def is_gradient_at(path: Keys, spelled: str, name: str) -> bool:
    """True if a returned value is named as the gradient of an array, or has its key in a dict."""
    return is_named_gradient(spelled, name) or path[1:] == (name,)


def list_measured(
    result: Any, names: Mapping[Keys, str]
) -> Iterator[tuple[Keys, str, tuple[int, ...]]]:
    """List the lists of numbers that are returned, or in a returned dict: path, name and shape."""
    for path, value in list_items(result):
        inside = list_items(value) if isinstance(value, Mapping) else []
        for each, item in [(path, value), *(((*path, *key), v) for key, v in inside)]:
            shape, key = measure(item), each[-1]
            if shape is not None:
                yield each, names.get(each) or (key if isinstance(key, str) else ""), shape
