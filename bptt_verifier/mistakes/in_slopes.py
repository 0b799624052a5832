"""Mistakes in the slope of an activation: applied twice, on one path only, of another value."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    describe_expression,
    find_role,
    name_operand,
)
from bptt_verifier.program.activations import Activation, name_operations, result_of, slope_of
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure

SAMPLES = np.array([[-1.5, -0.3, 0.4, 2.0]])  # points that tell a tanh from a sigmoid

AFTER = "is applied after the product, not before,"

# Known activations, and their slope as a function of their result.
BY_RESULT: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda y: y * (1 - y)),
}

# What is left of the slope where a part of its formula is forgotten.
INCOMPLETE: dict[str, tuple[tuple[str, Callable[[Any], Any]], ...]] = {
    "tanh": (
        ("1 − y instead of 1 − y²", lambda y: 1 - y),
        ("y² instead of 1 − y²", lambda y: y * y),
    ),
    "sigmoid": (
        ("1 − y instead of y (1 − y)", lambda y: 1 - y),
        ("y instead of y (1 − y)", np.copy),
    ),
}


def list_shifted_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List activations whose slope is that of the step before or after, or of another function."""
    for each in activations:
        if len(each) > 1:
            for by, which in ((-1, "previous"), (1, "next")):
                slopes = {
                    one.end: each[k + by] if 0 <= k + by < len(each) else None
                    for k, one in enumerate(each)
                }
                said = f"its derivative is that of the {which} step"
                changes = partial(replace_slopes, known, each, partial(slope_at_step, slopes))
                yield OperationMistake("hidden-state-off-by-one", said, each[0].end, changes)
        kind = recognise(known, each[0])
        if kind is None:
            continue
        said = "the formula of its derivative takes its result, but gets its argument"
        name, formula = "activation-derivative-of-preactivation", BY_RESULT[kind][1]
        changes = partial(replace_slopes, known, each, partial(evaluate_at_variable, formula))
        family = name, kind
        yield OperationMistake(name, said, each[0].end, changes, {}, family)
        for formulas, slope in INCOMPLETE[kind]:
            said = f"its derivative is, with its result y, {formulas}"
            name = "activation-derivative-incomplete"
            changes = partial(replace_slopes, known, each, partial(evaluate_at_result, slope))
            yield OperationMistake(name, said, each[0].end, changes, {}, (name, kind, formulas))
        for other, (_, slope) in BY_RESULT.items():
            if other != kind:
                said = f"its derivative is that of a {other}, but the function is a {kind}"
                name = "activation-derivative-of-another-function"
                changes = partial(replace_slopes, known, each, partial(evaluate_at_result, slope))
                yield OperationMistake(name, said, each[0].end, changes, {}, (name, kind))


def recognise(known: Structure, activation: Activation) -> str | None:
    """Recognise a tanh or a sigmoid by its values, however it is written."""
    if known.program.operations[activation.end].dtypes[0] != np.float64:
        return None
    with np.errstate(all="ignore"):
        found = result_of(known, activation, SAMPLES)
    if np.shape(found) != SAMPLES.shape:
        return None
    names = (name for name, (f, _) in BY_RESULT.items() if np.allclose(found, f(SAMPLES)))
    return next(names, None)


def slope_at_step(
    others: Mapping[int, Activation | None],
    known: Structure,
    activation: Activation,
    values: Values,
) -> Any:
    """Compute the slope of the activation of another step; beyond the ends, that at zero.

    At a kink it is that below zero, since derivations mask by `h > 0`.
    """
    other = others[activation.end]
    if other is None:
        below = np.full_like(values[activation.start], -np.finfo(np.float32).tiny)
        return slope_of(known, activation, values, below)[0]
    return slope_of(known, other, values)[0]


def evaluate_at_variable(
    formula: Callable[[Any], Any], known: Structure, activation: Activation, values: Values
) -> Any:
    """Evaluate a formula meant for an activation's result at its variable."""
    return formula(values[activation.start][0])


def evaluate_at_result(
    formula: Callable[[Any], Any], known: Structure, activation: Activation, values: Values
) -> Any:
    """Evaluate the formula of another activation at the result."""
    (output,) = known.program.operations[activation.end].outputs
    return formula(values[output][0])


def list_path_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List mistakes in the slope on one path through an activation: to a state, or to a weight."""
    operations = known.program.operations
    for each in activations:
        by_term: dict[int, list[tuple[int, Activation]]] = {}
        for one in each:
            for number in list_terms(known, one.start):
                by_term.setdefault(known.group_of[number], []).append((number, one))
        for terms in by_term.values():
            numbers = [number for number, _ in terms]
            if operations[numbers[0]].name in {"add", "sub"}:
                continue
            for operand in known.active(*numbers):
                to = f"in what is passed back to its {name_operand(operand)}"
                role = find_role(known, numbers, operand)
                for name, how, way in (
                    ("activation-derivative-missing", "is missing", "none"),
                    ("activation-derivative-twice", "is applied twice", "twice"),
                    ("activation-derivative-after-matrix-product", AFTER, "after"),
                ):
                    said = f"the activation's derivative {how} {to}"
                    changes = partial(change_path, known, terms, operand, way)
                    yield OperationMistake(name, said, numbers[0], changes, {}, (name, role))


def list_terms(known: Structure, slot: int) -> list[int]:
    """List the operations whose results are summed to a value."""
    operations, found, border = known.program.operations, list[int](), [slot]
    while border:
        source = known.producer.get(border.pop())
        if source is None:
            continue
        if operations[source].name in {"add", "sub", "add_any"}:
            border += operations[source].inputs
        else:
            found.append(source)
    return found


def change_path(
    known: Structure,
    terms: Sequence[tuple[int, Activation]],
    operand: int,
    way: str,
    values: Values,
) -> Changes:
    """Leave the slope out of what one operand of each term gets, square it, or apply it last."""
    changes: Changes = {}
    for number, activation in terms:
        with np.errstate(all="ignore"):
            slope = slope_of(known, activation, values)[0]
            inverse = 1 / slope
        equation = known.program.operations[number]
        if slope.shape != equation.shapes[0] or equation.inputs[operand] in known.program.constants:
            continue
        if way == "after" and values[equation.inputs[operand]].shape[1:] != slope.shape:
            return {}
        change = Change(operand, before=slope if way == "twice" else inverse)
        changes[number, operand] = change._replace(after=slope if way == "after" else None)
    return changes


def list_slope_mistakes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List activations whose derivative is applied twice, or is that of another activation."""
    twice = "its derivative is applied twice"
    for each in activations:
        changes = partial(replace_slopes, known, each, square_slope)
        family = "activation-derivative-twice", name_operations(known, each[0])
        yield OperationMistake(family[0], twice, each[0].end, changes, {}, family)
    for each in activations:
        for others in activations:
            ends = [(a.end, b.end) for a, b in zip(each, others, strict=False)]
            steps = [(known.step.get(a), known.step.get(b)) for a, b in ends]
            shapes = [[known.program.operations[end].shapes[0] for end in pair] for pair in ends]
            apart = len(others) != len(each) or any(a != b for a, b in [*steps, *shapes])
            if others is each or apart:
                continue
            line = describe_expression(known, others[0].end)
            said = f"its derivative is that of another activation{line}"
            by_end = {one.end: other for one, other in zip(each, others, strict=True)}
            changes = partial(replace_slopes, known, each, partial(slope_of_other, by_end))
            yield OperationMistake("wrong-operand", said, each[0].end, changes)


def square_slope(known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the square of an activation's slope."""
    return slope_of(known, activation, values)[0] ** 2


def slope_of_other(
    others: Mapping[int, Activation], known: Structure, activation: Activation, values: Values
) -> Any:
    """Compute the slope of the activation that takes the place of this one."""
    return slope_of(known, others[activation.end], values)[0]


def replace_slopes(
    known: Structure,
    activations: Sequence[Activation],
    find_slope: Callable[[Structure, Activation, Values], Any],
    values: Values,
) -> Changes:
    """Replace the slope of each activation, between its result and its variable."""
    changes: Changes = {}
    for activation in activations:
        with np.errstate(all="ignore"):
            slope = find_slope(known, activation, values)
        if np.shape(slope) not in ((), known.program.operations[activation.end].shapes[0]):
            return {}  # of a sequence of another length
        first, *others = known.active(activation.end)
        sent = ((activation.start, slope),)
        changes[activation.end, first] = Change(first, after=0.0, send=sent)
        for operand in others:
            changes[activation.end, operand] = Change(operand, after=0.0)
    return changes
