"""Tables and pictures of docs/performance.md, written from the committed results.

This module writes the text between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

from benchmarks.agreement import GATE
from benchmarks.limit_tables import limit_tables
from benchmarks.results import LIMIT, LIMITS, Result, read
from benchmarks.suites import CONTENDERS, ON_GPU, QUICK, RETAKEN, Suite
from benchmarks.table import (
    ABSENT,
    across,
    decimal,
    exponent_table,
    interval,
    markdown,
    seconds,
    short,
    spread,
)
from benchmarks.targets import OF_SUITE, targets
from bptt_verifier.problems.problem import GATES, Sizes

ROOT = Path(__file__).parents[1]
RESULTS = Path("benchmarks/results")
PAGE = Path("docs/performance.md")
GPU = "gpu"  # the part of all results of a GPU
OVER = ("autodiff-hoisted", "torch")
MARKED = re.compile(r"(?s)(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)")
PICTURES = (
    "quick", "full", "quick-lstm", "quick-gru", "quick-float64", "scaling", "steps", "checkpoint",
    "parallel-lstm", "verify",
)  # fmt: skip


def taken(result: Result) -> str:
    """Machine, versions and date of a result, as a sentence."""
    machine = result.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{result.model.upper()}, {machine['processor']}, {machine['threads']['processors']} "
        f"processors ({', '.join(machine['vector extensions'])}), {versions}; {machine['taken']}."
    )


def speeds(result: Result) -> str:
    """Tables of ratios, shares of the limit, times and memory, with a row for each size."""
    names = [name for name in result.contenders() if name in CONTENDERS | ON_GPU]
    parts = [taken(result)]
    for dtype in dict.fromkeys(dtype for _, dtype in result.places()):
        columns = {
            f"Speed ÷ {result.baseline}, {dtype}": ("ratio", {result.baseline}),
            f"Share of the limit, {dtype}": ("share", {LIMIT}),
            f"A step, {dtype}": ("step", set[str]()),
            f"Temporary memory in (T, B, H) arrays, {dtype}": ("arrays", {"torch", *LIMITS}),
        }
        for heading, (cell, without) in columns.items():
            shown = [name for name in names if name not in without]
            parts.append(f"{heading}:\n\n{across(result, cell, shown, dtype)}")
    return paragraphs(*parts, noted(result))


def further(result: Result) -> str:
    """The tables of `speeds` without the sizes of the quick suite."""
    return speeds(result._replace(timings=[t for t in result.timings if t.sizes not in QUICK]))


def noted(result: Result) -> str:
    """The notes of a result, as a list."""
    return "\n".join(f"- {note}" for note in result.notes)


def paragraphs(*parts: str) -> str:
    """The parts that are not empty, with an empty line between them."""
    return "\n\n".join(part for part in parts if part)


def growth(result: Result) -> str:
    """The table of exponents of time and memory."""
    return paragraphs(taken(result), exponent_table(result), noted(result))


def plain(result: Result) -> str:
    """A table with a row for each timing; with the bytes that devices exchange, if any do."""
    exchanged = ["bytes exchanged"] if result.suite == Suite.PARALLEL else []
    rows = [
        [
            timing.contender, short(timing.sizes), seconds(timing.median),
            spread(timing.seconds), interval(result.ratio(timing)),
            decimal(timing.state_arrays, 4),
            *(decimal(timing.exchanged_bytes, 0) for _ in exchanged),
        ]
        for timing in result.timings
    ]  # fmt: skip
    headings = [
        "contender", "B, T, D, H, O", "a step", "quartiles", f"speed ÷ {result.baseline}",
        "(T, B, H) arrays", *exchanged,
    ]  # fmt: skip
    return paragraphs(taken(result), markdown(headings, rows), noted(result))


def cases(result: Result) -> str:
    """A table of verified cases per second, with a row for each checker."""
    rows = [
        [
            timing.contender,
            f"{len(timing.seconds) / sum(timing.seconds):.3g}",
            seconds(timing.median),
            spread(timing.seconds),
            interval(result.ratio(timing)),
        ]
        for timing in result.timings
    ]
    headings = ["checker", "cases a second", "a case", "quartiles", f"speed ÷ {result.baseline}"]
    return paragraphs(taken(result), markdown(headings, rows), noted(result))


def attainable(result: Result) -> str:
    """Tables of what a step can reach beside what was found, with a row for each size."""
    return paragraphs(taken(result), *limit_tables(result), noted(result))


def goals(results: dict[str, Result]) -> str:
    """The table of all targets that the committed results cover."""
    rows = [
        [target.wanted, target.found, target.where, target.verdict]
        for suite, cell in product(OF_SUITE, ("", "-lstm", "-gru"))
        if suite + cell in results
        for target in targets(results[suite + cell])
    ]
    return markdown(["target", "found", "at B, T, D, H, O", "verdict"], rows)


def on_gpu(results: dict[str, Result]) -> str:
    """A table for each suite and cell, with columns for each precision."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in sorted(results.values(), key=gpu_order):
        groups.setdefault((result.suite, result.model), []).append(result)
    parts = [software(result) for result in list(results.values())[:1]]
    for (suite, model), group in groups.items():
        headings = ["B, T, D, H, O"]
        for result in group:
            headings += [f"{result.precision}: a step", *(f"÷ {other}" for other in OVER)]
        rows = [
            [short(sizes), *(cell for result in group for cell in gpu_cells(result, sizes))]
            for sizes in dict.fromkeys(sizes for result in group for sizes, _ in result.places())
        ]
        parts.append(f"{suite}, {model.upper()}:\n\n{markdown(headings, rows)}")
    notes = [
        f"- {result.suite}, {result.model.upper()}, {result.precision}: {note}"
        for result in results.values()
        for note in result.notes
        if not note.startswith(GATE)  # the page sums these up
    ]
    return paragraphs(*parts, "\n".join(notes))


def gpu_order(result: Result) -> tuple[int, int, int]:
    """The place of a result on the page, by suite, cell and precision."""
    precisions = ("float32", "TF32", "bfloat16")
    return (
        list(TABLES).index(result.suite),
        list(GATES).index(result.model),
        precisions.index(result.precision),
    )


def gpu_cells(result: Result, sizes: Sizes | None) -> list[str]:
    """The time of the compiled step at one size, and its speed relative to the others."""
    found = [t for t in result.timings if t.sizes == sizes and t.contender == "manual-jit"]
    if not found:
        return [ABSENT] * (1 + len(OVER))
    return [seconds(found[0].median), *(interval(result.ratio(found[0], to)) for to in OVER)]


def software(result: Result) -> str:
    """The GPU, the versions and the date of a result, as a sentence."""
    machine = result.machine
    software = {**machine.get("gpu software", {}), **machine["versions"]}
    versions = ", ".join(f"{name} {number}" for name, number in software.items())
    return f"{machine['device kind']}, {versions}; {machine['taken']}."


TABLES: dict[str, Callable[[Result], str]] = {
    "quick": speeds,
    "full": further,
    "scaling": growth,
    "deepbench": speeds,
    "steps": plain,
    "checkpoint": plain,
    "parallel": plain,
    "limits": attainable,
    "verify": cases,
}


def committed(root: Path = ROOT) -> dict[str, Result]:
    """The committed results by the names of their files."""
    return {file.stem: read(file) for file in sorted((root / RESULTS).glob("*.json"))}


def rewritten(text: str, results: dict[str, Result]) -> str:
    """The page with its marked parts rewritten, named `targets`, `gpu` or after a result.

    A result that has not been taken yet has a sentence. Raises ValueError for other names.
    """

    def part(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name == "targets":
            return begin + goals(results) + "\n" + end
        if name == GPU:
            return begin + on_gpu({k: r for k, r in results.items() if r.on_gpu}) + "\n" + end
        if name not in results and name in RETAKEN:
            return f"{begin}*Not taken yet.* `make results` takes it.\n{end}"
        if name not in results:
            there = ", ".join(results) or "none"
            raise ValueError(f"{PAGE}: expected a result for {name}, found {there}")
        return begin + TABLES[results[name].suite](results[name]) + "\n" + end

    return MARKED.sub(part, text)


def write_all(root: Path = ROOT) -> None:
    """Rewrite the tables and pictures of the page from the committed results."""
    from benchmarks import plot  # noqa: PLC0415 - matplotlib is optional
    from bptt_verifier.console.figures import empty_figure  # noqa: PLC0415

    results = committed(root)
    page = root / PAGE
    page.write_text(rewritten(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    for name in PICTURES:
        if name in results:
            place = root / RESULTS / f"{name}.png"
            figure = empty_figure(place)
            plot.draw(figure, results[name])
            plot.save(figure, place)
    quick = [r for r in results.values() if r.on_gpu and r.suite == Suite.QUICK]
    if quick:
        place = root / RESULTS / "quick-gpu.png"
        figure = empty_figure(place)
        plot.draw_gpu(figure, sorted(quick, key=gpu_order))
        plot.save(figure, place)
