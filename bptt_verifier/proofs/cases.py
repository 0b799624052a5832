"""The models that the proofs go through: every cell, loss and option, at small sizes."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import ALL_LOSSES, CELLS, Array, Sizes, Variant
from bptt_verifier.proofs.forward_pass import Model
from manual_bptt import gru


def filled(shape: tuple[int, ...], number: Callable[[], Any]) -> Array:
    """An object array of numbers, each from a call of its own."""
    found = np.empty(shape, object)
    for entry in np.ndindex(shape):
        found[entry] = number()
    return found


def shapes_of(cell: str, sizes: Sizes, *, bias: bool, states: bool) -> dict[str, tuple[int, ...]]:
    """The shape of everything that a problem of this cell is given, and of all ε_t, by name."""
    T, B, D, H, O = sizes
    G = {"rnn": 1, "lstm": 4, "gru": 3}[cell] * H
    found: dict[str, tuple[int, ...]] = {"U": (G, D), "W": (G, H), "V": (O, H)}
    if bias:
        found |= {"b": (G,), "c": (O,)} | ({"b_n": (H,)} if cell == "gru" else {})
    found |= {"x": (T, B, D)}
    if states:
        found |= {"h0": (B, H)} | ({"c0": (B, H)} if cell == "lstm" else {})
    return found | {"adjoints": (T, B, G)}


class Case(NamedTuple):
    """A model to prove something of: a cell with its option, a loss, and what else can vary.

    `full` is with biases and initial states. Over power series everything is infinitesimal, but
    that where it is `far`, V starts at 1, and targets at ±2; logits, the argument of exp, never do.
    """

    cell: str
    option: str
    loss: str
    sizes: Sizes
    outputs: str = "last"
    lengths: tuple[int, ...] | None = None
    truncation: int | None = None
    full: bool = True
    far: bool = True

    @property
    def origin(self) -> dict[str, int]:
        """Where the point is that everything is expanded around, but for what is at zero."""
        return {"V": 1} if self.far and not self.loss.endswith("entropy") else {}

    def __str__(self) -> str:
        also = [f"lengths {self.lengths}"] if self.lengths else []
        also += [f"truncation {self.truncation}"] if self.truncation else []
        named = " ".join(filter(None, (self.cell, self.option)))
        return ", ".join([named, self.loss, str(self.sizes), f"outputs {self.outputs}", *also])

    @property
    def model(self) -> Model:
        """For the forward pass that is differentiated."""
        return Model(
            self.cell, self.option, self.loss, self.outputs, self.given_lengths, self.truncation
        )

    @property
    def given_lengths(self) -> Array | None:
        """The lengths as an array."""
        return None if self.lengths is None else np.array(self.lengths)

    def variant(self, values: dict[str, Array], y: Array, option: Any = None) -> Variant:
        """The problem with these numbers; `option` in place of an activation's name."""
        names = {"rnn": "activation", "gru": "reset"}
        params = CELLS[self.cell].Params
        return Variant(
            self.cell,
            params(*(values.get(name) for name in params._fields)),
            values["x"],
            y,
            {name: values[name] for name in ("h0", "c0") if name in values},
            {names[self.cell]: option or self.option} if self.cell in names else {},
            self.loss,
            self.outputs,
            self.given_lengths,
            self.truncation,
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of everything that the problem is given, and of all ε_t, by name."""
        return shapes_of(self.cell, self.sizes, bias=self.full, states=self.full)


SMALL, LONG = Sizes(T=4, B=2, D=2, H=2, O=2), Sizes(T=12, B=1, D=1, H=1, O=1)
OPTIONS = {"rnn": ("tanh", "sigmoid", "relu", "identity"), "lstm": ("",), "gru": gru.RESETS}
# As many entries count as a power of two says: NumPy divides the sign of an object by their number,
# both whole, in floats, which is then exact.
MODES: tuple[dict[str, Any], ...] = (
    {"far": False},
    {"full": False},
    {"outputs": "every"},
    {"lengths": (4, 2)},
    {"outputs": "every", "lengths": (1, 3)},
    {"truncation": 2},
    {"lengths": (3, 4), "truncation": 2},
)


def cases(cell: str) -> Iterator[Case]:
    """Every option, loss and mode of a cell on small sizes, and one long sequence."""
    for option, loss, mode in product(OPTIONS[cell], ALL_LOSSES, MODES):
        yield Case(cell, option, loss, SMALL, **mode)
    yield Case(cell, OPTIONS[cell][0], "half_sse", LONG)
