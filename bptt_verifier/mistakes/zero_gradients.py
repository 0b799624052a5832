"""Wrong gradients of parameters on which a loss does not depend, such as a bias that cancels."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.expressions import write_expression
from bptt_verifier.mistakes.single_gradients import join_symbols
from bptt_verifier.program.structure import Structure
from bptt_verifier.program.trace import forward

UNCHANGED = 1e-9  # relative change of a value that is rounding
MOST = 3  # expressions that a sentence quotes


def describe_zeros(known: Structure, evidence: Sequence[Evidence], wrong: Sequence[str]) -> str:
    """Describe the wrong gradients that are zero at any point, and where the parameters cancel.

    Empty where there are none.
    """
    said = list[str]()
    for name in wrong:
        if not all(case.is_zero(name, case.reference[name]) for case in evidence):
            continue
        moved = [move(known, case.forward, name) for case in evidence]
        if any(changes for changes, _ in moved):
            continue
        places = list_places(known, moved[0][1])
        said.append(
            f"{join_symbols([name])} is zero for all values of the parameters, and yours is not:"
            f" the loss does not depend on {name}."
        )
        if 0 < len(places) <= MOST:
            *others, end = places
            shown = f"{', '.join(others)} and {end} do" if others else f"{end} does"
            said.append(f"{shown} not change with it.")
    return " ".join(said)


def list_places(known: Structure, reached: Mapping[int, bool]) -> list[str]:
    """List the expressions in which a change is lost at every step, with their lines."""
    changes = dict[tuple[str, str], bool]()
    for number, changed in reached.items():
        operation, text = known.program.operations[number], write_expression(known, number)
        if text:
            (where, *_) = operation.where
            place = f"`{text}` ({os.path.basename(where.file)}:{where.line})", operation.name
            changes[place] = changed or changes.get(place, False)
    return [*dict.fromkeys(place for (place, _), changed in changes.items() if not changed)]


def move(known: Structure, values: Sequence[Any], name: str) -> tuple[bool, dict[int, bool]]:
    """Move a parameter; tell whether the loss changes, and which operations pass the change on.

    These are the operations of which an operand changes. Where no result does, it is lost.
    """
    program, rng = known.program, np.random.default_rng(0)
    params = {each: values[slot][0] for each, slot in program.leaves.items()}
    size = max(1.0, float(np.max(np.abs(params[name]), initial=0.0)))
    params[name] = params[name] + size * rng.uniform(-1, 1, np.shape(params[name]))
    after, reached = forward(program, params), dict[int, bool]()
    changed = {program.leaves[name]}
    for number, operation in enumerate(program.operations):
        if not changed.intersection(operation.inputs):
            continue
        # An operand that stays may be as large as the start of a running maximum, −1e38.
        slots = (*changed.intersection(operation.inputs), *operation.outputs)
        most = UNCHANGED * max(float(np.max(np.abs(values[s]), initial=0.0)) for s in slots)
        results = {s for s in operation.outputs if differ(values[s], after[s], most)}
        changed |= results
        if all(np.issubdtype(dtype, np.inexact) for dtype in operation.dtypes):
            reached[number] = bool(results)
    return program.result in changed, reached


def differ(before: Any, after: Any, most: float) -> bool:
    """Tell whether two values of a slot differ by more than rounding."""
    same = before == after
    if np.issubdtype(np.result_type(before), np.number):  # not bool, which has no difference
        with np.errstate(all="ignore"):
            same = same | (np.abs(after - before) <= most)
    return not bool(np.all(same))
