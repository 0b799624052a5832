"""A product that is wrong by one multiple of its direction lacks a Hessian of a sum of squares."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.curvature_penalties import LEFT, find_penalty
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.report import Mistake

W, DIRECTION = np.array([1.0, 2.0, -3.0]), np.array([2.0, -1.0, 4.0])
ORTHOGONAL = np.array([1.0, 2.0, 0.0])  # to the direction
EXACT = np.array([5.0, 1.0, 7.0])


def find(*errors: Any, direction: Any = DIRECTION, setting: int = 0) -> tuple[str, str] | None:
    """Find the penalty of a product for W with one of these errors in each case."""
    given = iter(errors)

    def ask(point: Any, cotangents: Any) -> Any:
        error = next(given)
        return error if isinstance(error, Mistake) else {"R{W}": EXACT[: len(error)] + error}

    def pull_back(points: Any, cotangents: Any) -> Any:
        assert (len(points), len(cotangents)) == (1, 1)
        return SimpleNamespace(gradients={"R{W}": EXACT[None, : len(direction)]})

    calls: Any = SimpleNamespace(ask=ask, pullback=SimpleNamespace(pull_back=pull_back))
    case = KernelCase(setting, 0, {"W": W}, {} if direction is None else {"W": direction})
    found: Any = [SimpleNamespace(case=case)] * len(errors)
    return find_penalty("R{W}", found, [None] * setting + [calls])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (-0.5, "the product lacks 0.5 times the direction, as of a penalty of 0.25 times the sum"),
        (3.0, "the product has too much by 3 times the direction, as of a penalty of 1.5 times"),
        (0.5, "the product has too much by 0.5 times the direction, as of a penalty of 0.25 times"),
    ],
)
def test_the_multiple_is_named_with_half_of_it_as_the_penalty(by: float, said: str) -> None:
    found = find(by * DIRECTION, by * DIRECTION, setting=1)
    assert found is not None
    assert found[0] == "weight-decay"
    assert found[1].startswith(said)
    assert found[1].endswith("times the sum of squares")


def test_a_part_that_is_no_multiple_may_be_left_as_far_as_rounding_leaves_some() -> None:
    # Of an error of 1 along the direction, and a part across it: both have the root of their mean
    # square as their size.
    along = DIRECTION / np.linalg.norm(DIRECTION)
    across = ORTHOGONAL / np.linalg.norm(ORTHOGONAL)
    assert find(along + 0.0035 * across) is not None
    assert find(along + 0.0043 * across) is None


def test_multiples_that_differ_between_cases_are_no_penalty() -> None:
    for by in (4.0, -4.0):
        assert find(by * DIRECTION, by * (1 + LEFT) * DIRECTION) is not None
        for other in (1 + 1.1 * LEFT, 1 - 1.1 * LEFT):
            assert find(by * DIRECTION, by * other * DIRECTION) is None
            assert find(by * DIRECTION, by * DIRECTION, by * other * DIRECTION) is None


def test_an_error_of_two_numbers_is_not_told_from_a_multiple() -> None:
    assert find(DIRECTION[:2], direction=DIRECTION[:2]) is None
    assert find(DIRECTION, direction=DIRECTION) is not None


def test_an_argument_without_a_direction_has_no_penalty() -> None:
    assert find(DIRECTION, direction=None) is None


def test_a_submission_that_gives_no_product_has_no_penalty() -> None:
    assert find(Mistake("raised", "it raised an exception.", {})) is None


def test_no_error_at_all_is_no_penalty() -> None:
    assert find(np.zeros(3)) is None
