"""Cases at which an iteration of the user's loss has not reached its fixed point.

A gradient by the implicit function theorem is no derivative of the loss there, and is everywhere
else. Such a case is left out where all others agree, and several of them have converged.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bptt_verifier.judge.neighbours import list_failing, settle
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.undecided import count_cases, count_conclusive
from bptt_verifier.report.findings import COUNTED

SEVERAL = 4  # cases in which the iteration has converged, at least


class Converged(NamedTuple):
    """The cases that are kept, before and after their scatter has decided, and what is said."""

    compared: list[Compared]
    settled: list[Compared]
    notes: tuple[str, ...]


def leave_out_unconverged(
    attempt: Try, subject: Subject, compared: Sequence[Compared]
) -> Converged | None:
    """Leave out the cases that disagree where an iteration has not converged.

    None where there is no such case, where another one disagrees, and where few show a gradient of
    the fixed point. The parameters given and those near them are never left out: the gradient is
    wanted there.
    """
    left = [number for number, each in enumerate(compared) if is_left_out(subject, each)]
    names = list(dict.fromkeys(name for each in compared for name in each.gradients))
    # What scatters like rounding is kept.
    weighed = settle(attempt, subject, [compared[number] for number in left], names, ())
    left = [n for n, each in zip(left, weighed, strict=True) if list_failing(each)]
    if not left:
        return None
    kept = [each for number, each in enumerate(compared) if number not in left]
    settled = settle(attempt, subject, kept, names, ())
    if any(each.fails for each in settled):
        return None
    agreeing = [each for each in settled if each.agrees and subject.has_converged(each.case)]
    if len(agreeing) < SEVERAL:
        return None
    place = subject.describe_iteration(compared[left[0]].case)
    note = (
        f"In {count_cases(len(left))} the iteration of your loss{place} has not converged, so that "
        "a gradient of its fixed point is no derivative of the loss: what disagrees there was left "
        f"out, and your gradients agree in {len(agreeing)} cases in which it has converged."
    )
    return Converged(kept, settled, (note, *count_telling(subject, settled)))


def is_left_out(subject: Subject, found: Compared) -> bool:
    """Tell whether a case disagrees, is far from what was given, and has not converged.

    The loss of a fixed point that is found in another way is another one there, too.
    """
    if not list_failing(found) or subject.has_converged(found.case) is not False:
        return False
    return bool(found.case.point.number and not found.case.point.near)


def count_telling(subject: Subject, settled: Sequence[Compared]) -> list[str]:
    """Count the cases that could have shown a mistake, among those that are kept."""
    telling = count_conclusive(subject, settled)
    return [f"{min(telling.values())} of {count_cases(len(settled))} {COUNTED}"] if telling else []
