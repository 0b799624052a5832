"""Families: one mistake that is made at several places of a loss.

Four gates with weights of their own, two layers, two directions, every call of a function: whoever
makes a mistake at one of these places makes it at all of them, or at a natural part.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from bptt_verifier.mistakes.operation_mistakes import Changes, OperationMistake, Values
from bptt_verifier.program.structure import Structure

FEW = 5  # places of which every subset is tried


def list_families(
    known: Structure, single: Iterable[OperationMistake]
) -> Iterator[OperationMistake]:
    """List every mistake of `single` at several of the places where it can be made."""
    members: dict[Hashable, list[OperationMistake]] = {}
    for each in single:
        if each.family is not None:
            members.setdefault(each.family, []).append(each)
    seen = set[tuple[Any, ...]]()
    for family, every in members.items():
        for chosen in list_subsets(known, every):
            key = family, tuple(each.equation for each in chosen)
            if len(chosen) > 1 and key not in seen:
                seen.add(key)
                yield join(chosen)


def list_subsets(
    known: Structure, every: Sequence[OperationMistake]
) -> Iterator[Sequence[OperationMistake]]:
    """List all places, those of one line, caller, parameter or value, and then any few of them."""
    operations = known.program.operations

    def place(each: OperationMistake) -> tuple[Any, ...]:
        return operations[each.equation].where

    parts = [every]
    for attribute in (
        lambda each: place(each)[:1],
        lambda each: [(at.file, at.line) for at in place(each)[:1]],
        lambda each: [(at.file, at.line) for at in place(each)[-1:]],
        lambda each: place(each)[1:],
        lambda each: [known.leaf.get(slot) for slot in operations[each.equation].inputs],
        lambda each: known.layers[each.equation],
        lambda each: [s for s in operations[each.equation].inputs if s not in known.leaf],
    ):
        by_value: dict[str, list[OperationMistake]] = {}
        for each in every:
            by_value.setdefault(repr(attribute(each)), []).append(each)
        if 1 < len(by_value) < len(every):
            parts += by_value.values()
    yield from parts
    for part in parts:
        sizes = range(len(part) - 1, 1, -1) if len(part) <= FEW else [len(part) - 1]
        for count in sizes:
            yield from combinations(part, count)


def join(chosen: Sequence[OperationMistake]) -> OperationMistake:
    """Join mistakes of one family to one mistake at all of their places."""
    changes = [each.changes for each in chosen]

    def every(values: Values) -> Changes:
        return {edge: change for each in changes for edge, change in each(values).items()}

    places = tuple(each.equation for each in chosen)
    said = chosen[0].alteration
    if any(each.alteration != said for each in chosen):
        said += ", and so on at the other places"
    return chosen[0]._replace(
        changes=every, places=places, members=tuple(chosen), family=None, alteration=said
    )
