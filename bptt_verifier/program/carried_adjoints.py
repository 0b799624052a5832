"""Adjoints that a backward pass carries from step to step: after the first, the initial state's.

`da_next` that is returned beside the gradients is the gradient of `a0` or `a_prev`, an argument of
its letter and shape.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.gradient_names import BEFORE
from bptt_verifier.program.leaves import Keys, convert_like
from bptt_verifier.program.own_calls import ArrayPlace
from bptt_verifier.program.own_results import Results, follow, is_float_array
from bptt_verifier.program.torch_tensors import to_array

LETTER = r"(?P<letter>[achsz]|hidden|cell|state)"
STEP = "next|prev|previous"
FIRST = "0+|init|initial"
ADJOINTS = [
    re.compile(each)
    for each in (
        rf"{LETTER}?_?({STEP}|carry|carried)",
        rf"({STEP})_?{LETTER}",
        rf"{LETTER}_?({FIRST})",
    )
]
STATES = [
    re.compile(each)
    for each in (
        rf"{LETTER}?_?(prev|previous|init|initial|start)",
        rf"(prev|previous|init|initial|start|first)_?{LETTER}",
        rf"{LETTER}_?(0+|first|tm1)",
    )
]
LETTERS = {"hidden": "h", "cell": "c", "state": ""}  # any state may be called so


def read_adjoint(name: str) -> frozenset[str]:
    """Read the letters of the state that a carried adjoint may be of; an empty one fits any."""
    rests = {name[len(each) :].lower().strip("_") for each in BEFORE if name.startswith(each)}
    return frozenset(
        letter for r in rests for letter in [read_letter(r, ADJOINTS)] if letter is not None
    )


def read_state(name: str) -> str | None:
    """Read the letter of an initial or earlier state; None for the name of another array."""
    return read_letter(name.lower(), STATES)


def read_letter(name: str, forms: Sequence[re.Pattern[str]]) -> str | None:
    """Read the letter of a state in a name of one of the forms; None where it has none of them."""
    found = next(filter(None, (form.fullmatch(name) for form in forms)), None)
    letter = "" if found is None else found["letter"] or ""
    return None if found is None else LETTERS.get(letter, letter)


def find_carried(
    results: Results, states: Mapping[str, ArrayPlace], known: Collection[Keys], letterless: bool
) -> dict[str, Keys]:
    """Find the carried adjoints among the results, by the one state that each may be of.

    Those that are `known` as gradients are none. One without a letter, `dprev`, counts where
    `letterless` says so.
    """
    fits: dict[Keys, list[str]] = {}
    for path in results.list_in_order():
        letters = read_adjoint(results.list_names(path)[0])
        shape = np.shape(to_array(follow(results.state, path)))
        if path in known or not letters or (letters == {""} and not letterless):
            continue
        fits[path] = [
            name for name, place in states.items()
            for letter in [read_state(str(place.keys[-1]))]
            if letter is not None and np.shape(to_array(place.array)) == shape
            and (letter in letters or "" in {letter, *letters})
        ]  # fmt: skip
    return match_one_to_one(fits)


def match_one_to_one(fits: Mapping[Keys, Sequence[str]]) -> dict[str, Keys]:
    """Match arrays and results where one array alone fits a result, and no other result it."""
    claims = [name for names in fits.values() for name in names]
    return {
        names[0]: path
        for path, names in fits.items()
        if len(names) == 1 and claims.count(names[0]) == 1
    }


def list_states(arguments: Mapping[str, Any], structure: str) -> dict[str, ArrayPlace]:
    """List the arguments, beside the structure of parameters, that are initial states by name."""
    return {
        name: ArrayPlace("arguments", (name,), (name,), value)
        for name, value in arguments.items()
        if name != structure and is_float_array(value) and read_state(name) is not None
    }


def moves_loss(loss: Callable[[Mapping[str, Any]], Any], name: str, array: Any) -> bool:
    """True if a loss, as a function of some arrays by name, is another for other values of one."""
    values = np.asarray(to_array(array))
    other = convert_like(1.25 * values + 0.25, array)
    found = [attempt(lambda p=p: np.asarray(to_array(loss(p)))) for p in ({}, {name: other})]
    failed = any(isinstance(each, Failure) for each in found)
    return not failed and not np.array_equal(*found)
