"""Restatements of a mistake whose words say more than what it does to the gradients.

Where a mistake changes what is passed back, the result may be zero at all of its places: the slope
of another step, times a cotangent that is zero there. Whoever submits these numbers passes nothing
back, whatever the slope. So it is where one factor of a square is negated: what the other passes
back cancels it. And a mistake at several places may change nothing at some of them, where the value
that it takes is the right one (docs/derivation.md, section 10).
"""

from collections.abc import Sequence
from typing import Any

from bptt_verifier.mistakes.called_results import have_one_effect
from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.families import join
from bptt_verifier.mistakes.in_time import DROPPED
from bptt_verifier.mistakes.known_factors import read_constant
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    OperationMistake,
    change_edges,
    change_nothing,
    scale_edges,
)
from bptt_verifier.program.backward import Change, is_scale
from bptt_verifier.program.structure import Structure, find_recurrent

SCALED = frozenset(["path-counted-twice", "constant-factor"])
TAIL = 12  # operations between a path and the loss, at most, whose factors may be meant
EQUAL = 1e-9  # relative distance of two factors that are one
# Names of mistakes that take the value of another step, or nothing where there is none.
OTHER_VALUES = frozenset(["input-off-by-one", "hidden-state-off-by-one", "wrong-operand"])


def restate(known: Any, evidence: Sequence[Evidence], made: OperationMistake) -> OperationMistake:
    """State a mistake as the path that it cuts, if it cuts one, and where it has an effect.

    `known` are the hypotheses, which compute the gradients at each case.
    """
    if made.whole is not None:
        return made
    right = OperationMistake("", "", made.equation, change_nothing)
    effective = [m for m in made.members if not have_one_effect(known, evidence, right, m)]
    if 0 < len(effective) < len(made.members):
        made = join(effective) if len(effective) > 1 else effective[0]
    changes = made.changes(evidence[0].forward)
    if not changes:
        return made
    if made.name in SCALED and not made.places:
        made = state_missing_factor(known.structure, made, changes)
    if all(is_scale(change) for change in changes.values()):
        if made.name in OTHER_VALUES and all(change.after == 0 for change in changes.values()):
            return state_cut(known.structure, made, changes)  # the other value is never there
        every = add_equal_operands(known.structure, changes)
        if every.keys() == changes.keys():
            return made
        changes = every
    cut = made._replace(changes=change_edges([*changes], after=0.0))
    if not have_one_effect(known, evidence, made, cut):
        return made
    if have_one_effect(known, evidence, right, cut):
        return made  # nothing is to be passed back there
    return state_cut(known.structure, made, changes)


def state_missing_factor(
    known: Structure, made: OperationMistake, changes: Changes
) -> OperationMistake:
    """State a factor on a path near the loss as one of the loss's own that is missing.

    A loss of 0.25 e² has a factor of 0.5 in the gradient of e.
    """
    factors = {change.after if is_scale(change) else 0.0 for change in changes.values()}
    by = factors.pop() if len(factors) == 1 else 0.0
    if not isinstance(by, float) or by in (0.0, 1.0, -1.0) or len(changes) != 1:
        return made
    ((number, operand),) = changes
    after = list_later(known, number)
    for later in after if 0 < len(after) <= TAIL else ():
        constant = read_constant(known, later)
        where = quote_expression(known, later)
        for value, of in ((constant, f"of {where}"), (2 * constant, f"of {where} in a square")):
            if value not in (0.0, 1.0) and abs(by * value - 1) <= EQUAL:
                path = f"the gradient passed on to {name_operand(known, number, operand)}"
                said = f"{path} lacks the factor {value:.6g} {of}, or has a factor {by:.6g}"
                details = {**made.details, "factor": by}
                return made._replace(name="factor-missing", alteration=said, details=details)
    return made


def list_later(known: Structure, number: int) -> list[int]:
    """List the operations that read the result of one, or what follows from it."""
    found, border = set[int](), [number]
    while border and len(found) <= TAIL:
        for slot in known.program.operations[border.pop()].outputs:
            readers = {user for user, _ in known.users.get(slot, ())} - found
            found |= readers
            border += readers
    return sorted(found)


def add_equal_operands(known: Structure, changes: Changes) -> Changes:
    """Add the other operands of the changed operations that read the same value, as in x · x."""
    found = dict(changes)
    for number, operand in changes:
        inputs = known.program.operations[number].inputs
        for k, slot in enumerate(inputs):
            if slot == inputs[operand]:
                found.setdefault((number, k), Change(k, after=1.0))
    return found


def state_cut(known: Structure, made: OperationMistake, changes: Changes) -> OperationMistake:
    """State a mistake that passes nothing back on these edges as a path that is cut."""
    by_path: dict[tuple[int, int], list[Edge]] = {}
    for number, operand in sorted(changes):
        by_path.setdefault((known.group_of[number], operand), []).append((number, operand))
    named = list[str]()
    for (group, operand), edges in by_path.items():
        members = (n for n, its_group in known.group_of.items() if its_group == group)
        every = [n for n in members if operand in known.active(n)]
        part = f" at {len(edges)} of its {len(every)} places" if len(edges) < len(every) else ""
        named.append(f"{name_operand(known, *edges[-1])}{part}")
    said = f"no gradient is passed on to {' and '.join(dict.fromkeys(named))}"
    name = DROPPED if {*changes} <= {*find_recurrent(known)} else "zero-gradient"
    shown = known.group_of[made.equation]
    at = next((edge for edge in sorted(changes) if known.group_of[edge[0]] == shown), None)
    return scale_edges(name, said, sorted(changes), 0.0, at)._replace(places=made.places)
