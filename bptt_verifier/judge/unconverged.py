"""Cases at which an iteration of the user's loss has not reached its fixed point.

A gradient by the implicit function theorem is no derivative of the loss there, and is everywhere
else. Where an iteration ends near its fixed point, as by a tolerance, such a gradient is compared
with that of the loss with further steps. Where it is far, the case is left out if all others
agree, and several of them have converged.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bptt_verifier.judge.neighbours import list_failing, settle
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.undecided import count_cases, count_conclusive, find_distance
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.fixed_points import Limit
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.comparison import compare_all
from bptt_verifier.tolerance.formats import find_unit
from bptt_verifier.tolerance.noise import SAFETY

# An implicit gradient may err by this many times the relative error of the values that it reads.
SECOND_DERIVATIVES = 16
SEVERAL = 4  # cases in which the iteration has converged, at least
# The distance to the fixed point's gradient that is allowed, and that is spoken of: parts of it.
MOST, SAID = 2.0**-10, 2.0**-4
FAR = MOST / SECOND_DERIVATIVES


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
    parameters given are never left out, nor are those near them unless the iteration converges at
    these: the gradient is wanted there. Nor is anything where another case disagrees.
    """
    against = ((n, compare_with_limit(subject, each)) for n, each in enumerate(compared))
    nearly = {n: each[0] for n, each in against if each is not None}
    failing = [n for n, each in enumerate(compared) if n not in nearly and list_failing(each)]
    near = bool(failing) and converges_at_home(subject, compared)
    left = [n for n in failing if is_left_out(subject, compared[n], brief=bool(nearly), near=near)]
    names = list(dict.fromkeys(name for each in compared for name in each.gradients))
    # What scatters like rounding needs no other excuse, unless it scatters by all of a gradient.
    doubtful = [*nearly, *left]
    weighed = settle(attempt, subject, [compared[number] for number in doubtful], names, ())
    explained = {n for n, each in zip(doubtful, weighed, strict=True) if each.agrees}
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


def compare_with_limit(
    subject: Subject, found: Compared, most: float = MOST
) -> tuple[Compared, Limit] | None:
    """Compare with the gradients of the fixed points; None where that explains nothing.

    They may be uncertain by `most` of their largest entries.
    """
    if not list_failing(found):
        return None
    for limit in subject.find_limits(found.case):
        if not limit.gradients or not is_near(limit, found, SAID):
            continue
        if SECOND_DERIVATIVES * limit.apart > most:
            continue
        values = found.values | limit.gradients
        for away in find_uncertain(limit, found, most):
            allowed = found.allowed | {n: found.allowed[n] + each for n, each in away.items()}
            comparisons = compare_all(found.submitted, values, allowed)
            compared = found._replace(values=values, allowed=allowed, comparisons=comparisons)
            if not list_failing(compared):
                return compared, limit
    return None


def find_uncertain(limit: Limit, found: Compared, most: float) -> Iterator[dict[str, Array]]:
    """Find by how much a gradient of a fixed point may differ at the last values. (N12)

    Where terms cancel, it may be more: what errors of one unit of roundoff do is measured, and
    larger ones do in proportion.
    """
    largest = {n: np.max(np.abs(value), initial=0.0) for n, value in limit.gradients.items()}
    least = SECOND_DERIVATIVES * limit.apart  # (N12)
    yield {name: least * each for name, each in largest.items()}
    ratios = {name: limit.apart / SAFETY / find_unit(found.dtypes[name]) for name in largest}
    with np.errstate(invalid="ignore"):  # of nothing times infinity
        yield {n: np.fmin(most * largest[n], ratios[n] * found.allowed[n]) for n in largest}


def is_near(limit: Limit, found: Compared, most: float) -> bool:
    """Tell whether the gradients of the fixed points are nearly those of the loss."""
    return not any(
        exceeds(value - found.values[name], found.values[name], most)
        for name, value in limit.gradients.items()
    )


def exceeds(difference: Array, value: Array, most: float) -> bool:
    """Tell whether a difference of gradients exceeds this part of the largest entry of one."""
    largest = np.max(np.abs(value), initial=0.0)
    return not np.max(np.abs(difference), initial=0.0) <= most * largest


def has_converged(subject: Subject, found: Compared) -> bool | None:
    """Tell whether the iterations of the loss end near their fixed points; None without any."""
    limits = subject.find_limits(found.case)
    known = False
    for limit in limits:
        known = True
        if limit.converged and not limit.apart > FAR and is_near(limit, found, MOST):
            return True
    return False if known else None


def converges_at_home(subject: Subject, compared: Sequence[Compared]) -> bool:
    """Tell whether the gradients agree at the parameters given, and the iteration converges."""
    given = (each for each in compared if not subject.may_be_outside(each.case))
    return any(not list_failing(each) and has_converged(subject, each) for each in given)


def is_left_out(
    subject: Subject, found: Compared, *, brief: bool = False, near: bool = False
) -> bool:
    """Tell whether a case disagrees, is not what was given, and has not converged.

    With `brief`, also one at which the iteration takes a single step; with `near`, one that is near
    the parameters given. The loss of a fixed point that is found in another way is another one
    there, too.
    """
    if not list_failing(found):
        return False
    converged = has_converged(subject, found)
    if converged is None:
        converged = not (brief and subject.find_iterated(found.case))
    if converged:
        return False
    return bool(found.case.point.number and (near or not found.case.point.near))


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
    early = [(found, *each) for found, each in against if each is not None]
    if not early:
        return []
    found, at_limit, limit = early[0]
    return [
        "At the parameters given, the iteration of your "
        f"loss{subject.describe_iteration(found.case)} ends before its fixed point: with further "
        f"steps its values change by {limit.apart:.2g} of the largest, and the gradients of the "
        f"loss by {measure_apart(found, at_limit):.2g}. Yours may be those of the fixed point: let "
        "the loss take more steps."
    ]


def count_telling(subject: Subject, settled: Sequence[Compared]) -> list[str]:
    """Count the cases that could have shown a mistake, among those that are kept."""
    telling = count_conclusive(subject, settled)
    return [f"{min(telling.values())} of {count_cases(len(settled))} {COUNTED}"] if telling else []
