"""Mistakes in the two shares of a leaky step that is written as h + c (f − h)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand
from bptt_verifier.mistakes.operation_mistakes import (
    SUMS,
    Changes,
    Edge,
    OperationMistake,
    repeat_changes,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure

Share = Callable[[float], Any]


class LeakyStep(NamedTuple):
    """The operands of h + c (f − h) that read h outside and inside of the brackets, and f.

    `factor` is the operand that is c, or that the brackets are divided by.
    """

    outside: Edge
    inside: tuple[Edge, ...]
    others: tuple[Edge, ...]
    factor: Edge
    c: float


def list_leak_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List wrong shares of h, f or both in a leaky step: 1 − c and c belong."""
    for group in known.groups:
        steps = [step for number in group if (step := find_leaky_step(known, number))]
        if len(steps) < len(group) or not 0 < steps[0].c < 1:
            continue
        last = steps[-1]
        state, factor = (name_operand(known, *edge) for edge in (last.outside, last.factor))
        number, _ = last.factor
        c = factor if known.program.operations[number].name == "mul" else f"1/{factor}"
        own = f"the gradient passed on to {state} is multiplied by"
        other = f"the gradient passed on to what {state} is mixed with is"
        exchanged = (
            f"{own} {c}, where 1 − {c} belongs",
            f"{other} multiplied by 1 − {c}, where {c} belongs",
        )
        for name, said, of_state, of_others in (
            ("wrong-operand", exchanged[0], exchange, None),
            ("wrong-operand", exchanged[1], None, exchange),
            ("wrong-operand", " and ".join(exchanged), exchange, exchange),
            ("factor-missing", f"{other} not multiplied by {c}", None, np.ones_like),
            ("factor-twice", f"{other} multiplied by {c} twice", None, np.square),
            ("factor-twice", f"{own} 1 − {c} twice", np.square, None),
        ):
            changes = replace_shares(known, steps, of_state, of_others)
            made = partial(repeat_changes, changes)
            yield OperationMistake(name, said, group[0], made)


def exchange(share: float) -> float:
    """Compute the share of the other term."""
    return 1 - share


def find_leaky_step(known: Structure, number: int) -> LeakyStep | None:
    """Find the leaky step that ends at an operation, if one does."""
    operations, constants = known.program.operations, known.program.constants
    if operations[number].name != "add":
        return None
    for operand, state in enumerate(operations[number].inputs):
        source = known.producer.get(operations[number].inputs[1 - operand])
        if source is None or operations[source].name not in {"mul", "div"}:
            continue
        for k, slot in enumerate(operations[source].inputs):
            divides = operations[source].name == "div"
            if slot not in constants or constants[slot].size > 1 or (divides and k == 0):
                continue
            inside, others = split_terms(known, operations[source].inputs[1 - k], state)
            if inside and others:
                c = float(constants[slot].reshape(()).real) or float("inf")
                c = 1 / c if divides else c
                return LeakyStep((number, operand), tuple(inside), tuple(others), (source, k), c)
    return None


def split_terms(known: Structure, slot: int, state: int) -> tuple[list[Edge], list[Edge]]:
    """Split the terms of a sum into those that are a state and the others."""
    operations, border = known.program.operations, [slot]
    inside, others = list[Edge](), list[Edge]()
    while border:
        source = known.producer.get(border.pop())
        if source is None or operations[source].name not in {*SUMS, "neg"}:
            continue
        for k, term in enumerate(operations[source].inputs):
            producer = known.producer.get(term)
            if term == state:
                inside.append((source, k))
            elif producer is not None and operations[producer].name in {*SUMS, "neg"}:
                border.append(term)
            else:
                others.append((source, k))
    return inside, others


def replace_shares(
    known: Structure, steps: Sequence[LeakyStep], of_state: Share | None, of_others: Share | None
) -> Changes:
    """Replace the share 1 − c of the state, or c of the terms that it is mixed with, or both."""
    changes: Changes = {}
    for step in steps:
        if of_state is not None:
            share = float(of_state(1 - step.c))
            changes[step.outside] = Change(step.outside[1], after=share)
            changes |= {edge: Change(edge[1], after=0.0) for edge in step.inside}
        if of_others is not None:
            by = float(of_others(step.c)) / step.c
            changes |= {edge: Change(edge[1], after=by) for edge in step.others}
    return {(number, k): each for (number, k), each in changes.items() if k in known.active(number)}
