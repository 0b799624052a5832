"""Rounding errors, drawn at random, to add to the values of a program and to its cotangents."""

from functools import cache
from math import prod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array

RESOLUTION = 2.0**-15  # of the random numbers
LEAST_SQUARE = 2.0**-960  # whose digits float64 has, which it has of the least ones in the sum
PROPORTION = 8.0  # what the sizes of errors are divided by, to show that results are proportional


class RoundingErrors(NamedTuple):
    """Rounding errors to add, of one size for each sample; none by default.

    `units` are the unit roundoffs that the samples imitate, `sizes` the units of their errors,
    which may be larger. Samples with the same number in `draws` get the same random numbers.
    `exact` is true if the last sample has no errors; magnitudes are then taken from it alone.
    """

    sizes: Array | None = None
    units: Array | None = None
    draws: Array | None = None
    rng: np.random.Generator | None = None
    exact: bool = False

    def measure(self, q: Any) -> Any:
        """The magnitudes of numbers: of their exact sample if there is one, else of each sample.

        Errors are small parts of what they are added to, so the magnitudes of the others differ
        from these by as small parts.
        """
        return np.abs(q[-1:] if self.exact else q)

    def in_precision(self, dtype: Any) -> "RoundingErrors":
        """Adapt the errors to values of this dtype: coarser ones round more, integers never."""
        if self.sizes is None or not is_inexact(dtype):
            return EXACTLY
        coarser = self.compare_unit(dtype)
        if coarser is None:
            return self
        assert self.units is not None
        return self._replace(sizes=self.sizes * coarser, units=self.units * coarser)

    def compare_unit(self, dtype: Any) -> Array | None:
        """How many times as much values of this dtype round in each sample; None if they do not."""
        assert self.units is not None
        unit = find_unit(np.dtype(dtype))
        return None if unit <= self.units.min() else np.maximum(1.0, unit / self.units)

    def measure_lost(self, magnitude: Any, terms: float = 1) -> Any:
        """Measure what a number of this magnitude may lose to underflow, in units.

        It is 0.0 where all numbers are so large that their rounding errors exceed it.
        """
        assert self.units is not None
        unit = float(self.units.max())  # where several formats are imitated, the coarsest counts
        least = terms * find_smallest(unit)
        if not magnitude.min(initial=np.inf) < least / unit:
            return 0.0
        return np.minimum(magnitude, least) / unit  # (N11)

    def add(self, q: Any, magnitude: Any, most: Any = None, *, several: bool = False) -> Any:
        """Add an error of this magnitude, in units of the roundoff, to each sample of `q` (N1).

        The error of a complex number is in both of its parts. Errors above `most` are left out.
        `several` independent errors have the root of the sum of their squares as their magnitude.
        What the number itself may lose to underflow is added.
        """
        if self.sizes is None or not is_inexact(np.asarray(q).dtype):
            return q
        sizes = align(self.sizes, np.ndim(q) - 1)
        magnitude = exclude_infinities(magnitude + self.measure_lost(self.measure(q)))
        if most is not None:
            magnitude = np.where(sizes * magnitude <= most, magnitude, 0.0)
        noise = self.draw_errors(np.shape(q), magnitude, several)
        if np.iscomplexobj(q):
            noise = noise + 1j * self.draw_errors(np.shape(q), magnitude, several)
        noise *= sizes
        noise += q
        return noise

    def draw_errors(self, shape: tuple[int, ...], magnitude: Any, several: bool) -> Any:
        """Draw an error of this magnitude for each sample of numbers of this shape."""
        assert self.draws is not None
        numbers = self.draw_signed(shape[1:])
        # For several errors, the sum of two numbers is drawn, with the variance of one. (N7)
        xi = np.add(numbers, self.draw_signed(shape[1:]), dtype=np.float32) if several else numbers
        magnitude = magnitude * (RESOLUTION / 2**0.5 if several else RESOLUTION)
        if np.ndim(magnitude) == len(shape) and len(magnitude) > 1:  # that of each sample
            return xi[self.draws] * magnitude
        return (xi * magnitude).take(self.draws, axis=0)

    def draw_signed(self, shape: tuple[int, ...]) -> Array:
        """Draw numbers of this shape for each draw, which are from −1 to 1 in units of 2⁻¹⁵.

        Sixteen bits of each suffice for an error, and are drawn in a fourth of the time of 53.
        """
        assert self.rng is not None
        assert self.draws is not None
        shape = (int(self.draws.max()) + 1, *shape)
        size = prod(shape)
        words = self.rng.bit_generator.random_raw(-(-size // 4))
        numbers: Array = words.view(np.int16)[:size].reshape(shape)
        return numbers

    def draw_salts(self) -> Array:
        """Draw a seed for each sample, for errors that JAX adds."""
        assert self.rng is not None
        assert self.draws is not None
        return self.rng.integers(2**63, size=int(self.draws.max()) + 1, dtype=np.uint64)[self.draws]


EXACTLY = RoundingErrors()


class Pending(NamedTuple):
    """The errors of a number that are not drawn yet: the largest magnitude, and how many they are.

    Of several errors, `squares` has the sum of their squares.
    """

    largest: Array
    number: int = 1
    squares: Array | None = None

    def join(self, other: "Pending | None") -> "Pending":
        """Join independent errors, of which the squares add."""
        if other is None:
            return self
        squares = self.square() + other.square()
        largest = np.maximum(self.largest, other.largest)
        return Pending(largest, self.number + other.number, squares)

    def square(self) -> Array:
        """The sum of the squares."""
        return np.square(self.largest) if self.squares is None else self.squares

    @property
    def magnitude(self) -> Array:
        """The magnitude of the errors together: the root of the sum of their squares (N7).

        Where the squares are not in float64's range, it is that of as many errors of the largest.
        """
        if self.squares is None:
            return self.largest
        held = (self.squares > LEAST_SQUARE) & (self.squares < np.inf)
        return np.where(held, np.sqrt(self.squares), self.number**0.5 * self.largest)


def exclude_infinities(magnitude: Any) -> Any:
    """Put zero for magnitudes that are not finite: an infinity, as a mask puts in, is exact."""
    if np.isfinite(magnitude.sum()):
        return magnitude
    return np.where(np.isfinite(magnitude), magnitude, 0.0)


@cache
def find_unit(dtype: Any) -> float:
    """Find the unit roundoff of a dtype."""
    return float(jnp.finfo(dtype).eps) / 2  # type: ignore[no-untyped-call]


@cache
def find_smallest(unit: float) -> float:
    """Find the smallest number that a format with this unit roundoff computes with.

    It is the normal one, since processors flush what is below; but not in float16.
    """
    form = np.finfo(np.float64 if unit <= 2.0**-53 else np.float32)
    is_float16 = unit == find_unit(np.dtype(np.float16))
    return float(np.finfo(np.float16).smallest_subnormal if is_float16 else form.smallest_normal)


@cache
def is_inexact(dtype: Any) -> bool:
    """True for floating-point and complex dtypes."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def align(x: Array, rank: int) -> Array:
    """A scalar reshaped to broadcast with arrays of this rank; other arrays unchanged."""
    return x.reshape(len(x), *[1] * rank) if x.ndim == 1 else x
