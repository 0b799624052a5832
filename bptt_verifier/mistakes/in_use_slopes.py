"""Mistakes in the slope of an activation for one of several uses of its result, or some iterations.

A state is used by the next step and by the loss. Code that writes the slope of each use on its own
line may have one of them wrong. A loop over layers is often preceded by a line for the last one,
such as δ = a − y, so that the slope may be wrong in the loop alone, or in that line.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_activation, quote_expression, recognise
from bptt_verifier.mistakes.in_slopes import (
    FindSlope,
    evaluate_at_result,
    list_neighbours,
    replace_slopes,
    right_slope,
    slope_at_result,
    slope_at_step,
)
from bptt_verifier.mistakes.known_activations import KNOWN
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    OperationMistake,
    Values,
)
from bptt_verifier.program.activations import Activation, name_operations, slope_of
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure

JOINING = frozenset(["stack", "concatenate"])  # every operand is the value of another step


def list_use_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List wrong slopes of an activation in what one of several uses passes back."""
    for use in list_uses(known, [one for each in activations for one in each]):
        every, (reader, _) = [*use.values()], next(reversed(use))
        what = f"the derivative of {name_activation(known, every[-1])}"
        passed = f"in what {quote_expression(known, reader)} passes back"
        for name, how, find_slope in list_slopes(known, every):
            changes = partial(replace_use, known, use, find_slope)
            yield OperationMistake(name, f"{what} {how} {passed}", reader, changes)


def list_slopes_in_part(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List wrong slopes of an activation at all iterations but the last, or at the last alone."""
    for each in activations:
        what = f"the derivative of {name_activation(known, each[0])}"
        parts = (each[:-1], "at every iteration but the last"), (each[-1:], "at the last iteration")
        for chosen, where in parts if len(each) > 1 else ():
            # One activation has no neighbours, whose slopes are tried at all iterations.
            for name, how, find_slope in list_slopes(known, each[:1]):
                changes = partial(replace_slopes, known, chosen, find_slope)
                family = name, where, how, name_operations(known, each[0])
                said = f"{what} {how} {where}"
                yield OperationMistake(name, said, chosen[0].end, changes, {}, family)


def list_uses(known: Structure, every: Sequence[Activation]) -> list[dict[Edge, Activation]]:
    """List the uses of activations' results, where one has several: the edges, by expression.

    The same expression may use an activation of the initial state at the first step.
    """
    operations, found = known.program.operations, dict[Any, dict[Edge, Activation]]()
    several = set[Any]()
    for one in every:
        keys = set[Any]()
        for number, operand in known.users.get(operations[one.end].outputs[0], ()):
            place = None if operations[number].name in JOINING else operand
            key = known.group_of[number], place, name_operations(known, one)
            found.setdefault(key, {})[number, operand] = one
            keys.add(key)
        several |= keys if len(keys) > 1 else set()
    return [dict(sorted(use.items())) for key, use in found.items() if key in several]


def list_slopes(
    known: Structure, each: Sequence[Activation]
) -> Iterator[tuple[str, str, FindSlope]]:
    """List wrong slopes, with the name of each mistake and what is said of the derivative."""
    yield "activation-derivative-missing", "is missing", lambda *given: 1.0
    yield (
        "activation-derivative-twice",
        "is applied twice",
        lambda known, one, values: slope_of(known, one, values)[0] ** 2,
    )
    yield (
        "activation-derivative-of-activated-value",
        "is taken at its result, where its argument belongs,",
        slope_at_result,
    )
    for by, which in ((-1, "previous"), (1, "next")) if len(each) > 1 else ():
        # Of two steps, nothing would be left but a path that is cut.
        for at_end in (right_slope, lambda *given: 0.0)[: len(each) - 1]:
            for others in list_neighbours(known, each, by):
                of_step = partial(slope_at_step, others, at_end)
                yield "hidden-state-off-by-one", f"is that of the {which} step", of_step
    kind = recognise(known, each[0])
    for other, found in KNOWN.items() if kind is not None else ():
        if other != kind:
            said = f"is computed as {found.text.format('y')}, of its result y,"
            of_other = partial(evaluate_at_result, found.slope)
            yield "activation-derivative-of-another-function", said, of_other


def replace_use(
    known: Structure, use: dict[Edge, Activation], find_slope: FindSlope, values: Values
) -> Changes:
    """Multiply what one use passes back by the wrong slope over the right one, which follows."""
    changes: Changes = {}
    for edge, activation in use.items():
        shape = known.program.operations[activation.end].shapes[0]
        with np.errstate(all="ignore"):
            right = np.broadcast_to(slope_of(known, activation, values)[0], shape)
            wrong = np.asarray(find_slope(known, activation, values))
            if wrong.shape not in ((), shape):
                return {}  # of a layer of another width
            # Where both are zero, as of a relu, nothing is passed back.
            ratio = np.where(wrong == right, 1.0, wrong / right)
        changes[edge] = Change(edge[1], after=ratio)
    return changes
