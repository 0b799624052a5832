"""Mistakes in the lookup of rows: updates that are lost, or that another row gets."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.in_targets import NAME, list_orders
from bptt_verifier.mistakes.operation_mistakes import Changes, Edge, OperationMistake, Values
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import move_back
from bptt_verifier.program.rounding import EXACTLY
from bptt_verifier.program.structure import Structure

LOOKUPS = ("dynamic_slice", "gather", "slice")  # not of a whole array, as a broadcast is


def list_lookup_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that keep one of several updates where an entry is looked up repeatedly."""
    yield from list_computed_lookups(known)
    operations = known.program.operations
    reads: dict[int, list[int]] = {}
    for number, equation in enumerate(operations):
        slot = equation.inputs[0]
        if equation.name in LOOKUPS and equation.moved is not None and slot in known.leaf:
            reads.setdefault(slot, []).append(number)
    for slot, numbers in reads.items():
        every = np.concatenate([m for n in numbers if (m := operations[n].moved) is not None])
        if np.unique(every).size == every.size:
            continue
        what = f"a row of `{known.leaf[slot]}` that is looked up several times gets only"
        yield from list_lost_updates(known, numbers, what)
        expressions = group_by_expression(known, numbers)
        yield from list_assigned_updates(known, numbers, expressions)
        for chosen in expressions if len(expressions) > 1 else ():
            looked_up = f"{quote_expression(known, chosen[-1])} looks up several times"
            one = f"a row of `{known.leaf[slot]}` that {looked_up} gets there only"
            yield from list_lost_updates(known, chosen, one)
        yield from list_wrong_rows(known, slot, numbers)
        yield from list_assigned_rows(known, slot, numbers)
        if len(numbers) == 1:
            # A loop over steps or sequences adds the updates of each, and loses those within.
            axes = (
                len(operations[numbers[0]].shapes[0])
                - len(known.program.shapes[known.leaf[slot]])
                + 1
            )
            for axis in range(axes if axes > 1 else 0):
                changes = partial(keep_one_along, known, numbers[0], axis)
                said = f"{what} the last update at each index of axis {axis}, not their sum"
                yield OperationMistake("repeated-index", said, numbers[0], changes)


def list_assigned_updates(
    known: Structure, numbers: Sequence[int], expressions: Sequence[Sequence[int]]
) -> Iterator[OperationMistake]:
    """List `d[i] = g` at the lookups of one expression, which loses what was added to d[i] before.

    The loop that adds begins with zeros at each call of a function, or once for all.
    """
    operations = known.program.operations
    for chosen in expressions:
        own, row = quote_expression(known, chosen[-1]), known.leaf[operations[chosen[0]].inputs[0]]
        others = len(numbers) > len(chosen)
        for starts in list_segments(known, numbers, chosen):
            for forwards in (True, False) if others or len(starts) > 1 else ():
                which, lost = ("last", "before") if forwards else ("first", "by later ones")
                said = f"a row of `{row}` that {own} looks up gets only the update of its {which}"
                said += f" lookup, and loses what is added to it {lost}, as `=` in the place of"
                said += " `+=` does"
                said += ", at each call" if len(starts) > 1 else ""
                changes = partial(assign_updates, known, numbers, chosen, starts, forwards)
                yield OperationMistake("repeated-index", said, chosen[0], changes)


def list_segments(
    known: Structure, numbers: Sequence[int], chosen: Sequence[int]
) -> list[list[int]]:
    """List where sums of updates may begin: at the first lookup, or at each call of a function."""
    where = {number: known.program.operations[number].where[1:] for number in numbers}
    found, ordered = [[numbers[0]]], sorted(numbers)
    others = [number for number in ordered if number not in chosen]
    calls = [n for k, n in enumerate(ordered) if k == 0 or where[n] != where[ordered[k - 1]]]
    # Calls at one line have the same place: the lookups of another expression tell them apart.
    apart = [n for n in others if n == ordered[0] or ordered[ordered.index(n) - 1] in chosen]
    for starts in (calls, apart):
        if len(starts) > 1 and starts not in found:
            found.append(starts)
    return found


def assign_updates(
    known: Structure,
    numbers: Sequence[int],
    chosen: Sequence[int],
    starts: Sequence[int],
    forwards: bool,
    values: Values,
) -> Changes:
    """Pass back what no later lookup of an expression overwrites, in each part of all lookups."""
    changes = dict[Edge, Change]()
    ordered = sorted(numbers)
    bounds = [*starts[1:], ordered[-1] + 1]
    parts = [
        [n for n in ordered if first <= n < last]
        for first, last in zip(starts, bounds, strict=True)
    ]
    for part in parts:
        taken = np.array([], int)
        for number in reversed(part) if forwards else part:
            equation = known.program.operations[number]
            moved = equation.moved
            assert moved is not None
            kept = ~np.isin(moved, taken)
            changes[number, 0] = Change(0, before=kept.reshape(equation.shapes[0]).astype(float))
            if number in chosen:
                taken = np.concatenate([taken, moved])
    return changes


def list_lost_updates(
    known: Structure, numbers: Sequence[int], what: str
) -> Iterator[OperationMistake]:
    """List lookups of which an entry gets one update: of each lookup, or of all together."""
    moved = {n: m for n in numbers if (m := known.program.operations[n].moved) is not None}
    within = [n for n, m in moved.items() if np.unique(m).size < m.size]
    repeats = repeats_index(known, numbers)
    for across, last, said in (
        (False, True, "the last update of each lookup, not their sum"),
        (False, False, "the first update of each lookup, not their sum"),
        (True, True, "its last update, not the sum"),
        (True, False, "the update of its first lookup, not the sum"),
    ):
        if repeats if across else within:
            changes = partial(keep_one_update, known, numbers, across, last)
            # Of lookups that are all changed, the first with a repeated index is where it shows.
            first = numbers[0] if across else within[0]
            yield OperationMistake("repeated-index", f"{what} {said}", first, changes)


def list_computed_lookups(known: Structure) -> Iterator[OperationMistake]:
    """List lookups in computed values, as of receivers in a wave, whose updates are lost.

    `d[i] += g` keeps the last update of an entry whose index is repeated, and `d[i] = g` also loses
    what other expressions add to the entries.
    """
    operations = known.program.operations
    for group in known.groups:
        chosen = [(operations[number], operations[number].moved) for number in group]
        if any(
            moved is None or equation.name != "gather" or equation.inputs[0] in known.leaf
            for equation, moved in chosen
        ):
            continue
        repeated = any(
            np.unique(moved).size < moved.size for _, moved in chosen if moved is not None
        )
        what = (
            f"an entry that {quote_expression(known, group[-1])} looks up several times gets only"
        )
        name = "repeated-index"
        for last, which in ((True, "last"), (False, "first")) if repeated else ():
            changes = partial(keep_one_update, known, group, False, last)
            said = f"{what} the {which} update of each lookup, not their sum"
            yield OperationMistake(name, said, group[0], changes, {}, (name, last))
        said = (
            f"the entries that {quote_expression(known, group[-1])} looks up get its update alone,"
        )
        said += " and what other uses of the value add to them is lost"
        changes = partial(assign_entries, known, group)
        named = name if repeated else "zero-gradient"
        yield OperationMistake(named, said, group[0], changes, {}, (named, "assigned"))


def assign_entries(known: Structure, numbers: Sequence[int], values: Values) -> Changes:
    """Keep the last update of each entry, and nothing that other expressions pass back to it."""
    changes = keep_one_update(known, numbers, False, True, values)
    for number in numbers:
        equation = known.program.operations[number]
        kept = np.ones(values[equation.inputs[0]].shape[1:])
        kept.ravel()[equation.moved] = 0
        for edge in known.users[equation.inputs[0]]:
            if edge[0] not in numbers:
                changes[edge] = Change(edge[1], after=kept)
    return changes


def group_by_expression(known: Structure, numbers: Sequence[int]) -> list[list[int]]:
    """Group lookups by the expression that makes them."""
    groups: dict[Any, list[int]] = {}
    for number in numbers:
        equation = known.program.operations[number]
        groups.setdefault((equation.where, equation.position), []).append(number)
    return [*groups.values()]


def repeats_index(known: Structure, numbers: Sequence[int]) -> bool:
    """Tell whether one expression looks up an entry several times, by equal indices.

    Two expressions that read the same row at each step have no repeated index. Where their lines
    are unknown, they are told by it that each of several rows is read equally often.
    """
    operations = known.program.operations
    looked_up: dict[Any, list[Array]] = {}
    for number in numbers:
        moved = operations[number].moved
        if moved is not None:
            where = operations[number].where, operations[number].position
            looked_up.setdefault(where, []).append(moved)
    for (place, _), rows in looked_up.items():
        every = np.concatenate(rows)
        if np.unique(every).size == every.size:
            continue
        counts = Counter(each.tobytes() for each in rows)
        by_expressions = not place and len(counts) > 1 and len({*counts.values()}) == 1
        if not by_expressions or any(np.unique(each).size < each.size for each in rows):
            return True
    return False


def keep_one_along(known: Structure, number: int, axis: int, values: Values) -> Changes:
    """Pass back the last cotangent of each entry among those of each index of an axis."""
    equation = known.program.operations[number]
    assert equation.moved is not None
    moved = np.moveaxis(equation.moved.reshape(equation.shapes[0]), axis, 0)
    kept = np.zeros(moved.shape)
    for part, mask in zip(moved.reshape(len(moved), -1), kept, strict=True):
        _, first = np.unique(part[::-1], return_index=True)
        mask.ravel()[part.size - 1 - first] = 1
    return {(number, 0): Change(0, before=np.moveaxis(kept, 0, axis))}


def keep_one_update(
    known: Structure, numbers: Sequence[int], across: bool, last: bool, values: Values
) -> Changes:
    """Pass back one cotangent for each entry: of every lookup, or of all lookups together."""
    changes, taken = dict[Edge, Change](), np.array([], int)
    for number in reversed(numbers) if last else numbers:
        equation = known.program.operations[number]
        moved = equation.moved
        assert moved is not None
        # Of equal indices in one lookup, an assignment leaves the last.
        backwards = last or across
        order = moved[::-1] if backwards else moved
        _, first = np.unique(order, return_index=True)
        kept = np.zeros(moved.size, bool)
        kept[len(moved) - 1 - first if backwards else first] = True
        if across:
            kept &= ~np.isin(moved, taken)
            taken = np.concatenate([taken, moved])
        changes[number, 0] = Change(0, before=kept.reshape(equation.shapes[0]).astype(float))
    return changes


def list_wrong_rows(
    known: Structure, slot: int, numbers: Sequence[int]
) -> Iterator[OperationMistake]:
    """List updates at the row that another step looks up, such as that of its target."""
    operations = known.program.operations
    moved = [m for number in numbers if (m := operations[number].moved) is not None]
    shapes = {operations[number].shapes for number in numbers}
    if len(numbers) < 2 or len(shapes) > 1 or all(np.array_equal(moved[0], m) for m in moved[1:]):
        return
    what = f"the update of a row of `{known.leaf[slot]}` goes to that which the"
    for which, order in list_orders(len(numbers)):
        changes = partial(update_rows, known, numbers, [moved[k] for k in order])
        said = f"{what} {which} iteration looks up"
        yield OperationMistake(NAME, said, numbers[0], changes)


def update_rows(
    known: Structure, numbers: Sequence[int], rows: Sequence[Array | None], values: Values
) -> Changes:
    """Pass what arrives at each lookup back to these rows."""
    changes = dict[Edge, Change]()
    for number, moved in zip(numbers, rows, strict=True):
        given = [values[slot] for slot in known.program.operations[number].inputs]

        def through(arriving: Any, given: Any = given, moved: Any = moved) -> Any:
            return move_back(moved, given, arriving[0], EXACTLY)[0]

        changes[number, 0] = Change(0, through=through)
    return changes


def list_assigned_rows(
    known: Structure, slot: int, numbers: Sequence[int]
) -> Iterator[OperationMistake]:
    """List rows that are assigned in the loop, and lose what other uses of the matrix add."""
    steps = [known.step.get(number, -1) for number in numbers]
    uses = [(n, k) for n, k in known.users[slot] if n in known.step and n not in numbers]
    if not uses or -1 in steps:
        return
    what = f"a row of `{known.leaf[slot]}` is assigned where it is looked up, and loses"
    for own, which in ((0, "what this step and those after it"), (1, "what the steps after it")):
        changes = partial(assign_rows, known, numbers, uses, own)
        said = f"{what} {which} add to it in other places"
        yield OperationMistake("repeated-index", said, numbers[0], changes)


def assign_rows(
    known: Structure,
    numbers: Sequence[int],
    uses: Sequence[Edge],
    own: int,
    values: Values,
) -> Changes:
    """Keep the first update of each entry, and of other uses those of the steps before it."""
    changes = keep_one_update(known, numbers, True, False, values)
    for number, operand in uses:
        lost = np.zeros(values[known.program.operations[number].inputs[operand]].shape[1:])
        for lookup in numbers:
            moved = known.program.operations[lookup].moved
            if moved is not None and known.step[lookup] + own <= known.step[number]:
                lost.ravel()[moved] = 1
        changes[number, operand] = Change(operand, after=1 - lost)
    return changes
