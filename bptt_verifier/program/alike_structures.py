"""Structures of gradients: those with the keys of a structure of parameters, under any name.

`backward(layers, caches, dout)` returns a list with a dict for each layer, with the keys of
`layers`. The keys say which gradient is of which array, whatever the two structures are called.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.data_names import find_kind
from bptt_verifier.program.gradient_names import CONTAINERS
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.list_order import find_direction
from bptt_verifier.program.own_calls import ArrayPlace
from bptt_verifier.program.own_results import PARAMS, Results, follow, is_array
from bptt_verifier.program.torch_tensors import to_array

Shapes = Mapping[Keys, tuple[int, ...]]


def find_alike(
    function: Callable[..., Any], places: Mapping[str, ArrayPlace], results: Results, pair: bool
) -> dict[str, Keys]:
    """Find the gradients of the arrays in a structure, in the only one with the same keys.

    Beside others with these keys, it is the one with a name of gradients.
    """
    structures: dict[Keys, dict[Keys, str]] = {}
    for name, place in places.items():
        outer = 2 if pair and place.root == "arguments" else 1  # an argument of forward
        holder, keys = (place.root, *place.path[:outer]), place.path[outer:]
        if any(isinstance(key, str) for key in keys):
            structures.setdefault(holder, {})[keys] = name
    found = dict[str, Keys]()
    for holder, names in structures.items():
        given = {keys: places[name].array for keys, name in names.items()}
        path = None if find_kind(holder[-1]) else find_structure(given, results)
        if path is None:
            continue
        shapes = {keys: np.shape(to_array(array)) for keys, array in given.items()}
        others = {k: np.shape(to_array(follow(results.state, (*path, *k)))) for k in shapes}
        turned = turn_around(function, str(holder[-1]), shapes, others, path)
        found |= {name: (*path, *turned[keys]) for keys, name in names.items()}
    return found


def find_structure(given: Mapping[Keys, Any], results: Results) -> Keys | None:
    """Find the only structure of results, or of attributes for gradients, with the keys of arrays.

    One that holds the same numbers is no gradient, and nor is a cache.
    """
    paths = [("result", *path) for path, _ in results.walk_result()]
    for root in ("self", "globals"):
        for path, value in walk(results.state.get(root), (), ()):
            if path and path[0] in CONTAINERS and is_array(value):
                paths.append((root, *path))
    inside: dict[Keys, set[Keys]] = {}
    for path in paths:
        for end in range(1, len(path)):
            inside.setdefault(path[:end], set()).add(path[end:])
    names = {p: {results.name(p) or p[-1]} for p, keys in inside.items() if keys == given.keys()}
    alike = [
        path
        for path, name in names.items()
        if not name & {*PARAMS}
        and not (path[0] == "result" and results.is_cache(path[1:]))
        and not all(
            np.array_equal(to_array(follow(results.state, (*path, *keys))), to_array(array))
            for keys, array in given.items()
        )
    ]
    alike = alike if len(alike) < 2 else [path for path in alike if names[path] & CONTAINERS]
    return alike[0] if len(alike) == 1 else None


def turn_around(
    function: Callable[..., Any], name: str, shapes: Shapes, given: Shapes, path: Keys
) -> dict[Keys, Keys]:
    """Pair the keys of a list of layers with those of their gradients, which may be reversed.

    The shapes tell, or else the code of the function that fills the list.
    """
    same = {keys: keys for keys in shapes}
    if not all(isinstance(keys[0], int) for keys in shapes):
        return same
    last = max(keys[0] for keys in shapes)
    turned = {keys: (last - keys[0], *keys[1:]) for keys in shapes}
    fits = [
        all(given.get(way[keys]) == shape for keys, shape in shapes.items())
        for way in (same, turned)
    ]
    if turned.keys() != {*turned.values()}:  # layers with other keys
        return same
    if fits[0] == fits[1]:
        return turned if find_direction(function, name, path) == "reversed" else same
    return turned if fits[1] else same
