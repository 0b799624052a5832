"""The conclusion from all cases: the report, with the diagnosis where something disagrees."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np

from bptt_verifier.judge.half_precision import list_one_sided
from bptt_verifier.judge.neighbours import is_half, list_excused, list_failing
from bptt_verifier.judge.steps import Steps, compare_steps, summarise_steps
from bptt_verifier.judge.subject import Compared, Subject, Try
from bptt_verifier.judge.submission import Breach
from bptt_verifier.judge.undecided import (
    accept_small_errors,
    accept_zeros,
    count_cases,
    describe_allowed_zeros,
    doubt_outside_sets,
    explain_untestable,
    withhold,
)
from bptt_verifier.judge.unguarded import list_doubts
from bptt_verifier.mistakes.effort import limit_effort
from bptt_verifier.mistakes.in_equations import FACTORS
from bptt_verifier.problems.problem import Array, Problem
from bptt_verifier.program.attempt import Failure
from bptt_verifier.program.attempt import attempt as protect
from bptt_verifier.reference import exact_values
from bptt_verifier.reference.case import Case
from bptt_verifier.report import (
    Counterexample,
    Curve,
    Decision,
    Mistake,
    ParameterResult,
    Report,
    nine_digits,
    shortest,
)
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.bounds import RESOLVING, describe_dtype, is_coarser
from bptt_verifier.tolerance.comparison import (
    Comparison,
    Verdict,
    compare,
    find_coarsest_dtype,
    overall,
    verdict_of,
    worst_of,
)

Progress = Callable[[int, int], None]

SHOWN = 100  # entries of a gradient that a counterexample shows whole
ALIKE = 2.0**-20  # times the relative error of a wrong gradient: an error that is no rounding


def summarise_parameters(
    comparisons: Iterable[Comparison], resolving: float = RESOLVING
) -> dict[str, ParameterResult]:
    """Find the worst entry of each gradient over all cases, and the verdict on it."""
    by_name: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_name.setdefault(comparison.name, []).append(comparison)
    results = {}
    for name, of_name in by_name.items():
        worst = worst_of(of_name)
        results[name] = ParameterResult(
            verdict_of(of_name, resolving), worst.error, worst.entry, worst.yours, worst.reference,
            worst.allowed, len(of_name), min(each.resolution for each in of_name),
        )  # fmt: skip
    return results


def list_comparisons(compared: Iterable[Compared]) -> Iterator[Comparison]:
    """List the comparisons of all cases."""
    return chain.from_iterable(found.comparisons for found in compared)


def describe_precision(
    compared: Sequence[Compared],
    settled: Sequence[Compared],
    known: tuple[Any, Any],
    overflows: Sequence[Breach],
    given: Any = None,
) -> Iterator[str]:
    """Describe the formats that results are judged in, overflows and errors that are rounding.

    The precisions `known` are those of the submission and of the loss. The finest format of the
    parameters `given` may be coarser than that of the judge's own cases.
    """
    precision, of_loss = known
    coarser, inside = dict[str, dict[str, None]](), dict[str, dict[str, None]]()
    for found in compared:
        finest = find_coarsest_dtype(*found.case.arguments.values())
        for name in dict.fromkeys((*found.gradients, *found.submitted)):
            returned = found.submitted[name].dtype
            if is_half(judged := found.dtypes[name]) and not is_half(returned):
                inside.setdefault(str(judged), {})[name] = None
            elif is_coarser(returned, finest):
                coarser.setdefault(str(returned), {})[name] = None
    for dtype, returned_in in coarser.items():
        if precision is not None and is_coarser(precision, dtype):
            continue  # it is judged in that format
        which = ", ".join(returned_in)
        if given is not None and describe_dtype(given).eps >= describe_dtype(dtype).eps:
            yield (
                f"You return {dtype} numbers for {which}, as the parameters given are: judged in "
                f"{dtype}, also where the judge draws finer ones."
            )
            continue
        finer = "where arguments are finer"
        yield f"You return {dtype} numbers for {which} {finer}: judged in {dtype}."
    for dtype, every in inside.items() if precision is None else ():
        others = [name for name in every if not any(name in each for each in coarser.values())]
        if others:
            yield (
                f"Errors of {', '.join(others)} are those of rounding in half precision: judged in "
                f"{dtype}."
            )
    if precision is not None:
        dtype = np.dtype(precision)
        rounding = "in half precision" if is_half(dtype) else f"to {dtype}"
        why = f"Your errors are those of rounding {rounding}"
        if of_loss is not None:
            why = f"As it stands, your loss rounds to {dtype} inside, as where it makes constants"
        yield f"{why}: all results are judged in {dtype}."
    if overflows:
        dtype, number = overflows[0].dtype, len(overflows)
        wider = f", or in {given}" if given is not None and given != dtype else ""
        why = (
            f"{dtype} overflows there."
            if is_half(dtype)
            else f"your results, in {dtype}, are not finite there, and finite at values a thousand "
            f"times smaller{wider}."
        )
        were = "was" if number == 1 else "were"
        yield f"{count_cases(number)} {were} left out: {why} {overflows[0].notes[0]}"
    pairs = zip(compared, settled, strict=True)
    excused = [list_excused(before, after) for before, after in pairs]
    names = sorted({name for of_case in excused for name in of_case})
    if names:
        yield (
            f"Beyond the bound, errors of {', '.join(names)} scatter like rounding at neighbouring "
            f"points in {count_cases(sum(map(bool, excused)))}, and count as rounding."
        )


def describe_hidden(
    settled: Sequence[Compared], precision: Any, zeros: Collection[str]
) -> Iterator[str]:
    """Describe where rounding in a coarser format than the arguments' hides a mistake.

    The cases of a subject are counted in the format of the arguments, and here in that of the
    results. The resolution of a gradient is that of the cases that can show a mistake in it.
    """
    hidden: dict[str, list[Comparison]] = {}
    formats = dict[str, None]()
    telling = {name: 0 for name in list_gradients(settled) if name not in zeros}
    for found in settled:
        finest = find_coarsest_dtype(*found.case.arguments.values())
        for each in found.comparisons:
            if each.name not in telling or each.name not in found.gradients:
                continue
            hides = each.verdict is Verdict.INCONCLUSIVE  # what has shown a mistake could do so
            telling[each.name] += not hides
            coarse = is_coarser(found.dtypes[each.name], finest)
            if coarse and hides and found.values[each.name].any():
                hidden.setdefault(found.case.label, []).append(each)
                formats[str(np.dtype(precision or found.dtypes[each.name]))] = None
    if not hidden:
        return
    where, least = f"In {' and '.join(formats)}", min(telling.values())
    of_all = f"{least} of {count_cases(len(settled))}"
    yield f"{where}, {of_all} {COUNTED}"
    sharp = {each.name for found in settled for each in found.comparisons if each.conclusive}
    for label, every in hidden.items():
        first = [each for each in every if each.name in sharp]
        if first:
            names = ", ".join(each.name for each in first)
            below = min(max(each.resolution for each in first), 1.0)
            more = f", and in {len(hidden) - 1} more" if len(hidden) > 1 else ""
            yield (
                f"{where}, rounding hides relative errors below {below:.1g} of {names} in "
                f"{label}{more}; the resolution is that of the other cases."
            )
            return


def list_gradients(compared: Iterable[Compared]) -> list[str]:
    """List the gradients of all cases."""
    return list(dict.fromkeys(name for found in compared for name in found.gradients))


def separate_steps(probe: Compared) -> Compared:
    """Hold each column of ∂L/∂U of a probe to the error allowed in δ_t, which it is. (B4)"""
    assert probe.case.truth is not None
    known = probe.case.truth(probe.dtypes["U"], ["U", "adjoints"])
    allowed = probe.allowed | {"U": known.allowed["adjoints"][:, 0].T}
    comparisons = [
        compare("U", probe.submitted["U"], probe.values["U"], allowed["U"])
        if comparison.name == "U"
        else comparison
        for comparison in probe.comparisons
    ]
    return probe._replace(allowed=allowed, comparisons=comparisons)


def measure_steps(probe: Compared) -> Steps:
    """Measure the error of every δ_t of a probe: the columns of ∂L/∂U."""
    return compare_steps(probe.submitted["U"], probe.values["U"].T, probe.allowed["U"].T)


def conclude(
    attempt: Try,
    subject: Subject,
    name: str,
    compared: Sequence[Compared],
    probes: Sequence[Compared],
    notes: tuple[str, ...],
    seconds: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Report on all cases, with a diagnosis where something disagrees.

    The search for a name takes `seconds` at most, and reports its progress.
    """
    parameters = summarise_parameters(list_comparisons([*compared, *probes]))
    parameters = accept_zeros(parameters, subject.zeros)
    notes = (*notes, *describe_allowed_zeros([*compared, *probes], subject.zeros))
    by_probe = [(probe, measure_steps(probe)) for probe in probes]
    steps = summarise_steps([found for _, found in by_probe]) if by_probe else ()
    wrong_steps = [step.t for step in steps if step.verdict is Verdict.DISAGREES]
    curves = tuple(
        Curve(str(p.case.arguments["U"].dtype), (*s.relative.tolist(),), (*s.allowed.tolist(),))
        for p, s in by_probe
    )
    report = Report(
        name,
        overall(parameters[name].verdict for name in list_gradients([*compared, *probes])),
        first_wrong_step=max(wrong_steps, default=None),
        parameters=parameters,
        steps=steps,
        curves=curves,
        cases=len(compared) + len(probes),
        notes=notes,
        largest_sizes=subject.find_largest_sizes(found.case for found in (*compared, *probes)),
    )
    if report.verdict is Verdict.DISAGREES:
        found = [*compared, *probes]
        doubts = list_doubts(subject, found) or doubt_outside_sets(attempt, subject, found)
        if doubts:
            return withhold(report, doubts)
        failing = [case for case in compared if case.fails]
        long = [probe for probe in probes if probe.fails]
        explained = explain(report, attempt, subject, failing, long, seconds, progress)
        return explained._replace(mistakes=refute_factors(explained.mistakes, found))
    if report.verdict is Verdict.INCONCLUSIVE:
        report = ask_exact_values(report, attempt, subject, [*compared, *probes])
        if report.certified or report.verdict is not Verdict.AGREES:
            return report
    if steps and all(step.verdict is Verdict.INCONCLUSIVE for step in steps):
        note = "No probe was precise enough to check a single step."
        return report._replace(notes=(*report.notes, note))
    if subject.doubt is not None:
        every = dict.fromkeys((*report.notes, subject.doubt))
        return report._replace(verdict=Verdict.INCONCLUSIVE, notes=(*every,))
    return report


def explain(
    report: Report,
    attempt: Try,
    subject: Subject,
    failing: Sequence[Compared],
    probes: Sequence[Compared],
    seconds: float | None,
    progress: Progress,
) -> Report:
    """Add the mistakes and the smallest failing case to a report."""
    # A mistake is easier to identify in float64.
    failing = sorted(failing, key=lambda found: found.case.single)
    probes = sorted(probes, key=lambda found: found.case.single)
    found, simplest = (), [*failing, *probes][0]
    wrong = [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES]
    attempt = fail_alike(attempt, [*failing, *probes], wrong)
    try:
        with limit_effort(seconds, progress) as effort:
            found = protect(subject.diagnose, attempt, failing, probes)
        complete = not effort.ended
        simplest = subject.shrink(attempt, simplest)
    except KeyboardInterrupt:  # what has been found by then stands
        complete = False
        said = "The search for a name was interrupted; the verdict does not depend on it."
        report = report._replace(notes=(*report.notes, said))
    which, details = ", ".join(wrong), dict[str, Any](gradients=wrong)
    remain = "remains unexplained" if len(wrong) == 1 else "remain unexplained"
    said = f"no known mistake, or pair of mistakes, reproduces your numbers for {which}."
    if not complete:
        said = f"the search for a name ended early; {which} {remain}."
    if isinstance(found, Failure):  # the numbers are wrong, whatever ends the search for a name
        said = f"the judge's search for a name raised {found.what}, so {which} {remain};"
        said += " the verdict stands, since it does not depend on a name."
        found, details = (), details | {"raised": found.what, "raised_at": found.file_line}
    mistakes: tuple[Mistake, ...] = found or (Mistake("unknown", said, details),)
    curves = protect(subject.chart_steps, failing) if failing and not report.curves else ()
    if isinstance(curves, Failure) or not curves:
        curves = report.curves or tuple(chain.from_iterable(each.curves for each in mistakes))
    return report._replace(
        verdict=Verdict.DISAGREES, mistakes=mistakes,
        counterexample=make_counterexample(subject, simplest), curves=curves,
    )  # fmt: skip


def refute_factors(
    mistakes: Sequence[Mistake], compared: Sequence[Compared]
) -> tuple[Mistake, ...]:
    """Take back the name of a constant factor where other cases show that there is none.

    All numbers of a case have one where the derivative of the loss by one number is wrong, as
    beyond a limit that other cases do not reach.
    """
    return tuple(
        refuted if each.name == "constant-factor" and (refuted := refute(each, compared)) else each
        for each in mistakes
    )


def refute(mistake: Mistake, compared: Sequence[Compared]) -> Mistake | None:
    """Say of a factor in which cases it is, if a case without it would have shown it."""
    names = mistake.details.get("gradients", ())
    failing = [each for each in compared if {*names} & {*list_failing(each)}]
    shapes = [each.case.shapes for each in failing]
    right = [
        each for each in compared
        if excludes(each, names, abs(find_factor(mistake, each.case, shapes) - 1))
    ]  # fmt: skip
    if not (failing and right):
        return None
    more = f" and in {len(failing) - 1} more" if len(failing) > 1 else ""
    others = "1 other" if len(right) == 1 else f"{len(right)} others"
    said = (
        f"{mistake.explanation.rstrip('.')} with {failing[0].case.label}{more}, and right in "
        f"{others}: no known mistake shows at these values only. What limits a number, or takes "
        "another branch there, may."
    )
    kept = {key: x for key, x in mistake.details.items() if key in ("gradients", "factor")}
    return Mistake("unknown", said, kept)


def find_factor(
    mistake: Mistake, case: Case, shapes: Collection[dict[str, tuple[int, ...]]]
) -> float:
    """Find the value at a case of a factor that is seen at these `shapes`; 1 where not known.

    It may be one of sizes, as B O is: those of a cell's problem are known.
    """
    by_sizes = FACTORS.get(mistake.details.get("factor", ""))
    if isinstance(case.point, Problem) and by_sizes:
        return by_sizes(case.point.sizes)
    known = isinstance(case.point, Problem) or case.shapes in shapes
    return float(mistake.details.get("value", 1.0)) if known else 1.0


def excludes(found: Compared, names: Collection[str], change: float) -> bool:
    """Tell whether a case shows that no gradient of these names changes so, relative to itself."""
    known = [each for each in found.comparisons if each.name in names]
    return bool(known) and all(
        each.verdict is Verdict.AGREES and each.resolution < change / 2 for each in known
    )


def fail_alike(attempt: Try, failing: Sequence[Compared], wrong: Collection[str]) -> Try:
    """Make the call after which a case fails only by errors like those of the wrong gradients.

    A right one may exceed the bound by rounding at a smaller case, of which no scatter was asked.
    """
    least: dict[str, float] = {}
    for found in failing:
        for name in set(wrong) & set(list_failing(found)):
            relative = ALIKE * find_relative_error(found, name)
            least[name] = min(relative, least.get(name, relative))

    def attempt_alike(case: Case) -> Compared | None:
        found = attempt(case)
        if found is None or not found.fails:
            return found
        comparisons = [
            each._replace(error=min(each.error, 1.0))
            if find_relative_error(found, each.name) < least.get(each.name, np.inf)
            else each
            for each in found.comparisons
        ]
        return found._replace(comparisons=comparisons)

    return attempt_alike


def find_relative_error(found: Compared, name: str) -> float:
    """Find the largest error of a result at a case, relative to its largest entry."""
    with np.errstate(all="ignore"):
        error = np.max(np.abs(found.submitted[name] - found.values[name]))
        return float(error / np.max(np.abs(found.values[name])))


def make_counterexample(subject: Subject, found: Compared) -> Counterexample:
    """Show one case as a report does: of a large gradient, the row with its worst entry."""
    worst = worst_of(found.comparisons)
    submitted, values = found.submitted[worst.name], found.values[worst.name]
    with np.errstate(all="ignore"):
        error = np.abs(submitted.astype(np.float64) - values) / found.allowed[worst.name]
    error = np.where(np.isnan(error), 0.0, error)  # nothing is known, or nothing is off
    row = ""
    if submitted.size > SHOWN and submitted.ndim > 1:
        first = worst.entry[0]
        submitted, values, error = submitted[first], values[first], error[first]
        row = f", row {first} of {worst.name}"
    arrays = found.case.arguments
    if sum(value.size for value in arrays.values()) > 4 * SHOWN:
        arrays = {}
    sizes = subject.describe_sizes(found) + row
    numbers, case = (submitted, values, error), subject.write_case(found)
    return show_numbers(sizes, worst.name, numbers, subject.reproduce(found), arrays, case)


def show_numbers(
    sizes: str,
    gradient: str,
    numbers: tuple[Array, Array, Array],
    call: str,
    arguments: Mapping[str, Array] = MappingProxyType({}),
    case: str = "",
) -> Counterexample:
    """Show numbers of a gradient, yours and the true ones, and errors in units of the allowed ones.

    `call` yields them again, and `case` is what the command line calls their case.
    """
    yours, autodiff, errors = numbers
    return Counterexample(
        sizes=sizes,
        arrays={name: shortest(value).tolist() for name, value in arguments.items()},
        gradient=gradient,
        yours=np.atleast_1d(nine_digits(yours)).tolist(),
        autodiff=np.atleast_1d(nine_digits(autodiff)).tolist(),
        error_over_bound=np.atleast_1d(errors).tolist(),
        reproduce=call,
        case=case,
    )


def ask_exact_values(
    report: Report, attempt: Try, subject: Subject, compared: Sequence[Compared]
) -> Report:
    """Decide an inconclusive report by exact values where they can be computed, else by size."""
    verdicts = {name: report.parameters[name].verdict for name in list_gradients(compared)}
    vague = [name for name, verdict in verdicts.items() if verdict is Verdict.INCONCLUSIVE]
    why, notes = tuple(explain_untestable(name, compared) for name in vague), report.notes
    decided: dict[str, Decision] = {}
    if exact_values.is_available():
        chosen = subject.choose_for_exact_values(compared)
        decided = exact_values.decide(chosen, vague, list_one_sided(compared))
    if all(each.verdict is Verdict.INCONCLUSIVE for each in decided.values()):
        return accept_small_errors(report, attempt, subject, vague, compared)
    report = report._replace(notes=(*notes, *why))
    settled = {
        name: result._replace(verdict=decided[name].verdict) if name in decided else result
        for name, result in report.parameters.items()
    }
    report = report._replace(parameters=settled, certified=decided)
    wrong = [n for n, each in decided.items() if each.verdict is Verdict.DISAGREES]
    right = [n for n, each in decided.items() if each.verdict is Verdict.AGREES]
    no_bound = f"No comparison of {', '.join(vague)} could have shown a mistake"
    if wrong:
        mistake = Mistake(
            "unknown",
            f"{', '.join(wrong)}: rounding in this number format cannot explain the distance from "
            "the exact values.",
            {"gradients": wrong},
        )
        notes = (*notes, f"{no_bound}; exact values decided.")
        return report._replace(verdict=Verdict.DISAGREES, mistakes=(mistake,), notes=notes)
    if len(right) == len(vague):
        worst = max(decision.deviation for decision in decided.values())
        note = f"{no_bound}; exact values decided: the worst relative error is {worst:.2g}."
        return report._replace(verdict=Verdict.AGREES, notes=(*notes, note))
    note = f"Exact values decided on {', '.join(right)} alone."
    return report._replace(notes=(*report.notes, note))
