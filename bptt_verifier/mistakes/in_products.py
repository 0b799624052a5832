"""Mistakes in the derivatives of products: a wrong operand, a weight that is not transposed."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    change_edges,
    find_role,
    make_pullback,
    read_slots,
    repeat_changes,
)
from bptt_verifier.program.activations import Activation, find_activations, slope_of
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import evaluate
from bptt_verifier.program.structure import (
    Structure,
    find_starts,
    following,
    from_before,
    shape_of,
)


def list_product_mistakes(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List mistakes that compute one operand's gradient with a wrong value of the other.

    That is the other operand transposed, of another step, or not activated.
    """
    operations = known.program.operations
    inputs = [operations[number].inputs for number in group]
    own, other = ([each[k] for each in inputs] for k in (operand, 1 - operand))
    this, right = (name_operand(known, group[-1], k) for k in (operand, 1 - operand))

    def use(
        what: str,
        values_of: Callable[[Values], list[Any]],
        name: str = "wrong-operand",
        key: int = 0,
        of: str = "",
    ) -> OperationMistake:
        """Make a mistake; `what` has {} for the value that belongs there, or that is `of` it."""
        said = f"the gradient of {this} is computed with {what.format(of or right)}"
        changes = partial(replace_other_operand, known, group, operand, values_of)
        family = name, what, key, find_role(known, group, operand)
        return OperationMistake(name, said, group[0], changes, {}, family)

    if operations[group[0]].name == "dot_general":
        yield from list_transposition_mistakes(known, group, operand, other)
        yield from list_transposed_cotangents(known, group, operand)
        yield from list_slopes_before_products(known, group, operand, own)
        yield from list_paths_past_weights(known, group, operand, own)
        yield from list_matrices_left_out(known, group, operand, other)
    state = any(slot in known.producer and slot not in known.leaf for slot in other)
    off_by_one = "hidden-state-off-by-one" if state else "input-off-by-one"
    for key, (slots, label, what) in enumerate(list_shifts(known, other)):
        yield use(what, read_slots(slots), label or off_by_one, key)
    yield from list_shifted_parts(known, other, use)
    sources = [known.producer.get(slot) for slot in other]
    producers = [source for source in sources if source is not None]
    activations = find_activations(known, producers)
    for each in activations[-1:]:
        start = {activation.end: activation.start for activation in each}
        before = [
            slot if source is None else start.get(source, slot)
            for slot, source in zip(other, sources, strict=True)
        ]
        yield use("the argument of the activation, where its result {} belongs", read_slots(before))
    if len(producers) == len(sources) and {operations[k].name for k in producers} == {"mul"}:
        for factors in zip(*(operations[source].inputs for source in producers), strict=True):
            yield use("one factor of the product {} alone", read_slots(factors))
    if operations[group[0]].name == "mul":
        yield use("itself, where {} belongs", read_slots(own))


def replace_other_operand(
    known: Structure,
    group: Sequence[int],
    operand: int,
    values_of: Callable[[Values], Sequence[Any]],
    values: Values,
) -> Changes:
    """Replace the other operand of every product by these values; None contributes nothing."""
    result: Changes = {}
    for number, value in zip(group, values_of(values), strict=True):
        true = values[known.program.operations[number].inputs[1 - operand]]
        if value is None:
            result[number, operand] = Change(operand, after=0.0)
        elif value.shape == true.shape:
            result[number, operand] = Change(operand, instead=((1 - operand, value),))
    return result


def list_transposition_mistakes(
    known: Structure, group: Sequence[int], operand: int, slots: Sequence[int]
) -> Iterator[OperationMistake]:
    """List the mistake of leaving a square weight, or another square matrix, untransposed."""
    shapes = {known.program.operations[number].shapes[0] for number in group}
    square = {is_square(known, slot) for slot in slots} == {True}
    # A weight may have products of several shapes: of a first state that vmap does not repeat.
    if slots[0] not in known.leaf and (len(shapes) > 1 or not square):
        return

    def transpose(values: Values) -> list[Any]:
        every = [values[slot] for slot in slots]
        return [
            each.swapaxes(-1, -2) if is_square(known, slot) else each
            for each, slot in zip(every, slots, strict=True)
        ]

    if slots[0] not in known.leaf:
        own, other = (name_operand(known, group[-1], k) for k in (operand, 1 - operand))
        said = f"the gradient of {own} is computed with {other}, where its transpose belongs"
        changes = partial(replace_other_operand, known, group, operand, transpose)
        yield OperationMistake("wrong-operand", said, group[0], changes, {}, ("square", operand))
        return
    recurrent = any(from_before(known, number, operand) for number in group)
    recurrent = recurrent or feeds_itself(known, group, operand)
    name = f"untransposed-{'recurrent' if recurrent else 'output'}-weight"
    weight = name_operand(known, group[-1], 1 - operand)
    changes = partial(replace_other_operand, known, group, operand, transpose)
    said = f"the backward pass multiplies by {weight}, where its transpose belongs"
    yield OperationMistake(name, said, group[0], changes, {}, (name, operand))


def is_square(known: Structure, slot: int) -> bool:
    """True if the last two axes of a value are of one length, which is not one."""
    shape = shape_of(known, slot) or ()
    return len(shape) > 1 and shape[-1] == shape[-2] > 1


def list_transposed_cotangents(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List the mistake of transposing the gradient of a square product, or not transposing it."""
    operations = known.program.operations
    if not all(is_square(known, operations[number].outputs[0]) for number in group):
        return
    own = name_operand(known, group[-1], operand)
    said = f"the gradient of {own} is computed with the gradient of this product transposed"
    changes = partial(transpose_arriving, known, group, operand)
    yield OperationMistake("wrong-operand", said, group[0], changes, {}, ("transposed", operand))


def transpose_arriving(
    known: Structure, group: Sequence[int], operand: int, values: Values
) -> Changes:
    """Pass the transpose of what arrives at square products back to one operand."""
    changes: Changes = {}
    for number in group:
        pullback = make_pullback(known.program.operations[number], values)

        def through(arriving: Any, pullback: Any = pullback) -> Any:
            return pullback([arriving[0].swapaxes(-1, -2)])[operand]

        changes[number, operand] = Change(operand, through=through)
    return changes


def feeds_itself(known: Structure, group: Sequence[int], operand: int) -> bool:
    """True if an operand depends on an earlier product of the group, at whatever step."""
    slots = [known.program.operations[number].inputs[operand] for number in group[1:]]
    seen = set[int]()
    while slots:
        number = known.producer.get(slots.pop(), -1)
        if number in group:
            return True
        if number > group[0] and number not in seen:
            seen.add(number)
            slots += known.program.operations[number].inputs
    return False


def list_slopes_before_products(
    known: Structure, group: Sequence[int], operand: int, slots: Sequence[int]
) -> Iterator[OperationMistake]:
    """List mistakes that apply an activation's derivative on the wrong side of the weight."""
    numbers = [known.producer[slot] for slot in slots if slot in known.producer]
    if not numbers or slots[-1] in known.leaf:
        return
    for each in find_activations(known, numbers):

        def changes(values: Values, each: Sequence[Activation] = each) -> Changes:
            by_end = {activation.end: activation for activation in each}
            result: Changes = {}
            for number, slot in zip(group, slots, strict=True):
                source = known.producer.get(slot)
                if source not in by_end:
                    continue
                with np.errstate(all="ignore"):
                    slope = slope_of(known, by_end[source], values)[0]
                    inverse = np.where(slope == 0, 0.0, 1 / slope)
                if slope.shape == known.program.operations[number].shapes[0]:
                    result[number, operand] = Change(operand, before=slope, after=inverse)
            return result

        weight = name_operand(known, group[-1], 1 - operand)
        yield OperationMistake(
            "activation-derivative-before-matrix-product",
            f"the derivative of the activation is multiplied in before the product with {weight},"
            " not after it",
            group[0], changes, {}, ("before", operand, len(each[0].numbers)),
        )  # fmt: skip


def list_paths_past_weights(
    known: Structure, group: Sequence[int], operand: int, slots: Sequence[int]
) -> Iterator[OperationMistake]:
    """List mistakes that compute one factor of U (r ⊙ h) as if U were not there, as δ ⊙ h for r."""
    operations = known.program.operations
    pairs = [
        (known.producer[s], n) for s, n in zip(slots, group, strict=True) if s in known.producer
    ]
    products = [source for source, _ in pairs]
    weights = {operations[n].inputs[1 - operand] for n in group}
    if not pairs or not weights <= known.leaf.keys():
        return
    for source, number in pairs:
        alone = len(known.users[operations[source].outputs[0]]) == 1
        same = operations[source].shapes == operations[number].shapes
        if operations[source].name != "mul" or not alone or not same:
            return
    weight, name = name_operand(known, group[-1], 1 - operand), "factor-missing"
    for factor in known.active(*products):
        to = name_operand(known, products[-1], factor)
        said = f"the gradient passed on to {to} is not multiplied by the weight {weight}"
        changes = {
            (source, factor): Change(factor, arriving_at=operations[number].outputs[0])
            for source, number in pairs
        }
        family = name, "past", find_role(known, products, factor)
        same_changes = partial(repeat_changes, changes)
        yield OperationMistake(name, said, products[0], same_changes, {}, family)


def list_matrices_left_out(
    known: Structure, group: Sequence[int], operand: int, others: Sequence[int]
) -> Iterator[OperationMistake]:
    """List products with a square matrix, such as S in S H, that pass the gradient on as it is."""
    operations = known.program.operations
    edges = [
        (number, operand)
        for number, other in zip(group, others, strict=True)
        if other not in known.leaf
        and is_square(known, other)
        and shape_of(known, operations[number].inputs[operand]) == operations[number].shapes[0]
    ]
    if len(edges) < len(group):
        return
    own, matrix = (name_operand(known, group[-1], k) for k in (operand, 1 - operand))
    name = "factor-missing"
    said = f"the gradient passed on to {own} is not multiplied by the matrix {matrix}"
    family = name, "matrix", find_role(known, group, operand)
    changes = change_edges(edges, slope=1.0)
    yield OperationMistake(name, said, group[0], changes, {}, family)


def list_shifted_parts(
    known: Structure, slots: Sequence[int], use: Callable[..., OperationMistake]
) -> Iterator[OperationMistake]:
    """List values of other steps in a part of an operand, such as the state in [x, h] or h + x."""
    operations = known.program.operations
    sources = [known.producer.get(slot) for slot in slots]
    numbers = [source for source in sources if source is not None]
    # At the first step of a sequence all parts may be constants, and then so is the operand.
    early = len(slots) - len(numbers)
    kinds = {(operations[k].name, len(operations[k].inputs)) for k in numbers}
    if early > len(find_starts(known)) or len(kinds) != 1:
        return
    joined = operations[numbers[0]].name == "concatenate"
    if joined and not early:
        yield use("{} joined in the opposite order", partial(join_in_reverse, known, slots))
    if not joined and (early or operations[numbers[0]].name not in {"stack", "add", "sub", "mul"}):
        return
    for part in known.active(*numbers):
        zeros = partial(rebuild_operands, known, slots, part, [None] * len(slots))
        which = name_operand(known, numbers[-1], part)
        yield use("zeros in the place of {}", zeros, "zero-gradient", part, which)
        inner = [None if k is None else operations[k].inputs[part] for k in sources]
        for key, (shifted, label, what) in enumerate(list_shifts(known, inner)):
            rebuild = partial(rebuild_operands, known, slots, part, shifted)
            name = label or "hidden-state-off-by-one"
            yield use(what, rebuild, name, 100 * (part + 1) + key, which)


def join_in_reverse(known: Structure, slots: Sequence[int], values: Values) -> list[Any]:
    """Join the parts of operands in the opposite order."""
    operations, result = known.program.operations, list[Any]()
    for slot in slots:
        equation = operations[known.producer[slot]]
        parts = [values[each] for each in reversed(equation.inputs)]
        sizes = [len(part) for part in parts]
        parts = [np.repeat(part, max(sizes) // len(part), axis=0) for part in parts]
        result.append(np.concatenate(parts, axis=equation.params["dimension"] + 1))
    return result


def rebuild_operands(
    known: Structure,
    slots: Sequence[int],
    part: int,
    shifted: Sequence[int | None],
    values: Values,
) -> list[Any]:
    """Compute operands of a product again, with other values in the place of one part.

    A value of another shape than the part, as in layers of several widths, contributes nothing;
    nor does an operand that is a constant and of no shape that any other operand has.
    """
    operations, result = known.program.operations, list[Any]()
    sources = [known.producer[slot] for slot in slots if slot in known.producer]
    templates = {values[operations[k].outputs[0]].shape: operations[k] for k in sources}
    for slot, other in zip(slots, shifted, strict=True):
        like = templates.get(values[slot].shape)
        if like is None:
            result.append(None)
            continue
        shape = values[like.inputs[part]].shape
        value = np.zeros(shape) if other is None else values[other]
        if value.shape != shape:
            result.append(None)
        elif slot in known.producer:
            source = operations[known.producer[slot]]
            given = [values[each] for each in source.inputs]
            given[part] = value
            result.append(evaluate(source, given)[0])
        else:  # a constant that joins constants
            axis = like.params["dimension"] + 1
            start = sum(values[each].shape[axis] for each in like.inputs[:part])
            joined = np.array(values[slot], float)
            place = [slice(None)] * joined.ndim
            place[axis] = slice(start, start + shape[axis])
            joined[tuple(place)] = value
            result.append(joined)
    return result


def list_shifts(
    known: Structure, slots: Sequence[int | None]
) -> Iterator[tuple[Sequence[int | None], str, str]]:
    """List the slots of other steps, with the name of that mistake (or none) and its words.

    The words have {} for the value at the right step.
    """
    if len(slots) < 2 or len({find_part(known, slot) for slot in slots}) < 2:
        return  # a weight is the same at every step
    following_step = "the value of {} in the next iteration"
    previous = "the value of {} in the previous iteration"
    parts = split_by_sequence(known, slots)
    after = [following(known, part[-1], part[-2] if len(part) > 1 else None) for part in parts]
    lasts = [part[-1] for part in parts]

    def join(make: Callable[..., Sequence[int | None]], *more: Sequence[int | None]) -> list[Any]:
        return [slot for each in zip(parts, *more, strict=True) for slot in make(*each)]

    yield join(lambda part, a: [*part[1:], a], after), "", following_step
    yield join(lambda part: [*part[1:], part[-1]]), "", following_step
    guarded = f"{following_step}, and at the first step with nothing"
    yield join(lambda part, a: [None, *part[2:], a][: len(part)], after), "", guarded
    yield join(lambda part: [None, *part[:-1]]), "", previous
    later = "the value of {} two iterations later"
    yield join(lambda part, a: [*part[2:], a, None][-len(part) :], after), "", later
    wraps = "negative-index-wraps-around"
    wrapped = "at the first step its last value, as index −1 gives"
    first = "{}, but " + wrapped
    ends = [lasts] if after == lasts or None in after else [lasts, after]
    for last in ends:
        yield join(lambda part, end: [end, *part[1:]], last), wraps, first
        yield join(lambda part, end: [end, *part[:-1]], last), wraps, f"{previous}, and {wrapped}"
    # In two steps, these are the same as a negative index, which is likelier.
    yield join(lambda part: [*reversed(part)]), "wrong-operand", "{} in reverse order"
    yield join(lambda part: [*part[1:], part[0]]), "", f"{following_step}, and at the end the first"


def find_part(known: Structure, slot: int | None) -> tuple[Any, ...]:
    """Find what a slot holds: a parameter, the part or the transpose of one, or a value."""
    parts = list[Any]()
    while slot in known.leaf and slot in known.producer:
        equation = known.program.operations[known.producer[slot]]
        moved = None if equation.moved is None else equation.moved.tobytes()
        parts += [moved, equation.outputs.index(slot)]
        slot = equation.inputs[0]
    return slot, *parts


def split_by_sequence(known: Structure, slots: Sequence[int | None]) -> list[Sequence[int | None]]:
    """Split the slots of all steps where another sequence begins."""
    starts = find_starts(known)
    if len(slots) != known.steps or len(starts) < 2:
        return [slots]
    return [slots[one:other] for one, other in pairwise([*starts, known.steps])]
