"""Mistakes where one sequence or layer ends and the next one begins.

A chain is the states of one recurrence in one sequence or layer, in the order of time. A loss has
several where sequences come one after another, or layers. Whoever forgets to reset what is carried,
hands it on from one chain to the next.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.operation_mistakes import (
    FindChanges,
    OperationMistake,
    Values,
    change_nothing,
    merge_at,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, sweep_back
from bptt_verifier.program.operations import UNARY, evaluate, pass_back
from bptt_verifier.program.structure import Structure, find_starts, shape_of

STRUCTURAL = frozenset("concatenate reshape broadcast_in_dim squeeze expand_dims".split())
RESET = "state-not-reset"

Chain = tuple[int, ...]  # the slots of the states, from the first step to the last


class Beginning(NamedTuple):
    """An operand that holds the initial state of a chain, which is a constant, or a part of it.

    `offset` and `axis` are the place of the state in a constant that it is joined to, and `factor`
    is the constant that multiplies it there.
    """

    number: int
    operand: int
    offset: int = 0
    axis: int | None = None
    factor: Any = 1.0


def find_chains(known: Structure) -> list[list[Chain]]:
    """Find the chains of each state in the order of the program, where there are several.

    The states of two directions, which have lines of their own, are chains of one kind, too.
    """
    operations, starts = known.program.operations, find_starts(known)
    found: dict[Any, list[Chain]] = {}
    for slot in sorted({operations[n].inputs[k] for n, k in known.carried}):
        number = known.producer[slot]
        if number not in known.step:
            continue
        group, k = known.groups[known.group_of[number]], operations[number].outputs.index(slot)
        role = operations[number].name, operations[number].position, operations[number].where, k
        chains = found.setdefault(role, [])
        for start, end in zip(starts, [*starts[1:], known.steps], strict=True):
            states = tuple(operations[n].outputs[k] for n in group
                           if start <= known.step.get(n, -1) < end)  # fmt: skip
            if len(states) == end - start > 1 and states not in chains:
                chains.append(states)
    single = [chains[0] for chains in found.values() if len(chains) == 1]
    alike: dict[Any, list[Chain]] = {}
    for chain in single:
        alike.setdefault(find_shape(known, chain[-1]), []).append(chain)
    several = [chains for chains in found.values() if len(chains) > 1]
    return [sorted(chains) for chains in (several or alike.values()) if len(chains) > 1]


def find_beginnings(known: Structure, chain: Chain, activated: bool = False) -> list[Beginning]:
    """Find the operands that hold the initial state of a chain, as those of its first state do.

    With `activated`, also those that hold an activation of it, such as tanh(0); the slope at zero
    is then the factor of what is passed back.
    """
    operations, constants = known.program.operations, known.program.constants
    first = known.step[known.producer[chain[0]]]

    def find_before(number: int) -> int | None:
        group = known.groups[known.group_of[number]]
        return next((n for n in group if known.step.get(n) == first), None)

    def follow(slot: int, offset: int, axis: int | None, by: Any = 1.0) -> Iterator[Beginning]:
        for number, operand in known.users.get(slot, ()):
            if known.step.get(number) != first + 1:
                continue
            before, equation = find_before(number), operations[number]
            if before is not None and operations[before].inputs[operand] in constants:
                yield Beginning(before, operand, offset, axis, by)
            elif before is None and equation.name == "mul":
                # A constant times an initial state that is one has no operation of its own.
                other = equation.inputs[1 - operand]
                if other in constants and constants[other].size == 1:
                    yield from follow(
                        equation.outputs[0], offset, axis, by * constants[other].item()
                    )
            elif before is None and activated and equation.name in UNARY:
                function, slope = UNARY[equation.name]
                with np.errstate(all="ignore"):
                    factor = by * slope(np.zeros(1), function(np.zeros(1))).item()
                yield from follow(equation.outputs[0], offset, axis, factor)
            elif before is None and equation.name == "concatenate" and axis is None:
                along = equation.params["dimension"]
                shapes = [find_shape(known, each) for each in equation.inputs[:operand]]
                yield from follow(equation.outputs[0], sum(shape[along] for shape in shapes), along)

    return [*follow(chain[0], 0, None)]


def find_shape(known: Structure, slot: int) -> tuple[int, ...]:
    """Find the shape of a slot."""
    if slot in known.producer:
        equation = known.program.operations[known.producer[slot]]
        return tuple(equation.shapes[equation.outputs.index(slot)])
    return tuple(np.shape(known.program.constants[slot]))


def take_part(beginning: Beginning, value: Array, size: int) -> Array:
    """Take the part of an operand that is the state; the first axis holds samples."""
    value = value if beginning.factor == 1 else beginning.factor * value
    if beginning.axis is None:
        return value
    part = [slice(None)] * value.ndim
    part[beginning.axis + 1] = slice(beginning.offset, beginning.offset + size)
    return value[tuple(part)]


def list_reset_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List what is handed on from one sequence or layer to another that begins with zeros."""
    chains = find_chains(known)
    begin = {
        chain: found
        for each in chains
        for chain in each
        if (found := find_beginnings(known, chain))
    }
    states = [each for each in chains if all(chain in begin for chain in each)]
    if not states:
        return
    number = known.producer[states[0][-1][-1]]
    back = "the carried gradient is not reset to zero at the end of a sequence or layer:"
    for order, words in ((1, "next one"), (-1, "one before")):
        gradients = partial(hand_back, known, [each[::order] for each in states], begin)
        said = f"{back} it goes into the last state of the {words}"
        yield OperationMistake(RESET, said, number, change_nothing, whole=gradients)
    said = "the states of a sequence begin with the last ones of the sequence before it"
    # A layer of another width cannot begin with them.
    alike = [each for each in states if len({shape_of(known, chain[-1]) for chain in each}) == 1]
    if alike:
        gradients = partial(hand_forward, known, alike, begin)
        yield OperationMistake(RESET, said, number, change_nothing, whole=gradients)


Beginnings = Mapping[Chain, Sequence[Beginning]]


def hand_back(
    known: Structure,
    states: Sequence[Sequence[Chain]],
    begin: Beginnings,
    values: Values,
    made: Sequence[FindChanges] = (),
) -> dict[str, Array]:
    """Pass back from the beginning of each chain to the end of the next one in this order."""
    program = known.program
    changes = merge_at(values, made)
    total = sweep_back(program, values, [changes])
    for k in range(min(map(len, states)) - 1):
        seeds: dict[int, Array] = {}
        for chains in states:
            last, size = chains[k + 1][-1], None
            shape = values[last].shape[1:]
            for each in begin[chains[k]]:
                equation = program.operations[each.number]
                arriving = [total[slot] for slot in equation.outputs]
                if all(ct is None for ct in arriving):
                    continue
                given = [values[slot] for slot in equation.inputs]
                outputs = [values[slot] for slot in equation.outputs]
                found = pass_back(equation, given, outputs, arriving)[each.operand]
                if found is None:
                    continue
                size = shape[each.axis] if each.axis is not None else 0
                part = take_part(each, found, size)
                if part.shape[1:] == shape:
                    seeds[last] = seeds.get(last, 0) + part
        more = sweep_back(program, values, [changes], seeds=seeds)
        total = [b if a is None else a if b is None else a + b
                 for a, b in zip(total, more, strict=True)]  # fmt: skip
    return {name: total[slot][0] for name, slot in program.leaves.items()}


def hand_forward(
    known: Structure,
    states: Sequence[Sequence[Chain]],
    begin: Beginnings,
    values: Values,
    made: Sequence[FindChanges] = (),
) -> dict[str, Array]:
    """Differentiate at values with initial states that are the last states of the chain before."""
    program, read = known.program, dict[tuple[int, int], Callable[[], Array]]()
    mixed = [*values]

    def join(each: Beginning, last: int) -> Array:
        constant = values[program.operations[each.number].inputs[each.operand]]
        if each.axis is None:
            return np.broadcast_to(mixed[last], constant.shape)
        joined = np.array(constant)
        part = take_part(each, joined, mixed[last].shape[each.axis + 1])
        part[...] = mixed[last]
        return joined

    for chains in states:
        for k, chain in enumerate(chains[1:]):
            for each in begin[chain]:
                read[each.number, each.operand] = partial(join, each, chains[k][-1])
    changes = dict[tuple[int, int], Change]()
    for number, equation in enumerate(program.operations):
        given = [mixed[slot] for slot in equation.inputs]
        new = {k: read[number, k]() for k in range(len(given)) if (number, k) in read}
        given = [new.get(k, value) for k, value in enumerate(given)]
        with np.errstate(all="ignore"):
            for slot, value in zip(equation.outputs, evaluate(equation, given), strict=True):
                mixed[slot] = value
        for operand in known.active(number) if new else ():
            instead = tuple(new.items())
            changes[number, operand] = Change(operand, instead=instead)
    changes = merge_at(mixed, made) | changes
    found = sweep_back(program, mixed, [changes])
    return {name: found[slot][0] for name, slot in program.leaves.items()}
