"""The training step of any cell in arrays that are made once, as fast as NumPy goes.

The sweeps of each cell are in `manual_bptt.in_place`. Around them are the output, the loss, the
update and, with `checkpoint_every=k`, the segments: only every k-th state is kept.
Source: docs/derivation.md, section 15.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Shaped

from manual_bptt import gru, inputs, losses, lstm, rnn
from manual_bptt.activations import Array
from manual_bptt.in_place.gru import Sweeps as GRUSweeps
from manual_bptt.in_place.lstm import Sweeps as LSTMSweeps
from manual_bptt.in_place.rnn import ELEMENTWISE
from manual_bptt.in_place.rnn import Sweeps as RNNSweeps
from manual_bptt.in_place.sums import Layout, Sweeps

P = TypeVar("P", rnn.Params, lstm.Params, gru.Params)

# fmt: off
# κ of the losses L = κ/2 Σ (ŷ − y)² with ∂L/∂ŷ = κ (ŷ − y), which need one residual for both.
SQUARES: dict[str, Callable[[Any], Any]] = {
    "mse":      lambda N: 2 / N,                                                # (L1), (L2)
    "half_sse": lambda N: 1,                                                    # (L3), (L4)
}
# fmt: on


class Workspace(Generic[P]):
    """Loss, gradients and update of a cell for one set of sizes and one dtype, in arrays kept.

    `params` are those of `rnn`, `lstm` or `gru`, told apart by the shape of W. They and x
    (T, B, D), of any floating dtype, say what the workspace is for; their values are not used.
    `activation` is the RNN's option and `reset` the GRU's.
    With `checkpoint_every=k` the states are kept every k steps only, and those between are computed
    once more on the way back. The memory is least for k about √T (Chen et al. 2016, "Training deep
    nets with sublinear memory cost"; Gruslys et al. 2016, "Memory-efficient backpropagation through
    time").
    A workspace serves one thread at a time. Raises TypeError or ValueError naming the argument that
    does not fit.
    """

    def __init__(
        self,
        params: P,
        x: Shaped[Array, "T B D"],
        *,
        activation: str = "tanh",
        reset: str = "after",
        loss: str = "mse",
        checkpoint_every: int | None = None,
    ) -> None:
        gates = count_gates(params)
        cell: Any = {lstm.GATES: lstm, gru.GATES: gru}.get(gates, rnn)
        fields = cell.Params._fields
        weights, x, *_ = inputs.arguments(params, x, gates=gates, fields=fields)
        dtype = x.dtype
        if not np.issubdtype(dtype, np.floating):
            raise TypeError(f"U: expected a floating dtype, found {dtype}")
        inputs.name_among(
            "activation", activation, tuple(ELEMENTWISE) if cell is rnn else ("tanh",)
        )
        inputs.name_among("reset", reset, gru.RESETS if cell is gru else ("after",))
        losses.find(loss)
        (T, B, D), (O, H) = x.shape, weights[2].shape
        k = T
        if checkpoint_every is not None:
            inputs.require_at_least(1, "checkpoint_every", checkpoint_every)
            k = min(checkpoint_every, T)

        self._fields: tuple[str, ...] = fields
        self._loss: str = loss
        self._dtype: np.dtype[Any] = dtype
        self._scale: Any = SQUARES[loss](dtype.type(B * O)) if loss in SQUARES else None
        states = ("h0", "c0") if cell is lstm else ("h0",)
        of_weights: list[Any] = [None if w is None else w.shape for w in weights]
        shapes: list[Any] = [*of_weights, x.shape, (B, O), (B, H), (B, H) if cell is lstm else None]
        self._shapes = dict(zip((*self._fields, "x", "y", "h0", "c0"), shapes, strict=True))
        self._segments = [slice(start, min(start + k, T)) for start in range(0, T, k)]

        self._gradient = cell.Params._make(
            None if w is None else np.empty(w.shape, dtype) for w in weights
        )
        several = len(self._segments) > 1
        layout = Layout(k, B, D, H, dtype, self._gradient, several)
        self._sweeps: Sweeps = (
            LSTMSweeps(layout) if cell is lstm
            else GRUSweeps(layout, reset) if cell is gru
            else RNNSweeps(layout, activation)
        )  # fmt: skip
        self._kept = layout.empty(len(self._segments) - 1, len(states), B, H)
        self._prediction = layout.empty(B, O)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays but those of the gradients.

        Beside them a call makes none that grows with B and H, if its arguments are contiguous.
        """
        arrays = [*self._sweeps.temporary, self._kept, self._prediction]
        return sum(array.nbytes for array in arrays)

    @property
    def gradient_nbytes(self) -> int:
        """The bytes of the arrays that hold the gradients."""
        return sum(array.nbytes for array in self._gradient if array is not None)

    def value_and_grad(
        self,
        params: P,
        x: Shaped[Array, "T B D"],
        y: Shaped[Array, "B O"],
        h0: Shaped[Array, "B H"] | None = None,
        c0: Shaped[Array, "B H"] | None = None,
    ) -> tuple[Any, P]:
        """The loss and its gradients with respect to the parameters, as the cell's own function.

        The gradients are this workspace's own arrays: the next call writes over them. Of the
        arguments the shapes and dtypes are looked at, not the values: NaN and infinity go through.
        Raises TypeError or ValueError naming the argument that does not fit the workspace.
        """
        self._require_fit(params, x, y, h0, c0)
        segments, kept, sweeps = self._segments, self._kept, self._sweeps
        last = len(segments) - 1
        first = (h0, c0)[: kept.shape[1]]

        def before(number: int) -> tuple[Array | None, ...]:
            return tuple(kept[number - 1]) if number else first

        for number, steps in enumerate(segments):
            reached = sweeps.forward(params, x[steps], before(number))
            if number < last:
                for state, into in zip(reached, kept[number], strict=True):
                    into[...] = state
        value, dy = self._output(params, y, reached[0])
        for number in range(last, -1, -1):
            x_n, dc = x[segments[number]], None
            if number < last:
                sweeps.forward(params, x_n, before(number))  # (Q5)  the states once more
            entrance = sweeps.entrance(len(x_n))
            if number < last:
                entrance[...], dc = kept[number, 0], kept[number, -1]
            else:
                np.dot(dy, params[2], entrance)  # (B1)  ∂L/∂h_T = Vᵀ ∂L/∂ŷ
            sweeps.back(params, len(x_n), dc)
            sweeps.sum_over_time(x_n, before(number), number == last)
            if number:  # nothing needs the kept states any more
                sweeps.hand_on(params, len(x_n), kept[number - 1])
        return value, self._gradient

    def step(
        self,
        params: P,
        x: Shaped[Array, "T B D"],
        y: Shaped[Array, "B O"],
        learning_rate: float,
        h0: Shaped[Array, "B H"] | None = None,
        c0: Shaped[Array, "B H"] | None = None,
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
        for name, weight in zip(self._fields, params, strict=False):
            if isinstance(weight, np.ndarray) and not weight.flags.writeable:
                raise ValueError(f"{name}: expected an array to write to, found it read-only")
        value, gradient = self.value_and_grad(params, x, y, h0, c0)
        for weight, slope in zip(params, gradient, strict=True):
            if weight is not None:
                np.multiply(slope, rate, slope)
                np.subtract(weight, slope, weight)  # (T1)  θ ← θ − η ∂L/∂θ
        return value

    def _output(self, params: P, y: Array, h_T: Array) -> tuple[Any, Array]:
        """The loss and ∂L/∂ŷ; what that gives to V and c is left in the gradients."""
        V, c = params.V, params.c
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

    def _require_fit(self, params: Any, x: Any, y: Any, h0: Any, c0: Any) -> None:
        """Raises TypeError or ValueError where an argument is not what this workspace is made for.

        In the time of a microsecond: nothing is converted, and no value is looked at but the
        targets of a cross-entropy.
        """
        if not isinstance(params, tuple) or len(params) != len(self._fields):
            fields = "U, W, V[, b, c]" + ("[, b_n]" if len(self._fields) > 5 else "")
            raise TypeError(f"params: expected Params({fields}), found {type(params).__name__}")
        given = (*params, x, y, h0, c0)
        for (name, shape), value in zip(self._shapes.items(), given, strict=True):
            if value is None and (shape is None or name in ("h0", "c0")):
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
        for name, weight, own in zip(self._fields, params, self._gradient, strict=True):
            if weight is not None and weight is own:
                raise ValueError(
                    f"{name}: expected an array of yours, found this workspace's own gradient"
                )
        if self._scale is None:
            inputs.require_targets(y, self._loss, self._prediction.shape[1], None)


def count_gates(params: Any) -> int:
    """The gates packed in W (G·H, H): 4 in an LSTM, 3 in a GRU, otherwise 1."""
    shape: tuple[int, ...] = getattr(getattr(params, "W", None), "shape", ())
    counts = (lstm.GATES, gru.GATES)
    return next((G for G in counts if len(shape) == 2 and shape[0] == G * shape[1] > 0), 1)
