"""Losses, forward only, over the entries that count.

`valid` marks the entries of a padded (B, O) batch that belong to the problem; the mean is over
those alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def squares(prediction: jax.Array, y: jax.Array, valid: jax.Array) -> jax.Array:
    """The sum of (ŷ − y)² over the valid entries."""
    return jnp.sum(jnp.where(valid, prediction - y, 0) ** 2)


LOSSES: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "mse": lambda prediction, y, valid: (
        squares(prediction, y, valid) / jnp.sum(valid, dtype=prediction.dtype)
    ),
    "half_sse": lambda prediction, y, valid: squares(prediction, y, valid) / 2,
}


def find(loss: str) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """The loss of that name.

    Raises ValueError for an unknown name, TypeError for anything but a name.
    """
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name, found {type(loss).__name__}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, found {loss!r}")
    return LOSSES[loss]
