"""The terms of a gradient, step by step, as they are with a named mistake and without it.

A weight that is used at every step has a gradient that is a sum over the steps: ∂L/∂W = Σ G_t, and
G_t is what the uses of W at step t pass back. (docs/derivation.md, section 10)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Changes, change_rows, resolve, sweep_back
from bptt_verifier.program.operations import pass_back
from bptt_verifier.program.structure import Structure
from bptt_verifier.report import Curve

TERM = "term of a gradient"
SHOWN = 3  # gradients whose terms are charted, at most: those with the largest errors

Terms = dict[int, Array]  # by slot of the weight or a part of it: with the mistake, and without


def chart_terms(
    known: Structure, case: Evidence, changes: Changes, names: Sequence[str]
) -> tuple[Curve, ...]:
    """Chart the errors that the changes of a mistake make in the terms of some gradients.

    The error of a term is relative to the largest entry of all terms, and so is the allowed error
    of the sum. The gradients with the largest errors are shown, but none that stays right.
    """
    curves = []
    for name, terms in collect_terms(known, case.forward, changes).items():
        if name not in names or name not in case.wanted:
            continue
        parts = [list(each.values()) for each in terms]
        size = max(float(np.max(np.abs(part[1]), initial=0)) for step in parts for part in step)
        allowed = float(np.median(case.wanted[name].allowed))
        if not (size > 0 and allowed > 0):
            continue
        errors = [
            max(float(np.max(np.abs(p[0] - p[1]), initial=0)) for p in step) for step in parts
        ]
        if np.isfinite(errors).all() and max(errors) > allowed:
            relative = tuple(error / size for error in errors)
            curves.append(Curve(f"∂L/∂{name}", relative, (allowed / size,) * len(errors), TERM))
    ranked = sorted(curves, key=lambda each: -max(each.relative_errors) / each.allowed[0])
    return tuple(ranked[:SHOWN])


def collect_terms(
    known: Structure, values: Sequence[Any], changes: Changes
) -> dict[str, list[Terms]]:
    """Collect the terms of each weight that is used at every step, from the first to the last."""
    if known.steps < 2 or any(np.iscomplexobj(value) for value in values if value is not None):
        return {}
    program, found = known.program, dict[str, list[Terms]]()
    cotangents = sweep_back(program, values, [changes, {}])
    for slot, name in known.leaf.items():
        for number, operand in known.users.get(slot, ()):
            equation, step = program.operations[number], known.step.get(number)
            arriving = [cotangents[each] for each in equation.outputs]
            if equation.outputs[0] in known.leaf or all(each is None for each in arriving):
                continue
            if step is None:
                found[name] = []  # its uses are not one at each step
            given = [values[each] for each in equation.inputs]
            outputs = [values[each] for each in equation.outputs]
            with np.errstate(all="ignore"):
                term = pass_back(equation, given, outputs, arriving)[operand]
                if term is None or step is None:
                    continue
                term = np.array(term, float)
                if (number, operand) in changes:
                    made = resolve(changes[number, operand], cotangents, 0)
                    wrong = change_rows(equation, given, outputs, arriving, term, [0], [made])
                    term[0] = wrong[0]
            steps = found.setdefault(name, [{} for _ in range(known.steps)])
            if steps:
                steps[step][slot] = steps[step].get(slot, 0.0) + term
    return {name: steps for name, steps in found.items() if steps and all(steps)}
