"""The other names of what explains the same numbers, as a report states them.

Every name of the fewest mistakes that explain a submission is given, the specific ones first
(docs/derivation.md, section 10). A generic name is left out where it says what another one does.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
)
from bptt_verifier.mistakes.single_gradients import (
    GENERIC,
    NEAR,
    SIMPLE,
    Finding,
    join_symbols,
)
from bptt_verifier.program.backward import Change, is_scale
from bptt_verifier.program.trace import Program
from bptt_verifier.report import Mistake

PLACE = ("file_line", "column", "operation")  # details by which two mistakes have one place
WRAPS = "negative-index-wraps-around"
DESCRIBED = 2  # other names that an explanation describes, at most


def add_others(mistake: Mistake, others: Sequence[Finding]) -> Mistake:
    """Add other findings that explain the same gradients, but no factor that has another name."""
    named = {each.name: each for each in reversed(others)}  # the first of each name
    factors = {name: by for name, _, by in SIMPLE}
    stated = factors.keys() & {mistake.name, *named}
    found = (
        Mistake(name, f"{each.said}.", each.details)
        for name, each in named.items()
        if name != "constant-factor"
        or not any(abs(each.details["value"] - factors[n]) <= NEAR for n in stated)
    )
    return add_names(mistake, found)


def add_names(mistake: Mistake, others: Iterable[Mistake]) -> Mistake:
    """Add other mistakes that explain the same gradients, those with a specific name first.

    The explanation describes the first of them and names the rest, and the details have all names.
    """
    before = [*mistake.details.get("or", ())]
    taken = {mistake.name, *before}
    named: dict[str, Mistake] = {}
    for each in sorted(others, key=lambda each: each.name in GENERIC):
        if each.name not in taken:
            named.setdefault(each.name, each)
    inside = (name for each in named.values() for name in each.details.get("or", ()))
    names = [*dict.fromkeys([*named, *(name for name in inside if name not in taken)])]
    if not names:
        return mistake

    def explain(other: Mistake) -> str:
        alteration, gradients = (other.details.get(k) for k in ("alteration", "gradients"))
        if alteration is None:
            return f": {other.explanation}"
        only = "only" if gradients and len(gradients) > 1 else "alone"
        alone = f"in {join_symbols(gradients)} {only}: " if gradients else ""
        same = all(other.details.get(k, "") == mistake.details.get(k) for k in PLACE)
        place, expression = (other.details.get(k) for k in ("file_line", "expression"))
        at = "" if same or not place else f", at `{expression}` ({os.path.basename(place)})"
        return f"{at}: {alone}{alteration}."

    described = [*named.items()][: max(0, DESCRIBED - len(before))]
    said = "".join(f" Or {name}{explain(each)}" for name, each in described)
    stated = {name for _, each in described for name in (each.name, *each.details.get("or", ()))}
    rest = [name for name in names if name not in stated]
    said += f" Or {', or '.join(rest)}, with the same numbers." if rest else ""
    details = mistake.details | {"or": [*before, *names]}
    return mistake._replace(explanation=mistake.explanation + said, details=details)


def select_statements(
    program: Program, values: Values, every: Sequence[OperationMistake]
) -> list[OperationMistake]:
    """Select one mistake of each name, and of equal changes; a generic one if it says more.

    The generic ones come last, and say what no other does. Changes of what is passed back to a
    constant say nothing. What wraps around is one of them where nothing is passed back at the first
    step.
    """
    chosen, stated = dict[str, OperationMistake](), list[Changes]()
    for each in every:
        changes = {
            edge: change
            for edge, change in simplify(program, each.changes(values)).items()
            if program.operations[edge[0]].inputs[edge[1]] not in program.constants
        }
        generic = each.name in (*GENERIC, WRAPS) and each.whole is None
        if generic and any(are_one_statement(changes, other) for other in stated):
            continue
        if each.whole is None and any(are_same(changes, other) for other in stated):
            continue  # under another name
        chosen.setdefault(each.name, each)
        stated += [changes] if each.whole is None else []
    return [*chosen.values()]


def leave_out_coincidences(
    program: Program, values: Values, every: Iterable[OperationMistake], explained: bool
) -> list[OperationMistake]:
    """Leave out 1 − x in the place of an x that is no gate, where another mistake says as much.

    Only of a gate or a probability, from 0 to 1, does one write 1 − x by mistake. Elsewhere it is
    -x, a wrong sign, where a sum such as that of a softmax's derivative cancels the 1.
    """
    listed = [*every]
    likely = [e for e in listed if not takes_from_one(program, values, e.changes(values))]
    return likely if likely or explained else listed


def takes_from_one(program: Program, values: Values, changes: Changes) -> bool:
    """Tell whether changes put 1 − x in the place of every x, and an x is not from 0 to 1."""
    beyond = False
    for (number, _), change in changes.items():
        for operand, other in change.instead:
            right = values[program.operations[number].inputs[operand]]
            if np.shape(other) != np.shape(right) or not np.array_equal(other, 1 - right):
                return False
            beyond |= bool(np.any((right < 0) | (right > 1)))
    return beyond and all(change.instead for change in changes.values())


def put_place_first(first: Mistake, others: list[Mistake]) -> tuple[Mistake, list[Mistake]]:
    """Put the other name that says at which line a mistake is first, if there is one."""
    whence = next((each for each in others if says_where(each, first)), None)
    return (first, others) if whence is None else (whence, [first, *others])


def says_where(other: Mistake, first: Mistake) -> bool:
    """Tell whether another mistake says at which line there is what the first says of a gradient.

    The gradient of another parameter may be returned by chance: where a path is cut, and what is
    left is symmetric in both. A factor that the loss has at a line says more than its number.
    """
    if first.name == "constant-factor" and "factor" in first.details:
        return other.name == "factor-missing"
    return first.name == "wrong-operand" and "other" in first.details and other.name != first.name


def simplify(program: Program, changes: Changes) -> Changes:
    """Write a product with zeros in the place of the other operand as a path that is cut."""

    def is_zero(number: int, change: Change) -> bool:
        product = program.operations[number].name in {"mul", "dot_general"}
        alone = change.instead and is_scale(change._replace(instead=(), after=1.0))
        return product and change.after is None and bool(alone) and not change.instead[0][1].any()

    return {
        edge: Change(edge[1], after=0.0) if is_zero(edge[0], change) else change
        for edge, change in changes.items()
    }


def are_one_statement(one: Changes, other: Changes) -> bool:
    """Tell whether changes with one effect say the same: equal ones, or one factor on a path.

    A path that is cut, or scaled, may be so at any operation that alone leads to the next.
    """
    factor = find_factor(one)
    if factor is not None:
        return find_factor(other) == factor
    return are_same(one, other)


def are_same(one: Changes, other: Changes) -> bool:
    """Tell whether changes are equal at the same operands."""
    return one.keys() == other.keys() and all(are_equal(one[e], other[e]) for e in one)


def find_factor(changes: Changes) -> float | None:
    """Find the number by which changes multiply what is passed back; None if it is none."""
    found = {change.after for change in changes.values() if is_scale(change)}
    whole = len(found) == 1 and all(map(is_scale, changes.values()))
    return float(found.pop()) if whole else None


def are_equal(one: Any, other: Any) -> bool:
    """Tell whether two changes, or parts of them, hold the same numbers."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(are_equal, one, other))
    if one is None or other is None or callable(one) or callable(other):
        return one is other
    return np.shape(one) == np.shape(other) and bool(np.all(one == other))
