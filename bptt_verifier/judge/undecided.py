"""What comparisons leave undecided: gradients that none of them could have shown to be wrong.

docs/derivation.md, sections 9 and 10.
"""

from collections.abc import Collection, Iterator, Sequence, Set

import numpy as np

from bptt_verifier.judge.neighbours import (
    ENTRIES,
    collect_errors,
    is_half,
    list_excused,
    list_failing,
    measure,
)
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.report import ParameterResult, Report
from bptt_verifier.tolerance.bounds import RESOLVING, describe_dtype
from bptt_verifier.tolerance.comparison import (
    Verdict,
    find_coarsest_dtype,
    find_symbol,
    overall,
)
from bptt_verifier.tolerance.scatter import DISTANCE, IN_HALF, NEIGHBOURS

IN_SET = 4  # cases, at least, in which gradients must agree in a special set
MEASURED = 4  # cases, at least, whose errors must be small where rounding may be large
PRECISE = 0.25  # times 2⁻⁶: the error of the reference there, relative to the gradient


def state_excused_resolutions(
    report: Report, compared: Sequence[Compared], settled: Sequence[Compared]
) -> Report:
    """State no finer resolution of a gradient than where its errors counted as rounding.

    Errors of that size have passed, however sharp other cases are, in which they were smaller: the
    resolution is at least that of one of these cases, and the largest of these errors. An
    error that scatters by more than the gradient at all such points, where the bound is below 2⁻⁶
    of it, is undecided, except in half precision: a mistake at ill-conditioned points scatters so,
    too.
    """
    excused: dict[str, list[float]] = {}
    passed: dict[str, float] = {}
    vague = dict[str, None]()
    for before, after in zip(compared, settled, strict=True):
        names = list_excused(before, after)
        sharp = {each.name for each in before.comparisons if each.conclusive}
        for found in after.comparisons:
            if found.name in names:
                excused.setdefault(found.name, []).append(found.resolution)
                if after.values[found.name].any():
                    away = find_distance(after, found.name)
                    passed[found.name] = max(passed.get(found.name, 0.0), away)
                if found.name in sharp and not is_half(after.dtypes[found.name]):
                    vague[found.name] = None
    coarser = {
        name: result._replace(
            resolution=max(result.resolution, min(excused[name]), passed.get(name, 0.0))
        )
        for name, result in report.parameters.items()
        if name in excused
    }
    report = report._replace(parameters=report.parameters | coarser)
    undecided = [n for n in vague if coarser[n].verdict is Verdict.AGREES and min(excused[n]) > 1]
    if report.verdict is not Verdict.AGREES or not undecided:
        return report
    changed = {n: coarser[n]._replace(verdict=Verdict.INCONCLUSIVE) for n in undecided}
    note = (
        f"Errors of {', '.join(undecided)} beyond the bound scatter by more than the "
        "gradient at neighbouring points, where rounding cannot be told from a mistake."
    )
    return report._replace(
        verdict=Verdict.INCONCLUSIVE, parameters=report.parameters | changed,
        notes=(*report.notes, note),
    )  # fmt: skip


def state_resolutions_of_formats(report: Report, settled: Sequence[Compared]) -> Report:
    """State no finer resolution of a gradient than in the coarsest format it was returned in.

    Some results may be rounded where others are not, as at some sizes. Cases with arguments in the
    coarser format show nothing of that. Where all cases in it hide mistakes, a note says so.
    """
    if not settled:
        return report
    by_format: dict[str, dict[float, list[float]]] = {}
    finest = min(map(find_unit, settled))
    for found in settled:
        for each in found.comparisons if find_unit(found) == finest else ():
            unit = float(describe_dtype(found.dtypes[each.name]).eps)
            known = by_format.setdefault(each.name, {}).setdefault(unit, [])
            known += [each.resolution] * each.conclusive
    least = {name: min(known[max(known)], default=0.0) for name, known in by_format.items()}
    parameters = {
        name: result._replace(resolution=max(result.resolution, least.get(name, 0.0)))
        for name, result in report.parameters.items()
    }
    return report._replace(parameters=parameters)


def find_unit(found: Compared) -> float:
    """Find the distance from 1 to the next number in the coarsest format of the arguments."""
    return float(describe_dtype(find_coarsest_dtype(*found.case.arguments.values())).eps)


def accept_zeros(
    parameters: dict[str, ParameterResult], zeros: Collection[str]
) -> dict[str, ParameterResult]:
    """Let gradients agree that are zero to rounding, as they are at any point.

    No error is relative to them, so that they have no resolution.
    """
    accepted = {
        name: parameters[name]._replace(resolution=np.inf) for name in parameters if name in zeros
    }
    for name, result in accepted.items():
        if result.verdict is Verdict.INCONCLUSIVE:
            accepted[name] = result._replace(verdict=Verdict.AGREES)
    return parameters | accepted


def describe_allowed_zeros(compared: Sequence[Compared], zeros: Set[str]) -> Iterator[str]:
    """Describe which entries pass as zero of the gradients that are zero in every case."""
    least = dict[str, float]()
    for found in compared:
        for name in zeros & found.allowed.keys():
            most = float(np.max(found.allowed[name], initial=0.0))
            least[name] = min(least.get(name, np.inf), most)
    stated = [n for n in sorted(least) if least[n] > np.finfo(np.float32).tiny]
    listed = [f"{least[n]:.2g} of {find_symbol(n)}" for n in stated]
    if listed:
        *others, last = listed
        said = f"{', '.join(others)} and {last}" if others else last
        yield f"Entries up to {said} pass as zero, in the most sensitive case."


def accept_small_errors(
    report: Report,
    attempt: Try,
    subject: Subject,
    vague: Sequence[str],
    compared: Sequence[Compared],
) -> Report:
    """Let gradients agree whose errors are small and scatter around zero, although no bound tells.

    What a coarse format allows may be far too much, as for the solution of a badly scaled system.
    The errors have to be small in each case whose reference is precise, and those of neighbours to
    scatter around zero (N3), which is the resolution. Explains why the others are not testable.
    """
    parameters, notes = dict(report.parameters), list(report.notes)
    for name in vague:
        precise = [each for each in compared if is_reference_precise(each, name)]
        away, seen = [find_distance(each, name) for each in precise], [np.inf]
        if len(away) >= MEASURED and max(away) <= RESOLVING:
            chosen = precise[:MEASURED]
            seen = [measure_resolution(attempt, subject, each, name) for each in chosen]
        if max(seen) > RESOLVING:
            notes.append(explain_untestable(name, compared))
            continue
        found = report.parameters[name]
        parameters[name] = found._replace(verdict=Verdict.AGREES, resolution=min(seen))
        notes.append(
            f"Rounding might move {find_symbol(name)} by more than 2⁻⁶ of its largest entry; your "
            f"errors are within {max(away):.1g} of it in {count_cases(len(away))}, and "
            "scatter around zero at neighbouring points."
        )
    verdict = overall(parameters[name].verdict for name in vague)
    return report._replace(verdict=verdict, parameters=parameters, notes=(*notes,))


def measure_resolution(attempt: Try, subject: Subject, found: Compared, name: str) -> float:
    """Measure the error that would have been seen beside the scatter, relative to the gradient.

    It is infinite where the errors do not scatter around zero, or too few neighbours answer.
    """
    distance = IN_HALF if is_half(found.dtypes[name]) else DISTANCE
    errors = collect_errors(attempt, subject, found.case, [name], distance)[name]
    if len(errors) < NEIGHBOURS // 2:
        return np.inf
    # What is allowed says nothing here of how the errors of the entries compare.
    alike = found._replace(allowed={name: np.ones(found.values[name].shape)})
    scatter = measure(subject, alike, name, errors, ENTRIES)
    here = np.abs(found.submitted[name] - found.values[name])
    most = (len(errors) + 1) ** 0.5 * scatter.limit  # of one error
    if (scatter.mean > scatter.limit).any() or (here > most).any():
        return np.inf
    return float(np.max(scatter.limit) / np.max(np.abs(found.values[name])))


def is_reference_precise(found: Compared, name: str) -> bool:
    """True if the reference in float64 has few of the errors that would have to be seen."""
    if name not in found.gradients or found.case.truth is None:
        return False
    allowed = found.case.truth(np.float64, (name,)).allowed[name]
    largest = np.abs(found.values[name])
    return bool(np.max(allowed) <= PRECISE * RESOLVING * np.max(largest) > 0)


def find_distance(found: Compared, name: str) -> float:
    """Find the largest error of a gradient, relative to its largest entry."""
    values = found.values[name]
    away = np.abs(found.submitted[name].astype(np.float64) - values)
    return float(np.nan_to_num(np.max(away) / np.max(np.abs(values)), nan=np.inf))


def doubt_solver(subject: Subject, settled: Sequence[Compared]) -> list[str]:
    """Say so where no error is larger than what a solver in code without a trace may leave.

    It ends by a tolerance, as a minimiser does, and the loss and its gradient keep what is left.
    """
    errors = [
        find_distance(found, name) if found.values[name].any() else np.inf
        for found in settled
        for name in list_failing(found)
    ]
    cases = [found.case for found in settled if list_failing(found)]
    if not errors or not subject.may_leave(cases, max(errors)):
        return []
    return [
        f"Your results differ from the reference by up to {max(errors):.2g} of their largest "
        "entry. That is beyond rounding, and a mistake may err by as little; but the loss cannot "
        "be traced, and a solver or a loop in it may stop this early. If there is one, let it take "
        "more steps."
    ]


def doubt_outside_sets(attempt: Try, subject: Subject, compared: Sequence[Compared]) -> list[str]:
    """Say so where gradients agree for parameters of a special set, as those given, alone.

    They may be meant for symmetric matrices, for instance; drawn ones are not. A mistake that does
    not show at symmetric ones leaves the same numbers.
    """
    home = [each for each in compared if not subject.may_be_outside(each.case)]
    failing = sum(each.fails for each in compared)
    if not home or not all(each.agrees for each in home):
        return []
    said, drawn = subject.draw_in_sets(home[0].case)
    inside = [found for case in drawn if (found := attempt(case)) is not None]
    if sum(each.agrees for each in inside) < IN_SET or any(each.fails for each in inside):
        return []
    drawn_like, others = count_cases(len(inside)), count_cases(len(compared) - len(home))
    return [
        f"Your gradients agree at the parameters given and at {drawn_like} drawn like them, where "
        f"{said}, and disagree at {failing} of {others} where that does not hold. They may be "
        "meant for such parameters alone, or a mistake may not show there. If yours are always "
        "such, judge them there: --case 0."
    ]


def withhold(report: Report, doubts: Sequence[str]) -> Report:
    """Withhold a verdict, of every gradient that disagrees, for these doubts."""
    open_left = {
        name: each._replace(verdict=Verdict.INCONCLUSIVE)
        if each.verdict is Verdict.DISAGREES
        else each
        for name, each in report.parameters.items()
    }
    notes = (*doubts, *report.notes)
    return report._replace(verdict=Verdict.INCONCLUSIVE, parameters=open_left, notes=notes)


def explain_untestable(name: str, compared: Sequence[Compared]) -> str:
    """Explain why no comparison of one gradient could have shown a mistake."""
    symbol = find_symbol(name)
    found = [each for each in compared if name in each.values and each.values[name].any()]
    if not found:
        return f"{symbol} is not testable: it is zero in every case."
    sizes = [
        (float(np.max(np.abs(each.values[name]))), np.dtype(each.dtypes[name])) for each in found
    ]
    most, finest = max(sizes, key=lambda each: each[0])
    least, coarsest = min(sizes, key=lambda each: each[0])
    smallest = float(describe_dtype(finest).smallest_normal)
    largest = float(describe_dtype(coarsest).max)
    if most < smallest:
        return (
            f"{symbol} is not testable: its entries, {most:.2g} at most, are below the normal "
            f"numbers of {finest}, from {smallest:.2g} on."
        )
    if least > largest:
        return (
            f"{symbol} is not testable: its largest entry, {least:.2g} at least, is beyond the "
            f"numbers of {coarsest}, up to {largest:.2g}."
        )
    with np.errstate(all="ignore"):
        ratio = min(
            float(np.max(each.allowed[name]) / np.max(np.abs(each.values[name]))) for each in found
        )
    much = f"{ratio:.2g} of" if ratio < 1 else "more than"
    return (
        f"{symbol} is not testable: rounding alone may move it by {much} its largest entry in the "
        "precision that you computed in, beyond 2⁻⁶."
    )


def count_cases(number: int) -> str:
    """Write how many cases there are."""
    return f"{number} case{'' if number == 1 else 's'}"


def count_conclusive(subject: Subject, settled: Sequence[Compared]) -> dict[str, int]:
    """Count the cases that could have shown a mistake, by the name of the gradient."""
    telling = dict[str, int]()
    for found in settled:
        for each in found.comparisons:
            if each.name in found.gradients and each.name not in subject.zeros:
                shown = each.verdict is not Verdict.INCONCLUSIVE
                telling[each.name] = telling.get(each.name, 0) + shown
    return telling
