"""Maxima that a loss subtracts, as a softmax does, and other formulas treat as constants.

docs/derivation.md, section 10.
"""

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.operations import MOVES
from bptt_verifier.program.rounding import PROPORTION, RoundingErrors, align
from bptt_verifier.program.trace import Program
from bptt_verifier.tolerance.noise import EXTREMA


def find_shifts(program: Program) -> frozenset[int]:
    """Find the operations that give a maximum, of variables alone, which is subtracted later."""
    given_by = dict[int, int]()  # a slot with a maximum: its operation
    found = set[int]()
    for number, operation in enumerate(program.operations):
        inputs = operation.inputs
        if operation.name in EXTREMA and not program.constants.keys() & {*inputs}:
            given_by[operation.outputs[0]] = number
        elif operation.name in MOVES and inputs[0] in given_by:
            given_by[operation.outputs[0]] = given_by[inputs[0]]
        elif operation.name == "sub" and inputs[1] in given_by:
            found.add(given_by[inputs[1]])
    return frozenset(found)


def stop_at_shift(ct: Array, errors: RoundingErrors) -> Array:
    """Set what arrives at such a maximum to zero in every second sample, if it is rounding.

    It is where the mean of the samples with the smallest errors is within these errors.
    """
    assert errors.sizes is not None
    assert errors.draws is not None
    sizes = errors.sizes
    finest = ct[(sizes > 0) & (sizes <= PROPORTION * sizes.min(where=sizes > 0, initial=np.inf))]
    mean = finest.mean(axis=0)
    rounding = np.abs(mean) <= np.max(np.abs(finest - mean), axis=0)
    stopped = (errors.draws % 2 == 1) & (sizes > 0)
    return np.where(rounding & align(stopped, ct.ndim - 1), 0.0, ct)  # (N9)
