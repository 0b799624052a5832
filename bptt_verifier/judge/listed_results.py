"""Gradients that are returned in a container without indices, such as a generator or `.items()`."""

from collections.abc import Callable, Collection, ItemsView, Iterator, Mapping, ValuesView
from functools import wraps
from itertools import islice
from typing import Any

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.leaves import Keys, flatten, is_scalar

BESIDE = 3  # results beside the gradients, at most: the loss and the states of an LSTM
UNKNOWN = 100  # gradients at most, where their number is not known


def take_listed(gradients: Callable[..., Any], params: Any) -> Callable[..., Any]:
    """Make a function return a list where it returns an iterator, which may not end in a call."""
    tree = attempt(flatten, params)
    most = UNKNOWN if isinstance(tree, Failure) else len(tree.leaves)

    @wraps(gradients)
    def call(*given: Any, **named: Any) -> Any:
        return list_items(gradients(*given, **named), most)

    call.__module__ = __name__  # whose globals it has
    return call


def list_items(result: Any, most: int) -> Any:
    """List the items of an iterator or of a view of a dict; return anything else as it is.

    An iterator with more items than the gradients, `most` of them, and what may be beside them is
    returned as well: it may be endless. A pair of the loss and an iterator becomes one with a list.
    """
    pair = type(result) in (tuple, list) and len(result) == 2
    if pair and not is_listed(result[0]) and is_listed(result[1]) and is_scalar(result[0]):
        return result[0], list_items(result[1], most)
    if not is_listed(result):
        return result
    found = [*islice(result, most + BESIDE + 1)]
    return found if len(found) <= most + BESIDE else result


def is_listed(value: Any) -> bool:
    """True for an iterator, such as a generator, or a view of a dict; arrays iterate as well."""
    return isinstance(value, Iterator | ValuesView | ItemsView) and not hasattr(value, "__array__")


def read_pairs(result: Any, names: Collection[str], paths: Mapping[str, Keys]) -> Any:
    """Read a list of pairs of a name and a gradient as a dict; others as they are.

    Where parameters are nested, in `paths`, their structure may hold such pairs. So the names have
    to be those of all gradients or of all parts. The list may be beside the loss, in a pair.
    """
    if type(result) not in (tuple, list):
        return result
    if len(result) == 2 and type(result[1]) in (tuple, list) and attempt(is_scalar, result[0]):
        inner = read_pairs(result[1], names, paths)
        return result if inner is result[1] else (result[0], inner)
    pairs = all(type(each) in (tuple, list) and len(each) == 2 for each in result)
    if not (pairs and all(isinstance(name, str) for name, _ in result)):
        return result
    found, tops = dict(result), {path[0] for path in paths.values()}
    flat = all(len(path) == 1 for path in paths.values()) and all(isinstance(k, str) for k in tops)
    named = any(found.keys() - ({"loss"} - way) == way for way in ({*names}, tops))
    return found if (flat or named) and 0 < len(found) == len(result) else result
