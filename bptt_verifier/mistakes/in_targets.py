"""Mistakes in the targets of a loss: those of another step."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.in_time import differentiate
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, change_nothing
from bptt_verifier.program.structure import Structure

NAME = "input-off-by-one"


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
    for which, order in list_orders(len(group)):
        said = f"the gradient is that of a loss with the {which} step's index in {value}"
        swapped = {n: every[n]._replace(moved=moved[k]) for n, k in zip(group, order, strict=True)}
        listed = tuple(swapped.get(number, each) for number, each in enumerate(every))
        whole = partial(differentiate, known.program._replace(operations=listed))
        yield OperationMistake(NAME, said, group[0], change_nothing, whole=whole)


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
        for which, order in list_orders(len(group)):
            shifted = {slot: constants[slots[k]] for slot, k in zip(slots, order, strict=True)}
            other = known.program._replace(constants=constants | shifted)
            said = f"the gradient is that of a loss with the {which} step's value of {value}"
            yield OperationMistake(
                NAME, said, group[0], change_nothing, whole=partial(differentiate, other)
            )
