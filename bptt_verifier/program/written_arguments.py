"""Arguments that a function writes into the arrays with which it computes: its true parameters.

`for p, v in zip(net.params(), values): p.value = v` undoes every change of the arrays of `net`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import attempt
from bptt_verifier.program.data_names import find_kind
from bptt_verifier.program.leaves import find_node, flatten, walk
from bptt_verifier.program.own_results import is_float_array
from bptt_verifier.program.torch_tensors import to_array


def is_constant(loss: Callable[..., Any], params: Any) -> bool:
    """True if the loss is the same number for other parameters."""
    tree = flatten(params)
    moved = tree.rebuild({n: 1.25 * value + 0.25 for n, value in tree.leaves.items()})
    found = [attempt(lambda p=p: np.asarray(to_array(loss(p)))) for p in (params, moved)]
    return attempt(np.array_equal, *found) is True


def list_written(arguments: Mapping[str, Any], params: Any) -> list[str]:
    """List the arguments that may be written into parameters on which a loss does not depend.

    Such a one has no name of data, and the shapes of all of these arrays, or as many entries as
    they have, in one vector.
    """
    shapes = [np.shape(value) for value in flatten(params).leaves.values()]
    entries = sum(int(np.prod(shape)) for shape in shapes)
    found = list[str]()
    for name, value in arguments.items():
        inside = [each for _, each in walk(value, (), ())]
        if find_kind(name) or not all(map(is_float_array, inside)):
            continue
        given = [np.shape(to_array(each)) for each in inside]
        vector = find_node(value) is None and given == [(entries,)]
        if vector or (find_node(value) is not None and sorted(given) == sorted(shapes)):
            found.append(name)
    return found
