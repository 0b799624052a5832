"""`bptt flow`: how large the adjoint is at every step, for RNN, LSTM and GRU on the same data.

Vanishing and exploding gradients made visible, beside the bound (γ‖W‖)^(T−t) of Pascanu, Mikolov &
Bengio 2013, "On the difficulty of training recurrent neural networks"; docs/derivation.md, (W1).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from bptt_verifier.console.terminal import require_writable
from bptt_verifier.problems.problem import CELLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]

LARGEST_SLOPE = 1.0  # γ, the largest value of tanh′


class Flow(NamedTuple):
    """‖δ_t‖ of each cell for t = 1 … T, and the bound on the RNN's."""

    norms: dict[str, Float[Array, " T"]]
    bound: Float[Array, " T"]
    radius: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; a bound that overflows is null."""
        return {
            "spectral_radius": self.radius,
            "seed": self.seed,
            "steps": len(self.bound),
            "adjoint_norms": {name: norms.tolist() for name, norms in self.norms.items()},
            "rnn_bound": [b if np.isfinite(b) else None for b in self.bound.tolist()],
        }


def of_radius(
    rng: np.random.Generator, shape: tuple[int, int], radius: float
) -> Float[Array, "G H"]:
    """A random W whose square blocks, one a gate, are orthogonal times `radius`.

    All eigenvalues have that absolute value, and the spectral norm is the spectral radius, so that
    the bound is as sharp as it can be.
    """
    gates, H = shape
    blocks, _ = np.linalg.qr(rng.normal(size=(gates, H, H)))
    return radius * blocks.reshape(gates * H, H)


def gradient_flow(
    steps: int = 100,
    *,
    hidden_size: int = 16,
    radius: float = 0.9,
    forget_bias: float = 1.0,
    seed: int = 0,
) -> Flow:
    """The norms of δ_t, all gates and the batch together, from the same x, ŷ − y and seed.

    Every gate's block of W has the spectral radius `radius`; ∂L/∂ŷ is the same random one for all
    cells, so that only the way back through time differs. The LSTM's forget gate has the bias
    `forget_bias`, as it usually starts with (Jozefowicz, Zaremba & Sutskever 2015).
    """
    rng = np.random.default_rng(seed)
    B, D, O = 8, 4, 2
    x, dy = rng.normal(size=(steps, B, D)), rng.normal(size=(B, O)) / B
    norms, bound = {}, np.empty(0)
    for name, module in CELLS.items():
        params = module.init(np.random.default_rng([seed, 1]), D, hidden_size, O)
        shape = len(params.W) // hidden_size, hidden_size
        params = params._replace(W=of_radius(np.random.default_rng([seed, 2]), shape, radius))
        if name == "lstm":
            params = params._replace(b=forget_bias * np.repeat([0.0, 1.0, 0.0, 0.0], hidden_size))
        _, trace = module.forward(params, x)
        adjoints = module.backward(params, trace, dy).adjoints
        norms[name] = np.sqrt((adjoints**2).sum(axis=(1, 2)))
        if name == "rnn":
            factor = LARGEST_SLOPE * float(np.linalg.norm(params.W, 2))
            start = LARGEST_SLOPE * float(np.linalg.norm(dy @ params.V))
            with np.errstate(over="ignore"):
                bound = start * factor ** np.arange(steps - 1, -1.0, -1)  # (W1)
    return Flow(norms, bound, radius, seed)


def flow(
    steps: Annotated[int, typer.Option(min=1, help="T, the length of the sequences.")] = 100,
    hidden_size: Annotated[int, typer.Option(min=1, help="H.")] = 16,
    radius: Annotated[
        float, typer.Option(min=0, help="Spectral radius of W, of every gate's block.")
    ] = 0.9,
    forget_bias: Annotated[float, typer.Option(help="b_f of the LSTM.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Which random weights and data.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw ‖δ_t‖ against t into this file.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers here, too.")
    ] = None,
) -> None:
    """Show how gradients vanish or explode on their way back through time."""
    require_writable("--json", json_file)
    figure = None if plot is None else empty_figure(plot)
    found = gradient_flow(
        steps, hidden_size=hidden_size, radius=radius, forget_bias=forget_bias, seed=seed
    )
    Console().print(flow_table(found))
    if json_file is not None:
        text = json.dumps(found.to_dict(), indent=1) + "\n"
        json_file.write_text(text, encoding="utf-8")
    if figure is not None and plot is not None:
        draw(figure, found)
        figure.savefig(plot, dpi=150)


def flow_table(found: Flow) -> Table:
    """‖δ_t‖ at about ten steps from the last to the first, and the bound on the RNN's."""
    T = len(found.bound)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("t", *(f"‖δ_t‖ {name.upper()}" for name in found.norms), "bound on RNN"):
        table.add_column(heading, justify="right", no_wrap=True)
    for t in sorted({*range(T, 0, -max(1, T // 10)), 1}, reverse=True):
        values = [norms[t - 1] for norms in (*found.norms.values(), found.bound)]
        table.add_row(str(t), *(f"{value:.3e}" for value in values))
    return table


def empty_figure(path: Path) -> "Figure":
    """A figure that can be saved as `path`.

    Raises ValueError where the folder or matplotlib is missing, or the format is not known.
    """
    require_writable("--plot", path)
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        raise ValueError(
            "--plot: expected matplotlib, found none: pip install 'verified-bptt[plot]'"
        ) from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise ValueError(
            f"--plot: expected a name ending in one of {', '.join(sorted(formats))}, found {path}"
        )
    return figure


def draw(figure: "Figure", found: Flow) -> None:
    """‖δ_t‖ against t on a logarithmic scale, the bound dashed."""
    axes = figure.subplots()
    t = np.arange(1, len(found.bound) + 1)
    colours = {"rnn": "tab:red", "lstm": "tab:blue", "gru": "tab:green"}
    marker = "o" if len(t) == 1 else ""
    shown = [norms[norms > 0] for norms in found.norms.values()]
    low, high = min(map(np.min, shown)), max(map(np.max, shown))
    for name, norms in found.norms.items():
        where = norms > 0  # a logarithm has no place for zero
        axes.plot(t[where], norms[where], color=colours[name], marker=marker, label=name.upper())
    axes.plot(
        t, found.bound,
        color="tab:red", linestyle="--", linewidth=1, label=r"bound on RNN, $(\gamma\|W\|)^{T-t}$",
    )  # fmt: skip
    axes.set(
        xlabel="step t", ylabel=r"$\|\delta_t\|$", yscale="log", ylim=(low / 10, high * 100),
        title=f"Spectral radius of W {found.radius:g}, T = {len(t)}", xmargin=0.01,
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
