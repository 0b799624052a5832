"""The path from a submission to a report, the same for every subject."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bptt_verifier.judge.steps import Steps, compare_steps, summarise_steps
from bptt_verifier.judge.subject import Compared, Subject, find_dtype
from bptt_verifier.judge.submission import Breach, ask, find_difference, make_breach, name_result
from bptt_verifier.problems.problem import Array
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
    compare,
    find_symbol,
    overall,
    verdict_of,
    worst_of,
)

Gradients = Callable[..., Any]
Progress = Callable[[int, int], None]

SHOWN = 100  # entries of a gradient that a counterexample shows whole


def judge(
    gradients: Gradients, subject: Subject, name: str, progress: Progress = lambda done, total: None
) -> Report:
    """Judge a submission, and report whatever it does.

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

    for number, case in enumerate(subject.draw_cases()):
        doubt = subject.contradict(number, case)
        if doubt is not None:
            return report(Verdict.INCONCLUSIVE, notes=(doubt,))
        found = compare_at(gradients, subject, case)
        if isinstance(found, Breach):
            return refuse(found)
        differs = find_forward_difference(subject, found)
        if differs is not None:
            return report(Verdict.DISAGREES, differs)
        compared.append(found)
        progress(len(compared), subject.total)

    probes: list[Compared] = []
    for case in subject.draw_probes():
        found = compare_at(gradients, subject, case)
        if isinstance(found, Breach):
            return refuse(found)
        probes.append(found)
        progress(len(compared) + len(probes), subject.total)

    if not any(found.fails for found in (*compared, *probes)):
        for case in subject.draw_extreme_cases():
            found = compare_at(gradients, subject, case)
            if isinstance(found, Breach):
                return refuse(found)
            differs = find_forward_difference(subject, found)
            if differs is not None:
                return report(Verdict.DISAGREES, differs)
            compared.append(found)
            progress(len(compared) + len(probes), subject.total)
            if found.fails and case.in_doubt is not None:
                break  # to measure the errors of every other large case takes seconds
    return conclude(gradients, subject, name, compared, probes)


def ask_twice(gradients: Gradients, subject: Subject, case: Case) -> dict[str, Array] | Breach:
    """Call a submission twice at a case; return the results if both times they are the same."""
    first = ask_at(gradients, subject, case)
    second = first if isinstance(first, Breach) else ask_at(gradients, subject, case)
    if isinstance(first, Breach) or isinstance(second, Breach):
        return second

    def allow() -> dict[str, Array]:
        return {} if case.truth is None else find_truth(case, first)[1]

    return find_difference(first, second, allow) or first


def ask_at(gradients: Gradients, subject: Subject, case: Case) -> dict[str, Array] | Breach:
    """Call a submission at a case; return its results."""
    return ask(gradients, subject.call(case), subject.expect(case), case.label)


def find_wrong_loss(subject: Subject, case: Case, answer: dict[str, Array]) -> Mistake | None:
    """Find a returned loss that differs from JAX's, if the user's loss differs in NumPy and JAX."""
    named_loss = "loss" in case.arguments  # a parameter
    if subject.refusal is None or case.truth is None or "loss" not in answer or named_loss:
        return None
    values, allowed = find_truth(case, {"loss": answer["loss"]})
    found = compare("loss", answer["loss"], values["loss"], allowed["loss"])
    return None if found.error <= 1 else describe_forward_difference(subject, case, found)


def find_truth(
    case: Case, submitted: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Find the true value of each result at a case, and the error allowed in its precision."""
    assert case.truth is not None
    by_dtype: dict[Any, list[str]] = {}
    for name in submitted:
        by_dtype.setdefault(np.dtype(find_dtype(name, submitted, case)), []).append(name)
    values, allowed = {}, {}
    for dtype, names in by_dtype.items():
        known = case.truth(dtype, names)
        for name in names:
            values[name], allowed[name] = known.values[name], known.allowed[name]
    return values, allowed


def compare_at(gradients: Gradients, subject: Subject, case: Case) -> Compared | Breach:
    """Call the submission at a case, and compare its results with the reference."""
    submitted = ask_at(gradients, subject, case)
    if isinstance(submitted, Breach):
        return submitted
    found = compare_results(case, submitted)
    if case.in_doubt is None:
        return found
    if isinstance(found, Compared) and all(each.error <= 1 for each in found.comparisons):
        return found
    return compare_results(case._replace(truth=case.in_doubt), submitted)


def compare_results(case: Case, submitted: dict[str, Array]) -> Compared | Breach:
    """Compare the results of a submission at a case with the reference."""
    values, allowed = find_truth(case, submitted)
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
    return Compared(case, submitted, values, allowed, comparisons)


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
            worst.allowed, len(comparisons),
        )  # fmt: skip
    return results


def list_gradients(compared: Iterable[Compared]) -> list[str]:
    """The names of the gradients of all cases."""
    return list(dict.fromkeys(name for found in compared for name in found.gradients))


def measure_steps(probe: Compared) -> Steps:
    """Measure the error of every δ_t of a probe: the columns of ∂L/∂U."""
    assert probe.case.truth is not None
    known = probe.case.truth(find_dtype("U", probe.submitted, probe.case), ["U", "adjoints"])
    adjoints, allowed = known.values["adjoints"], known.allowed["adjoints"]
    return compare_steps(probe.submitted["U"], adjoints[:, 0], allowed[:, 0])


def conclude(
    gradients: Gradients,
    subject: Subject,
    name: str,
    compared: Sequence[Compared],
    probes: Sequence[Compared],
) -> Report:
    """Report on all cases, with a diagnosis where something disagrees."""
    parameters = summarise_parameters([*compared, *probes])
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
        notes=subject.notes,
        largest_sizes=subject.find_largest_sizes(found.case for found in (*compared, *probes)),
    )
    if report.verdict is Verdict.DISAGREES or wrong_steps:
        failing = [case for case in compared if case.fails]
        long = [probe for probe, found in by_probe if probe.fails or (found.error > 1).any()]
        return explain(report, gradients, subject, failing, long)
    if report.verdict is Verdict.INCONCLUSIVE:
        return ask_exact_values(report, subject, [*compared, *probes])
    if steps and all(step.verdict is Verdict.INCONCLUSIVE for step in steps):
        note = "No probe was precise enough to check a single step."
        return report._replace(notes=(*report.notes, note))
    return report


def explain(
    report: Report,
    gradients: Gradients,
    subject: Subject,
    failing: Sequence[Compared],
    probes: Sequence[Compared],
) -> Report:
    """Add the mistakes and the smallest failing case to a report."""

    def attempt(case: Case) -> Compared | None:
        found = compare_at(gradients, subject, case)
        return None if isinstance(found, Breach) else found

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
    why = tuple(explain_untestable(name, compared) for name in vague)
    report = report._replace(notes=(*report.notes, *why))
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
        notes = (*subject.notes, f"{no_bound}; exact values decided.")
        return report._replace(verdict=Verdict.DISAGREES, mistakes=(mistake,), notes=notes)
    if len(right) == len(vague):
        worst = max(decision.deviation for decision in decided.values())
        note = f"{no_bound}; exact values decided: the worst relative error is {worst:.2g}."
        return report._replace(verdict=Verdict.AGREES, notes=(*subject.notes, note))
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
