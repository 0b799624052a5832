"""Layers of recurrent cells in both directions: what the three cells share.

Weights come by PyTorch's names: weight_ih_l0 (G H, D), weight_hh_l0 (G H, H), bias_ih_l0 and
bias_hh_l0 (G H,), with l1, l2, … for further layers and the ending _reverse for the backward
direction. G is the number of gates of the cell. Biases may be absent.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = Any  # of JAX, NumPy or PyTorch
State = tuple[Array, ...]
NAME = re.compile(r"(weight|bias)_(ih|hh)_l(\d+)(_reverse)?")


class Gates(NamedTuple):
    """The weights of one layer in one direction; biases of None are absent."""

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None
    bias_hh: Array | None

    def enter(self, x: Array) -> Array:
        """W_ih x + b_ih."""
        a = x @ self.weight_ih.T
        return a if self.bias_ih is None else a + self.bias_ih

    def recur(self, h: Array) -> Array:
        """W_hh h + b_hh."""
        a = h @ self.weight_hh.T
        return a if self.bias_hh is None else a + self.bias_hh


# From the weights, the states before, and W_ih x_t + b_ih: the states after, h first.
Step = Callable[[Any, Gates, State, Array], State]


def find_namespace(*values: Any) -> Any:
    """Find the library of the arrays: torch if any is a tensor, else JAX if any is JAX's."""
    leaves = jax.tree.leaves(values)
    if any(type(leaf).__module__.partition(".")[0] == "torch" for leaf in leaves):
        return import_module("torch")  # whoever has a tensor has torch
    return jnp if any(isinstance(leaf, jax.Array) for leaf in leaves) else np


def sigmoid(xp: Any, a: Array) -> Array:
    """1 / (1 + e⁻ᵃ), which overflows nowhere."""
    return (xp.tanh(a / 2) + 1) / 2


def split(a: Array, gates: int) -> Sequence[Array]:
    """The blocks of the last axis, one for each gate."""
    H = a.shape[-1] // gates
    return [a[..., k * H : (k + 1) * H] for k in range(gates)]


def run(
    step: Step,
    gates: int,
    weights: Mapping[str, Array],
    x: Array,
    first: Sequence[Array | None],
    lengths: Array | None,
    batch_first: bool,
) -> tuple[Array, list[Array]]:
    """Every h_t of the last layer (T, B, directions · H), and the last states of all layers.

    `first` has the initial states (layers · directions, B, H), None for zeros, and so do the last
    states. With `lengths` (B,), outputs beyond a sequence's end are zero, and its last states are
    those at its end. Raises ValueError naming what does not fit.
    """
    if not hasattr(x, "ndim"):
        raise TypeError(f"x: expected an array, found {type(x).__name__}")
    if x.ndim != 3:
        raise ValueError(
            f"x: expected shape (T, B, D), found {tuple(x.shape)}; x[:, None] is a batch of one"
        )
    xp = find_namespace(weights, x, first)
    x = xp.swapaxes(x, 0, 1) if batch_first else x
    layers = read_layers(weights, gates, x.shape[-1])
    (T, B), H = x.shape[:2], layers[0][0].weight_hh.shape[1]
    number, directions = len(layers) * len(layers[0]), len(layers[0])
    for name, state in zip(("h0", "c0"), first, strict=False):
        require_shape(name, state, (number, B, H))
    lengths = None if lengths is None else read_lengths(xp, lengths, x)
    zeros = xp.zeros(
        (B, H), dtype=x.dtype, **({"device": x.device} if xp.__name__ == "torch" else {})
    )
    last: list[list[Array]] = []
    for layer, both in enumerate(layers):
        outputs = []
        for direction, params in enumerate(both):
            place = layer * directions + direction
            states = tuple(zeros if each is None else each[place] for each in first)
            turned = x if direction == 0 else turn(xp, x, lengths)
            h, reached = run_layer(xp, step, params, turned, states, lengths)
            outputs.append(h if direction == 0 else turn(xp, h, lengths))
            last.append(list(reached))
        x = outputs[0] if directions == 1 else xp.concatenate(outputs, -1)
    if lengths is not None:
        counted = index(xp, np.arange(T), x)[:, None] < lengths
        x = xp.where(counted[..., None], x, xp.zeros_like(x))
    states_by_kind = [xp.stack(each) for each in zip(*last, strict=True)]
    return xp.swapaxes(x, 0, 1) if batch_first else x, states_by_kind


def read_lengths(xp: Any, lengths: Any, x: Array) -> Array:
    """Read the lengths (B,) of the sequences in x, from 1 to T.

    Raises ValueError where one is not; lengths that JAX traces are not looked at.
    """
    lengths = index(xp, lengths, x)
    T, B = x.shape[:2]
    require_shape("lengths", lengths, (B,))
    for value in [] if isinstance(lengths, jax.core.Tracer) else lengths.tolist():
        if not 1 <= value <= T:
            raise ValueError(f"lengths: expected values from 1 to T = {T}, found {value}")
    return lengths


def run_layer(
    xp: Any, step: Step, params: Gates, x: Array, states: State, lengths: Array | None
) -> tuple[Array, State]:
    """Every h_t of one layer in one direction, and its last states."""
    entering = params.enter(x)
    steps = index(xp, np.arange(len(x)), x)

    def advance(states: State, at: tuple[Array, Array]) -> tuple[State, Array]:
        t, entered = at
        after = step(xp, params, states, entered)
        if lengths is not None:  # a sequence that has ended keeps its states
            going = (t < lengths)[:, None]
            after = tuple(xp.where(going, new, old) for new, old in zip(after, states, strict=True))
        return after, after[0]

    if xp is jnp:
        states, h = lax.scan(advance, states, (steps, entering))
        return h, states
    every = []
    for at in zip(steps, entering, strict=True):
        states, h_t = advance(states, at)
        every.append(h_t)
    return xp.stack(every), states


def turn(xp: Any, x: Array, lengths: Array | None) -> Array:
    """Turn each sequence around within its own length; the padding stays where it is."""
    T, B = x.shape[:2]
    t = index(xp, np.arange(T), x)[:, None]
    if lengths is None:
        return x[index(xp, np.arange(T)[::-1].copy(), x)]
    ends = lengths.astype(t.dtype) if hasattr(lengths, "astype") else lengths.to(t.dtype)
    places = xp.where(t < ends, ends - 1 - t, t)
    return x[places, index(xp, np.arange(B), x)]


def index(xp: Any, values: Any, x: Array) -> Array:
    """Whole numbers as an array of the library, on the device of x."""
    return xp.asarray(values, **({"device": x.device} if xp.__name__ == "torch" else {}))


def read_layers(weights: Mapping[str, Array], gates: int, D: int) -> list[list[Gates]]:
    """The weights of each layer in each direction. Raises ValueError naming what does not fit."""
    for name in weights:
        if name.startswith("weight_hr"):
            raise ValueError(f"{name}: expected no projection of h; multiply h_t by it yourself")
        if NAME.fullmatch(name) is None:
            raise ValueError(f"weights: expected names such as weight_ih_l0, found {name!r}")
    number = 1 + max([int(found[3]) for name in weights if (found := NAME.fullmatch(name))] or [0])
    endings = ("", "_reverse") if any(name.endswith("_reverse") for name in weights) else ("",)
    layers = []
    for layer in range(number):
        parts = [
            Gates(*(weights.get(f"{kind}_l{layer}{ending}") for kind in Gates._fields))
            for ending in endings
        ]
        for ending, part in zip(endings, parts, strict=True):
            for kind in ("weight_ih", "weight_hh"):
                if getattr(part, kind) is None:
                    raise ValueError(f"weights: expected {kind}_l{layer}{ending}, found none")
            H = parts[0].weight_hh.shape[-1]
            shapes = ((gates * H, D), (gates * H, H), (gates * H,), (gates * H,))
            for kind, shape in zip(Gates._fields, shapes, strict=True):
                require_shape(f"{kind}_l{layer}{ending}", getattr(part, kind), shape)
        layers.append(parts)
        D = len(endings) * parts[0].weight_hh.shape[-1]
    return layers


def require_shape(name: str, value: Array | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless an array has this shape; None is absent."""
    if value is not None and tuple(value.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {tuple(value.shape)}")
