"""What a loss rounds is differentiated as if it were not rounded."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program import numpy_code
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.roundings import (
    describe_last,
    differentiate_unrounded,
    find_conversions,
    find_roundings,
)
from bptt_verifier.program.trace import Program, trace

PARAMS = {"q": np.array([0.3, 0.6, -2.25])}


def trace_sum(rounded: Callable[[Any], Any]) -> Program:
    """The trace of a loss that adds what is rounded to something that is not."""

    def loss(p: Any) -> Any:
        return np.sum(rounded(np.sin(p["q"]))) + np.sum(p["q"] ** 2)

    with use_float64():
        return trace(lambda p, _: numpy_code.over_jax(loss, PARAMS)(p), PARAMS)


ROUNDED: dict[str, tuple[Callable[[Any], Any], int]] = {
    "floor": (np.floor, 1),
    "ceil": (np.ceil, 1),
    "rint": (np.rint, 1),
    "trunc": (np.trunc, 2),
    "round": (lambda z: np.round(z, 2), 1),
    "remainder": (lambda z: z - z % 0.01, 1),
    "fmod": (lambda z: z - np.fmod(z, 0.01), 1),
    "quotient": (lambda z: z // 0.01 * 0.01, 2),
    "divmod": (lambda z: np.divmod(z, np.full(3, 0.01))[0] * 0.01, 2),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_a_number_that_is_rounded_passes_everything_back(name: str) -> None:
    rounded, found = ROUNDED[name]
    program = trace_sum(rounded)
    assert len(find_roundings(program)) == found
    with use_float64():
        slopes = differentiate_unrounded(program, PARAMS)["q"]
    np.testing.assert_allclose(slopes, np.cos(PARAMS["q"]) + 2 * PARAMS["q"], rtol=1e-12)


@pytest.mark.parametrize("dtype", [int, np.int8])
def test_a_number_that_is_converted_to_an_integer_and_back_passes_everything_back(
    dtype: Any,
) -> None:
    program = trace_sum(lambda z: (100 * z).astype(dtype) / 100)
    assert len(find_conversions(program)) == 1
    with use_float64():
        slopes = differentiate_unrounded(program, PARAMS)["q"]
    np.testing.assert_allclose(slopes, np.cos(PARAMS["q"]) + 2 * PARAMS["q"], rtol=1e-12)


KEPT: dict[str, Callable[[Any], Any]] = {
    "itself": lambda z: z,
    "wrapped": lambda z: z % 0.7,
    "remainder of another": lambda z: z - 2 * z % 0.7,
    "subtracted from the remainder": lambda z: z % 0.7 - z,
    "remainder that is added": lambda z: z + z % 0.7,
    "remainder in a longer sum": lambda z: z - (z % 0.01 + 0.002 + 0.003),
    "index": lambda z: np.arange(3.0)[(z > 0).astype(int)],
    "mask": lambda z: z * (z > 0).astype(int),
    "float32": lambda z: z.astype(np.float32).astype(float),
}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_what_is_not_rounded_has_no_other_derivative(kept: Any) -> None:
    program = trace_sum(kept)
    assert not find_roundings(program)
    assert not find_conversions(program)
    assert differentiate_unrounded(program, PARAMS) == {}
    assert describe_last(program) == ""


def test_the_last_line_that_rounds_is_described() -> None:
    def round_twice(z: Any) -> Any:
        first = np.floor(z)
        return first + (10 * z).astype(int) / 10

    said = describe_last(trace_sum(round_twice))
    assert said.startswith(" at `return first + (10 * z).astype(int) / 10` (")


def test_what_reads_the_integers_themselves_keeps_them() -> None:
    """The slopes of table[k] (1 - f) + table[k + 1] f with f = z - k, if k were z: the table's."""
    table = np.array([1.0, 2.5, -0.5, 3.0])

    def interpolate(z: Any) -> Any:
        k = (z + 2).astype(int)
        f = z + 2 - k
        return table[np.clip(k, 0, 2)] * (1 - f) + table[np.clip(k, 0, 2) + 1] * f

    program = trace_sum(interpolate)
    assert len(find_conversions(program)) == 1
    with use_float64():
        slopes = differentiate_unrounded(program, PARAMS)["q"]
    np.testing.assert_allclose(slopes, 2 * PARAMS["q"], atol=1e-12)


def test_a_later_line_that_rounds_goes_before_a_conversion() -> None:
    def convert_first(z: Any) -> Any:
        first = (10 * z).astype(int) / 10
        return np.floor(z) + first

    assert describe_last(trace_sum(convert_first)).startswith(" at `return np.floor(z) + first` (")
