"""Gradients that have not the name of their array: which result is the gradient of which array.

`return [dW1, dW2]` returns those of `self.W = [A, B]`. Numbers in their names tell which is which,
or shapes, or the order in one list. They are found only where one way alone is possible: a wrong
guess would call right gradients wrong.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.data_names import (
    INPUTS,
    PARAMETER,
    STATES,
    find_kind,
    is_parameter_name,
)
from bptt_verifier.program.gradient_names import CONTAINERS, is_named_gradient, may_be_gradient
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.list_order import Direction, find_direction
from bptt_verifier.program.own_calls import ArrayPlace
from bptt_verifier.program.own_results import Results, follow, is_array
from bptt_verifier.program.torch_tensors import to_array

Shapes = Mapping[Keys, tuple[Any, ...]]
Tells = Callable[[Keys, Sequence[Keys]], Direction]
NUMBER = re.compile(r"\d+$")


def find_numbered(leaves: Mapping[str, Keys], results: Results) -> dict[str, Keys]:
    """Find gradients such as dW1 and dW2 of the arrays W[0] and W[1], numbered from 0 or 1.

    Where one of the list has no such gradient, the first or the last number has to tell which.
    """
    lists: dict[Keys, dict[int, str]] = {}
    for name, keys in leaves.items():
        indices = [key for key in keys if isinstance(key, int)]
        if len(indices) == 1 and any(isinstance(key, str) for key in keys):
            members = lists.setdefault(tuple(k for k in keys if isinstance(k, str)), {})
            members[indices[0]] = name
    named = {results.name(path) or path[-1]: path for path in reversed(results.list_in_order())}
    found: dict[str, Keys] = {}
    for keys, members in lists.items():
        numbers = range(min(members), max(members) + 2)
        numbered = {
            i: path
            for i in numbers
            for spelled, path in named.items()
            if any(is_named_gradient(spelled, f"{keys[-1]}{by}{i}") for by in ("", "_"))
        }
        starts = [i for i in numbers[:: len(numbers) - 1] if i in numbered]
        if len(starts) == 1:
            first = 0 if starts[0] == numbers[0] else 1
            found |= {n: numbered[i + first] for i, n in members.items() if i + first in numbered}
    return found


def find_unnamed(
    function: Callable[..., Any],
    places: Mapping[str, ArrayPlace],
    results: Results,
    others: Collection[Keys | None] = (),
) -> dict[str, Keys]:
    """Find the gradients of all parameters among results, by shapes or by the order in one list.

    The order alone proves nothing where the opposite one fits as well: a backward pass meets the
    last layer first. The results in `others` are none.
    """
    leaves = {name: places[name].keys for name in list_parameters(places)}
    shapes = {keys: np.shape(places[name].array) for name, keys in leaves.items()}
    given = {
        path: np.shape(to_array(follow(results.state, path)))
        for path in list_gradients(results)
        if path not in others
    }
    paired = pair_shapes(shapes, given)
    if not paired:
        tells = partial(tell_direction, function, results)
        paired = pair_lists(shapes, given, tells) or pair_order(shapes, given, tells)
        numbers = [NUMBER.search(results.name(path)) for path in paired.values()]
        order = [int(each[0]) for each in numbers if each]
        if order != sorted(order):
            return {}
    return {name: paired[keys] for name, keys in leaves.items() if keys in paired}


class Matches(NamedTuple):
    """Gradients without a name by their arrays, and those of them that only shapes tell of."""

    found: dict[str, Keys]
    guessed: frozenset[str] = frozenset()


def match_unnamed(
    places: Mapping[str, ArrayPlace], found: Mapping[str, Keys], results: Results, pair: bool
) -> Matches:
    """Match results without a name, beside those `found` by name, to the other arrays.

    One result for each argument of the forward pass of a `pair`, with its shape, are the gradients
    of these in order. Elsewhere a result is matched to the only array that has its shape, and that
    is a guess: it may be a state. So is an order that neither a name nor the shapes confirm. A name
    such as `dprev`, which is that of a gradient of no array, is as good as none.
    """
    shapes = {n: np.shape(to_array(place.array)) for n, place in places.items()}
    given = {
        path: np.shape(to_array(follow(results.state, path)))
        for path in results.list_in_order()
        if path[1:] and isinstance(path[-1], int)
    }
    names = [n for n, place in places.items() if place.root == "arguments"] if pair else []
    in_order = dict(zip(names, given, strict=False))
    words = [key for place in places.values() for key in place.keys if isinstance(key, str)]
    free = {
        path: shape
        for path, shape in given.items()
        for name in [results.name(path)]
        if path not in found.values()
        and may_be_gradient(name)
        and not any(is_named_gradient(name, word) for word in words)
    }
    if len(names) == len(given) > 0 and all(
        shapes[n] == given[p] and (found.get(n) == p or (n not in found and p in free))
        for n, p in in_order.items()
    ):
        missing = {n: path for n, path in in_order.items() if n not in found}
        confirmed = found or len({*given.values()}) == len(given)
        left = [shapes[n] for n in missing]
        doubtful = [n for n, p in missing.items() if results.name(p) and left.count(shapes[n]) > 1]
        return Matches(missing, frozenset(doubtful if confirmed else missing))
    others = {n: shapes[n] for n in places if n not in found and may_be_parameter(n, pair)}
    matched = {
        n: next(p for p in free if free[p] == shape)
        for n, shape in others.items()
        if [*free.values()].count(shape) == [*others.values()].count(shape) == 1
    }
    return Matches(matched, frozenset(matched))


def may_be_parameter(name: str, pair: bool) -> bool:
    """True for a parameter's name, and for that of an input or a state of a layer, a `pair`."""
    kind = find_kind(name)
    return (is_parameter_name(name) and not kind) or (pair and kind in (INPUTS, STATES))


def tell_direction(
    function: Callable[..., Any], results: Results, arrays: Keys, paths: Sequence[Keys]
) -> Direction:
    """Tell the direction of a list of gradients by the numbers in their names, or by the code.

    `arrays` are the keys of the list of arrays, and `paths` those of the gradients in order.
    """
    numbers = [NUMBER.search(results.name(path)) for path in paths]
    order = [int(each[0]) for each in numbers if each]
    if len(order) == len(paths) and order == sorted({*order}):
        return "forward"
    words = [key for key in arrays if isinstance(key, str)]
    return find_direction(function, words[-1] if words else "", paths[0][:-1])


def list_parameters(places: Mapping[str, ArrayPlace]) -> list[str]:
    """List the arrays whose names are not those of data or gradients.

    Arguments are none beside attributes and globals, and have usual names of parameters.
    """
    names = []
    for name, place in places.items():
        words = [key for key in place.keys if isinstance(key, str)] or [""]
        others = {str(each.keys[0]) for each in places.values()}
        slopes = words[0] in CONTAINERS or any(is_named_gradient(words[0], o) for o in others)
        if not (find_kind(words[-1]) or slopes):
            names.append(name)
    outside = [name for name in names if places[name].root != "arguments"]
    spelled = {n: [key for key in places[n].keys if isinstance(key, str)] for n in names}
    return outside or [n for n, keys in spelled.items() if keys and PARAMETER.match(keys[-1])]


def list_gradients(results: Results) -> list[Keys]:
    """List the results that may be gradients of any array, and arrays in attributes for them."""
    found = []
    for path in results.list_in_order():
        names = results.list_names(path)
        if may_name_gradient(names) and not find_kind(names[0][1:]):
            found.append(path)
    for path, value in walk(results.state.get("self"), (), ()):
        if path and path[0] in CONTAINERS and is_array(value):
            found.append(("self", *path))
    return found


def returns_no_gradient(results: Results) -> bool:
    """True if no result may be the gradient of an array by its name, data included."""
    caches = [("result", *path) for path in results.caches]
    paths = [path for path in results.list_in_order() if path[:2] not in caches]
    return not any(may_name_gradient(results.list_names(path)) for path in paths)


def may_name_gradient(names: Sequence[str]) -> bool:
    """True if the names on a path, the innermost first, may be those of a gradient."""
    return bool(CONTAINERS & {*names}) or may_be_gradient(names[0])


def pair_shapes(shapes: Shapes, given: Shapes) -> dict[Keys, Keys]:
    """Pair arrays with the only results of their shapes; empty where one has none, or several."""
    pairs = {keys: [p for p, other in given.items() if other == s] for keys, s in shapes.items()}
    one_each = len({*shapes.values()}) == len(shapes) and all(len(p) == 1 for p in pairs.values())
    return {keys: paths[0] for keys, paths in pairs.items()} if one_each else {}


def pair_lists(shapes: Shapes, given: Shapes, tells: Tells) -> dict[Keys, Keys]:
    """Pair lists of arrays with the only lists of results that have the same shapes.

    The shapes, or else the code, tell whether they are in order or reversed. A list of equal
    shapes follows one beside it whose shapes tell.
    """
    lists, others = group(shapes), group(given)
    if any(len(keys) < 2 for keys in lists.values()) and len(lists) == 1:
        return {}
    sets = [
        {keys: tuple(sorted(table[k] for k in members)) for keys, members in each.items()}
        for each, table in ((lists, shapes), (others, given))
    ]
    paired, found, sure = pair_shapes(sets[0], sets[1]), dict[Keys, Keys](), set[Direction]()
    doubtful = []
    for keys, path in paired.items():
        one, other = lists[keys], others[path]
        direction = tell_by_shapes([shapes[k] for k in one], [given[k] for k in other])
        if direction == "unknown" and len(one) > 1:
            direction = tells(keys, other)
            doubtful += [keys] if direction == "unknown" else []
        else:
            sure.add(direction)
        found |= dict(zip(one, other[:: -1 if direction == "reversed" else 1], strict=True))
    if not doubtful:
        return found if all(shapes[k] == given[p] for k, p in found.items()) else {}
    sure -= {"unknown"}
    if len(sure) != 1:
        return {}
    for keys in doubtful:
        step = -1 if sure == {"reversed"} else 1
        found |= dict(zip(lists[keys], others[paired[keys]][::step], strict=True))
    return found


def tell_by_shapes(shapes: Sequence[Any], given: Sequence[Any]) -> Direction:
    """Tell the direction of a list by the shapes in it, where one direction alone fits."""
    forward, backward = [*given] == [*shapes], [*given][::-1] == [*shapes]
    if forward == backward:
        return "unknown"
    return "forward" if forward else "reversed"


def pair_order(shapes: Shapes, given: Shapes, tells: Tells) -> dict[Keys, Keys]:
    """Pair the arrays in one list with those in the only list of as many results.

    Shapes, or else the code, tell whether they are in order or reversed. Where no order fits,
    some have wrong shapes: then it is the order of the list unless others have these shapes.
    """
    if len({keys[:1] for keys in shapes}) != 1 or any(len(keys) < 2 for keys in shapes):
        return {}
    found = list[dict[Keys, Keys]]()
    seen = set()
    for length in (2, 1):
        for start in {path[:length] for path in given}:
            paths = [path for path in given if path[:length] == start and len(path) > length]
            if len(paths) == len(shapes) and tuple(paths) not in seen:
                seen.add(tuple(paths))
                found += filter(None, [pair_one(shapes, paths, given, start, tells)])
    return found[0] if len(found) == 1 else {}


def pair_one(
    shapes: Shapes, paths: Sequence[Keys], given: Shapes, start: Keys, tells: Tells
) -> dict[Keys, Keys]:
    """Pair the arrays of one list with as many results; empty where more than one way is left."""
    layers = [[*each] for _, each in groupby(range(len(shapes)), lambda i: [*shapes][i][:2])]
    orders = [
        [*range(len(shapes))],
        [i for layer in layers[::-1] for i in layer],
        [*range(len(shapes))][::-1],
    ]
    ways = [dict(zip([[*shapes][i] for i in order], paths, strict=True)) for order in orders]
    ways = [{keys: way[keys] for keys in shapes} for way in ways]
    fits = [way for way in ways if all(shapes[k] == given[p] for k, p in way.items())]
    different = [way for n, way in enumerate(fits) if way not in fits[:n]]
    if len(different) == 1:
        return different[0]
    arrays = next(iter(shapes))[:1]
    direction = tells(arrays, [(*start, i) for i in range(len(layers))])
    if len(paths) == len(layers):
        direction = tells(arrays, paths)
    if direction == "reversed":
        back = [way for way in different if way != ways[0]]
        return back[0] if len(back) == 1 else {} if different else ways[1]
    same = [path[len(start) :] for path in paths] == [keys[1:] for keys in shapes]
    if direction == "forward":
        return ways[0] if ways[0] in different or (same and not different) else {}
    wrong = [k for k, p in ways[0].items() if shapes[k] != given[p]]
    elsewhere = {given[ways[0][k]] for k in wrong} & {shapes[k] for k in wrong}
    scores = [sum(shapes[k] == given[p] for k, p in way.items()) for way in ways[:2]]
    return ways[0] if same and wrong and not elsewhere and scores[0] > scores[1] else {}


def group(paths: Mapping[Keys, Any]) -> dict[Keys, list[Keys]]:
    """Group paths by the list that they lead to."""
    found: dict[Keys, list[Keys]] = {}
    for path in paths:
        found.setdefault(path[:-1], []).append(path)
    return found
