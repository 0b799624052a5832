"""Mistakes of one array or object that every step overwrites: only the values of the last are left.

`h[:] = …; states.append(h)` stores one array many times. The forward pass is right, since it reads
each state before the next one is written. A gradient is overwritten where `dh[t - 1] = …` stands in
the place of `dh[t - 1] += …`: what the loss of that step has passed back to the state is lost.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.in_order import State, find_initial_slots, find_states
from bptt_verifier.mistakes.in_sequences import find_beginnings, take_part
from bptt_verifier.mistakes.in_time import find_initial_edges
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    FindChanges,
    OperationMistake,
    Values,
    change_edges,
    change_nothing,
    merge_at,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.activations import find_activations_at
from bptt_verifier.program.backward import Change, sweep_back
from bptt_verifier.program.operations import pass_back
from bptt_verifier.program.structure import Structure, find_starts, shape_of


def list_overwritten_states(known: Structure) -> Iterator[OperationMistake]:
    """List states of which the backward pass has the last one at every step."""
    # Layers of several widths do not fit in one array.
    states = [s for s in find_states(known) if len({shape_of(known, slot) for slot in s[0]}) == 1]
    sets = [states, *([state] for state in states)] if len(states) > 1 else [states]
    for chosen in sets if states else ():
        named = " and ".join(quote_expression(known, known.producer[s[-1]]) for s, _ in chosen)
        said = f"your backward pass has the last value of {named} at every step, as where every"
        said += " step overwrites one array; store a copy"
        for initial in (True, False):
            gradients = partial(overwrite, known, chosen, initial)
            number = known.producer[chosen[0][0][0]]
            yield OperationMistake(
                "state-overwritten", said, number, change_nothing, whole=gradients
            )


def list_overwritten_gradients(known: Structure) -> Iterator[OperationMistake]:
    """List states whose gradient from their own step is overwritten by that of the next step.

    The last state of a sequence has no next step, and keeps it.
    """
    ends = {*(start - 1 for start in find_starts(known)[1:]), known.steps - 1}
    states, carried = find_states(known), {*known.carried}
    sets = [states, *([state] for state in states)] if len(states) > 1 else [states]
    for chosen in sets if states and known.steps > 1 else ():
        lost = [
            edge
            for slots, _ in chosen
            for t, slot in enumerate(slots)
            for edge in known.users.get(slot, ())
            if t not in ends and edge not in carried
        ]
        if not lost:
            continue
        named = " and ".join(quote_expression(known, known.producer[s[-1]]) for s, _ in chosen)
        said = f"the gradient of {named} contains only what comes back from the next step, and that"
        said += " of its own step at the last one alone, as where `=` stands in the place of `+=`"
        changes = change_edges(lost, after=0.0)
        number = known.producer[chosen[0][0][-1]]
        name = "output-gradient-missing"
        yield OperationMistake(name, said, number, changes, {}, (name, "overwritten"))


def list_overwritten_steps(known: Structure) -> Iterator[OperationMistake]:
    """List steps that share one object, in which the last one has overwritten all that is stored.

    The values may be those that lead to a state alone, or also those of what follows from it, with
    or without the inputs.
    """
    operations = known.program.operations
    groups = [
        group
        for group in known.groups
        if len(group) > 1
        and all(number in known.step for number in group)
        # What moves numbers is no value: a step of an array stays where it is.
        and operations[group[0]].moved is None
    ]
    inside = find_ancestors(known, [operations[n].inputs[k] for n, k in known.carried])
    cell = [group for group in groups if inside.intersection(group)]
    said = "your backward pass has the values of the last step at every step, as where all steps"
    said += " store them in one object; make one for each step"
    for chosen in [cell, groups] if cell and len(cell) < len(groups) else [cell]:
        for inputs in (True, False) if chosen else ():
            changes = partial(repeat_last_step, known, chosen, inputs)
            yield OperationMistake("state-overwritten", said, chosen[0][0], changes)


def find_ancestors(known: Structure, slots: Sequence[int]) -> set[int]:
    """Find the operations that lead to the values of these slots."""
    border, found = [*slots], set[int]()
    while border:
        number = known.producer.get(border.pop())
        if number is not None and number not in found:
            found.add(number)
            border += known.program.operations[number].inputs
    return found


def repeat_last_step(
    known: Structure, groups: Sequence[Sequence[int]], inputs: bool, values: Values
) -> Changes:
    """Pass cotangents back through the operations of every step at the values of the last one.

    The inputs are constants; they are those of the last step, too, or the right ones.
    """
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    for group in groups:
        last = operations[group[-1]]
        outputs = [values[slot] for slot in last.outputs]
        for number in group[:-1]:
            if operations[number].shapes != last.shapes:
                return {}  # of sequences of several lengths
            pairs = zip(operations[number].inputs, last.inputs, strict=True)
            right = known.program.constants if not inputs else {}
            given = [values[own if slot in right else slot] for own, slot in pairs]
            for operand in known.active(number):

                def through(
                    arriving: Any,
                    operand: int = operand,
                    last: Any = last,
                    given: Any = given,
                    outputs: Any = outputs,
                ) -> Any:
                    return pass_back(last, given, outputs, arriving)[operand]

                changes[number, operand] = Change(operand, through=through)
    return changes


def overwrite(
    known: Structure,
    states: Sequence[State],
    initial: bool,
    values: Values,
    made: Sequence[FindChanges] = (),
) -> dict[str, Array]:
    """Differentiate at values in which these states are the last ones, `initial` ones as well."""
    operations, mixed, changes = (
        known.program.operations,
        [*values],
        dict[tuple[int, int], Change](),
    )
    for slots, edges in states:
        last = values[slots[-1]]
        ends = find_activations_at(known, known.producer[slots[-1]])[-1:]
        for slot in slots:
            mixed[slot] = last
            # The slope of an activation of several operations is that of the last state, too.
            for each, end in zip(
                find_activations_at(known, known.producer[slot])[-1:], ends, strict=False
            ):
                for number, other in zip(each.numbers, end.numbers, strict=False):
                    mixed[operations[number].outputs[0]] = values[operations[other].outputs[0]]
        if initial:
            for slot in find_initial_slots(known, find_initial_edges(known), edges):
                # One of fewer axes is left, since what it meets has no room for the last state.
                mixed[slot] = last if values[slot].ndim == last.ndim else values[slot]
            changes |= replace_beginnings(known, slots, values)
    found = sweep_back(known.program, mixed, [merge_at(mixed, made) | changes])
    return {name: found[slot][0] for name, slot in known.program.leaves.items()}


def replace_beginnings(known: Structure, slots: Sequence[int], values: Values) -> Changes:
    """Replace an initial state that is a constant by the last one, where products read it."""
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    last = values[slots[-1]]
    for each in find_beginnings(known, tuple(slots)):
        operands = operations[each.number].inputs
        joined = np.array(values[operands[each.operand]], dtype=last.dtype)
        size = last.shape[each.axis + 1] if each.axis is not None else 0
        part = take_part(each, joined, size)
        if part.shape != last.shape:
            return {}
        part[...] = last
        for operand in known.active(each.number):
            changes[each.number, operand] = Change(operand, instead=((each.operand, joined),))
    return changes
