"""Losses: the value and ∂L/∂ŷ side by side, one row each.

Each is a sum or a mean over all B·O entries, and says where its ½ is.
Source: docs/derivation.md, (L1) to (L4).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from manual_bptt.activations import Array


class Loss(NamedTuple):
    """A loss of (prediction, y), both (B, O), and its gradient with respect to the prediction."""

    value: Callable[[Array, Array], Any]
    gradient: Callable[[Array, Array], Array]


def sum_of_squares(prediction: Array, y: Array) -> Any:
    """Σ (ŷ − y)² over all entries."""
    return ((prediction - y) ** 2).sum()


# fmt: off
LOSSES = {
    "mse": Loss(
        lambda prediction, y: sum_of_squares(prediction, y) / y.size,  # (L1)
        lambda prediction, y: 2 * (prediction - y) / y.size,           # (L2)
    ),
    "half_sse": Loss(
        lambda prediction, y: sum_of_squares(prediction, y) / 2,       # (L3)
        lambda prediction, y: prediction - y,                          # (L4)
    ),
}
# fmt: on


def find(loss: str) -> Loss:
    """The loss of that name.

    Raises ValueError for an unknown name, TypeError for anything but a name.
    """
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name, found {type(loss).__name__}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, found {loss!r}")
    return LOSSES[loss]
