"""The sweeps of the GRU in arrays that are made once.

The gates stand one behind the other, (4, T, B, H), as in `lstm`: z, r, what the reset gate meets or
makes, and n. So [z, r, and what W_n is multiplied by] is one piece of memory, and so is all that
∂L/∂h_t multiplies. Beside them stand h and the coefficient of δ_z: six arrays (T, B, H).
Source: docs/derivation.md, sections 13 and 15.
"""

import numpy as np

from manual_bptt.activations import Array
from manual_bptt.gru import GATES, Params
from manual_bptt.in_place.sums import Layout, States, add_product, add_sum, blocks, rows

Z, R, MET, N = range(4)  # the places of the gates here, and of what the reset gate acts on
PACKED = {Z: 1, R: 0, N: 2}  # the place of each gate in the rows of U, W and b: r, z, n
SIGMOIDS = slice(Z, MET)


class Sweeps:
    """Both sweeps of the GRU; `reset` says where its reset gate acts."""

    def __init__(self, layout: Layout, reset: str) -> None:
        k, B, D, H = layout[:4]
        self._gradient, self._H, self._together = layout.gradient, H, layout.steps_in_cache
        self._after = reset == "after"
        self._gates = layout.empty(4, k, B, H)
        self._h, self._slope_z = layout.empty(k + 1, B, H), layout.empty(k, B, H)
        # ∂L/∂h_t; then the products of one step, or one number of each unit of several steps.
        scratch = layout.empty(1 + max(GATES, self._together), B, H)
        self._dh, self._products, self._spare = scratch[0], scratch[1 : 1 + GATES], scratch[1:]
        self.temporary = [self._gates, self._h, self._slope_z, scratch]
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
        """The last state of the steps of x after the state `before`."""
        U, W, _, b, _, b_n = params
        n, h, products, spare = len(x), self._h, self._products, self._spare[-1]
        for place, gate in enumerate(PACKED):
            of_gate = self._rows_of(gate)
            np.dot(rows(x), U[of_gate].T, rows(self._gates[gate, :n]))  # (Q2)
            np.multiply(W[of_gate].T, 1 if gate == N else -1, self._W[place])
        (first,) = before
        h[0] = 0 if first is None else first
        multiplied = self._W if self._after else self._W[:MET]
        of_h = products[: len(multiplied)]
        with np.errstate(over="ignore"):  # of e⁻ᵃ, where σ(a) is 0 to all digits
            for part in blocks(n, self._together):
                if b is not None:
                    for gate in PACKED:
                        self._gates[gate, part] += b[self._rows_of(gate)]
                for t in range(part.start, part.stop):
                    a = self._gates[:, t]
                    sigmoids, (_, r, met, candidate) = a[SIGMOIDS], a
                    if t or first is not None:
                        np.matmul(h[t], multiplied, out=of_h)
                        np.subtract(of_h[SIGMOIDS], sigmoids, sigmoids)  # (G1), as −a_t
                    else:
                        of_h.fill(0)
                        np.negative(sigmoids, sigmoids)
                    np.exp(sigmoids, sigmoids)
                    np.add(sigmoids, 1, sigmoids)
                    np.divide(1, sigmoids, sigmoids)  # (G2)  σ(a) = 1 / (1 + e⁻ᵃ)
                    if self._after:
                        np.add(of_h[MET], 0 if b_n is None else b_n, met)
                        np.multiply(r, met, products[0])
                    else:
                        np.multiply(r, h[t], met)
                        np.dot(met, self._W[MET], products[0])
                        if b_n is not None:
                            products[0] += b_n
                    np.add(candidate, products[0], candidate)  # (G3)
                    np.tanh(candidate, candidate)  # (G4)
                    np.subtract(h[t], candidate, spare)
                    np.multiply(a[Z], spare, spare)
                    np.add(candidate, spare, h[t + 1])  # (G5)  n + z ⊙ (h_{t-1} − n)
        return (h[n],)

    def entrance(self, n: int) -> Array:
        """The place of ∂L/∂h_t."""
        dh: Array = self._dh
        return dh

    def _coefficients(self, part: slice) -> None:
        """Of these steps, what ∂L/∂h_t is multiplied by, over the gates; z itself stays."""
        z, r, met, n = self._gates[:, part]
        slope_z = self._slope_z[part]
        u = self._spare[: len(slope_z)]
        np.subtract(1, z, u)
        np.subtract(self._h[part], n, slope_z)
        np.multiply(slope_z, u, slope_z)  # (Q15)  (h_{t-1} − n) ⊙ (1 − z)
        np.multiply(n, n, n)
        np.subtract(1, n, n)
        np.multiply(n, u, n)  # (Q14)  k_n = (1 − z) ⊙ (1 − n²)
        if self._after:
            np.multiply(n, r, u)
            np.subtract(1, r, r)
            np.multiply(r, met, r)
            np.multiply(r, u, r)  # (Q14)  k_n ⊙ r ⊙ (1 − r) ⊙ (W_n h_{t-1} + b_n)
            np.copyto(met, u)  # (Q14)  k_n ⊙ r

    def back(self, params: Params, n: int, dc: Array | None) -> None:
        """The adjoints of n steps, from ∂L/∂h_n at the entrance."""
        for place, gate in enumerate(PACKED):
            np.copyto(self._W[place], params.W[self._rows_of(gate)])
        dh, through = self._dh, self._products[MET]
        for part in reversed(list(blocks(n, self._together))):
            self._coefficients(part)
            for t in range(part.stop - 1, part.start - 1, -1):
                if t < n - 1:
                    self._pass_back(self._gates[:, t + 1])
                a = self._gates[:, t]
                z, r, met, candidate = a
                if self._after:
                    np.multiply(a[R:], dh, a[R:])  # (G6), (G8), and r ⊙ δ_n
                    np.multiply(dh, z, dh)
                else:
                    np.multiply(candidate, dh, candidate)  # (G6)
                    np.multiply(dh, z, dh)
                    np.dot(candidate, self._W[MET], through)
                    np.multiply(r, through, through)  # (G11)  r ⊙ W_nᵀ δ_n
                    np.subtract(self._h[t], met, r)
                    np.multiply(r, through, r)  # (G10), as (Q16)
                np.multiply(dh, self._slope_z[t], z)  # (G7), as (Q15)
                if not self._after:
                    np.add(dh, through, dh)

    def _pass_back(self, delta: Array) -> None:
        """Make ∂L/∂h_{t-1} of what ∂L/∂h_t gives past the gates, by the products with W."""
        gates = MET if not self._after else GATES
        products, dh = self._products[:gates], self._dh
        np.matmul(delta[:gates], self._W[:gates], out=products)  # (G9), (Q10)
        for product in products:
            np.add(dh, product, dh)  # (G12)  ∂L/∂h_{t-1}

    def sum_over_time(self, x: Array, before: States, first: bool) -> None:
        """The segment's part of the sums over time; `first` where no other is there yet."""
        n, gradient = len(x), self._gradient
        for_U, for_W = (None, None) if first else self._addends
        from_zero = before[0] is None
        for gate in PACKED:
            of_gate, delta = self._rows_of(gate), self._gates[gate, :n]
            add_product(rows(delta), rows(x), gradient.U[of_gate], for_U)  # (Q3)  Σ_t δ_t x_tᵀ
            if gradient.b is not None:
                add_sum(delta, gradient.b[of_gate], None if first else self._spare[0, 0])  # (G16)
            left, right = delta, self._h[:n]
            if gate == N and self._after:
                left = self._gates[MET, :n]  # r ⊙ δ_n
            elif gate == N:
                right = self._gates[MET, :n]  # r ⊙ h_{t-1}
            left, right = rows(left[from_zero:]), rows(right[from_zero:])  # h_0 = 0 adds nothing
            add_product(left, right, gradient.W[of_gate], for_W)  # (Q4)  (G13), (G14)
        if gradient.b_n is not None:
            met = self._gates[MET if self._after else N, :n]
            add_sum(met, gradient.b_n, None if first else self._spare[0, 0])  # (G18)

    def hand_on(self, params: Params, n: int, into: Array) -> None:
        """Write ∂L/∂h_0 of the segment over h_0."""
        self._pass_back(self._gates[:, 0])
        into[0] = self._dh
