"""The colour chart: predicted and true colours, as a table on a terminal and in a picture."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table
from rich.text import Text

from bptt_verifier.commands.colours import PHRASES
from bptt_verifier.console.figures import COLOURS
from bptt_verifier.problems.problem import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def format_colour(rgb: Iterable[int], *, swatch: bool) -> Text:
    """Format the three bytes, with a patch of their colour if `swatch`."""
    red, green, blue = rgb
    patch = (" " * 5, f"on rgb({red},{green},{blue})") if swatch else ""
    return Text.assemble(patch, " " * swatch, f"[{red:3d}, {green:3d}, {blue:3d}]")


def colour_table(predicted: Int[Array, "B O"], *, swatches: bool) -> Table:
    """A row for each phrase: the predicted and the true colour, with patches if `swatches`."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("phrase", "tokens", "predicted", "true", ""):
        table.add_column(heading, no_wrap=True)
    for phrase, found in zip(PHRASES, predicted, strict=True):
        off = int((found != phrase.rgb).sum())
        note = Text(f"{off} byte{'s' * (off > 1)} off", "red") if off else Text("exact", "green")
        pair = (format_colour(rgb, swatch=swatches) for rgb in (found, phrase.rgb))
        table.add_row(phrase.text, str(list(phrase.tokens)), *pair, note)
    return table


def draw(
    figure: "Figure", losses: Float[Array, " updates+1"], goal: float, predicted: Int[Array, "B O"]
) -> None:
    """Draw the loss after every step on the left, predicted and true colours on the right."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - optional, and slow to import

    figure.set_size_inches(9.6, 4.2)
    curve, patches = figure.subplots(1, 2, width_ratios=[3, 2])
    highest = min(losses.max(), 1e6 * losses[0])  # a diverging loss leaves the axes
    curve.set(ylim=(goal / 3, 3 * highest), yscale="log")
    curve.plot(losses, color="black", linewidth=1.2, marker="o" if len(losses) == 1 else "")
    curve.axhline(goal, color=COLOURS[0], linestyle="--", linewidth=1)
    curve.annotate(
        f"below {goal:.2g} every byte is exact",
        (0, goal), xycoords=("axes fraction", "data"),
        xytext=(6, -4), textcoords="offset points", va="top", color=COLOURS[0],
    )  # fmt: skip
    curve.set(xlabel="step", ylabel="mean squared error", xmargin=0)
    curve.spines[["top", "right"]].set_visible(False)
    patches.set(xlim=(-0.05, 2.05), ylim=(3, 0), xticks=[0.45, 1.55], yticks=[])
    patches.set_xticklabels(["predicted", "true"])
    patches.xaxis.tick_top()
    patches.tick_params(length=0)
    patches.spines[:].set_visible(False)
    for row, (phrase, found) in enumerate(zip(PHRASES, predicted.tolist(), strict=True)):
        patches.text(0, row + 0.16, f"{phrase.text}  {list(phrase.tokens)}", weight="bold")
        for left, rgb in ((0, found), (1.1, phrase.rgb)):
            patches.add_patch(Rectangle((left, row + 0.22), 0.9, 0.52, color=np.array(rgb) / 255))
            patches.text(left + 0.45, row + 0.8, str(list(rgb)), ha="center", va="top", size=9)
