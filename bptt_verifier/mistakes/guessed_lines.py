"""The line of a submission that a mistake is probably in: where it computes the wrong gradient.

Where no expression computes a wrong term of its own, as where a term is left out, the place to
look at is that which computes the gradient that lacks it. It is found by its numbers, and is a
guess: the term may be added elsewhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.backward_lines import (
    NEAR,
    TELLING,
    find_multiple,
    find_place,
)
from bptt_verifier.mistakes.operation_mistakes import Changes
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import sweep_back
from bptt_verifier.program.recording import Recorded
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.structure import Structure

HOPS = 10  # operations from what a mistake changes to a gradient that a derivation computes
LONGEST = 70  # characters of an expression that a guess quotes, at most


class Guess(NamedTuple):
    """The expression that computes the gradient that a mistake makes wrong, and of what it is."""

    place: Place
    what: str

    def __str__(self) -> str:
        found = self.place.expression
        shown = found if len(found) <= LONGEST else f"{found[:LONGEST]}…"
        said = f"A guess: look at `{shown}` ({self.place.at_column}) of your backward pass,"
        return f"{said} which computes {self.what}."

    @property
    def details(self) -> dict[str, Any]:
        """The place as the details of a mistake have it."""
        return {
            "file_line": str(self.place),
            "column": self.place.first_column,
            "expression": self.place.expression,
        }


def guess_line(
    known: Structure, values: Sequence[Any], changes: Changes, recorded: Sequence[Recorded]
) -> Guess | None:
    """Guess the expression that computes the gradient of what a mistake changes.

    None unless one expression computes it at every step at which its numbers are telling.
    """
    cotangents = sweep_back(known.program, values, [changes])
    operations, common, what = known.program.operations, set[Place](), ""
    for slot in dict.fromkeys(operations[number].inputs[operand] for number, operand in changes):
        for near in list_sources(known, slot):
            wrong = cotangents[near]
            telling = wrong is not None and is_telling(wrong[0], near in known.leaf)
            places = {*list_places(wrong[0], recorded)} if telling else set[Place]()
            if places:
                common = common & places if common else places
                whose = f"∂L/∂{known.leaf[near]}" if near in known.leaf else ""
                what = whose or "a gradient that is wrong"
                break
        else:
            continue
        if not common:
            return None
    return Guess(common.pop(), what) if len(common) == 1 else None


def list_sources(known: Structure, slot: int) -> Iterator[int]:
    """List a slot, then those that it is computed from, the nearest first.

    A derivation computes no gradients inside of an expression that it differentiates as a whole,
    such as a softmax with its cross-entropy.
    """
    border, seen = [slot], set[int]()
    for _ in range(HOPS):
        yield from border
        seen.update(border)
        numbers = [known.producer[each] for each in border if each in known.producer]
        border = [
            each
            for number in dict.fromkeys(numbers)
            for each in known.program.operations[number].inputs
            if each not in seen and each not in known.program.constants and each not in known.leaf
        ]


def guess_gradient_line(submitted: Array, name: str, recorded: Sequence[Recorded]) -> Guess | None:
    """Guess the expression that computes a gradient which is wrong after the backward pass."""
    places = [*list_places(submitted, recorded)] if is_telling(submitted, True) else []
    return Guess(places[-1], f"∂L/∂{name}") if places else None


def list_places(wanted: Array, recorded: Sequence[Recorded]) -> Iterator[Place]:
    """List the places of the expressions whose value is an array that none of its operands is."""
    for each in recorded:
        if is_same(each.value, wanted) and not any(is_same(given, wanted) for given in each.given):
            place = find_place(each, recorded)
            if place is not None and place.end_column:
                yield place


def is_same(found: Array, wanted: Array) -> bool:
    """Tell whether an array holds the numbers of another, in any layout."""
    return found.size == wanted.size and abs(find_multiple(found, wanted) - 1) <= NEAR


def is_telling(found: Array, of_parameter: bool) -> bool:
    """Tell whether numbers are no trivial ones, which several expressions have."""
    many = of_parameter or found.size > TELLING
    return bool(many and np.isfinite(found).all() and (np.ptp(found) > 0 or found.size == 1))
