"""Results that no parameter was matched to: none of them may be a gradient that is dropped.

A report that agrees says nothing of what it did not compare. A result that may be the gradient of
an array taken for data is therefore refused, with the name that would tell, unless that array has
the name of data. Every other array that is returned and not compared is listed.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import attempt
from bptt_verifier.program.carried_adjoints import read_adjoint, read_state
from bptt_verifier.program.data_names import TARGETS, find_kind, is_parameter_name
from bptt_verifier.program.leaves import Keys, name_leaf, walk
from bptt_verifier.program.own_calls import ArrayPlace
from bptt_verifier.program.own_results import (
    SHOWN,
    Results,
    are_equal,
    follow,
    is_array,
    is_float_array,
)
from bptt_verifier.program.torch_tensors import to_array
from bptt_verifier.program.unnamed_gradients import may_name_gradient

NAMELESS = "a result without a name"


def list_uncompared(results: Results, compared: Collection[Keys]) -> list[Keys]:
    """List the arrays returned that are not compared; a path that ends with "" is a structure."""
    known = [path[:-1] if path[-1] == "" else path for path in compared]
    found = results.list_in_order()
    return [path for path in found if not any(path[: len(each)] == each for each in known)]


def list_beside(arguments: Mapping[str, Any], structure: str) -> dict[str, ArrayPlace]:
    """List the float arrays among the arguments that are not in the structure of parameters."""
    found = [*walk(arguments, (), ())] if structure else []
    return {
        name_leaf(path, False): ArrayPlace("arguments", path, path, value)
        for path, value in found
        if path[0] != structure and is_float_array(value)
    }


def list_holders(compared: Collection[Keys]) -> set[Keys]:
    """List the structures, in what is returned, that hold gradients which are compared."""
    return {path[:-1] for path in compared if len(path) > 2}


def describe_dropped(
    results: Results,
    compared: Collection[Keys],
    arrays: Mapping[str, ArrayPlace],
    layer: bool = False,
) -> str:
    """Describe a result that may be the gradient of one of the `arrays`, which are taken for data.

    It has the shape of that, which has no name of data; of a `layer`, it may be an input or a
    state. It has the name of a gradient or of the array, no name, or a place in a structure of
    gradients. One that is returned as it was given is no gradient, nor is one in a cache, and an
    attribute that is returned is none of itself. The adjoint of a state, which may be that of
    another step, is listed alone.
    """
    caches = [("result", *path) for path in results.caches]
    holders = list_holders(compared)
    for path in list_uncompared(results, compared):
        value, names = follow(results.state, path), results.list_names(path)
        if any(path[: len(each)] == each for each in caches):
            continue
        beside = any(path[: len(each)] == each for each in holders)
        likely = [
            name
            for name, place in arrays.items()
            if np.shape(to_array(place.array)) == np.shape(to_array(value))
            and may_have_gradient(name, bool(names[0]) or beside, layer)
            and (beside or may_name_gradient(names) or names[0] == place.keys[-1])
            and not (read_adjoint(names[0]) and read_state(str(place.keys[-1])) is not None)
            and attempt(follow, results.state, (place.root, *place.path)) is not value
        ]
        if likely and not any(are_equal(value, place.array) for place in arrays.values()):
            what = f"the result {describe_path(path, results)}" if names[0] else NAMELESS
            return (
                f"expected each gradient under a name that tells of which array it is, found "
                f"{what}, which may be the gradient of {', '.join(likely)}; return it in a "
                f"variable such as d{likely[0].rpartition('.')[2]}, or name the parameters in the "
                "order of the gradients with --params"
            )
    return ""


def may_have_gradient(name: str, named: bool, layer: bool) -> bool:
    """True if a result of its shape may be the gradient of an array by this name.

    A result without a name may be a state as well, unless the array has the name of a parameter.
    """
    kind = find_kind(name.rpartition(".")[2])
    if kind:
        return layer and named and kind is not TARGETS
    return named or is_parameter_name(name)


def describe_uncompared(results: Results, compared: Collection[Keys]) -> str:
    """Describe the arrays returned that are not compared; empty where there are none.

    A structure in which nothing is compared, such as a cache, is named as a whole. Arguments that
    are returned as they were given are left out, and numbers without the name of a gradient that
    are in no structure of gradients.
    """
    holders = list_holders(compared)
    known = [path[:-1] if path[-1] == "" else path for path in compared]
    given = [v for _, v in walk(results.state.get("arguments", {}), (), ()) if is_array(v)]
    found = list[str]()
    for path in list_uncompared(results, compared):
        value = follow(results.state, path)
        names = results.list_names(path)
        beside = any(path[: len(each)] == each for each in holders)
        named = beside or (names[0] and may_name_gradient(names))
        number = np.ndim(to_array(value)) == 0 and not named
        if number or any(are_equal(value, each) for each in given):
            continue
        alone = (k for k in range(2, len(path)) if not any(p[:k] == path[:k] for p in known))
        found.append(describe_path(path[: next(alone, len(path))], results))
    listed = [*dict.fromkeys(found)]
    more = f" and {len(listed) - SHOWN} others" if len(listed) > SHOWN else ""
    return f"; returned, and not compared: {', '.join(listed[:SHOWN])}{more}" if listed else ""


def describe_path(path: Keys, results: Results) -> str:
    """Describe a result by its name, its keys, or its place among the others."""
    name = results.name(path)
    if name or not path[1:]:
        return name or "the result"
    keys = path[1:]
    outer = [results.name(path[:end]) for end in range(len(path), 1, -1)]
    start = next((n for n, each in enumerate(outer) if each), None)
    if start is not None:
        return outer[start] + "".join(f"[{key!r}]" for key in keys[len(keys) - start :])
    head = f"item {keys[0]}" if isinstance(keys[0], int) else str(keys[0])
    return head + "".join(f"[{key!r}]" for key in keys[1:])
