"""Cases at which a value reaches a limit that guards a logarithm or a quotient of the user's loss.

The derivative of the loss is zero there, and a derivation that leaves the guard out has another
one, which is right everywhere else. Such a case is left out where all others agree.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bptt_verifier.judge.neighbours import list_failing, settle
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.unconverged import SEVERAL, Kept, count_telling, has_converged
from bptt_verifier.judge.undecided import count_cases, doubt_solver
from bptt_verifier.problems.problem import Array
from bptt_verifier.tolerance.comparison import find_symbol
from bptt_verifier.tolerance.formats import find_unit

ROUNDING = 2.0**10  # units of roundoff by which a gradient may differ that leaves the guard out


def leave_out_guarded(attempt: Try, subject: Subject, compared: Sequence[Compared]) -> Kept | None:
    """Leave out the cases whose gradients are those of the loss without its guards.

    None where there is no such case, where another one disagrees, and where few are left. Those at
    the parameters given and near them are never left out.
    """
    left = [number for number, each in enumerate(compared) if is_unguarded(subject, each)]
    if not left:
        return None
    kept = [each for number, each in enumerate(compared) if number not in left]
    names = list(dict.fromkeys(name for each in compared for name in each.gradients))
    settled = settle(attempt, subject, kept, names, ())
    agreeing = sum(each.agrees for each in settled)
    if any(each.fails for each in settled) or agreeing < SEVERAL:
        return None
    place = subject.describe_guard(compared[left[0]].case)
    note = (
        f"In {count_cases(len(left))} a value reaches the limit{place}, beyond which the "
        "derivative of your loss is zero. Your gradients leave that limit out, and agree with "
        "those of the loss without it: these cases were left out, and your gradients agree in "
        f"{agreeing} others."
    )
    return Kept(kept, kept, settled, (note, *count_telling(subject, settled)))


def is_unguarded(subject: Subject, found: Compared) -> bool:
    """Tell whether the gradients at a drawn case are those of the loss without its guards."""
    failing = list_failing(found)
    if not failing or not all(name in found.gradients for name in failing):
        return False
    for gradients in subject.differentiate_unguarded(found.case):
        if all(is_close(found, name, found.submitted[name], gradients[name]) for name in failing):
            return bool(found.case.point.number and not found.case.point.near)
    return False


def list_doubts(subject: Subject, compared: Sequence[Compared]) -> list[str]:
    """List why gradients that disagree may not be wrong."""
    return (
        doubt_solver(subject, compared)
        or doubt_rounded(subject, compared)
        or doubt_traced(subject, compared)
        or subject.doubt_far(compared)
    )


def doubt_rounded(subject: Subject, compared: Sequence[Compared]) -> list[str]:
    """Say so where gradients are those of what the loss rounds; the derivative of that is zero."""
    where, failing = "", [*filter(list_failing, compared)]
    if not failing:
        return []
    for found in failing:
        unrounded, where = subject.differentiate_unrounded(found.case)
        if not are_those(found, unrounded):
            return []
    return [
        f"The loss is rounded{where}, and the derivative of that is zero. Your gradients are those "
        "of the number that is rounded: let the loss use that."
    ]


def doubt_traced(subject: Subject, compared: Sequence[Compared]) -> list[str]:
    """Say so where the gradients of symmetric matrices are autodiff's, and differences are others.

    NumPy reads one triangle of such a matrix where JAX reads both, as for Cholesky's factor. Drawn
    matrices are not symmetric, and other gradients may be wrong there for that reason as well.
    """
    given = [each for each in compared if not subject.may_be_outside(each.case)]
    names = list(dict.fromkeys(name for each in given for name in list_failing(each)))
    if not names:
        return []
    for found in filter(list_failing, given):
        arrays = found.case.arguments
        symmetric = all(name in arrays and is_symmetric(arrays[name]) for name in names)
        if not (symmetric and are_those(found, subject.differentiate_traced(found.case))):
            return []
    return [
        f"At the parameters given, your {', '.join(map(find_symbol, names))} is that of autodiff, "
        "which differences of the loss contradict. Functions of symmetric matrices read one "
        "triangle in NumPy, and both in JAX: let the loss read (S + S.T) / 2 of such a matrix S."
    ]


def is_symmetric(value: Array) -> bool:
    """Tell whether an array has matrices that are equal to their transposes."""
    axes = np.shape(value)[-2:]
    return len(axes) == 2 and np.array_equal(value, np.swapaxes(value, -1, -2))


def are_those(found: Compared, gradients: Mapping[str, Array]) -> bool:
    """Tell whether all results that disagree are these gradients, to rounding."""
    return all(
        name in gradients and is_close(found, name, found.submitted[name], gradients[name])
        for name in list_failing(found)
    )


def is_special(subject: Subject, found: Compared) -> bool:
    """Tell whether a value reaches a guard at a case, or an iteration has not converged.

    The loss has another derivative there than derivations have, which hides other mistakes.
    """
    if has_converged(subject, found) is False:
        return True
    return any(
        not is_close(found, name, found.values[name], gradients[name])
        for gradients in subject.differentiate_unguarded(found.case)
        for name in found.gradients
    )


def is_close(found: Compared, name: str, one: Array, other: Array) -> bool:
    """Tell whether two gradients of a case are one, to rounding."""
    unit = ROUNDING * find_unit(found.dtypes[name]) * np.max(np.abs(other), initial=0.0)
    return bool((np.abs(one - other) <= found.allowed[name] + unit).all())
