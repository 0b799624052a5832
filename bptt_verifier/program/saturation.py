"""Activations composed of exponentials, whose slopes other formulas compute from their values.

1/(1 + exp(−a)) has the slope exp(−a)/(1 + exp(−a))², which rounds in units of itself. Code that
computes it as z(1 − z) rounds in units of 1/4, however small the slope is; docs/derivation.md,
section 10.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.operations import BINARY, TESTS, UNARY, Operation, evaluate
from bptt_verifier.program.rounding import find_smallest
from bptt_verifier.program.trace import Program
from bptt_verifier.tolerance.bounds import ELEMENTARY

LONGEST = 24  # operations of one activation, at most
EXPONENTIALS = frozenset("exp exp2 expm1".split())
LINEAR = frozenset("add sub neg copy reshape squeeze broadcast_in_dim convert_element_type".split())
SUMS = frozenset("add sub expm1 log1p".split())  # without one, the slope is known as the value is
ENTRYWISE = frozenset({*UNARY, *BINARY, *TESTS, "integer_pow", "select_n"})
# Points from near zero to where exp(a) and exp(a / 1000) are infinite, and the distance for
# differences. Those at which a value is not finite say nothing.
POINTS = np.concatenate([sign * 1.3 * 2.0 ** np.arange(-12, 20) for sign in (-1, 1)])
NEARBY = 2.0**-10
VANISHED = 4 * 1075 * np.log(2.0)  # from here on even e^(-x/4) is zero in float64
LEVEL = 2.0**-10  # a slope that changes by less, of the largest, is constant


class Saturating(NamedTuple):
    """An activation that is almost linear far out: its variable's slot, and the error of its slope.

    The error is in units of the roundoff, and so is the bound of its values, of which other
    formulas round: as ½ + ½ tanh(a/2), e^a/(1 + e^a) is zero where it is below the roundoff. The
    bound is 0 where there is none. Far out, the slope comes near its limit as e^(−rate |a|) does.
    """

    start: int
    error: float
    bound: float
    rate: float = 1.0


def find_saturating(program: Program) -> dict[int, Saturating]:
    """Find logistic functions, and activations composed of exponentials, by their last operation.

    A part that becomes constant on both sides is one as well, if the activation is not linear in
    it: code may compute z, and its slope, apart from the logarithm in log(z).
    """
    start, members = dict[int, int](), dict[int, tuple[int, ...]]()
    inner = set[int]()
    for number, operation in enumerate(program.operations):
        before = find_variable(program, number, start)
        if before is None:
            continue
        (slot,) = operation.outputs
        inside = {k for each in operation.inputs for k in members.get(each, ())}
        if len(inside) < LONGEST:
            start[slot], members[slot] = before, (*sorted(inside), number)
            inner.update(each for each in operation.inputs if start.get(each) == before)
    # What another activation goes on with is its part, unless something else reads it as well.
    bent = set[int]()  # values that a function reads which is not linear in them
    for operation in program.operations:
        own = start.get(operation.outputs[0])
        inner.difference_update(each for each in operation.inputs if start.get(each) != own)
        bent.update(each for each in operation.inputs if not is_linear(program, operation, each))
    found, errors = dict[int, Saturating](), dict[Any, tuple[float, float, float]]()
    for slot, numbers in members.items():
        names = {program.operations[number].name for number in numbers}
        if not (names & EXPONENTIALS and names & SUMS):
            continue
        key = describe(program, numbers, start[slot])
        if key not in errors:
            errors[key] = measure_errors(program, numbers, start[slot])
        error, bound, rate = errors[key]
        if (bound and slot in bent) if slot in inner else error:
            found[numbers[-1]] = Saturating(start[slot], error, bound, rate)
    for number, operation in enumerate(program.operations):
        if operation.name == "logistic":  # its largest slope is 1/4; its value has the error of 1
            found.setdefault(number, Saturating(operation.inputs[0], ELEMENTARY / 4, 0.0))
    return found


def measure_underflow(ct: Any, exponents: Any, units: Any) -> Any:
    """Measure what formulas lose where e^-`exponents` underflows. (N1)

    They multiply it by a cotangent, and by a number that may be its inverse. `ct` are absolute
    values, and `units` those of the formats that are imitated, of which the coarsest counts. The
    result is in units of it. An exponent that is infinite or VANISHED, as of a mask, is exact: all
    formulas have zeros there, and no inverse of them is finite.
    """
    unit = float(np.max(units))
    smallest = find_smallest(unit)
    # Nearer to zero, that is less than u² of a cotangent of e^-36 or more.
    if not np.max(exponents, initial=0.0) > np.log(unit**2 / smallest) - 36.0:
        return 0.0
    with np.errstate(all="ignore"):
        lost = np.fmin(ct, smallest * np.exp(exponents)) / unit
    return np.where(exponents < VANISHED, lost, 0.0)


def is_linear(program: Program, operation: Operation, slot: int) -> bool:
    """Tell whether an operation is linear in this operand, up to a constant."""
    if operation.name in ("mul", "div"):
        others = [each for each in operation.inputs if each != slot]
        constant = bool(others) and all(each in program.constants for each in others)
        return constant and (operation.name == "mul" or operation.inputs[0] == slot)
    return operation.name in LINEAR


def find_variable(program: Program, number: int, start: dict[int, int]) -> int | None:
    """Find the one slot of which the result of an operation is a function, entry by entry."""
    operation, constants = program.operations[number], program.constants
    if operation.name not in ENTRYWISE:
        return None
    arrays = [slot for slot in operation.inputs if np.size(constants.get(slot, 0.0)) > 1]
    if arrays and (operation.name, arrays) != ("div", [operation.inputs[0]]):
        return None  # but weights may be divided by 1 + e^-a, as a σ(a) of each size
    active = [slot for slot in operation.inputs if slot not in constants]
    variables = {start.get(slot, slot) for slot in active}
    if len(variables) != 1 or np.issubdtype(operation.dtypes[0], np.complexfloating):
        return None
    return variables.pop()


def describe(program: Program, numbers: Sequence[int], variable: int) -> tuple[Any, ...]:
    """Describe what an activation computes, by its operations and constants."""
    places, described = {variable: 0}, []
    for number in numbers:
        operation = program.operations[number]
        operands = tuple(
            ("constant", np.asarray(program.constants[slot]).tobytes())
            if slot in program.constants
            else places[slot]
            for slot in operation.inputs
        )
        power = operation.params.get("y") if operation.name == "integer_pow" else None
        described.append((operation.name, power, operands))
        places[operation.outputs[0]] = len(places)
    return tuple(described)


def measure_errors(
    program: Program, numbers: Sequence[int], variable: int
) -> tuple[float, float, float]:
    """Measure the largest slope of an activation, times the error of elementary functions.

    It is 0 for what does not become linear on both sides, as exp(a) itself. The second number is
    the largest value, if the activation becomes constant on both sides, or else 0. The third is the
    rate at which its slope comes near its limits.
    """
    points = np.concatenate([POINTS * (1 - NEARBY), POINTS * (1 + NEARBY)])
    with np.errstate(all="ignore"):
        values = evaluate_activation(program, numbers, variable, points)
        slopes = np.diff(values.reshape(2, -1), axis=0)[0] / (2 * NEARBY * POINTS)
    falling, rising = np.split(slopes, 2)
    sides = [side[np.isfinite(side)] for side in (falling, rising)]
    largest = max(float(np.max(np.abs(side), initial=0.0)) for side in sides)
    level = [len(side) > 1 and abs(side[-1] - side[-2]) <= LEVEL * largest for side in sides]
    curved = np.ptp(np.concatenate(sides)) > LEVEL * largest if all(level) else False
    if not curved:
        return 0.0, 0.0, 0.0
    flat = all(abs(side[-1]) <= LEVEL * largest for side in sides)
    bound = np.max(np.abs(values[np.isfinite(values)])) if flat else 0.0
    rate = max(measure_rate(side, LEVEL**3 * largest) for side in (falling, rising))
    return ELEMENTARY * largest, float(bound), rate


def measure_rate(slopes: Any, least: float) -> float:
    """Measure the rate r of slopes at ever larger |a| that differ from the last as e^(−r |a|) do.

    The last two differences count that are not as small as `least`.
    """
    distance = np.abs(POINTS[: len(slopes)])
    known = np.isfinite(slopes)
    distance, apart = distance[known], np.abs(slopes[known] - slopes[known][-1])
    (far,) = np.nonzero(apart > least)
    if len(far) < 2:
        return 1.0
    (near, end), (first, last) = apart[far[-2:]], distance[far[-2:]]
    return float(max(0.0, np.log(near / end) / (last - first)))


def evaluate_activation(
    program: Program, numbers: Sequence[int], variable: int, points: np.ndarray[Any, Any]
) -> Any:
    """Evaluate an activation at these values of its variable."""
    results: dict[int, Any] = {variable: points[None]}
    for number in numbers:
        operation = program.operations[number]
        given = [
            results[slot] if slot in results else find_largest(program.constants[slot])
            for slot in operation.inputs
        ]
        (slot,) = operation.outputs
        (results[slot],) = evaluate(operation._replace(shapes=(points.shape,)), given)
    return results[program.operations[numbers[-1]].outputs[0]]


def find_largest(constant: Any) -> Any:
    """Find the largest entry of a constant, as an array of one."""
    entries = np.ravel(constant)
    return entries[[np.argmax(np.abs(entries))]]
