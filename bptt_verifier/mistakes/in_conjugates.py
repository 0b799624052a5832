"""Mistakes in the derivatives of complex numbers: factors that are not conjugated."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    OperationMistake,
    Values,
    make_pullback,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import UNARY
from bptt_verifier.program.structure import Structure


def list_conjugate_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List the mistake of conjugating no complex factor, with constant factors or without.

    That is for a derivation by ∂L/∂Re z + i ∂L/∂Im z. In JAX's cotangents, with −i, a missing
    conjugate is one too many.
    """
    constants = known.program.constants

    def is_unit(slot: int) -> bool:
        """True for a factor such as i, which joins a real and an imaginary part."""
        return slot in constants and not np.any(constants[slot].real)

    every, varying = list[Edge](), list[Edge]()
    for edges, factors in list_complex_edges(known):
        every += [] if factors and all(map(is_unit, factors)) else edges
        varying += [] if factors and all(slot in constants for slot in factors) else edges
    for edges in (every, varying):
        if edges:
            said = "no complex factor is conjugated in the backward pass"
            changes = partial(conjugate_factors, known, edges)
            yield OperationMistake("conjugate-missing", said, edges[0][0], changes)


def list_single_conjugate_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List the mistake of not conjugating the complex factor of one operation."""
    for edges, _ in list_complex_edges(known):
        number, operand = edges[0]
        said = f"the complex factor of the gradient of {name_operand(known, number, operand)}"
        said += " is not conjugated"
        changes = partial(conjugate_factors, known, edges)
        yield OperationMistake("conjugate-missing", said, number, changes)


def list_complex_edges(known: Structure) -> Iterator[tuple[list[Edge], list[int]]]:
    """List the operands that get complex multiples of a cotangent, and the factors of products."""
    operations = known.program.operations
    for group in known.groups:
        operation = operations[group[0]]
        product = operation.name in {"mul", "dot_general"}
        smooth = product or operation.name in {*UNARY, "div", "integer_pow"}
        if not smooth or not np.issubdtype(operation.dtypes[0], np.complexfloating):
            continue
        for operand in known.active(*group):
            factors = [operations[k].inputs[1 - operand] for k in group] if product else []
            yield [(number, operand) for number in group], factors


def conjugate_factors(known: Structure, edges: Sequence[Edge], values: Values) -> Changes:
    """Conjugate what these operands' cotangents are multiplied by."""
    found = ((edge, conjugate_factor(known, edge, values)) for edge in edges)
    return {edge: change for edge, change in found if change is not None}


def conjugate_factor(known: Structure, edge: Edge, values: Values) -> Change | None:
    """Conjugate what one operation multiplies a cotangent by, where it is complex."""
    number, operand = edge
    operation = known.program.operations[number]
    given = [values[slot] for slot in operation.inputs]
    if operation.name in {"mul", "dot_general"}:
        return Change(operand, instead=((1 - operand, np.conj(given[1 - operand])),))
    if given[operand].shape[1:] != operation.shapes[0]:
        return None
    ones = np.ones((1, *operation.shapes[0]), complex)
    (slope,) = make_pullback(operation, values)([ones])[operand]
    return Change(operand, slope=np.conj(slope))
