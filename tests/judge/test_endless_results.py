"""Results of a kernel that are not finite, or zero in the place of 1 / ∞, with numbers by hand."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_verifier.judge.kernel_cases import KernelCase, Neighbours
from bptt_verifier.judge.kernel_comparisons import (
    OVERFLOW,
    find_not_finite,
    find_reached,
    find_vanished,
)
from bptt_verifier.reference.point_arrays import Pulled

CASE = KernelCase(0, 0, {"w": np.ones(4)}, {"y": np.ones(2)})


def test_zeros_in_the_place_of_normal_numbers_have_vanished() -> None:
    exact = np.array([0.0, 1.0, 2.0**-10, 6e-5, 1e-3, -1e-3])
    values = np.array([0, 0, 0, 0, 1e-3, 0], np.float16)
    # Of numbers up to 1, what is below one rounding, 2⁻¹⁰, may vanish in a difference.
    assert find_vanished(values, exact).tolist() == [False, True, False, False, False, True]
    small = exact / 1024  # below the smallest normal number, 6.1e-5, all may vanish
    assert find_vanished(values, small).tolist() == [False, True, *[False] * 4]
    for dtype in (np.float32, jnp.bfloat16):
        found = find_vanished(values.astype(dtype), exact)
        assert found.shape == (6,)
        assert not found.any()
    assert find_vanished(values[:0], exact[:0]).shape == (0,)


def find_over(overflows: Any) -> Any:
    """A pull-back in which these entries of w and y depend on a number that is too large."""

    def find_overflows(points: Any, cotangents: Any, largest: float) -> Any:
        assert largest == 65504 / 16
        if overflows is None:
            raise ValueError("the operations are unknown")
        return Pulled({"y": np.array(overflows)}, {"w": np.array(overflows)})

    return SimpleNamespace(find_overflows=find_overflows)


NEAR: Any = Neighbours([], [])


def test_entries_are_reached_by_large_numbers_of_their_own_or_inside() -> None:
    exact = np.array([[65504 / 16, -5000, 3]])
    known = find_reached("w", exact, NEAR, find_over([[False, False, True]]), 65504.0)
    assert known.tolist() == [[False, True, True]]
    assert find_reached("y", exact, NEAR, find_over(None), 65504.0).tolist() == [[True] * 3]
    assert not find_reached("y", exact / 16, NEAR, find_over(None), 65504.0).any()


def ask_finite(
    values: Any, exact: Any, overflows: Any, name: str = "w", outputs: Any = (), dtype: Any = None
) -> Any:
    """Ask about a result in float16, of an argument in float64 if the result is w."""
    case = KernelCase(0, 0, {"w": np.ones(2, dtype or np.float64)}, {})
    submitted = {name: np.array([values], np.float16)}
    true = {name: np.array([exact], np.float64)}
    over = find_over(overflows if overflows is None else [overflows])
    return find_not_finite(submitted, outputs, true, NEAR, case, over)


def test_finite_results_and_infinite_ones_of_the_function_are_none() -> None:
    assert ask_finite([1, 2], [1, 2], None) == {}
    assert ask_finite([1, np.inf], [1, np.inf], None) == {}
    assert ask_finite([0, 2], [1, 2], None) == {}  # of gradients, zeros are compared


def test_nothing_is_asked_about_numbers_that_are_finite() -> None:
    asked = list[Any]()
    pullback: Any = SimpleNamespace(find_overflows=lambda *given: asked.append(given))
    one = {"y": np.ones((1, 2))}
    assert find_not_finite(one, one, one, NEAR, CASE, pullback) == {}
    assert asked == []


def test_a_gradient_that_is_not_finite_without_an_overflow_is_a_mistake() -> None:
    found = ask_finite([1, np.nan], [1, 2.5], [False, False])
    assert found.name == "not-finite"
    assert found.details == {"gradients": ["w"], "entry": [1], OVERFLOW: False}
    assert found.explanation == (
        "the gradient for w: expected finite numbers, found nan at entry [1], where autodiff gives "
        "2.5, with the arguments given."
    )
    found = ask_finite([np.inf, np.nan], [1, 2.5], [True, False])
    assert found.details == {"gradients": ["w"], "entry": [1], OVERFLOW: False}


def test_a_gradient_of_which_all_such_entries_may_overflow_leaves_out_the_case() -> None:
    found = ask_finite([1, np.inf], [1, 2.5], [False, True])
    assert found.details == {"gradients": ["w"], "entry": [1], OVERFLOW: True}
    assert ask_finite([np.inf, np.inf], [1, 5000], None).details["entry"] == [0]


def test_a_mistake_comes_before_a_case_that_is_left_out_and_that_before_outputs() -> None:
    case = KernelCase(0, 0, {"w": np.ones(2), "v": np.ones(2)}, {})
    bad = np.array([[np.inf, 1]], np.float16)
    exact = np.ones((1, 2))

    def find_overflows(points: Any, cotangents: Any, largest: float) -> Any:
        over = {"w": True, "u": True, "v": False, "y": True}
        arrays = {name: np.full((1, 2), each) for name, each in over.items()}
        return Pulled({}, arrays)

    pullback: Any = SimpleNamespace(find_overflows=find_overflows)

    def ask(*names: str) -> Any:
        submitted, true = dict.fromkeys(names, bad), dict.fromkeys(names, exact)
        return find_not_finite(submitted, "y", true, NEAR, case, pullback)

    assert ask("w", "v").details["gradients"] == ["v"]
    assert ask("w", "u").details["gradients"] == ["w"]
    assert ask("w", "y").details["gradients"] == ["w"]
    assert ask("y", "w").details["gradients"] == ["w"]
    assert ask("y")["y"].tolist() == [[True, True]]


def test_an_output_that_is_not_finite_or_has_vanished_differs_or_is_left_out() -> None:
    def ask(values: Any, exact: Any, overflows: Any) -> Any:
        return ask_finite(values, exact, overflows, "y", ("y",))

    found = ask([np.inf, np.inf], [1, 2.5], [True, False])
    assert found.name == "forward-differs"
    assert found.details == {"outputs": ["y"], "entry": [1]}
    assert found.explanation == (
        "your forward pass differs: your y is inf at entry [1], and that of the stated function is "
        "2.5, with the arguments given."
    )
    assert ask([1, np.inf], [1, 2.5], [False, True])["y"].tolist() == [[False, True]]
    assert ask([0, 1], [1, 2.5], [True, False])["y"].tolist() == [[True, False]]
    assert ask([0, 1], [1, 2.5], [False, True]) == {}
