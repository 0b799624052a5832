"""A problem: one point at which the gradients of a cell are compared, with all its options."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jax_reference.padded import Capacity
from manual_bptt import gru, lstm, rnn

Array = np.ndarray[Any, np.dtype[Any]]

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
LOSSES = ("mse", "half_sse")  # those whose bound docs/derivation.md, section 9, derives
ALL_LOSSES = (*LOSSES, "mae", "huber", "softmax_cross_entropy", "binary_cross_entropy")
CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru}
GATES = {"rnn": 1, "lstm": lstm.GATES, "gru": gru.GATES}
STATES = {"rnn": ("h0",), "lstm": ("h0", "c0"), "gru": ("h0",)}
OPTION_NAMES = {"rnn": "activation", "gru": "reset"}  # the one option of each cell
# All options of each cell, and those in problems with random options.
OPTIONS = {"rnn": ACTIVATIONS, "lstm": ("",), "gru": gru.RESETS}
DRAWN_OPTIONS = OPTIONS | {"rnn": ("tanh", "relu")}
LARGEST = Capacity(T=12, B=4, D=6, H=6, O=4)


class Sizes(NamedTuple):
    """Steps, batch, inputs, hidden units, outputs."""

    T: int
    B: int
    D: int
    H: int
    O: int

    def __str__(self) -> str:
        return " ".join(f"{letter}={size}" for letter, size in self._asdict().items())


class Problem(NamedTuple):
    """One point at which the gradients of a cell are compared, with all its options.

    `first` has the initial states that are given: h0, and the LSTM's c0. `option` has the RNN's
    activation or the GRU's `reset`, by name. In the padding x and y are NaN; classes are −1.
    """

    cell: str
    params: Any
    x: Float[Array, "T B D"]
    y: Array
    first: dict[str, Float[Array, "B H"]]
    option: dict[str, str]
    loss: str
    outputs: str = "last"
    lengths: Array | None = None
    truncation: int | None = None

    @property
    def sizes(self) -> Sizes:
        """The five sizes."""
        (T, B, D), (O, H) = self.x.shape, self.params.V.shape
        return Sizes(T, B, D, H, O)

    @property
    def h0(self) -> Float[Array, "B H"] | None:
        """The initial state, or None where it is zero."""
        return self.first.get("h0")

    @property
    def batch(self) -> dict[str, Any]:
        """The options of the cell, the outputs and the lengths: what `predict` takes."""
        return {**self.option, "outputs": self.outputs, "lengths": self.lengths}

    @property
    def options(self) -> dict[str, Any]:
        """All keyword arguments of `gradients` except the initial states."""
        return {**self.batch, "loss": self.loss, "truncation": self.truncation}

    @property
    def simple_options(self) -> dict[str, Any]:
        """The initial states, the option and the loss: the keywords of `value_and_grad`."""
        return {**self.first, **self.option, "loss": self.loss}

    @property
    def weights(self) -> dict[str, Array]:
        """The parameters that are not None, by name."""
        return {name: w for name, w in self.params._asdict().items() if w is not None}

    def map_arrays(self, function: Callable[[Array], Array]) -> "Problem":
        """Apply a function to the parameters, x, y and the initial states."""
        return self._replace(
            params=type(self.params)(*(None if w is None else function(w) for w in self.params)),
            x=function(self.x),
            y=function(self.y),
            first={name: function(state) for name, state in self.first.items()},
        )


def list_shapes(cell: str, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """List the shapes of the arguments and the results of a cell, by name."""
    T, B, D, H, O = sizes
    G = GATES[cell]
    return {
        "U": (G * H, D), "W": (G * H, H), "V": (O, H), "b": (G * H,), "c": (O,), "b_n": (H,),
        "x": (T, B, D), "h0": (B, H), "c0": (B, H), "adjoints": (T, B, G * H),
        "prediction": (B, O), "loss": (),
    }  # fmt: skip
