"""Mistakes in the targets of a loss: those of another step, or of another row of a softmax."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.in_patterns import AROUND, HOPS, ancestors, producers
from bptt_verifier.mistakes.in_time import differentiate
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    change_nothing,
    scale_edges,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import Operation
from bptt_verifier.program.structure import Structure, shape_of

NAME = "input-off-by-one"
OUTSIDE = 12  # other targets that are tried at an end, at most


def list_target_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List losses at every step whose gradient has the target of the step before or after."""
    for group in known.groups:
        if len(group) == known.steps > 1:
            yield from list_picked_targets(known, group)
            yield from list_subtracted_targets(known, group)


def list_softmax_targets(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes in the targets y of the gradient p − y of a softmax and its cross-entropy.

    What the numerator of p gets, or the scores in log p, is −y; the rest of the softmax gives p.
    """
    for group in known.groups:
        source = find_source(known, group)
        if source is None:
            continue
        edges = [(number, 0) for number in group]
        right = "where the derivative of the cross-entropy of a softmax p with targets y is p − y"
        for name, words, by in (
            ("output-gradient-missing", "p", 0.0),
            ("sign-flipped", "p + y", -1.0),
            ("path-counted-twice", "p − 2 y", 2.0),
        ):
            made = scale_edges(name, f"your gradient uses {words}, {right}", edges, by)
            details = {"or": ["constant-factor"]} if by == 2 else {}
            yield made._replace(family=(name, "targets"), details=details)
        for rows, where in list_rows(source, known.steps):
            for words, taken, spread in list_row_mistakes(rows.size):
                said = f"in your gradient p − y{where} {words}, {right}"
                changes = partial(take_targets, known, group, source, rows, taken, spread)
                family = "targets", words, rows
                yield OperationMistake("wrong-operand", said, group[0], changes, {}, family)


class Source(NamedTuple):
    """What the loss picks its targets from: p, log p or scores, with the axis of the classes.

    `kind` is "p", "log p", whose operation gets −y, or "pick", which is the operation that picks
    from scores, as in log Σ exp(s) − s[y].
    """

    kind: str
    shape: tuple[int, ...]
    axis: int


class Rows(NamedTuple):
    """An axis of rows that have a target each, or a part of it: the first or second of `split`."""

    axis: int
    size: int
    split: tuple[int, int] | None = None
    part: int = 0


def find_source(known: Structure, group: Sequence[int]) -> Source | None:
    """Find what the loss picks the targets of a softmax from at the operations of a group."""
    operation = known.program.operations[group[0]]
    axis = find_class_axis(known, group[0])
    if axis is not None and all(is_picked(known, number, axis) for number in group):
        return Source("log p" if operation.name == "sub" else "p", operation.shapes[0], axis)
    if not all(is_pick(known, number) for number in group):
        return None
    shape = shape_of(known, operation.inputs[0]) or ()
    axis = find_summed_axis(known, operation.inputs[0])
    return None if axis is None else Source("pick", shape, axis)


def find_summed_axis(known: Structure, scores: int) -> int | None:
    """Find the axis over which the exponentials of scores are summed; None where they are not."""
    operations, border = known.program.operations, [scores]
    for _ in range(HOPS):
        users = [user for slot in border for user, _ in known.users.get(slot, ())]
        for user in users:
            if operations[user].name == "reduce_sum":
                axis = find_long_axis(known, user)
                if axis is not None and producers(known, {*operations[user].inputs}, "exp"):
                    return axis
        names = AROUND | {"sub", "exp"}
        border = [s for user in users if operations[user].name in names
                  for s in operations[user].outputs]  # fmt: skip
    return None


def find_long_axis(known: Structure, number: int) -> int | None:
    """Find the one axis of more than one entry that a sum is over; None where there is not one."""
    operation = known.program.operations[number]
    shape = shape_of(known, operation.inputs[0]) or ()
    axes = [axis for axis in operation.params["axes"] if shape[axis] > 1]
    return int(axes[0]) if len(axes) == 1 else None


def list_rows(source: Source, steps: int) -> Iterator[tuple[Rows, str]]:
    """List the axes of rows, in words where there are several, and those of which one is made.

    Rows of all sequences at all steps are often one axis.
    """
    axes = [k for k, size in enumerate(source.shape) if k != source.axis and size > 1]
    for axis in axes:
        count = source.shape[axis]
        yield Rows(axis, count), f", along axis {axis}," if len(axes) > 1 else ""
        others, rest = divmod(count, steps)
        for split in ((others, steps), (steps, others)) if others > 1 < steps and not rest else ():
            for part in (0, 1):
                where = f", the rows being {split[0]} times {split[1]}, along the"
                where += f" {'second' if part else 'first'} of these axes"
                yield Rows(axis, split[part], split, part), where


def find_class_axis(known: Structure, number: int) -> int | None:
    """Find the axis of the classes of a softmax, or of its logarithm, that an operation computes.

    None where it computes neither, and where the softmax is over several axes.
    """
    operations = known.program.operations
    operation = operations[number]
    if operation.name not in {"div", "sub"}:
        return None
    below = ancestors(known, operation.inputs[1], AROUND)
    if operation.name == "sub":
        logs = producers(known, below, "log")
        sums = [ancestors(known, operations[log].inputs[0], AROUND) for log in logs]
        below = {slot for each in sums for slot in each}
    elif not producers(known, ancestors(known, operation.inputs[0], AROUND), "exp"):
        return None
    for each in producers(known, below, "reduce_sum"):
        shape = shape_of(known, operations[each].inputs[0]) or ()
        axis = find_long_axis(known, each)
        if axis is not None and len(shape) == len(operation.shapes[0]):
            return axis
    return None


def is_picked(known: Structure, number: int, axis: int) -> bool:
    """Tell whether the loss picks the entries of its targets from a result, or its logarithm."""
    operations, border = known.program.operations, [*known.program.operations[number].outputs]
    for _ in range(HOPS):
        users = [user for slot in border for user, _ in known.users.get(slot, ())]
        if any(is_pick(known, user) or is_product_with_picks(known, user, axis) for user in users):
            return True
        names = AROUND | {"log", "neg", "add"}
        border = [s for user in users if operations[user].name in names
                  for s in operations[user].outputs]  # fmt: skip
    return False


def is_pick(known: Structure, number: int) -> bool:
    """Tell whether an operation moves some entries of its operand and leaves others out."""
    operation = known.program.operations[number]
    size = prod(shape_of(known, operation.inputs[0]) or ())
    return operation.moved is not None and operation.moved.size < size


def is_product_with_picks(known: Structure, number: int, axis: int) -> bool:
    """Tell whether an operation multiplies by a constant with one 1, or none, along an axis."""
    operation, constants = known.program.operations[number], known.program.constants
    values = [constants[slot] for slot in operation.inputs if slot in constants]
    return operation.name == "mul" and any(
        value.shape == operation.shapes[0]
        and np.isin(value, (0, 1)).all()
        and (value.sum(axis=axis) <= 1).all()
        for value in values
    )


def list_row_mistakes(rows: int) -> Iterator[tuple[str, list[int | None], bool]]:
    """List, in words, from which row each row has its target, and whether it has those of all."""
    every = list[int | None](range(rows))
    none = [None] * rows
    yield "the last row lacks its target", [*every[:-1], None], False
    yield "the first row lacks its target", [None, *every[1:]], False
    yield "only the first row has its target", [0, *none[1:]], False
    yield "only the last row has its target", [*none[1:], rows - 1], False
    yield "every row has the targets of all rows", every, True
    yield "the first row has the targets of all rows, and no other has any", [0, *none[1:]], True
    yield "every row has the target of the row after it", [*every[1:], None], False
    yield "every row has the target of the row after it", [*every[1:], 0], False
    yield "every row has the target of the row after it", [*every[1:], rows - 1], False
    yield "every row has the target of the row before it", [None, *every[:-1]], False
    yield "every row has the target of the row before it", [rows - 1, *every[:-1]], False
    yield "every row has the target of the row before it", [0, *every[:-1]], False
    yield "every row has the target of the first row", [0] * rows, False
    yield "every row has the target of the last row", [rows - 1] * rows, False
    yield "the rows have their targets in the opposite order", every[::-1], False


def take_targets(
    known: Structure,
    group: Sequence[int],
    source: Source,
    rows: Rows,
    taken: Sequence[int | None],
    spread: bool,
    values: Values,
) -> Changes:
    """Pass back what targets of other rows give, with the weights of the rows."""
    operations, changes = known.program.operations, Changes()
    for number in group:
        (slot,) = operations[number].outputs
        p = values[slot] if source.kind == "p" else 1.0
        numerator = values[operations[number].inputs[0]] if source.kind == "p" else 1.0
        moved = operations[number].moved if source.kind == "pick" else None

        def through(
            arriving: Any, p: Any = p, numerator: Any = numerator, moved: Any = moved
        ) -> Any:
            given = arriving[0]
            if moved is not None:
                entries = np.zeros((prod(source.shape), len(given)))
                np.add.at(entries, moved.reshape(-1), given.reshape(len(given), -1).T)
                given = entries.T
                given = given.reshape(-1, *source.shape)
            with np.errstate(all="ignore"):
                return exchange_targets(p * given, source, rows, taken, spread) / numerator

        changes[number, 0] = Change(0, through=through)
    return changes


def exchange_targets(
    weighted: Array, source: Source, rows: Rows, taken: Sequence[int | None], spread: bool
) -> Array:
    """Give rows the targets of other rows: `weighted` is −y, times the weight of each row."""
    kept = [row for row, other in enumerate(taken) if other is not None]
    others = [other for other in taken if other is not None]
    axes = rows.axis + 1, source.axis + 1  # the first one counts the rows of the sweep
    given = np.moveaxis(weighted, axes, (-2, -1))
    whole = given.shape
    if rows.split is not None:
        given = given.reshape(*whole[:-2], *rows.split, whole[-1])
        given = given if rows.part else given.swapaxes(-3, -2)
    weight = given.sum(axis=-1, keepdims=True)
    picked = given != 0
    if spread:
        picked = np.broadcast_to(picked.any(axis=-2, keepdims=True), picked.shape)
    picked = picked[..., kept if spread else others, :]
    result = np.zeros_like(given)
    result[..., kept, :] = weight[..., kept, :] * picked
    if rows.split is not None:
        result = result if rows.part else result.swapaxes(-3, -2)
        result = result.reshape(whole)
    return np.moveaxis(result, (-2, -1), axes)


def list_orders(count: int) -> Iterator[tuple[str, list[int]]]:
    """List which step's target each step has, in words and by number."""
    steps = [*range(count)]
    yield "previous", [steps[-1], *steps[:-1]]
    yield "previous", [steps[0], *steps[:-1]]
    yield "next", [*steps[1:], steps[0]]
    yield "next", [*steps[1:], steps[-1]]


def list_targets(known: Structure, slots: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """List which constant each step has as its target; at an end, it may be one that none has."""
    for which, order in list_orders(len(slots)):
        yield which, [slots[k] for k in order]
    constants = known.program.constants
    first, alike = constants[slots[0]], list[int]()
    for slot, value in constants.items():
        same = value.shape == first.shape and value.dtype == first.dtype and value.size > 1
        if (
            same
            and slot not in slots
            and not any(np.array_equal(value, constants[s]) for s in alike)
        ):
            alike.append(slot)
    for slot in alike[:OUTSIDE]:
        yield "previous", [slot, *slots[:-1]]
        yield "next", [*slots[1:], slot]


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
    for which, picked in list_picks(known, operations):
        said = f"the gradient is that of a loss with the {which} step's index in {value}"
        swapped = {n: every[n]._replace(moved=m) for n, m in zip(group, picked, strict=True)}
        listed = tuple(swapped.get(number, each) for number, each in enumerate(every))
        whole = partial(differentiate, known.program._replace(operations=listed))
        yield OperationMistake(NAME, said, group[0], change_nothing, whole=whole)


def list_picks(
    known: Structure, operations: Sequence[Operation]
) -> Iterator[tuple[str, list[Any]]]:
    """List which indices each step has; at an end, they may be others: those of the inputs."""
    moved = [each.moved for each in operations if each.moved is not None]
    for which, order in list_orders(len(moved)):
        yield which, [moved[k] for k in order]
    shape = shape_of(known, operations[0].inputs[0]) or ()
    size, others = prod(shape), list[Any]()
    if moved[0].size == 1 and size <= OUTSIDE:
        others = [np.full_like(moved[0], k) for k in range(size)]
    for value in known.program.constants.values():
        # One-hot rows, as inputs have them, of which each picks an entry of a row.
        if value.shape == shape and value.size > moved[0].size > 1 and is_one_hot(value):
            others.append(np.flatnonzero(value).astype(moved[0].dtype))
    for other in others[:OUTSIDE]:
        yield "previous", [other, *moved[:-1]]
        yield "next", [*moved[1:], other]


def is_one_hot(value: Array) -> bool:
    """True if every row has one 1, and zeros otherwise."""
    return bool(np.isin(value, (0, 1)).all() and (value.sum(axis=-1) == 1).all())


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
        for which, chosen in list_targets(known, slots):
            shifted = {slot: constants[k] for slot, k in zip(slots, chosen, strict=True)}
            other = known.program._replace(constants=constants | shifted)
            said = f"the gradient is that of a loss with the {which} step's value of {value}"
            yield OperationMistake(
                NAME, said, group[0], change_nothing, whole=partial(differentiate, other)
            )
