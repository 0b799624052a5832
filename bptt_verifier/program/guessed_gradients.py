"""Gradients that a shape alone tells of, and which of them are surely gradients with wrong numbers.

A result without a name may be a state, a prediction or an error of the shape of a parameter. A
gradient is computed by a product or a sum, and changes with the targets; a state does not.
"""

import ast
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.data_names import TARGETS, find_kind
from bptt_verifier.program.gradient_names import COMBINING, name_expression
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.list_order import find_returned, parse
from bptt_verifier.program.own_calls import ArrayPlace, Calls, copy_all
from bptt_verifier.program.own_results import Results, follow, is_array
from bptt_verifier.program.torch_tensors import to_array

PRODUCTS = (ast.Mult, ast.MatMult, ast.Div)
SUMS = COMBINING - frozenset("add subtract zeros_like ones_like".split())


def find_sure_guesses(
    calls: Calls,
    whole: Callable[..., Any],
    guessed: Mapping[str, Keys],
    arrays: Mapping[str, ArrayPlace],
    results: Results,
) -> frozenset[str]:
    """Find the parameters whose guessed results are gradients beyond doubt.

    No other array and no other result has the shape of such a parameter.
    """
    every = {id(v): v for _, v in walk(calls.roots["arguments"], (), ()) if is_array(v)}
    every |= {id(place.array): place.array for place in arrays.values()}
    given = Counter(np.shape(to_array(value)) for value in every.values())
    paths = results.list_in_order()
    returned = Counter(np.shape(to_array(follow(results.state, path))) for path in paths)
    alone = {
        name: path
        for name, path in guessed.items()
        for shape in [np.shape(to_array(arrays[name].array))]
        if given[shape] == returned[shape] == 1 and is_product(calls.backward, path)
    }
    moved = call_with_other_targets(calls, whole) if alone else None
    if moved is None:
        return frozenset()
    return frozenset(
        name
        for name, path in alone.items()
        if not np.array_equal(*(to_array(follow(s, path)) for s in (results.state, moved)))
    )


def is_product(function: Callable[..., Any], path: Keys) -> bool:
    """True if what a function returns at a path is computed there by a product or a sum."""
    body = parse(function)
    values = [] if body is None else [*find_returned(body, path)]
    return bool(values) and all(
        isinstance(value, ast.BinOp | ast.UnaryOp | ast.Call)
        and any(
            (isinstance(n, ast.BinOp) and isinstance(n.op, PRODUCTS))
            or (isinstance(n, ast.Call) and name_expression(n.func) in SUMS)
            for n in ast.walk(value)
        )
        for value in values
    )


def call_with_other_targets(calls: Calls, whole: Callable[..., Any]) -> Any:
    """Call the code at the same parameters with other targets; None where it has none."""
    now, places = calls.roots, calls.places
    other, changed = copy_all(now, {}), 0
    for root in other.keys() & {"arguments", "globals"}:
        for path, value in [*walk(other[root], (), ())]:
            holder = follow(other[root], path[:-1]) if path else None
            if isinstance(holder, dict) and find_kind(path[-1]) is TARGETS and is_array(value):
                array = np.asarray(to_array(value))
                floats = array.dtype.kind == "f"
                new = 1.25 * array + 0.25 if floats else array[::-1] if array.ndim else array
                holder[path[-1]] = new if array.ndim else new[()]
                changed += 1
    try:
        calls.roots = other
        calls.places = {
            n: place._replace(array=follow(other[place.root], place.path))
            for n, place in places.items()
        }
        found = attempt(whole, calls.params) if changed else None
    finally:
        calls.roots, calls.places = now, places
    return None if isinstance(found, Failure) else found
