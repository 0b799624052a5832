"""Random problems on which mistakes show.

Mistakes hide where weights are tiny, zero or symmetric, where sizes coincide, and where the
sequence is one step long. Weights here have a standard deviation of about one over the square root
of the number of inputs, every size is drawn on its own, and one step is one length among others.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np
from jaxtyping import Float

from jax_reference.padded import Capacity
from manual_bptt import gru, lstm, rnn
from manual_bptt.rnn import Params

Array = np.ndarray[Any, np.dtype[Any]]
P = ParamSpec("P")
R = TypeVar("R")

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
LOSSES = ("mse", "half_sse")  # those that section 9 bounds
ALL_LOSSES = (*LOSSES, "mae", "huber", "softmax_cross_entropy", "binary_cross_entropy")
CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru}
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
    """One point at which gradients are compared."""

    params: Params
    x: Float[Array, "T B D"]
    y: Float[Array, "B O"]
    h0: Float[Array, "B H"] | None
    activation: str
    loss: str

    @property
    def sizes(self) -> Sizes:
        """The five sizes."""
        (T, B, D), (O, H) = self.x.shape, self.params.V.shape
        return Sizes(T, B, D, H, O)


def with_values(
    rng: np.random.Generator,
    sizes: Sizes,
    *,
    dtype: Any = np.float64,
    activation: str = "tanh",
    loss: str = "mse",
    bias: bool = False,
    initial_state: bool = False,
    spread: float = 1.0,
    target_scale: float = 1.0,
) -> Problem:
    """A problem of these sizes with normal values.

    `spread` is the standard deviation of W times √H; `target_scale` is that of y: a large one makes
    large gradients, which shows clipping.
    """
    T, B, D, H, O = sizes

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (scale * rng.normal(size=shape)).astype(dtype)

    params = Params(
        U=normal(H, D, scale=1 / np.sqrt(D)),
        W=normal(H, H, scale=spread / np.sqrt(H)),
        V=normal(O, H, scale=1 / np.sqrt(H)),
        b=normal(H, scale=0.5) if bias else None,
        c=normal(O, scale=0.5) if bias else None,
    )
    x = normal(T, B, D)
    y = normal(B, O, scale=target_scale)
    return Problem(params, x, y, normal(B, H) if initial_state else None, activation, loss)


def draw(seed: int, case: int, dtype: Any = np.float64, largest: Capacity = LARGEST) -> Problem:
    """Random problem number `case` of a seed: sizes, activation, loss, biases, h0 and values."""
    rng = np.random.default_rng([seed, case])
    return with_values(
        rng,
        Sizes(*(int(rng.integers(1, most + 1)) for most in largest)),
        dtype=dtype,
        activation=str(rng.choice(ACTIVATIONS)),
        loss=str(rng.choice(LOSSES)),
        bias=bool(rng.integers(2)),
        initial_state=bool(rng.integers(2)),
        spread=rng.uniform(0.5, 1.5),
        target_scale=float(rng.choice([1.0, 10.0])),
    )


def simple(problem: Problem) -> Problem:
    """The problem with every number rounded to one digit after the point, and none of them zero."""

    def rounded(values: Array | None) -> Any:
        if values is None:
            return None
        near = np.round(values, 1)
        return np.where(near == 0, values.dtype.type(0.1), near)

    params = Params(*(rounded(w) for w in problem.params))
    x, y = rounded(problem.x), rounded(problem.y)
    return problem._replace(params=params, x=x, y=y, h0=rounded(problem.h0))


class Variant(NamedTuple):
    """One point at which the gradients of any cell are compared, with all its options.

    `option` is the RNN's activation or the GRU's `reset`. In the padding x and y are NaN, or −1
    where y holds classes.
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
    def batch(self) -> dict[str, Any]:
        """The options of the cell, the outputs and the lengths: what `predict` takes."""
        return {**self.option, "outputs": self.outputs, "lengths": self.lengths}

    @property
    def options(self) -> dict[str, Any]:
        """All keyword arguments of `gradients`."""
        return {**self.batch, "loss": self.loss, "truncation": self.truncation}


def variant_with_values(
    rng: np.random.Generator,
    cell: str,
    sizes: Sizes,
    *,
    dtype: Any = np.float64,
    option: str = "",
    loss: str = "mse",
    outputs: str = "last",
    ragged: bool = False,
    truncation: int | None = None,
    bias: bool = True,
    initial_state: bool = True,
    spread: float = 1.0,
    classes: bool = False,
) -> Variant:
    """A problem of these sizes with normal values, for any cell.

    `option` is the activation or the placement of the reset gate; `ragged` draws lengths, and puts
    NaN into the padding; `classes` gives softmax cross-entropy integers rather than one-hot rows.
    """
    T, B, D, H, O = sizes

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (scale * rng.normal(size=shape)).astype(dtype)

    def filled(name: str, shape: tuple[int, ...]) -> Array:
        scale = {"U": 1 / np.sqrt(D), "W": spread / np.sqrt(H), "V": 1 / np.sqrt(H)}.get(name, 0.5)
        return normal(*shape, scale=scale)

    empty = CELLS[cell].init(rng, D, H, O, bias=bias)
    params = type(empty)(
        *(None if w is None else filled(n, w.shape) for n, w in empty._asdict().items())
    )
    x, at = normal(T, B, D), (B,) if outputs == "last" else (T, B)
    y = normal(*at, O)
    if loss == "softmax_cross_entropy":
        chosen = rng.integers(0, O, at)
        y = chosen if classes else np.eye(O, dtype=dtype)[chosen]
    elif loss == "binary_cross_entropy":
        y = rng.uniform(size=(*at, O)).astype(dtype)
    lengths = rng.integers(1, T + 1, B) if ragged else None
    if lengths is not None:
        padding = np.arange(1, T + 1)[:, None] > lengths
        x[padding] = np.nan
        if outputs == "every":
            y[padding] = -1 if np.issubdtype(y.dtype, np.integer) else np.nan
    names = {"rnn": "activation", "gru": "reset"}
    states = ("h0", "c0") if cell == "lstm" else ("h0",)
    return Variant(
        cell,
        params,
        x,
        y,
        {name: normal(B, H) for name in states} if initial_state else {},
        {names[cell]: option} if cell in names else {},
        loss,
        outputs,
        lengths,
        truncation if outputs == "last" else None,
    )


def as_variant(problem: Problem) -> Variant:
    """The same point of the plain RNN, as one of a cell with options."""
    params, x, y, h0, activation, loss = problem
    first = {} if h0 is None else {"h0": h0}
    return Variant("rnn", params, x, y, first, {"activation": activation}, loss)


OPTIONS = {"rnn": ("tanh", "relu"), "lstm": ("",), "gru": gru.RESETS}


def draw_variant(
    seed: int, case: int, dtype: Any = np.float64, largest: Capacity = LARGEST
) -> Variant:
    """Random problem number `case` of a seed: cells and losses in turn, the rest at random."""
    rng = np.random.default_rng([seed, case, 1])
    cell, T = tuple(CELLS)[case % len(CELLS)], int(rng.integers(2, largest.T + 1))
    between = [(T, T), *((1, most) for most in largest[1:4]), (2, largest.O)]
    return variant_with_values(
        rng,
        cell,
        Sizes(*(int(rng.integers(least, most + 1)) for least, most in between)),
        dtype=dtype,
        option=str(rng.choice(OPTIONS[cell])),
        loss=ALL_LOSSES[case // len(CELLS) % len(ALL_LOSSES)],
        outputs=str(rng.choice(["last", "every"])),
        ragged=bool(rng.integers(2)),
        truncation=int(rng.integers(1, T + 1)) if rng.integers(3) == 0 else None,
        spread=rng.uniform(0.5, 1.5),
        classes=bool(rng.integers(2)),
    )


# What is true of a problem is asked for again with the next derivation.


def content(value: Any) -> Hashable:
    """What makes two problems the same one: every bit of their arrays, and their options.

    Entries that are objects are the same where they are equal.
    """
    if isinstance(value, dict):
        return tuple((name, content(each)) for name, each in value.items())
    if isinstance(value, tuple):
        return type(value).__name__, *map(content, value)
    if hasattr(value, "__array__") and not isinstance(value, type):
        array = np.asarray(value)
        numbers = tuple(array.flat) if array.dtype.hasobject else array.tobytes()
        return array.dtype.str, array.shape, numbers
    found: Hashable = value
    return found


class Asked(NamedTuple):
    """The arguments of a call, which are the same call where they have the same content."""

    content: Hashable
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asked) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)


def read_only(found: R) -> R:
    """The same, but that no array in it can be written to: it is handed out again."""
    for array in jax.tree.leaves(found):
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    return found


def remembered(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function of problems that keeps so many of its last answers."""

    def remembering(function: Callable[P, R]) -> Callable[P, R]:
        @lru_cache(maxsize=most)
        def known(asked: Asked) -> R:
            return read_only(function(*asked.arguments, **asked.named))

        @wraps(function)
        def answer(*arguments: P.args, **named: P.kwargs) -> R:
            return known(Asked(content((arguments, named)), arguments, named))

        return answer

    return remembering
