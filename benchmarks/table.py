"""Tables of results, for the terminal and as Markdown for docs/performance.md."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.table import Table

from benchmarks.intervals import Interval, exponent, quartiles
from benchmarks.results import LIMIT, LIMITS, Result, Timing
from benchmarks.suites import ALONG, along
from bptt_verifier.problems.problem import Sizes

ABSENT = "–"
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


class Row(NamedTuple):
    """A table row of one timing, every cell as text."""

    contender: str
    step: str
    quartiles: str
    ratio: str
    share: str
    gigaflops: str
    arrays: str
    compile: str
    error: str


def seconds(value: float) -> str:
    """A duration with three digits, in s, ms or µs."""
    size, unit = next(((s, u) for s, u in UNITS if value >= s), UNITS[-1])
    return f"{value / size:.3g} {unit}"


def spread(samples: Sequence[float]) -> str:
    """The first and third quartile, relative to the median."""
    first, median, third = quartiles(samples)
    return f"{100 * (first / median - 1):+.0f} {100 * (third / median - 1):+.0f} %"


def decimal(value: float | None, digits: int = 2) -> str:
    """The number as text, or a dash for None."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def interval(found: Interval | None) -> str:
    """The number with its interval as text, or a dash for None."""
    return ABSENT if found is None else str(found)


def row(result: Result, timing: Timing) -> Row:
    """The row of one contender at one size."""
    return Row(
        timing.contender,
        seconds(timing.median),
        spread(timing.seconds),
        interval(result.ratio(timing)),
        ABSENT if timing.contender == LIMIT else interval(result.share_of_limit(timing)),
        decimal(result.gigaflops(timing), 1),
        ABSENT if timing.contender in LIMITS else decimal(timing.state_arrays),
        ABSENT if timing.compile_seconds is None else f"{timing.compile_seconds:.2f} s",
        decimal(timing.error),
    )


def title(place: tuple[Sizes | None, str]) -> str:
    """A size and its dtype as text."""
    sizes, dtype = place
    return f"{'random cases' if sizes is None else sizes}, {dtype}"


def terminal_table(result: Result) -> Table:
    """The table of all timings, grouped by size."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = (
        "contender", "a step", "quartiles", f"× {result.baseline}", "share of limit", "GFLOP/s",
        "(T, B, H)\narrays", "compiled in", "error ÷\nallowed",
    )  # fmt: skip
    for heading in headings:
        table.add_column(
            heading, no_wrap=True, justify="left" if heading == "contender" else "right"
        )
    for place in result.places():
        table.add_row(f"[bold]{title(place)}[/bold]")
        for timing in result.at(place):
            table.add_row(*row(result, timing))
        table.add_row()
    return table


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))


def short(sizes: Sizes | None) -> str:
    """B, T, D, H, O as in the tables of the documentation."""
    if sizes is None:
        return "a case"
    T, B, D, H, O = sizes
    return f"{B}, {T}, {D}, {H}, {O}"


def across(result: Result, cell: str, names: Sequence[str], dtype: str) -> str:
    """A Markdown table with a row for each size and a column for each contender.

    `cell` is a field of `Row`.
    """
    rows = []
    for place in result.places():
        if place[1] == dtype:
            found = {t.contender: row(result, t) for t in result.at(place)}
            cells = (getattr(found[name], cell) if name in found else ABSENT for name in names)
            rows.append([short(place[0]), *cells])
    return markdown(["B, T, D, H, O", *names], rows)


UPPER = 3  # an exponent is fitted to this many largest sizes, where fixed costs are negligible


def exponents(
    result: Result, samples: Callable[[Timing], Sequence[float]]
) -> dict[tuple[str, str], Interval]:
    """The exponents of growth in each letter, by (letter, contender).

    `samples` returns the samples of a timing, and an empty list where it has none.
    """
    found = {}
    for letter in ALONG:
        for name in result.contenders():
            growing = [
                (float(getattr(sizes, letter)), samples(timing))
                for sizes in along(letter)
                for timing in result.timings
                if timing.sizes == sizes and timing.contender == name and samples(timing)
            ][-UPPER:]
            if len(growing) == UPPER:
                found[letter, name] = exponent(*zip(*growing, strict=True))
    return found


def time_exponents(result: Result) -> dict[tuple[str, str], Interval]:
    """The exponents of the seconds of a step."""
    return exponents(result, lambda timing: timing.seconds)


def memory_exponents(result: Result) -> dict[tuple[str, str], Interval]:
    """The exponents of the temporary memory, which is the same in every round."""
    return exponents(
        result, lambda timing: [float(timing.temporary_bytes)] if timing.temporary_bytes else []
    )


def grown(found: dict[tuple[str, str], Interval], letter: str, contender: str) -> float | None:
    """An exponent without its interval, or None."""
    return found[letter, contender].value if (letter, contender) in found else None


def exponent_table(result: Result) -> str:
    """A Markdown table of the exponents of time, with intervals, and of memory."""
    time, memory = time_exponents(result), memory_exponents(result)
    rows = [
        [
            name,
            *(interval(time.get((letter, name))) for letter in ALONG),
            *(decimal(grown(memory, letter, name)) for letter in "TBH"),
        ]
        for name in result.contenders()
        if any((letter, name) in time for letter in ALONG)
    ]
    headings = [f"time in {letter}" for letter in ALONG] + [f"memory in {c}" for c in "TBH"]
    return markdown(["contender", *headings], rows)
