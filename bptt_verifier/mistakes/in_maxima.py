"""Mistakes in the derivative of a maximum or minimum, which is one for the entry that it takes."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    change_edges,
    repeat_changes,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, is_partial_sum, shape_of

Axes = tuple[int, ...]
Share = Callable[[Array, Axes], Array]  # of each entry along some axes, from the entries

MISSING = "activation-derivative-missing"
OTHER = "activation-derivative-of-another-function"


def list_maximum_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that pass the gradient of a maximum on to other entries than the one taken.

    Over axes it may be all of them, or the last one. Of a running maximum, as in
    `m = np.maximum(m, h)`, both operands may get it.
    """
    operations = known.program.operations
    for group in known.groups:
        name = operations[group[0]].name
        taken = "smallest" if name in {"min", "reduce_min"} else "largest"
        if name in {"reduce_max", "reduce_min"}:
            yield from list_reductions(known, group, taken)
        elif name in {"max", "min"} and is_running(known, group):
            one, other = (name_operand(known, group[-1], operand) for operand in (0, 1))
            said = f"{one} and {other} both get the whole gradient of"
            said += f" {quote_expression(known, group[-1])}, where the {taken} of both gets it"
            edges = [(number, operand) for number in group for operand in (0, 1)]
            changes = change_edges(edges, slope=1.0)
            yield OperationMistake(MISSING, said, group[0], changes, {}, (MISSING, name))
        elif name in {"max", "min"}:
            yield from list_exchanged_slopes(known, group)


def list_exchanged_slopes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List the slopes of two pieces that are exchanged, as τ and 1 − τ of a quantile loss.

    The pieces are products of one value with two constants; each keeps its sign.
    """
    operations, constants = known.program.operations, known.program.constants
    changes = Changes()
    for number in group:
        pieces = [known.producer.get(slot, -1) for slot in operations[number].inputs]
        if -1 in pieces or any(operations[k].name != "mul" for k in pieces):
            return
        found = [[(i, s) for i, s in enumerate(operations[k].inputs) if s in constants]
                 for k in pieces]  # fmt: skip
        if any(len(each) != 1 or constants[each[0][1]].size != 1 for each in found):
            return
        sides = [each[0][0] for each in found]
        read = {operations[k].inputs[1 - i] for k, i in zip(pieces, sides, strict=True)}
        sizes = [float(np.abs(constants[each[0][1]].ravel()[0])) for each in found]
        if len(read) > 1 or 0 in sizes or sizes[0] == sizes[1]:
            return
        for k, i, by in zip(pieces, sides, (sizes[1] / sizes[0], sizes[0] / sizes[1]), strict=True):
            changes[k, 1 - i] = Change(1 - i, after=by)
    said = f"the slopes of the two pieces of {quote_expression(known, group[-1])} are exchanged:"
    said += f" {sizes[1]:.6g} stands where {sizes[0]:.6g} belongs, and the other way round"
    same = partial(repeat_changes, changes)
    yield OperationMistake("wrong-operand", said, group[0], same, {}, ("wrong-operand", "pieces"))


def is_running(known: Structure, group: Sequence[int]) -> bool:
    """Tell whether a maximum of two values is computed step by step from its last result."""
    partial_results = (is_partial_sum(known, group[-1], operand) for operand in (0, 1))
    return known.active(*group) == [0, 1] and any(partial_results)


def list_reductions(
    known: Structure, group: Sequence[int], taken: str
) -> Iterator[OperationMistake]:
    """List mistakes in the derivative of a maximum or minimum over axes."""
    operations = known.program.operations
    axes = tuple(operations[group[0]].params["axes"])
    shapes = [shape_of(known, operations[number].inputs[0]) or () for number in group]
    if not axes or all(shape[axis] == 1 for shape in shapes for axis in axes):
        return
    what, opposite = (
        quote_expression(known, group[-1]),
        "largest smallest".replace(taken, "").strip(),
    )
    numbers = " and ".join(map(str, axes))
    along = f"the axes {numbers}" if len(axes) > 1 else f"axis {numbers}"
    for name, which, share in (
        (MISSING, "every entry", lambda x, axes: np.ones_like(x)),
        (OTHER, "every entry, in equal parts,", share_equally),
        (OTHER, "the last entry", partial(select_entry, at=-1)),
        (OTHER, "the first entry", partial(select_entry, at=0)),
        (OTHER, f"the {opposite} entry", partial(select_extreme, largest=taken == "smallest")),
    ):
        said = f"{which} along {along} gets the gradient of {what}, where the {taken}"
        changes = partial(share_among_entries, known, group, axes, share)
        family = "maximum", which
        yield OperationMistake(name, f"{said} alone gets it", group[0], changes, {}, family)


def share_equally(x: Array, axes: Axes) -> Array:
    """Share one among all entries along some axes."""
    return np.full_like(x, 1 / math.prod(x.shape[axis] for axis in axes))


def select_entry(x: Array, axes: Axes, at: int) -> Array:
    """Select the entries at one index of each of some axes."""
    chosen = np.zeros_like(x)
    chosen[tuple(at if axis in axes else slice(None) for axis in range(x.ndim))] = 1
    return chosen


def select_extreme(x: Array, axes: Axes, largest: bool) -> Array:
    """Select the largest or the smallest entries along some axes."""
    extreme = (np.max if largest else np.min)(x, axis=axes, keepdims=True)
    return np.asarray(x == extreme, float)


def share_among_entries(
    known: Structure, group: Sequence[int], axes: Axes, share: Share, values: Values
) -> Changes:
    """Give each entry along some axes its share of what arrives at the maximum."""
    changes: Changes = {}
    for number in group:
        shares = share(values[known.program.operations[number].inputs[0]][0], axes)
        kept = tuple(axis + 1 for axis in axes)  # after that of the combinations

        def through(arriving: Any, shares: Any = shares, kept: Axes = kept) -> Any:
            return np.expand_dims(arriving[0], kept) * shares

        changes[number, 0] = Change(0, through=through)
    return changes
