"""Mistakes in the factors of a derivative: of products, quotients and activations."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    find_role,
    name_operand,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, slope_of

OTHERS = 12  # other values of the same step that are tried in the place of an operand

Chain = Sequence[Sequence[int]]  # the operations of one activation, at every step


def list_factor_mistakes(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List mistakes that forget a factor, divide by it, or use one minus it."""
    operations, constants = known.program.operations, known.program.constants
    name, other = operations[group[0]].name, 1 - operand
    if name == "div" and operand == 1:
        return
    slots = [operations[number].inputs[other] for number in group]
    constant = all(slot in constants for slot in slots)
    numbers = [constants[slot] for slot in slots] if constant else []
    factor = "divisor" if name == "div" else "factor"
    if numbers and all(value.size == 1 for value in numbers):
        what = f"the constant {factor} {float(numbers[0].ravel()[0].real):.6g}"
    elif numbers and all(np.isin(value, (0, 1)).all() for value in numbers):
        what = f"the mask in its {name_operand(other)}"
    else:
        what = f"the {factor} in its {name_operand(other)}"
    to = f"what is passed back to its {name_operand(operand)}"
    role = "constant" if constant else find_role(known, group, operand)

    def make(named: str, said: str, replaced: Callable[[Any], Any], key: Any) -> OperationMistake:
        changes = partial(replace_factors, known, group, operand, replaced)
        return OperationMistake(
            named, said, group[0], changes, {}, (named, said if key else "", role)
        )

    yield make("factor-missing", f"{what} is missing in {to}", np.ones_like, None)
    if constant:
        inverse = f"{to} is divided by {what}" if name == "mul" else f"{to} is multiplied by {what}"
        yield make("factor-inverted", inverse, lambda value: 1 / value, 1)
    else:
        minus = f"{to} is multiplied by one minus the other operand, not by it"
        yield make("wrong-operand", minus, lambda value: 1 - value, 1)


def replace_factors(
    known: Structure,
    group: Sequence[int],
    operand: int,
    replaced: Callable[[Any], Any],
    values: Values,
) -> Changes:
    """Replace the other operand of every product or quotient by a function of it."""
    result: Changes = {}
    for number in group:
        value = values[known.program.operations[number].inputs[1 - operand]]
        with np.errstate(all="ignore"):
            wrong = np.asarray(replaced(value))
        result[number, operand] = Change(operand, instead=((1 - operand, wrong),))
    return result


def list_slope_mistakes(known: Structure, longest: Sequence[Chain]) -> Iterator[OperationMistake]:
    """List activations whose derivative is applied twice, or is that of another activation.

    `longest` are the longest chains of elementwise operations, one for each activation.
    """
    twice = "its derivative is applied twice"
    for links in longest:
        changes = partial(multiply_slopes, known, links)
        family = "activation-derivative-twice", chain_names(known, links)
        yield OperationMistake(family[0], twice, links[0][-1], changes, {}, family)
    for links in longest:
        for others in longest:
            if others is links or len(others) != len(links):
                continue
            steps = [
                (known.step.get(a[-1]), known.step.get(b[-1]))
                for a, b in zip(links, others, strict=True)
            ]
            if any(a != b for a, b in steps):
                continue
            line = describe_expression(known, others[0][-1])
            said = f"its derivative is that of another activation{line}"
            yield OperationMistake(
                "wrong-operand", said, links[0][-1], partial(exchange_slopes, known, links, others)
            )


def describe_expression(known: Structure, number: int) -> str:
    """Write the expression that calls an operation, to tell one activation from another."""
    where = known.program.operations[number].where
    text = where[1].expression if len(where) > 1 else where[0].expression if where else ""
    return f", `{text}`" if text else ""


def chain_names(known: Structure, links: Chain) -> tuple[str, ...]:
    """Return the names of the operations of an activation."""
    return tuple(known.program.operations[number].name for number in links[0])


def multiply_slopes(known: Structure, links: Chain, values: Values) -> Changes:
    """Multiply what arrives at each activation by its slope."""
    changes: Changes = {}
    for link in links:
        operand = known.active(link[-1])[0]
        with np.errstate(all="ignore"):
            changes[link[-1], operand] = Change(operand, before=slope_of(known, link, values)[0])
    return changes


def exchange_slopes(known: Structure, links: Chain, others: Chain, values: Values) -> Changes:
    """Replace the slope of each activation by that of another one at the same step."""
    changes: Changes = {}
    for link, other in zip(links, others, strict=True):
        with np.errstate(all="ignore"):
            slope = slope_of(known, other, values)[0]
        if slope.shape != known.program.operations[link[-1]].shapes[0]:
            return {}
        for number in link:
            operand = known.active(number)[0]
            changes[number, operand] = Change(operand, slope=slope if number == link[-1] else 1.0)
    return changes


def list_other_operands(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[tuple[list[int], str]]:
    """List values of the same step, of the same shape, for the other operand of a product."""
    operations, constants = known.program.operations, known.program.constants
    slots = [operations[number].inputs[1 - operand] for number in group]
    shape = shape_of(known, slots[-1])
    if shape is None or len(shape) == 0:
        return
    if all(slot in known.leaf for slot in slots):
        weights = {s for o in operations for s in o.inputs if s in known.leaf}
        for other in sorted(weights - set(slots)):
            if shape_of(known, other) == shape and known.leaf[other] != known.leaf[slots[0]]:
                yield [other] * len(group), f"the parameter {known.leaf[other]}"
        return
    if group[-1] not in known.step:
        return
    found = 0
    for each in known.groups:
        if len(each) < len(group) or each[-1] not in known.step or found == OTHERS:
            continue
        chosen = each[len(each) - len(group) :]
        for column in zip(*(operations[number].inputs for number in chosen), strict=True):
            same = all(shape_of(known, slot) == shape for slot in column)
            fixed = all(slot in constants or slot in known.leaf for slot in column)
            if same and not fixed and list(column) != slots:
                found += 1
                line = describe_expression(known, chosen[-1])
                yield [*column], f"an operand of another expression{line}"


def shape_of(known: Structure, slot: int) -> tuple[int, ...] | None:
    """Find the shape of a slot's value."""
    program = known.program
    if slot in program.constants:
        return tuple(program.constants[slot].shape)
    if slot in known.producer:
        equation = program.operations[known.producer[slot]]
        return tuple(equation.shapes[equation.outputs.index(slot)])
    return tuple(program.shapes[known.leaf[slot]]) if slot in known.leaf else None
