"""Number formats of kernels: float64, float32, TF32, float16 and bfloat16, with their roundings."""

from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_verifier.tolerance.bounds import ELEMENTARY
from bptt_verifier.tolerance.comparison import Array

# Bits of the significand, the leading one included, of what products may be computed in.
SIGNIFICANDS = {"float32": 24, "TF32": 11, "bfloat16": 8}


def is_floating(dtype: Any) -> bool:
    """Tell whether a dtype is one of real floating numbers, bfloat16 included."""
    return bool(jnp.issubdtype(dtype, jnp.floating))


def is_real(dtype: Any) -> bool:
    """Tell whether a dtype is one of NumPy's own of floats or integers: float8_e5m2 says it is."""
    return issubclass(dtype.type, np.floating | np.integer)


def to_real(array: Array) -> Array:
    """Convert objects that are real numbers, bfloat16, and complex numbers that are real."""
    if array.dtype == object and all(isinstance(each, Real) for each in array.flat):
        return array.astype(np.float64)
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    plain = array.dtype.kind == "c" and not np.any(array.imag)
    return array.real.copy() if plain else array


def find_unit(dtype: Any) -> float:
    """Find the unit roundoff of a dtype: half the distance from 1 to the next number."""
    form: Any = jnp.finfo
    return float(form(dtype).eps) / 2


def find_smallest(dtype: Any) -> float:
    """Find the smallest normal number of a dtype; in float16 the smallest subnormal one.

    Processors may flush what is below to zero, and compute with float16's subnormal numbers.
    """
    find: Any = jnp.finfo
    form = find(dtype)
    return float(form.smallest_subnormal if dtype == np.float16 else form.tiny)


def find_largest(dtype: Any) -> float:
    """Find the largest number of a dtype."""
    find: Any = jnp.finfo
    return float(find(dtype).max)


def is_half(dtype: Any) -> bool:
    """Tell whether a dtype has 16 bits."""
    return find_unit(dtype) > find_unit(np.float32)


def round_once(values: Array, dtype: Any) -> Array:
    """Round numbers to a dtype, and return them in float64."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(dtype).astype(np.float64)


def round_significand(values: Array, bits: int) -> Array:
    """Round numbers to a significand of so many bits, at any exponent."""
    fraction, exponent = np.frexp(np.asarray(values, np.float64))
    return np.asarray(np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits))


def allow_elementary(dtype: Any) -> int:
    """The units by which an elementary function may err: in 16 bits, it is rounded once."""
    return 1 if is_half(dtype) else ELEMENTARY
