"""The path from a submission to a report, the same for every subject."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.judge.neighbours import find_precision, list_failing, settle, weigh
from bptt_verifier.judge.repetition import find_dependence
from bptt_verifier.judge.steps import Steps, compare_steps, summarise_steps
from bptt_verifier.judge.subject import Compared, Copy, Subject, Try, find_dtype
from bptt_verifier.judge.submission import (
    Breach,
    Submission,
    ask,
    find_difference,
    make_breach,
    name_result,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import copies
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
)
from bptt_verifier.tolerance.comparison import (
    Comparison,
    Verdict,
    coarsest,
    compare,
    find_symbol,
    overall,
    verdict_of,
    worst_of,
)

Progress = Callable[[int, int], None]

ENTRIES = 100_000  # entries that a verdict compares, before they are counted
SHOWN = 100  # entries of a gradient that a counterexample shows whole


def judge(
    gradients: Callable[..., Any],
    subject: Subject,
    name: str,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Judge a function, and report whatever it does, with notes on its calls."""
    submission = Submission(gradients)
    report = judge_submission(submission, subject, name, progress)
    return report._replace(notes=(*report.notes, *submission.notes))


def judge_submission(
    gradients: Submission, subject: Subject, name: str, progress: Progress
) -> Report:
    """Judge a submission.

    The contract, the loss, the gradients and single steps are checked. If something disagrees, the
    mistake is diagnosed and the smallest failing case found. If every bound is too large to decide,
    exact values are compared.
    """
    compared: list[Compared] = []

    def report(verdict: Verdict, *mistakes: Mistake, notes: tuple[str, ...] = ()) -> Report:
        parameters, notes = summarise_parameters(compared), (*subject.notes, *notes)
        return Report(
            name, verdict, mistakes, parameters=parameters, cases=len(compared), notes=notes,
            largest_sizes=subject.find_largest_sizes(found.case for found in compared),
        )  # fmt: skip

    def refuse(how: Breach) -> Report:
        return report(Verdict.DISAGREES, how.mistake, notes=how.notes)

    for case in subject.draw_contract_cases():
        answer = ask_twice(gradients, subject, case)
        if isinstance(answer, Breach):
            return refuse(answer)
        differs = find_wrong_loss(subject, case, answer)
        if differs is not None:
            return report(Verdict.DISAGREES, differs, notes=(subject.refusal or "",))
    if subject.refusal is not None:
        return report(Verdict.INCONCLUSIVE, notes=(subject.refusal,))

    # Both are found at the first case in float64.
    precision: Any = None
    confirmed: list[str] = []

    def attempt(case: Case) -> Compared | None:
        found = compare_at(gradients, subject, case, precision=precision)
        return None if isinstance(found, Breach) else found

    def weigh_forward(found: Compared) -> Compared:
        forward = [name for name in list_failing(found) if name not in found.gradients]
        return weigh(attempt, subject, found, forward, ENTRIES) if forward else found

    in_float64 = 0
    for number, case in enumerate(subject.draw_cases()):
        doubt = subject.contradict(number, case)
        if doubt is not None:
            return report(Verdict.INCONCLUSIVE, notes=(doubt,))
        found = compare_at(gradients, subject, case, precision=precision)
        if isinstance(found, Breach):
            return refuse(found)
        in_float64 += not case.single
        if in_float64 == 1 and not case.single and list_failing(found):
            weighed = weigh(attempt, subject, found, list_failing(found), ENTRIES, far=True)
            precision, confirmed = find_precision(found, weighed), list_failing(weighed)
            found = found if precision is None else attempt(case) or found
        found = weigh_forward(found)
        differs = find_forward_difference(subject, found)
        if differs is not None:
            return report(Verdict.DISAGREES, differs)
        compared.append(found)
        progress(len(compared), subject.total)

    probes: list[Compared] = []
    for case in subject.draw_probes():
        found = compare_at(gradients, subject, case, precision=precision)
        if isinstance(found, Breach):
            return refuse(found)
        probes.append(separate_steps(found))
        progress(len(compared) + len(probes), subject.total)

    if not any(found.fails for found in (*compared, *probes)):
        for case in subject.draw_extreme_cases():
            found = compare_at(gradients, subject, case, precision=precision)
            if isinstance(found, Breach):
                return refuse(found)
            found = weigh_forward(found)
            differs = find_forward_difference(subject, found)
            if differs is not None:
                return report(Verdict.DISAGREES, differs)
            compared.append(found)
            progress(len(compared) + len(probes), subject.total)
    names = list_gradients([*compared, *probes])
    settled = settle(attempt, subject, [*compared, *probes], names, confirmed)
    again = partial(compare_at, gradients, subject, precision=precision)
    changed, remarks = find_dependence(gradients, settled, again)
    if changed is not None:
        return report(Verdict.DISAGREES, changed)
    formats = describe_precision([*compared, *probes], settled, precision)
    notes = (*formats, *subject.notes, *remarks)
    compared, probes = settled[: len(compared)], settled[len(compared) :]
    return conclude(attempt, subject, name, compared, probes, notes)


def ask_twice(gradients: Submission, subject: Subject, case: Case) -> dict[str, Array] | Breach:
    """Call a submission twice at a case; return the results if both times they are the same."""
    first = ask_at(gradients, subject, case)
    second = first if isinstance(first, Breach) else ask_at(gradients, subject, case)
    if isinstance(first, Breach) or isinstance(second, Breach):
        return second

    if case.truth is None:  # nothing tells what rounding may change
        return first
    dtypes = find_dtypes(first, case)
    return find_difference(first, second, partial(find_truth, case, dtypes)) or first


def ask_at(
    gradients: Submission, subject: Subject, case: Case, copy: Copy = copies
) -> dict[str, Array] | Breach:
    """Call a submission at a case; return its results. `copy` chooses the arguments' layout."""
    return ask(gradients, partial(subject.call, case, copy), subject.expect(case), case.label)


def find_wrong_loss(subject: Subject, case: Case, answer: dict[str, Array]) -> Mistake | None:
    """Find a returned loss that differs from JAX's, if the user's loss differs in NumPy and JAX."""
    named_loss = "loss" in case.arguments  # a parameter
    if subject.refusal is None or case.truth is None or "loss" not in answer or named_loss:
        return None
    values, allowed = find_truth(case, find_dtypes({"loss": answer["loss"]}, case))
    found = compare("loss", answer["loss"], values["loss"], allowed["loss"])
    return None if found.error <= 1 else describe_forward_difference(subject, case, found)


def find_truth(case: Case, dtypes: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Find the true value of each result at a case, and the error allowed in its format."""
    assert case.truth is not None
    values, allowed = {}, {}
    for dtype in dict.fromkeys(dtypes.values()):
        names = [name for name, each in dtypes.items() if each == dtype]
        known = case.truth(dtype, names)
        for name in names:
            values[name], allowed[name] = known.values[name], known.allowed[name]
    return values, allowed


def find_dtypes(submitted: dict[str, Array], case: Case, precision: Any = None) -> dict[str, Any]:
    """Find the format in which each result is judged."""
    return {name: np.dtype(find_dtype(name, submitted, case, precision)) for name in submitted}


def compare_at(
    gradients: Submission,
    subject: Subject,
    case: Case,
    copy: Copy = copies,
    precision: Any = None,
) -> Compared | Breach:
    """Call the submission at a case, and compare its results with the reference.

    `precision` is the format in which the submission computes, if it is coarser than its results'.
    """
    submitted = ask_at(gradients, subject, case, copy)
    if isinstance(submitted, Breach):
        return submitted
    dtypes = find_dtypes(submitted, case, precision)
    values, allowed = find_truth(case, dtypes)
    for name, value in submitted.items():
        if not np.isfinite(value).all() and np.isfinite(allowed[name]).all():
            entry = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
            where = f" at entry {list(entry)}" if entry else ""
            said = (
                f"{name_result(name)}: expected finite numbers as autodiff finds, found "
                f"{value[entry]}{where}, where autodiff gives {values[name][entry]:.6g}."
            )
            details = {"gradients": [name], "entry": list(entry)}
            return make_breach("not-finite", said, f"With {case.label}.", **details)
    comparisons = [compare(n, v, values[n], allowed[n]) for n, v in submitted.items()]
    return Compared(case, submitted, dtypes, values, allowed, comparisons)


def find_forward_difference(subject: Subject, found: Compared) -> Mistake | None:
    """Find a returned loss or prediction that is not the stated model's."""
    for comparison in found.comparisons:
        if comparison.name not in found.gradients and comparison.error > 1:
            return describe_forward_difference(subject, found.case, comparison)
    return None


def describe_forward_difference(subject: Subject, case: Case, found: Comparison) -> Mistake:
    """Describe a loss or prediction that is not the stated model's."""
    other = subject.name_model_of_loss(case, found.yours) if found.name == "loss" else ""
    said = (
        f"your forward pass differs: your {found.name} is {found.yours:.12g}, and that of "
        f"{subject.stated} is {found.reference:.12g}.{other}"
    )
    return Mistake("forward-differs", said, {"yours": found.yours, "stated": found.reference})


def summarise_parameters(compared: Iterable[Compared]) -> dict[str, ParameterResult]:
    """Find the worst entry of each gradient over all cases, and the verdict on it."""
    by_name: dict[str, list[Comparison]] = {}
    for found in compared:
        for comparison in found.comparisons:
            by_name.setdefault(comparison.name, []).append(comparison)
    results = {}
    for name, comparisons in by_name.items():
        worst = worst_of(comparisons)
        results[name] = ParameterResult(
            verdict_of(comparisons), worst.error, worst.entry, worst.yours, worst.reference,
            worst.allowed, len(comparisons), min(each.resolution for each in comparisons),
        )  # fmt: skip
    return results


def describe_precision(
    compared: Sequence[Compared], settled: Sequence[Compared], precision: Any
) -> Iterator[str]:
    """Describe the formats that results are judged in, and the errors that are rounding."""
    coarser: dict[str, list[str]] = {}
    for found in compared:
        finest = coarsest(*found.case.arguments.values())
        for name in found.gradients:
            returned = found.submitted[name].dtype
            if np.finfo(returned).eps > np.finfo(finest).eps:
                names = coarser.setdefault(str(returned), [])
                names += [name] if name not in names else []
    for dtype, names in coarser.items():
        which = ", ".join(names)
        yield f"You return {dtype} for {which} where the arguments are finer: judged in {dtype}."
    if precision is not None:
        dtype = np.dtype(precision)
        yield f"Your errors scatter like rounding in {dtype}: all results are judged in {dtype}."
    pairs = zip(compared, settled, strict=True)
    excused = [set(list_failing(before)) - set(list_failing(after)) for before, after in pairs]
    names = sorted(set().union(*excused))
    if names:
        yield (
            f"Beyond the bound, errors of {', '.join(names)} scatter like rounding at neighbouring "
            f"points in {sum(map(bool, excused))} cases, and count as rounding."
        )


def accept_zeros(
    parameters: dict[str, ParameterResult], zeros: Collection[str]
) -> dict[str, ParameterResult]:
    """Let gradients agree that are zero to rounding, as they are at any point."""
    return {
        name: result._replace(verdict=Verdict.AGREES)
        if name in zeros and result.verdict is Verdict.INCONCLUSIVE
        else result
        for name, result in parameters.items()
    }


def list_gradients(compared: Iterable[Compared]) -> list[str]:
    """The names of the gradients of all cases."""
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
) -> Report:
    """Report on all cases, with a diagnosis where something disagrees."""
    parameters = accept_zeros(summarise_parameters([*compared, *probes]), subject.zeros)
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
        failing = [case for case in compared if case.fails]
        long = [probe for probe in probes if probe.fails]
        return explain(report, attempt, subject, failing, long)
    if report.verdict is Verdict.INCONCLUSIVE:
        return ask_exact_values(report, subject, [*compared, *probes])
    if steps and all(step.verdict is Verdict.INCONCLUSIVE for step in steps):
        note = "No probe was precise enough to check a single step."
        return report._replace(notes=(*report.notes, note))
    if subject.doubt is not None:
        return report._replace(verdict=Verdict.INCONCLUSIVE, notes=(*report.notes, subject.doubt))
    return report


def explain(
    report: Report,
    attempt: Try,
    subject: Subject,
    failing: Sequence[Compared],
    probes: Sequence[Compared],
) -> Report:
    """Add the mistakes and the smallest failing case to a report."""
    # A mistake is easier to identify in float64.
    failing = sorted(failing, key=lambda found: found.case.single)
    probes = sorted(probes, key=lambda found: found.case.single)
    mistakes = subject.diagnose(attempt, failing, probes)
    if not mistakes:
        wrong = [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES]
        which = ", ".join(wrong) or "single steps"
        said = f"no known mistake, or pair of mistakes, reproduces your numbers for {which}."
        mistakes = (Mistake("unknown", said, {"gradients": wrong}),)
    smallest = make_counterexample(subject, subject.shrink(attempt, [*failing, *probes][0]))
    return report._replace(verdict=Verdict.DISAGREES, mistakes=mistakes, counterexample=smallest)


def make_counterexample(subject: Subject, found: Compared) -> Counterexample:
    """Show one case as a report does: of a large gradient, the row with its worst entry."""
    worst = worst_of(found.comparisons)
    submitted, values = found.submitted[worst.name], found.values[worst.name]
    with np.errstate(all="ignore"):
        error = np.abs(submitted.astype(np.float64) - values) / found.allowed[worst.name]
    error = np.where((submitted == values) | np.isnan(error), 0.0, error)
    row = ""
    if submitted.size > SHOWN and submitted.ndim > 1:
        first = worst.entry[0]
        submitted, values, error = submitted[first], values[first], error[first]
        row = f", row {first} of {worst.name}"
    arrays = found.case.arguments
    if sum(value.size for value in arrays.values()) > 4 * SHOWN:
        arrays = {}
    yours, autodiff = nine_digits(submitted), nine_digits(values)
    return Counterexample(
        sizes=subject.describe_sizes(found) + row,
        arrays={name: value.tolist() for name, value in arrays.items()},
        gradient=worst.name,
        yours=np.atleast_1d(yours).tolist(),
        autodiff=np.atleast_1d(autodiff).tolist(),
        error_over_bound=np.atleast_1d(error).tolist(),
        reproduce=subject.reproduce(found),
    )


def ask_exact_values(report: Report, subject: Subject, compared: Sequence[Compared]) -> Report:
    """Decide an inconclusive report by exact values, where they can be computed."""
    verdicts = {name: report.parameters[name].verdict for name in list_gradients(compared)}
    vague = [name for name, verdict in verdicts.items() if verdict is Verdict.INCONCLUSIVE]
    why, notes = tuple(explain_untestable(name, compared) for name in vague), report.notes
    report = report._replace(notes=(*notes, *why))
    decided: dict[str, Decision] = {}
    if exact_values.is_available():
        decided = exact_values.decide(subject.choose_for_exact_values(compared), vague)
    if not decided:
        return report
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
    if right:
        note = f"Exact values decided on {', '.join(right)} alone."
        return report._replace(notes=(*report.notes, note))
    return report


def explain_untestable(name: str, compared: Sequence[Compared]) -> str:
    """Explain why no comparison of one gradient could have shown a mistake."""
    symbol = find_symbol(name)
    found = [each for each in compared if name in each.values and each.values[name].any()]
    if not found:
        return f"{symbol} is not testable: it is zero in every case."
    with np.errstate(all="ignore"):
        ratio = min(
            float(np.max(each.allowed[name]) / np.max(np.abs(each.values[name]))) for each in found
        )
    return (
        f"{symbol} is not testable: rounding alone may move it by {ratio:.2g} of its largest entry "
        "in the precision that you computed in, beyond 2⁻⁶."
    )
