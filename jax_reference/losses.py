"""Losses, forward only, over the valid entries of a padded batch.

`valid` marks the entries of a padded (…, O) batch that belong to the problem; the mean is over
these only. y has the shape of the prediction: `one_hot` turns classes into rows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

CLASSES = "softmax_cross_entropy"  # the only loss whose y may be integers, one class a row
IMPROBABLE = -1e30  # a logit whose exponential is zero beside any other, and finite


def total(terms: jax.Array, valid: jax.Array) -> jax.Array:
    """The sum of the valid entries."""
    return jnp.sum(jnp.where(valid, terms, 0))


def mean(terms: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean of the valid entries."""
    return total(terms, valid) / jnp.sum(valid, dtype=terms.dtype)


def residual(prediction: jax.Array, y: jax.Array, valid: jax.Array) -> jax.Array:
    """ŷ − y, and 0 in entries that are not valid. Raises ValueError where the shapes differ."""
    if prediction.shape != y.shape:
        raise ValueError(f"y: expected shape {prediction.shape} as the prediction, found {y.shape}")
    return jnp.where(valid, prediction - y, 0)


def absolute(r: jax.Array) -> jax.Array:
    """|r|, with derivative 0 at 0, where that of `jnp.abs` is 1."""
    return jnp.where(r == 0, 0, jnp.abs(r))


def huber(r: jax.Array) -> jax.Array:
    """½ r² where |r| ≤ 1, and |r| − ½ beyond."""
    return jnp.where(jnp.abs(r) <= 1, r * r / 2, jnp.abs(r) - 0.5)


def one_hot(y: jax.Array, classes: int, dtype: jnp.dtype) -> jax.Array:
    """Targets y, or the one-hot rows of its classes where it holds integers."""
    if not jnp.issubdtype(y.dtype, jnp.integer):
        return y
    rows: jax.Array = jax.nn.one_hot(y, classes, dtype=dtype)
    return rows


def softmax_cross_entropy(prediction: jax.Array, y: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean over rows of −log p_class. Entries that are not valid have probability zero."""
    residual(prediction, y, valid)
    log_p = jax.nn.log_softmax(jnp.where(valid, prediction, IMPROBABLE))
    chosen = jnp.sum(jnp.where(valid, y * log_p, 0), axis=-1, keepdims=True)
    return mean(-chosen, jnp.any(valid, axis=-1, keepdims=True))


def binary_cross_entropy(prediction: jax.Array, y: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean of −y log σ(ŷ) − (1 − y) log(1 − σ(ŷ)).

    Computed as log(1 + exp ŷ) − y ŷ, which does not overflow.
    """
    residual(prediction, y, valid)
    logit = jnp.where(valid, prediction, 0)
    return mean(jax.nn.softplus(logit) - y * logit, valid)


Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

LOSSES: dict[str, Loss] = {
    "mse": lambda prediction, y, valid: mean(residual(prediction, y, valid) ** 2, valid),
    "half_sse": lambda prediction, y, valid: total(residual(prediction, y, valid) ** 2, valid) / 2,
    "mae": lambda prediction, y, valid: mean(absolute(residual(prediction, y, valid)), valid),
    "huber": lambda prediction, y, valid: mean(huber(residual(prediction, y, valid)), valid),
    "softmax_cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def find(loss: str) -> Loss:
    """The loss of that name.

    Raises ValueError for an unknown name, TypeError for anything that is not a string.
    """
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name, found {type(loss).__name__}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, found {loss!r}")
    return LOSSES[loss]
