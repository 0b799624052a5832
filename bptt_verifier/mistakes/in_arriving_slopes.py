"""Mistakes that take the slope of an activation at the gradient that arrives there.

`np.where(d > 0, d, 0)` has the gradient d in the place of the argument, and `d * (1 - d ** 2)` in
that of the result. Both have a sign or a size that looks right (docs/derivation.md, section 10).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import SAMPLES, name_activation, name_result, recognise
from bptt_verifier.mistakes.known_activations import KNOWN, Formula
from bptt_verifier.mistakes.operation_mistakes import Changes, OperationMistake, Values
from bptt_verifier.program.activations import COMPARISONS, Activation, result_of, slope_of
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, shape_of

# The slope as a function of the gradient that arrives, and of the right slope.
FindSlope = Callable[[Any, Any], Any]


def list_arriving_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List slopes at the arriving gradient: of a known activation, and the mask of a ReLU."""
    name = "wrong-operand"
    for each in activations:
        kind, what = recognise(known, each[0]), name_activation(known, each[0])
        ways = list[tuple[str, FindSlope]]()
        if kind is not None:
            formula, y = KNOWN[kind].slope, name_result(known, each[0])
            right = KNOWN[kind].text.format(y)
            said = f"your gradient uses {KNOWN[kind].text.format('d')} of the gradient d that "
            said += f"arrives there, where the derivative of {kind} is {right}"
            ways.append((said, partial(evaluate_at_gradient, formula)))
        elif is_rectifier(known, each[0]):
            said = f"the mask of {what} is taken of the sign of the gradient that arrives there, "
            said += "where that of its argument belongs"
            ways.append((said, lambda d, slope: (d > 0).astype(float)))
            said = f"the gradient passed back through {what} is also zero where it is negative"
            ways.append((said, lambda d, slope: slope * (d > 0)))
        for words, (said, find_slope) in enumerate(ways):
            changes = partial(take_slopes_at_gradient, known, each, find_slope)
            family = name, "arriving", kind, words
            yield OperationMistake(name, said, each[0].end, changes, {}, family)


def evaluate_at_gradient(formula: Formula, d: Any, slope: Any) -> Any:
    """Evaluate the formula of a slope at the gradient."""
    return formula(d)


def is_rectifier(known: Structure, activation: Activation) -> bool:
    """Tell whether an activation is a ReLU, by its values."""
    with np.errstate(all="ignore"):
        found = result_of(known, activation, SAMPLES)
    return np.shape(found) == SAMPLES.shape and np.allclose(found, np.maximum(SAMPLES, 0))


def take_slopes_at_gradient(
    known: Structure, activations: Sequence[Activation], find_slope: FindSlope, values: Values
) -> Changes:
    """Multiply what arrives at each result by a function of it, and pass it to the variable."""
    changes: Changes = {}
    for activation in activations:
        with np.errstate(all="ignore"):
            slope = slope_of(known, activation, values)[0]
        (result,) = known.program.operations[activation.end].outputs
        readers = [
            (number, operand)
            for number, operand in known.users[activation.start]
            if number in activation.numbers and is_passing(known, number, operand)
        ]
        if not readers or shape_of(known, activation.start) != slope.shape:
            return {}

        def through(arriving: Any, slope: Any = slope) -> Any:
            return arriving[0] * find_slope(arriving[0], slope)

        first, *others = readers
        changes[first] = Change(first[1], arriving_at=result, through=through)
        for number, operand in others:
            changes[number, operand] = Change(operand, after=0.0)
    return changes


def is_passing(known: Structure, number: int, operand: int) -> bool:
    """Tell whether an operation passes gradients back to an operand, as a comparison does not."""
    name = known.program.operations[number].name
    return name not in COMPARISONS and not (name == "select_n" and operand == 0)
