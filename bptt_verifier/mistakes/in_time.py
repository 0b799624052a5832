"""Mistakes in what a backward pass carries through time: recurrences, truncations, outputs."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_apart, quote_expression
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    FindChanges,
    OperationMistake,
    Values,
    change_edges,
    change_nothing,
    find_role,
    merge_at,
    scale_edges,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.activations import find_activations, is_linear
from bptt_verifier.program.backward import Change, backward, sweep_back
from bptt_verifier.program.operations import Operation
from bptt_verifier.program.structure import (
    Structure,
    find_recurrent,
    is_partial_sum,
    shape_of,
)
from bptt_verifier.program.trace import Program, forward

DROPPED = "recurrent-path-dropped"
STATES = 4  # states of which every subset is tried
CHUNKS = 12  # longest chunk of a truncation that is tried, except for these
TILES = (16, 32, 64, 128)  # steps of the chunks of kernels
ADJOINTS = 8  # other adjoints of a step that are tried in the place of one


def cut_at(known: Structure, edges: Sequence[Edge], steps: Sequence[int]) -> list[Edge]:
    """Select the carried edges that lead into these steps."""
    return [edge for edge in edges if known.step[edge[0]] in steps]


def list_recurrence_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that drop the gradient carried between steps, or count it twice."""
    carried = find_recurrent(known)
    if not carried:
        return
    between = "passed on from one step to the one before"
    yield scale_edges(DROPPED, f"no gradient is {between}", carried, 0.0, path="all")
    by_path: dict[tuple[int, int], list[Edge]] = {}
    by_state: dict[int, list[Edge]] = {}
    for number, operand in carried:
        by_path.setdefault((known.group_of[number], operand), []).append((number, operand))
        state = known.producer[known.program.operations[number].inputs[operand]]
        by_state.setdefault(known.group_of[state], []).append((number, operand))
    first = find_initial_edges(known)
    if first:
        yield from list_initial_mistakes(known, first)
        said = f"no gradient is {between}, nor to the initial state"
        yield scale_edges(DROPPED, said, [*first, *carried], 0.0, path="all")
    for edges in by_path.values() if len(by_path) > 1 else ():
        path = name_operand(known, *edges[-1])
        alteration = f"no gradient is passed on to the step before through {path}"
        family = DROPPED, find_role(known, [number for number, _ in edges], edges[0][1])
        found = scale_edges(DROPPED, alteration, edges, 0.0, path=path)
        yield found._replace(family=family)
    every = [*by_state.values()]
    for chosen in list_state_sets(every):
        which = sorted(edge for edges in chosen for edge in edges)
        states = dict.fromkeys(name_operand(known, *edges[-1]) for edges in chosen)
        whose = "" if len(chosen) == len(every) else f" of {' and '.join(states)}"
        if len(chosen) < len(every):
            said = f"no gradient{whose} is {between}"
            yield scale_edges(DROPPED, said, which, 0.0, path="state")
        yield from list_truncations(known, which, whose)
        if first and len(chosen) == len(every):
            yield from list_truncations(known, [*first, *which], whose, first)
    said = f"the gradient {between} is counted twice"
    yield scale_edges("path-counted-twice", said, carried, 2.0)


def list_initial_mistakes(known: Structure, first: Sequence[Edge]) -> Iterator[OperationMistake]:
    """List the mistake of giving an initial state the gradient of the state after one step."""
    operations = known.program.operations
    by_state: dict[tuple[int, int], list[Edge]] = {}
    for number, operand in first:
        later = known.groups[known.group_of[number]][1]
        states = operations[number].inputs[operand], operations[later].inputs[operand]
        if shape_of(known, states[0]) == shape_of(known, states[1]):
            by_state.setdefault(states, []).append((number, operand))
    for (_, state), edges in by_state.items():
        (kept, operand), *others = edges
        initial = name_operand(known, kept, operand)
        of_state = "of the state after the first step"
        for arriving, words in ((state, of_state), *find_argument(known, state)):
            passed = {(kept, operand): Change(operand, slope=1.0, arriving_at=arriving)}

            def changes(
                values: Values, passed: Changes = passed, others: Sequence[Edge] = tuple(others)
            ) -> Changes:
                return change_edges(others, after=0.0)(values) | passed

            said = f"the initial state, {initial}, gets the gradient {words}"
            yield OperationMistake("wrong-operand", said, kept, changes)


def find_argument(known: Structure, state: int) -> list[tuple[int, str]]:
    """Find the argument of the activation that computes a state, with words for it."""
    words = "of the argument of the activation at the first step"
    return [
        (each.start, words) for (each,) in find_activations(known, [known.producer[state]])[-1:]
    ]


def find_initial_edges(known: Structure) -> list[Edge]:
    """Find the operands that read an initial state that is a parameter, or depends on one."""
    return [
        (group[0], operand)
        for group in known.groups
        for operand in known.active(*group)
        if (group[-1], operand) in known.carried
        and group[0] in known.step
        and known.program.operations[group[0]].inputs[operand] not in known.program.constants
        and (group[0], operand) not in known.carried
    ]


def list_state_sets(states: list[list[Edge]]) -> Iterator[Sequence[list[Edge]]]:
    """List all states, then every smaller set of them where there are few."""
    yield states
    if len(states) <= STATES:
        for count in range(1, len(states)):
            yield from combinations(states, count)


def list_truncations(
    known: Structure, edges: Sequence[Edge], whose: str, first_edges: Sequence[Edge] = ()
) -> Iterator[OperationMistake]:
    """List truncations of these carried states: after the last steps, or every few steps."""
    steps, also = known.steps, [*first_edges]
    ending = ", nor to the initial state" if also else ""
    for first in range(1, steps):
        cut = also + cut_at(known, edges, [first])
        name = "first-step-skipped" if first == 1 else "truncated"
        said = f"no gradient{whose} is passed on beyond the last {steps - first} of {steps} steps"
        said += ending
        if cut or not whose:
            yield scale_edges(name, said, cut, 0.0, (cut or edges)[0], steps=steps - first)
    of_kernels = [length for length in TILES if CHUNKS < length < steps]
    for length in (*range(2, min(steps, CHUNKS + 1)), *of_kernels):
        starts = {0, steps % length} if length > 3 else range(length)
        for start in sorted(starts):
            bounds = [t for t in range(1, steps) if t % length == start % length]
            if len(bounds) > 1 or (bounds and start == 0):  # one is said of longer sequences, too
                said = f"no gradient{whose} is passed on beyond chunks of {length} steps{ending}"
                yield scale_edges(
                    "truncated",
                    said,
                    also + cut_at(known, edges, bounds),
                    0.0,
                    edges[0],
                    steps=length,
                )


def list_arrival_mistakes(
    known: Structure, find_local: Callable[[Values], tuple[list[Any], list[Any]]]
) -> Iterator[OperationMistake]:
    """List operands that get a part of the gradient: of the step's own loss, or of later steps."""
    if not find_recurrent(known):
        return
    operations = known.program.operations
    for group in known.groups:
        if group[-1] not in known.step or len(operations[group[0]].outputs) > 1:
            continue
        for operand in known.active(*group):
            if is_partial_sum(known, group[-1], operand):
                continue  # the losses of other steps are no state
            what = f"the gradient of {name_operand(known, group[-1], operand)} contains only"
            own, later = "the loss of the same step", "what comes back from later steps"
            for local, name, said in (
                (True, DROPPED, f"{own}, and not {later}"),
                (False, "output-gradient-missing", f"{later}, and not {own}"),
            ):
                changes = partial(replace_arriving, known, group, operand, find_local, local)
                family = name, local, find_role(known, group, operand)
                yield OperationMistake(name, f"{what} {said}", group[0], changes, {}, family)


def make_local(known: Structure) -> Callable[[Values], tuple[list[Any], list[Any]]]:
    """Make the function that computes all cotangents, and those of each step's own loss."""
    found: dict[int, tuple[Values, list[Any], list[Any]]] = {}

    def find_local(values: Values) -> tuple[list[Any], list[Any]]:
        if id(values) not in found:
            cut = change_edges(known.carried, after=0.0)(values)
            every = sweep_back(known.program, values, [{}, cut])
            total = [None if ct is None else ct[0] for ct in every]
            local = [None if ct is None else ct[1] for ct in every]
            found[id(values)] = values, total, local
        return found[id(values)][1:]

    return find_local


def list_adjoint_mistakes(
    known: Structure, find_local: Callable[[Values], tuple[list[Any], list[Any]]]
) -> Iterator[OperationMistake]:
    """List parameters and carried states whose gradient comes from another adjoint of the step."""
    operations = known.program.operations
    single = [
        group
        for group in known.groups
        if group[-1] in known.step and len(operations[group[0]].outputs) == 1
    ]
    carried = {known.producer[operations[number].inputs[k]] for number, k in known.carried}
    states = [group for group in single if not carried.isdisjoint(group)]
    for group in single:
        slots = [operations[number].inputs for number in group]
        of_sums = [
            k
            for k in known.active(*group)
            if slots[-1][k] in known.leaf or (group[-1], k) in known.carried
        ]
        products = operations[group[0]].name == "mul"
        others = [
            other
            for other in single
            if len(other) >= len(group)
            and other is not group
            and known.step.get(other[-1]) == known.step[group[-1]]
            and operations[other[-1]].shapes == operations[group[-1]].shapes
        ]
        for operand in known.active(*group) if products else of_sums:
            near = sorted(others, key=lambda other: abs(other[-1] - group[-1]))[:ADJOINTS]
            if operand not in of_sums:
                near = [each for each in others if each in states]
            for other in near:
                chosen = other[len(other) - len(group) :]
                changes = partial(use_adjoint, known, group, chosen, operand, find_local)
                used, right = quote_apart(known, chosen[-1], group[-1])
                if used == right:  # as inside np.interp
                    used, right = f"one part of {used}", "another"
                what = f"the gradient of {name_operand(known, group[-1], operand)} is computed from"
                what += f" the gradient of {used}, where that of {right} belongs"
                activations = find_activations(known, chosen)
                curved = activations and not is_linear(known, activations[-1][0])
                name = "activation-derivative-missing" if curved else "wrong-adjoint"
                yield OperationMistake(name, what, group[0], changes, {}, ("adjoint", other))


def use_adjoint(
    known: Structure,
    group: Sequence[int],
    others: Sequence[int],
    operand: int,
    find_local: Callable[[Values], tuple[list[Any], list[Any]]],
    values: Values,
) -> Changes:
    """Replace what arrives at these operations by what arrives at others of the same steps."""
    total, _ = find_local(values)
    changes: Changes = {}
    for number, other in zip(group, others, strict=True):
        (slot,) = known.program.operations[other].outputs
        inputs = known.program.operations[number].inputs
        arriving = total[slot]
        if arriving is not None and arriving.shape == known.program.operations[number].shapes[0]:
            # A sweep knows what arrives at a later operation, with other mistakes as well.
            factor, read = find_factor(known, number, operand), inputs[operand]
            if other > number:
                changes[number, operand] = Change(operand, arriving_at=slot)
            elif factor is None or read in known.leaf:
                changes[number, operand] = Change(operand, arriving=arriving)
            else:
                first, *_ = known.active(other)
                changes[number, operand] = Change(operand, after=0.0)
                changes[other, first] = Change(first, send=((read, factor),))
    return changes


def find_factor(known: Structure, number: int, operand: int) -> Any:
    """Find the constant by which an operation multiplies an operand; None where it is none."""
    equation, constants = known.program.operations[number], known.program.constants
    if equation.name in {"add", "add_any"}:
        return 1.0
    if equation.name != "mul" or equation.inputs[1 - operand] not in constants:
        return None
    return constants[equation.inputs[1 - operand]]


def replace_arriving(
    known: Structure,
    group: Sequence[int],
    operand: int,
    find_local: Callable[[Values], tuple[list[Any], list[Any]]],
    local: bool,
    values: Values,
) -> Changes:
    """Replace arriving cotangents by those of the same step's loss if `local`, or the rest.

    Where no rest comes back from later steps, the operand gets none, which is another statement
    unless it is computed in the step: the memory of an attention is computed before.
    """
    total, own = find_local(values)
    changes: Changes = {}
    results = [known.program.operations[number].outputs[0] for number in group]
    alone = all(total[s] is None or np.array_equal(total[s], own[s]) for s in results)
    if alone and not local and not is_of_step(known, group, operand):
        return {}
    for number in group:
        (slot,) = known.program.operations[number].outputs
        if total[slot] is not None:
            arriving = own[slot] if local else total[slot] - own[slot]
            changes[number, operand] = Change(operand, arriving=arriving)
    return changes


def is_of_step(known: Structure, group: Sequence[int], operand: int) -> bool:
    """Tell whether an operand is computed in the same time step, at any of the steps."""
    for number in group:
        producer = known.producer.get(known.program.operations[number].inputs[operand])
        if producer is not None and known.step.get(producer) == known.step.get(number):
            return True
    return False


def list_head_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that differentiate the loss of the last state as if every state had one."""
    program, operations = known.program, known.program.operations
    if known.steps < 2:
        return
    last: dict[int, list[int]] = {}  # the slots of all steps, by the slot of the last one
    for group in known.groups:
        if len(group) == known.steps and all(number in known.step for number in group):
            for outputs in zip(*(operations[number].outputs for number in group), strict=True):
                if len({operations[number].shapes for number in group}) == 1:
                    last[outputs[-1]] = [*outputs]
    reached, head = set(last), []
    for number, equation in enumerate(operations):
        if number not in known.step and reached.intersection(equation.inputs):
            reached.update(equation.outputs)
            head.append(number)
    used = {slot for number in head for slot in operations[number].inputs} & set(last)
    made = {slot for number in head for slot in operations[number].outputs}
    if not used or program.result not in made:
        return  # the loss is a sum that a step continues
    earlier = {slot for number in head for slot in operations[number].inputs}
    if any(slot in earlier for each in used for slot in last[each][:-1]):
        return  # the loss has all states already
    said = "the loss is differentiated as if the state of every step had it, not the last alone"
    for words, by in (("", 1.0), (", and averaged over the steps", 1 / known.steps)):
        other = repeat_head(program, head, [last[slot] for slot in used], known.steps)

        def gradients(
            values: Values,
            made: Sequence[FindChanges] = (),
            other: Program = other,
            by: float = by,
        ) -> dict[str, Array]:
            found = differentiate(other, values, made, frozenset(head))
            return {name: by * value for name, value in found.items()}

        yield OperationMistake(
            "output-gradient-at-every-step", said + words, head[0], change_nothing, whole=gradients
        )


def differentiate(
    program: Program,
    values: Values,
    made: Sequence[FindChanges] = (),
    repeated: frozenset[int] = frozenset(),
) -> dict[str, Array]:
    """Differentiate another program at the parameters of these values, with other mistakes.

    The gradients are no numbers where these are in `repeated` operations, whose repetitions have
    other values.
    """
    params = {name: values[slot][0] for name, slot in program.leaves.items()}
    inner = forward(program, params)
    changes = merge_at(inner, made)
    if any(number in repeated for number, _ in changes):
        return {name: np.full_like(value, np.nan) for name, value in params.items()}
    found = backward(program, inner, [changes])
    return {name: value[0] for name, value in found.items()}


def repeat_head(
    program: Program, head: Sequence[int], states: Sequence[Sequence[int]], steps: int
) -> Program:
    """Repeat the operations after the last states for the states of every step; add the losses."""
    operations, slots, result = [*program.operations], program.slots, program.result
    template = next((o for o in operations if o.name == "add"), operations[-1])
    for t in range(steps - 1):
        renamed = {each[-1]: each[t] for each in states}
        for number in head:
            equation = program.operations[number]
            outputs = tuple(range(slots, slots + len(equation.outputs)))
            slots += len(outputs)
            inputs = tuple(renamed.get(slot, slot) for slot in equation.inputs)
            renamed |= dict(zip(equation.outputs, outputs, strict=True))
            operations.append(equation._replace(inputs=inputs, outputs=outputs))
        added: Operation = template._replace(
            name="add", params={}, inputs=(result, renamed[program.result]), outputs=(slots,),
            shapes=((),), moved=None, dtypes=(np.dtype(float),),
        )  # fmt: skip
        operations.append(added)
        result, slots = slots, slots + 1
    return program._replace(operations=tuple(operations), result=result, slots=slots)


def list_output_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that pass the output's gradient to other states than the last."""
    operations = known.program.operations
    every, wrong = "output-gradient-at-every-step", "output-gradient-at-wrong-step"
    carried = {known.group_of[known.producer[operations[n].inputs[k]]] for n, k in known.carried}
    for group in known.groups:
        if len(group) != known.steps or known.steps < 2:
            continue
        outputs = [operations[number].outputs[0] for number in group]
        if (
            operations[group[-1]].name in {"add", "sub"}
            and outputs[-2] in operations[group[-1]].inputs
        ):
            continue  # a sum over steps is no state
        for number, operand in known.users.get(outputs[-1], ()):
            if number in known.step:
                continue
            state = name_operand(known, number, operand)
            gradient = f"the gradient of the last state, {state}, is passed on to"
            for slots, factor, name, where in (
                (outputs[:-1], None, every, "the state of every step"),
                (outputs[:1], 0.0, wrong, "the state of the first step"),
                (outputs[-2:-1], 0.0, wrong, "the state before the last"),
            ):
                changes = change_edges([(number, operand)], after=factor, also=tuple(slots))
                yield OperationMistake(name, f"{gradient} {where}", number, changes)
            for other in carried - {known.group_of[group[-1]]}:
                (last, *_) = operations[known.groups[other][-1]].outputs
                if shape_of(known, last) == shape_of(known, outputs[-1]) and last < outputs[-1]:
                    changes = change_edges([(number, operand)], also=(last,))
                    named = quote_expression(known, known.groups[other][-1])
                    said = f"{gradient} another last state, {named}, as well"
                    yield OperationMistake("wrong-adjoint", said, number, changes)
