"""Gradients of an own model that are zero in every case, and are right if zero to rounding.

docs/derivation.md, section 10.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.reach import reaches
from bptt_verifier.program.trace import Program
from bptt_verifier.reference.case import Case
from bptt_verifier.tolerance.bounds import RESOLVING
from bptt_verifier.tolerance.comparison import find_coarsest_dtype

# Relative changes of cotangents that show which terms cancel. Where terms cancel k times over, as
# in a softmax of a − max a, what is left is the k-th power, and stays far beyond rounding.
UNBALANCE = 2.0**-4
# Points at which it is seen whether terms cancel. At the parameters given, a bias may be zero, and
# with it all terms of another gradient.
TRIED = 4
ENOUGH = 4  # cases that must show that a gradient is zero


def find_zeros(
    points: Sequence[tuple[Program, Sequence[Any]]], cases: Sequence[Case]
) -> frozenset[str]:
    """Find the gradients that are zero, to rounding, in every case, while others are not.

    They cancel, as that of a bias before a normalisation, or the loss does not depend on the
    parameter, as on W if h is zero. Zeros of another kind, such as those of a branch that is never
    taken, or of a unit that is dead in every case, show nothing. Nor does a case whose rounding
    hides gradients as large as the others'. `points` are the program and its slots at each case.
    """
    zeros = set(points[0][0].leaves) if cases else set[str]()
    told = Counter[str]()
    for case in cases:
        assert case.truth is not None
        known = case.truth(find_coarsest_dtype(*case.arguments.values()), ())
        largest = max(float(np.max(np.abs(known.values[name]))) for name in case.arguments)
        for name in list(zeros):
            value, allowed = np.abs(known.values[name]), known.allowed[name]
            if not (value <= allowed).all():
                zeros.discard(name)
            told[name] += bool(np.max(allowed) <= RESOLVING * largest)
    zeros = {name for name in zeros if told[name] >= min(ENOUGH, len(cases))}
    cancel = set[str]()
    for (program, slots), case in zip(points[:TRIED], cases, strict=False):
        if zeros - cancel:
            assert case.truth is not None
            moved, limits = unbalance(program, slots), case.truth(np.float64, ()).allowed
            cancel |= {name for name in zeros if (np.abs(moved[name]) > limits[name]).any()}
    # On another path through its branches the loss may depend on a parameter.
    others = zeros - cancel if not any(program.decided for program, _ in points) else set[str]()
    return frozenset(cancel | {name for name in others if not reaches(points[0][0], name)})


def unbalance(program: Program, slots: Sequence[Any]) -> dict[str, Array]:
    """Compute the gradient with every cotangent multiplied by another factor near one.

    Where terms cancel, in the gradient of a whole parameter, they no longer do.
    """
    rng = np.random.default_rng(0)
    # A complex factor: a real part may be zero because the number is imaginary.
    changes = {
        (number, operand): Change(operand, after=1 + UNBALANCE * complex(*rng.uniform(-1, 1, 2)))
        for number, operation in enumerate(program.operations)
        for operand in range(len(operation.inputs))
    }
    return backward(program, slots, (changes,))
