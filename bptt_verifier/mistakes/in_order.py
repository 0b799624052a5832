"""Mistakes in the order of time: a backward pass that goes through the steps as the loss does.

What a step carries back goes to the step after it in the loss, not to the step before it.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.in_sequences import Beginning, find_beginnings, find_shape, take_part
from bptt_verifier.mistakes.in_time import find_initial_edges
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    FindChanges,
    OperationMistake,
    Values,
    change_nothing,
    merge_at,
    repeat_changes,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, sweep_back
from bptt_verifier.program.operations import pass_back
from bptt_verifier.program.structure import Structure, find_starts

NAME = "steps-in-wrong-order"

State = tuple[tuple[int, ...], list[Edge]]  # its slots by step, and the edges that carry it


def list_sweeps_in_order(known: Structure) -> Iterator[OperationMistake]:
    """List backward passes that go from the first step to the last, in all states or in some."""
    if not known.carried or len(find_starts(known)) > 1:
        return
    states = find_states(known)
    if not states:
        return
    every = list(range(len(states)))
    sets = [every, *split_by_dependence(known, states)]
    for chosen in sets if len(sets) > 2 else sets[:1]:
        which = [states[n] for n in chosen]
        number = which[0][1][0][0]
        said = "your backward pass begins at the step that this line computes first; it must begin"
        said += " at the one that the line computes last"
        gradients = partial(sweep_in_order, known, which)
        yield OperationMistake(NAME, said, number, change_nothing, whole=gradients)


def list_added_gradients(known: Structure) -> Iterator[OperationMistake]:
    """List states whose gradient is added to that of the state before, as `+=` for `=` does."""
    name = "path-counted-twice"
    for slots, edges in find_states(known):
        first = find_initial_edges(known)
        initial = find_initial_slots(known, first, edges)
        named = quote_expression(known, known.producer[slots[-1]])
        whole: Changes = {}
        earlier = [*initial[:1], *slots]
        for slot, before in zip(slots[len(slots) + 1 - len(earlier) :], earlier, strict=False):
            operand = known.active(known.producer[slot])[0]
            whole[known.producer[slot], operand] = Change(operand, send=((before, 1.0),))
        carried: Changes = {}
        for number, operand in edges:
            k = slots.index(known.program.operations[number].inputs[operand])
            carried[number, operand] = Change(operand, also=(*initial, *slots[:k]))
        for changes, what in ((whole, "the gradient of"), (carried, "what is carried back to")):
            said = f"{what} the state, {named}, is added to that of the state before it"
            same = partial(repeat_changes, changes)
            yield OperationMistake(name, said, edges[0][0], same, {}, (name, what))


def find_states(known: Structure) -> list[State]:
    """Find the states that each step has, and the edges that carry them; empty where one lacks."""
    operations = known.program.operations
    by_slots: dict[tuple[int, ...], list[Edge]] = {}
    for number, operand in known.carried:
        source = known.producer[operations[number].inputs[operand]]
        k = operations[source].outputs.index(operations[number].inputs[operand])
        group = known.groups[known.group_of[source]]
        slots = tuple(operations[n].outputs[k] for n in group if n in known.step)
        by_slots.setdefault(slots, []).append((number, operand))
    complete = all(len(slots) == known.steps for slots in by_slots)
    return [*by_slots.items()] if complete else []


def split_by_dependence(known: Structure, states: Sequence[State]) -> list[list[int]]:
    """Split states into those that depend on each other, as those of one layer or direction do."""
    operations, last = known.program.operations, known.steps - 1
    reached = list[set[int]]()
    for _, edges in states:
        slots = {s for n, _ in edges if known.step[n] == last for s in operations[n].outputs}
        for equation in operations:
            if not slots.isdisjoint(equation.inputs):
                slots.update(equation.outputs)
        reached.append({k for k, (each, _) in enumerate(states) if each[-1] in slots})
    sets = list[list[int]]()
    for k in range(len(states)):
        alike = [n for n in range(len(states)) if n == k or (n in reached[k] and k in reached[n])]
        if alike not in sets:
            sets.append(alike)
    return sets


def sweep_in_order(
    known: Structure, states: Sequence[State], values: Values, made: Sequence[FindChanges] = ()
) -> dict[str, Array]:
    """Compute all gradients with what each step carries back given to the step after it.

    A gradient that the last state alone gets from outside of the steps enters at the first step;
    what the last step carries back is the gradient of the initial state.
    """
    program = known.program
    edges = [edge for _, each in states for edge in each]
    groups = {(known.group_of[number], operand) for number, operand in edges}
    first = [e for e in find_initial_edges(known) if (known.group_of[e[0]], e[1]) in groups]
    # With zeros carried back to all earlier steps, each of these sweeps would be a whole one.
    entering = enter_at_first_step(known, states)
    cut = frozenset([*first, *edges]) - entering.keys()
    others = {edge: each for edge, each in merge_at(values, made).items() if edge not in cut}
    changes = others | entering
    total = sweep_back(program, values, [changes], cut=cut)
    for t in range(known.steps):
        seeds = dict[int, Array]()
        for slots, each in states:
            beginnings = list[Beginning]()
            if t == 0:
                own = [e for e in first if (known.group_of[e[0]], e[1]) in find_groups(known, each)]
                beginnings = [Beginning(*edge) for edge in own] or find_beginnings(
                    known, slots, activated=True
                )
            now = [Beginning(*edge) for edge in each if known.step[edge[0]] == t]
            targets = (
                [slots[t + 1]] if t + 1 < known.steps else find_initial_slots(known, first, each)
            )
            for target in targets:
                carried = [
                    pass_carried(known, b, slots[0], values, total) for b in beginnings or now
                ]
                found = [
                    c for c in carried if c is not None and c.shape[1:] == values[target].shape[1:]
                ]
                if found:
                    seeds[target] = np.asarray(seeds.get(target, 0) + sum(found))
        more = sweep_back(program, values, [changes], seeds=seeds, cut=cut)
        total = [b if a is None else a if b is None else a + b
                 for a, b in zip(total, more, strict=True)]  # fmt: skip
    return {name: total[slot][0] for name, slot in program.leaves.items()}


def find_groups(known: Structure, edges: Sequence[Edge]) -> set[tuple[int, int]]:
    """Find the group and the operand of each edge."""
    return {(known.group_of[number], operand) for number, operand in edges}


def find_initial_slots(known: Structure, first: Sequence[Edge], edges: Sequence[Edge]) -> list[int]:
    """Find the parameter that is the initial state of these edges, if it is one."""
    groups = find_groups(known, edges)
    found = {known.program.operations[n].inputs[k] for n, k in first
             if (known.group_of[n], k) in groups}  # fmt: skip
    return sorted(found)


def pass_carried(
    known: Structure, edge: Beginning, state: int, values: Values, total: Sequence[Array | None]
) -> Array | None:
    """Compute what an operation passes back to the state that it reads; None where that is none."""
    equation = known.program.operations[edge.number]
    arriving = [total[slot] for slot in equation.outputs]
    if all(ct is None for ct in arriving):
        return None
    given = [values[slot] for slot in equation.inputs]
    outputs = [values[slot] for slot in equation.outputs]
    with np.errstate(all="ignore"):
        found = pass_back(equation, given, outputs, arriving)[edge.operand]
    if found is None:
        return None
    size = find_shape(known, state)[edge.axis] if edge.axis is not None else 0
    return take_part(edge, np.asarray(found), size)


def enter_at_first_step(known: Structure, states: Sequence[State]) -> Changes:
    """Give the first state what the last one gets from outside of the steps, if it alone does."""
    changes: Changes = {}
    for slots, _ in states:
        outside = [
            [(n, k) for n, k in known.users.get(slot, ()) if n not in known.step] for slot in slots
        ]
        if outside[-1] and not any(outside[:-1]):
            for number, operand in outside[-1]:
                changes[number, operand] = Change(operand, after=0.0, also=(slots[0],))
    return changes
