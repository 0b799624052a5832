"""Names of gradients that tell a part of the name of their array: shapes have to tell the rest.

`return J, grad` returns the gradient of the only argument of its shape; `gx` is that of `Wx`, and
`da_next`, the adjoint that a loop over the steps carries, that of the state `a0` before them.
Nothing is read where two arrays, or two results, fit.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt, find_code
from bptt_verifier.program.carried_adjoints import find_carried, match_one_to_one, moves_loss
from bptt_verifier.program.data_names import TARGETS, find_kind
from bptt_verifier.program.gradient_names import (
    AFTER,
    BEFORE,
    CONTAINERS,
    is_named_gradient,
    may_be_gradient,
)
from bptt_verifier.program.leaves import Keys, flatten, walk
from bptt_verifier.program.own_calls import VECTORS, ArrayPlace, Calls
from bptt_verifier.program.own_results import Results, follow
from bptt_verifier.program.torch_tensors import to_array

# Names of the gradient of all parameters in one array, beside those of structures of gradients.
BARE = frozenset(
    "dJ dL dE dloss nabla jac gradJ grad_J flat_grad grad_flat grad_vec full_grad".split()
)
VECTOR = re.compile(r"param|theta|weight", re.IGNORECASE)  # in the name of all parameters
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


class Reading(NamedTuple):
    """The gradients that a part of their name tells of, by array, and what a report says of it."""

    found: dict[str, Keys]
    said: str = ""

    def add(self, found: Mapping[str, Keys], results: Results, why: str) -> "Reading":
        """Add further gradients, which are read for the same reason."""
        if not found:
            return self
        pairs = [
            (name_result(p, results) or "a result without a name", n) for n, p in found.items()
        ]
        named = ", ".join(f"{spelled} for that of {name}" for spelled, name in pairs[1:])
        first = f"{pairs[0][0]} is taken for the gradient of {pairs[0][1]}"
        said = f"; {first}{', ' if named else ''}{named}, {why}"
        return Reading({**self.found, **found}, self.said + said)


def read_partial_names(
    calls: Calls,
    of_loss: Callable[..., Any],
    places: Mapping[str, ArrayPlace],
    found: Mapping[str, Keys],
    results: Results,
) -> Reading:
    """Read the results that no array is found for by a whole name, beside those `found`."""
    others = {n: place for n, place in places.items() if not find_kind(place.keys[-1])}
    ends = find_by_ends(calls, others, found, results)
    reading = Reading({}).add(ends, results, "by their names' ends and the shapes")
    if not found and not ends:
        bare = find_bare(places, results, calls.pair)
        return reading.add(bare, results, "by its shape")

    def loss(params: Mapping[str, Any]) -> Any:
        return follow(of_loss(params), results.loss)

    states = {
        name: place for name, place in places.items()
        if place.root == "arguments" and name not in found
    }  # fmt: skip
    known = {*found.values(), *ends.values()}
    carried = find_carried(results, states, known, letterless=not calls.pair)
    carried = {n: path for n, path in carried.items() if moves_loss(loss, n, places[n].array)}
    return reading.add(carried, results, "the state before the first step")


def read_ends_in_structure(calls: Calls, found: Mapping[str, Keys], results: Results) -> Reading:
    """Read the gradients of a structure by the ends of names, if none is missing then."""
    paths, arrays = calls.leaves, flatten(calls.params).leaves
    places = {n: ArrayPlace("arguments", paths[n], paths[n], arrays[n]) for n in paths}
    ends = find_by_ends(calls, places, found, results)
    complete = {*found, *ends} == {*paths}
    return Reading({}).add(ends if complete else {}, results, "by their names' ends and the shapes")


def find_by_ends(
    calls: Calls, places: Mapping[str, ArrayPlace], found: Mapping[str, Keys], results: Results
) -> dict[str, Keys]:
    """Find the gradients by the end, or the beginning, of the name of an array: `gx` of `Wx`.

    One that has the whole name of an array of its shape is of no other. An array with one axis has
    the shape of an adjoint of what the code computes: a name in the code, as `out` of `dout`, tells
    of that.
    """
    whole = [(path[-1], measure(v)) for path, v in walk(calls.roots["arguments"], (), ()) if path]
    whole += [(place.keys[-1], measure(place.array)) for place in places.values()]
    computed = list_names(calls.function) | list_names(calls.backward)
    fits: dict[Keys, list[str]] = {}
    for path in results.list_in_order():
        name, shape = name_result(path, results), measure(follow(results.state, path))
        if path in found.values() or any(
            shape == other and is_named_gradient(name, word) for word, other in whole
        ):
            continue
        rests = spell_rests(name) - (computed if count_axes(shape) < 2 else frozenset())
        fits[path] = [
            n for n, place in places.items()
            if n not in found and measure(place.array) == shape
            and any(is_end(rest, place.keys[-1]) for rest in rests)
        ]  # fmt: skip
    return match_one_to_one(fits)


def spell_rests(name: str) -> set[str]:
    """Spell what is left of the name of a gradient without the part that says so, in every way."""
    before = {name[len(each) :] for each in BEFORE if name.startswith(each)}
    return (before | {name[: -len(each)] for each in AFTER if name.endswith(each)}) - {""}


def is_end(rest: str, name: Any) -> bool:
    """True if a word is the end or the beginning of a longer name, in any case of letters.

    Of several words, each may be short for one of the name, in order: `CenterVec` is an end of
    `centerWordVector`.
    """
    short, long = rest.lower(), name.lower() if isinstance(name, str) else ""
    if len(short) >= len(long):
        return False
    return long.endswith(short) or long.startswith(short) or is_shortened(rest, name)


def is_shortened(rest: str, name: str) -> bool:
    """True if two words or more stand for words of a name, in order, and the last for its last."""
    words, whole = split_words(rest), split_words(name)
    if len(words) < 2 or min(map(len, words)) < 2 or not whole[-1:] or len(whole) < len(words):
        return False
    left = iter(whole[:-1])
    inner = all(any(each.startswith(word) for each in left) for word in words[:-1])
    return inner and whole[-1].startswith(words[-1])


def split_words(name: str) -> list[str]:
    """Split a name into its words, without the s of a plural."""
    return [each.lower().removesuffix("s") for each in WORD.findall(name)]


def list_names(function: Callable[..., Any]) -> frozenset[str]:
    """List the names of the variables and attributes in the code of a function."""
    code = find_code(function)
    return frozenset() if code is None else frozenset((*code.co_varnames, *code.co_names))


def count_axes(shape: Sequence[int] | None) -> int:
    """Count the axes of more than one entry."""
    return sum(size > 1 for size in shape or ())


def find_bare(places: Mapping[str, ArrayPlace], results: Results, pair: bool) -> dict[str, Keys]:
    """Find the one array that a result without the name of an array is the gradient of.

    The result has a bare name, such as `grad`, or none where the array is named as all parameters
    or is the only argument, which may be called x then. One array that is all that the second
    function of a `pair` returns may have any name, as `out`, if none but targets share its shape.
    """
    every = results.list_in_order()
    alone = pair and every == [("result",)]
    paths = [
        p for p in every
        for name in [name_result(p, results)]
        if is_bare(name) or (alone and not may_be_gradient(name))
    ]  # fmt: skip
    bare = [path for path in paths if name_result(path, results)] or paths
    if len(bare) != 1:
        return {}
    shape = measure(follow(results.state, bare[0]))
    given = [n for n, place in places.items() if place.root == "arguments"]
    arrays = [
        n for n, place in places.items()
        if measure(place.array) == shape and (given == [n] or not find_kind(place.keys[-1]))
    ]  # fmt: skip
    whole = [n for n in arrays if places[n].root == "arguments" and len(places[n].keys) == 1]
    if len(arrays) != 1 or not whole:  # an item of a list is no vector of all parameters
        return {}
    name = name_result(bare[0], results)
    others = [p for p in places.values() if find_kind(p.keys[-1]) is not TARGETS]
    told = is_bare(name) and (name or given == arrays or VECTOR.search(arrays[0]))
    told = told or (alone and [measure(p.array) for p in others].count(shape) == 1)
    return {arrays[0]: bare[0]} if told else {}


def is_bare(name: str) -> bool:
    """True for the name of a gradient of all parameters, and for none."""
    every = name in CONTAINERS or name in BARE
    return not name or every or any(is_named_gradient(name, each) for each in VECTORS)


def name_result(path: Keys, results: Results) -> str:
    """Name a result by its own variable or key; empty where it has none."""
    name = results.name(path) or path[-1]
    return name if (isinstance(name, str) and path[1:]) or results.name(path) else ""


def measure(array: Any) -> tuple[int, ...] | None:
    """Measure the shape of an array or tensor; None where a list has no shape."""
    shape = attempt(lambda: np.shape(to_array(array)))
    return None if isinstance(shape, Failure) else tuple(shape)
