"""Iterations of a loss to a fixed point, and whether they have reached it at a point.

The implicit function theorem differentiates the fixed point, and autodiff the steps to it: both are
the same to rounding where the iteration has converged, and only there.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.operations import Operation
from bptt_verifier.program.structure import (
    Structure,
    find_carried,
    find_recurrent,
    find_starts,
    find_steps,
    select_repeated,
    structure,
)
from bptt_verifier.program.trace import Params, Program, forward

LONG = 20  # steps of an iteration, at least
# Values have settled that change by less than this part of the largest one, over the last quarter
# of the steps. Slopes converge later than values do; then they have, too: ρᵏ of them is left after
# k steps where ρ^(3k/4) is that part.
SETTLED, LATE = 2.0**-42, 4


class Iteration(NamedTuple):
    """The slots of one carried value at every step, and the operation that computes it first."""

    slots: tuple[int, ...]
    first: Operation


def find_iterations(program: Program) -> list[Iteration]:
    """Find the values that are carried through many steps which compute the same of them.

    A loop over data reads other numbers at each step: it is none of these.
    """
    known = structure(program)
    repeated = select_repeated(program, [[*group] for group in known.groups])
    found = list[Iteration]()
    for steps in sorted({len(group) for group in repeated if len(group) >= LONG}):
        step = find_steps(program, repeated, steps, known.users)
        carried = find_carried(program, step, known.producer, known.users, known.group_of)
        found += follow_steps(known._replace(steps=steps, step=step, carried=carried))
    return found


def follow_steps(known: Structure) -> list[Iteration]:
    """Follow the carried values of a loop through each of its sequences that repeats one step."""
    operations, carried = known.program.operations, find_recurrent(known)
    read = [known.producer[operations[number].inputs[operand]] for number, operand in carried]
    states = {known.group_of[number] for number in read}
    by_group = dict[int, dict[int, int]]()  # the operation of each step
    for number, t in known.step.items():
        by_group.setdefault(known.group_of[number], {})[t] = number
    found = list[Iteration]()
    for start, end in pairwise([*find_starts(known), known.steps]):
        # The first steps may read constants in the place of values that are carried later.
        chosen = [
            [operations[of_step[t]] for t in range(start + 2, end) if t in of_step]
            for of_step in by_group.values()
        ]
        if end - start >= LONG and all(is_repeated(known, every) for every in chosen):
            found += [
                Iteration(tuple(operations[n].outputs[0] for n in numbers), operations[numbers[0]])
                for group in sorted(states)
                if (numbers := [n for t, n in by_group[group].items() if start <= t < end])
            ]
    return found


def is_repeated(known: Structure, every: Sequence[Operation]) -> bool:
    """Tell whether operations of consecutive steps do the same with what the loop computes."""
    if len({describe(each) for each in every}) > 1:
        return False
    operands = zip(*(each.inputs for each in every), strict=True)
    return all(is_same_operand(known, slots) for slots in operands)


def describe(operation: Operation) -> Any:
    """Describe what an operation does to its operands, by its plain options and its moves."""
    plain = {n: v for n, v in operation.params.items() if isinstance(v, int | float | str | tuple)}
    moved = None if operation.moved is None else operation.moved.tobytes()
    return operation.name, len(operation.inputs), repr(plain), moved


def is_same_operand(known: Structure, slots: Sequence[int]) -> bool:
    """Tell whether an operand is the same at each step, or a result of the loop at each."""
    if len(set(slots)) == 1:
        return True
    constants = known.program.constants
    if all(slot in constants for slot in slots):
        values = [constants[slot] for slot in slots]
        return all(np.array_equal(value, values[0]) for value in values)
    return all(known.producer.get(slot) in known.step for slot in slots)


def has_converged(program: Program, iterations: Sequence[Iteration], params: Params) -> bool:
    """Tell whether the values of all iterations have settled at these parameters."""
    values = forward(program, params)
    return all(have_settled([values[slot] for slot in each.slots]) for each in iterations)


def have_settled(values: Sequence[Any]) -> bool:
    """Tell whether the last quarter of these values are the same, to rounding."""
    every = np.stack(np.broadcast_arrays(*values))
    if not np.isfinite(every).all():
        return False
    late = every[-1 - len(every) // LATE :]
    return bool(np.max(np.abs(late - late[-1])) <= SETTLED * np.max(np.abs(every)))
