"""Mistakes in the gradient of a value that several terms of a sum contain: one stands for all.

In a margin loss Σ max(0, 1 + s_j − s_y) the score s_y gets minus the number of violated margins.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand
from bptt_verifier.mistakes.operation_mistakes import Changes, OperationMistake, Values
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, shape_of

SIGNS = {"add": (1.0, 1.0), "sub": (1.0, -1.0)}
CUTS = frozenset(["max", "min", "select_n"])  # operations after which a term may be constant
# Operations that terms go through before they are summed; some terms are set to zero by an index.
THROUGH = CUTS | frozenset("slice concatenate stack squeeze reshape mul add sub".split())
HOPS = 9  # operations between a difference and the sum of its terms, at most
NAME = "sum-part-missing"


def list_count_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List gradients of a value in several terms that are those of one term.

    It is that of one term in all cases, or only where there is one that is not cut off.
    """
    operations = known.program.operations
    for group in known.groups:
        name, shape = operations[group[0]].name, operations[group[0]].shapes[0]
        for operand in known.active(*group) if name in SIGNS else ():
            own = shape_of(known, operations[group[0]].inputs[operand])
            axes = find_repeated_axes(own, shape)
            found = [find_sum(known, number, axes) for number in group] if axes else []
            sums = [slot for slot in found if slot is not None]
            if not sums or len(sums) < len(group):
                continue
            value = name_operand(known, group[-1], operand)
            said = f"{value} gets the gradient of one of the terms that contain it, where the sum"
            said += " over all that are not cut off belongs"
            of_sum = partial(pass_from_sum, known, group, operand, axes, sums)
            one = partial(pass_mean, known, group, operand, axes)
            yield OperationMistake(NAME, said, group[0], of_sum, {}, (NAME, "always"))
            said += "; none where all are"
            yield OperationMistake(NAME, said, group[0], one, {}, (NAME, "where any"))


def find_repeated_axes(own: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Find the axes of a result along which an operand of this shape is repeated."""
    if own is None or len(own) not in (0, len(shape)):
        return ()
    return tuple(k for k, size in enumerate(shape) if size > 1 and (not own or own[k] == 1))


def find_sum(known: Structure, number: int, axes: tuple[int, ...]) -> int | None:
    """Find the sum over these axes of what an operation computes, after some terms are cut off."""
    operations, cut = known.program.operations, False
    shape, border = operations[number].shapes[0], [*operations[number].outputs]
    for _ in range(HOPS):
        users = sorted({user for slot in border for user, _ in known.users.get(slot, ())})
        for user in users if cut else ():
            over = operations[user].params.get("axes", ())
            whole = shape_of(known, operations[user].inputs[0]) == shape
            if operations[user].name == "reduce_sum" and whole and {*axes} <= {*over}:
                return operations[user].outputs[0]
        through = [user for user in users if operations[user].name in THROUGH]
        cut = cut or any(operations[user].name in CUTS for user in through)
        border = [slot for user in through for slot in operations[user].outputs]
    return None


def pass_from_sum(
    known: Structure,
    group: Sequence[int],
    operand: int,
    axes: tuple[int, ...],
    sums: Sequence[int],
    values: Values,
) -> Changes:
    """Pass what arrives at the sum of the terms back to an operand, once."""
    operations, changes = known.program.operations, Changes()
    for number, slot in zip(group, sums, strict=True):
        sign = SIGNS[operations[number].name][operand]
        own = values[operations[number].inputs[operand]].shape[1:]
        over = operations[known.producer[slot]].params["axes"]

        def through(arriving: Any, own: Any = own, over: Any = over, sign: float = sign) -> Any:
            kept = np.expand_dims(arriving[0], tuple(axis + 1 for axis in over))
            kept = kept if own else kept.reshape(len(kept))
            return sign * np.broadcast_to(kept, (len(kept), *own))

        changes[number, operand] = Change(operand, arriving_at=slot, through=through)
    return changes


def pass_mean(
    known: Structure, group: Sequence[int], operand: int, axes: tuple[int, ...], values: Values
) -> Changes:
    """Pass the mean over the terms that are not cut off back to an operand."""
    operations, changes = known.program.operations, Changes()
    along = tuple(axis + 1 for axis in axes)
    for number in group:
        sign = SIGNS[operations[number].name][operand]
        own = values[operations[number].inputs[operand]].shape[1:]

        def through(arriving: Any, own: Any = own, sign: float = sign) -> Any:
            count = np.maximum(np.sum(arriving[0] != 0, axis=along, keepdims=True), 1)
            mean = np.sum(arriving[0], axis=along, keepdims=True) / count
            return sign * mean.reshape(len(mean), *own)

        changes[number, operand] = Change(operand, through=through)
    return changes
