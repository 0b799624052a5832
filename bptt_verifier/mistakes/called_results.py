"""The result of a call whose gradient a mistake scales, in the place of a line inside the function.

A wrong sign of the gradient of `z = sigmoid(a)` has the same effect at each operation in `sigmoid`,
which is right. So the mistake is where the result is used, and the report shows the line that calls
the function (docs/derivation.md, section 10).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.expressions import LONGEST, find_target, recognise
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    change_edges,
)
from bptt_verifier.program.activations import find_activations_at
from bptt_verifier.program.backward import is_scale
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.structure import Structure

NEAR = 1e-9  # relative distance of two computations of one number in float64, at most
# Names of mistakes that multiply what is passed back by a number, and say nothing of an operation.
SCALES = frozenset("sign-flipped zero-gradient constant-factor path-counted-twice".split())


class CalledResult(NamedTuple):
    """The line that calls a function, and the mistake as one in the gradient of the result."""

    place: Place
    made: OperationMistake


def find_called_result(
    known: Structure, made: OperationMistake, changes: Changes
) -> CalledResult | None:
    """Find the call in which a mistake scales what is passed back, and state it of its result.

    None where the function is called by one line alone, as a whole model is, where the mistake is
    made for several of its callers, or where it says more than a number. Whether the gradient of
    the result explains the same numbers has yet to be computed: other operations of the function
    may read its arguments.
    """
    operations = known.program.operations
    chains = {operations[number].where for number, _ in changes}
    factors = {change.after for change in changes.values() if is_scale(change)}
    if made.name not in SCALES or len(made.places) > 1 or len(chains) != 1 or len(factors) != 1:
        return None
    (chain,), (by,) = chains, factors
    scaled = all(is_scale(change) for change in changes.values())
    if len(chain) < 2 or known.callers[chain[0]] < 2 or not scaled:
        return None
    ends = sorted({find_end(known, number) for number, _ in changes})
    edges = [(end, k) for end in ends for k in known.active(end)]
    name = find_target(chain[1]) or chain[1].expression
    if not edges or not chain[1].end_column or len(name) > LONGEST:
        return None
    said = {
        -1.0: f"the gradient of `{name}` has the wrong sign",
        0.0: f"no gradient is passed back from `{name}`",
    }.get(by, f"the gradient of `{name}` has a factor {by:.6g} too many")
    lifted = OperationMistake(
        made.name, said, made.equation, change_edges(edges, after=by), made.details
    )
    return CalledResult(chain[1], lifted)


def find_end(known: Structure, number: int) -> int:
    """Find the last operation of a call that an operation leads to, through no other use."""
    operations = known.program.operations
    chain = operations[number].where[1:]
    while True:
        (slot, *others) = operations[number].outputs
        users = {user for user, _ in known.users.get(slot, ())}
        if others or len(users) != 1:
            return number
        (user,) = users
        if operations[user].where[1:] != chain:
            return number
        number = user


def find_inside_known(known: Structure) -> frozenset[int]:
    """Find the operations that are a part of a called function, which is a known activation.

    Whoever calls a sigmoid differentiates it as a whole, and not the exponential in it.
    """
    found, operations = set[int](), known.program.operations
    for group in known.groups:
        number = group[0]
        if len(operations[number].where) > 1 and find_end(known, number) == number:
            called = operations[number].where[1:]
            for each in find_activations_at(known, number):
                inner = each.numbers[:-1]
                same = all(operations[k].where[1:] == called for k in inner)
                if inner and same and recognise(known, each) is not None:
                    found.update(n for k in inner for n in known.groups[known.group_of[k]])
    return frozenset(found)


def have_one_effect(
    known: Any, evidence: Sequence[Evidence], one: OperationMistake, other: OperationMistake
) -> bool:
    """Tell whether two mistakes give the same gradients at every case, up to rounding."""
    for case in evidence:
        first, second = (back.values for back in known.sweep_back(case, [(one,), (other,)]))
        for name in case.wanted:
            size = np.max(np.abs(first[name]), initial=0.0)
            if not np.max(np.abs(first[name] - second[name]), initial=0.0) <= NEAR * size:
                return False
    return True
