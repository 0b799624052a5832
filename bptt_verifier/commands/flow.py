"""`bptt flow`: show vanishing and exploding gradients, of RNN, LSTM and GRU on the same data.

It prints the norm of the adjoint at every step, beside the bound (γ‖W‖)^(T−t) on that of the RNN.
Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks";
docs/derivation.md, (W1).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from rich.table import Table
from typer import Option

from bptt_verifier.commands.tables import empty_table
from bptt_verifier.console.figures import COLOURS, DASHES, empty_figure
from bptt_verifier.console.files import JsonFile, require_writable, text_beside_json, write_json
from bptt_verifier.console.terminal import print_uncut
from bptt_verifier.problems.problem import CELLS, Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_SLOPE = 1.0  # γ, the largest value of tanh′


class Flow(NamedTuple):
    """The norms ‖δ_t‖ of each cell for t = 1 … T, and the bound on those of the RNN."""

    norms: dict[str, Float[Array, " T"]]
    bound: Float[Array, " T"]
    radius: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; a bound that overflows is null."""
        return {
            "spectral_radius": self.radius, "seed": self.seed, "steps": len(self.bound),
            "adjoint_norms": {name: norms.tolist() for name, norms in self.norms.items()},
            "rnn_bound": [b if np.isfinite(b) else None for b in self.bound.tolist()],
        }  # fmt: skip


def draw_recurrent_weights(
    rng: np.random.Generator, shape: tuple[int, int], radius: float
) -> Float[Array, "G H"]:
    """Draw a W whose square blocks, one for each gate, are orthogonal times `radius`.

    All eigenvalues have this absolute value. The spectral norm is the spectral radius, which makes
    the bound as sharp as it can be.
    """
    gates, H = shape
    blocks, _ = np.linalg.qr(rng.normal(size=(gates, H, H)))
    return radius * blocks.reshape(gates * H, H)


def measure_flow(
    steps: int = 100,
    *, hidden_size: int = 16, radius: float = 0.9, forget_bias: float = 1.0, seed: int = 0,
) -> Flow:  # fmt: skip
    """Compute the norms of δ_t over all gates and the batch, for all cells from the same data.

    Every gate's block of W has the spectral radius `radius`. All cells share x and ∂L/∂ŷ: only
    the backward pass differs. The bias of the LSTM's forget gate is `forget_bias`; 1 is the usual
    initial value (Jozefowicz, Zaremba & Sutskever 2015).
    """
    rng = np.random.default_rng(seed)
    B, D, O = 8, 4, 2
    x, dy = rng.normal(size=(steps, B, D)), rng.normal(size=(B, O)) / B
    norms, bound = {}, np.empty(0)
    for name, module in CELLS.items():
        params = module.init(np.random.default_rng([seed, 1]), D, hidden_size, O)
        shape = len(params.W) // hidden_size, hidden_size
        W = draw_recurrent_weights(np.random.default_rng([seed, 2]), shape, radius)
        params = params._replace(W=W)
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
    steps: Annotated[int, Option(min=1, help="T, the number of steps.")] = 100,
    hidden_size: Annotated[int, Option(min=1, help="H, the size of the state.")] = 16,
    radius: Annotated[
        float, Option(min=0, help="Spectral radius of every gate's block of W.")
    ] = 0.9,
    forget_bias: Annotated[float, Option(help="Bias b_f of the LSTM's forget gate.")] = 1.0,
    seed: Annotated[int, Option(min=0, help="Seed of the weights and the data.")] = 0,
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="Draw ‖δ_t‖ against t into this file.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Show how gradients vanish or explode as they pass back through time."""
    require_writable("--json", json_file)
    figure = None if plot is None else empty_figure(plot)
    found = measure_flow(
        steps, hidden_size=hidden_size, radius=radius, forget_bias=forget_bias, seed=seed
    )
    with text_beside_json(json_file):
        print_uncut(flow_table(found))
    write_json(json_file, found.to_dict())
    if figure is not None and plot is not None:
        draw(figure, found)
        figure.savefig(plot, dpi=150)


def flow_table(found: Flow) -> Table:
    """The norms at about ten steps from the last to the first, and the bound on the RNN's."""
    T = len(found.bound)
    norms = (f"‖δ_t‖ {name.upper()}" for name in found.norms)
    table = empty_table("t", *norms, "bound on RNN", justify="right")
    for t in sorted({*range(T, 0, -max(1, T // 10)), 1}, reverse=True):
        row = (column[t - 1] for column in (*found.norms.values(), found.bound))
        table.add_row(str(t), *(f"{value:.3e}" for value in row))
    return table


def draw(figure: "Figure", found: Flow) -> None:
    """Draw ‖δ_t‖ against t on a logarithmic scale, the bound dotted."""
    axes, t = figure.subplots(), np.arange(1, len(found.bound) + 1)
    styles = zip(COLOURS, DASHES, strict=True)
    marker = "o" if len(t) == 1 else ""
    shown = [norms[norms > 0] for norms in found.norms.values()]
    low, high = min(map(np.min, shown)), max(map(np.max, shown))
    for (name, norms), (colour, dashes) in zip(found.norms.items(), styles, strict=True):
        where = norms > 0  # zero has no logarithm
        axes.plot(
            t[where], norms[where],
            color=colour, linestyle=dashes, marker=marker, label=name.upper(),
        )  # fmt: skip
    axes.plot(
        t, found.bound,
        color=COLOURS[0], linestyle=":", linewidth=1, label=r"bound on RNN, $(\gamma\|W\|)^{T-t}$",
    )  # fmt: skip
    axes.set(
        xlabel="step t", ylabel=r"$\|\delta_t\|$", yscale="log", ylim=(low / 10, high * 100),
        title=f"Spectral radius of W {found.radius:g}, T = {len(t)}", xmargin=0.01,
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
