"""Mistakes in the derivative of one operation of a loss.

A mistake changes the same operation at every time step, or at some steps only. `list_tiers` puts
them in order: whoever makes one, makes it in one place, in several, or in a less common way.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.families import list_families
from bptt_verifier.mistakes.in_conjugates import (
    list_conjugate_mistakes,
    list_single_conjugate_mistakes,
)
from bptt_verifier.mistakes.in_factors import (
    list_factor_mistakes,
    list_other_operands,
    list_slope_mistakes,
    replace_slopes,
)
from bptt_verifier.mistakes.in_patterns import (
    list_epsilon_mistakes,
    list_lookup_mistakes,
    list_normalisation_mistakes,
    list_softmax_mistakes,
)
from bptt_verifier.mistakes.in_time import (
    list_arrival_mistakes,
    list_head_mistakes,
    list_output_mistakes,
    list_recurrence_mistakes,
    list_step_mistakes,
    list_windows,
    make_local,
)
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    change_edges,
    find_role,
    name_operand,
    read_slots,
    scale_edges,
)
from bptt_verifier.program.activations import (
    Activation,
    find_activations,
    is_linear,
    name_operations,
    slope_of,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import BINARY, evaluate
from bptt_verifier.program.structure import Structure, following, from_before, shape_of


def list_tiers(known: Structure) -> Iterator[list[OperationMistake]]:
    """List every mistake, in tiers: in one place, in several places, and the less common ones."""
    single = [*list_mistakes(known)]
    yield single
    yield [*list_families(known, single)]
    rare = [*list_rare_mistakes(known)]
    yield rare
    yield [*list_families(known, rare)]


def list_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List the common mistakes in one operation, the more specific names first."""
    yield from list_recurrence_mistakes(known)
    yield from list_conjugate_mistakes(known)
    yield from list_single_conjugate_mistakes(known)
    yield from list_softmax_mistakes(known)
    yield from list_normalisation_mistakes(known)
    for group in known.groups:
        yield from list_activation_mistakes(known, group)
        if known.program.operations[group[0]].name in {"dot_general", "mul"}:
            for operand in known.active(*group):
                yield from list_product_mistakes(known, group, operand)
    yield from list_output_mistakes(known)
    yield from list_step_mistakes(known)
    yield from list_lookup_mistakes(known)
    for group in known.groups:
        if known.program.operations[group[0]].name in {"mul", "div", "dot_general"}:
            for operand in known.active(*group):
                yield from list_factor_mistakes(known, group, operand)
    # Where cutting a path has the same effect in several places, the one nearest to the loss.
    for group in reversed(known.groups):
        yield from list_broadcast_mistakes(known, group)
        yield from list_path_mistakes(known, group)


def list_rare_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List the less common mistakes in one operation, and those in all of the loss."""
    yield from list_epsilon_mistakes(known)
    yield from list_head_mistakes(known)
    yield from list_windows(known)
    yield from list_slope_mistakes(known, find_longest(known))
    yield from list_arrival_mistakes(known, make_local(known))
    for group in known.groups:
        if known.program.operations[group[0]].name in {"dot_general", "mul"}:
            for operand in known.active(*group):
                family = find_role(known, group, operand)
                for slots, other in list_other_operands(known, group, operand):
                    what = f"the gradient of its {name_operand(operand)} is computed with {other}"
                    changes = partial(
                        replace_other_operand, known, group, operand, read_slots(slots)
                    )
                    yield OperationMistake(
                        "wrong-operand", what, group[0], changes, {}, (family, what)
                    )


def find_longest(known: Structure) -> list[list[Activation]]:
    """Find the activations of the loss, each as long as it goes, at every step.

    One whose value is used several times ends there, even where a longer one contains it.
    """
    longest = [found[-1] for group in known.groups if (found := find_activations(known, group))]
    longest = [each for each in longest if not is_linear(known, each[0])]
    inside = {number for each in longest for one in each for number in one.numbers[:-1]}

    def used_once(number: int) -> bool:
        return len(known.users.get(known.program.operations[number].outputs[0], ())) == 1

    return [each for each in longest if each[0].end not in inside or not used_once(each[0].end)]


def list_activation_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that omit an activation's derivative, or take it at the activated value."""
    for each in find_activations(known, group):
        if is_linear(known, each[0]):
            continue
        names = name_operations(known, each[0])
        missing = "its derivative is missing: what arrives is passed back as it is"
        activated = (
            "its derivative is taken at the value that it returned, not the one it was given"
        )
        for name, said, find_slope in (
            ("activation-derivative-missing", missing, no_slope),
            ("activation-derivative-of-activated-value", activated, slope_at_result),
        ):
            changes = partial(replace_slopes, known, each, find_slope)
            yield OperationMistake(name, said, each[0].end, changes, {}, (name, names))


def no_slope(known: Structure, activation: Activation, values: Values) -> Any:
    """Return one."""
    return 1.0


def slope_at_result(known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the slope of an activation at its result."""
    (output,) = known.program.operations[activation.end].outputs
    return slope_of(known, activation, values, values[output])[0]


def list_product_mistakes(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List mistakes that compute one operand's gradient with a wrong value of the other.

    That is the other operand transposed, of another step, or not activated.
    """
    operations = known.program.operations
    inputs = [operations[number].inputs for number in group]
    own, other = ([each[k] for each in inputs] for k in (operand, 1 - operand))

    def use(
        what: str,
        values_of: Callable[[Values], list[Any]],
        name: str = "wrong-operand",
        key: int = 0,
    ) -> OperationMistake:
        alteration = f"the gradient of its {name_operand(operand)} is computed with {what}"
        changes = partial(replace_other_operand, known, group, operand, values_of)
        family = name, what, key, find_role(known, group, operand)
        return OperationMistake(name, alteration, group[0], changes, {}, family)

    if operations[group[0]].name == "dot_general":
        yield from list_transposition_mistakes(known, group, operand, other)
        yield from list_order_mistakes(known, group, operand, own)
    state = any(slot in known.producer for slot in other)
    off_by_one = "hidden-state-off-by-one" if state else "input-off-by-one"
    for key, (slots, label, what) in enumerate(list_shifts(known, other)):
        yield use(what, read_slots(slots), label or off_by_one, key)
    yield from list_shifted_parts(known, other, use)
    sources = [known.producer.get(slot) for slot in other]
    producers = [source for source in sources if source is not None]
    activations = find_activations(known, producers)
    for each in activations[-1:] if len(producers) == len(other) else ():
        start = [activation.start for activation in each]
        yield use("the value before the activation, not the one after it", read_slots(start))
    if len(producers) == len(sources) and {operations[k].name for k in producers} == {"mul"}:
        for factors in zip(*(operations[source].inputs for source in producers), strict=True):
            yield use("one factor of a product instead of the product", read_slots(factors))
    if operations[group[0]].name == "mul":
        yield use("that operand itself instead of the other", read_slots(own))


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
    """List the mistake of leaving a square weight untransposed."""
    shapes = {known.program.operations[number].shapes[0] for number in group}
    if slots[0] not in known.leaf or len(shapes) > 1:
        return
    recurrent = any(from_before(known, number, operand) for number in group)

    def transpose(values: Values) -> list[Any]:
        weights = [values[slot] for slot in slots]
        return [weight.swapaxes(-1, -2) if weight.ndim == 3 else weight for weight in weights]

    name = f"untransposed-{'recurrent' if recurrent else 'output'}-weight"
    weight = f"the weight in its {name_operand(1 - operand)}"
    changes = partial(replace_other_operand, known, group, operand, transpose)
    said = f"{weight} is not transposed in the backward pass"
    yield OperationMistake(name, said, group[0], changes, {}, (name, operand))


def list_order_mistakes(
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

        yield OperationMistake(
            "activation-derivative-before-matrix-product",
            "the activation's derivative is applied before the product with the weight, not after",
            group[0], changes, {}, ("before", operand, len(each[0].numbers)),
        )  # fmt: skip


def list_shifted_parts(
    known: Structure, slots: Sequence[int], use: Callable[..., OperationMistake]
) -> Iterator[OperationMistake]:
    """List values of other steps in a part of an operand, such as the state in [x, h] or in h + x."""
    operations = known.program.operations
    sources = [known.producer[slot] for slot in slots if slot in known.producer]
    if len(sources) < len(slots) or len({operations[k].name for k in sources}) > 1:
        return
    if operations[sources[0]].name not in {"concatenate", "stack", "add", "sub", "mul"}:
        return
    for part in known.active(*sources):
        inner = [operations[k].inputs[part] for k in sources]
        for key, (shifted, label, what) in enumerate(list_shifts(known, inner)):

            def rebuild(values: Values, part: int = part, shifted: Any = shifted) -> list[Any]:
                result = []
                for number, slot in zip(sources, shifted, strict=True):
                    given = [values[each] for each in operations[number].inputs]
                    given[part] = 0 * given[part] if slot is None else values[slot]
                    alike = given[part].shape == values[operations[number].inputs[part]].shape
                    result.append(evaluate(operations[number], given)[0] if alike else None)
                return result

            said = f"{what} in its {name_operand(part)}, the part that is a state"
            yield use(said, rebuild, label or "hidden-state-off-by-one", 100 * part + key)


def list_shifts(
    known: Structure, slots: Sequence[int]
) -> Iterator[tuple[Sequence[int | None], str, str]]:
    """List the slots of other steps, with the name of that mistake (or none) and its words."""
    if len(slots) < 2 or any(slot in known.leaf for slot in slots):
        return
    after = following(known, slots[-1], slots[-2])
    following_step, previous = "the value of the next step", "the value of the previous step"
    yield [*slots[1:], after], "", following_step
    yield [*slots[1:], slots[-1]], "", following_step
    yield [None, *slots[:-1]], "", previous
    wraps = "negative-index-wraps-around"
    first = "the last value at the first step, as index −1 would give"
    yield [*reversed(slots)], "", "the value of the step mirrored in time"
    for last in {slots[-1], after} - {None}:
        yield [last, *slots[1:]], wraps, first
        yield [last, *slots[:-1]], wraps, f"{previous}, and {first}"


def list_broadcast_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that sum one entry only over the axis along which a parameter is broadcast."""
    operations = known.program.operations
    shape = operations[group[0]].shapes[0]
    if len({operations[number].shapes[0] for number in group}) > 1:
        return
    for operand in known.active(*group):
        if operations[group[0]].inputs[operand] not in known.leaf:
            continue
        for axis in find_summed_axes(known, group[0], operand):
            for part, index in (("first", 0), ("last", -1)):
                mask = np.zeros(shape)
                mask[(slice(None),) * axis + (index,)] = 1
                said = (
                    f"of the sum over {shape[axis]} entries only the {part} reaches the parameter"
                )
                changes = change_edges([(number, operand) for number in group], before=mask)
                yield OperationMistake("bias-part-missing", said, group[0], changes)


def find_summed_axes(known: Structure, number: int, operand: int) -> list[int]:
    """Find the axes of a result that are summed over in the gradient of an operand."""
    equation = known.program.operations[number]
    shape = equation.shapes[0]
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    if equation.moved is not None:
        moved = equation.moved.reshape(shape)
        return [axis for axis in axes if not np.ptp(moved, axis=axis).any()]
    if equation.name == "dot_general":
        contract, batch = equation.params["dimension_numbers"]
        shapes = [shape_of(known, slot) or () for slot in equation.inputs]
        free = [
            len(each) - len(c) - len(b) for each, c, b in zip(shapes, contract, batch, strict=True)
        ]
        first = len(batch[0]) + (0 if operand == 1 else free[0])
        return [axis for axis in axes if first <= axis < first + free[1 - operand]]
    own = shape_of(known, equation.inputs[operand])
    if equation.name in BINARY and own is not None:
        return [axis for axis in axes if len(own) != len(shape) or own[axis] == 1]
    return []


def list_path_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that cut or scale what is passed back to one operand, or to all."""
    active = known.active(*group)
    zero, scaled, flipped = "zero-gradient", "constant-factor", "sign-flipped"
    # Uses at all steps have the name of a step; others are only the first and the last of several.
    of_steps = len(group) == known.steps and group[0] in known.step
    for operand in active:
        edges = [(number, operand) for number in group]
        path = f"what is passed back to its {name_operand(operand)}"
        role = find_role(known, group, operand)
        for name, said, by in (
            (zero, f"{path} is zero", 0.0),
            ("path-counted-twice", f"{path} is counted twice", 2.0),
            (flipped, f"{path} has the wrong sign", -1.0),
        ):
            yield scale_edges(name, said, edges, by)._replace(family=(name, role))
        yield scale_edges(scaled, f"{path} is halved", edges, 0.5, factor=0.5)
        uses = (("first", edges[:1], edges[1:]), ("last", edges[-1:], edges[:-1]))
        for word, one, rest in uses if len(group) > 1 else ():
            name = f"{word}-step-skipped" if of_steps else zero
            yield scale_edges(name, f"{path} is zero at its {word} use", one, 0.0)
            yield scale_edges(zero, f"{path} is zero but at its {word} use", rest, 0.0)
    if len(active) > 1:
        edges = [(number, operand) for number in group for operand in active]
        yield scale_edges(flipped, "its derivative has the wrong sign", edges, -1.0)
        yield scale_edges(scaled, "its derivative is twice too large", edges, 2.0, factor=2.0)
        yield scale_edges(scaled, "its derivative is halved", edges, 0.5, factor=0.5)
