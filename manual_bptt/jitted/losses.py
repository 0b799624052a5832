"""Losses in JAX: the value, ∂L/∂ŷ and ∂L/∂y side by side, one row each.

The same equations as in `manual_bptt.losses`, (L1) to (L12), and (Q7) for the targets.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from manual_bptt.losses import CLASSES


class Loss(NamedTuple):
    """A loss of (ŷ, y), both (B, O), and its gradients with respect to the one and the other."""

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    of_targets: Callable[[Array, Array], Array]


def limited(r: Array) -> Array:
    """The entries of r where |r| ≤ 1, elsewhere their sign."""
    return jnp.clip(r, -1, 1)


def of_residual(value: Callable[[Array], Array], gradient: Callable[[Array], Array]) -> Loss:
    """A loss of r = ŷ − y alone."""
    return Loss(
        lambda p, y: value(p - y),
        lambda p, y: gradient(p - y),
        lambda p, y: -gradient(p - y),  # (Q7)  of ŷ − y alone
    )


def one_hot(prediction: Array, y: Array) -> Array:
    """y, or, where it holds classes, one row of the identity for each."""
    if not jnp.issubdtype(y.dtype, jnp.integer):
        return y
    found: Array = jax.nn.one_hot(y, prediction.shape[-1], dtype=prediction.dtype)
    return found


# fmt: off
LOSSES = {
    "mse": of_residual(
        lambda r: jnp.vdot(r, r) / r.size,                                           # (L1)
        lambda r: 2 / r.size * r,                                                    # (L2)
    ),
    "half_sse": of_residual(
        lambda r: jnp.vdot(r, r) / 2,                                                # (L3)
        lambda r: r,                                                                 # (L4)
    ),
    "mae": of_residual(
        lambda r: jnp.abs(r).sum() / r.size,                                         # (L5)
        lambda r: jnp.sign(r) / r.size,                                              # (L6)
    ),
    "huber": of_residual(
        lambda r: (limited(r) * (r - limited(r) / 2)).sum() / r.size,                # (L7)
        lambda r: limited(r) / r.size,                                               # (L8)
    ),
    CLASSES: Loss(
        lambda p, y: -(y * jax.nn.log_softmax(p)).sum() / len(p),                    # (L9)
        lambda p, y: (jax.nn.softmax(p) - y) / len(p),                               # (L10)
        lambda p, y: -jax.nn.log_softmax(p) / len(p),                                # (Q7)
    ),
    "binary_cross_entropy": Loss(
        lambda p, y: (jax.nn.softplus(p) - y * p).sum() / p.size,                    # (L11)
        lambda p, y: (jax.nn.sigmoid(p) - y) / p.size,                               # (L12)
        lambda p, y: -p / p.size,                                                    # (Q7)
    ),
}
# fmt: on
