"""The training step of `rnn` in arrays that are made once, as fast as NumPy goes.

One matrix product makes all U x_t, one each ∂L/∂U and ∂L/∂W, and one a step either sweep. The
states are written over U x_t and the adjoints over the slopes, the first over the last state, so
that a step takes two arrays (T, B, H), or, with `checkpoint_every=k`, two of k steps and every k-th
state.
Source: docs/derivation.md, section 15.
"""

from collections.abc import Callable
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from manual_bptt import inputs, losses
from manual_bptt.activations import Array
from manual_bptt.rnn import Params

NAMES = (*Params._fields, "x", "y", "h0")


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
# κ of the losses L = κ/2 Σ (ŷ − y)² with ∂L/∂ŷ = κ (ŷ − y), which need one residual for both.
SQUARES: dict[str, Callable[[Any], Any]] = {
    "mse":      lambda N: 2 / N,                                                # (L1), (L2)
    "half_sse": lambda N: 1,                                                    # (L3), (L4)
}
# fmt: on


class Workspace:
    """Loss, gradients and update of the RNN for one set of sizes and one dtype, in arrays kept.

    `params` and x (T, B, D), of any floating dtype, say which; their values are not used.
    With `checkpoint_every=k` the states are kept every k steps only, and those between are computed
    once more on the way back. The memory is least for k about √T (Chen et al. 2016, "Training deep
    nets with sublinear memory cost"; Gruslys et al. 2016, "Memory-efficient backpropagation through
    time").
    A workspace serves one thread at a time. Raises TypeError or ValueError naming the argument that
    does not fit.
    """

    def __init__(
        self,
        params: Params,
        x: Shaped[Array, "T B D"],
        *,
        activation: str = "tanh",
        loss: str = "mse",
        checkpoint_every: int | None = None,
    ) -> None:
        weights, x, *_ = inputs.arguments(params, x)
        dtype: np.dtype[Any] = x.dtype
        if not np.issubdtype(dtype, np.floating):
            raise TypeError(f"U: expected a floating dtype, found {dtype}")
        inputs.name_among("activation", activation, tuple(ELEMENTWISE))
        losses.find(loss)
        (T, B, _), (O, H) = x.shape, weights[2].shape
        k = T
        if checkpoint_every is not None:
            inputs.require_at_least(1, "checkpoint_every", checkpoint_every)
            k = min(checkpoint_every, T)

        def empty(*shape: int) -> Array:
            return np.empty(shape, dtype)

        self._activation, self._loss = ELEMENTWISE[activation], loss
        self._scale = SQUARES[loss](dtype.type(B * O)) if loss in SQUARES else None
        self._dtype = dtype
        of_weights = (None if w is None else w.shape for w in weights)
        self._shapes = (*of_weights, x.shape, (B, O), (B, H))
        self._segments = [slice(start, min(start + k, T)) for start in range(0, T, k)]

        self._gradient = Params._make(None if w is None else empty(*w.shape) for w in weights)
        # A segment of n steps has h_t in row t and δ_t in row n - 1 + t: δ_1 lies where h_n was,
        # which nothing needs by then. Row 0 is for products, and for h_0 once (Q4) alone is left.
        self._rows = empty(2 * k, B, H)
        self._spare = self._rows[0]
        self._kept = empty(len(self._segments) - 1, B, H)
        self._prediction = empty(B, O)
        self._temporary = [self._rows, self._kept, self._prediction]
        # With one segment the place of ∂L/∂W is free during both sweeps, and Wᵀ lies there.
        self._W_T = self._gradient.W
        self._addends: tuple[Array | None, Array | None] = None, None
        if len(self._segments) > 1:
            addends = np.empty_like(self._gradient.U), np.empty_like(self._gradient.W)
            self._W_T, self._addends = empty(H, H), addends
            self._temporary += [self._W_T, *addends]

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays but those of the gradients.

        Beside them a call makes none that grows with B and H, if its arguments are contiguous.
        """
        return sum(array.nbytes for array in self._temporary)

    @property
    def gradient_nbytes(self) -> int:
        """The bytes of the arrays that hold the gradients."""
        return sum(array.nbytes for array in self._gradient if array is not None)

    def value_and_grad(
        self,
        params: Params,
        x: Shaped[Array, "T B D"],
        y: Shaped[Array, "B O"],
        h0: Shaped[Array, "B H"] | None = None,
    ) -> tuple[Any, Params]:
        """The loss and its gradients with respect to the parameters, as `rnn.value_and_grad`.

        The gradients are this workspace's own arrays: the next call writes over them. Of the
        arguments the shapes and dtypes are looked at, not the values: NaN and infinity go through.
        Raises TypeError or ValueError naming the argument that does not fit the workspace.
        """
        self._require_fit(params, x, y, h0)
        np.copyto(self._W_T, params[1].T)
        segments, kept = self._segments, self._kept
        last = len(segments) - 1

        for number, steps in enumerate(segments):
            before = kept[number - 1] if number else h0
            h_n = self._sweep_forward(params, x[steps], before)
            if number < last:
                kept[number] = h_n
        value, dy = self._output(params, y, h_n)
        for number in range(last, -1, -1):
            x_n, before = x[segments[number]], kept[number - 1] if number else h0
            if number < last:
                self._sweep_forward(params, x_n, before)  # (Q5)  h_t once more
            above = kept[number] if number < last else dy
            self._sweep_back(params, len(x_n), above, number == last)
            self._sum_over_time(x_n, before, number == last)
            if number:  # ∂L/∂h of the kept state takes its place, for nothing needs it any more
                np.dot(self._rows[len(x_n)], params[1], kept[number - 1])  # (B3)
        return value, self._gradient

    def step(
        self,
        params: Params,
        x: Shaped[Array, "T B D"],
        y: Shaped[Array, "B O"],
        learning_rate: float,
        h0: Shaped[Array, "B H"] | None = None,
    ) -> Any:
        """One step of gradient descent: changes the arrays of `params`, returns the loss before it.

        Afterwards the gradients of an earlier call are gone. Raises as `value_and_grad`, and
        ValueError for parameters that cannot be written to.
        """
        if isinstance(learning_rate, bool) or not isinstance(learning_rate, Real):
            raise TypeError(
                f"learning_rate: expected a number, found {type(learning_rate).__name__}"
            )
        with np.errstate(over="ignore"):
            rate = self._dtype.type(learning_rate) if abs(learning_rate) < 1e300 else np.inf
        if not np.isfinite(rate):
            raise ValueError(
                f"learning_rate: expected a finite number in {self._dtype}, found {learning_rate}"
            )
        for name, weight in zip(Params._fields, params, strict=False):
            if isinstance(weight, np.ndarray) and not weight.flags.writeable:
                raise ValueError(f"{name}: expected an array to write to, found it read-only")
        value, gradient = self.value_and_grad(params, x, y, h0)
        for weight, slope in zip(params, gradient, strict=True):
            if weight is not None:
                np.multiply(slope, rate, slope)
                np.subtract(weight, slope, weight)  # (T1)  θ ← θ − η ∂L/∂θ
        return value

    def _sweep_forward(self, params: Params, x: Array, before: Array | None) -> Array:
        """The states of one segment after the one `before`, None for zeros; returns the last."""
        U, _, _, b, _ = params
        spare, W_T, phi = self._spare, self._W_T, self._activation.function
        states = self._rows[1 : len(x) + 1]
        np.dot(rows(x), U.T, rows(states))  # (Q2)  U x_t of all t at once
        if b is not None:
            states += b
        state: Array
        for state in states:
            if before is None:
                spare[...] = state  # W h_0 = 0
            else:
                np.dot(before, W_T, spare)
                np.add(state, spare, spare)  # (F1)  a_t = U x_t + W h_{t-1} + b
            phi(spare, state)  # (F2)  h_t = φ(a_t)
            before = state
        return state

    def _output(self, params: Params, y: Array, h_T: Array) -> tuple[Any, Array]:
        """The loss and ∂L/∂ŷ; what that gives to V and c is left in the gradients."""
        _, _, V, _, c = params
        prediction, gradient = self._prediction, self._gradient
        np.dot(h_T, V.T, prediction)  # (F3)  ŷ = V h_T + c
        if c is not None:
            prediction += c
        if self._scale is None:
            value, dy = losses.value_and_gradient(self._loss, prediction, y)
        else:
            dy = np.subtract(prediction, y, prediction)
            value = np.vdot(dy, dy) * (self._scale / 2)  # (L1), (L3)
            dy *= self._scale  # (L2), (L4)
        np.dot(dy.T, h_T, gradient.V)  # (B6)  ∂L/∂ŷ h_Tᵀ
        if gradient.c is not None:
            np.sum(dy, axis=0, out=gradient.c)  # (B8)  ∂L/∂ŷ
        return value, dy

    def _sweep_back(self, params: Params, n: int, above: Array, first: bool) -> None:
        """The adjoints of the n steps of one segment; `first` where no other was swept yet.

        They come from `above`, which is ∂L/∂ŷ for the first and ∂L/∂h_n for the others.
        """
        _, W, V, _, _ = params
        spare, slope, delta_n = self._spare, self._activation.slope, self._rows[2 * n - 1]
        slope(self._rows[n], spare)  # (Q1)  φ′ of the last step: δ_1 is written over its state
        dh = np.dot(above, V, delta_n) if first else above  # (B1)  ∂L/∂h_T = Vᵀ ∂L/∂ŷ
        np.multiply(dh, spare, delta_n)  # (B2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        slope(self._rows[1:n], self._rows[n : 2 * n - 1])  # (Q1)  φ′ of all other t at once
        for later, adjoint in pairwise(self._rows[2 * n - 1 : n - 1 : -1]):
            np.dot(later, W, spare)  # (B3)  ∂L/∂h_t = Wᵀ δ_{t+1}
            np.multiply(adjoint, spare, adjoint)  # (B2)

    def _sum_over_time(self, x: Array, before: Array | None, first: bool) -> None:
        """The segment's part of ∂L/∂U, ∂L/∂W and ∂L/∂b; `first` where no other is there yet."""
        n, gradient, from_zero = len(x), self._gradient, before is None
        delta, h = self._rows[n : 2 * n], self._rows[from_zero:n]
        for_U, for_W = (None, None) if first else self._addends
        add_product(rows(delta), rows(x), gradient.U, for_U)  # (Q3)  Σ_t δ_t x_tᵀ
        if gradient.b is not None:
            found = gradient.b if first else self._spare[0]
            np.sum(delta, axis=(0, 1), out=found)  # (B7)  Σ_t δ_t
            if not first:
                np.add(gradient.b, found, gradient.b)  # (Q6)
        if before is not None:
            self._spare[...] = before
        after = delta[from_zero:]  # h_0 = 0 adds nothing
        add_product(rows(after), rows(h), gradient.W, for_W)  # (Q4)  Σ_t δ_t h_{t-1}ᵀ

    def _require_fit(self, params: Any, x: Any, y: Any, h0: Any) -> None:
        """Raises TypeError or ValueError where an argument is not what this workspace is made for.

        In the time of a microsecond: nothing is converted, and no value is looked at but the
        targets of a cross-entropy.
        """
        if not isinstance(params, tuple) or len(params) != len(Params._fields):
            raise TypeError(
                f"params: expected Params(U, W, V[, b, c]), found {type(params).__name__}"
            )
        for name, shape, value in zip(NAMES, self._shapes, (*params, x, y, h0), strict=True):
            if value is None and (shape is None or name == "h0"):
                continue
            if not isinstance(value, np.ndarray) or shape is None:
                wanted = "None" if shape is None else "an array"
                raise TypeError(f"{name}: expected {wanted}, found {type(value).__name__}")
            classes = name == "y" and self._loss == losses.CLASSES and value.dtype.kind in "iu"
            if not classes and value.dtype != self._dtype:
                raise TypeError(
                    f"{name}: expected dtype {self._dtype} of this workspace, found {value.dtype}"
                )
            expected = shape[:1] if classes else shape
            if value.shape != expected:
                raise ValueError(
                    f"{name}: expected shape {expected} of this workspace, found {value.shape}"
                )
        for name, weight, own in zip(Params._fields, params, self._gradient, strict=True):
            if weight is not None and weight is own:
                raise ValueError(
                    f"{name}: expected an array of yours, found this workspace's own gradient"
                )
        if self._scale is None:
            inputs.require_targets(y, self._loss, self._prediction.shape[1], None)


def rows(array: Shaped[Array, "n B *"]) -> Shaped[Array, "nB *"]:
    """The rows of all sequences at all steps, one below the other."""
    return array.reshape(-1, array.shape[-1])


def add_product(left: Array, right: Array, total: Array, addend: Array | None) -> None:
    """leftᵀ right into `total`, or, by way of `addend`, added to it."""
    if addend is None:
        np.dot(left.T, right, total)
    else:
        total += np.dot(left.T, right, addend)  # (Q6)  over the segments
