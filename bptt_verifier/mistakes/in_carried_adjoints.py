"""Gradients of one step that are computed with what has been passed on to the step before.

A derivation that writes `dh = W.T @ da` over the adjoint of its step, and adds to another gradient
after that line, has W.T @ da in the place of da there (docs/derivation.md, section 10).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bptt_verifier.mistakes.expressions import name_operand
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    list_summands,
    make_pullback,
)
from bptt_verifier.program.activations import Activation
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, shape_of

Pair = tuple[int, int]  # a product, and that with the carried state in the same sum


def list_carried_adjoints(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List products beside that of a state whose operands get what this state gets."""
    operations, carried = known.program.operations, dict(known.carried)
    for each in activations:
        by_groups: dict[Pair, list[Pair]] = {}
        for one in each:
            readers = {(k, i) for k in one.numbers for i in range(len(operations[k].inputs))}
            summed = list_summands(known, one.start, readers)
            products = [n for n, sign in summed if sign and operations[n].name == "dot_general"]
            for last in products:
                key = known.group_of[last]
                state = next((carried[k] for k in known.groups[key] if k in carried), None)
                slot = -1 if state is None else operations[last].inputs[state]
                if state is not None and shape_of(known, slot) == operations[last].shapes[0]:
                    for number in products:
                        by_groups.setdefault((known.group_of[number], key), []).append(
                            (number, last)
                        )
        for (_, key), pairs in by_groups.items():
            state = next(carried[k] for k in known.groups[key] if k in carried)
            numbers = [number for number, _ in pairs]
            if operations[numbers[-1]].shapes != operations[pairs[-1][1]].shapes:
                continue
            for operand in known.active(*numbers):
                if (numbers[-1], operand) in known.carried:
                    continue
                own = name_operand(known, numbers[-1], operand)
                before = name_operand(known, pairs[-1][1], state)
                said = f"the gradient of {own} is computed with what is passed on to {before}, "
                said += "as after the line that overwrites the gradient of its own step"
                changes = partial(pass_carried, known, pairs, operand, state)
                yield OperationMistake("wrong-adjoint", said, numbers[0], changes)


def pass_carried(
    known: Structure, pairs: Sequence[Pair], operand: int, state: int, values: Values
) -> Changes:
    """Pass what the state of a step gets back to an operand of another product of that step."""
    changes: Changes = {}
    for number, last in pairs:
        first = make_pullback(known.program.operations[last], values)
        second = make_pullback(known.program.operations[number], values)

        def through(arriving: Any, first: Any = first, second: Any = second) -> Any:
            return second([first(arriving)[state]])[operand]

        changes[number, operand] = Change(operand, through=through)
    return changes
