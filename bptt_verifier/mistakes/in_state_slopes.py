"""Slopes of a state: in the place of an activation's own, or in what the steps carry back."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import (
    find_target,
    name_activation,
    name_operand,
    name_result,
    quote_expression,
    recognise,
)
from bptt_verifier.mistakes.in_order import find_states
from bptt_verifier.mistakes.in_slopes import list_neighbours, replace_slopes, slope_below_zero
from bptt_verifier.mistakes.known_activations import KNOWN, Formula
from bptt_verifier.mistakes.operation_mistakes import Changes, Edge, OperationMistake, Values
from bptt_verifier.program.activations import Activation, name_operations, slope_of
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, shape_of


def list_state_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List formulas of a slope that have a state in the place of the activation's own result.

    The state of a leaky or a gated network is no result of its activation: the slope is not 1 − h².
    """
    operations = known.program.operations
    states = [slots for slots, _ in find_states(known)]
    for each in activations:
        kind = recognise(known, each[0])
        if kind is None or len(each) != known.steps:
            continue
        ends = tuple(operations[one.end].outputs[0] for one in each)
        shapes = [operations[one.end].shapes[0] for one in each]
        for slots in states:
            if slots == ends or [shape_of(known, slot) for slot in slots] != shapes:
                continue
            number = known.producer[slots[-1]]
            places = known.program.operations[number].where
            names = (f"`{name}`" for place in places if (name := find_target(place)))
            state = next(names, quote_expression(known, number))
            y = name_result(known, each[0])
            ways: list[tuple[str, list[int | None]]] = [("", [*slots])]
            ways += [(" of the step before", found) for found in list_earlier(known, each, slots)]
            for which, shifted in ways:
                said = f"your gradient uses {KNOWN[kind].text.format('s')}, of the state{which}"
                said += f" s, {state}, where the derivative of {kind} is"
                said += f" {KNOWN[kind].text.format(y)}, of its own result"
                by_end = {one.end: slot for one, slot in zip(each, shifted, strict=True)}
                at_state = partial(slope_of_state, by_end, KNOWN[kind].slope)
                changes = partial(replace_slopes, known, each, at_state)
                family = "state slope", kind, which
                yield OperationMistake("wrong-operand", said, each[0].end, changes, {}, family)


def list_earlier(
    known: Structure, each: Sequence[Activation], slots: Sequence[int]
) -> list[list[int | None]]:
    """List the state of the step before each activation; None where a sequence begins."""
    slot_of = {one.end: slot for one, slot in zip(each, slots, strict=True)}
    return [
        [None if other is None else slot_of[other.end] for other in others.values()]
        for others in list_neighbours(known, each, -1)
    ]


def slope_of_state(
    states: Mapping[int, int | None],
    formula: Formula,
    known: Structure,
    activation: Activation,
    values: Values,
) -> Any:
    """Evaluate the formula of a slope at a state; at zero where there is none."""
    slot = states[activation.end]
    shape = known.program.operations[activation.end].shapes[0]
    return formula(np.zeros(shape) if slot is None else values[slot][0])


def list_carried_state_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List slopes in what is carried back: of the step before or after, or once more than belongs.

    `(dh @ W) * (1 - h_prev**2)` is right for the gradient of a, and wrong for that of h.
    """
    operations, edges = known.program.operations, dict[int, list[Edge]]()
    for number, operand in known.carried:
        edges.setdefault(known.group_of[number], []).append((number, operand))
    kinds = dict.fromkeys(kind for each in activations if (kind := recognise(known, each[0])))
    for carried in edges.values():
        for kind in kinds:
            state = name_operand(known, *carried[-1])
            said = f"the gradient carried back to {state} is multiplied by"
            said += f" {KNOWN[kind].text.format('s')} of this state s once more than it should be"
            name, formula = "activation-derivative-twice", KNOWN[kind].slope
            changes = partial(scale_by_state_slope, known, carried, formula)
            family = name, "carried state", kind
            yield OperationMistake(name, said, carried[-1][0], changes, {}, family)
    for each in activations:
        result = {operations[one.end].outputs[0]: k for k, one in enumerate(each)}
        by_edge = {
            (n, k): result[operations[n].inputs[k]]
            for n, k in known.carried
            if operations[n].inputs[k] in result
        }
        for by, which in ((-1, "before"), (1, "after")) if by_edge else ():
            said = f"the derivative of {name_activation(known, each[0])} in the gradient that comes"
            said += f" back from the next step is that of the step {which}"
            name = "hidden-state-off-by-one"
            role = name, "carried", by, name_operations(known, each[0])
            for others in list_neighbours(known, each, by):
                changes = partial(shift_carried_slopes, known, each, by_edge, others)
                yield OperationMistake(name, said, each[0].end, changes, {}, role)


def shift_carried_slopes(
    known: Structure,
    each: Sequence[Activation],
    by_edge: Mapping[Edge, int],
    others: Mapping[int, Activation | None],
    values: Values,
) -> Changes:
    """Divide what is carried back by the slope there, and multiply by that of another step.

    Beyond the ends the slope is that at zero. What is passed through a slope of zero stays zero.
    """
    changes: Changes = {}
    for (number, operand), k in by_edge.items():
        with np.errstate(all="ignore"):
            own = slope_of(known, each[k], values)[0]
            beside = others[each[k].end]
            other = (
                slope_below_zero(known, each[k], values)
                if beside is None
                else slope_of(known, beside, values)[0]
            )
            if other.shape != own.shape:
                return {}
            changes[number, operand] = Change(operand, after=np.where(own == 0, 0.0, other / own))
    return changes


def scale_by_state_slope(
    known: Structure, edges: Sequence[Edge], formula: Formula, values: Values
) -> Changes:
    """Multiply what is carried back to a state by the formula of a slope at this state."""
    operations = known.program.operations
    return {(n, k): Change(k, after=formula(values[operations[n].inputs[k]][0])) for n, k in edges}
