"""Corrected expressions: what a product adds to the gradient of an operand, in the user's words."""

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np

from bptt_verifier.mistakes.in_time import DROPPED
from bptt_verifier.mistakes.operation_mistakes import Changes
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.trace import Program

NAMESPACES = frozenset("np numpy jnp xp".split())
PRODUCTS = frozenset("dot matmul".split())
COTANGENTS = ("d", "delta", "dout", "upstream")  # names for the gradient of a product
# Expressions that need no parentheses beside @ or before .T
ATOMS = (ast.Name, ast.Attribute, ast.Subscript, ast.Call)


def describe_correction(
    program: Program, values: Sequence[Any], name: str, changes: Changes
) -> str:
    """Describe the right gradient of the operand of one product that a mistake changes.

    Empty where the mistake is of another kind, or the expression leaves a doubt.
    """
    operations = [program.operations[number] for number, _ in changes]
    operands = {operand for _, operand in changes}
    places = {operation.where[:1] for operation in operations}
    replaced = name == DROPPED or any(change.instead for change in changes.values())
    if not replaced or len(operands) != 1 or len(places) != 1 or places == {()}:
        return ""
    dimensions = set()
    for operation in operations:
        arrays = [values[slot][0] for slot in operation.inputs]
        if operation.name != "dot_general" or any(map(np.iscomplexobj, arrays)):
            return ""
        # NumPy's product of stacks of one matrix is a product of matrices, and a reshape.
        following = (each for each in program.operations if {*each.inputs} & {*operation.outputs})
        if any(each.where == operation.where for each in following):
            return ""
        one, other = (array.ndim for array in arrays)
        contracted, batch = operation.params["dimension_numbers"]
        if batch != ((), ()) or contracted != ((one - 1,), (0,)):
            return ""
        dimensions.add((one, other))
    ((place,),), (operand,) = places, operands
    if len(dimensions) != 1 or is_split_or_mapped(place):
        return ""
    return write_correction(place.expression, operand, dimensions.pop())


def is_split_or_mapped(place: Place) -> bool:
    """True if an expression has several lines, or its arrays may have more axes than in the text.

    vmap adds axes.
    """
    return place.end_column == 0 or any("vmap" in line for line in place.lines)


def write_correction(expression: str, operand: int, dimensions: tuple[int, int]) -> str:
    """Write what a product adds to the gradient of one operand; empty if it is no plain product.

    For a product a b and its gradient d, that is d bᵀ for a, and aᵀ d for b. `dimensions` are the
    numbers of axes of a and b.
    """
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        return ""
    form = split_product(tree, expression)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    d = next((each for each in COTANGENTS if each not in names), None)
    if form is None or d is None or max(dimensions) > 2:
        return ""
    product, outer, a, b = form
    node = (a, b)[operand]
    inner = find_transposed(node) if dimensions[operand] == 2 else None

    def text(node: ast.expr) -> str:
        return write_atom(node, expression)

    def transpose(node: ast.expr) -> str:
        inner = find_transposed(node)
        return f"{text(node)}.T" if inner is None else text(inner)

    first, second = {
        (2, 2, 0): (d, transpose(b)), (2, 2, 1): (transpose(a), d),
        (2, 1, 0): (d, text(b)),      (2, 1, 1): (transpose(a), d),
        (1, 2, 0): (text(b), d),      (1, 2, 1): (text(a), d),
        (1, 1, 0): (d, text(b)),      (1, 1, 1): (d, text(a)),
    }[*dimensions, operand]  # fmt: skip
    if inner is not None and dimensions == (2, 2):
        first, second = (text(b), f"{d}.T") if operand == 0 else (f"{d}.T", text(a))
    elif inner is not None:
        first, second = second, first
    if dimensions == (1, 1):
        found = f"{first} * {second}"
    elif dimensions[operand] == 2 and 1 in dimensions:
        found = f"{outer}({first}, {second})"
    else:
        found = product.format(first, second)
    whose = ast.get_source_segment(expression, inner or node)
    said = f"If {d} is the gradient of this product, it should add `{found}` to the gradient of"
    return f"{said} `{whose}`."


def split_product(tree: ast.expr, expression: str) -> tuple[str, str, ast.expr, ast.expr] | None:
    """Split a product into the form that it is written in, its outer product and its operands."""
    match tree:
        case ast.BinOp(a, ast.MatMult(), b):
            return "{} @ {}", "np.outer", a, b
        case ast.Call(ast.Attribute(ast.Name(space), name), [a, b], []) if (
            space in NAMESPACES and name in PRODUCTS
        ):
            return f"{space}.{name}({{}}, {{}})", f"{space}.outer", a, b
        case ast.Call(ast.Attribute(a, "dot"), [b], []) if not (
            isinstance(a, ast.Name) and a.id in NAMESPACES
        ):
            return "{}.dot({})", "np.outer", a, b
    return None


def find_transposed(node: ast.expr) -> ast.expr | None:
    """Find W in the expression `W.T`; None in any other."""
    return node.value if isinstance(node, ast.Attribute) and node.attr == "T" else None


def write_atom(node: ast.expr, expression: str) -> str:
    """Write an expression, in parentheses if it needs them in a product."""
    found = ast.get_source_segment(expression, node) or ""
    return found if isinstance(node, ATOMS) else f"({found})"
