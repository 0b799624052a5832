"""Which axis of an argument is time, and what is beyond the end of a sequence, by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_axes import ends_sequences, find_ends, is_time_axis
from bptt_verifier.judge.kernel_cases import KernelCase


def sum_backward(c: Any) -> Any:
    """Pull back c through h_t = Σ_{s ≤ t} x_s along the first axis: Σ_{t ≥ s} c_t."""
    return np.cumsum(c[::-1], axis=0)[::-1]


def ask(pull: Any, x: Any, **cotangents: Any) -> list[bool]:
    """Ask of each axis of x whether it is time, where the gradient for x is `pull(cotangents)`."""
    case = KernelCase(0, 0, {"x": x}, cotangents)

    def pull_back(points: Any, given: Any) -> Any:
        assert points == [case.point]
        return SimpleNamespace(gradients={"x": pull(given[0])[None]})

    pullback: Any = SimpleNamespace(pull_back=pull_back)
    return [is_time_axis(pullback, case, "x", axis) for axis in range(x.ndim)]


X = np.ones((4, 3))


def test_time_is_the_axis_along_which_no_output_depends_on_later_indices() -> None:
    assert ask(lambda c: sum_backward(c["h"]), X, h=X) == [True, False]
    assert ask(lambda c: sum_backward(c["h"].T).T, X.T, h=X.T) == [False, True]


def test_what_depends_on_later_indices_is_no_time() -> None:
    assert ask(lambda c: np.cumsum(c["h"], axis=0), X, h=X) == [False, False]
    assert ask(lambda c: sum_backward(c["h"]) + c["h"].sum(axis=0), X, h=X) == [False, False]


def test_what_depends_on_its_own_index_or_the_next_alone_is_no_time() -> None:
    assert ask(lambda c: c["h"], X, h=X) == [False, False]
    assert ask(lambda c: np.roll(c["h"], 1, axis=0), X, h=X) == [False, False]
    assert ask(lambda c: np.roll(c["h"], -1, axis=0), X, h=X) == [True, False]


def test_one_entry_that_is_reached_is_enough() -> None:
    def pull_column(c: Any) -> Any:
        return sum_backward(c["h"]) * np.array([1, 0, 0])

    def pull_delayed(c: Any) -> Any:  # through h_t = x_{t − 2}
        return np.concatenate([c["h"][2:], 0 * c["h"][:2]])

    def pull_next(c: Any) -> Any:  # of five steps, the one after the middle as well
        return sum_backward(c["h"]) + np.concatenate([0 * c["h"][:1], c["h"][:-1]])

    assert ask(pull_column, X, h=X) == [True, False]
    assert ask(pull_delayed, X, h=X) == [True, False]
    assert ask(pull_next, np.ones((5, 3)), h=np.ones((5, 3))) == [False, False]


def test_asked_is_any_output_with_an_axis_of_the_size_and_that_one_alone() -> None:
    def pull(c: Any) -> Any:
        return c["first"].sum() + sum_backward(c["h"].T)

    for first in (np.ones(5), np.ones((5, 2)), np.zeros((4, 3))):
        assert ask(pull, X, first=first, h=X.T) == [True, False]
    assert ask(lambda c: sum_backward(c["h"]).sum(axis=1), np.ones(4), h=np.ones((4, 4))) == [True]
    assert ask(lambda c: np.ones((4, 3)), X, first=np.ones(5)) == [False, False]


def test_two_steps_are_too_few_and_three_are_enough() -> None:
    for size in (2, 3):
        x = np.ones(size)
        assert ask(lambda c: sum_backward(c["h"]), x, h=x) == [size > 2]


def test_a_function_that_fails_and_an_argument_that_is_none_have_no_time() -> None:
    def fail(c: Any) -> Any:
        raise ValueError("no gradient")

    assert ask(fail, X, h=X) == [False, False]
    pullback: Any = SimpleNamespace(pull_back=fail)
    assert not is_time_axis(pullback, KernelCase(0, 0, {}, {"h": X}), "x", 0)


def test_no_cotangent_of_another_dtype_is_asked() -> None:
    dtypes = []

    def pull(c: Any) -> Any:
        dtypes.append(c["h"].dtype)
        return sum_backward(c["h"].astype(np.float64))

    ask(pull, X, h=X.astype(np.float32))
    assert set(dtypes) == {np.dtype(np.float32)}


def find(shape: Any, **arrays: Any) -> list[Any]:
    return [(label, beyond.tolist()) for label, beyond in find_ends(arrays, shape)]


def test_entries_beyond_lengths_are_those_from_the_length_on() -> None:
    lengths = np.array([3, 0])
    assert find((2, 3), n=lengths) == [("n", [[False] * 3, [True] * 3])]
    assert find((3, 2), n=lengths) == [("n", [[False, True]] * 3)]
    (_, beyond), *others = find((2, 3, 4), n=lengths)
    assert beyond == [[[False] * 4] * 3, [[True] * 4] * 3]
    assert others == [("n", [[[False] * 3 + [True]] * 3, [[True] * 4] * 3])]


@pytest.mark.parametrize(
    "lengths",
    [[4, 1], [-1, 2], [1, 2, 3], [[1, 2], [2, 1]], [1.0, 2.0], 2],
    ids=["too long", "negative", "too many", "of two axes", "floats", "one number"],
)
def test_what_cannot_be_lengths_is_beyond_nothing(lengths: Any) -> None:
    assert find((2, 3), n=np.array(lengths)) == []


def test_unsigned_lengths_are_lengths_too() -> None:
    assert len(find((2, 3), n=np.array([1, 2], np.uint8))) == 1


def test_what_is_no_array_is_left_out() -> None:
    class Refusing:
        def __array__(self, *_: Any) -> Any:
            raise TypeError("no array")

    assert [label for label, _ in find_ends({"a": Refusing(), "n": np.array([1, 2])}, (2, 3))] == [
        "n"
    ]


def test_what_is_outside_of_a_mask_is_zero_in_it_and_anything_else_in_one_that_is_added() -> None:
    inside = np.array([[True, True, False], [True, False, False]])
    outside = (~inside).tolist()
    for mask in (inside, inside.astype(np.float32) / 0.9, np.where(inside, 0, -np.inf)):
        assert find((2, 3), m=mask) == [("m", outside)]
    assert find((3, 2), m=inside) == [("m", (~inside).T.tolist())]
    (_, beyond), *others = find((2, 4, 3), m=inside)
    assert not others
    assert beyond == [[row] * 4 for row in outside]
    assert find((2, 4), m=inside) == []


def test_a_mask_ends_once_along_one_axis_and_is_of_numbers() -> None:
    assert ends_sequences(np.array([[1, 1, 0], [0, 1, 1]]))
    assert ends_sequences(np.array([[1, 0, 1], [0, 0, 1]]))  # along the first axis
    assert not ends_sequences(np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]]))
    assert not ends_sequences(np.array([[2, 0, 2], [0, 2, 0], [2, 0, 2]]))
    assert not ends_sequences(np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]]))  # but for one row
    for kind in ("O", "S1", "U1", "c16"):
        assert ends_sequences(np.array([[1, 1, 0], [1, 0, 0]]).astype(kind)) is False
