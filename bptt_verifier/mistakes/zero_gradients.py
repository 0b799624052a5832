"""Wrong gradients of parameters on which a loss does not depend, such as a bias that cancels."""

import os
from collections.abc import Sequence
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
        places = dict[str, None]()
        for number in moved[0][1]:
            where, text = known.program.operations[number].where, write_expression(known, number)
            if text:
                places.setdefault(f"`{text}` ({os.path.basename(where[0].file)}:{where[0].line})")
        said.append(
            f"{join_symbols([name])} is zero for all values of the parameters, and yours is not:"
            f" the loss does not depend on {name}."
        )
        if 0 < len(places) <= MOST:
            *others, end = places
            shown = f"{', '.join(others)} and {end} do" if others else f"{end} does"
            said.append(f"{shown} not change with it.")
    return " ".join(said)


def move(known: Structure, values: Sequence[Any], name: str) -> tuple[bool, list[int]]:
    """Move a parameter; tell whether the loss changes, and find where the change is lost.

    It is lost in the operations of which an operand changes, and no result does.
    """
    program, rng = known.program, np.random.default_rng(0)
    params = {each: values[slot][0] for each, slot in program.leaves.items()}
    size = max(1.0, float(np.max(np.abs(params[name]), initial=0.0)))
    params[name] = params[name] + size * rng.uniform(-1, 1, np.shape(params[name]))
    after, lost = forward(program, params), list[int]()
    changed = {program.leaves[name]}
    for number, operation in enumerate(program.operations):
        if not changed.intersection(operation.inputs):
            continue
        slots = (*operation.inputs, *operation.outputs)
        most = UNCHANGED * max(float(np.max(np.abs(values[s]), initial=0.0)) for s in slots)
        results = {s for s in operation.outputs if differ(values[s], after[s], most)}
        changed |= results
        if not results and all(np.issubdtype(dtype, np.inexact) for dtype in operation.dtypes):
            lost.append(number)
    return program.result in changed, lost


def differ(before: Any, after: Any, most: float) -> bool:
    """Tell whether two values of a slot differ by more than rounding."""
    with np.errstate(all="ignore"):
        return not bool(np.all((before == after) | (np.abs(after - before) <= most)))
