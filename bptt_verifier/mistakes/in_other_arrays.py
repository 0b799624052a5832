"""Products whose gradient is computed with another array of the file that has the right shape.

That is another weight, transposed, or other data: the clean input where the noisy one belongs.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.in_products import replace_other_operand
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, Values
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.structure import Structure, shape_of

OTHERS = 12  # other arrays of data of one shape that are tried, at most


def list_other_arrays(known: Structure) -> Iterator[OperationMistake]:
    """List products with another weight, transposed, or with other data, in an operand's place."""
    for group in known.groups:
        if known.program.operations[group[0]].name == "dot_general":
            for operand in known.active(*group):
                yield from list_transposed_weights(known, group, operand)
                yield from list_other_data(known, group, operand)


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


def read_constant(value: Array, count: int, values: Values) -> list[Any]:
    """Read a constant, as often as a product is computed."""
    return [np.asarray(value, float)[None]] * count
