"""The worked example: three phrases of two tokens, and the colour that each stands for.

There are two encodings of the tokens and two initial states; one combination cannot be learned.
Source: docs/derivation.md, section 7.
"""

from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bptt_verifier.problems.problem import Array
from manual_bptt.training import CELLS, Params, options_of


class Phrase(NamedTuple):
    """A phrase, the numbers of its words, and its colour as three bytes."""

    text: str
    tokens: tuple[int, int]
    rgb: tuple[int, int, int]


PHRASES = (
    Phrase("The Forest", (0, 1), (0, 128, 0)),
    Phrase("The Sea", (0, 2), (0, 0, 255)),
    Phrase("The Fire", (0, 3), (255, 165, 0)),
)


# The encoding of a token: one number (D = 1), or a row of the identity (D = 4).
Encoding = StrEnum("Encoding", {"INTEGER": "integer", "ONE_HOT": "one-hot"})
# The initial state h_0: zero, or one fixed random vector, the same for every phrase.
InitialState = StrEnum("InitialState", {"ZEROS": "zeros", "RANDOM": "random"})


def inputs(encoding: Encoding, dtype: Any = np.float64) -> Float[Array, "T B D"]:
    """The three phrases as x, time-major: T = 2, B = 3."""
    tokens: Array = np.array([phrase.tokens for phrase in PHRASES]).T
    if encoding is Encoding.INTEGER:
        return tokens[..., None].astype(dtype)
    rows: Array = np.eye(tokens.max() + 1, dtype=dtype)
    return rows[tokens]


def targets(dtype: Any = np.float64) -> Float[Array, "B O"]:
    """The three colours as y, red, green and blue from 0 to 1."""
    return np.array([phrase.rgb for phrase in PHRASES]).astype(dtype) / 255


def initial_state(
    kind: InitialState, rng: np.random.Generator, hidden_size: int, dtype: Any = np.float64
) -> Float[Array, "B H"]:
    """The state h_0 of every phrase; a random one is drawn once, from the normal distribution."""
    one = np.zeros(hidden_size) if kind is InitialState.ZEROS else rng.normal(size=hidden_size)
    return np.tile(one.astype(dtype), (len(PHRASES), 1))


def in_bytes(prediction: Float[Array, "B O"]) -> Int[Array, "B O"]:
    """The prediction as a colour on the screen: 255 ŷ, rounded, from 0 to 255."""
    found: Array = np.rint(np.clip(255 * prediction, 0, 255))
    return found.astype(np.int64)


def target_loss(entries: int) -> float:
    """The mean squared error, over this number of entries, below which every byte is right."""
    return (0.5 / 255) ** 2 / entries  # (T2)


def recurrent_gradient_stays_zero(
    params: Params,
    x: Float[Array, "T B D"], y: Float[Array, "B O"], h0: Float[Array, "B H"],
    *, model: str = "rnn", activation: str | None = None,
) -> bool:  # fmt: skip
    """Whether ∂L/∂W is exactly zero here, and for all other weights too.

    Every term of ∂L/∂W has one of h_0 … h_{T-1} as a factor. If these are zero here, all inputs
    before the last are zero and there is no bias, then they are zero for all weights.
    """
    cell, options = CELLS[model], options_of(model, None, activation)
    _, trace = cell.forward(params, x, h0, **options)
    _, gradient = cell.value_and_grad(params, x, y, h0, **options)
    biased = params.b is not None or getattr(params, "b_n", None) is not None
    return not (gradient.W.any() or trace.h[:-1].any() or x[:-1].any() or biased)
