"""Coverage of the selected cases: which mistakes they could show, and which points they lack."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.paths import Paths
from bptt_verifier.program.rounding import find_unit, is_inexact
from bptt_verifier.program.trace import Program
from bptt_verifier.reference.selection import ENOUGH, VAGUE, Selection, count_left_out
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.bounds import RESOLVING

# Relative errors of this size are seen in all but ill-conditioned losses, in float64 and float32.
VISIBLE, VISIBLE_SINGLE = 2.0**-20, 2.0**-12
MISSED = 5  # branches that a note names, at most


def describe_cases(
    selections: Sequence[Selection], params: Sequence[dict[str, Array]], paths: Sequence[Paths]
) -> list[str]:
    """Describe the cases: how many could show a mistake, what was left out and not reached."""
    total = sum(len(selection.cases) for selection in selections)
    telling = sum((selection.telling for selection in selections), Counter[str]())
    zeros = find_common_zeros(selections)
    others = [name for name in params[0] if name not in zeros]
    least = min((telling[name] for name in others), default=0)
    notes = list[str]()
    if len(params) > 1:
        shapes = (
            " ".join(f"{name}={value.shape}" for name, value in given.items()) for given in params
        )
        notes.append(f"The cases are shared by {len(params)} settings: {'; '.join(shapes)}.")
    if total > 1:
        notes.append(f"{least} of {total} cases {COUNTED}")
    few = list_few(selections, total)
    coarse = find_coarsest_format([path.program for each in paths for path in each.known])
    notes += describe_left_out(selections, coarse if few else None)
    if few and coarse:
        symbols = " and ".join(f"∂L/∂{name}" for name in few)
        notes.append(
            f"The loss computes in {coarse}, whose rounding hides mistakes in {symbols}: state it "
            f"in float64. A backward pass that computes in {coarse} is judged by verify_vjp."
        )
    damped = sum(selection.damped for selection in selections)
    if damped and least:
        have = "has" if damped == 1 else "have"
        notes.append(
            f"{damped} of {total} cases {have} smaller values than usual: at larger ones the "
            "gradient is ill-conditioned, or float32 may overflow."
        )
    keeping = sum(selection.keeping for selection in selections)
    if keeping:
        notes.append(
            f"In {keeping} of {total} cases jax.grad is NaN: it multiplies a cotangent of zero by "
            "an infinite slope, such as that of a square root that a mask leaves out. The "
            "reference takes the product for zero."
        )
    notes += [
        f"∂L/∂{name} is zero, to rounding, in every case, and yours must be, too."
        for name in sorted(zeros)
    ]
    every = [value for each in selections for c in each.cases for value in c.arguments.values()]
    visible = VISIBLE_SINGLE if all(v.dtype == np.float32 for v in every) else VISIBLE
    best = {
        name: min((each.resolution.get(name, np.inf) for each in selections), default=np.inf)
        for name in others
    }
    hidden = [f"{b:.1g} of ∂L/∂{n}" for n, b in best.items() if visible < b <= RESOLVING]
    if hidden:
        what = "computes in a format coarser than float64" if coarse else "is ill-conditioned"
        listed = f"{', '.join(hidden[:-1])} and {hidden[-1]}" if len(hidden) > 1 else hidden[0]
        notes.append(f"The loss {what}, which hides relative errors below {listed}.")
    if any(each.places for each in paths):
        notes.append(
            f"Branches on values are followed as each point takes them: {describe_places(paths)}."
        )
    taken = {branch for selection in selections for branch in selection.taken}
    missed = [b for b in dict.fromkeys(b for s in selections for b in s.branches) if b not in taken]
    if missed:
        more = f", and {len(missed) - MISSED} more" if len(missed) > MISSED else ""
        listed = "; ".join(map(str, missed[:MISSED]))
        notes.append(f"No case takes these branches of the loss: {listed}{more}.")
    return notes


def find_coarsest_format(programs: Sequence[Program]) -> str | None:
    """Find the coarsest format that a loss converts numbers to, as in a buffer.

    It is None if that is not coarser than float64.
    """
    every = (each for program in programs for each in program.operations)
    dtypes = {np.dtype(dtype) for each in every for dtype in each.dtypes if is_inexact(dtype)}
    coarsest = max(dtypes, key=find_unit, default=np.dtype(float))
    return str(coarsest) if find_unit(coarsest) > find_unit(np.dtype(float)) else None


def describe_places(every: Sequence[Paths]) -> str:
    """Name the expressions that decide on the path of the loss."""
    found = dict.fromkeys(f"`{place.expression}` ({place})" for p in every for place in p.places)
    more = f", and {len(found) - MISSED} more" if len(found) > MISSED else ""
    return "; ".join([*found][:MISSED]) + more


def describe_left_out(selections: Sequence[Selection], coarse: str | None = None) -> list[str]:
    """Describe which points were left out, and why.

    Where the loss is said to compute in a `coarse` format, what is vague is so by its rounding.
    """
    reasons = {VAGUE: f"rounding to {coarse} hides the gradient there"} if coarse else {}
    given = dict.fromkeys(selection.given for selection in selections if selection.given)
    notes = [f"The parameters given were left out: {reasons.get(why, why)}." for why in given]
    counts = sum((selection.left_out for selection in selections), Counter[str]())
    for why, number in counts.items():
        notes.append(f"{count_left_out(number)}: {reasons.get(why, why)}.")
    return notes


def find_doubt(selections: Sequence[Selection], cases: int) -> str | None:
    """Find the gradients that too few cases can show a mistake in; return a sentence if any."""
    few = list_few(selections, cases)
    if not few:
        return None
    said = ", ".join(f"{number} in ∂L/∂{name}" for name, number in few.items())
    return f"Too few cases could have shown a mistake: {said}."


def list_few(selections: Sequence[Selection], cases: int) -> dict[str, int]:
    """Count the cases that can show a mistake, of gradients for which they are too few."""
    enough, zeros = min(ENOUGH, cases), find_common_zeros(selections)
    telling = sum((selection.telling for selection in selections), Counter[str]())
    names = {name for each in selections for case in each.cases for name in case.arguments}
    return {name: telling[name] for name in sorted(names - zeros) if telling[name] < enough}


def find_common_zeros(selections: Sequence[Selection]) -> frozenset[str]:
    """Find the gradients that are zero in all settings."""
    return frozenset.intersection(*(s.zeros for s in selections if s.cases))
