"""`bptt accuracy`: measure the error of each implementation, in units in the last place.

The contenders are the hand derivation, the same compiled, and autodiff. Each is compared with the
exact gradient, which `proofs.enclosures` encloses, and with the bound on its error. Needs the extra
`certify`.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from typer import Option

from bptt_verifier.commands.tables import empty_table
from bptt_verifier.console.figures import COLOURS, empty_figure
from bptt_verifier.console.files import JsonFile, require_writable, text_beside_json, write_json
from bptt_verifier.console.terminal import collect_rows, print_paragraphs, print_uncut
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Array, Problem, Sizes
from bptt_verifier.reference.autodiff import truth
from jax_reference import rnn as autodiff
from manual_bptt import rnn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DTYPES = ("float32", "float64")
LENGTHS = (5, 12, 50)  # the second is the longest for which the derived bound is used
NORMS = (0.5, 1.0, 2.0)  # of W: vanishing, neither, exploding until the states saturate
PARAMETERS = ("U", "W", "V")
CONTENDERS = ("manual", "manual-jit", "autodiff")


class UlpErrors(NamedTuple):
    """One contender's errors in units in the last place, and its worst error over the bound."""

    median: float
    percentile_99: float
    worst: float
    over_bound: float


class AccuracyRow(NamedTuple):
    """The errors of all contenders on the same problems, in ∂L/∂U, ∂L/∂W and ∂L/∂V."""

    dtype: str
    T: int
    norm: float
    entries: int
    errors: dict[str, UlpErrors]

    @property
    def looseness(self) -> float:
        """The factor by which the bound exceeds the worst error; ∞ where all is exact."""
        worst = max(errors.over_bound for errors in self.errors.values())
        return 1 / worst if worst > 0 else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        errors = {name: found._asdict() for name, found in self.errors.items()}
        return self._asdict() | {"errors": errors, "looseness": self.looseness}


def contenders() -> dict[str, Callable[[Problem], Any]]:
    """The gradients of each implementation, in the dtype of the problem."""
    from manual_bptt.jitted import rnn as jitted  # noqa: PLC0415 - the one part that loads JAX

    def gradients(module: Any, problem: Problem) -> Any:
        point = problem.params, problem.x, problem.y
        return module.value_and_grad(*point, **problem.simple_options)[1]

    modules = zip(CONTENDERS, (rnn, jitted, autodiff), strict=True)
    return {name: partial(gradients, module) for name, module in modules}


def draw_problem(seed: int, case: int, dtype: str, T: int, norm: float) -> Problem:
    """Draw a problem whose W has this spectral norm, up to rounding."""
    rng = np.random.default_rng([seed, case, T, int(1000 * norm)])
    problem = with_values(rng, Sizes(T=T, B=2, D=3, H=4, O=2), initial_state=True)
    W = problem.params.W * (norm / np.linalg.norm(problem.params.W, 2))
    problem = problem._replace(params=problem.params._replace(W=W))
    return problem.map_arrays(lambda values: values.astype(dtype))


def measure(seed: int, problems: int, dtype: str, T: int, norm: float) -> AccuracyRow:
    """Measure the errors of all contenders on this number of problems."""
    from bptt_verifier.proofs.enclosures import certify  # noqa: PLC0415 - needs an extra

    ulps: dict[str, list[Array]] = {name: [] for name in CONTENDERS}
    ratios: dict[str, float] = dict.fromkeys(CONTENDERS, 0.0)
    implementations = contenders()
    for case in range(problems):
        problem = draw_problem(seed, case, dtype, T, norm)
        point, options = (problem.params, problem.x, problem.y), problem.simple_options
        exact = certify(*point, **options, names=PARAMETERS)
        allowed = truth(problem, problem.x.dtype).allowed
        for name, gradients in implementations.items():
            found = gradients(problem)
            for parameter in PARAMETERS:
                off = exact[parameter].errors_in_ulps(np.asarray(getattr(found, parameter)))
                ulps[name].append(off.ravel())
                absolute = off * exact[parameter].ulps.astype(np.float64)
                ratio = float(np.max(absolute / allowed[parameter]))
                ratios[name] = max(ratios[name], ratio)
    errors = {}
    for name, found in ulps.items():
        off = np.concatenate(found)
        values = np.median(off), np.percentile(off, 99), np.max(off), ratios[name]
        errors[name] = UlpErrors(*map(float, values))
    return AccuracyRow(dtype, T, norm, len(off), errors)


HEADINGS = (
    "dtype", "T", "‖W‖", *(f"{name}: median, 99 %, worst" for name in CONTENDERS),
    "worst ÷ bound", "bound ÷ worst",
)  # fmt: skip


def format_row(row: AccuracyRow) -> list[str]:
    """The cells of a row, in the order of `HEADINGS`."""
    spread = [
        f"{found.median:.2g}, {found.percentile_99:.2g}, {found.worst:.2g}"
        for found in (row.errors[name] for name in CONTENDERS)
    ]
    worst = max(found.over_bound for found in row.errors.values())
    return [row.dtype, str(row.T), f"{row.norm:g}", *spread, f"{worst:.2g}", f"{row.looseness:.2g}"]


def summarise(rows: list[AccuracyRow]) -> str:
    """The most accurate contender, and how sharp the bound is."""
    medians = {name: [row.errors[name].median for row in rows] for name in CONTENDERS}
    typical = {name: float(np.median(found)) for name, found in medians.items()}
    best = min(typical, key=lambda name: typical[name])
    others = ", ".join(f"{name} {typical[name]:.2g}" for name in CONTENDERS if name != best)
    worst = max(found.over_bound for row in rows for found in row.errors.values())
    loosest = max(row.looseness for row in rows)
    return (
        f"Typically {best} is the most accurate, {typical[best]:.2g} ulp ({others}). The worst "
        f"error is {worst:.2g} of its bound; no bound is over {loosest:.2g} times what was needed."
    )


def render_markdown(rows: list[AccuracyRow], command: str) -> str:
    """The table as the page docs/accuracy.md."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *map(format_row, rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        "# Accuracy, in units in the last place of the exact gradient\n\n"
        f"Written by `{command}`; what the columns mean is said in\n"
        f"[certification.md](certification.md).\n\n{table}\n\n{summarise(rows)}\n"
    )


def draw(figure: "Figure", rows: list[AccuracyRow]) -> None:
    """Draw the median and worst error against T, a panel for each dtype and norm."""
    panels = figure.subplots(len(DTYPES), len(NORMS), sharex=True, sharey=True, squeeze=False)
    colours = dict(zip(CONTENDERS, COLOURS, strict=True))
    markers = dict(zip(CONTENDERS, "osD", strict=True))
    for (i, dtype), (j, norm) in product(enumerate(DTYPES), enumerate(NORMS)):
        chosen = [row for row in rows if row.dtype == dtype and row.norm == norm]
        T, axes = [row.T for row in chosen], panels[i, j]
        for name, colour in colours.items():
            found = [row.errors[name] for row in chosen]
            axes.plot(T, [e.median for e in found], color=colour, marker=markers[name], label=name)
            axes.plot(T, [e.worst for e in found], color=colour, linestyle=":")
        axes.set(yscale="log", xticks=LENGTHS, title=f"{dtype}, $\\|W\\| = {norm:g}$")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    figure.supxlabel("steps T")
    figure.supylabel("error in ulp: median, worst dotted")


def accuracy(
    problems: Annotated[int, Option(min=1, help="Number of random problems in each row.")] = 10,
    seed: Annotated[int, Option(min=0, help="Seed of the random problems.")] = 0,
    json_file: JsonFile = None,
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="Draw the errors against T into this file.")
    ] = None,
    page: Annotated[
        Path | None, Option("--markdown", metavar="FILE", help="Write the table as Markdown.")
    ] = None,
) -> None:
    """Measure the error of each implementation, and how sharp its bound is."""
    require_writable("--json", json_file)
    require_writable("--markdown", page)
    figure = None if plot is None else empty_figure(plot)
    settings = [*product(DTYPES, LENGTHS, NORMS)]
    measured = (measure(seed, problems, *each) for each in settings)
    rows = collect_rows("measuring", measured, len(settings))
    table = empty_table(*HEADINGS, justify="right")
    for row in rows:
        table.add_row(*format_row(row))
    with text_beside_json(json_file):
        print_uncut(table)
        print_paragraphs("", summarise(rows))
    plain = [row.to_dict() for row in rows]
    write_json(json_file, {"seed": seed, "problems": problems, "rows": plain})
    if page is not None:
        command = f"bptt accuracy --problems {problems} --seed {seed} --markdown docs/accuracy.md"
        page.write_text(render_markdown(rows, command), encoding="utf-8")
    if figure is not None and plot is not None:
        draw(figure, rows)
        figure.savefig(plot, dpi=150)
