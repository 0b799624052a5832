"""Activations: φ, φ′ and φ″ side by side, one row each.

Source: docs/derivation.md, (A1) to (A7).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Activation(NamedTuple):
    """An elementwise activation φ, its derivative, and its second derivative.

    `derivative` is given both a and h = φ(a), because φ′ is often cheaper written with h, and so is
    `second_derivative`, φ″, which only Hessian-vector products need.
    Pass a pair or a triple of your own wherever an activation's name is accepted.
    """

    function: Callable[[Array], Array]
    derivative: Callable[[Array, Array], Array]
    second_derivative: Callable[[Array, Array], Array] | None = None


def logistic(a: Array) -> Array:
    """1 / (1 + e⁻ᵃ), elementwise: never overflows and keeps its relative accuracy for large |a|."""
    decay = np.exp(-np.abs(a))
    value: Array = np.where(a >= 0, 1, decay) / (1 + decay)
    return value


def rectified(a: Array) -> Array:
    """The larger of a and 0, elementwise."""
    return np.maximum(a, 0)


def positive(a: Array) -> Array:
    """1 where a > 0, else 0: at the kink, relu's derivative is 0 by convention."""
    return (a > 0).astype(a.dtype)


# fmt: off
ACTIVATIONS = {
    # name                  φ(a)        φ′(a), given also h = φ(a)
    "tanh":     Activation(np.tanh,     lambda a, h: 1 - h * h,        # (A1)
                                        lambda a, h: -2 * h * (1 - h**2)),  # (A5)  φ″(a)
    "sigmoid":  Activation(logistic,    lambda a, h: h * (1 - h),      # (A2)
                                        lambda a, h: h * (1 - 2 * h) * (1 - h)),  # (A6)  φ″(a)
    "relu":     Activation(rectified,   lambda a, h: positive(a),      # (A3)
                                        lambda a, h: np.zeros_like(a)),  # (A7)  φ″(a)
    "identity": Activation(lambda a: a, lambda a, h: np.ones_like(a),  # (A4)
                                        lambda a, h: np.zeros_like(a)),  # (A7)  φ″(a)
}
# fmt: on


def keeping_shape(activation: Activation) -> Activation:
    """The functions, each raising ValueError where it returns another shape than a's."""
    second = activation.second_derivative

    def function(a: Array) -> Array:
        return same_shape("function(a)", activation.function(a), a)

    def derivative(a: Array, h: Array) -> Array:
        return same_shape("derivative(a, h)", activation.derivative(a, h), a)

    def second_derivative(a: Array, h: Array) -> Array:
        assert second is not None
        return same_shape("second_derivative(a, h)", second(a, h), a)

    return Activation(function, derivative, None if second is None else second_derivative)


def same_shape(call: str, value: Array, a: Array) -> Array:
    """`value`, which must have the shape of a."""
    if np.shape(value) != np.shape(a):
        raise ValueError(
            f"activation: expected {call} of shape {np.shape(a)} as a, found {np.shape(value)}"
        )
    return value


def find(activation: str | Activation) -> Activation:
    """The activation of that name, or your own, which must then keep the shape it is given.

    Raises ValueError for an unknown name, TypeError for anything that is neither.
    """
    if isinstance(activation, Activation):
        return keeping_shape(activation)
    if not isinstance(activation, str):
        raise TypeError(
            f"activation: expected a name or an Activation(function, derivative), "
            f"found {type(activation).__name__}"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation: expected one of {', '.join(ACTIVATIONS)}, found {activation!r}"
        )
    return ACTIVATIONS[activation]
