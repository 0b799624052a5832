"""Lists of numbers in the place of arrays, as pure Python code has them: `dW[i][j] += d * x[j]`.

A list of equal lists of numbers is an array where its name and shape say so: one of gradients has
the shape of the array, or of the list, of which it has the gradient's name. Other lists are kept: a
list may also hold one number for each of several parameters.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt, find_code
from bptt_verifier.program.gradient_names import CONTAINERS, is_named_gradient
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.numpy_arrays import TracedArray
from bptt_verifier.program.own_globals import find_globals
from bptt_verifier.program.own_results import PARAMS, follow, is_float_array, list_items
from bptt_verifier.program.source_file import copy_deeply


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
    lists = [*list_measured(result, names)]
    found = frozenset(
        path
        for path, spelled, shape in lists
        if any(shape == of and is_gradient_at(path, spelled, name) for name, of in arrays)
    )
    whole = {shape for name, shape in arrays if name in PARAMS}
    alone = not found and len(lists) == 1 and lists[0][-1] in whole
    return frozenset({lists[0][0]}) if alone else found


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


def find_list_arguments(
    arguments: Mapping[str, Any], result: Any, names: Mapping[Keys, str]
) -> dict[str, Any]:
    """Find the lists of numbers among the arguments whose gradients are returned, as arrays.

    The gradient has the argument's name, or is the only list of its shape beside one `params`.
    """
    lists = [*list_measured(result, names)]
    return {
        key: join(value)
        for key, value in arguments.items()
        if (shape := measure(value)) is not None
        and (
            any(shape == of and is_gradient_at(p, spelled, key) for p, spelled, of in lists)
            or (key in PARAMS and [of for *_, of in lists] == [shape])
        )
    }


def list_attributes(owner: Any) -> Iterator[tuple[Keys, Any]]:
    """List the attributes of an object, and the values of dicts among them, with their paths."""
    for name, value in [*getattr(owner, "__dict__", {}).items()]:
        yield (name,), value
        if isinstance(value, Mapping):
            yield from (((name, key), each) for key, each in value.items())


def set_attribute(owner: Any, path: Keys, value: Any) -> None:
    """Set an attribute of an object, or the value of a dict that is one."""
    if len(path) == 1:
        setattr(owner, path[0], value)
    else:
        getattr(owner, path[0])[path[1]] = value


def is_gradient_of(path: Keys, parameter: Keys) -> bool:
    """True if an attribute is named as the gradient of another, or has its key in a dict."""
    same = path[-1] == parameter[-1] and len(path) > 1 and path[0] in CONTAINERS
    return same or is_named_gradient(path[-1], parameter[-1])


def join_left(owner: Any) -> None:
    """Join the lists of numbers among attributes that are gradients of arrays among them."""
    every = [*list_attributes(owner)]
    arrays = [(path, np.shape(value)) for path, value in every if is_float_array(value)]
    for path, value in every if arrays else ():
        shape = measure(value)
        if shape and any(shape == of and is_gradient_of(path, each) for each, of in arrays):
            set_attribute(owner, path, join(value))


def join_parameters(owner: Any) -> Any:
    """Join the lists of numbers among the attributes of an object that are parameters, in a copy.

    Its class uses a name of the gradient of each, or a dict of gradients. Returns the object itself
    where there are none.
    """
    names = {name for kind in type(owner).__mro__ for name in list_names(kind)}
    found = [
        path
        for path, value in list_attributes(owner)
        if measure(value) is not None
        and not is_named_by(path[-1], CONTAINERS)
        and (
            any(is_named_gradient(name, path[-1]) for name in names)
            or (len(path) > 1 and path[0] not in CONTAINERS and not names.isdisjoint(CONTAINERS))
        )
    ]
    copied = attempt(copy_deeply, owner, {}) if found else None
    if copied is None or isinstance(copied, Failure):
        return owner
    for path in found:
        set_attribute(copied, path, join(follow(vars(copied), path)))
    return copied


def is_named_by(key: Any, names: Collection[str]) -> bool:
    """True if a key is one of some names."""
    return isinstance(key, str) and key in names


def list_names(kind: type) -> Iterator[str]:
    """List the names and the texts that the methods of a class use."""
    for each in vars(kind).values():
        code = find_code(each) if callable(each) else None
        if code is not None and kind is not object:
            yield from (*code.co_names, *code.co_varnames)
            yield from (text for text in code.co_consts if isinstance(text, str))


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
