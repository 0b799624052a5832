"""Arrays that hold gradients: they are no parameters, though they stand beside them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import attempt
from bptt_verifier.program.gradient_names import is_named_gradient
from bptt_verifier.program.leaves import Keys, flatten
from bptt_verifier.program.own_calls import Calls


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
