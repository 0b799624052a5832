"""Mistakes in the factors of a derivative: of products, quotients and activations."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression, write_expression
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    change_edges,
    find_role,
    make_pullback,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import move_back
from bptt_verifier.program.rounding import EXACTLY
from bptt_verifier.program.structure import Structure, following, shape_of

OTHERS = 12  # other values of the same step that are tried in the place of an operand


def list_factor_mistakes(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List mistakes that forget a factor, divide by it, or use one minus it."""
    operations, constants = known.program.operations, known.program.constants
    name, other = operations[group[0]].name, 1 - operand
    if name == "div" and operand == 1:
        return
    if name == "dot_general":
        yield from list_missing_products(known, group, operand)
        return
    slots = [operations[number].inputs[other] for number in group]
    constant = all(slot in constants for slot in slots)
    numbers = [constants[slot] for slot in slots] if constant else []
    done = "divided" if name == "div" else "multiplied"
    what = name_operand(known, group[-1], other)
    if numbers and any(value.size > 1 for value in numbers):
        mask = all(np.isin(value, (0, 1)).all() for value in numbers)
        what += ", a mask" if mask else ", a constant"
    to = f"the gradient passed on to {name_operand(known, group[-1], operand)}"
    role = "constant" if constant else find_role(known, group, operand)

    def make(named: str, said: str, replaced: Callable[[Any], Any], key: Any) -> OperationMistake:
        changes = partial(replace_factors, known, group, operand, replaced)
        return OperationMistake(named, said, group[0], changes, {}, (named, key, role))

    yield make("factor-missing", f"{to} is not {done} by {what}", np.ones_like, 0)
    if constant:
        inverse = f"{to} is divided by {what}" if name == "mul" else f"{to} is multiplied by {what}"
        yield make("factor-inverted", inverse, lambda value: 1 / value, 1)
    else:
        inverse = f"{to} is divided by {what}, where it should be multiplied"
        if name == "mul":
            yield make("factor-inverted", inverse, lambda value: 1 / value, 1)
        minus = f"{to} is {done} by 1 − {what}, where {what} belongs"
        yield make("wrong-operand", minus, lambda value: 1 - value, 2)


def list_missing_products(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List mistakes that pass a cotangent back past a weight, where the shapes allow."""
    operations = known.program.operations
    number = group[-1]
    shape = shape_of(known, operations[number].inputs[operand])
    if (
        operations[number].inputs[1 - operand] in known.leaf
        and shape == operations[number].shapes[0]
    ):
        weight, to = (name_operand(known, number, k) for k in (1 - operand, operand))
        said = f"the gradient passed on to {to} is not multiplied by the weight {weight}"
        edges = [(k, operand) for k in group]
        changes = change_edges(edges, slope=1.0)
        family = "factor-missing", find_role(known, group, operand)
        yield OperationMistake("factor-missing", said, group[0], changes, {}, family)
        if operations[group[0]].inputs[operand] in known.leaf and len(group) > 1:
            first = change_edges(edges[:1], slope=1.0)
            first_time = f"{said} the first time that this expression is computed"
            yield OperationMistake("factor-missing", first_time, group[0], first)


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


def list_path_factors(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that forget a factor of a product on one path through its operand alone.

    In r (h U) the factor r may be in the gradient of U, and not in that of h.
    """
    operations = known.program.operations
    for group in known.groups:
        for operand in known.active(*group) if operations[group[0]].name == "mul" else ():
            slots = [operations[number].inputs[operand] for number in group]
            once = [slot for slot in slots if len(known.users[slot]) == 1]
            sources = [known.producer.get(slot) for slot in slots]
            pairs = [(k, n) for k, n in zip(sources, group, strict=True) if k is not None]
            paths = known.active(*(k for k, _ in pairs))
            if len(once) < len(slots) or len({known.group_of[k] for k, _ in pairs}) != 1:
                continue
            for path in paths if len(paths) > 1 else ():
                factor = name_operand(known, group[-1], 1 - operand)
                to = name_operand(known, pairs[-1][0], path)
                said = f"the gradient passed on to {to} lacks the factor {factor}"
                changes = partial(leave_factor_out, known, pairs, operand, path)
                yield OperationMistake("factor-missing", said, pairs[0][0], changes)


def leave_factor_out(
    known: Structure, pairs: Sequence[tuple[int, int]], operand: int, path: int, values: Values
) -> Changes:
    """Divide what arrives at the operand of each product by the other one, on one path."""
    changes: Changes = {}
    for source, number in pairs:
        factor = values[known.program.operations[number].inputs[1 - operand]][0]
        if factor.shape not in ((), known.program.operations[source].shapes[0]):
            return {}
        with np.errstate(all="ignore"):
            changes[source, path] = Change(path, before=1 / factor)
    return changes


def list_exchanges(known: Structure, groups: Sequence[Sequence[int]]) -> Iterator[OperationMistake]:
    """List mistakes that put the gradients of two parts of an array in each other's place."""
    operations = known.program.operations
    exchanged = "are in each other's place"
    sliced = [
        group
        for group in groups
        if group[-1] in known.step and operations[group[0]].moved is not None
    ]
    for one, other in combinations(sliced, 2):
        pairs = [(operations[a], operations[b]) for a, b in zip(one, other, strict=False)]
        if len(one) == len(other) and all(
            (a.inputs, a.shapes) == (b.inputs, b.shapes) and not is_same(a.moved, b.moved)
            for a, b in pairs
        ):
            changes = partial(exchange_parts, known, one, other)
            parts = [quote_expression(known, each[-1]) for each in (one, other)]
            said = f"the gradients of {' and '.join(parts)} {exchanged}"
            yield OperationMistake("parts-exchanged", said, one[0], changes)
    for group in groups:
        shapes = operations[group[0]].shapes
        if operations[group[0]].name in {"concatenate", "stack"}:
            yield from list_exchanged_operands(known, group)
        if operations[group[0]].name == "split":
            for i, k in combinations(range(len(shapes)), 2):
                if shapes[i] == shapes[k]:
                    changes = partial(exchange_results, known, group, i, k)
                    said = f"the gradients of the parts {i + 1} and {k + 1} {exchanged}"
                    yield OperationMistake("parts-exchanged", said, group[0], changes)


def list_exchanged_operands(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that exchange what is passed back to two operands that are joined."""
    operations = known.program.operations
    for i, k in list(combinations(known.active(*group), 2))[:OTHERS]:
        inputs = [operations[number].inputs for number in group]
        if all(shape_of(known, slots[i]) == shape_of(known, slots[k]) for slots in inputs):
            one, other = (name_operand(known, group[-1], each) for each in (i, k))
            said = f"the gradients of {one} and {other} are in each other's place"
            changes = partial(exchange_operands, known, group, i, k)
            yield OperationMistake("parts-exchanged", said, group[0], changes)


def exchange_operands(
    known: Structure, group: Sequence[int], i: int, k: int, values: Values
) -> Changes:
    """Exchange what is passed back to two operands of each operation."""
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    for number in group:
        pullback = make_pullback(operations[number], values)
        for one, other in ((i, k), (k, i)):

            def through(arriving: Any, pullback: Any = pullback, other: int = other) -> Any:
                return pullback(arriving)[other]

            changes[number, one] = Change(one, through=through)
    return changes


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two slices read the same entries."""
    return bool(np.array_equal(one, other))


def exchange_parts(
    known: Structure, one: Sequence[int], other: Sequence[int], values: Values
) -> Changes:
    """Pass what arrives at each slice back to the entries of another."""
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    for number, place in [*zip(one, other, strict=True), *zip(other, one, strict=True)]:
        given = [values[slot] for slot in operations[number].inputs]

        def through(arriving: Any, given: Any = given, moved: Any = operations[place].moved) -> Any:
            return move_back(moved, given, arriving[0], EXACTLY)[0]

        changes[number, 0] = Change(0, through=through)
    return changes


def exchange_results(
    known: Structure, group: Sequence[int], i: int, k: int, values: Values
) -> Changes:
    """Exchange what arrives at two results of each split."""
    operations, changes = known.program.operations, dict[tuple[int, int], Change]()
    for number in group:
        pullback = make_pullback(operations[number], values)

        def through(arriving: Any, pullback: Any = pullback) -> Any:
            exchanged = [*arriving]
            exchanged[i], exchanged[k] = arriving[k], arriving[i]
            return pullback(exchanged)[0]

        changes[number, 0] = Change(0, through=through)
    return changes


def list_other_operands(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[tuple[list[int], str, str]]:
    """List values of the same step, of the same shape, for the other operand of a product.

    Each has what it is at any place where a product is, and the words for this one.
    """
    operations, constants = known.program.operations, known.program.constants
    slots = [operations[number].inputs[1 - operand] for number in group]
    shape = shape_of(known, slots[-1])
    if shape is None or len(shape) == 0:
        return
    own = name_operand(known, group[-1], 1 - operand)
    if len(slots) > 1 and not any(slot in known.leaf for slot in slots):
        for one, which in ((slots[0], "first"), (slots[-1], "last")):
            yield [one] * len(slots), which, f"the {which} step's value of {own} at every step"
        after = following(known, slots[-1], slots[-2])
        if after is not None:
            words = f"the value of {own} after the last step, at every step"
            yield [after] * len(slots), "after", words
    if all(slot in known.leaf for slot in slots):
        for each in known.groups:
            product = operations[each[0]].name == operations[group[0]].name
            for other in operations[each[-1]].inputs if product and each != group else ():
                if other in known.leaf and other not in slots and shape_of(known, other) == shape:
                    words = f"the weight `{known.leaf[other]}`, where {own} belongs"
                    yield [other] * len(group), known.leaf[other], words
        return
    found, repeated = 0, group[-1] in known.step
    for each in sorted(known.groups, key=lambda each: abs(each[-1] - group[-1])):
        apart = repeated and each[-1] not in known.step
        if len(each) < len(group) or apart or found == OTHERS:
            continue
        chosen = each[len(each) - len(group) :]
        columns = zip(*(operations[number].inputs for number in chosen), strict=True)
        for k, column in enumerate(columns):
            same = all(shape_of(known, slot) == shape for slot in column)
            fixed = all(slot in constants or slot in known.leaf for slot in column)
            if same and not fixed and list(column) != slots:
                found += 1
                value, expression = (
                    name_operand(known, chosen[-1], k),
                    write_expression(known, chosen[-1]),
                )
                read = f", as in `{expression}`," if expression else ","
                yield [*column], expression, f"{value}{read} where {own} belongs"
