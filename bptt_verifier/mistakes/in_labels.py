"""Mistakes in which entry of a value gets the gradient of a lookup, such as that of a label.

The score of a path through labels y looks up `trans[y[t - 1], y[t]]` and `start[y[0]]`; its
gradient adds at the same entries.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.in_lookups import update_rows
from bptt_verifier.mistakes.in_targets import is_pick
from bptt_verifier.mistakes.operation_mistakes import OperationMistake
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.structure import Structure, shape_of

SOURCES = 12  # other lookups whose indices are tried in the place of each, at most
ENDS = (("first", 0), ("second", 1), ("last", -1), ("last but one", -2))


def list_label_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List lookups whose gradient goes to the transposed entry, or to that of another lookup."""
    lookups = [group for group in known.groups if all(is_pick(known, number) for number in group)]
    for group in lookups:
        yield from list_transposed_entries(known, group)
        yield from list_other_labels(known, group, lookups)


def list_transposed_entries(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List lookups in square matrices, of entries or rows, whose gradient goes to the transpose."""
    moved, transposed = read_indices(known, group), list[Array]()
    for number, own in zip(group, moved, strict=True):
        shape = shape_of(known, known.program.operations[number].inputs[0]) or ()
        if len(shape) != 2 or shape[0] != shape[1]:
            return
        rows, columns = np.divmod(own, shape[0])
        transposed.append(columns * shape[0] + rows)
    if all(map(np.array_equal, moved, transposed)):
        return
    what, name = quote_expression(known, group[-1]), "transposed-gradient"
    said = f"the gradient of {what} goes to the transposed entry, its row and column exchanged"
    changes = partial(update_rows, known, group, transposed)
    yield OperationMistake(name, said, group[0], changes, {}, (name, "lookup"))


def list_other_labels(
    known: Structure, group: Sequence[int], lookups: Sequence[Sequence[int]]
) -> Iterator[OperationMistake]:
    """List lookups whose gradient goes to the label that another lookup of the sequence has."""
    moved = read_indices(known, group)
    count = count_labels(known, group)
    if count < 2 or any(own.size > 1 for own in moved):
        return
    what, tried = quote_expression(known, group[-1]), list[list[int]]()
    others = [
        each
        for each in lookups
        if each is not group
        and count_labels(known, each) == count
        and not any(has_whole_rows(moved, count) for moved in read_indices(known, each))
    ]
    for each in others[:SOURCES]:
        for pools in list_pools(known, group, each):
            for which, at in ENDS:
                if not all(pool.size > max(at, -at - 1) for pool in pools):
                    continue
                labels = [int(pool[at]) for pool in pools]
                taken = [own - own % count + k for own, k in zip(moved, labels, strict=True)]
                if labels in tried or all(map(np.array_equal, moved, taken)):
                    continue
                tried.append(labels)
                where = quote_expression(known, each[-1])
                where = where if all(pool.size == 1 for pool in pools) else f"the {which} {where}"
                said = f"the gradient of {what} goes to the entry of the label of {where}"
                changes = partial(update_rows, known, group, taken)
                yield OperationMistake("wrong-operand", said, group[0], changes)


def list_pools(
    known: Structure, group: Sequence[int], other: Sequence[int]
) -> Iterator[list[Array]]:
    """List the labels of another group of lookups, for each lookup of a group.

    A loss computes one sequence after another, and has one lookup of the group in each. What is
    computed between two of them belongs to the sequence of the one or of the other.
    """
    count, ends = count_labels(known, other), [-1, *group, len(known.program.operations)]
    labels = dict(zip(other, read_indices(known, other), strict=True))
    for first in (1, 0):
        spans = zip(ends[first:], ends[first + 1 :], strict=False)
        pools = [[labels[n] % count for n in other if low < n < high] for low, high in spans]
        pools = pools[: len(group)]
        if all(pools):
            yield [np.concatenate(pool) for pool in pools]


def read_indices(known: Structure, group: Sequence[int]) -> list[Array]:
    """Read the indices of the entries that each operation of a group looks up."""
    found = (known.program.operations[number].moved for number in group)
    return [np.asarray(moved) for moved in found]


def has_whole_rows(moved: Array, count: int) -> bool:
    """Tell whether a lookup reads whole rows of scores, as `e[t]` does, and so chooses no label."""
    if moved.size % count:
        return False
    rows = moved.reshape(-1, count)
    return np.array_equal(rows, rows[:, :1] + np.arange(count)) and not (rows[:, 0] % count).any()


def count_labels(known: Structure, group: Sequence[int]) -> int:
    """Count the labels that a lookup chooses from, along the last axis; 0 where they differ."""
    operations = known.program.operations
    shapes = {shape_of(known, operations[number].inputs[0]) or (0,) for number in group}
    counts = {shape[-1] for shape in shapes}
    return counts.pop() if len(counts) == 1 else 0
