"""A mistake in the derivative of an operation of a loss, and the changes that make it.

A mistake changes the same operation at every time step, or at some steps only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, is_scale
from bptt_verifier.program.operations import Operation, pass_back
from bptt_verifier.program.structure import Structure

Edge = tuple[int, int]  # an operation, and the operand that its cotangent is passed back to
Values = Sequence[Any]
Changes = dict[Edge, Change]
SUMS = frozenset("add sub add_any".split())
FindChanges = Callable[[Values], Changes]  # the changes that a mistake makes at a point


class OperationMistake(NamedTuple):
    """A mistake by its stable name, in words, and the changes that it makes at a point.

    `equation` is the operation that a report shows. Mistakes of one `family` may be made together;
    then `places` are the operations, and `members` the mistakes at each. `whole` computes all
    gradients, where the mistake is not one of changed operands; those of other mistakes are given
    to it.
    """

    name: str
    alteration: str
    equation: int
    changes: Callable[[Values], Changes]
    details: Mapping[str, Any] = {}
    family: Any = None
    places: tuple[int, ...] = ()
    members: tuple["OperationMistake", ...] = ()
    whole: Callable[[Values, Sequence[FindChanges]], Mapping[str, Array]] | None = None


def change_edges(edges: Sequence[Edge], **how: Any) -> Callable[[Values], Changes]:
    """Make the same `Change` on each of these edges, at any point."""
    return lambda values: {edge: Change(edge[1], **how) for edge in edges}


def repeat_changes(changes: Changes, values: Values) -> Changes:
    """Make the same changes at any point."""
    return changes


def scale_edges(
    name: str, said: str, edges: Sequence[Edge], by: float, at: Edge | None = None, **details: Any
) -> OperationMistake:
    """Scale what is passed back on these edges; a report shows the first of them, or `at`."""
    number, _ = at or edges[0]
    return OperationMistake(name, said, number, change_edges(edges, after=by), details)


def change_nothing(values: Values) -> Changes:
    """Make no change: for mistakes that compute all gradients otherwise."""
    return {}


def merge_at(values: Values, made: Sequence[FindChanges]) -> Changes:
    """Merge the changes that some mistakes make at a point."""
    return merge([each(values) for each in made])


def merge(every: Sequence[Changes]) -> Changes:
    """Merge changes; of two on one edge, a number that scales one scales what the other passes."""
    merged: Changes = {}
    for changes in every:
        for edge, change in changes.items():
            before = merged.get(edge)
            if before is not None and is_scale(change):
                merged[edge] = scale_change(before, change.after)
            elif before is not None and is_scale(before):
                merged[edge] = scale_change(change, before.after)
            else:
                merged[edge] = change
    return merged


def scale_change(change: Change, by: float) -> Change:
    """Multiply everything that a change passes back to an operand, and that it sends elsewhere."""
    after = by if change.after is None else by * change.after
    return change._replace(after=after, send=tuple((k, by * sent) for k, sent in change.send))


def can_merge(one: Changes, other: Changes) -> bool:
    """Tell whether two mistakes can be made at once: on edges of both, one is a number."""
    return all(
        (is_scale(one[edge]) and not other[edge].also)
        or (is_scale(other[edge]) and not one[edge].also)
        for edge in one.keys() & other.keys()
    )


def read_slots(slots: Sequence[int | None]) -> Callable[[Values], list[Any]]:
    """Read the values of these slots at a point; None where there is no slot."""
    return lambda values: [None if slot is None else values[slot] for slot in slots]


def make_pullback(equation: Operation, values: Values) -> Callable[[Sequence[Any]], list[Any]]:
    """Make the function that passes cotangents back through an operation at a point."""
    given = [values[slot] for slot in equation.inputs]
    outputs = [values[slot] for slot in equation.outputs]
    return lambda arriving: pass_back(equation, given, outputs, arriving)


def find_role(known: Structure, group: Sequence[int], operand: int) -> Any:
    """Find the role of an operand: the operation, and of what kind its operands are."""
    number = group[-1]
    equation, constants = known.program.operations[number], known.program.constants
    kinds = [
        "weight" if slot in known.leaf else "constant" if slot in constants else "value"
        for slot in equation.inputs
    ]
    return equation.name, operand, tuple(kinds)


def list_summands(known: Structure, slot: int, readers: set[Edge]) -> list[tuple[int, float]]:
    """List the operations whose results are summed to a slot, with the signs they have there.

    The sign is 0 where another edge than the readers and those of the sum reads a part of it.
    """
    operations, found = known.program.operations, list[tuple[int, float]]()
    border = [(slot, 1.0, readers)]
    while border:
        each, sign, edges = border.pop()
        source = known.producer.get(each)
        if source is None:
            continue
        sign = sign if edges.issuperset(known.users[each]) else 0.0
        if operations[source].name not in SUMS:
            found.append((source, sign))
            continue
        for k, inner in enumerate(operations[source].inputs):
            flips = k > 0 and operations[source].name == "sub"
            border.append((inner, -sign if flips else sign, {(source, k)}))
    return found
