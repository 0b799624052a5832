"""Cases drawn in float32 for parameters that are given in float64.

A submission may compute in float32, and so some cases are drawn in it. Where its formula overflows
there, as n**2.5 does from 4e15 on, and its gradients are right at the same numbers in float64, it
is right for what it was written for. docs/derivation.md, section 10.
"""

from collections.abc import Sequence

import numpy as np

from bptt_verifier.judge.neighbours import list_failing, settle
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.unconverged import SEVERAL, Kept, count_telling
from bptt_verifier.judge.undecided import count_cases
from bptt_verifier.reference.case import Case

SAID = "your gradients are wrong in float32, and right at the same numbers in float64"


def leave_out_narrow(attempt: Try, subject: Subject, compared: Sequence[Compared]) -> Kept | None:
    """Leave out the cases in float32 at which the gradients are right in float64.

    None where there is no such case, where another one disagrees, and where few are left.
    """
    doubtful = [each for each in compared if list_failing(each)]
    if not any(is_right_in_float64(attempt, subject, each) for each in doubtful):
        return None
    names = list(dict.fromkeys(name for each in compared for name in each.gradients))
    settled = settle(attempt, subject, compared, names, ())
    failing = [number for number, each in enumerate(settled) if each.fails]
    if not all(is_right_in_float64(attempt, subject, compared[n]) for n in failing):
        return None
    kept = [each for number, each in enumerate(compared) if number not in failing]
    left = [each for number, each in enumerate(settled) if number not in failing]
    if sum(each.agrees for each in left) < SEVERAL:
        return None
    note = (
        f"In {count_cases(len(failing))} {SAID}, in which your parameters are given: a number "
        "inside may overflow. These cases were left out."
    )
    return Kept(kept, kept, left, (note, *count_telling(subject, left)))


def is_right_in_float64(attempt: Try, subject: Subject, found: Compared) -> bool:
    """Tell whether gradients at a case in float32 are right at the same numbers in float64."""
    if not found.case.single or subject.format_given != np.float64:
        return False
    wide = attempt(widen(found.case))
    return wide is not None and not list_failing(wide)


def doubt_narrow(attempt: Try, subject: Subject, found: Compared) -> list[str]:
    """Say so where gradients are wrong in float32 alone."""
    if not is_right_in_float64(attempt, subject, found):
        return []
    return [f"Here {SAID}, in which your parameters are given: a number inside may overflow."]


def widen(case: Case) -> Case:
    """Make the case of the same numbers in float64."""
    wide = {name: value.astype(np.float64) for name, value in case.arguments.items()}
    return case._replace(arguments=wide)
