"""The cotangent of a factor that many products of matrices share, from one product of them all.

A weight W that T steps multiply has ∂L/∂W = Σ_t δ_t x_tᵀ. Each of these products is as large as W,
and all of them are written and added one by one. Side by side, with the steps as the axis that is
summed over, [δ_1 … δ_T] [x_1 … x_T]ᵀ is the same sum, and W's cotangent is written once.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.operations import Operation, matrices
from bptt_verifier.program.trace import Program

LARGE = 2**10  # numbers in a factor: below, calls take longer than what they compute


class Product(NamedTuple):
    """A product with its factors, and the cotangent of its result, of which a sum has one term."""

    equation: Operation
    given: Sequence[Array]
    operand: int
    arriving: Array


def find_repeated_factors(program: Program) -> frozenset[int]:
    """Find the slots that several products of matrices have as a factor."""
    products = (each for each in program.operations if each.name == "dot_general")
    counts = Counter(slot for each in products for slot in each.inputs)
    return frozenset(slot for slot, count in counts.items() if count > 1)


def list_repeated(
    equation: Operation, given: Sequence[Array], repeated: frozenset[int], changed: bool
) -> list[int]:
    """List the operands of a product that are factors of others, too.

    A row that is `changed` has a zero in the sum, which times an infinity would not be one.
    """
    if equation.name != "dot_general":
        return []
    return [
        one
        for one, slot in enumerate(equation.inputs)
        if slot in repeated and (not changed or np.isfinite(given[1 - one]).all())
    ]


def sum_products(products: Sequence[Product]) -> Array:
    """Sum what several products pass back to the factor that they share."""
    groups: dict[Any, list[Product]] = {}
    for each in products:
        form = each.operand, repr(each.equation.params["dimension_numbers"])
        groups.setdefault(form, []).append(each)
    first, *others = map(sum_alike, groups.values())
    return sum(others, first)


def sum_alike(products: Sequence[Product]) -> Array:
    """Sum what products pass back to one factor that is on the same side of all of them."""
    equation, given, operand, _ = products[0]
    _, _, back = matrices(equation, *given)
    others, arriving = list[Array](), list[Array]()
    for each in products:
        left, right, _ = matrices(each.equation, *each.given)
        shape = len(each.arriving), left.shape[1], left.shape[2], right.shape[3]
        ct = each.arriving.reshape(shape)
        # Of Y = X R it is ∂L/∂Y Rᵀ, and of Y = L X it is Lᵀ ∂L/∂Y: what is summed over comes first.
        others.append(right.swapaxes(2, 3) if operand == 0 else left)
        arriving.append(ct.swapaxes(2, 3) if operand == 0 else ct)
    other = np.concatenate(others, axis=2)
    if other.shape[:2] == (1, 1):
        at_once: Array = back(operand, sum_at_once(arriving, other[0, 0], operand))
        return at_once
    one = np.concatenate(arriving, axis=2)
    left, right = (one, other) if operand == 0 else (other, one)
    total: Array = back(operand, left.swapaxes(2, 3) @ right)
    return total


def sum_at_once(arriving: Sequence[Array], other: Array, operand: int) -> Array:
    """Sum the products of matrices whose other factor all rows share, in one product.

    The rows stand beside each other in what arrives: so it is copied once, without an axis of
    stacks, and a product of large matrices takes less time than many of small ones.
    """
    rows, columns = len(arriving[0]), arriving[0].shape[3]
    beside = np.concatenate([ct[:, 0].swapaxes(0, 1) for ct in arriving])
    one = beside.reshape(-1, rows * columns)
    total: Array = one.T @ other if operand == 0 else other.T @ one
    if operand == 0:
        return total.reshape(rows, 1, columns, -1)
    return total.reshape(-1, 1, rows, columns).transpose(2, 1, 0, 3)
