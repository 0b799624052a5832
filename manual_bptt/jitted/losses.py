"""Losses in JAX: the value, ∂L/∂ŷ and ∂L/∂y side by side, one row each.

The same equations as in `manual_bptt.losses`, (L1) to (L12), and (Q7) for the targets.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Shaped

from manual_bptt.losses import CLASSES


class Measure(NamedTuple):
    """L as a function of ŷ alone, with its gradients with respect to ŷ and to the targets."""

    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    of_targets: Callable[[Array], Array | None]


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


SUMS = ("half_sse",)  # the losses that are a sum over the predictions, not a mean
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


def measure_of(
    name: str,
    y: Shaped[Array, "*T B O"],
    prediction: Float[Array, "*T B O"],
    lengths: Int[Array, " B"] | None,
) -> Measure:
    """The loss of that name against the targets y; for outputs at every step, of all that count.

    Of classes, which are integers, there is no gradient with respect to the targets.
    """
    loss, targets, shape = LOSSES[name], one_hot(prediction, y), prediction.shape
    flat = targets.reshape(-1, shape[-1])
    if prediction.ndim == 3 and lengths is not None:
        loss, flat = of_counted_rows(loss, name, lengths, shape[0], flat)
    differentiable = targets is y

    def value(p: Array) -> Array:
        return loss.value(p.reshape(flat.shape), flat)

    def gradient(p: Array) -> Array:
        return loss.gradient(p.reshape(flat.shape), flat).reshape(shape)

    def of_targets(p: Array) -> Array | None:
        if not differentiable:
            return None
        return loss.of_targets(p.reshape(flat.shape), flat).reshape(shape)

    return Measure(value, gradient, of_targets)


def of_counted_rows(
    loss: Loss, name: str, lengths: Int[Array, " B"], T: int, y: Float[Array, "TB O"]
) -> tuple[Loss, Float[Array, "TB O"]]:
    """The loss over the rows that are no padding, and the targets with zeros in the padding."""
    works = (jnp.arange(1, T + 1, dtype=lengths.dtype)[:, None] <= lengths).reshape(-1)
    N = 1 if name in SUMS else works.sum()

    def row_by_row(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
        of_row: Any = jax.vmap(lambda p, y: function(p[None], y[None]))

        def of_all(p: Array, y: Array) -> Array:
            found = of_row(p, y).reshape(len(y), -1)
            counted = jnp.where(works[:, None], found, 0)
            return counted / jnp.asarray(N, p.dtype)

        return of_all

    value, gradient, of_targets = (row_by_row(function) for function in loss)
    total = Loss(lambda p, y: value(p, y).sum(), gradient, of_targets)
    return total, jnp.where(works[:, None], y, 0)
