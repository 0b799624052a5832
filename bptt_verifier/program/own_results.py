"""Results of the user's own code: where in them the loss and the gradients are, and their names."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt, type_name
from bptt_verifier.program.data_names import PARAMETER, find_kind
from bptt_verifier.program.gradient_names import (
    CONTAINERS,
    ONLY,
    is_named_gradient,
    may_be_gradient,
)
from bptt_verifier.program.leaves import Keys, find_children, find_node, is_scalar, walk
from bptt_verifier.program.torch_tensors import has_gradient, to_array

SHOWN = 10  # names in a sentence
LOSSES = frozenset("loss total_loss loss_value cost L J E nll objective".split())
FLOATS = ("float32", "float64")  # of parameters
CACHES = frozenset(
    "cache caches cached state states activations hidden memory tape ctx context saved outputs "
    "history intermediates intermediate trace info aux extras values forward".split()
)
PARAMS = ("params", "parameters", "weights", "theta", "model", "p", "w")


class Results(NamedTuple):
    """The results of a trial call, the names of the returned values, and the path of the loss."""

    state: dict[str, Any]
    names: Mapping[Keys, str]
    loss: Keys

    @property
    def structures(self) -> list[Keys]:
        """The paths of structures among the returned values."""
        found = list_items(self.state["result"])
        return [p for p, value in found if find_node(value) and ("result", *p) != self.loss]

    @property
    def caches(self) -> list[Keys]:
        """The paths of structures that hold what the forward pass has computed."""
        return [path for path in self.structures if self.is_cache(path)]

    def is_cache(self, path: Keys) -> bool:
        """True for a structure by the name of a cache, or that holds data and no gradients.

        Data are arguments with usual names of data. Other arrays in it have names, but none of a
        gradient or a parameter.
        """
        if {self.names.get(path), *path} & CACHES:
            return True
        given = [*walk(self.state.get("arguments", {}), (), ())]
        data = [v for keys, v in given if keys and find_kind(keys[-1]) and is_float_array(v)]
        inside = [*walk(follow(self.state["result"], path), (), ())]
        names = [
            self.list_names(("result", *path, *keys))[0]
            for keys, value in inside
            if not any(value is each for _, each in given)
        ]
        slopes = any(may_be_gradient(n) or (PARAMETER.match(n) and not find_kind(n)) for n in names)
        return not slopes and any(value is each for _, value in inside for each in data)

    def find_container(self, number: int) -> Keys | None:
        """Find the structure of the gradients of so many parameters among the returned values.

        It has such a name, or it is the only one. Beside as many that may be gradients, it is a
        cache.
        """
        found = [path for path in self.structures if not self.is_cache(path)]
        named = [path for path in found if {self.names.get(path), path[-1]} & CONTAINERS]
        if len(named) == 1 or len(found) != 1:
            return named[0] if len(named) == 1 else None
        beside = [path for path in self.list_in_order() if path[1:2] != found[0]]
        return None if sum(may_be_gradient(self.name(p)) for p in beside) >= number else found[0]

    def name(self, path: Keys) -> str:
        """Name a returned value by the variable that the user returns; empty where it has none."""
        return self.names.get(path[1:], "")

    def list_names(self, path: Keys) -> list[str]:
        """List the names of a returned value and of the structures that hold it, from the inside.

        One empty name stands for none.
        """
        named = [self.names.get(path[1:end]) or path[end - 1] for end in range(len(path), 1, -1)]
        return [name for name in named if isinstance(name, str)] or [""]

    def spell(self, number: int) -> dict[Keys, Keys]:
        """Spell the paths of the arrays returned, and left in attributes or globals, as names.

        `number` is that of the parameters. An item of a list has its name, and its index. What is
        left in `w.grad` of a tensor is spelled `w_grad`.
        """
        result, names = self.state["result"], self.names
        sources: dict[Keys, Keys] = {}
        mapping = isinstance(result, Mapping) or hasattr(result, "_fields")
        container = self.find_container(number)
        for path, value in self.walk_result():
            if not is_array(value) or ("result", *path) == self.loss:
                continue
            spelled = [path]
            if mapping:
                spelled = [(ONLY, *path)]
            elif path or () in names:
                spelled = [(names.get(path[:1], path[:1] and path[0]), *path[1:])]
            if not mapping and len(path) > 1:
                if path[:1] == container and names.get(container) not in PARAMS:
                    spelled.insert(0, (ONLY, *path[1:]))
                if path[:2] in names:
                    spelled.insert(0, (names[path[:2]], *path[2:]))
            for each in spelled:
                sources.setdefault(each, ("result", *path))
                sources.setdefault(split_dots(each), ("result", *path))
        for root in ("self", "globals", "arguments"):
            for path, value in walk(self.state.get(root), (), ()):
                if path and has_gradient(value):
                    sources[(*path[:-1], f"{path[-1]}_grad")] = (root, *path, "grad")
                if root != "arguments" and is_array(value):
                    sources.setdefault(path, (root, *path))
        return sources

    def walk_result(self) -> Iterator[tuple[Keys, Any]]:
        """Yield the paths and values of the arrays returned, and of numbers that have names."""
        for path, value in walk(self.state["result"], (), ()):
            numbers = isinstance(value, list | tuple) and (*path, 0) in self.names
            yield from (
                (((*path, k), v) for k, v in enumerate(value)) if numbers else [(path, value)]
            )

    def find_returned_loss(self) -> Keys:
        """Find the loss returned beside the gradients: else it is the one that is differentiated.

        A function of the gradients may run the forward pass itself, and return its loss, by a name
        of one or before a dict of gradients.
        """
        result = self.state["result"]
        items = [*walk(result, (), ())]
        named = [path for path, _ in items if {self.names.get(path), *path[-1:]} & LOSSES]
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
            named = named or [(0,)]
        found = [("result", *path) for path, value in items if path in named and is_number(value)]
        return self.loss if self.loss in found else next(iter(found), self.loss)

    def list_in_order(self) -> list[Keys]:
        """List the paths of the arrays returned, in order, without the loss."""
        paths = [path for path, value in self.walk_result() if is_array(value)]
        return [("result", *path) for path in paths if ("result", *path) != self.loss]


def split_dots(path: Keys) -> Keys:
    """Split the keys of a path that are paths themselves, such as `enc.W` or `layers.0.W`."""
    parts = [key.split(".") if isinstance(key, str) and "." in key else [key] for key in path]
    return tuple(int(p) if str(p).isdigit() else p for each in parts for p in each)


def find_loss(result: Any, names: Mapping[Keys, str], arrays: Collection[str] = ()) -> Keys | None:
    """Find the loss in what a function returned: by its name, or the first scalar.

    One that has the name of the gradient of one of the `arrays` is none.
    """
    if is_number(result):
        return ()
    scalars = [
        path
        for path, value in list_items(result)
        if is_number(value) and not any(is_named_gradient(names.get(path), n) for n in arrays)
    ]
    named = [path for path in scalars if LOSSES & {path[0], names.get(path)}]
    if isinstance(result, Mapping):
        return next(iter(named), None)
    return next(iter(named or scalars), None)


def holds_more_beside_loss(result: Any) -> bool:
    """True for a tuple that begins with the loss, beside gradients, as by JAX's `has_aux`."""
    pair = isinstance(result, tuple) and len(result) == 2
    first = result[0] if pair and isinstance(result[0], tuple) else ()
    return len(first) > 1 and is_number(first[0])


def list_items(result: Any) -> list[tuple[Keys, Any]]:
    """List the items of a tuple, list, mapping or NamedTuple, with their paths."""
    if not isinstance(result, tuple | list | Mapping):
        return []
    return [((key,), value) for key, value in find_children(result).items()]


def follow(state: Any, path: Keys) -> Any:
    """Follow a path of keys, indices and attributes."""
    for key in path:
        by_name = isinstance(key, str) and not isinstance(state, Mapping)
        state = getattr(state, key) if by_name else state[key]
    return state


def describe_result(result: Any, names: Mapping[Keys, str]) -> str:
    """Describe what a function returned, for a message."""
    items = list_items(result)
    if not items:
        return type_name(result)
    listed = [describe_item(path, value, names) for path, value in items[:SHOWN]]
    return f"{type_name(result)} of {', '.join(listed)}"


def describe_item(path: Keys, value: Any, names: Mapping[Keys, str]) -> str:
    """Describe an item of what a function returned: by its name, and what is in a structure."""
    name = names.get(path) or (f"item {path[0]}" if isinstance(path[0], int) else str(path[0]))
    inner = [(*path, *key) for key, _ in list_items(value)[:SHOWN]]
    known = [names.get(key) or (key[-1] if isinstance(key[-1], str) else "") for key in inner]
    return f"{name} ({', '.join(known)})" if known and all(known) else name


def is_array(value: Any) -> bool:
    """True for an array of numbers, a number or a list of them."""
    array = attempt(lambda: np.asarray(to_array(value)))
    return not isinstance(array, Failure) and array.dtype.kind in "fiu"


def is_float_array(value: Any) -> bool:
    """True for an array that may be a parameter."""
    dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
    return dtype in FLOATS and hasattr(value, "shape") and 0 not in value.shape


def is_number(value: Any) -> bool:
    """True for a real number, or an array of one."""
    return value is not None and is_scalar(value) and is_array(value)


def equal_arrays(one: Any, other: Any) -> bool:
    """True if two arrays or tensors are equal."""
    return np.array_equal(to_array(one), to_array(other))


def hold_same(one: Any, other: Any) -> bool:
    """True if two values hold equal arrays and numbers, of any size, in the same structure."""
    pairs = [dict(walk(value, (), ())) for value in (one, other)]
    return pairs[0].keys() == pairs[1].keys() and all(
        value is pairs[1][path] or attempt(equal_arrays, value, pairs[1][path]) is True
        for path, value in pairs[0].items()
    )


def are_equal(one: Any, other: Any) -> bool:
    """True if two values hold equal arrays of more than one entry in the same structure."""
    pairs = [{p: to_array(v) for p, v in walk(value, (), ())} for value in (one, other)]
    if pairs[0].keys() != pairs[1].keys():
        return False
    arrays = [(v, pairs[1][p]) for p, v in pairs[0].items() if is_array(v)]
    large = any(np.size(v) > 1 for v, _ in arrays)
    return large and all(is_array(w) and np.array_equal(v, w) for v, w in arrays)
