"""Sequences of unequal length in one batch, and how far back the gradient goes.

A sequence that is over waits: its state stays as it is, and what comes back through time passes
it unchanged. So h_T is every sequence's own last state, and padding takes part in nothing.
Source: docs/derivation.md, (M1), (M2) and (K1).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from manual_bptt.activations import Array


def pad(
    sequences: Sequence[Shaped[Array, "T_b D"]],
) -> tuple[Shaped[Array, "T B D"], Int[Array, " B"]]:
    """One time-major batch of sequences (T_b, D) of any lengths, and the lengths; zeros pad it.

    Targets at every step are padded by the same function. Raises TypeError or ValueError where
    there is no sequence, one is empty, or the dtypes or sizes differ.
    """
    if not isinstance(sequences, Sequence):
        raise TypeError(f"sequences: expected a list of arrays, found {type(sequences).__name__}")
    if not sequences:
        raise ValueError("sequences: expected at least one array, found none")
    first = np.asarray(sequences[0])
    for number, each in enumerate(sequences):
        found = np.asarray(each)
        if found.ndim != 2 or found.shape[1:] != first.shape[1:] or not len(found):
            size = f" with D = {first.shape[1]}" if first.ndim == 2 and number else ""
            raise ValueError(
                f"sequences[{number}]: expected shape (T, D){size} with T ≥ 1, found {found.shape}"
            )
        if found.dtype != first.dtype:
            raise TypeError(
                f"sequences[{number}]: expected dtype {first.dtype} as in sequences[0], "
                f"found {found.dtype}"
            )
    lengths = np.array([len(each) for each in sequences])
    padded = np.zeros((lengths.max(), len(sequences), first.shape[1]), first.dtype)
    for number, each in enumerate(sequences):
        padded[: len(each), number] = each
    return padded, lengths


def steps_that_count(lengths: Int[Array, " B"] | None, T: int) -> Bool[Array, "T B"] | None:
    """Which steps belong to a sequence and which are padding; None where all belong."""
    return None if lengths is None else np.arange(1, T + 1)[:, None] <= lengths


def at_work(t: int, lengths: Int[Array, " B"] | None, value: Any, otherwise: Any) -> Any:
    """`value` for the sequences that have a step t, and `otherwise` for those that are over."""
    if lengths is None:
        return value
    return np.where((t <= lengths)[:, None], value, otherwise)


def cut(
    t: int, ends: Any, truncation: int | None, gradient: Shaped[Array, "B H"]
) -> Shaped[Array, "B H"]:
    """∂L/∂h_t, or zero where step t is not among the last `truncation` steps; h_0 is no step.

    `ends` are the lengths, or the T of all.
    """
    if truncation is None or t < 1:
        return gradient
    kept: Array = np.asarray(t > ends - truncation)[..., None]
    return np.where(kept, gradient, np.zeros_like(gradient))  # (K1)
