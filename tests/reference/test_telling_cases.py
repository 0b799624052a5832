"""Which gradients of a case could show a mistake, and which are zero at all parameters."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace
from bptt_verifier.reference import selection
from bptt_verifier.reference.selection import (
    UNBALANCE,
    find_zeros,
    is_telling,
    is_within_float32,
    reaches,
    resolve,
)
from bptt_verifier.tolerance.bounds import RESOLVING
from tests.support.stated_cases import state_case, state_operation, state_program

U = 2.0**-53


@pytest.mark.parametrize(
    ("value", "allowed", "resolution"),
    [
        ([0.5, -1.0], [2.0**-9, 2.0**-8], 2.0**-8),
        ([0.0, 0.0], [2.0**-9, 2.0**-8], np.nan),
        ([0.0, 0.0], [2.0**-9, np.inf], np.inf),  # nothing is known of it
        ([0.0, 1.0], [np.nan, 1.0], np.inf),
    ],
)
def test_the_resolution_is_the_largest_allowed_error_beside_the_largest_entry(
    value: Any, allowed: Any, resolution: float
) -> None:
    found = resolve(state_case({"w": value}, {"w": allowed}))
    np.testing.assert_array_equal(found["w"], resolution)


def test_a_case_tells_only_if_every_gradient_but_zeros_is_resolved() -> None:
    given = {"a": np.ones(1), "b": np.ones(1)}
    for a, b, telling in [(1.0, 1.0, True), (1.0, 0.9, False), (0.9, 1.0, False), (1.0, 0.0, True)]:
        limits = {"a": [RESOLVING], "b": [RESOLVING]}
        assert is_telling(state_case({"a": [a], "b": [b]}, limits, given)) is telling
    assert not is_telling(state_case({"w": [0.0, 0.0]}, {"w": [1e-9, 1e-9]}))


def test_numbers_of_the_loss_or_the_gradient_are_within_half_of_the_largest_float32() -> None:
    half = float(np.finfo(np.float32).max) / 2
    for share, within in [(0.9, True), (1.1, False)]:
        large, small = np.array([1.0, -share * half]), np.ones(1)
        others = [None, np.ones(2, int), np.array([np.inf])]  # an infinity is a mask
        assert is_within_float32([*others, large], {"w": small}) is within
        assert is_within_float32([*others, small], {"w": large}) is within


@pytest.mark.parametrize(
    ("values", "allowed", "other", "zero"),
    [
        ([0.0, 0.0], [1e-9, 1e-9], 1.0, True),
        ([1e-9, -1e-9], [1e-9, 1e-9], 1.0, True),
        ([0.0, 1.0], [1e-9, 1e-9], 1.0, False),
        ([0.0, 0.0], [1.0, 1.0], 1.0, False),  # nothing could have been seen
        ([0.0, 0.0], [1e-4, 1e-4], 1.0, True),
        ([0.0, 0.0], [1e-4, 1e-4], 1e-3, False),  # too much beside the largest entry
    ],
)
def test_a_gradient_is_zero_if_every_entry_is_in_every_case(
    values: Any, allowed: Any, other: float, zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "unbalance", lambda program, slots: {"w": np.ones(2)})
    given = {"w": np.ones(2), "v": np.ones(2)}
    limits, true = {"w": allowed, "v": [1e-9, 1e-9]}, {"v": [0.0, other]}
    cases = [state_case(true | {"w": each}, limits, given) for each in ([0.0, 0.0], values)]
    assert find_zeros(state_program(), [], cases) == ({"w"} if zero else set())


@pytest.mark.parametrize(
    ("operations", "found"),
    [
        ((state_operation("mul", (0, 2)),), True),  # a constant that is not zero
        ((state_operation("mul", (0, 3)),), False),  # one that is zero
        ((state_operation("mul", (0, 5)),), True),  # one that is zero in part
        ((state_operation("add", (0, 3)),), True),
        ((state_operation("mul", (2, 3), (4,)), state_operation("add", (0, 4))), True),
        ((state_operation("mul", (2, 3), (4,)), state_operation("mul", (0, 4))), False),
        ((state_operation("mul", (0, 3), (4,)), state_operation("add", (4, 2))), False),
        ((state_operation("sign"),), False),
        ((state_operation("sign", (0,), (4,)), state_operation("mul", (0, 4))), True),
    ],
)
def test_a_parameter_reaches_the_loss_unless_a_constant_zero_or_a_flat_function_is_between(
    operations: Any, found: bool
) -> None:
    slots = [np.ones(2), np.ones(2), np.ones(2), np.zeros(2), np.zeros(2)]
    slots.append(np.array([0.0, 1.0]))
    given = state_program(*operations, constants=(2, 3, 5))
    # Slot 4 is zero here by chance where it depends on the parameter.
    assert reaches(given, slots, "w") is found


def test_factors_that_show_which_terms_cancel_are_near_one_and_far_beyond_rounding() -> None:
    assert 2.0**16 * U < UNBALANCE < 2.0**-16


@pytest.mark.parametrize("zero", [True, False])
def test_a_part_that_meets_constant_zeros_alone_does_not_reach_the_loss(zero: bool) -> None:
    x = np.array([[1.0, 2.0, 0.0 if zero else 1.0]])

    def loss(p: Any, xp: Any) -> Any:
        a = x @ xp.concatenate([p["U"], p["W"]], axis=0)
        return xp.sum(xp.maximum(a, 0) @ p["V"])

    params = {"U": -np.ones((2, 2)), "W": np.ones((1, 2)), "V": np.ones(2)}
    with use_float64():
        program = trace(loss, params)
    slots = forward(program, params)
    assert reaches(program, slots, "W") is not zero
    assert reaches(program, slots, "U")
    # All units are dead here, which is no constant.
    assert reaches(program, slots, "V")
