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
from bptt_verifier.report import write_count
from bptt_verifier.tolerance.comparison import compare_all
from bptt_verifier.tolerance.formats import find_unit
from bptt_verifier.tolerance.noise import SAFETY

# An implicit gradient may err by this many times the relative error of the values that it reads.
SECOND_DERIVATIVES = 16
# Where a gradient has an iteration of its own, it may err by many times more.
OWN_ITERATIONS = 64 * SECOND_DERIVATIVES
SEVERAL = 4  # cases in which the iteration has converged, at least
# The distance to the fixed point's gradient that is allowed, and that is spoken of: parts of it.
MOST, SAID = 2.0**-10, 2.0**-4
FAR = MOST / SECOND_DERIVATIVES


class Kept(NamedTuple):
    """The cases that are kept, what is said of them, and what decides on them one by one.

    They are compared, allowed for what the loss leaves open, and settled by their scatter. Where
    `doubts` say that it leaves too much open, nothing is decided.
    """

    compared: list[Compared]
    allowed: list[Compared]
    settled: list[Compared]
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()

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
    early = find_early(subject, compared, failing)
    agreeing = [(early | nearly).get(n, each) for n, each in enumerate(compared)]
    near = bool(failing) and converges_at_home(subject, agreeing)
    left = [n for n in failing if is_left_out(subject, compared[n], brief=bool(nearly), near=near)]
    names = list(dict.fromkeys(name for each in compared for name in each.gradients))
    # What scatters like rounding needs no other excuse, unless it scatters by all of a gradient.
    doubtful = [*nearly, *left]
    weighed = settle(attempt, subject, [compared[number] for number in doubtful], names, ())
    explained = {n for n, each in zip(doubtful, weighed, strict=True) if each.agrees}
    nearly = {n: each for n, each in nearly.items() if n not in explained}
    left = [n for n in left if n not in explained]
    early = {n: each for n, each in early.items() if n not in explained}
    if not nearly and not left and not early:
        return None

    def keep(others: dict[int, Compared], said: Sequence[str], doubts: Sequence[str]) -> Kept:
        allowed = [(nearly | others).get(number, each) for number, each in enumerate(compared)]
        settled = settle(attempt, subject, allowed, names, ())
        return Kept([*compared], allowed, settled, tuple(said), tuple(doubts))

    said = describe_nearly(subject, [(compared[n], each) for n, each in nearly.items()])
    beyond = {n: each for n, each in early.items() if n not in left}
    found = keep(beyond, said, describe_early(subject, [compared[n] for n in beyond]))
    kept = [number for number in range(len(compared)) if number not in left]
    if not any(found.settled[number].fails for number in kept):
        noted = describe_left(subject, compared, [found.settled[n] for n in kept], left)
        if noted is not None:
            every = found.compared, found.allowed, found.settled
            chosen, allowed, settled = ([each[n] for n in kept] for each in every)
            doubts = (*found.doubts, *doubt_many(len(left), len(compared)))
            return Kept(chosen, allowed, settled, (*said, *noted), doubts)
        found = keep(early, said, describe_early(subject, [compared[n] for n in early]))
        if not found.fails:
            return found
    return keep({}, said, ()) if nearly else None  # all are evidence then


def find_early(
    subject: Subject, compared: Sequence[Compared], numbers: Sequence[int]
) -> dict[int, Compared]:
    """Find the cases whose gradients may be those of a fixed point that a loop ends far from."""
    against = ((n, compare_early(subject, compared[n], by_decision=True)) for n in numbers)
    return {n: each[0] for n, each in against if each is not None}


def compare_early(
    subject: Subject, found: Compared, *, by_decision: bool
) -> tuple[Compared, Limit] | None:
    """Compare with a fixed point that a loop may have ended too far from to decide."""
    loosely = compare_with_limit(subject, found, SAID, by_decision=by_decision)
    if loosely is not None:
        return loosely
    return compare_with_limit(subject, found, by_decision=True, times=OWN_ITERATIONS)


def doubt_many(left: int, every: int) -> list[str]:
    """Say so where more cases would be left out than are kept: the loss may be none of a limit."""
    return [
        f"{left} of {every} cases are too many to leave out. If the iteration of the loss "
        "converges with more steps, let it take them; else judge the parameters given alone: "
        "--case 0."
    ] * (2 * left > every)


def describe_left(
    subject: Subject, compared: Sequence[Compared], rest: Sequence[Compared], left: Sequence[int]
) -> list[str] | None:
    """Describe what is left out; None where too few of the others have converged to leave it out.

    They must have done so at the same lines: a loop on another path may be no iteration.
    """
    if not left:
        return []
    converged = [each for each in rest if each.agrees and has_converged(subject, each)]
    known = frozenset().union(*(subject.find_iterated(each.case) for each in converged))
    agreeing = len(converged)
    if agreeing < SEVERAL or not all(
        subject.find_iterated(compared[n].case) <= known for n in left
    ):
        return None
    brief = any(has_converged(subject, compared[number]) is None for number in left)
    said = (
        f"In {count_cases(len(left))} the iteration of your "
        f"loss{subject.describe_iteration(compared[left[0]].case)} has not "
        f"converged{', or takes a single step' * brief}, so that a gradient of its "
        "fixed point is no derivative of the loss: what disagrees there was left out, and your "
        f"gradients agree in {agreeing} cases in which it has converged."
    )
    return [said, *count_telling(subject, rest)]


def compare_with_limit(
    subject: Subject,
    found: Compared,
    most: float = MOST,
    *,
    by_decision: bool = False,
    times: float = SECOND_DERIVATIVES,
) -> tuple[Compared, Limit] | None:
    """Compare with the gradients of the fixed points; None where that explains nothing.

    They may be uncertain by `times` the error of the values, by `most` of their largest entries,
    and be of loops that end `by_decision` alone.
    """
    if not list_failing(found):
        return None
    for limit in subject.find_limits(found.case):
        if not limit.gradients or not is_near(limit, found, SAID):
            continue
        if SECOND_DERIVATIVES * limit.apart > most or limit.by_decision < by_decision:
            continue
        values = found.values | limit.gradients
        for away in find_uncertain(limit, found, most, times):
            allowed = found.allowed | {n: found.allowed[n] + each for n, each in away.items()}
            comparisons = compare_all(found.submitted, values, allowed)
            compared = found._replace(values=values, allowed=allowed, comparisons=comparisons)
            if not list_failing(compared):
                return compared, limit
    return None


def find_uncertain(
    limit: Limit, found: Compared, most: float, times: float
) -> Iterator[dict[str, Array]]:
    """Find by how much a gradient of a fixed point may differ at the last values. (N12)

    It may read more of the last step than the loss does. Where terms cancel, it may be more: what
    errors of one unit of roundoff do is measured, and larger ones do in proportion.
    """
    largest = {n: np.max(np.abs(value), initial=0.0) for n, value in limit.gradients.items()}
    for apart in (limit.apart, limit.inside):
        least = min(most, times * apart)  # (N12)
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
    """Tell whether iterations of the loss end near their fixed points; None without any.

    Where there are loops of several kinds, those of one kind do.
    """
    known = False
    for limit in subject.find_limits(found.case):
        known = True
        if is_reached(limit, found):
            return True
    return False if known else None


def is_reached(limit: Limit, found: Compared) -> bool:
    """Tell whether the loss ends near these fixed points."""
    return limit.converged and limit.apart <= FAR and is_near(limit, found, MOST)


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
    limits = [is_reached(each, found) for each in subject.find_limits(found.case)]
    if not limits and not (brief and subject.find_iterated(found.case)):
        return False
    if limits and all(limits):
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
    """Say so where gradients may be those of a fixed point that the loss is too far from."""
    for found in sorted(compared, key=lambda each: subject.may_be_outside(each.case)):
        if compare_with_limit(subject, found) is not None:
            continue
        early = compare_early(subject, found, by_decision=False)
        if early is None:
            continue
        at_limit, limit = early
        outside = subject.may_be_outside(found.case)
        at = f"At {found.case.label if outside else 'the parameters given'}"
        if limit.apart <= FAR:
            away = max(find_distance(at_limit, name) for name in at_limit.gradients)
            return [
                f"{at}, your gradients differ from those of the fixed point that your loss "
                f"iterates to{subject.describe_iteration(found.case)} by {away:.2g}, and further "
                f"steps change its values by {limit.apart:.2g} of the largest. If you iterate for "
                "the gradients, too, take more steps there."
            ]
        return [
            f"{at}, the iteration of your "
            f"loss{subject.describe_iteration(found.case)} ends before its fixed point: with "
            f"further steps its values change by {limit.apart:.2g} of the largest, and the "
            f"gradients of the loss by {measure_apart(found, at_limit):.2g}. Yours may be those of "
            "the fixed point: let the loss take more steps."
        ]
    return []


def count_telling(subject: Subject, settled: Sequence[Compared]) -> list[str]:
    """Count the cases that could have shown a mistake, among those that are kept."""
    return [write_count(count_conclusive(subject, settled), len(settled))]
