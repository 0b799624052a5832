"""The format in which a submission computes is told by its errors, and by the digits it returns."""

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from bptt_verifier.judge.neighbours import (
    are_numbers_of,
    fill_digits,
    find_precision,
    is_lost,
    is_within,
    may_be_rounded,
)
from bptt_verifier.reference.case import Truth
from bptt_verifier.tolerance.formats import find_unit
from tests.support.stated_cases import state_case, state_compared


@pytest.mark.parametrize(
    ("allowed", "returned", "share", "expected"),
    [
        # An error of 2⁻²⁴, in units of what float64 allows: as large as rounding in float32 is, at
        # least 2⁻¹⁰ of what float32 allows, or smaller than that.
        (2.0**-44, np.float64, 0.5, np.float32),
        (2.0**-43, np.float64, 1.0, np.float32),
        (2.0**-42, np.float64, 0.5, None),
        # One in float32 may compute in float16: at least eight times what float32 allows.
        (2.0**-27, np.float32, 1.0, np.float16),
        (2.0**-26, np.float32, 0.5, None),
        (2.0**-27, np.float32, 1.5, None),
        (2.0**-44, np.float16, 0.5, None),
        (2.0**-44, np.float64, 1.5, None),  # nor is it within what float32 allows
    ],
)
def test_a_format_is_inferred_from_errors_of_its_size(
    allowed: float, returned: Any, share: float, expected: Any
) -> None:
    ones, error = {"w": np.ones(1)}, np.full(1, 2.0**-24)
    before = state_compared({"w": 1 + error}, ones, {"w": np.full(1, allowed)}, returned)
    before = before._replace(case=state_case(ones, {"w": error / share}))
    after = state_compared({"w": 1 + error}, ones, {"w": error})
    assert find_precision(before, after) is expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0.0, 0.0], np.float32),  # a zero is precise in any format
        ([0.0, 1.0], None),  # one that is precise shows that the format is not coarse
    ],
)
def test_no_gradient_but_a_zero_is_precise_in_a_coarse_format(other: Any, expected: Any) -> None:
    error = np.full(2, 2.0**-24)
    true = {"w": np.ones(2)} | dict.fromkeys(["other", "third"], np.array(other))
    allowed = dict.fromkeys(true, np.full(2, 2.0**-44))
    before = state_compared(true | {"w": 1 + error}, true, allowed)
    before = before._replace(case=state_case(true, dict.fromkeys(true, 2 * error)))
    after = state_compared(true | {"w": 1 + error}, true, allowed | {"w": error})
    assert find_precision(before, after) is expected


def test_one_gradient_of_three_says_nothing_of_the_format() -> None:
    error, three = np.full(1, 2.0**-24), dict.fromkeys("abc", np.ones(1))
    submitted = dict.fromkeys("abc", 1 + error)
    before = state_compared(submitted, three, dict.fromkeys("abc", np.full(1, 2.0**-44)))
    before = before._replace(case=state_case(three, dict.fromkeys("abc", 2 * error)))
    for explained, expected in [("a", None), ("ab", np.float32)]:
        allowed = before.allowed | dict.fromkeys(explained, error)
        assert find_precision(before, state_compared(submitted, three, allowed)) is expected


@pytest.mark.parametrize(("error", "expected"), [(0.125, np.float32), (0.126, None)])
def test_errors_as_large_as_a_result_say_nothing_of_its_format(error: float, expected: Any) -> None:
    ones, errors = {"w": np.ones(2)}, np.array([error, 1e-3])
    before = state_compared({"w": 1 + errors}, ones, {"w": np.full(2, 2.0**-44)})
    before = before._replace(case=state_case(ones, {"w": 2 * errors}))
    after = state_compared({"w": 1 + errors}, ones, {"w": np.ones(2)})
    assert find_precision(before, after) is expected
    assert is_lost(before, "w") is (expected is None)
    smaller = state_compared({"w": [1.1, 0.1]}, {"w": [1.0, 0.1]}, {"w": [1e-9, 1e-9]})
    assert is_lost(smaller, "w") is False  # beside the largest entry


def test_a_loss_alone_says_nothing_of_the_format() -> None:
    error, true = np.full(1, 2.0**-24), {"loss": np.ones(1), "w": np.zeros(1)}
    before = state_compared(
        true | {"loss": 1 + error}, true, dict.fromkeys(true, 2.0**-44 + error * 0)
    )
    before = before._replace(case=state_case(true, dict.fromkeys(true, 2 * error)))
    after = state_compared(true | {"loss": 1 + error}, true, dict.fromkeys(true, error))
    assert find_precision(before, after) is None


@pytest.mark.parametrize(
    ("values", "dtype", "of_format", "filled"),
    [
        ([1.0, -200.0, 0.0], np.float32, True, False),
        ([1.0, 1 + 2.0**-23], np.float32, True, True),
        ([1.0, 1 + 2.0**-24], np.float32, False, False),
        ([1 + 2.0**-10], np.float32, True, False),  # half of the 23 digits, and no more
        ([1 + 2.0**-11], np.float32, True, True),
        ([1 + 2.0**-10], np.float16, True, True),
        ([1 + 2.0**-11], np.float16, False, False),
        ([1e300], np.float32, False, False),
    ],
)
def test_numbers_of_a_format_are_known_and_fill_more_than_half_of_its_digits(
    values: list[float], dtype: Any, of_format: bool, filled: bool
) -> None:
    assert are_numbers_of(np.array(values), dtype) is of_format
    assert fill_digits(np.array(values), dtype) is filled


@pytest.mark.parametrize(
    ("value", "dtype", "allowed", "expected"),
    [
        (1 + 2.0**-23, "f8", 2.0**-23, True),
        (1 + 2.0**-23, "f8", 2.0**-24, False),
        (1 + 2.0**-24, "f8", 1.0, False),
        (1 + 2.0**-9, "f4", 2.0**-9, True),  # as in float16
        (1 + 2.0**-23, "f4", 1.0, False),
        (1.0, "f2", 1.0, False),  # no coarser format is known
    ],
)
def test_a_result_may_be_rounded_to_a_coarser_format_than_it_is_returned_in(
    value: float, dtype: str, allowed: float, expected: bool
) -> None:
    found = state_compared({"w": [value]}, {"w": [1.0]}, {"w": [2.0**-52]}, dtype)
    found = found._replace(case=state_case({"w": [1.0]}, {"w": [allowed]}))
    assert may_be_rounded(found, "w") is expected
    assert not may_be_rounded(found._replace(case=found.case._replace(truth=None)), "w")


def test_errors_are_those_of_a_coarser_format_than_that_of_each_result_only() -> None:
    ones, limits = dict.fromkeys("ab", np.ones(1)), dict.fromkeys("ab", np.full(1, 1e-9))
    found = state_compared(ones, ones, limits)
    assert is_within(found, ["a", "b"], np.float32) is True
    mixed = found._replace(dtypes={"a": np.dtype("f8"), "b": np.dtype("f4")})
    assert is_within(mixed, ["a", "b"], np.float32) is False
    assert is_within(mixed, ["a"], np.float32) is True


def test_errors_that_are_small_by_chance_tell_the_format_by_the_digits_of_all_gradients() -> None:
    error, ones = np.array([2.0**-23]), dict.fromkeys("vw", np.ones(1))
    small, wide = (dict.fromkeys("vw", np.full(1, size)) for size in (2.0**-24, 2.0**-20))
    for more, expected in [(0.0, np.float32), (2.0**-30, None)]:
        submitted = {"v": 1 + error, "w": 1 + error + more}
        before = state_compared(submitted, ones, small)._replace(case=state_case(ones, wide))
        assert find_precision(before, state_compared(submitted, ones, wide)) is expected


def test_rounded_results_that_do_not_scatter_tell_the_format_by_their_digits() -> None:
    error = np.array([2.0**-23])  # as the gradient of a linear loss, which is its data
    for submitted, expected in [(1 + error, np.float32), (1 + 2.0**14 * error, None)]:
        found = state_compared({"w": submitted}, {"w": np.ones(1)}, {"w": np.full(1, 2.0**-50)})
        found = found._replace(case=state_case({"w": np.ones(1)}, {"w": np.full(1, 2.0**-8)}))
        assert find_precision(found, found) is expected


def test_a_wrong_gradient_of_float32_numbers_is_not_taken_for_one_of_half_precision() -> None:
    right, wrong = 1 + np.array([2.0**-23]), 1.001 * (1 + np.array([2.0**-23]))
    submitted = {"U": np.float64(np.float32(wrong)), "W": right}
    ones = dict.fromkeys("UW", np.ones(1))
    before = state_compared(submitted, ones, dict.fromkeys("UW", np.full(1, 2.0**-50)))

    def truth(dtype: Any, names: Any) -> Truth:
        return Truth(ones, dict.fromkeys("UW", np.full(1, 8 * float(np.finfo(dtype).eps))))

    before = before._replace(case=before.case._replace(truth=truth))
    after = state_compared(submitted, ones, {"U": np.full(1, 2.0**-50), "W": np.full(1, 1e-6)})
    assert find_precision(before, after) is np.float32


FINE = 2.0**-30  # digits that neither float16 nor bfloat16 has


@pytest.mark.parametrize(
    ("submitted", "error", "dtype", "expected"),
    [
        # Each format allows four of its units: float32 2⁻²², float16 2⁻⁹ and bfloat16 2⁻⁶.
        ([1 + 2.0**-7, 1.5], 2.0**-10, np.float64, bfloat16),  # its numbers, though in float16, too
        ([1 + 2.0**-7, 1.5 + FINE], 2.0**-10, np.float64, np.float16),
        ([1 + 2.0**-7, 1.5 + 2.0**-8], 2.0**-10, np.float64, np.float16),
        ([1 + 2.0**-2, 1.5], 2.0**-10, np.float64, np.float16),  # too short to tell
        ([1 + FINE, 1.5], 2.0**-9, np.float64, np.float16),
        ([1 + FINE, 1.5], 2.0**-8.9, np.float64, bfloat16),  # more than float16 allows
        ([1 + FINE, 1.5], 2.0**-6, np.float64, bfloat16),
        ([1 + FINE, 1.5], 2.0**-5.9, np.float64, None),
        ([1 + 2.0**-7, 1.5], 2.0**-8.9, np.float32, bfloat16),
        ([1 + 2.0**-7, 1.5], 2.0**-8.9, np.float16, None),  # it says itself what it is
    ],
)
def test_bfloat16_is_known_by_its_numbers_or_by_errors_beyond_those_of_float16(
    submitted: list[float], error: float, dtype: Any, expected: Any
) -> None:
    yours = {"w": np.array(submitted)}
    true = {"w": yours["w"] + error}

    def truth(dtype: Any, names: Any) -> Truth:
        assert {*names} == {"w"}
        return Truth(true, {"w": np.full(2, 4 * find_unit(dtype))})

    before = state_compared(yours, true, {"w": np.full(2, 2.0**-40)}, dtype)
    before = before._replace(case=before.case._replace(truth=truth))
    after = state_compared(yours, true, {"w": np.full(2, 1.0)}, dtype)
    assert find_precision(before, after) is expected


def test_results_beyond_their_scatter_may_be_numbers_of_bfloat16() -> None:
    """Rounded toward zero, they err to one side."""
    true = {"w": np.array([1 + 2.0**-7 + 2.0**-9, 3.0])}
    for yours, expected in (([1 + 2.0**-7, 2.9375], bfloat16), ([1 + 2.0**-7, 2.9], None)):
        before = state_compared({"w": yours}, true, {"w": np.full(2, 2.0**-40)})
        before = before._replace(case=state_case(true, {"w": np.full(2, 0.25)}))
        assert find_precision(before, before) is expected
