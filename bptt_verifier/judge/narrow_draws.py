"""Cases drawn in float32 for parameters that are given in float64.

A submission may compute in float32, and so some cases are drawn in it. Where its formula overflows
there, as n**2.5 does from 4e15 on, and its gradients are right at the same numbers in the format
that the user gives, it is right for what it was written for. docs/derivation.md, section 10.
"""

from collections.abc import Callable, Sequence

import numpy as np

from bptt_verifier.judge.comparisons import ask_at
from bptt_verifier.judge.neighbours import list_failing, settle
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.submission import Breach, Submission
from bptt_verifier.judge.unconverged import SEVERAL, Kept, count_telling
from bptt_verifier.judge.undecided import count_cases
from bptt_verifier.problems.problem import Array
from bptt_verifier.reference.case import Case

SAID = "at the same numbers in the format of the parameters given: a number inside may overflow."
Excuse = Callable[[Sequence[Compared]], Kept | None]


def leave_out_narrow(
    attempt: Try, subject: Subject, compared: Sequence[Compared], excuse: Excuse
) -> Kept | None:
    """Leave out the cases in float32 at which the gradients are right in the format given.

    None where there is no such case, where another one disagrees that nothing may `excuse`, and
    where few are left.
    """
    if not any(each.case.single and list_failing(each) for each in compared):
        return None
    names = list(dict.fromkeys(name for each in compared for name in each.gradients))
    settled = settle(attempt, subject, compared, names, ())  # what scatters like rounding may stay
    failing = [n for n, each in enumerate(settled) if each.fails]
    left = [n for n in failing if is_right_as_given(attempt, subject, compared[n])]
    rest = [each for n, each in enumerate(compared) if n not in left]
    if not left:
        return None
    kept = excuse(rest) or Kept(rest, rest, settle(attempt, subject, rest, names, ()), ())
    if kept.fails or sum(each.agrees for each in kept.settled) < SEVERAL:
        return None
    note = (
        f"In {count_cases(len(left))} your gradients are wrong in float32, and right {SAID} "
        "These cases were left out."
    )
    return kept._replace(notes=(note, *(kept.notes or count_telling(subject, kept.settled))))


def is_right_as_given(attempt: Try, subject: Subject, found: Compared) -> bool:
    """Tell whether gradients at a case in float32 are right in the format given.

    Those that are right in float32 as well, when asked again, were wrong for another reason.
    """
    if not list_failing(found):
        return False
    wide = subject.widen(found.case) if found.case.single else None
    answer = None if wide is None else attempt(wide)
    if answer is None or list_failing(answer):
        return False
    again = attempt(found.case)
    return again is None or bool(list_failing(again))


def is_finite_as_given(submission: Submission, subject: Subject, case: Case) -> bool:
    """Tell whether results at a case in float32 are finite in the format given."""
    wide = subject.widen(case) if case.single else None
    return wide is not None and is_finite(ask_at(submission, subject, wide))


def is_finite(answer: dict[str, Array] | Breach) -> bool:
    """Tell whether all results of a call are finite numbers."""
    return not isinstance(answer, Breach) and all(
        np.isfinite(value).all() for value in answer.values()
    )


def doubt_narrow(attempt: Try, subject: Subject, found: Compared) -> list[str]:
    """Say so where gradients are wrong in float32 alone."""
    if not is_right_as_given(attempt, subject, found):
        return []
    return [f"Here your gradients are wrong in float32, and right {SAID}"]


def doubt_overflow(submission: Submission, subject: Subject, case: Case) -> list[str]:
    """Say so where results are not finite in float32 alone."""
    if not is_finite_as_given(submission, subject, case):
        return []
    return [f"Here your results are not finite in float32, and finite {SAID}"]
