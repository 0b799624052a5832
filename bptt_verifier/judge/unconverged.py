"""Cases at which an iteration of the user's loss has not reached its fixed point.

A gradient by the implicit function theorem is no derivative of the loss there, and is everywhere
else. Where an iteration ends near its fixed point, as by a tolerance, such a gradient is compared
with that of the loss with further steps. Where it is far, the case is left out if all others
agree, and several of them have converged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bptt_verifier.judge.neighbours import list_failing, settle
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.undecided import count_cases, count_conclusive, find_distance
from bptt_verifier.program.fixed_points import SECOND_DERIVATIVES, Limit
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.comparison import compare_all

SEVERAL = 4  # cases in which the iteration has converged, at least
# The distance to the fixed point's gradient that is allowed, and that is spoken of: parts of it.
MOST, SAID = 2.0**-10, 2.0**-4


class Kept(NamedTuple):
    """The cases that are kept, what is said of them, and what decides on them one by one.

    They are compared, allowed for what the loss leaves open, and settled by their scatter.
    """

    compared: list[Compared]
    allowed: list[Compared]
    settled: list[Compared]
    notes: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """True if one of the cases that are kept disagrees."""
        return any(each.fails for each in self.settled)


def allow_unconverged(attempt: Try, subject: Subject, compared: Sequence[Compared]) -> Kept | None:
    """Allow for iterations that end before their fixed points, or leave cases out.

    None where there is no such case, and where few show a gradient of the fixed point. The
    parameters given and those near them are never left out: the gradient is wanted there. Nor is
    anything where another case disagrees.
    """
    against = ((n, compare_with_limit(subject, each)) for n, each in enumerate(compared))
    nearly = {n: each for n, each in against if each is not None}
    others = [number for number in range(len(compared)) if number not in nearly]
    left = [n for n in others if is_left_out(subject, compared[n], brief=bool(nearly))]
    names = list(dict.fromkeys(name for each in compared for name in each.gradients))
    # What scatters like rounding needs no other excuse.
    doubtful = [*nearly, *left]
    weighed = settle(attempt, subject, [compared[number] for number in doubtful], names, ())
    explained = {n for n, each in zip(doubtful, weighed, strict=True) if not list_failing(each)}
    nearly = {n: each for n, each in nearly.items() if n not in explained}
    left = [n for n in left if n not in explained]
    if not nearly and not left:
        return None
    allowed = [nearly.get(number, each) for number, each in enumerate(compared)]
    settled = settle(attempt, subject, allowed, names, ())
    said = describe_nearly(subject, [(compared[n], each) for n, each in nearly.items()])
    kept = [number for number in range(len(compared)) if number not in left]
    if any(settled[number].fails for number in kept):  # all are evidence then
        return Kept([*compared], allowed, settled, tuple(said)) if nearly else None
    rest = [settled[number] for number in kept]
    if left:
        converged = [each for each in rest if each.agrees and has_converged(subject, each)]
        known = frozenset().union(*(subject.find_iterated(each.case) for each in converged))
        agreeing = len(converged)
        if agreeing < SEVERAL or not all(
            subject.find_iterated(compared[n].case) <= known for n in left
        ):  # a loop on another path may be none
            return None
        brief = any(has_converged(subject, compared[number]) is None for number in left)
        said.append(
            f"In {count_cases(len(left))} the iteration of your "
            f"loss{subject.describe_iteration(compared[left[0]].case)} has not "
            f"converged{', or takes a single step' * brief}, so that a gradient of its "
            "fixed point is no derivative of the loss: what disagrees there was left out, and your "
            f"gradients agree in {agreeing} cases in which it has converged."
        )
        said += count_telling(subject, rest)
    return Kept([compared[n] for n in kept], [allowed[n] for n in kept], rest, tuple(said))


def compare_with_limit(subject: Subject, found: Compared, most: float = MOST) -> Compared | None:
    """Compare with the gradients of the fixed points; None where that explains nothing."""
    if not list_failing(found):
        return None
    limit = subject.find_limit(found.case)
    if limit is None or not limit.gradients or not is_near(limit, found, most):
        return None
    values, allowed = found.values | limit.gradients, dict(found.allowed)
    for name, value in limit.gradients.items():
        away = limit.uncertain * np.max(np.abs(value), initial=0.0)
        allowed[name] = found.allowed.get(name, 0.0) + away
    comparisons = compare_all(found.submitted, values, allowed)
    compared = found._replace(values=values, allowed=allowed, comparisons=comparisons)
    return None if list_failing(compared) else compared


def is_near(limit: Limit, found: Compared, most: float = MOST) -> bool:
    """Tell whether the gradients of the fixed points are nearly those of the loss."""
    return limit.uncertain <= most and all(
        np.max(np.abs(value - found.values[name]), initial=0.0)
        <= most * np.max(np.abs(found.values[name]), initial=0.0)
        for name, value in limit.gradients.items()
        if name in found.values
    )


def has_converged(subject: Subject, found: Compared) -> bool | None:
    """Tell whether the iterations of the loss end near their fixed points; None without any."""
    limit = subject.find_limit(found.case)
    return None if limit is None else limit.converged and is_near(limit, found)


def is_left_out(subject: Subject, found: Compared, *, brief: bool = False) -> bool:
    """Tell whether a case disagrees, is far from what was given, and has not converged.

    With `brief`, also one at which the iteration takes a single step. The loss of a fixed point
    that is found in another way is another one there, too.
    """
    if not list_failing(found):
        return False
    converged = has_converged(subject, found)
    if converged is None:
        converged = not (brief and subject.find_iterated(found.case))
    if converged:
        return False
    return bool(found.case.point.number and not found.case.point.near)


def describe_nearly(subject: Subject, nearly: Sequence[tuple[Compared, Compared]]) -> list[str]:
    """Describe how far fixed points are, from comparisons with the loss and with them."""
    if not nearly:
        return []
    away = max(measure_apart(*each) for each in nearly)
    return [
        f"In {count_cases(len(nearly))} the iteration of your "
        f"loss{subject.describe_iteration(nearly[0][0].case)} ends before rounding would end it. "
        "Your gradients are compared there with those of its fixed point, which differ from the "
        f"derivative of the loss by up to {away:.2g} of their largest entry."
    ]


def measure_apart(found: Compared, limit: Compared) -> float:
    """Measure how far gradients of a fixed point are from those of the loss, relative to these."""
    return max(find_distance(found._replace(submitted=limit.values), n) for n in found.gradients)


def describe_early(subject: Subject, compared: Sequence[Compared]) -> list[str]:
    """Say so where gradients are those of a fixed point that the loss is too far from.

    That is said of the parameters given.
    """
    given = [found for found in compared if not subject.may_be_outside(found.case)]
    beyond = [found for found in given if compare_with_limit(subject, found) is None]
    against = [(found, compare_with_limit(subject, found, SAID)) for found in beyond]
    early = [(found, limit) for found, limit in against if limit is not None]
    if not early:
        return []
    found, limit = early[0]
    reached = subject.find_limit(found.case)
    moved = 0.0 if reached is None else reached.uncertain / SECOND_DERIVATIVES
    return [
        "At the parameters given, the iteration of your "
        f"loss{subject.describe_iteration(found.case)} ends before its fixed point: with further "
        f"steps its values change by {moved:.2g} of the largest, and the gradients of the loss by "
        f"{measure_apart(found, limit):.2g}. Yours may be those of the fixed point: let the loss "
        "take more steps."
    ]


def count_telling(subject: Subject, settled: Sequence[Compared]) -> list[str]:
    """Count the cases that could have shown a mistake, among those that are kept."""
    telling = count_conclusive(subject, settled)
    return [f"{min(telling.values())} of {count_cases(len(settled))} {COUNTED}"] if telling else []
