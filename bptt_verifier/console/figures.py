"""Figures: Matplotlib figures that a command draws into a file named by `--plot`."""

from pathlib import Path
from typing import TYPE_CHECKING

from bptt_verifier.console.files import require_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# The colours of curves, which people with any colour-vision deficiency tell apart (Okabe & Ito),
# and dashes, for prints without colour.
COLOURS = ("#d55e00", "#0072b2", "#000000")
DASHES = ("-", "--", "-.")


def empty_figure(path: Path) -> "Figure":
    """An empty figure that can be saved as `path`; commands ask for it before a long computation.

    Raises ValueError where the file cannot be written, Matplotlib is missing or does not know the
    format.
    """
    require_writable("--plot", path)
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        remedy = "pip install 'verified-bptt[plot]'"
        raise ValueError(f"--plot: expected matplotlib, found none: {remedy}") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    formats = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in formats:
        one = f"one of {', '.join(formats)}"
        raise ValueError(f"--plot: expected a name ending in {one}, found {path}")
    return figure
