"""Branches of a traced loss: the sides of each `where`, maximum, clip and `cond`, taken or not.

A comparison that decides which path the loss takes, as that of an `if`, has two sides as well.
"""

import ast
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.operations import Operation
from bptt_verifier.program.rounding import align
from bptt_verifier.program.saturation import ENTRYWISE
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.trace import Program
from bptt_verifier.tolerance.noise import ELEMENTWISE

# The functions whose branches are the user's own; others, such as logaddexp, branch inside.
FUNCTIONS = frozenset(
    "where select maximum minimum fmax fmin clip relu relu6 leaky_relu elu selu celu hard_tanh"
    " hard_sigmoid cond switch piecewise heaviside".split()
)
COMPARISONS = frozenset({"gt", "ge", "lt", "le", "eq", "ne"})
CONDITION = "the condition is false", "the condition is true"
UNREACHABLE = 1e30  # a constant beyond ± this stands for infinity
# Two pieces of a function that differ by less of their value are two formulas of it, and by less
# than the second they are the same to rounding.
CLOSE, SAME = 2.0**-26, 2.0**-50
ELEMENTARY = ELEMENTWISE - {"reduce_prod"} | {"logistic", "sqrt"}


class Branch(NamedTuple):
    """One side of an operation, with its expression in the user's loss."""

    expression: str
    file_line: str
    side: str

    def __str__(self) -> str:
        return f"`{self.expression}` ({self.file_line}): {self.side}"


def list_branches(program: Program) -> list[Branch]:
    """List the sides of all operations that choose by values that depend on the parameters."""
    found: dict[Branch, None] = {}
    for operation, expression in find_choices(program):
        place = str(operation.where[0])
        found |= {Branch(expression, place, side): None for side in name_sides(program, operation)}
    for _, decided in find_deciding(program):
        found |= {Branch(decided.expression, str(decided), side): None for side in CONDITION}
    return list(found)


def find_taken(program: Program, values: Sequence[Any]) -> set[Branch]:
    """Find the branches that are taken at a point; `values` has the value of every slot there."""
    taken = set()
    for operation, expression in find_choices(program):
        place, given = str(operation.where[0]), [values[slot] for slot in operation.inputs]
        sides = name_sides(program, operation)
        masks = compare_operands(program, operation, given)
        pairs = zip(sides, masks, strict=True)
        taken |= {Branch(expression, place, side) for side, mask in pairs if np.any(mask)}
    for slot, decided in find_deciding(program):
        side = CONDITION[bool(values[slot])]
        taken.add(Branch(decided.expression, str(decided), side))
    return taken


def find_deciding(program: Program) -> Iterator[tuple[int, Place]]:
    """Find the comparisons that decide the path, and the slots of their outcomes.

    Those of an assertion, or before a statement `raise`, guard the loss: no case can take both
    sides.
    """
    decided = {*program.decided}
    for operation in program.operations:
        slot = operation.outputs[0]
        if slot in decided and operation.name in COMPARISONS and operation.where:
            place = operation.where[0]
            if is_comparison(place.expression) and not is_guard(place):
                yield slot, place


def is_comparison(expression: str) -> bool:
    """Tell whether an expression compares two values, and does nothing else."""
    try:
        parsed = ast.parse(expression, mode="eval").body
    except SyntaxError:  # it goes on in the next line
        return False
    return isinstance(parsed, ast.Compare) and len(parsed.ops) == 1


def is_guard(place: Place) -> bool:
    """Tell whether a line is an assertion, or the condition of a statement `raise`."""
    here, *after = place.lines[place.line - 1 : place.line + 1] or [""]
    beyond = here.partition(": ")[2].strip() or "".join(after).strip()
    return here.strip().startswith("assert") or beyond.startswith("raise")


def find_choices(program: Program) -> Iterator[tuple[Operation, str]]:
    """Find the operations with branches, each with its expression."""
    for operation in program.operations:
        if operation.name in {"select_n", "max", "min", "cond"} and operation.where:
            place = operation.where[0]
            expression = place.expression
            name = expression.partition("(")[0].rpartition(".")[2].strip()
            if name in FUNCTIONS and name_sides(program, operation):
                yield operation, expression


def name_sides(program: Program, operation: Operation) -> tuple[str, ...]:
    """Name the sides of an operation; none where the parameters cannot change which is taken."""
    first, *_ = operation.inputs
    if operation.name in {"select_n", "cond"}:
        if first in program.constants:
            return ()
        number = len(operation.inputs) - 1
        if operation.name == "cond":
            number = len(operation.params["branches"])
        if number == 2:
            return CONDITION
        return tuple(f"branch {i}" for i in range(number))
    bound = find_bound(program, operation)
    if bound is None:
        return "the first operand is larger", "the second operand is larger"
    if (np.abs(bound) >= UNREACHABLE).all():
        return ()
    words = write_number(bound.flat[0]) if (bound == bound.flat[0]).all() else "the constant"
    return f"values above {words}", f"values below {words}"


def rounds_off(program: Program, values: Sequence[Any]) -> bool:
    """Tell whether a piece without elementary functions stands for a formula with some somewhere.

    PyTorch's softplus is a itself from a = 20 on: its slope, and that of log(1 + e^a), are both
    right. Both are functions of one variable and constants, entry by entry; `values` has the value
    of every slot.
    """
    start, bent, constants = dict[int, int](), set[int](), program.constants
    for operation in program.operations:
        variables = {start.get(each, each) for each in operation.inputs if each not in constants}
        if len(variables) != 1 or operation.name not in ENTRYWISE | ELEMENTARY:
            continue
        (slot,) = operation.outputs
        start[slot] = variables.pop()
        if operation.name in ELEMENTARY or not bent.isdisjoint(operation.inputs):
            bent.add(slot)
        if operation.name != "select_n":
            continue
        which, *sides = operation.inputs
        where, *pieces = (align(values[each], len(operation.shapes[0])) for each in (which, *sides))
        for plain, other in product(range(len(sides)), repeat=2):
            if sides[plain] not in bent and sides[other] in bent:
                with np.errstate(all="ignore"):
                    gap = np.abs(pieces[plain] - pieces[other]) / np.abs(pieces[plain])
                if ((where == plain) & (gap > SAME) & (gap < CLOSE)).any():
                    return True
    return False


def write_number(value: Any) -> str:
    """Write a number with as few digits as tell it from others of its format."""
    short = f"{value:g}"
    return short if float(short) == float(value) else str(value)


def find_bound(program: Program, operation: Operation) -> Array | None:
    """Find the operand of a maximum or minimum that is a constant, if one is."""
    found = [program.constants.get(slot) for slot in operation.inputs]
    return next((constant for constant in found if constant is not None), None)


def compare_operands(program: Program, operation: Operation, given: Sequence[Array]) -> list[Any]:
    """Compare the operands: where each side of the operation is taken, in the order of names."""
    if operation.name in {"max", "min"}:
        left, right = (align(value, len(operation.shapes[0])) for value in given)
        if operation.inputs[0] in program.constants:
            left, right = right, left
        return [left > right, left < right]
    return [given[0] == i for i in range(len(name_sides(program, operation)))]
