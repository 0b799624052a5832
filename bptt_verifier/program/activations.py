"""Activations in a traced loss: elementwise functions of one variable, and their slopes.

A sigmoid written 1/(1 + exp(−z)), or a tanh of four exponentials, is one activation: a region of
operations that has one variable, however often it reads it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.operations import BINARY, UNARY, evaluate
from bptt_verifier.program.rounding import is_inexact
from bptt_verifier.program.structure import Structure, shape_of

LONGEST = 14  # operations of one activation, at most: a softplus may be eight of them
LINEAR = frozenset("neg copy add sub".split())
COMPARISONS = frozenset("gt ge lt le eq ne".split())
# Slopes at x of further functions, which no derived bound is for.
FURTHER: dict[str, Callable[[Any], Any]] = {
    "cosh": np.sinh,
    "sinh": np.cosh,
    "tan": lambda x: 1 + np.tan(x) ** 2,
    "atan": lambda x: 1 / (1 + x * x),
}


class Activation(NamedTuple):
    """The operations of one activation, in order, and the slot of its variable."""

    numbers: tuple[int, ...]
    start: int

    @property
    def end(self) -> int:
        """The operation that computes the activated value."""
        return self.numbers[-1]


def is_elementwise(known: Structure, number: int) -> bool:
    """Tell whether an operation is a function of each entry, the same for all entries."""
    equation, constants = known.program.operations[number], known.program.constants
    given = [constants[slot] for slot in equation.inputs if slot in constants]
    if equation.name in COMPARISONS:
        return all(value.size == 1 for value in given)
    if not is_inexact(equation.dtypes[0]):  # indices
        return False
    if equation.name == "select_n":  # the zeros of where(a > 0, a, 0) may be an array
        return all((value == np.ravel(value)[:1]).all() for value in given)
    smooth = equation.name in {*UNARY, *FURTHER, *BINARY, "integer_pow"}
    return smooth and all(value.size == 1 for value in given)


def is_guard(known: Structure, number: int) -> bool:
    """Tell whether an operation selects its first case unless that is no number.

    `logaddexp(0, a)` ends in one: the first case is log(1 + exp(a)), and the other is for NaN.
    """
    operations = known.program.operations
    condition = operations[number].inputs[0] if operations[number].name == "select_n" else -1
    if condition not in known.producer:
        return False
    test = operations[known.producer[condition]]
    return test.name == "ne" and len({*test.inputs}) == 1


def read_variables(known: Structure, number: int) -> list[int]:
    """List the slots that an elementwise operation is a function of, constants included."""
    inputs = known.program.operations[number].inputs
    return [inputs[1]] if is_guard(known, number) else [*inputs]


def find_activations_at(known: Structure, number: int) -> list[Activation]:
    """Find the activations that end at an operation, the short ones first."""
    operations, constants = known.program.operations, known.program.constants
    shape, found, numbers = operations[number].shapes[0], list[Activation](), [number]

    def variables(k: int) -> set[int]:
        return {slot for slot in read_variables(known, k) if slot not in constants}

    if not is_elementwise(known, number) or operations[number].name in COMPARISONS:
        return []
    frontier = variables(number)
    while len(numbers) <= LONGEST:
        if any(shape_of(known, slot) != shape for slot in frontier):
            break
        if len(frontier) == 1:
            found.append(Activation(tuple(sorted(numbers)), *frontier))
        computed = frontier & known.producer.keys()
        latest = max(computed, key=lambda slot: known.producer[slot], default=None)
        if latest is None or not is_elementwise(known, known.producer[latest]):
            break
        numbers.append(known.producer[latest])
        frontier = frontier - {latest} | variables(known.producer[latest])
    return found


def find_activations(known: Structure, group: Sequence[int]) -> list[list[Activation]]:
    """Find the activations that end at a group, each at every step, the short ones first."""
    at_steps = [find_activations_at(known, number) for number in group]
    aligned = [[*each] for each in zip(*at_steps, strict=False)]
    return [each for each in aligned if len({name_operations(known, a) for a in each}) == 1]


def name_operations(known: Structure, activation: Activation) -> tuple[str, ...]:
    """Return the names of the operations of an activation."""
    return tuple(known.program.operations[number].name for number in activation.numbers)


def is_linear(known: Structure, activation: Activation) -> bool:
    """Tell whether an activation is linear in its variable."""

    def linear(number: int) -> bool:
        name, active = known.program.operations[number].name, known.active(number)
        if is_guard(known, number):
            return True
        scaled = len(active) == 1 and (name == "mul" or (name == "div" and active == [0]))
        return name in LINEAR or scaled

    return all(map(linear, activation.numbers))


def result_of(known: Structure, activation: Activation, at: Any) -> Any:
    """Compute an activation at a point."""
    results, constants = {activation.start: at}, known.program.constants
    for number in activation.numbers:
        equation = known.program.operations[number]
        if is_guard(known, number):
            results[equation.outputs[0]] = results[equation.inputs[1]]
            continue
        given: list[Any] = [
            results[slot] if slot in results else np.ravel(constants[slot])[:1]
            for slot in equation.inputs
        ]
        (results[equation.outputs[0]],) = evaluate(equation._replace(shapes=(at.shape[1:],)), given)
    return results[known.program.operations[activation.end].outputs[0]]


def slope_of(
    known: Structure, activation: Activation, values: Sequence[Any], at: Any = None
) -> Any:
    """Compute the slope of an activation, at its variable or at the point `at`."""
    point = values[activation.start] if at is None else at
    results, slopes = {activation.start: point}, {activation.start: np.ones_like(point)}
    for number in activation.numbers:
        equation = known.program.operations[number]
        if is_guard(known, number):
            for found in (results, slopes):
                found[equation.outputs[0]] = found[equation.inputs[1]]
            continue
        given = [results.get(slot, values[slot]) for slot in equation.inputs]
        moved = [slopes.get(slot) for slot in equation.inputs]
        (result,) = evaluate(equation, given)
        if equation.name in COMPARISONS:
            results[equation.outputs[0]] = result
            continue
        if equation.name == "select_n":
            which, last = given[0], len(given) - 2
            chosen = [np.minimum(which, last) == k for k in range(last + 1)]
            factors = [0.0, *(np.where(each, 1.0, 0.0) for each in chosen)]
        elif equation.name in UNARY:
            factors = [UNARY[equation.name][1](given[0], result)]
        elif equation.name in FURTHER:
            factors = [FURTHER[equation.name](given[0])]
        elif equation.name == "integer_pow":
            factors = [equation.params["y"] * given[0] ** float(equation.params["y"] - 1)]
        else:
            factors = [slope(*given, result) for slope in BINARY[equation.name][1:]]
        terms = [f * s for f, s in zip(factors, moved, strict=True) if s is not None]
        (slot,) = equation.outputs
        results[slot], slopes[slot] = result, sum(terms, np.zeros_like(point))
    return slopes[known.program.operations[activation.end].outputs[0]]
