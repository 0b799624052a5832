"""Which parameters the loss of a program depends on at some values, entry by entry.

Two masks are computed for each slot: the entries that may differ from zero, and those whose
derivative by a parameter may. A product passes on a derivative where the other factor may differ
from zero, and x − x passes on none. Nothing depends on the values of the parameters: a unit that is
dead at some of them still passes on what it may pass on at others.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.operations import UNARY, Operation, evaluate
from bptt_verifier.program.rounding import align, is_inexact
from bptt_verifier.program.trace import Program

# Operations whose derivative is zero.
FLAT = frozenset("sign floor ceil round stop_gradient".split())
# Elementwise operations with one operand that is zero where the result is, at all parameters.
THROUGH_ZERO = frozenset(
    "neg real imag conj copy convert_element_type reduce_precision tanh sin tan asin atan sinh "
    "asinh atanh abs sqrt cbrt expm1 log1p erf square".split()
)
TERMS = frozenset("add add_any sub complex max min".split())
JOINED = frozenset("concatenate stack split".split())
REDUCTIONS = frozenset("reduce_sum reduce_max reduce_min".split())


class Entries(NamedTuple):
    """What is known of a slot, with a leading axis of size 1.

    `present` are the entries that may differ from zero, `reached` those that may depend on the
    parameter. Entries with the same number in `numbers` are equal at all parameters.
    """

    present: Array
    reached: Array
    numbers: Array


class Numbering:
    """Numbers for entries of which nothing is known to be equal."""

    def __init__(self) -> None:
        self.used = 0

    def number(self, shape: Sequence[int]) -> Array:
        """Number the entries of a new slot."""
        size = prod(shape)
        self.used += size
        return np.arange(self.used - size, self.used).reshape(1, *shape)


def reaches(program: Program, name: str) -> bool:
    """Tell whether a path of derivatives leads from a parameter to the loss at some values."""
    numbering, known = Numbering(), dict[int, Entries]()
    for slot, value in program.constants.items():
        numbers = numbering.number(np.shape(value))
        present = np.ones(numbers.shape, bool)
        if isinstance(value, np.ndarray):  # and no key of random numbers
            present = (value != 0)[None]
        known[slot] = Entries(present, np.zeros(numbers.shape, bool), numbers)
    for leaf, slot in program.leaves.items():
        numbers = numbering.number(program.shapes[leaf])
        own = np.full(numbers.shape, leaf == name)
        known[slot] = Entries(np.ones(numbers.shape, bool), own, numbers)
    for operation in program.operations:
        given = [known[slot] for slot in operation.inputs]
        results = follow(operation, given, numbering, program.constants)
        known |= zip(operation.outputs, results, strict=True)
    return bool(known[program.result].reached.any())


def follow(
    operation: Operation,
    given: Sequence[Entries],
    numbering: Numbering,
    constants: Mapping[int, Array],
) -> list[Entries]:
    """Find what is known of the results of an operation."""
    name, shape, slots = operation.name, operation.shapes[0], operation.inputs
    if operation.moved is not None or name in JOINED:
        parts = [evaluate(operation, masks) for masks in zip(*given, strict=True)]
        return [Entries(*part) for part in zip(*parts, strict=True)]
    if name == "copy" or (name in REDUCTIONS and given[0].present.size == prod(shape)):
        return [Entries(*(each.reshape(1, *shape) for each in given[0]))]
    factors = given if name == "mul" else given[:1] if name == "div" else ()
    for one, other in zip(factors, reversed(slots), strict=False):
        if other in constants and np.all(constants[other] == 1):  # the mean of one entry
            every = (align(each, len(shape)) for each in one)
            return [Entries(*(np.broadcast_to(each, (1, *shape)) for each in every))]
    masks = combine(operation, given, constants)
    results = []
    for sizes, dtype in zip(operation.shapes, operation.dtypes, strict=True):
        present, reached = (np.broadcast_to(mask, (1, *sizes)) for mask in masks)
        smooth = is_inexact(dtype)
        results.append(Entries(present | (not smooth), reached & smooth, numbering.number(sizes)))
    return results


def combine(
    operation: Operation, given: Sequence[Entries], constants: Mapping[int, Array]
) -> tuple[Any, Any]:
    """Find which entries of a result may differ from zero, and which may be reached."""
    name, rank, slots = operation.name, len(operation.shapes[0]), operation.inputs
    if name == "dot_general":
        left, right = given
        terms = multiply(operation, left.present, right.present)
        one = multiply(operation, left.reached, right.present)
        return terms, one | multiply(operation, left.present, right.reached)
    if name in REDUCTIONS:
        axes = tuple(axis + 1 for axis in operation.params["axes"])
        return given[0].present.any(axis=axes), given[0].reached.any(axis=axes)
    if name == "select_n" and slots[0] in constants:
        which, cases = constants[slots[0]][None], given[1:]
        chosen = ([which, *masks] for masks in [*zip(*cases, strict=True)][:2])
        present, reached = (evaluate(operation, each)[0] for each in chosen)
        return present, reached
    if name in FLAT:
        return True, False
    aligned = [Entries(*(align(each, rank) for each in one)) for one in given]
    (x, dx, number), (y, dy, other) = aligned[0], aligned[-1]
    if name in TERMS:
        differ = number != other if name == "sub" else True
        return (x | y) & differ, (dx | dy) & differ
    if name == "mul":
        return x & y, (dx & y) | (x & dy)
    if name == "div":
        return x, dx | (x & dy)
    if name in THROUGH_ZERO:
        return x, dx & x if name == "square" else dx
    if name == "integer_pow":
        power = operation.params["y"]
        return (x if power > 0 else True), (dx & x if power > 1 else dx)
    if name in {"select_n", "pow"}:
        return True, reduce(np.logical_or, (each.reached for each in aligned))
    if name in UNARY:
        return True, dx
    return True, any(each.reached.any() for each in given)


def multiply(operation: Operation, left: Array, right: Array) -> Array:
    """Find which entries of a product of matrices have a term."""
    found: Array = np.abs(evaluate(operation, [left.astype(float), right.astype(float)])[0]) > 0
    return found
