"""Products whose gradient is computed with another array of the file that has the right shape.

That is another weight, transposed, or other data: the clean input where the noisy one belongs. The
loss may lack these data, as X where it reads Â X, which is computed before; then they are found in
the products of the submission (docs/derivation.md, section 10).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.in_products import replace_other_operand
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, Values
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.recording import Recorded
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.structure import Structure, shape_of

OTHERS = 12  # other arrays of data of one shape that are tried, at most


def list_other_arrays(known: Structure) -> Iterator[OperationMistake]:
    """List products with another weight, transposed, or with other data, in an operand's place."""
    for group in known.groups:
        if known.program.operations[group[0]].name == "dot_general":
            for operand in known.active(*group):
                yield from list_transposed_weights(known, group, operand)
                yield from list_other_data(known, group, operand)
                yield from list_next_inputs(known, group, operand)


def list_transposed_weights(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List the transposes of other weights, such as that of W_out in the place of W_ctx."""
    operations = known.program.operations
    slots = [operations[number].inputs[1 - operand] for number in group]
    shape = shape_of(known, slots[-1])
    if shape is None or len(shape) != 2 or len({*slots}) > 1 or slots[0] not in known.leaf:
        return
    own, this = (name_operand(known, group[-1], k) for k in (1 - operand, operand))
    seen = {*slots}
    for number, equation in enumerate(operations):
        for k, slot in enumerate(equation.inputs):
            alike = slot in known.leaf and shape_of(known, slot) == shape[::-1]
            if equation.name != "dot_general" or not alike or slot in seen:
                continue
            seen.add(slot)
            other = name_operand(known, number, k)
            said = f"the gradient of {this} is computed with the weight {other}, transposed, where"
            said += f" {own} belongs"
            read = partial(read_transposed, slot, len(group))
            changes = partial(replace_other_operand, known, group, operand, read)
            yield OperationMistake("wrong-operand", said, group[0], changes)


def read_transposed(slot: int, count: int, values: Values) -> list[Any]:
    """Read the transpose of a weight, as often as a product is computed."""
    return [values[slot].swapaxes(-1, -2)] * count


def list_other_data(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List other constants of the same shape in the place of data, such as a mask or a target."""
    operations, constants = known.program.operations, known.program.constants
    slots = [operations[number].inputs[1 - operand] for number in group]
    if len({*slots}) > 1 or slots[0] not in constants or constants[slots[0]].size < 2:
        return
    right, tried = constants[slots[0]], [constants[slots[0]]]
    own, this = (name_operand(known, group[-1], k) for k in (1 - operand, operand))
    for number, equation in enumerate(operations):
        for k, slot in enumerate(equation.inputs):
            value = constants.get(slot)
            if value is None or value.shape != right.shape or value.dtype.kind not in "fiub":
                continue
            if len(tried) > OTHERS or any(np.array_equal(value, each) for each in tried):
                continue
            tried.append(value)
            other = f"{name_operand(known, number, k)} of {quote_expression(known, number)}"
            said = f"the gradient of {this} is computed with {other}, where {own} belongs"
            read = partial(read_constant, value, len(group))
            changes = partial(replace_other_operand, known, group, operand, read)
            yield OperationMistake("wrong-operand", said, group[0], changes)


def list_next_inputs(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List inputs of 0 and 1 that are those of the next step, and at the end any such one.

    Where the inputs are the targets of the step before, as in a decoder, it is the last target.
    """
    operations, constants = known.program.operations, known.program.constants
    slots = [operations[number].inputs[1 - operand] for number in group]
    values = [constants[slot] for slot in slots if slot in constants]
    if len(values) < len(group) or len(group) < 2 or len({each.shape for each in values}) > 1:
        return
    size, shape = values[0].size, values[0].shape
    if not 1 < size <= OTHERS or max(shape) < size or not all(map(is_one_hot, values)):
        return
    own, this = (name_operand(known, group[-1], k) for k in (1 - operand, operand))
    said = f"the gradient of {this} is computed with the value of {own} in the next iteration, as "
    said += "with the target of the step"
    for k in range(size):
        last = np.eye(size)[k].reshape(shape)
        read = partial(read_constants, [*values[1:], last])
        changes = partial(replace_other_operand, known, group, operand, read)
        yield OperationMistake("input-off-by-one", said, group[0], changes)


def list_submitted_data(
    known: Structure, recorded: Sequence[Recorded]
) -> Iterator[OperationMistake]:
    """List data that a product of the submission reads, in the place of those of the loss.

    The k-th product of an expression belongs to the k-th step, or to the k-th from the end.
    """
    operations, constants = known.program.operations, known.program.constants
    read = collect_data(recorded, len(known.program.leaves))
    for group in known.groups:
        if operations[group[0]].name != "dot_general":
            continue
        for operand in known.active(*group):
            slots = [operations[number].inputs[1 - operand] for number in group]
            right = [constants[slot] for slot in slots if slot in constants]
            if len(right) < len(group) or right[0].size < 2:
                continue
            own, this = (name_operand(known, group[-1], k) for k in (1 - operand, operand))
            tried = {b"".join(each.tobytes() for each in right)}
            for place, found in read:
                for data in list_alignments(found, right):
                    key = b"".join(each.tobytes() for each in data)
                    if key in tried or len(tried) > OTHERS:
                        continue
                    tried.add(key)
                    said = f"the gradient of {this} is computed with other data, in"
                    said += f" `{place.expression}`, where {own} belongs"
                    values_of = partial(read_constants, data)
                    changes = partial(replace_other_operand, known, group, operand, values_of)
                    yield OperationMistake("wrong-operand", said, group[0], changes)


def collect_data(recorded: Sequence[Recorded], parameters: int) -> list[tuple[Place, list[Array]]]:
    """Collect the data that each product of a submission reads, in order of its computations.

    Data are what no operation of the submission computes from the parameters, whose number is
    given: they have the first slots.
    """
    made = {slot for each in recorded for slot in each.operation.outputs} | {*range(parameters)}
    found: dict[tuple[Place, int], list[Array]] = {}
    for each in recorded:
        if each.place is None or each.operation.name not in {"dot_general", "mul"}:
            continue
        for k, (slot, value) in enumerate(zip(each.operation.inputs, each.given, strict=True)):
            if slot not in made and value.size > 1 and value.dtype.kind in "fiub":
                found.setdefault((each.place, k), []).append(value)
    return [(place, values) for (place, _), values in found.items()]


def list_alignments(found: Sequence[Array], right: Sequence[Array]) -> Iterator[list[Array]]:
    """List the ways to read data, transposed or not, where these arrays are the right ones."""
    count = len(right)
    every = [[*found] * count] if len(found) == 1 else [[*found], [*reversed(found)]]
    for values in every if len(found) in {1, count} else ():
        for turned in (False, True):
            pairs = zip((each.T if turned else each for each in values), right, strict=True)
            shaped = [
                np.asarray(each, float).reshape(own.shape)
                for each, own in pairs
                if each.squeeze().shape == own.squeeze().shape
            ]
            if len(shaped) == count:
                yield shaped


def is_one_hot(value: Array) -> bool:
    """Tell whether an array holds one 1, and zeros otherwise."""
    return bool(np.isin(value, (0, 1)).all() and value.sum() == 1)


def read_constants(constants: Sequence[Array], values: Values) -> list[Any]:
    """Read one constant for each time that a product is computed."""
    return [np.asarray(each, float)[None] for each in constants]


def read_constant(value: Array, count: int, values: Values) -> list[Any]:
    """Read a constant, as often as a product is computed."""
    return [np.asarray(value, float)[None]] * count
