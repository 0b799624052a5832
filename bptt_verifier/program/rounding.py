"""Rounding errors, drawn at random, to add to the values of a program and to its cotangents."""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array


class RoundingErrors(NamedTuple):
    """Rounding errors to add, of one size for each sample; none by default.

    `units` are the unit roundoffs that the samples imitate, `sizes` the units of their errors,
    which may be larger. Samples with the same number in `draws` get the same random numbers.
    """

    sizes: Array | None = None
    units: Array | None = None
    draws: Array | None = None
    rng: np.random.Generator | None = None

    def in_precision(self, dtype: Any) -> "RoundingErrors":
        """Adapt the errors to values of this dtype: coarser ones round more, integers never."""
        if self.sizes is None or self.units is None or not is_inexact(dtype):
            return EXACTLY
        unit = find_unit(np.dtype(dtype))
        if unit <= self.units.min():
            return self
        return self._replace(sizes=self.sizes * np.maximum(1.0, unit / self.units))

    def add(self, q: Any, magnitude: Any, most: Any = None) -> Any:
        """Add an error of this magnitude, in units of the roundoff, to each sample of `q` (N1).

        The error of a complex number is in both of its parts. Errors above `most` are left out.
        """
        if self.sizes is None or not is_inexact(np.asarray(q).dtype):
            return q
        sizes = align(self.sizes, np.ndim(q) - 1)
        xi = self.draw_signed(np.shape(q)[1:])
        if np.iscomplexobj(q):
            xi = xi + 1j * self.draw_signed(np.shape(q)[1:])
        error = sizes * magnitude
        if most is not None:
            error = np.where(error <= most, error, 0.0)
        elif not np.isfinite(error.sum()):  # an infinity, as a mask puts in, is exact
            error = np.where(np.isfinite(error), error, 0.0)
        noise = xi * error
        return np.add(noise, q, out=noise)

    def draw_signed(self, shape: tuple[int, ...]) -> Array:
        """Draw numbers in [−1, 1] of this shape for each sample."""
        assert self.rng is not None
        assert self.draws is not None
        numbers: Array = self.rng.random((int(self.draws.max()) + 1, *shape), np.float32)
        numbers *= 2
        numbers -= 1
        return numbers[self.draws]

    def draw_salts(self) -> Array:
        """Draw a seed for each sample, for errors that JAX adds."""
        assert self.rng is not None
        assert self.draws is not None
        return self.rng.integers(2**63, size=int(self.draws.max()) + 1, dtype=np.uint64)[self.draws]


EXACTLY = RoundingErrors()


@cache
def find_unit(dtype: Any) -> float:
    """Find the unit roundoff of a dtype."""
    return float(jnp.finfo(dtype).eps) / 2  # type: ignore[no-untyped-call]


@cache
def is_inexact(dtype: Any) -> bool:
    """True for floating-point and complex dtypes."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def align(x: Array, rank: int) -> Array:
    """A scalar reshaped to broadcast with arrays of this rank; other arrays unchanged."""
    return x.reshape(len(x), *[1] * rank) if x.ndim == 1 else x
