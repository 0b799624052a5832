"""Losses: the value, ∂L/∂ŷ and its tangent side by side, one row each.

Each is a sum or a mean over rows of O entries, one row a prediction, and says where its ½ is.
Source: docs/derivation.md, (L1) to (L14).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from manual_bptt.activations import Array, logistic

CLASSES = "softmax_cross_entropy"  # the one loss whose y may be integers, one class a row


class Loss(NamedTuple):
    """A loss of (prediction, y), both (…, O), and its gradient with respect to the prediction.

    Both raise ValueError where the shapes differ: nothing is ever broadcast. `tangent` is the
    derivative of that gradient along a tangent of the prediction, its third argument.
    """

    value: Callable[[Array, Array], Any]
    gradient: Callable[[Array, Array], Array]
    tangent: Callable[[Array, Array, Array], Array]


def residual(prediction: Array, y: Array) -> Array:
    """ŷ − y, of two equal shapes."""
    if prediction.shape != y.shape:
        raise ValueError(f"y: expected shape {prediction.shape} as the prediction, found {y.shape}")
    return prediction - y


def sum_of_squares(prediction: Array, y: Array) -> Any:
    """Σ (ŷ − y)² over all entries."""
    return (residual(prediction, y) ** 2).sum()


def limited(r: Array) -> Array:
    """The entries of r where |r| ≤ 1, elsewhere their sign."""
    return np.clip(r, -1, 1)


def within(r: Array) -> Array:
    """1 where |r| ≤ 1, else 0: the derivative of `limited`, from the inner side at its kinks."""
    return np.where(np.abs(r) <= 1, 1, 0).astype(r.dtype)


def huber(r: Array) -> Any:
    """Σ ½ r² where |r| ≤ 1, and |r| − ½ beyond."""
    return (limited(r) * (r - limited(r) / 2)).sum()


def one_hot(prediction: Array, y: Array) -> Array:
    """y, or, where it holds classes from 0 to O − 1, one row of the identity for each."""
    if not np.issubdtype(y.dtype, np.integer):
        residual(prediction, y)
        return y
    if prediction.shape[:-1] != y.shape:
        raise ValueError(
            f"y: expected shape {prediction.shape[:-1]} as the prediction, found {y.shape}"
        )
    rows: Array = np.eye(prediction.shape[-1], dtype=prediction.dtype)[y]
    return rows


def log_softmax(prediction: Array) -> Array:
    """ŷ − log Σ exp ŷ of each row; its largest entry is subtracted first, so nothing overflows."""
    shifted = prediction - prediction.max(axis=-1, keepdims=True)
    total: Array = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    found: Array = shifted - total
    return found


def through_softmax(p: Array, moved: Array) -> Array:
    """The tangent of the probabilities p from that of the logits: p ⊙ (ẏ − Σ p ẏ) of each row."""
    mean: Array = (p * moved).sum(axis=-1, keepdims=True)
    found: Array = p * (moved - mean)
    return found


def softplus(prediction: Array) -> Array:
    """log(1 + exp ŷ), without overflow."""
    return np.maximum(prediction, 0) + np.log1p(np.exp(-np.abs(prediction)))


def binary_cross_entropy(prediction: Array, y: Array) -> Any:
    """Σ −y log σ(ŷ) − (1 − y) log(1 − σ(ŷ)) over all entries."""
    residual(prediction, y)
    return (softplus(prediction) - y * prediction).sum()


def rows(prediction: Array) -> int:
    """How many predictions there are."""
    return int(prediction.size // prediction.shape[-1])


# fmt: off
LOSSES = {
    "mse": Loss(
        lambda prediction, y: sum_of_squares(prediction, y) / y.size,                # (L1)
        lambda prediction, y: 2 * residual(prediction, y) / y.size,                  # (L2)
        lambda prediction, y, moved: 2 * moved / y.size,                             # (L13)
    ),
    "half_sse": Loss(
        lambda prediction, y: sum_of_squares(prediction, y) / 2,                     # (L3)
        residual,                                                                    # (L4)
        lambda prediction, y, moved: moved,                                          # (L13)
    ),
    "mae": Loss(
        lambda prediction, y: np.abs(residual(prediction, y)).sum() / y.size,        # (L5)
        lambda prediction, y: np.sign(residual(prediction, y)) / y.size,             # (L6)
        lambda prediction, y, moved: np.zeros_like(moved),                           # (L13)
    ),
    "huber": Loss(
        lambda prediction, y: huber(residual(prediction, y)) / y.size,               # (L7)
        lambda prediction, y: limited(residual(prediction, y)) / y.size,             # (L8)
        lambda prediction, y, moved: within(residual(prediction, y)) * moved / y.size,  # (L13)
    ),
    "softmax_cross_entropy": Loss(
        lambda prediction, y: -(one_hot(prediction, y) * log_softmax(prediction)).sum()
        / rows(prediction),                                                          # (L9)
        lambda prediction, y: (np.exp(log_softmax(prediction)) - one_hot(prediction, y))
        / rows(prediction),                                                          # (L10)
        lambda prediction, y, moved: through_softmax(np.exp(log_softmax(prediction)), moved)
        / rows(prediction),                                                          # (L14)
    ),
    "binary_cross_entropy": Loss(
        lambda prediction, y: binary_cross_entropy(prediction, y) / y.size,          # (L11)
        lambda prediction, y: residual(logistic(prediction), y) / y.size,            # (L12)
        lambda prediction, y, moved: logistic(prediction) * (1 - logistic(prediction)) * moved
        / y.size,                                                                    # (L14)
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


def value_and_gradient(
    loss: str, prediction: Array, y: Array, counted: Array | None = None
) -> tuple[Any, Array]:
    """L over the rows that count, and ∂L/∂ŷ, which is zero in the others.

    `counted` marks the rows of a padded batch; without it, all of them count.
    Raises as `find`, and ValueError where the shapes differ.
    """
    measure = find(loss)
    if counted is None:
        return measure.value(prediction, y), measure.gradient(prediction, y)
    dy = np.zeros_like(prediction)
    dy[counted] = measure.gradient(prediction[counted], y[counted])
    return measure.value(prediction[counted], y[counted]), dy


def tangent_of_gradient(
    loss: str, prediction: Array, moved: Array, y: Array, counted: Array | None = None
) -> Array:
    """The tangent of ∂L/∂ŷ where the prediction has the tangent `moved`; see `value_and_gradient`.

    Raises as `value_and_gradient`.
    """
    measure = find(loss)
    if counted is None:
        return measure.tangent(prediction, y, moved)
    found = np.zeros_like(prediction)
    found[counted] = measure.tangent(prediction[counted], y[counted], moved[counted])
    return found
