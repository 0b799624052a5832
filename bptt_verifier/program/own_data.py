"""Data of the user's own code: which arrays are no parameters, though a result has a gradient name.

A name such as `dy` may be that of the gradient of the argument `y`, or of a prediction that the
code calls y as well. A gradient of what may be data is therefore not compared where others are.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.data_names import (
    INPUTS,
    PARAMETER,
    STATES,
    TARGETS,
    find_kind,
    is_parameter_name,
)
from bptt_verifier.program.gradient_names import find_gradients
from bptt_verifier.program.leaves import Keys, convert_like, name_leaf, walk
from bptt_verifier.program.own_calls import ArrayPlace, Calls
from bptt_verifier.program.own_results import (
    SHOWN,
    Results,
    are_equal,
    follow,
    is_array,
    is_float_array,
)
from bptt_verifier.program.torch_tensors import to_array

DIRECTIONS = 3  # in which a gradient is compared with differences
# A weight or a bias, of which there are several: W_hy, Wxh, b2.
LIKE_OTHERS = re.compile(r"([WUVwub]_?|(?:bias|weight)(?:_|(?=\d)))(?:(?![st]$)[a-z]|[a-z]{2}|\d)")
INITIAL = re.compile(r"0$")  # ends the name of an initial state
APART = 0.01  # relative; between a gradient of the loss and that of another array of the same name


def choose_parameters(
    found: Mapping[str, Keys], places: Mapping[str, ArrayPlace], pair: bool
) -> dict[str, Keys]:
    """Choose the gradients that are surely those of parameters, where some are.

    Targets are none, nor are inputs, and states among the arguments but initial ones, unless one
    of a `pair` of functions returns their gradients, as a layer does. Beside parameters that are
    global, or attributes, an argument is none.
    """
    kinds = {n: find_kind_of_place(places[n], pair) for n in found}
    given = {n for n in found if places[n].root == "arguments"}
    arguments = {str(place.path[-1]) for place in places.values() if place.root == "arguments"}
    if not any(find_kind(name) is STATES and not name.startswith("c") for name in arguments):
        kinds = {n: frozenset() if n == "c" else kind for n, kind in kinds.items()}  # a bias
    sure = {n for n, kind in kinds.items() if not kind}
    if sure - given:
        return {n: p for n, p in found.items() if n in (sure | states_of(kinds)) - given}
    if sure and not pair:
        return {n: p for n, p in found.items() if n in sure or is_initial(n)}
    if {*kinds.values()} == {TARGETS} and len(places) > len(found):
        return {}
    kept = {n: p for n, p in found.items() if kinds[n] is not TARGETS}
    return kept or dict(found)


def find_kind_of_place(place: ArrayPlace, pair: bool) -> frozenset[str]:
    """Find the kind of data of an array by its outermost name; none for `W` of a layer `inp`."""
    path = place.path[pair and place.root == "arguments" :]
    inside = len(path) > 1 and PARAMETER.match(str(path[-1])) and not find_kind(path[-1])
    return frozenset() if inside else find_kind(path[0])


def is_initial(name: str) -> bool:
    """True for the name of an initial state, whose gradient `dh0` is that of no other array."""
    return find_kind(name) is STATES and bool(INITIAL.search(name))


def states_of(kinds: Mapping[str, frozenset[str]]) -> set[str]:
    """Find the names of states."""
    return {name for name, kind in kinds.items() if kind is STATES}


def is_sure(name: str, places: Mapping[str, ArrayPlace]) -> bool:
    """True for an attribute, a global or an argument with a usual name of a parameter."""
    outside = name in places and places[name].root != "arguments"
    word = name.rpartition(".")[2]
    return not find_kind(word) and (outside or bool(PARAMETER.match(word)))


class Doubt(NamedTuple):
    """An array of which the gradient returned is not that of the loss.

    `by_prediction` is true if it is that of a prediction which the loss compares with the array:
    the opposite, or a multiple of a prediction less the array.
    """

    name: str
    by_prediction: bool
    same_shape: bool = True


def find_doubts(
    names: Collection[str],
    params: Mapping[str, Any],
    slopes: Callable[[Any], Any],
    loss: Callable[[Any], Any],
) -> list[Doubt]:
    """Find those of the named arrays whose gradients are not those of the loss."""
    found = (attempt(find_doubt, name, params, slopes, loss) for name in names)
    return [each for each in found if isinstance(each, Doubt)]


def find_doubt(
    name: str,
    params: Mapping[str, Any],
    slopes: Callable[[Any], Any],
    loss: Callable[[Any], Any],
) -> Doubt | None:
    """Compare a gradient with differences of the loss; None where they agree.

    One of another shape is left to the judge, unless it has not even as many axes.
    """
    given = np.asarray(to_array(params[name]), float)
    rng = np.random.default_rng(0)
    along = [rng.normal(size=given.shape) for _ in range(DIRECTIONS)]

    def move(change: Any) -> dict[str, Any]:
        return dict(params) | {name: convert_like(given + change, params[name])}

    def differ(v: Any) -> float:
        up, down = (float(to_array(loss(move(step * v)))) for step in (1e-4, -1e-4))
        return (up - down) / 2e-4

    def ask(change: Any) -> Any:
        return np.asarray(to_array(slopes(move(change))[1][name]), float)

    true, found = np.array([differ(v) for v in along]), ask(np.zeros(given.shape))
    if found.shape != given.shape:
        return Doubt(name, False, False) if found.ndim != given.ndim else None
    here = np.array([np.sum(found * v) for v in along])
    if are_near(here, true):
        return None
    changes = attempt(lambda: [ask(v) - found for v in along])
    linear = not isinstance(changes, Failure) and is_less_array(changes, along)
    return Doubt(name, linear or are_near(here, -true))


def are_near(one: Any, other: Any) -> bool:
    """True if most of two lists of slopes differ by less than a gradient from another one.

    A kink between the points of a difference spoils one of them.
    """
    near = np.abs(one - other) <= APART * np.maximum(np.abs(one), np.abs(other))
    return bool(2 * np.sum(near) > np.size(near))


def is_less_array(changes: Sequence[Any], along: Sequence[Any]) -> bool:
    """True if a gradient changes by one negative multiple of the changes of an array."""
    factors = [np.sum(c * v) / np.sum(v * v) for c, v in zip(changes, along, strict=True)]
    least = -min(map(abs, factors), default=0.0)
    near = all(
        np.all(np.abs(c - least * v) <= APART * abs(least) * np.max(np.abs(v)))
        for c, v in zip(changes, along, strict=True)
    )
    return near and least < 0


def find_targets(
    doubts: Sequence[Doubt],
    arguments: Mapping[str, Any],
    params: Mapping[str, Any],
    more: bool,
    carried: Collection[str],
) -> frozenset[str]:
    """Find the arrays in doubt that are surely targets: what a prediction is compared with.

    It has the steps or rows of an input, which no parameter has, and no other array can be the
    target; `more` is true if there are others than the arguments. The gradients of parameters are
    computed from that of the prediction, as `carried` has it: a parameter's own gradient with a
    wrong sign has the same numbers, and ends there.
    """
    if more or len(doubts) != 1:
        return frozenset()
    kinds = {name: find_kind(name) for name in arguments}
    unsure = {each.name for each in doubts}
    others = [
        name
        for name, value in arguments.items()
        if name not in params
        and is_array(value)
        and np.size(to_array(value)) > 1
        and (kinds[name] is TARGETS or (is_float_array(value) and not is_parameter_name(name)))
    ]
    if others:
        return frozenset()
    sizes = {s for n, v in params.items() if n not in unsure for s in np.shape(to_array(v))}
    rows = find_rows(arguments, INPUTS) - sizes
    return frozenset(
        each.name
        for each in doubts
        if each.by_prediction
        and each.name in carried
        and {*np.shape(to_array(params[each.name]))[:1]} & rows
    )


def find_rows(arguments: Mapping[str, Any], *kinds: frozenset[str]) -> set[int]:
    """Find the numbers of steps or rows of the arguments that have names of these kinds."""
    found = {n: np.shape(to_array(v)) for n, v in arguments.items() if is_array(v)}
    return {shape[0] for n, shape in found.items() if shape and find_kind(n) in kinds}


def find_wrong(
    doubts: Sequence[Doubt], arguments: Mapping[str, Any], params: Mapping[str, Any]
) -> frozenset[str]:
    """Find the arrays in doubt that are no data: parameters whose gradients are wrong.

    What is no gradient of a prediction, for an array without an axis of the data, is that.
    """
    sizes = {
        size
        for name, value in arguments.items()
        if find_kind(name) and is_array(value)
        for size in np.shape(to_array(value))[: max(1, np.ndim(to_array(value)) - 1)]
    }
    return frozenset(
        each.name
        for each in doubts
        if not each.by_prediction
        and each.same_shape
        and sizes
        and not sizes & {*np.shape(to_array(params[each.name]))}
    )


def require_no_doubt(code: str, doubts: Sequence[Doubt], sure: Sequence[str]) -> None:
    """Raise ValueError where an array may be a parameter with a wrong gradient, or data."""
    others = [each.name for each in doubts]
    for name, by_prediction, _ in doubts:
        like = f", as of a prediction that is compared with {name}" if by_prediction else ""
        raise ValueError(
            f"{code}: expected the gradient of the loss in {name}, if that is a parameter, "
            f"found another{like}; name the parameters: --params {','.join([*sure, *others])} if "
            f"all of these are some, or {','.join(sure)} alone"
        )


def require_no_wrong_guess(code: str, doubts: Sequence[Doubt], spelled: Mapping[str, str]) -> None:
    """Raise ValueError where a result has only the shape of a gradient.

    `spelled` has the names of such results, empty or of no array, by those of the arrays.
    """
    for name, *_ in doubts:
        result = spelled[name] and f"the result {spelled[name]}"
        raise ValueError(
            f"{code}: expected the gradient of {name} in {result or 'a result without a name'} "
            f"that has its shape, found other numbers; return the gradient in a variable such as "
            f"d{name}, or name the parameters in the order of the gradients with --params"
        )


def find_returned(
    places: Mapping[str, ArrayPlace], found: Mapping[str, Keys], results: Results
) -> dict[str, Keys]:
    """Find parameters that are returned in the places of their gradients, as in `dWx, Wh, dWy`.

    They have usual names of parameters, no gradient, and stand in the list of the others'.
    """
    beside = {path[:-1] for path in found.values() if path[:1] == ("result",)}
    missing = dict[str, Keys]()
    for path in results.list_in_order():
        spelled = results.list_names(path)[0]
        for name, place in places.items():
            value = follow(results.state, path)
            here = spelled == place.keys[-1] and len(place.keys) == 1
            same = here or are_equal(value, place.array)
            alike = np.shape(to_array(value)) == np.shape(to_array(place.array))
            free = path[:-1] in beside and path not in found.values() and name not in found
            if free and same and alike and is_sure(name, places):
                missing.setdefault(name, path)
    return missing


def find_left_out(
    calls: Calls,
    places: Mapping[str, ArrayPlace],
    sources: Mapping[Keys, Keys],
    chosen: Collection[Keys],
    state: Mapping[str, Any],
) -> dict[str, Keys]:
    """Find the arrays that are no parameters, and whose gradients are returned by their names.

    `chosen` are the paths of the gradients that are compared. An array that is returned as it was
    given, as in a cache, is no gradient.
    """
    arrays = {n: (place.keys, place.array) for n, place in places.items()}
    for path, value in walk(calls.roots["arguments"], (), ()):
        inner = isinstance(calls.roots["arguments"][path[0]], dict) and (
            calls.pair or "self" in calls.roots
        )
        keys = path[1:] if inner and len(path) > 1 else path
        if path[0] != calls.structure and is_float_array(value):
            arrays.setdefault(name_leaf(keys, False), (keys, value))
    params = {*calls.leaves} if calls.structure else {*calls.places}
    left = {n: keys for n, (keys, _) in arrays.items() if n not in params}
    beside = {path[:-1] for path in chosen}
    return {
        name: path
        for name, path in find_gradients(left, sources).items()
        if path not in chosen
        and (path[-1] != left[name][-1] or path[:-1] in beside)
        and not are_equal(follow(state, path), arrays[name][1])
    }


def find_data(calls: Calls, gradients: Collection[Keys]) -> dict[str, Any]:
    """Find the arrays among the arguments and globals that are neither parameters nor gradients."""
    params, found = {id(place.array) for place in calls.places.values()}, dict[str, Any]()
    held = [place.array for place in calls.places.values() if type(place.array) is np.ndarray]
    held += [v for _, v in walk(calls.params, (), ())] if calls.structure else []
    for root in ("arguments", "globals"):
        for path, value in walk(calls.roots.get(root, {}), (), ()):
            own = path[0] == calls.structure or id(value) in params or (root, *path) in gradients
            own = own or any(may_share(value, each) for each in held)
            if not own and is_array(value) and np.size(to_array(value)) > 1:
                of_method = isinstance(calls.roots[root][path[0]], dict) and "self" in calls.roots
                found[name_leaf(path[1:] if of_method else path, False)] = value
    return found


def may_share(value: Any, other: Any) -> bool:
    """True if two arrays of NumPy may have entries in common."""
    arrays = type(value) is type(other) is np.ndarray
    return arrays and np.may_share_memory(value, other)


def is_of_part(
    leaf: Keys, source: Keys, place: ArrayPlace | None, state: Mapping[str, Any]
) -> bool:
    """True if a gradient is of a part of the inputs or of a state, such as that of the last x."""
    if place is None or not find_kind(leaf[-1]):
        return False
    return bool(np.shape(follow(state, source)) != np.shape(place.array))


def require_gradients_of_alike(
    called: str, chosen: Mapping[str, ArrayPlace], rest: Mapping[str, ArrayPlace]
) -> None:
    """Require the gradient of each other array whose name is that of a parameter beside it.

    `by` beside `bh`, of which there is a gradient, is no data: a forgotten gradient would pass.
    Raises ValueError, with its name.
    """
    for name, place in rest.items():
        held = place.root, place.path[:-1]
        axes = np.ndim(to_array(place.array))
        beside = (
            n
            for n, each in chosen.items()
            if (each.root, each.path[:-1]) == held and np.ndim(to_array(each.array)) == axes
        )
        other = next((each for each in beside if are_alike(name, each)), None)
        if other is not None:
            raise ValueError(
                f"{called}: expected the gradient of {name}, as that of {other}, found none; "
                f"return it, or if {name} is data, name the parameters with --params "
                f"{','.join(chosen)}"
            )


def are_alike(name: str, other: str) -> bool:
    """Tell whether two names are those of weights or biases that differ by an index alone."""
    one, two = (LIKE_OTHERS.fullmatch(each.rpartition(".")[2]) for each in (name, other))
    return one is not None and two is not None and one[1] == two[1]


def describe_parameters(
    chosen: Mapping[str, ArrayPlace],
    places: Mapping[str, ArrayPlace],
    gradients: Collection[Keys],
    left_out: Collection[str],
) -> str:
    """Describe which arrays are parameters, and which are data."""
    data = [
        name
        for name, place in places.items()
        if name not in {*chosen, *left_out} and (place.root, *place.path) not in gradients
    ]
    taken = f"; without a gradient, and taken for data: {', '.join(data[:SHOWN])}" if data else ""
    return f"; parameters: {', '.join(chosen)}{taken}"


def describe_left_out(names: Collection[str]) -> str:
    """Describe the gradients that are returned, and not compared."""
    if not names:
        return ""
    listed = ", ".join([*names][:SHOWN])
    return f"; not compared: the gradient of {listed}, taken for data unless --params names it"


def list_arrays(name: str, leaves: Collection[str]) -> list[str]:
    """List the arrays of a list by its name, as W[0] and W[1] of W; any other name is kept."""
    inside = [each for each in leaves if each.startswith(f"{name}[")]
    return [name] if name in leaves or not inside else inside
