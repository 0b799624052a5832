"""The sweeps of the LSTM in arrays that are made once.

The gates stand one behind the other, (4, T, B, H), so that whatever is done to one gate of a step
is done to one piece of memory; W, copied gate by gate, makes one product a gate. The gates are
written over U x_t. Whatever the sweep back does not owe to an adjoint is computed ahead of it, for
as many steps as fit a cache, over gates and cells, and the adjoints are written over that. So a
step takes four arrays (T, B, H) of gates and one each of h, c and tanh(c).
Source: docs/derivation.md, sections 12 and 15.
"""

import numpy as np

from manual_bptt.activations import Array
from manual_bptt.in_place.sums import Layout, States, add_product, add_sum, blocks, rows
from manual_bptt.lstm import GATES, Params

F, O, I, G = range(GATES)  # the places of the gates here
PACKED = 1, 3, 0, 2  # and the place of each in the rows of U, W and b: i, f, g, o
SIGMOIDS = slice(F, G)


class Sweeps:
    """Both sweeps of the LSTM."""

    def __init__(self, layout: Layout) -> None:
        k, B, D, H = layout[:4]
        self._gradient, self._H, self._together = layout.gradient, H, layout.steps_in_cache
        self._gates = layout.empty(GATES, k, B, H)
        self._h, self._c = layout.empty(k + 1, B, H), layout.empty(k + 1, B, H)
        self._tanh_c = layout.empty(k, B, H)
        # ∂L/∂h_t; then the products of one step, or one number of each unit of several steps.
        scratch = layout.empty(1 + max(GATES, self._together), B, H)
        self._dh, self._products, self._spare = scratch[0], scratch[1 : 1 + GATES], scratch[1:]
        self.temporary = [self._gates, self._h, self._c, self._tanh_c, scratch]
        # With one segment the place of ∂L/∂W is free during both sweeps.
        self._W = self._gradient.W.reshape(GATES, H, H)
        self._addends: tuple[Array | None, Array | None] = None, None
        if layout.segments:
            self._W = layout.empty(GATES, H, H)
            self._addends = layout.empty(H, D), layout.empty(H, H)
            self.temporary += [self._W, *(each for each in self._addends if each is not None)]

    def _rows_of(self, gate: int) -> slice:
        """The rows of a gate in U, W and b."""
        return slice(PACKED[gate] * self._H, (PACKED[gate] + 1) * self._H)

    def forward(self, params: Params, x: Array, before: States) -> tuple[Array, ...]:
        """The last h and c of the steps of x after those `before`."""
        U, W, _, b, _ = params
        n, H, products = len(x), self._H, self._products
        for gate in range(GATES):
            of_gate = self._rows_of(gate)
            np.dot(rows(x), U[of_gate].T, rows(self._gates[gate, :n]))  # (Q2)
            np.multiply(W[of_gate].T, 1 if gate == G else -1, self._W[gate])
        for state, first in zip((self._h, self._c), before, strict=True):
            state[0] = 0 if first is None else first
        h, c, tanh_c = self._h, self._c, self._tanh_c
        from_zero = before[0] is None
        spare = self._spare[0]
        with np.errstate(over="ignore"):  # of e⁻ᵃ, where σ(a) is 0 to all digits
            for part in blocks(n, self._together):
                whole = self._gates[:, part]
                if b is not None:
                    whole += b.reshape(GATES, 1, 1, H)[list(PACKED)]
                for t in range(part.start, part.stop):
                    a = self._gates[:, t]
                    sigmoids, g = a[SIGMOIDS], a[G]
                    if t or not from_zero:
                        np.matmul(h[t], self._W, out=products)
                        np.subtract(products[SIGMOIDS], sigmoids, sigmoids)  # (S1), as −a_t
                        np.add(products[G], g, g)  # (S1)  a_t = U x_t + W h_{t-1} + b
                    else:
                        np.negative(sigmoids, sigmoids)
                    np.exp(sigmoids, sigmoids)
                    np.add(sigmoids, 1, sigmoids)
                    np.divide(1, sigmoids, sigmoids)  # (S2)  σ(a) = 1 / (1 + e⁻ᵃ)
                    np.tanh(g, g)  # (S2)
                    c_t = c[t + 1]
                    np.multiply(a[F], c[t], c_t)
                    np.multiply(a[I], g, spare)
                    np.add(c_t, spare, c_t)  # (S3)  c_t = f ⊙ c_{t-1} + i ⊙ g
                    np.tanh(c_t, tanh_c[t])
                    np.multiply(a[O], tanh_c[t], h[t + 1])  # (S4)  h_t = o ⊙ tanh(c_t)
        return h[n], c[n]

    def entrance(self, n: int) -> Array:
        """The place of ∂L/∂h_t."""
        dh: Array = self._dh
        return dh

    def _coefficients(self, part: slice) -> None:
        """Of these steps, what ∂L/∂h_t and ∂L/∂c_t are multiplied by, over gates and cells."""
        f, o, i, g = self._gates[:, part]
        c_before, tanh_c = self._c[part], self._tanh_c[part]
        h = self._h[part.start + 1 : part.stop + 1]
        u = self._spare[: len(h)]
        np.multiply(tanh_c, h, tanh_c)
        np.subtract(o, tanh_c, tanh_c)  # (Q11)  o − h ⊙ tanh(c)
        np.subtract(1, o, o)
        np.multiply(o, h, o)  # (Q12)  h ⊙ (1 − o)
        np.multiply(i, g, u)
        np.multiply(g, u, g)
        np.subtract(i, g, g)  # (Q12)  i − (i ⊙ g) ⊙ g
        np.subtract(1, i, i)
        np.multiply(i, u, i)  # (Q12)  (i ⊙ g) ⊙ (1 − i)
        np.subtract(1, f, u)
        np.multiply(c_before, u, c_before)  # (Q13)  c_{t-1} ⊙ (1 − f); f itself stays

    def back(self, params: Params, n: int, dc: Array | None) -> None:
        """The adjoints of n steps, from ∂L/∂h_n at the entrance and ∂L/∂c_n, None for zeros."""
        for gate in range(GATES):
            np.copyto(self._W[gate], params.W[self._rows_of(gate)])
        dh, slope = self._dh, self._tanh_c
        dc_t = self._c[n]  # the last cell's place; nothing needs it any more
        dc_t[...] = 0 if dc is None else dc
        for part in reversed(list(blocks(n, self._together))):
            self._coefficients(part)
            for t in range(part.stop - 1, part.start - 1, -1):
                if t < n - 1:
                    self._pass_back(self._gates[:, t + 1], dh)
                a = self._gates[:, t]
                np.multiply(slope[t], dh, slope[t])
                np.add(dc_t, slope[t], dc_t)  # (S5)  ∂L/∂c_t, both paths
                np.multiply(a[I:], dc_t, a[I:])  # (S6), (S8)
                np.multiply(a[O], dh, a[O])  # (S9)
                np.multiply(dc_t, a[F], dc_t)  # (S10)  ∂L/∂c_{t-1} = ∂L/∂c_t ⊙ f
                np.multiply(dc_t, self._c[t], a[F])  # (S7), as (Q13)

    def _pass_back(self, delta: Array, into: Array) -> None:
        """∂L/∂h_{t-1} from δ_t."""
        products = self._products
        np.matmul(delta, self._W, out=products)
        np.add(products[:2], products[2:], products[:2])
        np.add(products[0], products[1], into)  # (S11)  ∂L/∂h_{t-1} = Wᵀ δ_t

    def sum_over_time(self, x: Array, before: States, first: bool) -> None:
        """The segment's part of ∂L/∂U, ∂L/∂W and ∂L/∂b; `first` where no other is there yet."""
        n, gradient, from_zero = len(x), self._gradient, before[0] is None
        for_U, for_W = (None, None) if first else self._addends
        h = rows(self._h[from_zero:n])  # h_0 = 0 adds nothing
        for gate in range(GATES):
            of_gate, delta = self._rows_of(gate), self._gates[gate, :n]
            add_product(rows(delta), rows(x), gradient.U[of_gate], for_U)  # (Q3)  Σ_t δ_t x_tᵀ
            after = rows(delta[from_zero:])
            add_product(after, h, gradient.W[of_gate], for_W)  # (Q4)  Σ_t δ_t h_{t-1}ᵀ
            if gradient.b is not None:
                addend = None if first else self._spare[0, 0]
                add_sum(delta, gradient.b[of_gate], addend)  # (S14)  Σ_t δ_t

    def hand_on(self, params: Params, n: int, into: Array) -> None:
        """Write ∂L/∂h_0 and ∂L/∂c_0 of the segment over h_0 and c_0."""
        self._pass_back(self._gates[:, 0], into[0])
        into[1] = self._c[n]
