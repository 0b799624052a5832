"""Forward mode and Hessian-vector products of the plain RNN's loss, by jax.jvp and jax.grad.

A direction has a number for each entry of the parameters, x and h_0. Nothing is derived by hand.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array
from jaxtyping import Float, Int, Shaped

from jax_reference import activations, losses, unrolled
from jax_reference.inputs import Parameters, arguments, precision, require_direction
from jax_reference.rnn import Activation, step
from jax_reference.unrolled import Derivatives, Model


class Direction(NamedTuple):
    """A direction to move the parameters, x and h_0 in; None where they do not move."""

    U: Float[Array, "H D"] | None = None
    W: Float[Array, "H H"] | None = None
    V: Float[Array, "O H"] | None = None
    b: Float[Array, " H"] | None = None
    c: Float[Array, " O"] | None = None
    x: Float[Array, "T B D"] | None = None
    h0: Float[Array, "B H"] | None = None


@partial(jax.jit, static_argnames="model")
def moved_loss(model: Model, at: Any, along: Any, y: Array, lengths: Any) -> tuple[Array, Array]:
    """The loss and its derivative along a direction, compiled."""

    def value_at(params: Any, x: Array, h0: Array) -> Array:
        return unrolled.objective(params, x, (h0,), 0.0, y, lengths, model=model, truncation=None)[
            0
        ]

    found: tuple[Array, Array] = jax.jvp(value_at, at, along)
    return found


@partial(jax.jit, static_argnames="model")
def moved_derivatives(model: Model, at: Any, along: Any, y: Array, lengths: Any) -> Derivatives:
    """The tangents of the loss, of all gradients and of all states along a direction, compiled."""

    def derivatives_at(params: Any, x: Array, h0: Array) -> Derivatives:
        found: Derivatives = unrolled.compiled_derivatives(
            model, params, x, (h0,), y, lengths, None
        )
        return found

    tangents: Derivatives = jax.jvp(derivatives_at, at, along)[1]
    return tangents


def jvp(
    params: Parameters,
    direction: Any,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The loss and its derivative along a direction, by jax.jvp.

    The direction is a `Direction`, or parameters alone.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model, *given, dtype = arranged(params, direction, x, y, h0, activation, loss, outputs, lengths)
    with precision(dtype):
        found: tuple[Array, Array] = moved_loss(model, *given)
    return found


def hvp(
    params: Parameters,
    direction: Any,
    x: Float[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Float[Array, "B H"] | None = None,
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> Derivatives:
    """The Hessian of the loss times a direction, by jax.jvp of jax.grad.

    The Hessian is that of L as a function of the parameters, x and h_0 together. Every field is a
    tangent: `loss` is that of L, `adjoints` those of δ_t.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    model, *given, dtype = arranged(params, direction, x, y, h0, activation, loss, outputs, lengths)
    with precision(dtype):
        found: Derivatives = moved_derivatives(model, *given)
    return found


def arranged(
    params: Any, direction: Any, x: Any, y: Any, h0: Any, activation: Any, loss: Any,
    outputs: Any, lengths: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The model, the point, the direction, the targets, the lengths and the dtype, all checked."""
    activations.find(activation)
    losses.find(loss)
    given = arguments(params, x, y, h0=h0, loss=loss, outputs=outputs, lengths=lengths)
    weights = {name: getattr(params, name, None) for name in "UWVbc"}
    like = weights | {"x": given.x, "h0": given.first[0]}
    moved = require_direction(direction, like, given.lengths)
    at, along = (
        (Direction(**{name: parts[name] for name in weights}), parts["x"], parts["h0"])
        for parts in (like, moved)
    )
    return Model(step, activation, loss, outputs), at, along, given.y, given.lengths, given.dtype
