"""Findings as plain text: the verdict, the mistake, a table by gradient, the smallest case."""

from math import isfinite

from bptt_verifier.report.findings import Findings, Mistake, ParameterResult
from bptt_verifier.report.links import link_to_mistake
from bptt_verifier.tolerance.comparison import Verdict, find_symbol

HEADINGS = (
    "gradient",
    "worst error ÷ bound",
    "entry",
    "yours",
    "autodiff",
    "resolution",
    "verdict",
)


def render_text(findings: Findings) -> str:
    """The findings as text that fits a screen."""
    lines = [f"{findings.verdict}: {findings.subject}, {findings.tried}"]
    for mistake in findings.mistakes:
        lines += ["", f"{mistake.name}: {explain_mistake(mistake)}", link_to_mistake(mistake.name)]
    if findings.first_wrong_step is not None:
        lines += ["", f"Going backward, δ_{findings.first_wrong_step} is the first that is wrong."]
    lines += ["", *findings.notes] if findings.notes else []
    if findings.parameters:
        results = findings.parameters.items()
        rows = [HEADINGS, *(format_result(name, result) for name, result in results)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]
    if findings.steps:
        wrong = [step for step in findings.steps if step.verdict is Verdict.DISAGREES]
        worst = max(findings.steps, key=lambda step: step.relative_error / step.allowed)
        lines.append(
            f"\nSingle steps: {len(wrong)} of {len(findings.steps)} adjoints δ_t disagree; "
            f"the worst is δ_{worst.t}, relative error {worst.relative_error:.2g} "
            f"(allowed {worst.allowed:.2g})."
        )
    if findings.counterexample:
        case = findings.counterexample
        lines += [
            f"\nThe smallest failing case: {case.sizes}; {find_symbol(case.gradient)} is",
            f"  yours     {case.yours}\n  autodiff  {case.autodiff}\nReproduce: {case.reproduce}",
        ]
    return "\n".join(lines)


def explain_mistake(mistake: Mistake) -> str:
    """The explanation of a mistake, and where to read on."""
    where = f" See ({mistake.equation}) in docs/derivation.md." if mistake.equation else ""
    return mistake.explanation + where


def format_result(name: str, result: ParameterResult) -> tuple[str, ...]:
    """The row of one gradient, in the order of `HEADINGS`."""
    entry = ", ".join(map(str, result.entry)) or "–"
    yours, autodiff = f"{result.yours:.9g}", f"{result.autodiff:.9g}"
    resolution = f"{result.resolution:.2g}" if isfinite(result.resolution) else "–"
    compared = f"{result.error:.3g}", entry, yours, autodiff, resolution
    return find_symbol(name), *compared, str(result.verdict)
