"""Mistakes in the factors of a derivative: of products, quotients and activations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.expressions import (
    find_line,
    name_operand,
    quote_expression,
    write_expression,
)
from bptt_verifier.mistakes.operation_mistakes import (
    SUMS,
    Changes,
    OperationMistake,
    Values,
    change_edges,
    find_role,
    list_summands,
    repeat_changes,
)
from bptt_verifier.program.backward import Change
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
    scales = [np.unique(value) for value in numbers]
    if name == "mul" and scales and all(len(u) == 2 and u[0] == 0 != u[1] - 1 for u in scales):
        scale = f"{float(scales[0][1]):.6g}"
        scaled = what.removesuffix(", a constant")
        unscaled = f"{to} lacks the scale {scale} of the mask in {scaled}"
        yield make("factor-missing", unscaled, np.sign, 3)
        everywhere = f"{to} is multiplied by {scale} even where the mask in {scaled} is zero"
        yield make("factor-missing", everywhere, lambda value: np.max(value) + 0 * value, 4)
    if constant:
        if any(value.size > 1 and not np.isin(value, (0, 1)).all() for value in numbers):
            yield make("factor-twice", f"{to} is {done} by {what} twice", np.square, 5)
        inverse = f"{to} is divided by {what}" if name == "mul" else f"{to} is multiplied by {what}"
        yield make("factor-inverted", inverse, lambda value: 1 / value, 1)
        if name == "mul" and all(value.size == 1 and 0 < value < 1 for value in numbers):
            yield make("factor-twice", f"{to} is {done} by {what} twice", np.square, 5)
            minus = f"{to} is multiplied by 1 − {what}, where {what} belongs"
            yield make("wrong-operand", minus, lambda value: 1 - value, 2)
    else:
        yield make("factor-twice", f"{to} is {done} by {what} twice", np.square, 5)
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
    operations, constants = known.program.operations, known.program.constants
    for group in known.groups:
        for operand in known.active(*group) if operations[group[0]].name == "mul" else ():
            by_source: dict[int, list[tuple[int, int]]] = {}
            for number in group:
                slot, edge = operations[number].inputs[operand], (number, operand)
                for k, sign in list_summands(known, slot, {edge}):
                    if sign:  # this product alone reads the sum
                        by_source.setdefault(known.group_of[k], []).append((k, number))
            every = [(p, path) for p in by_source.values() for path in known.active(p[-1][0])]
            for pairs, path in every if len(every) > 1 else ():
                factor = name_operand(known, group[-1], 1 - operand)
                to = name_operand(known, pairs[-1][0], path)
                said = f"the gradient passed on to {to} lacks the factor {factor}"
                changes = partial(replace_factor, known, pairs, operand, path, np.ones_like)
                yield OperationMistake("factor-missing", said, pairs[0][0], changes)
                slots = [operations[number].inputs[1 - operand] for _, number in pairs]
                values = [constants[slot] for slot in slots if slot in constants]
                if len(values) == len(slots) and all(v.size == 1 and 0 < v < 1 for v in values):
                    said = f"the gradient passed on to {to} is multiplied by 1 − {factor}, where"
                    said += f" {factor} belongs"
                    opposite = partial(replace_factor, known, pairs, operand, path, take_from_one)
                    yield OperationMistake("wrong-operand", said, pairs[0][0], opposite)


def list_extra_factors(known: Structure) -> Iterator[OperationMistake]:
    """List constant factors of one path that also multiply what comes back from the next step.

    Dropout on the outputs of a layer leaves the states that it carries as they are.
    """
    operations, constants = known.program.operations, known.program.constants
    for group in known.groups:
        for operand in known.active(*group) if operations[group[0]].name == "mul" else ():
            # By layer: the products with its states. The loss may not read all outputs.
            by_layer: dict[int, dict[int, int]] = {}
            for number in group:
                slot = operations[number].inputs[operand]
                if slot in known.producer and operations[number].inputs[1 - operand] in constants:
                    layer = known.group_of[known.producer[slot]]
                    by_layer.setdefault(layer, {})[slot] = number
            for layer, numbers in by_layer.items():
                states = [s for n in known.groups[layer] for s in operations[n].outputs]
                last = [*numbers.values()][-1]
                uses = [
                    (edge, numbers.get(slot, last))
                    for slot in states
                    for edge in known.users.get(slot, ())
                    if edge in known.carried
                ]
                what, beside = (name_operand(known, last, k) for k in (1 - operand, operand))
                said = (
                    f"{what}, a factor beside {beside} in one place, also multiplies the gradient"
                )
                said += " from the next step"
                name = "factor-on-another-path"
                for scaled in (False, True) if uses else ():
                    changes = partial(multiply_carried, known, uses, 1 - operand, scaled)
                    yield OperationMistake(name, said, last, changes, {}, (name, scaled))


def list_twice_carried(known: Structure) -> Iterator[OperationMistake]:
    """List factors of a carried state by which the step before multiplies its gradient again.

    It is the gate of that step: `dc = dc_next * f[t]`, and `dc_next` contains that of the next.
    """
    operations = known.program.operations
    for group in known.groups:
        for operand in known.active(*group) if operations[group[0]].name == "mul" else ():
            edges = [(n, operand) for n in group if (n, operand) in known.carried]
            if not edges or operations[group[-1]].inputs[1 - operand] in known.program.constants:
                continue
            factor, state = (name_operand(known, group[-1], k) for k in (1 - operand, operand))
            said = f"what is carried back to {state} is multiplied by {factor} of two steps"
            changes = partial(multiply_by_factor_before, known, group, edges)
            role = find_role(known, group, operand)
            yield OperationMistake("factor-twice", said, group[0], changes, {}, ("carried", role))


def multiply_by_factor_before(
    known: Structure, group: Sequence[int], edges: Sequence[tuple[int, int]], values: Values
) -> Changes:
    """Multiply what is passed back to a state by the factor of the step before."""
    changes: Changes = {}
    before = dict(zip(group[1:], group, strict=False))
    for number, operand in edges:
        if number in before:
            slot = known.program.operations[before[number]].inputs[1 - operand]
            changes[number, operand] = Change(operand, after=values[slot][0])
    return changes


def list_factor_sides(known: Structure) -> Iterator[OperationMistake]:
    """List gradients of r (h U) as of (r h) U, and the other way round, in U, in h, or in both."""
    operations = known.program.operations
    for group in known.groups:
        if operations[group[0]].name != "dot_general":
            continue
        for state in known.active(*group):
            slots = [operations[number].inputs for number in group]
            if slots[-1][1 - state] not in known.leaf or slots[-1][state] in known.leaf:
                continue
            for find in (find_factor_after, find_factor_before):
                found = [find(known, number, state) for number in group]
                if found[-1] is None:
                    continue
                weight, inner = (name_operand(known, group[-1], k) for k in (1 - state, state))
                factor = name_operand(known, *found[-1].named)
                for operands in ((1 - state,), (state,), (0, 1)):
                    of = " and ".join(name_operand(known, group[-1], k) for k in operands)
                    said = f"the factor {factor} is taken to multiply the other side of the product"
                    said += f" of {inner} and {weight}, in the gradient of {of}"
                    changes = partial(move_factor, known, group, state, operands, found)
                    yield OperationMistake("wrong-operand", said, group[0], changes)


class FactorSide(NamedTuple):
    """A factor of a product's result, or of its operand, and the slots around it.

    `result` is the slot after the factor, where it follows; `bare` is the operand without it, where
    it comes before.
    """

    factor: int
    named: tuple[int, int]
    result: int | None = None
    bare: int | None = None


def find_factor_after(known: Structure, number: int, state: int) -> FactorSide | None:
    """Find the factor by which the result of a product is multiplied, perhaps with a bias."""
    operations = known.program.operations
    equation = operations[number]
    (slot,) = equation.outputs
    while len(users := known.users.get(slot, [])) == 1:
        reader, operand = users[0]
        if operations[reader].name == "mul":
            factor = operations[reader].inputs[1 - operand]
            shapes = {shape_of(known, each) for each in (factor, slot, equation.inputs[state])}
            if len(shapes) > 1 or factor == slot:
                return None
            return FactorSide(factor, (reader, 1 - operand), operations[reader].outputs[0])
        other = operations[reader].inputs[1 - operand] if operations[reader].name == "add" else -1
        bias = known.producer.get(other, -1)
        plain = bias < 0 or all(each in known.leaf for each in operations[bias].inputs)
        if other < 0 or not plain:
            return None
        (slot,) = operations[reader].outputs
    return None


def find_factor_before(known: Structure, number: int, state: int) -> FactorSide | None:
    """Find a factor of the operand of a product that could also multiply its result."""
    operations = known.program.operations
    slot = operations[number].inputs[state]
    source = known.producer.get(slot, -1)
    if source < 0 or operations[source].name != "mul":
        return None
    if operations[number].shapes[0] != shape_of(known, slot):
        return None
    inputs = operations[source].inputs
    # The state is the factor that is carried; the other is a gate or a mask.
    carried = [k for k in (0, 1) if (source, k) in known.carried] or [1]
    return FactorSide(inputs[1 - carried[0]], (source, 1 - carried[0]), bare=inputs[carried[0]])


def move_factor(
    known: Structure,
    group: Sequence[int],
    state: int,
    operands: Sequence[int],
    found: Sequence[FactorSide | None],
    values: Values,
) -> Changes:
    """Multiply the other side of each product by its factor, in what these operands get."""
    changes: Changes = {}
    for number, side in zip(group, found, strict=True):
        if side is None:
            continue
        factor = values[side.factor][0]
        for operand in operands:
            if side.result is not None:
                here = Change(operand, arriving_at=side.result)
                wrong = factor * values[known.program.operations[number].inputs[state]]
                moved = here._replace(after=factor)
            else:
                here = Change(operand, before=factor)
                assert side.bare is not None
                wrong = values[side.bare]
                with np.errstate(all="ignore"):
                    moved = here._replace(after=1 / factor)
            if operand != state:
                moved = here._replace(instead=((state, wrong),))
            changes[number, operand] = moved
    return changes


def list_factors_of_steps(known: Structure) -> Iterator[OperationMistake]:
    """List factors that differ by step, such as a discount, that multiply another path as well."""
    operations, constants = known.program.operations, known.program.constants
    factors = dict[tuple[float, ...], tuple[str, list[float]]]()
    for group in known.groups:
        for k in (0, 1) if operations[group[0]].name == "mul" and len(group) == known.steps else ():
            slots = [operations[number].inputs[k] for number in group]
            if all(slot in constants and constants[slot].size == 1 for slot in slots):
                each = [float(np.real(constants[slot]).ravel()[0]) for slot in slots]
                if len({*each}) > 1 and 0 not in each:
                    factors[tuple(each)] = name_operand(known, group[-1], k), each
    for what, each in factors.values():
        for group in known.groups:
            if len(group) != known.steps or any(number not in known.step for number in group):
                continue
            for operand in known.active(*group):
                to = f"the gradient passed on to {name_operand(known, group[-1], operand)}"
                for how, power in (("is multiplied by {} once more", 1), ("lacks {}", -1)):
                    changes = {
                        (number, operand): Change(operand, after=each[known.step[number]] ** power)
                        for number in group
                    }
                    name = "factor-twice" if power > 0 else "factor-missing"
                    said = f"{to} {how.format(f'the factor {what} of its step')}"
                    yield OperationMistake(name, said, group[0], partial(repeat_changes, changes))


def multiply_carried(
    known: Structure,
    uses: Sequence[tuple[tuple[int, int], int]],
    other: int,
    scaled: bool,
    values: Values,
) -> Changes:
    """Multiply what is passed back to states by a constant factor, and by its scale if `scaled`."""
    operations, constants = known.program.operations, known.program.constants
    changes: Changes = {}
    for (reader, operand), number in uses:
        slot, (result,) = operations[number].inputs[other], operations[number].outputs
        users = [operations[user] for user, _ in known.users.get(result, ())]
        if slot not in constants or np.ndim(constants[slot]) == 0:
            return {}
        factor = constants[slot]
        if scaled:
            if len(users) != 1 or users[0].name not in {"mul", "div"}:
                return {}
            scales = [constants[each] for each in users[0].inputs if each in constants]
            if len(scales) != 1 or scales[0].size != 1:
                return {}
            factor = factor * scales[0] if users[0].name == "mul" else factor / scales[0]
        if np.broadcast_shapes(factor.shape, operations[number].shapes[0]) != factor.shape:
            return {}
        changes[reader, operand] = Change(operand, after=factor)
    return changes


def replace_factor(
    known: Structure,
    pairs: Sequence[tuple[int, int]],
    operand: int,
    path: int,
    replaced: Callable[[Any], Any],
    values: Values,
) -> Changes:
    """Replace the factor of each product by a function of it, on one path to its operand."""
    changes: Changes = {}
    for source, number in pairs:
        factor = values[known.program.operations[number].inputs[1 - operand]][0]
        if factor.shape not in ((), known.program.operations[source].shapes[0]):
            return {}
        with np.errstate(all="ignore"):
            changes[source, path] = Change(path, before=replaced(factor) / factor)
    return changes


def take_from_one(factor: Any) -> Any:
    """Compute one minus a factor."""
    return 1 - factor


def list_own_results(
    known: Structure, group: Sequence[int], operand: int, results: Mapping[int, int]
) -> Iterator[tuple[list[int], str, str]]:
    """List the state that a product leads to, in the place of what it is computed from.

    `results` are the results of activations by their variables.
    """
    operations, found = known.program.operations, list[int]()
    slots = [operations[number].inputs[1 - operand] for number in group]
    for number in group:
        (slot,) = operations[number].outputs
        while slot not in results:
            users = known.users.get(slot, [])
            if len(users) != 1 or operations[users[0][0]].name not in SUMS:
                return
            (slot,) = operations[users[0][0]].outputs
        found.append(results[slot])
    if found == slots or {shape_of(known, s) for s in found} != {shape_of(known, s) for s in slots}:
        return
    own = name_operand(known, group[-1], 1 - operand)
    result = quote_expression(known, known.producer[found[-1]])
    yield found, "result", f"the result of this step, {result}, where {own} belongs"


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
    if len(slots) > 1 and slots[-1] not in known.leaf:
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
                    weight = name_operand(known, each[-1], operations[each[-1]].inputs.index(other))
                    words = f"the weight {weight}, where {own} belongs"
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
                if value == own:
                    value += f" of line {find_line(known, chosen[-1])}"
                read = f", as in `{expression}`," if expression else ","
                yield [*column], expression, f"{value}{read} where {own} belongs"
