"""The sweeps of the plain RNN in arrays that are made once.

One matrix product makes all U x_t, one each ∂L/∂U and ∂L/∂W, and one a step either sweep. The
states are written over U x_t and the adjoints over the slopes, the first over the last state, so
that a step takes two arrays (T, B, H).
Source: docs/derivation.md, section 15.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from manual_bptt.activations import Array
from manual_bptt.in_place.sums import Layout, States, add_product, add_sum, rows
from manual_bptt.rnn import Params


class Elementwise(NamedTuple):
    """φ of a, which may be lost, into another array, and φ′ of h = φ(a) into another."""

    function: Callable[[Array, Array], object]
    slope: Callable[[Array, Array], object]


def logistic(a: Array, h: Array) -> None:
    """The bits of `activations.logistic`, with no array but a, which is lost, and h."""
    np.exp(np.negative(np.abs(a, h), h), h)
    np.greater_equal(a, 0, a)
    np.maximum(a, h, out=a)  # 1 where a ≥ 0, else e⁻|ᵃ|, which is at most 1
    np.divide(a, np.add(h, 1, h), h)


# fmt: off
ELEMENTWISE = {
    # name                  φ(a), into h                              φ′ from h, into s
    "tanh":     Elementwise(np.tanh,
                            lambda h, s: np.subtract(1, np.multiply(h, h, s), s)),  # (Q1)
    "sigmoid":  Elementwise(logistic,
                            lambda h, s: np.multiply(h, np.subtract(1, h, s), s)),  # (Q1)
    "relu":     Elementwise(lambda a, h: np.maximum(a, 0, out=h),
                            lambda h, s: np.greater(h, 0, s)),                      # (Q1)
    "identity": Elementwise(lambda a, h: np.copyto(h, a),
                            lambda h, s: s.fill(1)),                                # (Q1)
}
# fmt: on


class Sweeps:
    """Both sweeps of the RNN, with the activation of that name."""

    def __init__(self, layout: Layout, activation: str) -> None:
        k, B, _, H = layout[:4]
        self._gradient, self._activation = layout.gradient, ELEMENTWISE[activation]
        # A segment of n steps has h_t in row t and δ_t in row n - 1 + t: δ_1 lies where h_n was,
        # which nothing needs by then. Row 0 is for products, and for h_0 once (Q4) alone is left.
        self._rows = layout.empty(2 * k, B, H)
        self._spare = self._rows[0]
        self.temporary = [self._rows]
        # With one segment the place of ∂L/∂W is free during both sweeps, and Wᵀ lies there.
        self._W_T = self._gradient.W
        self._addends: tuple[Array | None, Array | None] = None, None
        if layout.segments:
            addends = np.empty_like(self._gradient.U), np.empty_like(self._gradient.W)
            self._W_T, self._addends = layout.empty(H, H), addends
            self.temporary += [self._W_T, *addends]

    def forward(self, params: Params, x: Array, before: States) -> tuple[Array, ...]:
        """The last state of the steps of x after the state `before`."""
        U, W, _, b, _ = params
        spare, W_T, phi = self._spare, self._W_T, self._activation.function
        np.copyto(W_T, W.T)
        (h,) = before
        states = self._rows[1 : len(x) + 1]
        np.dot(rows(x), U.T, rows(states))  # (Q2)  U x_t of all t at once
        if b is not None:
            states += b
        state: Array
        for state in states:
            if h is None:
                spare[...] = state  # W h_0 = 0
            else:
                np.dot(h, W_T, spare)
                np.add(state, spare, spare)  # (F1)  a_t = U x_t + W h_{t-1} + b
            phi(spare, state)  # (F2)  h_t = φ(a_t)
            h = state
        return (state,)

    def entrance(self, n: int) -> Array:
        """The row of δ_n, once φ′ of the last step is put aside: with n = 1 it is that of h_n."""
        self._activation.slope(self._rows[n], self._spare)  # (Q1)
        delta_n: Array = self._rows[2 * n - 1]
        return delta_n

    def back(self, params: Params, n: int, dc: Array | None) -> None:
        """The adjoints of n steps, from ∂L/∂h_n at the entrance."""
        spare, slope, delta_n = self._spare, self._activation.slope, self._rows[2 * n - 1]
        np.multiply(delta_n, spare, delta_n)  # (B2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        slope(self._rows[1:n], self._rows[n : 2 * n - 1])  # (Q1)  φ′ of all other t at once
        for later, adjoint in pairwise(self._rows[2 * n - 1 : n - 1 : -1]):
            np.dot(later, params.W, spare)  # (B3)  ∂L/∂h_t = Wᵀ δ_{t+1}
            np.multiply(adjoint, spare, adjoint)  # (B2)

    def sum_over_time(self, x: Array, before: States, first: bool) -> None:
        """The segment's part of ∂L/∂U, ∂L/∂W and ∂L/∂b; `first` where no other is there yet."""
        (h_0,) = before
        n, gradient, from_zero = len(x), self._gradient, h_0 is None
        delta, h = self._rows[n : 2 * n], self._rows[from_zero:n]
        for_U, for_W = (None, None) if first else self._addends
        add_product(rows(delta), rows(x), gradient.U, for_U)  # (Q3)  Σ_t δ_t x_tᵀ
        if gradient.b is not None:
            add_sum(delta, gradient.b, None if first else self._spare[0])  # (B7)  Σ_t δ_t
        if h_0 is not None:
            self._spare[...] = h_0
        after = delta[from_zero:]  # h_0 = 0 adds nothing
        add_product(rows(after), rows(h), gradient.W, for_W)  # (Q4)  Σ_t δ_t h_{t-1}ᵀ

    def hand_on(self, params: Params, n: int, into: Array) -> None:
        """Write ∂L/∂h_0 of the segment over h_0."""
        np.dot(self._rows[n], params.W, into[0])  # (B3)
