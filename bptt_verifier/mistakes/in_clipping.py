"""Mistakes that clip adjoints inside the backward pass, at every step."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_activation
from bptt_verifier.mistakes.in_time import find_initial_edges
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    OperationMistake,
    Values,
    make_pullback,
)
from bptt_verifier.program.activations import Activation
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure

SUMMING = frozenset("add sub add_any neg copy reduce_sum reshape broadcast_in_dim stack".split())
LIMITS = (0.01, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)  # limits that public code has


def list_clipped_adjoints(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List mistakes that clip what is carried between steps, or what arrives at an activation."""
    places: list[tuple[str, list[Edge], bool]] = []
    by_state: dict[int, list[Edge]] = {}
    for number, operand in known.carried:
        state = known.producer[known.program.operations[number].inputs[operand]]
        by_state.setdefault(known.group_of[state], []).append((number, operand))
    carried = [[*known.carried], *by_state.values()] if by_state else []
    initial = find_initial_edges(known)
    if initial:
        carried.append([*initial, *known.carried])
    for edges in carried:
        places.append(("the gradient passed on to the step before", edges, False))
    for each in activations:
        ends = [activation.end for activation in each]
        if ends[-1] in known.step and not is_followed_by_sums(known, ends):
            edges = [(number, operand) for number in ends for operand in known.active(number)]
            what = f"the gradient that arrives at the result of {name_activation(known, each[0])}"
            places.append((what, edges, True))
    for what, edges, before in places:
        for limit in LIMITS:
            said = f"{what} is clipped to ±{limit:g} at every step; clip what is returned instead"
            changes = partial(clip_edges, known, edges, limit, before)
            yield OperationMistake("clipped", said, edges[0][0], changes, {"value": limit})


def clip_edges(
    known: Structure, edges: Sequence[Edge], limit: float, before: bool, values: Values
) -> Changes:
    """Clip what is passed back on each edge, or what arrives before it is passed back."""
    operations, changes = known.program.operations, dict[Edge, Change]()
    for number, operand in edges:
        pullback = make_pullback(operations[number], values)

        def through(arriving: Any, pullback: Any = pullback, operand: int = operand) -> Any:
            cotangents = [None if ct is None else clip(ct, limit, before) for ct in arriving]
            return clip(pullback(cotangents)[operand], limit, not before)

        changes[number, operand] = Change(operand, through=through)
    return changes


def clip(cotangent: Any, limit: float, really: bool) -> Any:
    """Clip a real cotangent, if asked to."""
    if not really or np.iscomplexobj(cotangent):
        return cotangent
    return np.clip(cotangent, -limit, limit)


def is_followed_by_sums(known: Structure, numbers: Sequence[int]) -> bool:
    """True if the loss is linear in some results: clipping what arrives there is a factor."""
    operations = known.program.operations
    slots = {slot for number in numbers for slot in operations[number].outputs}
    for k, equation in enumerate(operations):
        read = [operand for operand, slot in enumerate(equation.inputs) if slot in slots]
        if not read:
            continue
        scaled = equation.name == "mul" or (equation.name == "div" and read == [0])
        linear = equation.name in SUMMING or equation.moved is not None
        if not linear and not (scaled and len(known.active(k)) == 1):
            return False
        slots.update(equation.outputs)
    return True
