"""Mistakes in the targets of a loss: those of another step."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.in_time import differentiate
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, change_nothing
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.operations import Operation
from bptt_verifier.program.structure import Structure, shape_of

NAME = "input-off-by-one"
OUTSIDE = 12  # other targets that are tried at an end, at most


def list_target_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List losses at every step whose gradient has the target of the step before or after."""
    for group in known.groups:
        if len(group) == known.steps > 1:
            yield from list_picked_targets(known, group)
            yield from list_subtracted_targets(known, group)


def list_orders(count: int) -> Iterator[tuple[str, list[int]]]:
    """List which step's target each step has, in words and by number."""
    steps = [*range(count)]
    yield "previous", [steps[-1], *steps[:-1]]
    yield "previous", [steps[0], *steps[:-1]]
    yield "next", [*steps[1:], steps[0]]
    yield "next", [*steps[1:], steps[-1]]


def list_targets(known: Structure, slots: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """List which constant each step has as its target; at an end, it may be one that none has."""
    for which, order in list_orders(len(slots)):
        yield which, [slots[k] for k in order]
    constants = known.program.constants
    first, alike = constants[slots[0]], list[int]()
    for slot, value in constants.items():
        same = value.shape == first.shape and value.dtype == first.dtype and value.size > 1
        if (
            same
            and slot not in slots
            and not any(np.array_equal(value, constants[s]) for s in alike)
        ):
            alike.append(slot)
    for slot in alike[:OUTSIDE]:
        yield "previous", [slot, *slots[:-1]]
        yield "next", [*slots[1:], slot]


def list_picked_targets(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List targets that are an index, such as that of a class."""
    every = known.program.operations
    operations = [every[number] for number in group]
    moved = [each.moved for each in operations if each.moved is not None]
    of_leaf = any(each.inputs[0] in known.leaf for each in operations)
    if len(moved) < len(group) or of_leaf or len({each.shapes for each in operations}) > 1:
        return
    if all(np.array_equal(moved[0], each) for each in moved[1:]):
        return
    value = quote_expression(known, group[-1])
    for which, picked in list_picks(known, operations):
        said = f"the gradient is that of a loss with the {which} step's index in {value}"
        swapped = {n: every[n]._replace(moved=m) for n, m in zip(group, picked, strict=True)}
        listed = tuple(swapped.get(number, each) for number, each in enumerate(every))
        whole = partial(differentiate, known.program._replace(operations=listed))
        yield OperationMistake(NAME, said, group[0], change_nothing, whole=whole)


def list_picks(
    known: Structure, operations: Sequence[Operation]
) -> Iterator[tuple[str, list[Any]]]:
    """List which indices each step has; at an end, they may be others: those of the inputs."""
    moved = [each.moved for each in operations if each.moved is not None]
    for which, order in list_orders(len(moved)):
        yield which, [moved[k] for k in order]
    shape = shape_of(known, operations[0].inputs[0]) or ()
    size, others = prod(shape), list[Any]()
    if moved[0].size == 1 and size <= OUTSIDE:
        others = [np.full_like(moved[0], k) for k in range(size)]
    for value in known.program.constants.values():
        # One-hot rows, as inputs have them, of which each picks an entry of a row.
        if value.shape == shape and value.size > moved[0].size > 1 and is_one_hot(value):
            others.append(np.flatnonzero(value).astype(moved[0].dtype))
    for other in others[:OUTSIDE]:
        yield "previous", [other, *moved[:-1]]
        yield "next", [*moved[1:], other]


def is_one_hot(value: Array) -> bool:
    """True if every row has one 1, and zeros otherwise."""
    return bool(np.isin(value, (0, 1)).all() and (value.sum(axis=-1) == 1).all())


def list_subtracted_targets(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List targets that are constants, which a difference alone reads."""
    operations, constants = known.program.operations, known.program.constants
    if operations[group[0]].name != "sub":
        return
    for operand in (0, 1):
        slots = [operations[number].inputs[operand] for number in group]
        if not all(slot in constants and len(known.users[slot]) == 1 for slot in slots):
            continue
        if len({constants[slot].shape for slot in slots}) > 1:
            continue
        value = name_operand(known, group[-1], operand)
        for which, chosen in list_targets(known, slots):
            shifted = {slot: constants[k] for slot, k in zip(slots, chosen, strict=True)}
            other = known.program._replace(constants=constants | shifted)
            said = f"the gradient is that of a loss with the {which} step's value of {value}"
            yield OperationMistake(
                NAME, said, group[0], change_nothing, whole=partial(differentiate, other)
            )
