"""Charts of a page as plain values: places in percent, labels, and levels of colour."""

from collections.abc import Iterable, Sequence
from math import ceil, floor, inf, isfinite, log10
from typing import Any, NamedTuple

from bptt_verifier.report.findings import Findings

STYLES = 3  # curves that differ in colour and dashes
TICKS = 6  # labels on an axis, at most
# The powers of ten at which the colour of an error changes, and what the colours mean.
POWERS = (0.0, 1.0, 3.0, 6.0)
SCALE = ("allowed, up to 1", "to 10", "to 10³", "to 10⁶", "beyond")
LARGE = 40  # columns of a map whose cells are too small for text
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class StepChart(NamedTuple):
    """The error of each quantity, such as an adjoint, over the allowed one, against the step.

    `levels` and `times` are the labels of the axes with their places; `limit` is the place of 1.
    `lines` are curves with their style, and `legend` explains the styles.
    """

    quantity: str
    description: str
    levels: list[tuple[float, str]]
    times: list[tuple[float, int]]
    limit: float
    first_wrong: float | None
    lines: list[tuple[str, str]]
    legend: list[tuple[str, str]]


class HeatMap(NamedTuple):
    """The error of each entry over the allowed one: level of colour, power of ten, and title."""

    columns: int
    cells: list[tuple[int, str, str]]
    scale: Sequence[str]
    description: str


def write_power(exponent: int) -> str:
    """Write a power of ten."""
    return "1" if exponent == 0 else f"10{str(exponent).translate(SUPERSCRIPTS)}"


def choose_levels(values: Iterable[float]) -> list[int]:
    """Choose the exponents of the labels: evenly spaced, around all values and 1."""
    powers = [log10(value) for value in values if value > 0 and isfinite(value)]
    low, high = floor(min([*powers, -1.0])), ceil(max([*powers, 1.0]))
    apart = ceil((high - low) / (TICKS - 1))
    low = -apart * ceil(-low / apart)  # so that 1 has a label
    return [*range(low, high + apart, apart)]


def chart_steps(findings: Findings) -> StepChart | None:
    """Chart the errors of all steps over the allowed ones; None where there are no steps."""
    curves = findings.curves
    if not curves:
        return None
    ratios = [
        [divide(*pair) for pair in zip(curve.relative_errors, curve.allowed, strict=True)]
        for curve in curves
    ]
    steps = max(map(len, ratios))
    exponents = choose_levels(value for each in ratios for value in each)
    low, high = exponents[0], exponents[-1]

    def across(t: int) -> float:
        return round(100 * (t - 0.5) / steps, 2)

    def down(value: float) -> float:
        power = low if value <= 0 else log10(value) if isfinite(value) else high
        return round(100 * (high - power) / (high - low), 2)

    def join(values: Sequence[float]) -> str:
        values = values if len(values) > 1 else [*values, *values]
        return " ".join(f"{across(t)},{down(value)}" for t, value in enumerate(values, 1))

    labels = list(dict.fromkeys(curve.label for curve in curves))
    styles = {label: f"curve curve-{n % STYLES}" for n, label in enumerate(labels)}
    number = {label: sum(curve.label == label for curve in curves) for label in labels}
    first, worst = findings.first_wrong_step, max(max(each) for each in ratios)
    legend = [
        (f"{label}, {number[label]} probes" if number[label] > 1 else label, styles[label])
        for label in labels
    ]
    legend.append(("1: as large as allowed", "limit"))
    if first is not None:
        legend.append((f"first wrong step going backward, t = {first}", "first-wrong"))
    times = [t for t in range(1, steps + 1) if t == 1 or t % ceil(steps / TICKS) == 0]
    return StepChart(
        curves[0].quantity,
        f"Error over allowed error of each {curves[0].quantity}, at {steps} steps: at most "
        f"{worst:.2g}.",
        [(down(10.0**exponent), write_power(exponent)) for exponent in exponents],
        [(across(t), t) for t in times],
        down(1.0),
        None if first is None else across(first),
        [(join(each), styles[curve.label]) for each, curve in zip(ratios, curves, strict=True)],
        legend,
    )


def divide(error: float, allowed: float) -> float:
    """Divide an error by the allowed one; 0 where there is none."""
    if error == 0:
        return 0.0
    return error / allowed if allowed > 0 else inf


def chart_errors(errors: list[Any]) -> HeatMap:
    """Chart errors over allowed ones; a vector is one row, and blocks are below each other."""
    rows = errors if errors and isinstance(errors[0], list) else [errors]
    while rows and rows[0] and isinstance(rows[0][0], list):
        rows = [row for block in rows for row in block]
    values = [value for row in rows for value in row]
    columns = max(1, len(rows[0]))
    cells = [
        (find_level(value), *describe_cell(i, j, value, large=columns > LARGE))
        for i, row in enumerate(rows)
        for j, value in enumerate(row)
    ]
    beyond, worst = sum(value > 1 for value in values), max(values, default=0.0)
    said = f"{beyond} of {len(values)} entries are beyond the allowed error, at most by {worst:.2g}"
    return HeatMap(columns, cells, SCALE, said)


def describe_cell(i: int, j: int, value: float, *, large: bool) -> tuple[str, str]:
    """Describe a cell by its power of ten and its title; cells of a large map are too small."""
    return ("", "") if large else (find_power(value), f"[{i}, {j}]: {value:.3g}")


def find_level(value: float) -> int:
    """Find the level of colour: 0 up to 1, then by powers of ten."""
    if not isfinite(value):
        return len(POWERS)
    return sum(value > 10**power for power in POWERS)


def find_power(value: float) -> str:
    """Find the power of ten of an error beyond the allowed one; empty within it."""
    if not isfinite(value):
        return "∞"
    return str(floor(log10(value))) if value > 1 else ""
