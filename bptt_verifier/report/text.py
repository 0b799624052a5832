"""Findings as plain text: the verdict, the mistake, a table by gradient, the smallest case."""

import os
from contextlib import suppress
from io import StringIO
from math import isfinite
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bptt_verifier.console.terminal import fit
from bptt_verifier.report.findings import Findings, Mistake, ParameterResult
from bptt_verifier.report.links import link_to_equation, link_to_mistake
from bptt_verifier.report.numbers import count_digits, show_numbers
from bptt_verifier.tolerance.comparison import Verdict, find_symbol

HEADINGS = (
    "gradient",
    "error ÷ bound",
    "entry",
    "yours",
    "autodiff",
    "resolution",
    "verdict",
)
STYLES = {Verdict.AGREES: "green", Verdict.DISAGREES: "bold red", Verdict.INCONCLUSIVE: "yellow"}
UNLIMITED = 10**6  # columns, where nothing is wrapped
DIGITS = 4  # of two values that agree, so that a table fits eighty columns


def render_text(
    findings: Findings, columns: int | None = None, color_system: str | None = None
) -> str:
    """The findings as text, of so many columns where that is given, in these colours of Rich."""
    console = Console(
        file=StringIO(), width=columns or UNLIMITED, force_terminal=color_system is not None,
        color_system=color_system, legacy_windows=False,  # type: ignore[arg-type]
    )  # fmt: skip
    with console.capture() as captured:
        console.print(fit(lay_out(findings), console), crop=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def lay_out(findings: Findings) -> Group:
    """The findings as paragraphs and a table."""
    raised = " raised an exception" if findings.raised else ""
    parts: list[RenderableType] = [
        Text.assemble(
            (str(findings.verdict), STYLES[findings.verdict]),
            f": {findings.subject}{raised}, {findings.tried}",
        )
    ]
    for mistake in findings.mistakes:
        parts += ["", Text.assemble((mistake.name, "bold"), f": {explain_mistake(mistake)}")]
        parts += map(write_code, list_links(mistake))
    if findings.first_wrong_step is not None:
        said = f"Going backward, δ_{findings.first_wrong_step} is the first that is wrong."
        parts += ["", Text(said)]
    if findings.notes:
        parts += ["", *map(Text, findings.notes)]
    if findings.parameters:
        parts += ["", tabulate(findings)]
    if any(step.verdict is not Verdict.INCONCLUSIVE for step in findings.steps):
        wrong = [step for step in findings.steps if step.verdict is Verdict.DISAGREES]
        worst = max(findings.steps, key=lambda step: step.relative_error / step.allowed)
        said = (
            f"Single steps: {len(wrong)} of {len(findings.steps)} adjoints δ_t disagree; "
            f"the worst is δ_{worst.t}, relative error {worst.relative_error:.2g} "
            f"(allowed {worst.allowed:.2g})."
        )
        parts += ["", Text(said)]
    if findings.counterexample:
        case, shown = findings.counterexample, show_numbers(findings.counterexample)
        parts += [
            "",
            Text(f"{findings.case_shown}: {case.sizes_alone}; {shown.what} is"),
            Text(f"  yours     {shown.yours}\n  autodiff  {shown.autodiff}"),
            write_code(f"Reproduce: {case.reproduce}"),
        ]
    if findings.command:
        versions = ", ".join(map(" ".join, findings.versions.items()))
        parts += ["", write_code(f"Run again: {findings.command}"), Text(f"With {versions}.")]
    return Group(*parts)


def write_code(line: str) -> Text:
    """A line that is not wrapped, so that it can be copied from a terminal as one."""
    return Text(line, no_wrap=True, overflow="ignore")


def tabulate(findings: Findings) -> Table:
    """A row for each gradient, with its verdict in colour."""
    table = Table(*HEADINGS, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
    for name, result in findings.parameters.items():
        *cells, verdict = format_result(name, result)
        table.add_row(*map(Text, cells), Text(verdict, style=STYLES[result.verdict]))
    return table


def summarise(findings: Findings) -> str:
    """The findings on one line: verdict, mistake, place, and what is right or was found."""
    names = " and ".join(mistake.name for mistake in findings.mistakes)
    said = [*map(shorten_explanation, findings.mistakes)] or [*findings.notes[-1:]]
    said = [*said[:1], *(each[:1].upper() + each[1:] for each in said[1:])]
    head = f"{findings.verdict}: {', '.join(filter(None, [names, find_place(findings)]))}"
    return " ".join(" ".join([f"{head.removesuffix(': ')}:" if said else head, *said]).split())


def find_place(findings: Findings) -> str:
    """Find where a submission is wrong: a line, an entry of a gradient, or a step."""
    lines = [find_line(mistake) for mistake in findings.mistakes]
    wrong = {
        name: result
        for name, result in findings.parameters.items()
        if result.verdict is Verdict.DISAGREES
    }
    said = " ".join(map(shorten_explanation, findings.mistakes))
    places = [line for line in lines if line and line not in said]
    if wrong:
        name = max(wrong, key=lambda each: wrong[each].error)
        entry = ", ".join(map(str, wrong[name].entry))
        places.append(f"{find_symbol(name)}[{entry}]" if entry else find_symbol(name))
    if findings.first_wrong_step is not None:
        places.append(f"first wrong δ_{findings.first_wrong_step}")
    return f"at {', '.join(places)}" if places else ""


def find_line(mistake: Mistake) -> str:
    """Find the line that makes a mistake, or that it is about; its file from the current folder."""
    place = str((mistake.details.get("backward") or mistake.details).get("file_line") or "")
    with suppress(OSError):  # the folder may have been deleted
        return place.removeprefix(f"{Path.cwd()}{os.sep}")
    return place


def shorten_explanation(mistake: Mistake) -> str:
    """The wrong expression of a mistake in an operation, and what is right; or its explanation."""
    alteration, backward = mistake.details.get("alteration"), mistake.details.get("backward")
    if backward and backward["right"]:
        return f"`{backward['expression']}` should be `{backward['right']}`."
    if backward and alteration:
        return f"`{backward['expression']}` computes the wrong term: {alteration}."
    if alteration and mistake.details.get("expression"):
        return f"`{mistake.details['expression']}` is differentiated wrongly: {alteration}."
    return explain_mistake(mistake)


def explain_mistake(mistake: Mistake) -> str:
    """The explanation of a mistake, and the equation that it violates."""
    where = f" See equation ({mistake.equation})." if mistake.equation else ""
    return mistake.explanation + where


def list_links(mistake: Mistake) -> list[str]:
    """The addresses of a mistake in the catalogue, and of the equation that it violates."""
    equation = [link_to_equation(mistake.equation)] if mistake.equation else []
    return [link_to_mistake(mistake.name), *equation]


def format_result(name: str, result: ParameterResult) -> tuple[str, ...]:
    """The row of one gradient, in the order of `HEADINGS`."""
    entry = ", ".join(map(str, result.entry)) or "–"
    agree = result.verdict is Verdict.AGREES
    digits = DIGITS if agree else count_digits(result.yours, result.autodiff)
    yours, autodiff = f"{result.yours:.{digits}g}", f"{result.autodiff:.{digits}g}"
    resolution = f"{result.resolution:.2g}" if isfinite(result.resolution) else "–"
    compared = f"{result.error:.3g}", entry, yours, autodiff, resolution
    return find_symbol(name), *compared, str(result.verdict)
