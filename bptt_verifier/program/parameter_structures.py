"""The argument that holds the parameters of a function as one structure: a dict, a list, an object.

It has a usual name, or is no plain list or tuple; or a returned list has the shapes of its arrays.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.data_names import find_kind
from bptt_verifier.program.leaves import find_node, flatten
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


def find_like_results(arguments: Mapping[str, Any], result: Any) -> tuple[str, ...]:
    """Find the lists of arrays, by no names of data, that have the shapes of returned lists.

    They are in the order of these. Empty unless one alone has them, or each has those of another.
    """
    returned = [value for _, value in list_items(result) if type(value) in (list, tuple)]
    shapes = [[attempt(np.shape, to_array(each)) for each in value] for value in returned]
    given = {
        name: [each.shape for each in value]
        for name, value in arguments.items()
        if type(value) in (list, tuple) and value and all(map(is_float_array, value))
        and not find_kind(name)
    }  # fmt: skip
    found = [[name for name, each in given.items() if each == every] for every in shapes]
    found = [names for names in found if names]
    names = tuple(each for every in found for each in every)
    return names if len(names) == len(found) == len({*names}) else ()


def name_by_argument(calls: Calls) -> dict[str, str]:
    """Name the arrays in a list after its argument, `theta[0]`; empty where they have keys."""
    tree = flatten(calls.params)
    listed = isinstance(calls.params, list | tuple) and not hasattr(calls.params, "_fields")
    arrays = all(type(value) is np.ndarray for value in tree.leaves.values())
    if not listed or not arrays or calls.structure == "params":
        return {}
    return {n: calls.structure + n.removeprefix("params") for n in tree.leaves}
