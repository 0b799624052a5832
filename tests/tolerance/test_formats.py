"""Number formats: their unit roundoffs, their ends, and what rounding to them gives."""

import pickle
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.tolerance.bounds import ELEMENTARY
from bptt_verifier.tolerance.formats import (
    SIGNIFICANDS,
    allow_elementary,
    find_largest,
    find_smallest,
    find_unit,
    is_floating,
    is_half,
    is_real,
    round_once,
    round_significand,
    to_real,
)

# The bits of the significand, the leading one included, the exponents of the smallest number, and
# of the power of two above the largest. The smallest of float16 is subnormal.
FORMATS = {
    "float64": (np.float64, 53, -1022, 1024, False),
    "float32": (np.float32, 24, -126, 128, False),
    "float16": (np.float16, 11, -24, 16, True),
    "bfloat16": (jnp.bfloat16, 8, -126, 128, True),
}


@pytest.mark.parametrize(("dtype", "bits", "least", "above", "half"), FORMATS.values(), ids=FORMATS)
def test_a_format_has_its_unit_and_its_ends(
    dtype: Any, bits: int, least: int, above: int, half: bool
) -> None:
    assert find_unit(dtype) == 2.0**-bits
    assert find_smallest(dtype) == find_smallest(np.dtype(dtype)) == 2.0**least
    assert find_largest(dtype) == 2.0 ** (above - 1) * (2 - 2.0 ** (1 - bits))
    assert is_half(dtype) is half
    assert allow_elementary(dtype) == (1 if half else ELEMENTARY)
    assert is_floating(dtype)
    below, tie = 1 + 0.99 * 2.0**-bits, 1 + 3 * 2.0**-bits
    assert round_once(np.array([below, -tie]), dtype).tolist() == [1, -1 - 4 * 2.0**-bits]
    assert round_once(np.ones(1, dtype), dtype).dtype == np.float64


def test_numbers_that_are_no_floating_ones_have_no_format() -> None:
    assert not any(map(is_floating, (np.int32, np.bool_, np.complex128)))


def test_what_exceeds_a_format_is_infinite_without_a_warning() -> None:
    assert round_once(np.array([-1e5]), np.float16) == -np.inf


def test_significands_are_those_of_the_formats() -> None:
    assert SIGNIFICANDS == {"float32": 24, "TF32": 11, "bfloat16": 8}


@pytest.mark.parametrize("scale", [1.0, 2.0**-500, -(2.0**500)])
def test_a_significand_is_rounded_to_even_at_any_exponent(scale: float) -> None:
    values = np.array([5.0, 5.1, 6.9, 7.5, 4.5, 5.5, 0.0])
    assert round_significand(scale * values, 3).tolist() == [
        scale * each for each in (5, 5, 7, 8, 4, 6, 0)
    ]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "u1"])
def test_the_dtypes_of_numpy_itself_are_of_real_numbers(dtype: str) -> None:
    assert is_real(np.dtype(dtype))
    assert is_real(np.dtype(dtype).newbyteorder())
    assert is_real(pickle.loads(pickle.dumps(np.dtype(dtype))))


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, jnp.float8_e5m2, jnp.float8_e4m3fn, np.complex64, np.bool_, object]
)
def test_other_dtypes_are_not_whatever_kind_they_name(dtype: Any) -> None:
    assert not is_real(np.dtype(dtype))


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.array([Fraction(1, 2), 2], object), "float64"),
        (np.array([0.5, None], object), "object"),
        (np.array([0.5, 2], jnp.bfloat16), "float32"),
        (np.array([0.5, 2], np.complex64), "float32"),
        (np.array([0.5, 2j]), "complex128"),
        (np.array([0.5, 2], np.float16), "float16"),
    ],
)
def test_objects_and_complex_numbers_become_real_where_all_are(given: Any, dtype: str) -> None:
    found = to_real(given)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(object), given.astype(object))
