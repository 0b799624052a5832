"""Mistakes in the direction of time: what is reversed in a loss is not reversed in its gradient.

A layer that reads a sequence from its end has outputs in the opposite order. With P the reversal of
T steps, outputs P h get the gradient g, and the states h get P g, since P is its own transpose: the
state of step t gets what step T + 1 − t passes back (docs/derivation.md, section 10).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    FindChanges,
    OperationMistake,
    Values,
    change_edges,
    change_nothing,
    make_pullback,
    merge_at,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, sweep_back
from bptt_verifier.program.structure import Structure, shape_of

NAME = "output-gradient-at-wrong-step"
STATES = frozenset("stack concatenate".split())  # operations that join the states of all steps


def list_reversal_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List sequences whose gradient goes through time in the wrong direction."""
    states = find_read_states(known)
    for slots, edges in states:
        own = quote_expression(known, known.producer[slots[-1]])
        said = f"the states, {own}, get the gradients of their outputs in the opposite order of"
        said += " time: the first state that of the last step, and so on"
        family = NAME, "reversed"
        first = edges[0][0][0]
        if all(known.producer[slot] < n for each in edges for n, _ in each for slot in slots):
            changes = partial(mirror_outputs, slots, edges)
            yield OperationMistake(NAME, said, first, changes, {}, family)
        else:
            whole = partial(sweep_mirrored, known, slots, edges)
            yield OperationMistake(NAME, said, first, change_nothing, whole=whole)
        yield from list_mirrored_heads(known, edges)
    yield from list_flipped_arrays(known)


def find_read_states(known: Structure) -> list[tuple[list[int], list[list[Edge]]]]:
    """Find the states of each recurrence by step, with the other edges that read each of them.

    Only states that something else reads at every step have outputs in an order.
    """
    operations, carried = known.program.operations, {*known.carried}
    sources = dict.fromkeys(operations[number].inputs[k] for number, k in known.carried)
    groups = dict[tuple[int, int], None]()
    for slot in sources:
        number = known.producer[slot]
        groups[known.group_of[number], operations[number].outputs.index(slot)] = None
    found = list[tuple[list[int], list[list[Edge]]]]()
    for group, k in groups:
        slots = [operations[number].outputs[k] for number in known.groups[group]]
        edges = [[e for e in known.users.get(slot, ()) if e not in carried] for slot in slots]
        counts, shapes = {*map(len, edges)}, {shape_of(known, slot) for slot in slots}
        if len(slots) > 1 and len(counts) == 1 and 0 not in counts and len(shapes) == 1:
            found.append((slots, edges))
    return found


def mirror_outputs(
    slots: Sequence[int], edges: Sequence[Sequence[Edge]], values: Values
) -> Changes:
    """Pass what each state gets from its outputs to the state of the mirrored step."""
    pairs = zip(edges, reversed(slots), strict=True)
    return {e: Change(e[1], after=0.0, also=(slot,)) for each, slot in pairs for e in each}


def sweep_mirrored(
    known: Structure,
    slots: Sequence[int],
    edges: Sequence[Sequence[Edge]],
    values: Values,
    made: Sequence[FindChanges] = (),
) -> dict[str, Array]:
    """Compute all gradients with the outputs' gradients of mirrored steps, in two sweeps.

    Where a step has its output before the next state is computed, one sweep comes too late.
    """
    program, changes = known.program, merge_at(values, made)
    every = [edge for each in edges for edge in each]
    cut = change_edges(every, after=0.0)(values)
    right = sweep_back(program, values, [changes])
    without = sweep_back(program, values, [changes | cut])
    seeds = dict[int, Array]()
    for each, slot in zip(edges, reversed(slots), strict=True):
        for number, operand in each:
            equation = program.operations[number]
            arriving = [right[output] for output in equation.outputs]
            if all(ct is None for ct in arriving):
                continue
            found = make_pullback(equation, values)(arriving)[operand]
            if found is not None:
                seeds[slot] = np.asarray(seeds.get(slot, 0) + found)
    more = sweep_back(program, values, [changes], seeds=seeds)
    both = {name: (without[slot], more[slot]) for name, slot in program.leaves.items()}
    return {name: one[0] + other[0] for name, (one, other) in both.items()}


def list_mirrored_heads(
    known: Structure, edges: Sequence[Sequence[Edge]]
) -> Iterator[OperationMistake]:
    """List outputs of each step whose own operands, too, get the gradient of the mirrored step."""
    for column in zip(*edges, strict=True):
        numbers = [number for number, _ in column]
        shapes = {known.program.operations[number].shapes for number in numbers}
        if len({*numbers}) < len(numbers) or len(shapes) > 1:
            continue
        said = f"the gradients of {quote_expression(known, numbers[-1])} are in the opposite order"
        said += " of time: the first step has that of the last, and so on"
        changes = partial(mirror_arriving, known, numbers)
        yield OperationMistake(NAME, said, numbers[0], changes, {}, (NAME, "head"))


def mirror_arriving(known: Structure, numbers: Sequence[int], values: Values) -> Changes:
    """Replace what arrives at the operations of all steps by what arrives at the mirrored ones."""
    right, changes = sweep_back(known.program, values), Changes()
    for number, other in zip(numbers, reversed(numbers), strict=True):
        arriving = right[known.program.operations[other].outputs[0]]
        for operand in known.active(number) if arriving is not None else ():
            changes[number, operand] = Change(operand, arriving=arriving[0])
    return changes


def list_flipped_arrays(known: Structure) -> Iterator[OperationMistake]:
    """List arrays that the loss flips, and whose gradient is not flipped back.

    Stacks of states that are flipped are mirrored states.
    """
    operations = known.program.operations
    for group in known.groups:
        if not all(is_flipped(known, number) for number in group):
            continue
        source = known.producer.get(operations[group[-1]].inputs[0], -1)
        if source >= 0 and operations[source].name in STATES:
            continue
        said = f"the gradient of what {quote_expression(known, group[-1])} puts in the opposite"
        said += " order is not put back into its own"
        changes = change_edges([(number, 0) for number in group], slope=1.0)
        name = "parts-exchanged"
        yield OperationMistake(name, said, group[0], changes, {}, (name, "flipped"))


def is_flipped(known: Structure, number: int) -> bool:
    """Tell whether an operation puts entries in another order which is its own inverse."""
    equation = known.program.operations[number]
    moved: Any = equation.moved
    if moved is None or equation.name == "transpose":
        return False
    shape, places = shape_of(known, equation.inputs[0]), np.arange(moved.size)
    same = shape == equation.shapes[0] and not np.array_equal(moved.ravel(), places)
    return same and np.array_equal(moved.ravel()[moved.ravel()], places)
