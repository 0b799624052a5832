"""The argument that holds the parameters of a function as one structure: a dict, a list, an object.

It has a usual name, or is no plain list or tuple; or a returned list has the shapes of its arrays.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.data_names import find_kind
from bptt_verifier.program.gradient_names import may_be_gradient
from bptt_verifier.program.leaves import Keys, find_node, flatten
from bptt_verifier.program.own_calls import Calls
from bptt_verifier.program.own_results import PARAMS, is_float_array, list_items
from bptt_verifier.program.torch_tensors import to_array

LAYERS = frozenset("layers blocks cells".split())  # names of lists with a dict for each layer


def find_structure(arguments: Mapping[str, Any], chosen: Sequence[str]) -> str:
    """Find the argument that holds the parameters as a structure; empty if there is none."""
    if len(chosen) == 1 and chosen[0] in arguments:
        return chosen[0] if find_node(arguments[chosen[0]]) else ""
    if len(chosen) > 1 and all(name in arguments for name in chosen):
        return ""
    holding = []
    for name, value in arguments.items():
        node = find_node(value)
        plain = isinstance(value, list | tuple) and not hasattr(value, "_fields")
        parts = name in LAYERS and node and all(isinstance(v, Mapping) for v in value)
        if node and (name in PARAMS or parts or not plain):
            found = attempt(flatten, value)
            holding += [] if isinstance(found, Failure) else [name]
    return next((name for name in holding if name in PARAMS), next(iter(holding), ""))


def find_like_results(
    arguments: Mapping[str, Any], result: Any, names: Mapping[Keys, str] = MappingProxyType({})
) -> tuple[str, ...]:
    """Find the lists of arrays, by no names of data, that have the shapes of returned lists.

    One is that if no other is. Several are, in the order of the returned lists, if each has the
    shapes of another, by which its order shows: they are not the same from the last to the first.
    Then the returned lists have no `names` of other things than gradients, such as states.
    """
    returned = [(path, v) for path, v in list_items(result) if type(v) in (list, tuple)]
    shapes = {path: [attempt(np.shape, to_array(each)) for each in v] for path, v in returned}
    given = {
        name: [each.shape for each in value]
        for name, value in arguments.items()
        if type(value) in (list, tuple) and value and all(map(is_float_array, value))
        and not find_kind(name)
    }  # fmt: skip
    found = [name for name, each in given.items() if each in shapes.values()]
    if len(found) < 2:
        return (*found,)
    fitting = {p: [name for name in found if given[name] == each] for p, each in shapes.items()}
    ordered = [name for fits in fitting.values() for name in fits]
    named = [names.get(path, "") for path, fits in fitting.items() if fits]
    shown = all(given[name] != given[name][::-1] or len(given[name]) == 1 for name in found)
    one_each = len(ordered) == len({*ordered}) == sum(map(bool, fitting.values()))
    return tuple(ordered) if all(map(may_be_gradient, named)) and shown and one_each else ()


def name_by_argument(calls: Calls) -> dict[str, str]:
    """Name the arrays in a list after its argument, `theta[0]`; empty where they have keys."""
    tree = flatten(calls.params)
    listed = isinstance(calls.params, list | tuple) and not hasattr(calls.params, "_fields")
    arrays = all(type(value) is np.ndarray for value in tree.leaves.values())
    if not listed or not arrays or calls.structure == "params":
        return {}
    return {n: calls.structure + n.removeprefix("params") for n in tree.leaves}
