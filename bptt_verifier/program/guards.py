"""Guards of a loss: limits next to 0 and 1 that keep a logarithm or a quotient finite.

As `np.clip(p, 1e-7, 1 - 1e-7)` does before `np.log`. Many derivations leave them out; where a limit
is reached, autodiff passes nothing back.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.trace import Params, Program, forward

WIDTH = 2.0**-13  # distance of a limit from 0 or 1, at most
CHOOSING = {"max": 0, "min": 0, "select_n": 1}  # and the first operand that may be the result

Edge = tuple[int, int]


def find_guards(program: Program) -> list[Edge]:
    """Find the operands that such a limit may replace, by operation and operand."""
    found = list[Edge]()
    for number, each in enumerate(program.operations):
        operands = [*enumerate(each.inputs)][CHOOSING.get(each.name, len(each.inputs)) :]
        others = [k for k, slot in operands if not is_limit(program, slot)]
        if len(operands) == 2 and len(others) == 1:
            found.append((number, others[0]))
    return found


def is_limit(program: Program, slot: int) -> bool:
    """Tell whether a slot holds constants that are nearly 0 or 1, and neither."""
    value = program.constants.get(slot)
    if value is None or value.dtype.kind != "f" or value.size == 0:
        return False
    distance = np.minimum(np.abs(value), np.abs(value - 1))
    return bool(((distance > 0) & (distance <= WIDTH)).all())


def differentiate_unguarded(
    program: Program, guards: Sequence[Edge], params: Params
) -> list[dict[str, Array]]:
    """Differentiate as derivations do that leave guards out, in two ways.

    The slope of a guard is one, at values that are limited or at those that are not.
    """
    free = leave_out(program, guards)
    unlimited = backward(free, forward(free, params))
    unlimited = {name: value[0] for name, value in unlimited.items()}
    return [pass_through(program, dict.fromkeys(guards, 1.0), params), unlimited]


def pass_through(
    program: Program, slopes: Mapping[Edge, float], params: Params
) -> dict[str, Array]:
    """Differentiate with these slopes at operands."""
    changes = {edge: Change(edge[1], slope=slope) for edge, slope in slopes.items()}
    found = backward(program, forward(program, params), [changes])
    return {name: value[0] for name, value in found.items()}


def describe_place(program: Program, edge: Edge) -> str:
    """Describe the line of an operand, if it is known."""
    places = program.operations[edge[0]].where
    return f" at `{places[0].text}` ({places[0]})" if places else ""


def leave_out(program: Program, guards: Sequence[Edge]) -> Program:
    """Leave guards out: what reads the result of one reads its operand, if that has its shape."""
    same, kept, operands = dict[int, int](), [], dict(guards)
    shapes = {slot: tuple(program.shapes[name]) for name, slot in program.leaves.items()}
    for number, each in enumerate(program.operations):
        operation = each._replace(inputs=tuple(same.get(slot, slot) for slot in each.inputs))
        shapes |= zip(operation.outputs, map(tuple, operation.shapes), strict=True)
        slot = operation.inputs[operands.get(number, 0)]
        if number in operands and shapes.get(slot) == tuple(operation.shapes[0]):
            same[operation.outputs[0]] = slot
        else:
            kept.append(operation)
    result = same.get(program.result, program.result)
    return program._replace(operations=tuple(kept), result=result, decided=(), outcomes=())
