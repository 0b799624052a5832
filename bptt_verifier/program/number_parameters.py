"""Python's numbers that are parameters, as `b` is where `db` is returned: NumPy's in their place.

A number of NumPy behaves as one of Python, and is an array without axes that can be drawn anew.
"""

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt, find_code
from bptt_verifier.program.gradient_names import find_gradients
from bptt_verifier.program.leaves import Keys
from bptt_verifier.program.own_globals import find_rates
from bptt_verifier.program.own_results import Results, follow
from bptt_verifier.program.torch_tensors import to_array


def give_numbers(
    function: Callable[..., Any],
    roots: dict[str, Any],
    state: dict[str, Any],
    names: Mapping[Keys, str],
    chosen: Collection[str] = (),
) -> dict[str, Any]:
    """Give a function, which returns the loss and the gradients, NumPy's numbers for Python's.

    The roots are returned as they are where no number has a gradient or is chosen. `state` is that
    of a call, and `names` are those of what is returned.
    """
    arguments, code = roots["arguments"], find_code(function)
    results = Results(state, names, ("",))
    used = (
        {}
        if code is None
        else {n: v for n, v in find_rates(function).items() if n in code.co_names}
    )
    outer = {name: value for name, value in used.items() if name not in arguments}
    given = find_numbers(arguments, results, roots, chosen)
    kept = find_numbers(getattr(roots.get("self"), "__dict__", {}), results, roots, chosen)
    shared = find_numbers(outer, results, roots, chosen) if "globals" in roots else {}
    if not (given or kept or shared):
        return roots
    changed = roots | {"arguments": arguments | given}
    if kept:
        changed["self"] = set_attributes(roots["self"], kept)
    if shared:
        changed["globals"] = roots["globals"] | shared
    return changed


def find_numbers(
    values: Mapping[str, Any],
    results: Results,
    before: Mapping[str, Any],
    chosen: Collection[str] = (),
) -> dict[str, Any]:
    """Find the numbers among arguments, globals or attributes whose gradients a call computes.

    Those that are chosen by their names are among them.

    Such a gradient is one real number that is returned, or an attribute that the call has set:
    `before` has the roots as they were. A step `dt` of a time `t` is none.
    """
    numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
    sources = results.spell(len(numbers)) if numbers else {}
    found = find_gradients({name: (name,) for name in numbers}, sources)
    computed = {
        name
        for name, path in found.items()
        if is_real_number(follow(results.state, path)) and is_computed(path, results, before)
    }
    return {n: np.float64(v) for n, v in numbers.items() if n in computed or n in chosen}


def is_real_number(value: Any) -> bool:
    """True for one number with a fraction, of Python, NumPy or PyTorch."""
    array = attempt(lambda: np.asarray(to_array(value)))
    return not isinstance(array, Failure) and array.dtype.kind == "f" and array.shape == ()


def is_computed(path: Keys, results: Results, before: Mapping[str, Any]) -> bool:
    """True for what is returned, and for an attribute or global that a call has set anew."""
    if path[0] == "result":
        return True
    earlier = attempt(follow, before, path)
    return isinstance(earlier, Failure) or follow(results.state, path) is not earlier


def set_attributes(owner: Any, numbers: Mapping[str, Any]) -> Any:
    """Copy an object, if it is one, with other numbers as attributes; the same where are none."""
    if owner is None or not numbers:
        return owner
    changed = copy.copy(owner)
    for name, value in numbers.items():
        object.__setattr__(changed, name, value)
    return changed
