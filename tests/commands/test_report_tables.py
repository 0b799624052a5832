"""The table of the built-in derivations fits a terminal of eighty columns."""

from rich.console import Console

from bptt_verifier.commands.tables import builtin_table
from bptt_verifier.console.terminal import measure
from bptt_verifier.judge.builtin import (
    CELL_DERIVATIONS,
    DERIVATIONS,
    TANGENT_DERIVATIONS,
    BuiltinReport,
)
from bptt_verifier.judge.tally import Row, Worst
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.tolerance.comparison import Comparison


def test_the_table_of_all_derivations_fits_eighty_columns() -> None:
    worst = Worst(10**6, Comparison("W", 0.5, (0, 0), 1.0, 1.0, 1e-9, 1e-9))
    largest = Sizes(T=30, B=4, D=30, H=13, O=4)
    names = [*DERIVATIONS, *CELL_DERIVATIONS, *TANGENT_DERIVATIONS]
    rows = [
        Row(name, gradient, 10**6, True, worst, largest, "mse")
        for name in names
        for gradient in ("L", "every δ_t", "R{∂L/∂h₀}")
    ]
    report = BuiltinReport(0, "float64", 10**6, rows, [], [])
    table = builtin_table(report)
    assert measure(table, Console(width=1000)) <= 80
    (shapes,) = (column for column in table.columns if "shape" in str(column.header))
    assert {*shapes.cells} == {"30×4×30×13×4", ""}
