"""Results in half precision at all sizes: docs/derivation.md, section 10.

The bounds of half precision allow for rounding every operation to it. Where most cases show that
the results alone are rounded, what is beyond that in another case is asked for at its neighbours.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_dtypes import bfloat16

from bptt_verifier.judge.comparisons import ask_at, find_forward_difference
from bptt_verifier.judge.neighbours import (
    ask_neighbours,
    has_format,
    is_half,
    is_half_precision,
    list_failing,
    weigh,
)
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.submission import Breach, Submission
from bptt_verifier.problems.problem import Array, Problem
from bptt_verifier.reference.case import Case
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.bounds import describe_dtype
from bptt_verifier.tolerance.comparison import compare
from bptt_verifier.tolerance.scatter import FAR, IN_HALF, NEIGHBOURS

SEVERAL = 8  # cases that show it, at least
BEYOND = 8  # roundings of the result are more than formulas with a few further ones make
LONE = (NEIGHBOURS + 1) ** 0.5  # times the limit of a mean is that of one error
# Times what the scatter explains is a mistake for certain, whatever the rounding. In bfloat16, more
# neighbours leave less to the scatter.
SURE, SURE_IN_BRIEF = 3, 8
SIDED, TELLING = 2 / 3, 100  # of the errors have one sign, of so many at least
MOST_TERMS = 512  # of one sign, of which the mean is 4 units of float16's sum or more
SPARSE = 0.5  # of the inputs are zero, and more, where they are pulses
WITHIN = 4  # draws of parameters that round to the same numbers
FAR_ABOVE = 2**10  # times what underflow may take

Open = tuple[Mapping[str, float], Compared]  # how many times are wrong, by name, at a case
Limits = tuple[Array, Array]  # what float32 allows, and one rounding of a result in it


class Rounding(NamedTuple):
    """What rounding the results of some cases show: of each case its limits, by name.

    The results named in `once` are computed in float32 or finer, and rounded at the end.
    """

    limits: Sequence[Mapping[str, Limits]]
    once: Collection[str]

    def list_known(self, number: int) -> list[str]:
        """List the results of a case that are rounded once."""
        return [name for name in self.limits[number] if name in self.once]


def find_rounding(settled: Sequence[Compared]) -> Rounding:
    """Find which results in half precision are rounded once, as half of the cases or more show.

    No gradient is where another one shows more: that of a bias may lose no more than that, whatever
    computes it. The loss and the prediction say nothing of gradients.
    """
    limits = [allow_one_rounding(found) for found in settled]
    names = dict.fromkeys(name for each in limits for name in each)
    shown = {name: are_rounded_once(name, settled, limits) for name in names}
    gradients = {name for found in settled for name in found.gradients}
    inside = any(shown[name] is False for name in gradients & names.keys())
    once = [n for n in names if shown[n] and not (inside and n in gradients)]
    return Rounding(limits, once)


def hold_to_one_rounding(settled: Sequence[Compared]) -> tuple[list[Compared], Rounding]:
    """Hold results that are rounded once to the errors of one rounding, where they have no others.

    Errors up to those of a few roundings are allowed. Beyond them, nothing is changed.
    """
    held, rounding = list(settled), find_rounding(settled)
    for i in range(len(held)):
        for name in rounding.list_known(i):
            limit = find_limit(rounding, i, name)
            if np.all(find_errors(held[i], name) <= limit):
                held[i] = allow(held[i], name, np.minimum(held[i].allowed[name], limit))
    return held, rounding


def decide_by_scatter(
    attempt: Try,
    subject: Subject,
    held: Sequence[Compared],
    rounding: Rounding,
    extreme: Sequence[Case],
) -> tuple[list[Compared], list[str]]:
    """Decide by scatter where results that are rounded once have errors beyond a few roundings.

    It decides on those that are rounded inside in the cases that are `extreme`, where the result is
    far from what underflows. A result that is wrong elsewhere is not asked for, nor is a sum of
    many terms. The second result are sentences on what is left open.
    """
    decided, open_by, lone_by = list(held), list[Open](), list[Open]()
    entries = sum(value.size for found in held for value in found.submitted.values())
    wrong = {name for found in held for name in list_failing(found)}
    every = {name for found in held for name in found.gradients}
    sided = [name for name in list_half_gradients(held) if errs_to_one_side(name, held)]
    for i, found in enumerate(held):
        known = rounding.list_known(i)
        inside = [name for name in rounding.limits[i] if name not in known]
        limits = {name: find_limit(rounding, i, name) for name in known if name not in wrong}
        decided[i] = decide_beyond(attempt, subject, found, limits, entries)
        if any(found.case is each for each in extreme):
            names = [name for name in inside if name not in wrong and is_testable(name, found)]
            least = {
                name: find_sure(name, found) if may_be_one_sided(name, every, sided) else 1
                for name in names
            }
            decided[i], slight, lone = decide_inside(attempt, subject, decided[i], least, entries)
            open_by += [(slight, found)] if slight else []
            lone_by += [(lone, found)] if lone else []
        wrong |= {*list_failing(decided[i])}
    doubts = [describe_slight(open_by)] if open_by else []
    return decided, doubts + ([describe_lone(lone_by)] if lone_by else [])


def decide_beyond(
    attempt: Try, subject: Subject, found: Compared, limits: Mapping[str, Array], entries: int
) -> Compared:
    """Decide on results that are rounded once, where an error is beyond these limits.

    Neighbours are nearer than those of other results in half precision, for rounding at the end is
    drawn anew there as well. What errs at the case alone is wrong, as at zeros that neighbours do
    not have.
    """
    beyond = [
        name for name, limit in limits.items()
        if has_few_terms(name, found, inside=False) and np.any(find_errors(found, name) > limit)
    ]  # fmt: skip
    if not beyond:
        return found
    decided = weigh(attempt, subject, found, beyond, entries, decisive=True, of_half=FAR)
    for name in beyond:
        if np.any(find_errors(found, name) > LONE * decided.allowed[name]):
            decided = allow(decided, name, np.minimum(found.allowed[name], limits[name]))
    return decided


def choose_extreme(subject: Subject, compared: Sequence[Compared], ordinary: int) -> list[Case]:
    """Choose the cases of scaled values, and those behind so many ordinary ones.

    At extreme sizes, one in float32 rounds to half precision as one in float64 does.
    """
    scaled = [each.case for each in compared[:ordinary] if subject.is_extreme(each.case)]
    return scaled + [each.case for each in compared[ordinary:] if not each.case.single]


def decide_inside(
    attempt: Try, subject: Subject, found: Compared, least: Mapping[str, float], entries: int
) -> tuple[Compared, Mapping[str, float], Mapping[str, float]]:
    """Decide on results that are rounded inside: beyond their scatter by `least` times is wrong.

    What is beyond by less is open, the second result, and so is what errs at the case alone.
    """
    names = [*least]
    if not names:
        return found, {}, {}
    decided = weigh(attempt, subject, found, names, entries, decisive=True)
    failing = [name for name in names if name in list_failing(decided)]
    times = measure_excess(attempt, subject, decided, failing)
    lone = {
        name: LONE for name in names
        if name not in failing
        and np.any(find_errors(found, name) > LONE * decided.allowed[name])
    }  # fmt: skip
    for name in failing:
        if times[name] <= 1 or times[name] < least[name]:
            decided = allow(decided, name, found.allowed[name])
    slight = {name: least[name] for name in failing if 1 < times[name] < least[name]}
    return decided, slight, lone


def excuse_one_sided(
    compared: Sequence[Compared], settled: Sequence[Compared]
) -> tuple[list[Compared], list[str]]:
    """Allow for rounding to one side, as toward zero, where the scatter has decided by little.

    A gradient that is beyond its scatter by more in any case is wrong. The second result are
    sentences on what is left open.
    """
    half, most, sure = list_half_gradients(settled), dict[str, float](), dict[str, float]()
    sided = list_one_sided(compared)
    for found in settled:
        for each in found.comparisons:
            most[each.name] = max(most.get(each.name, 0.0), each.error)
            sure[each.name] = max(sure.get(each.name, 0.0), find_sure(each.name, found))
    slight = {
        name: sure[name] for name in half
        if 1 < most[name] < sure[name] and name in sided
    }  # fmt: skip
    excused, open_by = list(settled), list[Open]()
    for i, (before, after) in enumerate(zip(compared, settled, strict=True)):
        names = [name for name in slight if name in list_failing(after)]
        for name in names:
            excused[i] = allow(excused[i], name, before.allowed[name])
        open_by += [({name: slight[name] for name in names}, after)] if names else []
    return excused, [describe_slight(open_by)] if open_by else []


def find_sure(name: str, found: Compared) -> float:
    """Find how many times the scatter is a mistake, if rounding may be to one side."""
    return SURE_IN_BRIEF if found.dtypes[name] == bfloat16 else SURE


def list_half_gradients(compared: Sequence[Compared]) -> list[str]:
    """List the gradients that are judged in half precision in any case."""
    half = (n for found in compared for n in found.gradients if is_half(found.dtypes[n]))
    return [*dict.fromkeys(half)]


def list_one_sided(compared: Sequence[Compared]) -> list[str]:
    """List the gradients of which errors may be to one side, as others show."""
    every = {name for found in compared for name in found.gradients}
    sided = [name for name in list_half_gradients(compared) if errs_to_one_side(name, compared)]
    return [name for name in every if may_be_one_sided(name, every, sided)]


def may_be_one_sided(name: str, gradients: Collection[str], sided: Collection[str]) -> bool:
    """Tell whether another gradient errs to one side, or this one where there is no other."""
    return not ({*gradients} - {name} or {name}).isdisjoint(sided)


def errs_to_one_side(name: str, compared: Sequence[Compared]) -> bool:
    """Tell whether most errors of a result have one sign, or most have the true one's or not.

    Smaller entries than a sixteenth of the largest say nothing: they may underflow, or cancel.
    """
    nothing = np.zeros(0, bool)
    above, outside = [nothing], [nothing]
    for found in compared:
        if is_half_precision(name, found):  # far from what underflows, which errs to one side
            true = found.values[name]
            errors = found.submitted[name].astype(np.float64) - true
            large = np.abs(true) > np.max(np.abs(true), initial=0.0) / 16
            large &= errors != 0
            above.append(errors[large] > 0)
            outside.append((errors * true)[large] > 0)
    signs = [np.concatenate(each) for each in (above, outside)]
    enough = len(signs[0]) >= TELLING
    return enough and any(not 1 - SIDED < each.mean() < SIDED for each in signs)


def is_testable(name: str, found: Compared) -> bool:
    """Tell whether the scatter of a result that is rounded inside may be all of its rounding."""
    few = has_few_terms(name, found, inside=True)
    return few and is_far_from_underflow(name, found) and not has_pulses(found)


def measure_excess(
    attempt: Try, subject: Subject, found: Compared, names: Sequence[str]
) -> dict[str, float]:
    """Measure how many times errors are what is allowed, at entries that follow the true ones.

    An entry that does not move as the true one does at the neighbours has lost its digits, as where
    a unit is saturated, and may be rounded alike at all of them.
    """
    asked = ask_neighbours(attempt, subject, found.case, IN_HALF) if names else []
    times = {}
    for name in names:
        near = [each for each in asked if name in each.submitted] or [found]
        yours, true = (
            np.stack([values[name].astype(np.float64) for values in every])
            for every in ([each.submitted for each in near], [each.values for each in near])
        )
        with np.errstate(all="ignore"):
            follows = (yours - true).std(axis=0) < true.std(axis=0) / 2
            beyond = np.abs((yours - true).mean(axis=0)) / found.allowed[name]
        times[name] = float(np.max(np.where(follows, beyond, 0.0)))
    return times


def describe_slight(cases: Sequence[Open]) -> str:
    """Say that errors are beyond their scatter by little."""
    names, where = describe_cases(cases)
    most = max(least for each, _ in cases for least in each.values())
    return (
        f"In half precision, errors of {names} are beyond what their scatter explains with "
        f"{where}, by less than {most:g} times: rounding to one side errs so, as toward zero, and "
        "so may a mistake."
    )


def describe_lone(cases: Sequence[Open]) -> str:
    """Say that errors at a case are none that its neighbours have."""
    names, where = describe_cases(cases)
    return (
        f"In half precision, errors of {names} are beyond what their scatter at neighbouring "
        f"values explains with {where}, and at these they are within it: what is wrong at some "
        "values alone, as at a zero, errs so."
    )


def describe_cases(cases: Sequence[Open]) -> tuple[str, str]:
    """List the names of some cases, and describe the first case and the number of the others."""
    names = dict.fromkeys(name for each, _ in cases for name in each)
    more = f" and in {len(cases) - 1} more" if len(cases) > 1 else ""
    return ", ".join(names), f"{cases[0][1].case.label}{more}"


def has_few_terms(name: str, found: Compared, *, inside: bool) -> bool:
    """Tell whether a result is no sum of many terms in half precision.

    Where they are of one sign, as those of a loss, and added up one by one, the sum hardly grows at
    last, at the neighbours as well. Gradients are such sums if numbers are rounded `inside`.
    """
    point = found.case.point
    if not isinstance(point, Problem):
        return True
    T, B, _, _, O = point.sizes
    if name == "loss":
        return bool(B * O <= MOST_TERMS)
    return not inside or bool(T * B <= MOST_TERMS)


def has_pulses(found: Compared) -> bool:
    """Tell whether a problem has a few inputs beside zeros, which saturate the units.

    A saturated unit is rounded alike at all neighbours.
    """
    point = found.case.point
    return isinstance(point, Problem) and bool(SPARSE < np.mean(point.x == 0) < 1)


def is_far_from_underflow(name: str, found: Compared) -> bool:
    """Tell whether what underflows in half precision is nothing beside a result.

    Each of its T B terms, for each of H units, may lose half of the smallest number, and these may
    have one sign.
    """
    point = found.case.point
    if not isinstance(point, Problem):
        return is_half_precision(name, found)
    T, B, _, H, _ = point.sizes
    lost = T * B * H * float(describe_dtype(found.dtypes[name]).smallest_subnormal) / 2
    finite = np.isfinite(found.submitted[name]).all()
    return bool(finite and np.max(np.abs(found.values[name])) >= FAR_ABOVE * lost)


def find_limit(rounding: Rounding, number: int, name: str) -> Array:
    """Find the errors of a few roundings of a result that is computed in float32."""
    fine, once = rounding.limits[number][name]
    return np.asarray(fine + BEYOND * once)


def are_rounded_once(
    name: str, settled: Sequence[Compared], limits: Sequence[Mapping[str, Limits]]
) -> bool | None:
    """Tell whether a result has the errors of one rounding in half of the cases or more.

    None where too few cases can show it.
    """
    pairs = zip(settled, limits, strict=True)
    shown = [is_rounded_once(found, name, each[name]) for found, each in pairs if name in each]
    once, other = shown.count(True), shown.count(False)
    return None if once + other < SEVERAL else once >= other


def allow_one_rounding(found: Compared) -> dict[str, Limits]:
    """Find the errors of float32, and those of one rounding of such a result, by name."""
    names = [name for name, dtype in found.dtypes.items() if is_half(dtype)]
    if not names or found.case.truth is None:
        return {}
    fine = found.case.truth(np.float32, names).allowed
    limits = {}
    for name in names:
        form, largest = describe_dtype(found.dtypes[name]), np.abs(found.values[name]) + fine[name]
        rounding = float(form.eps) / 2 * largest + float(form.smallest_subnormal)
        limits[name] = fine[name], rounding  # (N13)
    return limits


def is_rounded_once(found: Compared, name: str, limits: Limits) -> bool | None:
    """Tell whether no error is beyond one rounding; None where a case cannot show it."""
    fine, rounding = limits
    clear = fine <= rounding / 2
    if not clear.any():
        return None
    return bool(np.all((find_errors(found, name) <= fine + rounding)[clear]))


def find_errors(found: Compared, name: str) -> Array:
    """Find the sizes of a result's errors."""
    return np.abs(found.submitted[name].astype(np.float64) - found.values[name])


def allow(found: Compared, name: str, allowed: Array) -> Compared:
    """Compare a result again, with other allowed errors."""
    again = compare(name, found.submitted[name], found.values[name], allowed)
    comparisons = [again if each.name == name else each for each in found.comparisons]
    return found._replace(allowed=found.allowed | {name: allowed}, comparisons=comparisons)


def find_new_difference(
    subject: Subject, held: Sequence[Compared], decided: Sequence[Compared]
) -> Mistake | None:
    """Find a loss or prediction that is wrong where the scatter has decided."""
    changed = (after for before, after in zip(held, decided, strict=True) if after is not before)
    found = (find_forward_difference(subject, each) for each in changed)
    return next(filter(None, found), None)


def specify_format(
    gradients: Submission, subject: Subject, found: Compared, inferred: Any
) -> tuple[Any, bool]:
    """Tell a format that errors suggest from bfloat16, and whether parameters are rounded to it.

    What float16 allows holds the errors of bfloat16 as well in small problems.
    """
    of_case = gradients, subject, found
    if inferred is np.float16 and ignores_rounding(*of_case, bfloat16):
        return bfloat16, True
    half = inferred in (np.float16, bfloat16)
    return inferred, half and ignores_rounding(*of_case, inferred) is True


def are_parameters_rounded(
    gradients: Submission, subject: Subject, compared: Sequence[Compared], dtype: Any
) -> bool:
    """Tell whether a submission rounds its parameters to a format, as several cases show."""
    shown = [ignores_rounding(gradients, subject, found, dtype) for found in compared[:SEVERAL]]
    return False not in shown and shown.count(True) >= SEVERAL / 2


def ignores_rounding(
    gradients: Submission, subject: Subject, found: Compared, dtype: Any
) -> bool | None:
    """Tell whether all parameters that round to the same numbers give the same results.

    None where the next numbers give the same as well, or parameters are such numbers: what is
    rounded to a few decimals inside stays at all near ones.
    """
    rng = np.random.default_rng(0)
    given = {n: v for n, v in found.case.arguments.items() if n in found.gradients}
    if all(np.array_equal(round_to(value, dtype), value) for value in given.values()):
        return None
    moved = [{n: move_within(v, dtype, rng) for n, v in given.items()} for _ in range(WITHIN)]
    moved.append({n: round_to(v, dtype, next_ones=1) for n, v in given.items()})
    cases = (found.case._replace(arguments=found.case.arguments | each) for each in moved)
    answers = [ask_at(gradients, subject, case) for case in cases]
    found_so = found.submitted.items()
    *within, beyond = [
        None if isinstance(answer, Breach)
        else all(n in answer and np.array_equal(answer[n], v, equal_nan=True) for n, v in found_so)
        for answer in answers
    ]  # fmt: skip
    if False in within:
        return False
    return None if None in within or beyond else True


def round_to(values: Array, dtype: Any, next_ones: int = 0) -> Array:
    """Round numbers to a format, or so many of its numbers further from zero."""
    with np.errstate(over="ignore"):
        near = values.astype(dtype).astype(values.dtype)
    beyond = next_ones * np.sign(near) * find_spacing(near, dtype)
    return np.asarray(near + beyond, values.dtype)


def move_within(values: Array, dtype: Any, rng: np.random.Generator) -> Array:
    """Draw numbers that round to the same ones of a format as these do."""
    near = round_to(values, dtype)
    further = rng.uniform(-0.5, 0.5, near.shape) * find_spacing(near, dtype)
    moved = np.asarray(near + further, values.dtype)
    return np.where(round_to(moved, dtype) == near, moved, near)


def find_spacing(values: Array, dtype: Any) -> Array:
    """Find the distance from numbers of a format to the next ones, further from zero."""
    return np.asarray(2.0 ** (np.frexp(values)[1] - 1) * float(describe_dtype(dtype).eps))


def doubt_format(
    gradients: Submission, subject: Subject, compared: Sequence[Compared], dtype: Any
) -> Iterator[str]:
    """Say so where errors alone say that the submission computes in half precision."""
    results = dict[str, list[Array]]()
    for found in compared:
        for name in found.gradients:
            results.setdefault(name, []).append(found.submitted[name].ravel())
    shown = [has_format(np.concatenate(values)) for values in results.values()]
    few = 2 * sum(shown) < len(shown)
    if few and not are_parameters_rounded(gradients, subject, compared, dtype):
        yield (
            "Your errors are as large as those of half precision, but your results do not have its "
            "digits. A table of a function, an array of integers and numbers rounded to a few "
            "decimals err by as much. If you compute in half precision, return numbers of it."
        )
