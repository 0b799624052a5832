"""Mistakes in one gradient: limits that clip, factors in words, and parts that are transposed.

A limit that clips is a short number, or one that several entries or cases have.
"""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.evidence import Evidence, Wanted
from bptt_verifier.mistakes.single_gradients import (
    Finding,
    count_square_parts,
    describe_finding,
    list_clippings,
    list_transpositions,
    say_factor,
    transpose_parts,
)


def list_limits(*submitted: list[float], allowed: Any = 0.0) -> list[str]:
    """List the clippings that are tried for these gradients, one a case, with allowed errors."""
    limits = allowed if isinstance(allowed, tuple) else (allowed,) * len(submitted)
    evidence = [
        Evidence(
            None,
            {"W": np.zeros(len(each))},
            {"W": Wanted(np.array(each), np.broadcast_to(limit, len(each)), 0.0, None)},
        )
        for each, limit in zip(submitted, limits, strict=True)
    ]
    return [",".join(found.details) for found in list_clippings("W", evidence, ["W"])]


@pytest.mark.parametrize(
    ("submitted", "limits"),
    [
        (([0.1, 0.731234567], [0.2, -0.3]), []),
        (([0.1, 0.731234567], [0.2, -0.731234567]), ["value"]),
        (([0.1, 0.75], [0.2, -0.3]), ["value"]),
        (([3.0, 4.0], [0.2, -0.3]), ["value", "norm", "norm"]),
        (([0.345678, 0.460904], [0.57613]), ["norm", "norm"]),
    ],
)
def test_a_number_that_one_entry_alone_has_is_no_limit_unless_it_is_short(
    submitted: tuple[list[float], ...], limits: list[str]
) -> None:
    assert list_limits(*submitted) == limits


def test_the_largest_rounding_error_of_zeros_is_no_limit() -> None:
    errors = [2.0**-54, -(2.0**-54)], [2.0**-54]
    assert list_limits(*errors, allowed=2.0**-55)[0] == "value"
    assert list_limits(*errors, allowed=2.0**-54) == []
    assert list_limits(*errors, allowed=([2.0**-60, 2.0**-54], 1.0)) == []
    assert list_limits(*errors, allowed=([2.0**-60, 2.0**-55], 1.0))[0] == "value"


def test_the_words_after_a_factor_explain_it() -> None:
    assert say_factor("1/3") == "every entry is 1/3 times what it should be"
    said = "every entry is 5 times what it should be; 5 is the number of steps"
    assert say_factor("5, the number of steps,") == said


def truncate_to(kept: int) -> Finding:
    said = f"only the last {kept} steps are summed"
    return Finding("truncated", said, {"steps": kept}, lambda back: np.ones(kept))


def test_a_truncation_is_stated_by_the_range_of_steps_with_the_same_numbers() -> None:
    every = [truncate_to(kept) for kept in (125, 126, 128)]
    found = describe_finding(every[1], ["U"], None, every)
    assert found.explanation == "in ∂L/∂U, only the last 125 to 128 steps are summed."
    assert found.details == {"gradients": ["U"], "steps": 125, "to": 128}
    alone = describe_finding(every[0], ["U"], None, every[:1])
    assert alone.explanation == "in ∂L/∂U, only the last 125 steps are summed."
    assert alone.details == {"gradients": ["U"], "steps": 125}
    other = truncate_to(7)._replace(name="missing-time-sum")
    assert describe_finding(every[0], ["U"], None, [every[0], other]) == alone


def test_the_gradients_of_stacked_gates_are_transposed_one_by_one() -> None:
    rows = np.array([[1, 2], [3, 4], [5, 6], [7, 8]])
    turned = np.array([[1, 3], [2, 4], [5, 7], [6, 8]])
    np.testing.assert_array_equal(transpose_parts(rows), turned)
    np.testing.assert_array_equal(transpose_parts(rows.T), turned.T)
    both = transpose_parts(np.stack([rows, turned]))
    np.testing.assert_array_equal(both, np.stack([turned, rows]))
    assert [count_square_parts(shape) for shape in [(4, 2), (2, 6), (5, 2, 6)]] == [2, 3, 3]


@pytest.mark.parametrize("shape", [(), (4,), (3, 3), (1, 4), (4, 1), (5, 2)])
def test_a_matrix_without_square_parts_is_left_as_it_is(shape: tuple[int, ...]) -> None:
    assert count_square_parts(shape) == 0
    found = np.ones(shape)
    assert transpose_parts(found) is found


def test_transposed_gates_are_among_the_mistakes_of_one_gradient() -> None:
    right = np.arange(8.0).reshape(4, 2)
    back = type("Back", (), {"gradient": lambda self, name: right})()
    found = [each for each in list_transpositions("W") if "square parts" in each.said]
    assert [each.name for each in found] == ["transposed-gradient"]
    np.testing.assert_array_equal(found[0].gradient(back), transpose_parts(right))
