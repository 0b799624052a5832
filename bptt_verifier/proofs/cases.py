"""The models that the proofs cover: every cell, loss and option, at small sizes."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import (
    ALL_LOSSES,
    CELLS,
    OPTION_NAMES,
    OPTIONS,
    STATES,
    Array,
    Problem,
    Sizes,
    list_shapes,
)
from bptt_verifier.proofs.forward_pass import ForwardPass, map_entries


def fill(shape: tuple[int, ...], number: Callable[[], Any]) -> Array:
    """An object array of this shape; every entry comes from a call of `number`."""
    return map_entries(lambda _: number(), np.empty(shape))


class ProofCase(NamedTuple):
    """A model to prove correct: a cell with its option, a loss, sizes, and how a batch is run.

    `full` adds biases and initial states. Where the numbers are power series, every coordinate is
    infinitesimal; `large_residuals` starts V at 1 and the targets at ±2 instead, so that ŷ − y is
    not. Logits, the argument of exp, stay infinitesimal.
    """

    cell: str
    option: str
    loss: str
    sizes: Sizes
    outputs: str = "last"
    lengths: tuple[int, ...] | None = None
    truncation: int | None = None
    full: bool = True
    large_residuals: bool = True

    @property
    def origin(self) -> dict[str, int]:
        """The point that power series expand around: nonzero coordinates, by name."""
        return {"V": 1} if self.large_residuals and not self.loss.endswith("entropy") else {}

    def __str__(self) -> str:
        also = [f"lengths {self.lengths}"] if self.lengths else []
        also += [f"truncation {self.truncation}"] if self.truncation else []
        named = " ".join(filter(None, (self.cell, self.option)))
        return ", ".join([named, self.loss, str(self.sizes), f"outputs {self.outputs}", *also])

    @property
    def forward_pass(self) -> ForwardPass:
        """The forward pass that is differentiated."""
        return ForwardPass(self.cell, self.option, *self.mode)

    @property
    def mode(self) -> tuple[str, str, Array | None, int | None]:
        """The loss, outputs, lengths and truncation, as `ForwardPass` and `Problem` take them."""
        lengths = None if self.lengths is None else np.array(self.lengths)
        return self.loss, self.outputs, lengths, self.truncation

    def problem(self, values: dict[str, Array], y: Array, option: Any = None) -> Problem:
        """The problem with these numbers; `option` replaces the name of the activation."""
        cell, Params = self.cell, CELLS[self.cell].Params
        params = Params(*(values.get(name) for name in Params._fields))
        first = {name: values[name] for name in STATES[cell] if name in values}
        chosen = {OPTION_NAMES[cell]: option or self.option} if cell in OPTION_NAMES else {}
        return Problem(cell, params, values["x"], y, first, chosen, *self.mode)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every argument of the problem, and of all ε_t (`adjoints`), by name."""
        names = {"U", "W", "V", "x", "adjoints"}
        if self.full:
            names |= {*CELLS[self.cell].Params._fields, *STATES[self.cell]}
        shapes = list_shapes(self.cell, self.sizes)
        return {name: shape for name, shape in shapes.items() if name in names}


SMALL, LONG = Sizes(T=4, B=2, D=2, H=2, O=2), Sizes(T=12, B=1, D=1, H=1, O=1)
# The number of entries that count is a power of two in every mode: NumPy divides the sign of an
# object by that number in floats, and a power of two keeps the quotient exact.
MODES: tuple[dict[str, Any], ...] = (
    {"large_residuals": False},
    {"full": False},
    {"outputs": "every"},
    {"lengths": (4, 2)},
    {"outputs": "every", "lengths": (1, 3)},
    {"truncation": 2},
    {"lengths": (3, 4), "truncation": 2},
)


def cases(cell: str) -> Iterator[ProofCase]:
    """Every option, loss and mode of a cell at small sizes, and one long sequence."""
    for option, loss, mode in product(OPTIONS[cell], ALL_LOSSES, MODES):
        yield ProofCase(cell, option, loss, SMALL, **mode)
    yield ProofCase(cell, OPTIONS[cell][0], "half_sse", LONG)
