"""Mistakes in the parts of an array: exchanged, cut out at the wrong place, left out."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from math import prod
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.in_time import DROPPED
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    change_edges,
    make_pullback,
)
from bptt_verifier.program.activations import find_activations_at, is_linear
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import move_back
from bptt_verifier.program.rounding import EXACTLY
from bptt_verifier.program.structure import Structure, find_recurrent, shape_of

JOINED = 12  # pairs of joined operands, or of slices outside a loop, that are exchanged, at most


def list_exchanges(known: Structure, groups: Sequence[Sequence[int]]) -> Iterator[OperationMistake]:
    """List mistakes that put the gradients of two parts of an array in each other's place."""
    operations = known.program.operations
    exchanged = "are in each other's place"
    slices: dict[tuple[int, ...], list[Sequence[int]]] = {}  # by what they are parts of
    for group in groups:
        if operations[group[0]].moved is not None:
            slices.setdefault(operations[group[0]].inputs, []).append(group)
    for one, other in (pair for each in slices.values() for pair in list_likely_pairs(known, each)):
        pairs = [(operations[a], operations[b]) for a, b in zip(one, other, strict=False)]
        if len(one) == len(other) and all(
            (a.inputs, a.shapes) == (b.inputs, b.shapes) and are_apart(a.moved, b.moved)
            for a, b in pairs
        ):
            changes = partial(exchange_parts, known, one, other)
            parts = " and ".join(quote_expression(known, each[-1]) for each in (one, other))
            said = f"the gradients of {parts} {exchanged}"
            yield OperationMistake("parts-exchanged", said, one[0], changes)
            before = partial(exchange_before_activation, known, one, other)
            said = f"the gradients of the arguments of {parts} {exchanged}"
            yield OperationMistake("parts-exchanged", said, one[0], before)
    for group in groups:
        shapes = operations[group[0]].shapes
        if operations[group[0]].name in {"concatenate", "stack"}:
            yield from list_exchanged_operands(known, group)
            yield from list_shifted_operands(known, group)
            yield from list_wrong_cuts(known, group)
        if operations[group[0]].name == "split":
            for i, k in combinations(range(len(shapes)), 2):
                if shapes[i] == shapes[k]:
                    changes = partial(exchange_results, known, group, i, k)
                    said = f"the gradients of the parts {i + 1} and {k + 1} {exchanged}"
                    yield OperationMistake("parts-exchanged", said, group[0], changes)


def list_exchanged_operands(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that exchange what is passed back to two operands that are joined."""
    operations = known.program.operations
    for i, k in list(combinations(known.active(*group), 2))[:JOINED]:
        inputs = [operations[number].inputs for number in group]
        if all(shape_of(known, slots[i]) == shape_of(known, slots[k]) for slots in inputs):
            one, other = (name_operand(known, group[-1], each) for each in (i, k))
            said = f"the gradients of {one} and {other} are in each other's place"
            changes = partial(exchange_operands, known, group, i, k)
            yield OperationMistake("parts-exchanged", said, group[0], changes)


def list_shifted_operands(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List stacks of the states of all steps whose gradients are those of the step beside."""
    operations = known.program.operations
    number = group[-1]
    slots = operations[number].inputs
    sources = {known.group_of.get(known.producer.get(slot, -1)) for slot in slots}
    if len(slots) < 3 or None in sources or len(sources) > 1:
        return
    for by, which in ((-1, "before"), (1, "after")):
        for wraps in (True, False):
            said = f"each step gets the gradient of the state of the step {which} it in"
            said += f" {quote_expression(known, number)}"
            changes = partial(shift_operands, known, number, by, wraps)
            yield OperationMistake("output-gradient-at-wrong-step", said, number, changes)


def shift_operands(known: Structure, number: int, by: int, wraps: bool, values: Values) -> Changes:
    """Pass back to each operand what belongs to the one beside it; none beyond the end."""
    pullback = make_pullback(known.program.operations[number], values)
    count, changes = len(known.program.operations[number].inputs), dict[tuple[int, int], Change]()
    for one in known.active(number):
        other = one + by

        def through(arriving: Any, other: int = other) -> Any:
            return pullback(arriving)[other % count]

        beyond = not wraps and not 0 <= other < count
        changes[number, one] = Change(one, after=0.0) if beyond else Change(one, through=through)
    return changes


def exchange_operands(
    known: Structure, group: Sequence[int], i: int, k: int, values: Values
) -> Changes:
    """Exchange what is passed back to two operands of each operation."""
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    for number in group:
        pullback = make_pullback(operations[number], values)
        for one, other in ((i, k), (k, i)):

            def through(arriving: Any, pullback: Any = pullback, other: int = other) -> Any:
                return pullback(arriving)[other]

            changes[number, one] = Change(one, through=through)
    return changes


def list_likely_pairs(
    known: Structure, sliced: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """List pairs of slices of one array: all of those in a step, and the first of all others."""
    every = [*combinations(sliced, 2)]
    in_step = [(a, b) for a, b in every if a[-1] in known.step and b[-1] in known.step]
    yield from in_step
    yield from [pair for pair in every if pair not in in_step][:JOINED]


def are_apart(one: Any, other: Any) -> bool:
    """Tell whether two slices have no entry in common."""
    return np.intersect1d(one, other).size == 0


def exchange_parts(
    known: Structure, one: Sequence[int], other: Sequence[int], values: Values
) -> Changes:
    """Pass what arrives at each slice back to the entries of another."""
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    for number, place in [*zip(one, other, strict=True), *zip(other, one, strict=True)]:
        given = [values[slot] for slot in operations[number].inputs]

        def through(arriving: Any, given: Any = given, moved: Any = operations[place].moved) -> Any:
            return move_back(moved, given, arriving[0], EXACTLY)[0]

        changes[number, 0] = Change(0, through=through)
    return changes


def exchange_results(
    known: Structure, group: Sequence[int], i: int, k: int, values: Values
) -> Changes:
    """Exchange what arrives at two results of each split."""
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    for number in group:
        pullback = make_pullback(operations[number], values)

        def through(arriving: Any, pullback: Any = pullback) -> Any:
            exchanged = [*arriving]
            exchanged[i], exchanged[k] = arriving[k], arriving[i]
            return pullback(exchanged)[0]

        changes[number, 0] = Change(0, through=through)
    return changes


def exchange_before_activation(
    known: Structure, one: Sequence[int], other: Sequence[int], values: Values
) -> Changes:
    """Exchange two slices of an activation's result in what arrives at its variable.

    So does a derivation that joins the gradients of the arguments in another order than the slices.
    """
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    for number, place in zip(one, other, strict=True):
        (slot,) = set(operations[number].inputs)
        found = find_activations_at(known, known.producer[slot]) if slot in known.producer else []
        curved = [e for e in found if e.start in known.producer and not is_linear(known, e)]
        moved, place_moved = operations[number].moved, operations[place].moved
        if not curved or moved is None or place_moved is None:
            return {}
        source = known.producer[curved[-1].start]
        order = np.arange(prod(shape_of(known, slot) or ()))
        order[moved], order[place_moved] = place_moved, moved
        pullback = make_pullback(operations[source], values)
        for operand in known.active(source):

            def through(
                arriving: Any, pullback: Any = pullback, order: Any = order, operand: int = operand
            ) -> Any:
                ct = arriving[0]
                return pullback([ct.reshape(len(ct), -1)[:, order].reshape(ct.shape)])[operand]

            changes[source, operand] = Change(operand, through=through)
    return changes


def list_wrong_cuts(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that take the gradient of a joined operand from the wrong end of the whole."""
    equation = known.program.operations[group[-1]]
    shapes = [shape_of(known, slot) for slot in equation.inputs]
    if equation.name != "concatenate" or None in shapes:
        return
    axis = equation.params["dimension"]
    sizes = [shape[axis] for shape in shapes if shape is not None]
    for operand in known.active(*group):
        own = sum(sizes[:operand])
        for start in sorted({0, sum(sizes) - sizes[operand]} - {own}):
            name = name_operand(known, group[-1], operand)
            said = f"the gradient of {name} is cut out of that of the whole at index {start}, "
            said += f"where it begins at index {own}"
            changes = partial(cut_at_index, group, operand, axis, start, sizes[operand])
            yield OperationMistake("parts-exchanged", said, group[0], changes)


def cut_at_index(
    group: Sequence[int], operand: int, axis: int, start: int, size: int, values: Values
) -> Changes:
    """Pass back to one operand of joined ones what arrives at other entries."""
    place = (slice(None),) * (axis + 1) + (slice(start, start + size),)

    def through(arriving: Any) -> Any:
        return arriving[0][place]

    return {(number, operand): Change(operand, through=through) for number in group}


def list_partial_products(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that pass back to a state only some parts of a product, such as gates."""
    operations = known.program.operations
    number = group[-1]
    if operations[number].name != "dot_general":
        return
    slot, shape = operations[number].outputs[0], operations[number].shapes[0]
    users = known.users.get(slot, [])
    while len(users) == 1 and operations[users[0][0]].name == "add":
        (slot,) = operations[users[0][0]].outputs
        users = known.users.get(slot, [])
    slices = [user for user, _ in users if operations[user].moved is not None]
    if len(slices) < 2 or len(slices) < len(users) or shape_of(known, slot) != shape:
        return
    slots = operations[number].inputs
    for operand in known.active(*group):
        if slots[operand] in known.leaf:
            continue
        name = DROPPED if (number, operand) in find_recurrent(known) else "zero-gradient"
        to, edges = name_operand(known, number, operand), [(k, operand) for k in group]
        for each in slices:
            mask = np.zeros(prod(shape))
            mask[operations[each].moved] = 1
            part = quote_expression(known, each)
            for said, kept in (
                (f"no gradient is passed on to {to} from {part}", 1 - mask),
                (f"the gradient passed on to {to} comes from {part} alone", mask),
            ):
                changes = change_edges(edges, before=kept.reshape(shape))
                yield OperationMistake(name, said, group[0], changes)
