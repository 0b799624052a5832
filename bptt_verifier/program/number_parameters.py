"""Python's numbers that are parameters, as `b` is where `db` is returned: NumPy's in their place.

A number of NumPy behaves as one of Python, and is an array without axes that can be drawn anew.
"""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt, find_code
from bptt_verifier.program.gradient_names import find_gradients
from bptt_verifier.program.leaves import Keys, convert_like, walk
from bptt_verifier.program.own_calls import Calls, Run, copy_all
from bptt_verifier.program.own_globals import find_rates
from bptt_verifier.program.own_results import Results, find_loss, follow, is_float_array
from bptt_verifier.program.source_file import RecordedCall
from bptt_verifier.program.torch_tensors import to_array


def find_numbers(
    calls: Calls, roots: Mapping[str, Any], results: Results, run: Run, chosen: Collection[str] = ()
) -> dict[Keys, Any]:
    """Find the numbers in the roots that are parameters, as NumPy's, by their paths in the roots.

    Those are chosen by their names, or a call computes their gradients: the gradient is one number
    that depends on the arrays or lists, and the loss depends on the parameter. So a step `dt` of a
    time `t`, the norm of a gradient and what a call hands on are none. A whole number is one only
    if it is zero. There are none where the code raises an exception with a number of NumPy in the
    place.
    """
    found = dict[Keys, Any]()
    for (_, name), places in group_numbers(calls, roots).items():
        number = next(iter(places.values()))
        new = np.float64(number)
        source = find_gradients({"": (name,)}, results.spell(1)).get("")
        whole = isinstance(number, int) and number != 0
        if name in chosen or (
            source is not None
            and not whole
            and results.loss != ("",)
            and is_real_number(follow(results.state, source))
            and is_parameter(calls, roots, [*places], new, (results.loss, source), run)
        ):
            found |= dict.fromkeys(places, new)
    return found


def find_returned_numbers(
    calls: Calls,
    roots: Mapping[str, Any],
    state: Any,
    names: Mapping[Keys, str],
    run: Run,
    chosen: Collection[str] = (),
) -> dict[Keys, Any]:
    """Find the same of a function that returns the loss and the gradients, by the results' names.

    `state` is that of a call.
    """
    loss = find_loss(state["result"], names)
    results = Results(state, names, ("",) if loss is None else ("result", *loss))
    return find_numbers(calls, roots, results, run, chosen)


def group_numbers(calls: Calls, roots: Mapping[str, Any]) -> dict[tuple[str, str], dict[Keys, Any]]:
    """Group the numbers among arguments, attributes and used globals by their root and name.

    An argument stands before a global of its name, and is the same one in several methods.
    """
    depth = 3 if calls.pair or "self" in roots else 2
    arguments = [(("arguments", *path), v) for path, v in walk(roots["arguments"], (), ())]
    kept = getattr(roots.get("self"), "__dict__", {}).items()
    code, taken = find_code(calls.function), {path[-1] for path, _ in arguments}
    read = () if code is None or "globals" not in roots else code.co_names
    shared = [(n, v) for n, v in find_rates(calls.function).items() if n in read and n not in taken]
    every = [*arguments, *((("self", n), v) for n, v in kept)]
    every += [(("globals", n), v) for n, v in shared]
    found = dict[tuple[str, str], dict[Keys, Any]]()
    for path, value in every:
        if type(value) in (int, float) and isinstance(path[-1], str) and len(path) <= depth:
            found.setdefault((path[0], path[-1]), {})[path] = value
    return found


def is_parameter(
    calls: Calls,
    roots: Mapping[str, Any],
    places: Collection[Keys],
    number: Any,
    read: tuple[Keys, Keys],
    run: Run,
) -> bool:
    """Tell whether the loss depends on a number, and what may be its gradient on the arrays.

    `read` are the paths of the loss and of the gradient.
    """
    given, other = dict(roots), dict(roots)
    for path in places:
        given = set_at(given, path, number)
        other = set_at(other, path, np.float64(1.25 * number + 0.25))
    arrays = [v for _, v in walk(given, (), ()) if is_float_array(v) and v is not number]
    memo = {id(v): convert_like(np.asarray(1.0625 * to_array(v) + 0.03125), v) for v in arrays}

    def compute(inside: Mapping[str, Any], scaled: bool = False) -> list[Any]:
        copied = copy_all(inside, dict(memo) if scaled else {})
        if scaled:
            scale_lists(copied["arguments"])
            scale_lists(copied.get("globals", {}))
        state = calls.run_on(run, copied)
        return [np.asarray(to_array(follow(state, path)), float) for path in read]

    found = [attempt(compute, *each) for each in ((given,), (other,), (given, True))]
    if any(isinstance(each, Failure) for each in found):
        return False
    (loss, slope), (moved, _), (_, of_scaled) = found
    return not (np.array_equal(loss, moved) or np.array_equal(slope, of_scaled))


def scale_lists(value: Any) -> None:
    """Scale the numbers with fractions in lists of a structure, which are data."""
    inside = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, list):
        value[:] = [1.0625 * v + 0.03125 if type(v) is float else v for v in value]
    for each in inside if isinstance(value, Mapping | list | tuple) else ():
        scale_lists(each)


def set_at(roots: Mapping[str, Any], path: Keys, value: Any) -> dict[str, Any]:
    """Set what is at a path of keys and attributes, in copies of what holds it."""

    def set_in(holder: Any, keys: Keys) -> Any:
        key, *rest = keys
        if isinstance(holder, Mapping):
            inner = set_in(holder[key], tuple(rest)) if rest else value
            return {**holder, key: inner}
        changed = copy.copy(holder)
        inner = set_in(getattr(holder, key), tuple(rest)) if rest else value
        object.__setattr__(changed, key, inner)
        return changed

    return dict(set_in({"globals": {}, **roots} if path[0] == "globals" else dict(roots), path))


def set_all(roots: Mapping[str, Any], numbers: Mapping[Keys, Any]) -> dict[str, Any]:
    """Set numbers in roots, by their paths; the roots are not changed."""
    changed = dict(roots)
    for path, number in numbers.items():
        changed = set_at(changed, path, number)
    return changed


def set_numbers(call: RecordedCall, method: str, numbers: Mapping[Keys, Any]) -> RecordedCall:
    """Set numbers in a recorded call of a method, and in its object."""
    given = {p[-1]: n for p, n in numbers.items() if p[:2] == ("arguments", method)}
    kept = {path: number for path, number in numbers.items() if path[0] == "self"}
    objects = [
        None if each is None else set_all({"self": each}, kept)["self"]
        for each in (call.owner, call.first)
    ]
    return RecordedCall(objects[0], call.arguments | given, objects[1])


def is_real_number(value: Any) -> bool:
    """True for one number with a fraction, of Python, NumPy or PyTorch."""
    array = attempt(lambda: np.asarray(to_array(value)))
    return not isinstance(array, Failure) and array.dtype.kind == "f" and array.shape == ()
