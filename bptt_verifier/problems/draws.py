"""Random problems that show mistakes.

Mistakes do not show where weights are tiny, zero or symmetric, where sizes are equal, or where the
sequence has one step. Here the standard deviation of the weights is about one over the square root
of the number of inputs, every size is drawn independently, and few sequences have one step.
"""

from typing import Any

import numpy as np

from bptt_verifier.problems.problem import (
    ACTIVATIONS,
    ALL_LOSSES,
    CELLS,
    DRAWN_OPTIONS,
    LARGEST,
    LOSSES,
    OPTION_NAMES,
    OPTIONS,
    STATES,
    Array,
    Problem,
    Sizes,
    list_shapes,
)
from jax_reference.padded import Capacity
from manual_bptt.tangents import Direction


def with_values(
    rng: np.random.Generator,
    sizes: Sizes,
    *,
    cell: str = "rnn",
    option: str | None = None,
    dtype: Any = np.float64,
    loss: str = "mse",
    outputs: str = "last",
    ragged: bool = False,
    truncation: int | None = None,
    bias: bool = False,
    initial_state: bool = False,
    spread: float = 1.0,
    target_scale: float = 1.0,
    classes: bool = False,
) -> Problem:
    """Draw a problem of these sizes with normal values.

    `option` is the activation or the placement of the reset gate; the default is the first of the
    cell. `spread` is √H times the standard deviation of W; `target_scale` is that of y, and a large
    one shows clipping. `ragged` draws lengths, with NaN in the padding; `classes` makes the targets
    of softmax cross-entropy integers instead of one-hot rows.
    """
    T, B, D, H, O = sizes
    shapes, Params = list_shapes(cell, sizes), CELLS[cell].Params
    scales = {"U": 1 / np.sqrt(D), "W": spread / np.sqrt(H), "V": 1 / np.sqrt(H)}
    present = Params._fields if bias else tuple(scales)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (scale * rng.normal(size=shape)).astype(dtype)

    params = Params(**{n: normal(*shapes[n], scale=scales.get(n, 0.5)) for n in present})
    x, rows = normal(T, B, D), (B,) if outputs == "last" else (T, B)
    y = normal(*rows, O, scale=target_scale)
    if loss == "softmax_cross_entropy":
        chosen = rng.integers(0, O, rows)
        y = chosen if classes else np.eye(O, dtype=dtype)[chosen]
    elif loss == "binary_cross_entropy":
        y = rng.uniform(size=(*rows, O)).astype(dtype)
    lengths = rng.integers(1, T + 1, B) if ragged else None
    if lengths is not None:
        padding = np.arange(1, T + 1)[:, None] > lengths
        x[padding] = np.nan
        if outputs == "every":
            y[padding] = -1 if np.issubdtype(y.dtype, np.integer) else np.nan
    first = {name: normal(B, H) for name in STATES[cell]} if initial_state else {}
    named = {OPTION_NAMES[cell]: option or OPTIONS[cell][0]} if cell in OPTION_NAMES else {}
    window = truncation if outputs == "last" else None
    return Problem(cell, params, x, y, first, named, loss, outputs, lengths, window)


def draw(seed: int, case: int, dtype: Any = np.float64, largest: Capacity = LARGEST) -> Problem:
    """Draw problem number `case` of the plain RNN: random sizes, options and values."""
    rng = np.random.default_rng([seed, case])
    return with_values(
        rng,
        Sizes(*(int(rng.integers(1, most + 1)) for most in largest)),
        dtype=dtype,
        option=str(rng.choice(ACTIVATIONS)),
        loss=str(rng.choice(LOSSES)),
        bias=bool(rng.integers(2)),
        initial_state=bool(rng.integers(2)),
        spread=rng.uniform(0.5, 1.5),
        target_scale=float(rng.choice([1.0, 10.0])),
    )


def draw_direction(seed: int, case: int, problem: Problem) -> Direction:
    """Draw a direction to move the parameters, x and h_0 of problem number `case` in."""
    rng, (_, B, _, H, _) = np.random.default_rng([seed, case, 2]), problem.sizes

    def normal(shape: tuple[int, ...]) -> Array:
        return rng.normal(size=shape).astype(problem.x.dtype)

    parts = {name: normal(value.shape) for name, value in problem.weights.items()}
    return Direction(**parts, x=normal(problem.x.shape), h0=normal((B, H)))


def draw_with_options(
    seed: int, case: int, dtype: Any = np.float64, largest: Capacity = LARGEST
) -> Problem:
    """Draw problem number `case` of any cell: cells and losses in turn, random options."""
    rng = np.random.default_rng([seed, case, 1])
    cell, T = tuple(CELLS)[case % len(CELLS)], int(rng.integers(2, largest.T + 1))
    between = [(T, T), *((1, most) for most in largest[1:4]), (2, largest.O)]
    return with_values(
        rng,
        Sizes(*(int(rng.integers(least, most + 1)) for least, most in between)),
        cell=cell,
        dtype=dtype,
        option=str(rng.choice(DRAWN_OPTIONS[cell])),
        loss=ALL_LOSSES[case // len(CELLS) % len(ALL_LOSSES)],
        outputs=str(rng.choice(["last", "every"])),
        ragged=bool(rng.integers(2)),
        truncation=int(rng.integers(1, T + 1)) if rng.integers(3) == 0 else None,
        bias=True,
        initial_state=True,
        spread=rng.uniform(0.5, 1.5),
        classes=bool(rng.integers(2)),
    )


def round_values(problem: Problem, decimals: int) -> Problem:
    """Round every number of a problem to so many decimals, but to the least one instead of zero."""

    def rounded(values: Array) -> Array:
        near = np.round(values, decimals)
        return np.where(near == 0, values.dtype.type(10.0**-decimals), near)

    return problem.map_arrays(rounded)
