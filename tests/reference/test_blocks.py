"""A block of problems has the references and bounds that each problem has alone."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ACTIVATIONS, LARGEST, LOSSES, Problem, Sizes
from bptt_verifier.reference import autodiff
from bptt_verifier.reference.autodiff import (
    name_arrays,
    prefetch_truths,
    start_references,
)
from bptt_verifier.reference.blocks import ReferenceBlock
from bptt_verifier.tolerance.bounds import bounds
from jax_reference import blocks, padded

SIZES = (
    Sizes(*LARGEST),
    Sizes(1, 1, 1, 1, 1),
    Sizes(5, 2, 3, 4, 2),
    Sizes(9, 4, 1, 2, 3),
    Sizes(2, 1, 6, 5, 1),
)


def draw(number: int, option: str = "tanh") -> Problem:
    """Draw problems of all sizes, formats and losses, with biases and states or without."""
    return with_values(
        np.random.default_rng(number), SIZES[number % len(SIZES)], option=option,
        dtype=(np.float64, np.float32)[number % 2], loss=LOSSES[number // 2 % 2],
        bias=number % 3 == 0, initial_state=number % 4 == 0,
    )  # fmt: skip


def compute(problem: Problem) -> dict[str, Any]:
    """The derivatives at one problem, by the program that takes one."""
    given = problem.first | problem.options
    return name_arrays(
        padded.derivatives(
            problem.params, problem.x, problem.y, **given, capacity=LARGEST, cell=problem.cell
        )
    )


def list_bits(block: ReferenceBlock, number: int) -> list[bytes]:
    derivatives, dtype = block.cut(number), block.problems[number].x.dtype
    arrays = [*name_arrays(derivatives).values(), *block.bound(number, dtype)]
    return [np.asarray(each).tobytes() for each in arrays]


@pytest.mark.parametrize("option", ACTIVATIONS)
def test_the_bounds_of_a_block_are_those_of_each_problem(option: str) -> None:
    block = ReferenceBlock([draw(number, option) for number in range(10)])
    for number, problem in enumerate(block.problems):
        known = block.cut(number)
        for dtype in (problem.x.dtype, np.dtype(np.float16)):
            alone = bounds(
                problem.params, problem.x, problem.y, known,
                dtype=dtype, loss=problem.loss, **problem.option,
            )  # fmt: skip
            both = 1 + np.finfo(np.float64).eps / np.finfo(dtype).eps
            for name, bound in block.bound(number, dtype)._asdict().items():
                expected = both * getattr(alone, name)
                np.testing.assert_allclose(bound, expected, rtol=1e-12, err_msg=name)
                assert not bound.flags.writeable


def test_the_derivatives_of_a_block_are_those_of_each_problem() -> None:
    block = ReferenceBlock([draw(number) for number in range(len(SIZES))])
    for number, problem in enumerate(block.problems):
        found, expected = name_arrays(block.cut(number)), compute(problem)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            size = np.max(np.abs(value))
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-13 * size, err_msg=name)


def test_no_bit_of_a_problem_depends_on_what_stands_beside_it() -> None:
    problems = [draw(number) for number in range(blocks.SIZE)]
    whole, turned = ReferenceBlock(problems), ReferenceBlock(problems[::-1])
    for number, problem in enumerate(problems):
        expected = list_bits(whole, number)
        assert list_bits(turned, len(problems) - 1 - number) == expected
        assert list_bits(ReferenceBlock([problem]), 0) == expected


def test_a_bound_that_overflows_makes_no_other_infinite() -> None:
    huge = draw(0, "identity")
    huge = huge._replace(params=huge.params._replace(W=1e200 * huge.params.W))
    with np.errstate(over="ignore", invalid="ignore"):
        block = ReferenceBlock([huge, draw(2, "identity")])
        first, second = (block.bound(number, np.dtype(np.float64)) for number in range(2))
    assert not any(np.isfinite(bound).any() for bound in first)
    assert all(np.isfinite(bound).all() for bound in second)


def test_problems_of_one_activation_are_computed_together_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = list[Any]()

    class Noted(ReferenceBlock):
        def __init__(self, problems: Any) -> None:
            made.append([problem.option["activation"] for problem in problems])

    monkeypatch.setattr(autodiff, "ReferenceBlock", Noted)
    problems = [draw(100 + n, ("tanh", "relu")[n % 2]) for n in range(2 * blocks.SIZE + 2)]
    found = start_references([*problems, problems[0]])
    full, rest = blocks.SIZE, 1
    assert made == [[option] * n for option in ("tanh", "relu") for n in (full, rest)]
    assert found[0] is found[-1]
    assert start_references(problems[3:5]) == found[3:5]
    assert len(made) == 4


def test_the_next_block_is_started_before_a_problem_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = list[Any]()

    def note(problems: Any) -> Any:
        events.append(len(problems))
        return [None] * len(problems)

    monkeypatch.setattr(autodiff, "start_references", note)
    monkeypatch.setattr(blocks, "SIZE", 2)
    for problem, _ in prefetch_truths([draw(number) for number in range(5)]):
        events.append(problem.sizes.T)
    T = [SIZES[number].T for number in range(5)]
    assert events == [2, 2, *T[:2], 1, *T[2:4], T[4]]
