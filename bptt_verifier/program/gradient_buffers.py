"""Arrays that hold gradients, or an optimiser's memory: they are no parameters beside those."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import attempt
from bptt_verifier.program.gradient_names import SIBLINGS, is_named_gradient
from bptt_verifier.program.leaves import Keys, flatten
from bptt_verifier.program.own_calls import ArrayPlace, Calls
from bptt_verifier.program.torch_tensors import to_array

# What an optimiser keeps for an array, in a name before or after that of the array.
MEMORY = re.compile(r"_?(m|v|r|s|mem|memory|cache|mom|momentum|vel|velocity|acc|rms|adagrad|sq)_?")


def find_memories(places: Mapping[str, ArrayPlace], found: Mapping[str, Keys]) -> frozenset[str]:
    """Find the arrays that are read as gradients, and those that an optimiser keeps beside them.

    Such a one has the shape of a parameter and is held with it and its gradient: by an object that
    stands for this parameter alone, or under its name, as `mW` beside `W` and `dW`.
    """
    paths = {n: (place.root, *place.path) for n, place in places.items()}
    memories = {n for n, path in paths.items() if path in found.values()}
    for name, gradient in found.items():
        if name not in places:
            continue
        path, shape = paths[name], np.shape(to_array(places[name].array))
        for other, beside in paths.items():
            alone = (path[-1], gradient[-1]) in SIBLINGS and gradient[:-1] == path[:-1]
            held = beside[:-1] == path[:-1] and np.shape(to_array(places[other].array)) == shape
            if other not in found and held and (alone or is_memory(beside[-1], path[-1])):
                memories.add(other)
    return frozenset(memories)


def is_memory(spelled: object, name: object) -> bool:
    """True for the name of what an optimiser keeps for an array: `mW`, `W_cache` of `W`."""
    if not isinstance(spelled, str) or not isinstance(name, str):
        return False
    rests = [spelled.removesuffix(name), spelled.removeprefix(name)]
    return any(rest != spelled and MEMORY.fullmatch(rest) is not None for rest in rests)


def find_buffers(
    calls: Calls,
    leaves: Mapping[str, Keys],
    found: Mapping[str, Keys],
    loss: Callable[[Any], Any],
) -> frozenset[str]:
    """Find the arrays in a structure that hold gradients of its parameters: they are none.

    Such a one has no gradient, and the name and the shape of that of an array beside it, which has.
    The loss is the same whatever is in it.
    """
    tree = flatten(calls.params)

    def holds(name: str, other: str) -> bool:
        path, beside = leaves[name], leaves[other]
        named = is_named_gradient(path[-1], beside[-1])
        alike = tree.leaves[name].shape == tree.leaves[other].shape
        return named and path[:-1] == beside[:-1] and alike

    buffers = [n for n in leaves if n not in found and any(holds(n, m) for m in found)]
    others = [{}, {n: 1.25 * tree.leaves[n] + 1.0 for n in buffers}]
    values = [attempt(lambda p=p: loss(tree.rebuild(dict(tree.leaves) | p))) for p in others]
    return frozenset(buffers) if attempt(np.array_equal, *values) is True else frozenset()
