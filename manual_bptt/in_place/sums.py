"""Sums over time as products of whole arrays, and what the sweeps of all cells share."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Shaped

from manual_bptt.activations import Array

States = tuple[Array | None, ...]  # h, and the LSTM's c; None stands for zeros
BLOCK = 2**16  # bytes of (n, B, H) for which what is done to n steps at once stays in a cache


class Layout(NamedTuple):
    """What the arrays of a segment are made for: sizes, dtype, and the arrays of the gradients.

    `segments` says whether there are several segments of `steps` steps, whose sums are added.
    """

    steps: int
    B: int
    D: int
    H: int
    dtype: np.dtype[Any]
    gradient: Any
    segments: bool

    def empty(self, *shape: int) -> Array:
        """An array of this dtype."""
        return np.empty(shape, self.dtype)

    @property
    def steps_in_cache(self) -> int:
        """How many steps at once stay in a cache."""
        return min(self.steps, max(1, BLOCK // (self.B * self.H * self.dtype.itemsize)))


class Sweeps(Protocol):
    """The two sweeps of a cell through one segment of at most k steps.

    The order of calls is `forward`, `entrance`, `back`, `sum_over_time` and, where there is a
    segment before, `hand_on`.
    """

    temporary: list[Array]

    def forward(self, params: Any, x: Array, before: States) -> tuple[Array, ...]:
        """The last states of the steps of x after the states `before`."""

    def entrance(self, n: int) -> Array:
        """The place (B, H) where `back` expects ∂L/∂h of the last of n steps."""

    def back(self, params: Any, n: int, dc: Array | None) -> None:
        """The adjoints of n steps, from ∂L/∂h at the entrance and, for an LSTM, ∂L/∂c."""

    def sum_over_time(self, x: Array, before: States, first: bool) -> None:
        """The segment's part of all sums over time; `first` where no other is there yet."""

    def hand_on(self, params: Any, n: int, into: Array) -> None:
        """Write the gradients with respect to the states before the segment over those states."""


def rows(array: Shaped[Array, "n B *"]) -> Shaped[Array, "nB *"]:
    """The rows of all sequences at all steps, one below the other."""
    return array.reshape(-1, array.shape[-1])


def blocks(n: int, together: int) -> Iterator[slice]:
    """Yield slices of n steps, so many together."""
    return (slice(start, min(start + together, n)) for start in range(0, n, together))


def add_product(left: Array, right: Array, total: Array, addend: Array | None) -> None:
    """leftᵀ right into `total`, or, by way of `addend`, added to it."""
    if addend is None:
        np.dot(left.T, right, total)
    else:
        total += np.dot(left.T, right, addend)  # (Q6)  over the segments


def add_sum(values: Shaped[Array, "n B H"], total: Array, addend: Array | None) -> None:
    """The sum over steps and sequences into `total`, or, by way of `addend`, added to it."""
    np.sum(values, axis=(0, 1), out=total if addend is None else addend)
    if addend is not None:
        np.add(total, addend, total)  # (Q6)  over the segments
