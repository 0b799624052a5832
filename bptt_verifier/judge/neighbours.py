"""Neighbours of a case, which show whether a submission's errors are rounding."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import CodeRaisedError
from bptt_verifier.reference.case import Case
from bptt_verifier.tolerance.bounds import RESOLVING, describe_dtype, is_coarser
from bptt_verifier.tolerance.comparison import compare, compare_all, worst_of
from bptt_verifier.tolerance.scatter import (
    DISTANCE,
    FAR,
    IN_HALF,
    NEAR,
    NEARER,
    NEIGHBOURS,
    Scatter,
    measure_scatter,
)

ENTRIES = 100_000  # entries that a verdict compares, before they are counted
UNSURE = 8  # a mean of so many limits cannot be rounding that is alike at all neighbours
FAR_ABOVE = 4  # times a clipped entry, as no rounding of the true one to a multiple of it is
DECISIVE = 8  # cases at which the scatter decides on each gradient in half precision
# Neighbours within the spacing of a format's numbers, in units of it, at which a result in that
# format stays or jumps, and the number of these that are asked.
WITHIN_SPACING, FEW = 2.0**-6, 4
# Neighbours for results in bfloat16, whose spacing is half of the error that may be allowed where a
# mistake is to be seen: so many leave little to the scatter.
BRIEF = 2 * NEIGHBOURS
# Rounding errors are at least this part of the allowed ones, at the worst entry: in float16, eight
# times what float32 allows. What float16 allows may be infinite.
TYPICAL = 2.0**-10
BY_CHANCE = 40  # binary digits that numbers of a format lack by chance, once in 2⁴⁰ cases
# Those that a submission may compute in without saying so.
FORMATS: tuple[Any, ...] = (np.float32, np.float16, bfloat16)


def weigh(
    attempt: Try,
    subject: Subject,
    found: Compared,
    names: Sequence[str],
    entries: int,
    decisive: bool = False,
    far: bool = False,
    unsure: bool = False,
    of_half: float = IN_HALF,
) -> Compared:
    """Compare the results of these names with what their scatter allows as well. (N3)

    A result whose mean error exceeds both stays as it is; of the others, errors up to the larger of
    both are allowed. If the scatter is `decisive`, it alone decides. `entries` is the number of all
    entries of the verdict. Neighbours are `far` where the submission's format is not known, and
    those of results in half precision, at a distance of their own, are asked for these alone.
    Where the mean exceeds both by little, rounding may be the same at all of them: far neighbours
    decide, but not on steps whose gradients vanish, which change by too much there. What exceeds
    both by little there as well, after it was `unsure` nearby, counts as rounding: where far ones
    are asked at first, near ones are asked before. Nothing changes
    if the submission fails at too many neighbours, or if a second call at the case itself changes a
    result, which rounding does not.
    """
    halves = [name for name in names if is_half(found.dtypes[name])]
    if halves and len(halves) < len(names):
        finer = [name for name in names if name not in halves]
        found = weigh(attempt, subject, found, halves, entries, decisive, far, of_half=of_half)
        return weigh(attempt, subject, found, finer, entries, decisive, far)
    distance = of_half if halves else FAR if far else DISTANCE
    number = BRIEF if any(found.dtypes[name] == bfloat16 for name in names) else NEIGHBOURS
    errors = collect_errors(attempt, subject, found.case, names, distance, number)
    again, doubtful = attempt(found.case), list[str]()
    allowed, comparisons = dict(found.allowed), {c.name: c for c in found.comparisons}
    for name in names:
        if len(errors[name]) < NEIGHBOURS // 2:
            continue
        submitted, before = found.submitted[name], found.allowed[name]
        if again is None or np.any(np.abs(again.submitted[name] - submitted) > before):
            continue
        scatter = measure(subject, found, name, errors[name], entries)
        if decisive:
            allowed[name] = scatter.limit
        else:
            here = np.abs(submitted - found.values[name])
            most = (len(errors[name]) + 1) ** 0.5 * scatter.limit  # of one error
            wrong = (scatter.mean > scatter.limit) & (scatter.mean > before)
            wrong |= (here > most) & (here > before)
            limit = scatter.limit
            if wrong.any():
                size = np.maximum(scatter.mean, here * (limit / most))[wrong]
                if not np.all(size < UNSURE * limit[wrong]):
                    continue
                if not unsure:
                    doubtful.append(name)
                    continue
                if np.any((here > scatter.mean + most)[wrong]):
                    continue
                limit = UNSURE * limit
            allowed[name] = np.maximum(before, limit)
        comparisons[name] = compare(
            name, submitted, found.values[name], allowed[name], scatter.mean
        )
    weighed = found._replace(allowed=allowed, comparisons=list(comparisons.values()))
    if doubtful and distance < FAR and not subject.has_vanishing_steps:
        weighed = weigh(attempt, subject, weighed, doubtful, entries, far=True, unsure=True)
    elif doubtful and distance == FAR:
        weighed = weigh(attempt, subject, weighed, doubtful, entries)
    if distance == DISTANCE and not decisive:
        return accuse_smooth(attempt, subject, found, weighed, entries)
    return weighed


def measure(
    subject: Subject, found: Compared, name: str, errors: Sequence[Array], entries: int
) -> Scatter:
    """Measure the scatter of a gradient's errors at neighbours, in the format that it has."""
    form, size = describe_dtype(found.dtypes[name]), np.abs(found.submitted[name])
    size = size if subject.has_vanishing_steps else np.full_like(size, size.max())
    spacing = float(form.eps) * size + float(form.smallest_subnormal)
    return measure_scatter(errors, found.allowed[name], spacing, entries)


def accuse_smooth(
    attempt: Try, subject: Subject, before: Compared, after: Compared, entries: int
) -> Compared:
    """Take back what widely scattering errors explain, if they hardly scatter at nearer neighbours.

    Where the loss is ill-conditioned, a mistake's error moves by more than itself between
    neighbours, but in proportion to their distance, and rounding errors are drawn anew at any. An
    entry that stays where the true one moves has lost its digits, and is not accused, unless it is
    the largest, and below the true one: then it is clipped, if another entry moves or the true one
    is far above it. In float64 smaller errors are taken
    back as well, if float32 has none as large.
    """
    largest = {name: float(np.max(np.abs(value))) for name, value in before.values.items()}
    names = [
        name
        for name in list_excused(before, after)
        if np.max(before.allowed[name]) <= RESOLVING * largest[name]
        and (
            np.max(after.allowed[name]) > RESOLVING * largest[name]
            or (
                np.max(after.allowed[name]) > NEAR * largest[name]
                and before.dtypes[name] == np.float64
                and not is_within(before, [name], np.float32)
            )
        )
    ]
    if not names:
        return after
    smooth = set[str]()
    for distance in (NEAR, NEARER):  # NEARER is nothing in float32, where no entry moves
        left = [n for n in names if n not in smooth]
        if distance == NEARER:
            left = [n for n in left if before.dtypes[n] == np.float64]
        asked = ask_neighbours(attempt, subject, before.case, distance) if left else []
        for name in left:
            near = [each for each in asked if name in each.submitted]
            if len(near) >= NEIGHBOURS // 2:
                yours = np.stack([each.submitted[name] for each in near])
                true = np.stack([each.values[name] for each in near])
                scatter = measure(subject, before, name, [*(yours - true)], entries)
                beyond = scatter.mean > np.maximum(UNSURE * scatter.limit, before.allowed[name])
                moves = yours.std(axis=0) >= true.std(axis=0) / 2
                far = (np.abs(true) > FAR_ABOVE * np.abs(yours)).all(axis=0)
                moves |= are_clipped(yours, true) & (moves.any() | far)
                smooth |= {name} if (beyond & moves).any() else set()
    allowed = {n: (before if n in smooth else after).allowed[n] for n in after.allowed}
    first = {c.name: c for c in before.comparisons}
    comparisons = [first[c.name] if c.name in smooth else c for c in after.comparisons]
    return after._replace(allowed=allowed, comparisons=comparisons)


def are_clipped(yours: Array, true: Array) -> Array:
    """Tell which entries are the largest at all neighbours, alike there, and below the true ones.

    The first axis is that of the neighbours.
    """
    sizes = np.abs(yours)
    limit = np.max(sizes)
    return np.asarray(((sizes == limit) & (np.abs(true) > limit) & (limit > 0)).all(axis=0))


def collect_errors(
    attempt: Try,
    subject: Subject,
    case: Case,
    names: Sequence[str],
    distance: float,
    number: int = NEIGHBOURS,
) -> dict[str, list[Array]]:
    """Collect the errors of the results of these names at so many neighbours of a case.

    A result in half precision that overflows at a neighbour has none there.
    """
    errors: dict[str, list[Array]] = {name: [] for name in names}
    for near in ask_neighbours(attempt, subject, case, distance, number):
        for name in near.submitted.keys() & errors.keys():
            if np.isfinite(near.submitted[name]).all():
                errors[name].append(near.submitted[name] - near.values[name])
    return errors


def ask_neighbours(
    attempt: Try, subject: Subject, case: Case, distance: float, number: int = NEIGHBOURS
) -> list[Compared]:
    """Compare at neighbours of a case; those at which the code fails are left out."""
    found = list[Compared]()
    for k in range(number):
        with suppress(CodeRaisedError):  # the loss may be defined elsewhere alone
            near = attempt(subject.displace(case, k, distance))
            found += [] if near is None else [near]
    return found


def settle(
    attempt: Try,
    subject: Subject,
    compared: Sequence[Compared],
    names: Sequence[str],
    confirmed: Collection[str],
) -> list[Compared]:
    """Decide by scatter where gradients exceed their allowed errors, until each is confirmed.

    A gradient is wrong if it is wrong at one case; then its other cases are not asked. `confirmed`
    are those that are known to be wrong before.
    """
    entries = sum(value.size for found in compared for value in found.submitted.values())
    settled, confirmed = list(compared), set(confirmed)
    order = sorted(range(len(settled)), key=lambda i: -find_largest_error(settled[i]))
    for i in order:
        failing = [name for name in list_failing(settled[i]) if name in names]
        asked = [name for name in failing if name not in confirmed]
        if asked:
            settled[i] = weigh(attempt, subject, settled[i], asked, entries)
            confirmed.update(set(asked) & set(list_failing(settled[i])))
    for name in names:
        chosen = [i for i, found in enumerate(settled) if is_half_precision(name, found)]
        for i in chosen[:DECISIVE]:
            settled[i] = weigh(attempt, subject, settled[i], [name], entries, decisive=True)
    return settled


def find_largest_error(found: Compared) -> float:
    """Find the largest error among all results of a case."""
    return max(comparison.error for comparison in found.comparisons)


def list_failing(found: Compared) -> list[str]:
    """List the results whose errors exceed what is allowed."""
    return [comparison.name for comparison in found.comparisons if comparison.error > 1]


def is_half(dtype: Any) -> bool:
    """Tell whether a format is coarser than float32."""
    return is_coarser(dtype, np.float32)


def is_half_precision(name: str, found: Compared) -> bool:
    """Tell whether a result has a format coarser than float32, and is far from its limits."""
    if name not in found.submitted or not is_half(dtype := found.dtypes[name]):
        return False
    if not np.isfinite(found.submitted[name]).all():
        return False
    largest = float(np.max(np.abs(found.values[name]), initial=0.0))
    return largest >= 2**10 * float(describe_dtype(dtype).smallest_normal)


def moves_smoothly(
    attempt: Try, subject: Subject, found: Compared, names: Sequence[str], dtype: Any
) -> bool:
    """Tell whether results move smoothly where numbers of a format stay or jump.

    The neighbours are nearer than the numbers of that format are to each other. There a smooth
    result follows the true one, or moves half as far at half of the distance.
    """
    distance = float(describe_dtype(dtype).eps) * WITHIN_SPACING
    near = ask_few(attempt, subject, found.case, distance)
    if not near:
        return False
    left = [name for name in names if not follows_closely(near.values(), name)]
    halfway = ask_few(attempt, subject, found.case, distance / 2) if left else {}
    pairs = [(halfway[k], near[k]) for k in halfway.keys() & near.keys()]
    return all(moves_in_proportion(found, pairs, name) for name in left)


def ask_few(attempt: Try, subject: Subject, case: Case, distance: float) -> dict[int, Compared]:
    """Ask a few neighbours of a case, by their number."""
    asked = ((k, attempt(subject.displace(case, k, distance))) for k in range(FEW))
    return {k: each for k, each in asked if each is not None}


def follows_closely(near: Iterable[Compared], name: str) -> bool:
    """Tell whether a result moves between neighbours as the true one does."""
    yours, true = (
        np.stack(arrays)
        for arrays in zip(*((n.submitted[name], n.values[name]) for n in near), strict=True)
    )
    with np.errstate(all="ignore"):
        moves, apart = (np.linalg.norm(x - x[0]) for x in (true, yours - true))
    return bool(apart < moves / 4)


def moves_in_proportion(
    found: Compared, pairs: Sequence[tuple[Compared, Compared]], name: str
) -> bool:
    """Tell whether a result moves half as far at neighbours halfway, and does not stay."""
    here, true = found.submitted[name], found.values[name]
    with np.errstate(all="ignore"):
        bends = np.array([b.submitted[name] - 2 * a.submitted[name] + here for a, b in pairs])
        moves = np.array([b.submitted[name] - here for _, b in pairs])
        needed = np.array([b.values[name] - true for _, b in pairs])
        size = np.linalg.norm(moves)
    return bool(np.linalg.norm(needed) / 4 < size > 4 * np.linalg.norm(bends))


def list_excused(before: Compared, after: Compared) -> list[str]:
    """List the results whose errors exceed what was allowed before, and not what is afterwards."""
    still = list_failing(after)
    return [name for name in list_failing(before) if name not in still]


def is_lost(found: Compared, name: str) -> bool:
    """Tell whether a result's error leaves it no digit, so that it may be anything, as in chaos."""
    error, size = np.abs(found.submitted[name] - found.values[name]), np.abs(found.values[name])
    return not np.max(error) <= np.max(size) / 8  # (N2)


def are_numbers_of(values: Array, dtype: Any) -> bool:
    """Tell whether numbers are all those of a format, exactly."""
    with np.errstate(all="ignore"):
        return np.array_equal(values.astype(dtype), values)


def fill_digits(values: Array, dtype: Any) -> bool:
    """Tell whether numbers are those of a format, and need more than half of its digits.

    Numbers that were computed in float64 are not, but for short ones such as 1 or 200.
    """
    parts = np.frexp(values)[0] * 2.0 ** (describe_dtype(dtype).nmant // 2)
    return are_numbers_of(values, dtype) and not np.array_equal(parts, np.rint(parts))


def have_one_spacing(values: Array, dtype: Any) -> bool:
    """Tell whether numbers of a format are multiples of one power of two, as counts are.

    The numbers of the format lie closer together where they are smaller, down to the smallest. Of
    those that are rounded to it, each is such a multiple by chance, once in two for each binary
    digit that it lacks.
    """
    parts, exponents = np.frexp(np.abs(values[values != 0]).astype(np.float64))
    form = describe_dtype(dtype)
    digits, (_, smallest) = form.nmant + 1, np.frexp(float(form.smallest_subnormal))
    whole = np.rint(parts * 2.0**digits).astype(np.int64)
    _, lowest = np.frexp((whole & -whole).astype(np.float64))
    least = np.min(exponents - digits + lowest - 1, initial=np.iinfo(exponents.dtype).max)
    spacing = np.maximum(exponents - digits, smallest - 1)
    return bool(np.maximum(least - spacing, 0).sum() >= BY_CHANCE)


def is_within(found: Compared, names: Sequence[str], dtype: Any) -> bool:
    """Tell whether the errors of some results are within those allowed in a coarser format."""
    finer = all(is_coarser(dtype, found.dtypes[name]) for name in names)
    if found.case.truth is None or not finer:
        return False
    submitted = {name: found.submitted[name] for name in names}
    return worst_of(compare_all(submitted, *found.case.truth(dtype, names))).error <= 1


def are_all_of(found: Compared, names: Sequence[str], dtype: Any) -> bool:
    """Tell whether results are numbers of a format that fill more than half of its digits."""
    values = [found.submitted[name].ravel() for name in names]
    return bool(values) and fill_digits(np.concatenate(values), dtype)


def may_be_rounded(found: Compared, name: str) -> bool:
    """Tell whether a result is one of a coarser format, within the errors allowed in that format.

    tanh a is 1 in float32 at all neighbours of an a where it is not in float64: such a result need
    not scatter.
    """
    return not is_half(found.dtypes[name]) and any(
        are_numbers_of(found.submitted[name], dtype) and is_within(found, [name], dtype)
        for dtype in FORMATS
    )


def is_rounded_to(found: Compared, name: str, dtype: Any = np.float16) -> bool:
    """Tell whether a result is of a format's numbers, to which the true ones, which are not, round.

    It may be returned in a finer format beside results that are precise.
    """
    true, own = found.values[name], found.submitted[name]
    if are_numbers_of(true, dtype) or not fill_digits(own, dtype) or have_one_spacing(own, dtype):
        return False  # short numbers such as counts, of which nothing is lost
    return is_within(found, [name], dtype)


def list_rounded(found: Compared) -> set[str]:
    """List the results beyond their bounds that are rounded to half precision when returned."""
    failing = list_failing(found)
    return {n for n in failing if is_rounded_to(found, n) or is_rounded_to(found, n, bfloat16)}


def find_formats_inside(
    attempt: Try, subject: Subject, before: Compared, after: Compared
) -> dict[str, Any]:
    """Find the formats of gradients that alone are computed in half precision, by name.

    A state or an adjoint may be stored in it, and others be computed without it. Their errors
    scatter like rounding and leave digits; those that move smoothly have another reason.
    """
    formats = dict[str, Any]()
    names = [n for n in list_excused(before, after) if n in before.gradients]
    for name in names:
        within = [dtype for dtype in FORMATS if is_within(before, [name], dtype)]
        if not within or is_lost(before, name) or not is_half(within[0]):
            continue
        if not moves_smoothly(attempt, subject, before, [name], within[0]):
            formats[name] = within[0]
    return formats


def has_format(values: Array) -> bool:
    """Tell whether numbers are those of a coarser format than float64, and no multiples of one.

    What is computed in such a format has its digits, unless it is used further in float64.
    """
    dtype = find_format(values)
    return dtype is not np.float64 and not have_one_spacing(values, dtype)


def find_format(values: Array) -> Any:
    """Find the coarsest format that holds these numbers exactly."""
    holding = (dtype for dtype in reversed(FORMATS) if are_numbers_of(values, dtype))
    return next(holding, np.float64)


def find_precision(before: Compared, after: Compared) -> Any:
    """Find the format in which a submission computes without returning it; None for none.

    Its errors scatter like rounding and leave digits, or its results are numbers of float32 or of
    bfloat16; its errors are within those allowed in that format, and far beyond those of the next
    finer one unless all are numbers of that format. This holds for half of the gradients or more,
    and none is precise, zeros not counted: one alone may have lost its digits otherwise. What
    float16 allows holds bfloat16's errors as well in small problems; the numbers tell which it is.
    """
    finer: Any = np.float64
    worst = find_largest_error(before)
    failing = set(list_failing(before))
    excused = {name for name in list_excused(before, after) if not is_lost(before, name)}
    excused |= {
        name for name in failing
        if fill_digits(before.submitted[name], np.float32) and is_within(before, [name], np.float32)
    }  # fmt: skip
    excused |= {name for name in failing if is_rounded_to(before, name, bfloat16)}
    gradients = {name for name in before.gradients if before.values[name].any()}
    if not gradients <= failing or 2 * len(excused & gradients) < max(1, len(gradients)):
        return None
    excused = {name for name in excused if not is_half(before.dtypes[name])}
    for dtype in FORMATS:
        names = [n for n in excused if is_coarser(dtype, before.dtypes[n])]
        if before.case.truth is None:
            return None
        if not names:  # it says so itself, and may compute in the next one
            finer = dtype
            continue
        known = before.case.truth(dtype, names)
        compared = compare_all({n: before.submitted[n] for n in names}, *known)
        units = float(describe_dtype(finer).eps / describe_dtype(dtype).eps)
        beyond = worst > 1 if dtype == bfloat16 else worst * units >= TYPICAL
        beyond |= all(fill_digits(before.submitted[name], dtype) for name in names)
        beyond &= dtype == bfloat16 or not are_all_of(before, names, bfloat16)
        finer, worst = dtype, worst_of(compared).error
        if beyond and worst <= 1:
            return dtype
    return None
