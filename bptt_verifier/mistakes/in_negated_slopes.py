"""Mistakes in the sign of the argument at which the slope of an activation is taken."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import (
    SAMPLES,
    is_inside_expression,
    name_activation,
    name_operand,
    recognise,
)
from bptt_verifier.mistakes.in_slopes import NEAR, replace_slopes
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, Values
from bptt_verifier.program.activations import (
    Activation,
    find_activations_at,
    is_guard,
    is_linear,
    result_of,
    slope_of,
)
from bptt_verifier.program.structure import Structure


def list_negated_arguments(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List slopes at −a, as the sigmoid of −a is for a softplus, or `a < 0` for a ReLU.

    Where they differ from those at a by no more than a sign, that is another mistake, or none.
    """
    beginnings = [one for whole in activations for one in find_beginnings(known, whole)]
    for each in {(one[0].numbers, len(one)): one for one in beginnings}.values():
        with np.errstate(all="ignore"):
            points = [at + shift for at in (SAMPLES, -SAMPLES) for shift in (-NEAR, NEAR)]
            ends = [result_of(known, each[0], point) for point in points]
            slope, negated = ends[1] - ends[0], ends[3] - ends[2]
        if np.shape(slope) == SAMPLES.shape and not np.allclose(abs(slope), abs(negated), 1e-3, 0):
            name, what = (
                "activation-derivative-of-another-function",
                name_activation(known, each[0]),
            )
            said = f"the derivative of {what} is taken at −a, where its argument a belongs"
            y = find_sigmoid(known, each[0])
            if y:  # log y has the slope 1 − y, and y at −a
                said = f"your gradient uses {y} where 1 − {y} belongs, the derivative of {what}"
                said += " with respect to the argument of the sigmoid"
            changes = partial(replace_slopes, known, each, slope_at_negated)
            family = name, "negated", what
            yield OperationMistake(name, said, each[0].end, changes, {}, family)


def find_beginnings(
    known: Structure, whole: Sequence[Activation]
) -> Iterator[Sequence[Activation]]:
    """Find the activations of the same variable in one, such as the softplus in exp(−softplus(a)).

    A last operation that is linear belongs to what follows, and the parts of one expression are
    none.
    """
    for k, number in enumerate(whole[0].numbers):
        each = [
            Activation(one.numbers[: k + 1], one.start) for one in whole if len(one.numbers) > k
        ]
        last = Activation((number,), whole[0].start)
        inside = number != whole[0].end and is_inside_expression(known, each[0])
        alike = len(each) == len(whole) and each[0] in find_activations_at(known, number)
        if alike and not inside and (not is_linear(known, last) or is_guard(known, number)):
            yield each


def find_sigmoid(known: Structure, activation: Activation) -> str:
    """Name the sigmoid that an activation is the logarithm of; empty where it is none."""
    operations = known.program.operations
    (slot, *_) = operations[activation.end].inputs
    source = known.producer.get(slot, -1)
    if operations[activation.end].name != "log" or source not in activation.numbers:
        return ""
    every = find_activations_at(known, source)
    sigmoid = any(recognise(known, each) == "sigmoid" for each in every)
    return name_operand(known, activation.end, 0) if sigmoid else ""


def slope_at_negated(known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the slope of an activation at the negative of its variable."""
    return slope_of(known, activation, values, -values[activation.start])[0]
