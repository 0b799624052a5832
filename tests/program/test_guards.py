"""Guards of a loss are limits next to 0 and 1, and derivations leave them out in two ways."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.guards import (
    WIDTH,
    differentiate_unguarded,
    find_guards,
    is_limit,
    leave_out,
)
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import Program, forward, trace

PARAMS = {"q": np.array([0.3, 0.6])}
BELOW = np.array([1e-9, 0.6])  # of the limit 1e-7


def clip(p: Any, xp: Any) -> Any:
    return -xp.sum(xp.log(xp.clip(p["q"], 1e-7, 1 - 1e-7)))


def choose(p: Any, xp: Any) -> Any:
    return -xp.sum(xp.log(xp.where(p["q"] < 1e-7, 1e-7, p["q"])))


def rectify(p: Any, xp: Any) -> Any:
    return xp.sum(xp.maximum(p["q"], 0.0))


def limit_widely(p: Any, xp: Any) -> Any:
    return xp.sum(xp.clip(p["q"], 0.01, 0.99))


def limit_by_two(p: Any, xp: Any) -> Any:
    return xp.sum(xp.maximum(p["q"], p["q"][::-1]))


def trace_loss(loss: Any) -> Program:
    with use_float64():
        return trace(loss, PARAMS)


@pytest.mark.parametrize(
    ("loss", "number"),
    [(clip, 2), (choose, 1), (rectify, 0), (limit_widely, 0), (limit_by_two, 0)],
)
def test_a_guard_is_a_limit_next_to_zero_or_one(loss: Any, number: int) -> None:
    program = trace_loss(loss)
    found = find_guards(program)
    assert len(found) == number
    for operation, operand in found:
        assert program.operations[operation].inputs[operand] not in program.constants


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (WIDTH, True), (2 * WIDTH, False), (1 - WIDTH, True), (1 + WIDTH, True), (0.0, False),
        (1.0, False), ([1e-8, 1e-7], True), ([1e-8, 0.5], False), ([], False), (-1e-8, True),
    ],
)  # fmt: skip
def test_a_limit_is_nearly_zero_or_one_and_neither(value: Any, limits: bool) -> None:
    program = trace_loss(clip)._replace(constants={0: np.array(value, float)})
    assert is_limit(program, 0) is limits


def test_integers_and_what_depends_on_parameters_are_no_limits() -> None:
    program = trace_loss(clip)
    assert not is_limit(program._replace(constants={0: np.array([2])}), 0)
    assert not is_limit(program, program.leaves["q"])


@pytest.mark.parametrize("loss", [clip, choose])
def test_the_slope_of_a_guard_is_one_at_limited_or_at_free_values(loss: Any) -> None:
    program = trace_loss(loss)
    with use_float64():
        every = differentiate_unguarded(program, find_guards(program), {"q": BELOW})
    limited, free = (each["q"] for each in every)
    np.testing.assert_allclose(limited, [-1e7, -1 / 0.6])
    np.testing.assert_allclose(free, [-1e9, -1 / 0.6])


def test_a_loss_without_its_guards_has_the_values_without_them() -> None:
    program = trace_loss(clip)
    free = leave_out(program, find_guards(program))
    with use_float64():
        value = forward(free, {"q": BELOW})[free.result]
        same = forward(program, PARAMS)[program.result]
    assert value[0] == pytest.approx(-np.sum(np.log(BELOW)))
    assert same[0] == pytest.approx(-np.sum(np.log(PARAMS["q"])))


def test_a_guard_that_is_the_result_is_left_out_as_well() -> None:
    with use_float64():
        program = trace(lambda p, xp: xp.maximum(xp.sum(p["q"]), 1e-6), PARAMS)
        free = leave_out(program, find_guards(program))
        assert forward(free, {"q": -BELOW})[free.result][0] == pytest.approx(-BELOW.sum())


def test_a_guard_that_spreads_its_operand_is_kept() -> None:
    def spread(p: Any, xp: Any) -> Any:
        return xp.sum(xp.maximum(p["q"], np.full((3, 2), 1e-6)))

    program = trace_loss(spread)
    ((number, operand),) = find_guards(program)
    slot = program.operations[number].inputs[operand]
    shaped = program.shapes | {"q": (2,)}
    kept = program._replace(
        leaves={"q": slot}, shapes=shaped, operations=program.operations[number:]
    )
    assert len(leave_out(kept, [(0, operand)]).operations) == len(kept.operations)
