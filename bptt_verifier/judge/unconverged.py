"""Cases at which an iteration of the user's loss has not reached its fixed point.

A gradient by the implicit function theorem is no derivative of the loss there, and is everywhere
else. Where an iteration ends near its fixed point, as by a tolerance, such a gradient may differ
by as much as further steps change autodiff's. Where it is far, the case is left out if all others
agree, and several of them have converged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bptt_verifier.judge.neighbours import list_failing, settle
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.undecided import count_cases, count_conclusive, find_distance
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.comparison import compare_all

SEVERAL = 4  # cases in which the iteration has converged, at least
# What is allowed for the distance of a gradient's largest entry, and what is said beyond.
MOST, SAID = 2.0**-10, 2.0**-4


class Kept(NamedTuple):
    """The cases that are kept, what is said of them, and what decides on them one by one.

    They are compared, allowed for what the loss leaves open, and settled by their scatter.
    """

    compared: list[Compared]
    allowed: list[Compared]
    settled: list[Compared]
    notes: tuple[str, ...]


def allow_unconverged(attempt: Try, subject: Subject, compared: Sequence[Compared]) -> Kept | None:
    """Allow for iterations that end before their fixed points, or leave cases out.

    None where there is no such case, where another one disagrees, and where few show a gradient of
    the fixed point. The parameters given and those near them are never left out: the gradient is
    wanted there.
    """
    nearly = {n: widened for n, each in enumerate(compared) if (widened := widen(subject, each))}
    left = [number for number, each in enumerate(compared) if is_left_out(subject, each)]
    names = list(dict.fromkeys(name for each in compared for name in each.gradients))
    # What scatters like rounding needs no other excuse.
    doubtful = [*nearly, *left]
    weighed = settle(attempt, subject, [compared[number] for number in doubtful], names, ())
    explained = {n for n, each in zip(doubtful, weighed, strict=True) if not list_failing(each)}
    nearly = {n: each for n, each in nearly.items() if n not in explained}
    left = [n for n in left if n not in explained]
    if not nearly and not left:
        return None
    kept = [number for number in range(len(compared)) if number not in left]
    allowed = [nearly.get(number, compared[number]) for number in kept]
    settled = settle(attempt, subject, allowed, names, ())
    if any(each.fails for each in settled):
        return None
    notes = [*describe_nearly(subject, [*nearly.values()])]
    if left:
        agreeing = sum(each.agrees and has_converged(subject, each) is True for each in settled)
        if agreeing < SEVERAL:
            return None
        notes.append(
            f"In {count_cases(len(left))} the iteration of your "
            f"loss{subject.describe_iteration(compared[left[0]].case)} has not converged, so that "
            "a gradient of its fixed point is no derivative of the loss: what disagrees there was "
            f"left out, and your gradients agree in {agreeing} cases in which it has converged."
        )
        notes += count_telling(subject, settled)
    return Kept([compared[number] for number in kept], allowed, settled, tuple(notes))


def widen(subject: Subject, found: Compared, most: float = MOST) -> Compared | None:
    """Allow for the distance to the fixed points; None where that is not why a case disagrees."""
    if not list_failing(found):
        return None
    distance = subject.measure_distance(found.case)
    if distance is None or not is_small(distance.gradients, found, most):
        return None
    allowed = {n: v + distance.gradients.get(n, 0.0) for n, v in found.allowed.items()}
    comparisons = compare_all(found.submitted, found.values, allowed)
    widened = found._replace(allowed=allowed, comparisons=comparisons)
    return None if list_failing(widened) else widened


def is_small(distances: dict[str, float], found: Compared, most: float = MOST) -> bool:
    """Tell whether a fixed point is near: its gradients differ by little from those of the loss."""
    return all(
        away <= most * np.max(np.abs(found.values[name]), initial=0.0)
        for name, away in distances.items()
        if name in found.values
    )


def has_converged(subject: Subject, found: Compared) -> bool | None:
    """Tell whether the iterations of the loss end near their fixed points; None without any."""
    distance = subject.measure_distance(found.case)
    return None if distance is None else distance.converged and is_small(distance.gradients, found)


def is_left_out(subject: Subject, found: Compared) -> bool:
    """Tell whether a case disagrees, is far from what was given, and has not converged.

    The loss of a fixed point that is found in another way is another one there, too.
    """
    if not list_failing(found) or has_converged(subject, found) is not False:
        return False
    return bool(found.case.point.number and not found.case.point.near)


def describe_nearly(subject: Subject, nearly: Sequence[Compared]) -> list[str]:
    """Describe how far gradients are from the derivative of a loss that ends its steps early."""
    if not nearly:
        return []
    away = max(find_distance(found, name) for found in nearly for name in found.gradients)
    return [
        f"In {count_cases(len(nearly))} the iteration of your "
        f"loss{subject.describe_iteration(nearly[0].case)} ends before rounding would end it. Your "
        f"gradients differ there from its derivative by up to {away:.2g} of their largest entry; "
        "that is no more than further steps may change, and is taken for the gradient of the fixed "
        "point."
    ]


def describe_early(subject: Subject, compared: Sequence[Compared]) -> list[str]:
    """Say so where the distance to a fixed point explains what disagrees at the parameters given.

    It is too large there to be allowed.
    """
    given = [found for found in compared if not subject.may_be_outside(found.case)]
    if not any(widen(subject, found, SAID) for found in given):
        return []
    away = max(find_distance(found, name) for found in given for name in found.gradients)
    return [
        "At the parameters given, the iteration of your "
        f"loss{subject.describe_iteration(given[0].case)} ends far from its fixed point: your "
        f"gradients differ by up to {away:.2g} of their largest entry from the derivative of the "
        "loss, and further steps may change that by more. If they are gradients of the fixed "
        "point, let the loss take more steps."
    ]


def count_telling(subject: Subject, settled: Sequence[Compared]) -> list[str]:
    """Count the cases that could have shown a mistake, among those that are kept."""
    telling = count_conclusive(subject, settled)
    return [f"{min(telling.values())} of {count_cases(len(settled))} {COUNTED}"] if telling else []
