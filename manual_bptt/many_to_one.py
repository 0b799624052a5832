"""The many-to-one model around a cell: its weights, its output and its loss.

They are the same for RNN, LSTM and GRU, whose sweeps stand in `rnn`, `lstm` and `gru`. The
functions here check the arguments of a public function, run the sweeps of its cell, and compute
what comes before, between and after them.
Source: docs/derivation.md, (F3), (B1), (B6) and (B8).
"""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Shaped

from manual_bptt import inputs, losses
from manual_bptt.activations import Array
from manual_bptt.inputs import arguments
from manual_bptt.sequences import steps_that_count

P = TypeVar("P", bound=NamedTuple)
G = TypeVar("G", bound=NamedTuple)


class Cell(NamedTuple, Generic[P, G]):
    """The parameters' tuple, the number of gates packed in them, and the two sweeps of a cell.

    forward(params, x, first states, outputs, lengths, option) -> (prediction, trace);
    sweep_back(params, trace, entering, truncation) -> gradients, with None for V and c. `entering`
    is ∂L/∂h_T (B, H), or, for outputs at every step, what enters each state (T, B, H).
    """

    parameters: type[P]
    gates: int
    forward: Callable[..., tuple[Array, Any]]
    sweep_back: Callable[..., G]


def draw_weights(
    rng: np.random.Generator, D: int, H: int, O: int, gates: int, dtype: Any, bias: bool
) -> tuple[Array, Array, Array, Array | None, Array | None]:
    """Draw U, W and V with variance one over their columns; b and c are zeros, or None."""
    inputs.require_sizes(rng, dtype, input_size=D, hidden_size=H, output_size=O)
    packed = gates * H

    def normal(rows: int, columns: int) -> Array:
        values: Array = rng.normal(size=(rows, columns)) / np.sqrt(columns)
        return values.astype(dtype)

    U, W, V = normal(packed, D), normal(packed, H), normal(O, H)
    return U, W, V, np.zeros(packed, dtype) if bias else None, np.zeros(O, dtype) if bias else None


def split_gates(packed: Shaped[Array, "*T B G"], gates: int) -> tuple[Array, ...]:
    """Views of the blocks of the last axis, one for each gate: `np.split` without its overhead."""
    H = packed.shape[-1] // gates
    return tuple([packed[..., k * H : (k + 1) * H] for k in range(gates)])


def read_out(
    h: Shaped[Array, "*T B H"], V: Shaped[Array, "O H"], c: Shaped[Array, " O"] | None
) -> Shaped[Array, "*T B O"]:
    """Read the prediction ŷ out of the last state, or out of each."""
    prediction: Array = h @ V.T  # (F3)  ŷ = V h_T + c
    return prediction if c is None else prediction + c


def sweep_back_from_output(
    cell: Cell[P, G], params: Any, trace: Any, dy: Shaped[Array, "*T B O"], truncation: int | None
) -> G:
    """All gradients from ∂L/∂ŷ, with nothing checked.

    Where the forward pass overflowed, the gradients are infinite or NaN too.
    """
    entering = dy @ params.V  # (B1)  ∂L/∂h_T = Vᵀ ∂L/∂ŷ
    found = cell.sweep_back(params, trace, entering, truncation)
    (O, H), reached = params.V.shape, trace.h[1:] if dy.ndim == 3 else trace.h[-1]
    rows = dy.reshape(-1, O)
    return found._replace(
        V=np.einsum("ro,rh->oh", rows, reached.reshape(-1, H), optimize=True),  # (B6)  ∂L/∂ŷ h_Tᵀ
        c=None if params.c is None else rows.sum(axis=0),  # (B8)  ∂L/∂ŷ
    )


def backward(cell: Cell[P, G], params: Any, trace: Any, output_gradient: Any, truncation: Any) -> G:
    """All gradients from ∂L/∂ŷ. Raises TypeError or ValueError as the cell's `backward`."""
    weights, x, *_ = arguments(params, trace.x, gates=cell.gates, fields=cell.parameters._fields)
    inputs.steps_kept(truncation, trace.outputs)
    dy = inputs.output_gradient(output_gradient, weights[2], x, trace.outputs)
    return sweep_back_from_output(cell, cell.parameters(*weights), trace, dy, truncation)


def backward_through_time(cell: Cell[P, G], params: Any, trace: Any, hidden_gradients: Any) -> G:
    """All gradients but V and c from all ∂L/∂h_t. Raises as the cell's function of that name."""
    weights, x, *_ = arguments(params, trace.x, gates=cell.gates, fields=cell.parameters._fields)
    entering = inputs.hidden_gradients(hidden_gradients, weights[2], x, trace.lengths)
    return cell.sweep_back(cell.parameters(*weights), trace, entering)


def gradients(
    cell: Cell[P, G],
    params: Any,
    x: Any,
    y: Any,
    states: dict[str, Any],
    loss: str,
    outputs: str,
    lengths: Any,
    truncation: Any,
    **option: Any,
) -> tuple[Any, G]:
    """The loss and every gradient: forward sweep, loss, sweep back.

    `states` are h0 and, for an LSTM, c0, by name; `option` is what only this cell has.
    Raises TypeError or ValueError as the cell's `gradients`.
    """
    given: dict[str, Any] = {"outputs": outputs, "lengths": lengths}
    weights, x, y, *_ = arguments(
        params, x, y, **states, gates=cell.gates, fields=cell.parameters._fields, loss=loss, **given
    )
    inputs.steps_kept(truncation, outputs)
    prediction, trace = cell.forward(params, x, **states, **given, **option)
    counted = steps_that_count(trace.lengths, len(x)) if outputs == "every" else None
    value, dy = losses.value_and_gradient(loss, prediction, y, counted)
    return value, sweep_back_from_output(cell, cell.parameters(*weights), trace, dy, truncation)


def select_weight_gradients(cell: Cell[P, G], found: G) -> P:
    """Select the gradients with respect to the parameters, in their own tuple."""
    return cell.parameters(*(getattr(found, name) for name in cell.parameters._fields))
