"""Plots of a result: ratio and share of the limit over the sizes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.intervals import Interval
from benchmarks.results import LIMIT, Result, Timing
from benchmarks.suites import ALONG, MIDDLE, Suite, along
from benchmarks.table import short, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A colour for each contender, safe for red-green colour blindness (Okabe & Ito 2008).
COLOURS = {
    "manual": "#0072B2",
    "manual-jit": "#D55E00",
    "manual-fused": "#56B4E9",
    "autodiff": "#000000",
    "autodiff-hoisted": "#777777",
    "torch": "#009E73",
    "limit": "#CC79A7",
    "limit-jit": "#F0B8D8",
}
OTHER = "#E69F00"
MARKERS = "os^Dv"  # of contenders that share a colour
PRECISIONS = {"float32": "#000000", "TF32": "#D55E00", "bfloat16": "#0072B2"}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def colour(contender: str) -> str:
    """The colour of a contender, or of the contender that it is a variant of."""
    family = max((name for name in COLOURS if contender.startswith(name)), key=len, default="")
    return COLOURS.get(family, OTHER)


def style(contender: str) -> str:
    """The line style: solid for a contender, dashed for a variant of one."""
    return "-" if contender in COLOURS else "--"


def marker(contender: str, among: Sequence[str]) -> str:
    """The marker: another one for each contender of the same colour."""
    alike = [name for name in among if colour(name) == colour(contender)]
    return MARKERS[alike.index(contender) % len(MARKERS)]


def draw_line(
    axes: "Axes",
    places: list[float],
    found: list[Interval],
    contender: str,
    *,
    line: bool,
    sign: str = "o",
) -> None:
    """Draw numbers with their intervals over the places on the axis."""
    values = [interval.value for interval in found]
    below = [max(0.0, interval.value - interval.low) for interval in found]
    above = [max(0.0, interval.high - interval.value) for interval in found]
    axes.errorbar(
        places, values, yerr=[below, above], label=contender, color=colour(contender),
        linestyle=style(contender) if line else "none", marker=sign, markersize=4, capsize=2,
    )  # fmt: skip


def panel(
    axes: "Axes",
    result: Result,
    groups: list[tuple[float, list[Timing]]],
    *,
    share: bool,
    line: bool,
) -> None:
    """Draw one panel: each contender's ratio, or share of the limit, at each place."""
    names = result.contenders()
    for n, name in enumerate(names):
        if name == (LIMIT if share else result.baseline):
            continue
        places, found = [], []
        for place, timings in groups:
            timing = next((t for t in timings if t.contender == name), None)
            value = None
            if timing is not None:
                value = result.share_of_limit(timing) if share else result.ratio(timing)
            if value is not None:
                # Side by side where the axis has no scale.
                places.append(place if line else place + 0.08 * (n - len(names) / 2))
                found.append(value)
        if found:
            draw_line(axes, places, found, name, line=line, sign=marker(name, names))
    axes.axhline(1, color=COLOURS[LIMIT if share else "autodiff"], linewidth=1)
    axes.grid(alpha=0.3)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in TICKS if low <= tick <= high])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()


def draw(figure: "Figure", result: Result) -> None:
    """Draw ratio and share of the limit, in two rows; one column, or one for each letter."""
    shares = [False, True] if LIMIT in result.contenders() else [False]
    scaling = result.suite == Suite.SCALING
    letters: list[str | None] = list(ALONG) if scaling else [None]
    width = 3.2 * len(letters) if scaling else max(5.0, 1.2 * len(result.places()) + 2)
    figure.set_size_inches(width + 2, 3.0 * len(shares))
    grid: Any = figure.subplots(len(shares), len(letters), squeeze=False)
    for i, share in enumerate(shares):
        for j, letter in enumerate(letters):
            axes = grid[i][j]
            groups = groups_along(result, letter)
            panel(axes, result, groups, share=share, line=letter is not None)
            if letter is None:
                names = [
                    title(place).replace(" D", "\nD").replace(" O", "\nO")
                    for place in result.places()
                ]
                axes.set_xticks(range(len(names)), names, fontsize=7)
            else:
                axes.set(xscale="log", xlabel=letter)
            if j == 0:
                axes.set_ylabel("share of the limit" if share else f"speed ÷ {result.baseline}")
    named = dict[str, Any]()
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        named |= zip(labels, handles, strict=True)
    shown = [name for name in result.contenders() if name in named]
    figure.legend([named[name] for name in shown], shown, loc="outside right upper", fontsize=8)
    others = f"; in each column one letter of {MIDDLE} varies" if scaling else ""
    figure.suptitle(
        f"{result.suite}, {result.model}, {result.machine['processor']}{others}", fontsize=9
    )


def draw_gpu(figure: "Figure", results: list[Result]) -> None:
    """Draw the compiled step's speed over PyTorch, a panel for each cell, a line a precision."""
    models = list(dict.fromkeys(result.model for result in results))
    figure.set_size_inches(4.2 * len(models), 3.4)
    panels: Any = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, models, strict=True):
        for result in (r for r in results if r.model == model):
            timings = [t for t in result.timings if t.contender == "manual-jit"]
            ratios = [result.ratio(timing, "torch") for timing in timings]
            axes.plot(
                range(len(ratios)),
                [ratio.value if ratio else float("nan") for ratio in ratios],
                marker="o", color=PRECISIONS.get(result.precision, OTHER), label=result.precision,
            )  # fmt: skip
            names = [short(t.sizes).replace(", ", "\n") for t in timings]
            axes.set_xticks(range(len(names)), names, fontsize=7)
        axes.axhline(1, color=COLOURS["torch"], linewidth=1)
        axes.grid(alpha=0.3)
        axes.set_yscale("log")
        axes.set_title(model.upper(), fontsize=9)
    low, high = panels[0].get_ylim()
    panels[0].set_yticks([tick for tick in TICKS if low <= tick <= high])
    panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0].minorticks_off()
    panels[0].set_ylabel("manual-jit: speed ÷ torch")
    panels[0].set_xlabel("B, T, D, H, O from above", fontsize=8)
    panels[-1].legend(fontsize=8)
    figure.suptitle(f"quick, {results[0].machine['device kind']}", fontsize=9)


def groups_along(result: Result, letter: str | None) -> list[tuple[float, list[Timing]]]:
    """The timings at each place on an axis: the sizes of one letter, or all sizes in turn."""
    if letter is None:
        numbered = enumerate(result.places())
        return [(float(n), result.at(place)) for n, place in numbered]
    return [
        (float(getattr(sizes, letter)), result.at((sizes, dtype)))
        for sizes in along(letter)
        for dtype in dict.fromkeys(dtype for _, dtype in result.places())
    ]


def save(figure: "Figure", path: Path) -> None:
    """Write the figure without a date, so that equal results give equal files."""
    from matplotlib import rc_context  # noqa: PLC0415 - optional, and slow to import

    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=110, metadata=metadata)
