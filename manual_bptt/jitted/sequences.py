"""Sequences of unequal length, outputs at every step and truncation, under XLA.

Each function returns at once, with nothing compiled, where a batch has no such option.
Source: docs/derivation.md, section 11.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


class Course(NamedTuple):
    """What of a batch counts: the lengths of its sequences, the last steps, the outputs.

    `every` says that a gradient enters at every state, and not at the last alone.
    """

    lengths: Int[Array, " B"] | None = None
    truncation: int | None = None
    every: bool = False

    @property
    def plain(self) -> bool:
        """True for sequences of one length, whole, with one output."""
        return self == Course()


def counted(course: Course, T: int) -> Bool[Array, "T B 1"] | None:
    """Which steps belong to a sequence and which are padding; None where all belong."""
    if course.lengths is None:
        return None
    lengths = course.lengths
    found: Array = jnp.arange(1, T + 1, dtype=lengths.dtype)[:, None, None] <= lengths[:, None]
    return found


def without_padding(
    x: Float[Array, "T B D"], lengths: Int[Array, " B"] | None
) -> Float[Array, "T B D"]:
    """X with zeros in the padding, whatever was there."""
    found: Array = at_work(counted(Course(lengths), len(x)), x, 0)
    return found


def passing(course: Course, T: int) -> Bool[Array, "T B 1"] | None:
    """Through which steps t a gradient goes on to h_{t-1}; None where through all."""
    if course.truncation is None:
        return None
    ends = jnp.array([T]) if course.lengths is None else course.lengths
    before = jnp.arange(T, dtype=ends.dtype)[:, None, None]  # t − 1; h_0 is no step
    found: Array = (before < 1) | (before > ends[:, None] - course.truncation)
    return found


def at_work(works: Bool[Array, "*T B 1"] | None, value: Any, otherwise: Any) -> Any:
    """`value` for the sequences that have the step, and `otherwise` for those that are over."""
    return value if works is None else jnp.where(works, value, otherwise)


def add_entering(
    dh: Float[Array, "B H"], entering: Float[Array, "B H"] | None
) -> Float[Array, "B H"]:
    """∂L/∂h_t with what enters from outside."""
    return dh if entering is None else dh + entering  # (O1)  += Vᵀ ∂L/∂ŷ_t
