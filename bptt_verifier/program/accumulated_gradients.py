"""Gradients that add up from call to call on one object, unless the user sets them to zero."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.leaves import Keys
from bptt_verifier.program.own_calls import Calls
from bptt_verifier.program.own_results import follow
from bptt_verifier.program.torch_tensors import is_tensor, to_array


def describe_accumulated(calls: Calls, found: Mapping[str, Keys]) -> str:
    """Describe the gradients that a second call on the same copies doubles; empty if none.

    PyTorch adds up the gradients of its tensors on purpose, and nothing is said about those.
    """

    def run_twice(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        calls.run(roots, xp)
        return calls.run(roots, xp)

    if calls.structure or not calls.roots.keys() & {"self", "globals"}:
        return ""  # nothing outlives a call
    states = [attempt(calls.make(run), calls.params) for run in (calls.run, run_twice)]
    if any(isinstance(state, Failure) for state in states):
        return ""
    doubled = []
    for name, path in found.items():
        values = [attempt(follow, state, path) for state in states]
        if not any(isinstance(each, Failure) or is_tensor(each) for each in values):
            one, two = (np.asarray(to_array(each)) for each in values)  # may be lists of numbers
            if np.any(one) and np.shape(one) == np.shape(two) and is_double(two, one):
                doubled.append(name)
    if not doubled:
        return ""
    return (
        f" Gradients add up over calls: a second call returns twice that of "
        f"{', '.join(doubled)}, unless it is set to zero before; each case here has a copy of its "
        "own, and one call."
    )


def is_double(two: Any, one: Any) -> bool:
    """True if an array is twice another one, up to rounding.

    Terms that are added one by one to what is there round in another way than alone: n of them by
    n ε of the largest sum, which is less than √ε for a thousand terms in float32.
    """
    unit = float(np.finfo(np.result_type(one, np.float16)).eps)
    return bool(np.max(np.abs(two - 2.0 * one)) <= np.sqrt(unit) * np.max(np.abs(two)))
