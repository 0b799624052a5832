"""Data of the user's own code: which arrays are no parameters, though a result has a gradient name.

A name such as `dy` may be that of the gradient of the argument `y`, or of a prediction that the
code calls y as well. A gradient of what may be data is therefore not compared where others are.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.gradient_names import find_gradients
from bptt_verifier.program.leaves import Keys, convert_like, name_leaf, walk
from bptt_verifier.program.own_calls import ArrayPlace, Calls
from bptt_verifier.program.own_results import (
    SHOWN,
    are_equal,
    follow,
    is_array,
    is_float_array,
)
from bptt_verifier.program.torch_tensors import to_array

STATES = frozenset("h hs hprev h_prev c cprev c_prev s state states hidden".split())
INPUTS = frozenset(
    "x xs xt x_t x_train input inputs data batch seq seqs sequence sequences features observation "
    "observations obs images samples tokens mask masks".split()
)
TARGETS = frozenset(
    "y ys yt y_t y_true ytrue y_train target targets label labels truth desired expected "
    "reward rewards action actions".split()
)


# Names of parameters: short ones such as `wxh` and `b_out`, words, and those of a capital letter.
PARAMETER = re.compile(
    r"[A-Z]|[wuvbk](_|\d|\w{0,3}$)|(syn|theta|alpha|beta|gamma|scale|shift|gain|emb|param|weight|bias"
    r"|kernel|filter|conv|dense|layer|mat|lin|proj|gate)"
)
APART = 0.01  # relative; between a gradient of the loss and that of another array of the same name


def find_kind(key: Any) -> frozenset[str]:
    """Find the set of names of data that a name is one of; empty for that of a parameter."""
    name = str(key).rstrip("_0123456789")
    name = name if name in {"C", "S"} else name.lower()  # these are matrices
    return next((kind for kind in (STATES, INPUTS, TARGETS) if name in kind), frozenset())


def choose_parameters(
    found: Mapping[str, Keys], places: Mapping[str, ArrayPlace], pair: bool
) -> dict[str, Keys]:
    """Choose the gradients that are surely those of parameters, where some are.

    Targets are none, nor are inputs, and states among the arguments, unless one of a `pair` of
    functions returns their gradients, as a layer does. Beside parameters that are global, or
    attributes, an argument is none.
    """
    kinds = {n: find_kind(places[n].path[pair and places[n].root == "arguments"]) for n in found}
    given = {n for n in found if places[n].root == "arguments"}
    arguments = {str(place.path[-1]) for place in places.values() if place.root == "arguments"}
    if not any(find_kind(name) is STATES and not name.startswith("c") for name in arguments):
        kinds = {n: frozenset() if n == "c" else kind for n, kind in kinds.items()}  # a bias
    sure = {n for n, kind in kinds.items() if not kind}
    if sure - given:
        return {n: p for n, p in found.items() if n in (sure | states_of(kinds)) - given}
    if sure and not pair:
        return {n: p for n, p in found.items() if n in sure}
    if {*kinds.values()} == {TARGETS} and len(places) > len(found):
        return {}
    kept = {n: p for n, p in found.items() if kinds[n] is not TARGETS}
    return kept or dict(found)


def states_of(kinds: Mapping[str, frozenset[str]]) -> set[str]:
    """Find the names of states."""
    return {name for name, kind in kinds.items() if kind is STATES}


def is_parameter_name(name: Any) -> bool:
    """True for a name of a parameter, or of inputs and states, whose gradients a layer returns."""
    return bool(PARAMETER.match(str(name)) or find_kind(name))


def require_parameters(
    code: str, names: Collection[str], params: Mapping[str, Any], slopes: Callable[[Any], Any],
    loss: Callable[[Any], Any],
) -> None:  # fmt: skip
    """Raise ValueError where one of the named arguments may be data rather than a parameter.

    It has no usual name of a parameter, and the gradient that is returned is not that of the loss:
    `dgoal` may be the gradient of the prediction that is compared with `goal`.
    """
    given = {n: np.asarray(to_array(v), float) for n, v in params.items()}
    rng = np.random.default_rng(0)
    for name in names:
        along = rng.normal(size=given[name].shape)

        def at(step: float, name: str = name, along: Any = along) -> float:
            moved = convert_like(given[name] + step * along, params[name])
            return float(to_array(loss(dict(params) | {name: moved})))

        by_code = attempt(lambda: slopes(params)[1])
        slope = attempt(lambda at=at: (at(1e-4) - at(-1e-4)) / 2e-4)
        if isinstance(by_code, Failure) or isinstance(slope, Failure):
            continue
        found = float(np.sum(to_array(by_code[name]) * along))
        if abs(found - slope) > APART * max(abs(found), abs(slope)):
            others = ",".join(n for n in params if n not in names)
            raise ValueError(
                f"{code}: expected the gradient of the loss in {name}, if that is a parameter, "
                f"found another, as of a prediction that is compared with {name}; name the "
                f"parameters, such as --params {others}"
            )


def find_left_out(
    calls: Calls,
    places: Mapping[str, ArrayPlace],
    sources: Mapping[Keys, Keys],
    chosen: Collection[Keys],
    state: Mapping[str, Any],
) -> list[str]:
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
    return [
        name
        for name, path in find_gradients(left, sources).items()
        if path not in chosen
        and (path[-1] != left[name][-1] or path[:-1] in beside)
        and not are_equal(follow(state, path), arrays[name][1])
    ]


def find_data(calls: Calls, gradients: Collection[Keys]) -> dict[str, Any]:
    """Find the arrays among the arguments and globals that are neither parameters nor gradients."""
    params, found = {id(place.array) for place in calls.places.values()}, dict[str, Any]()
    for root in ("arguments", "globals"):
        for path, value in walk(calls.roots.get(root, {}), (), ()):
            own = path[0] == calls.structure or id(value) in params or (root, *path) in gradients
            if not own and is_array(value) and np.size(to_array(value)) > 1:
                of_method = isinstance(calls.roots[root][path[0]], dict) and "self" in calls.roots
                found[name_leaf(path[1:] if of_method else path, False)] = value
    return found


def is_of_part(
    leaf: Keys, source: Keys, place: ArrayPlace | None, state: Mapping[str, Any]
) -> bool:
    """True if a gradient is of a part of the inputs or of a state, such as that of the last x."""
    if place is None or not find_kind(leaf[-1]):
        return False
    return bool(np.shape(follow(state, source)) != np.shape(place.array))


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
