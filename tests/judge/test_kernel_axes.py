"""Axes of a kernel's arguments: time, masks and lengths, rows of a batch, settings."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import verify_vjp
from bptt_verifier.judge.kernel_axes import ends_sequences, find_ends
from tests.support.kernel_gallery import GALLERY, draw_recurrence
from tests.support.kernels import backward_of, draw_rnn, rnn

INSIDE = np.arange(4)[:, None] < np.array([4, 2, 3])


@pytest.mark.table(2)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool], ids=["float32", "int32", "bool"])
@pytest.mark.parametrize("first", [True, False], ids=["batch first", "time first"])
def test_entries_outside_a_mask_are_told_from_steps(dtype: Any, first: bool) -> None:
    def forward(m: Any, x: Any) -> Any:
        return jnp.where(m[:, :, None] > 0, jnp.sin(x), 0)

    def backward(arguments: Any, d: Any) -> Any:
        return None, d * np.cos(arguments[1])

    m, x = INSIDE.astype(dtype), draw_rnn(np.float32)[0]
    given = (m.T.copy(), x.swapaxes(0, 1).copy()) if first else (m, x)
    (mistake,) = verify_vjp(backward, forward, given, cases=1).mistakes
    assert mistake.name == "wrong-beyond-length"
    assert "beyond m alone" in mistake.explanation


def test_a_mask_of_units_ends_no_sequence() -> None:
    assert ends_sequences(INSIDE)
    assert ends_sequences(~INSIDE)
    assert not ends_sequences(np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]]))
    assert not ends_sequences(np.array([[1, 2], [1, 0]]))
    assert not ends_sequences(np.array([1, 1, 0]))


def test_every_arrangement_of_a_mask_and_of_lengths_is_found() -> None:
    found = [*find_ends({"m": INSIDE, "n": np.array([4, 2, 3])}, (4, 3, 5))]
    assert [label for label, _ in found] == ["m", "n", "n"]
    for _, beyond in found[:2]:
        np.testing.assert_array_equal(beyond[:, :, 0], ~INSIDE)
    assert [*find_ends({"n": np.array([9, 2, 3])}, (4, 3))] == []


def clear(place: Any) -> Any:
    """Change the gradient of x: zeros at a place."""

    def change(found: Any) -> Any:
        found[0][place] = 0
        return found

    return change


@pytest.mark.table(2)
@pytest.mark.parametrize(("place", "said"), [((slice(2),), True), ((slice(None), slice(2)), False)])
def test_going_backward_is_said_of_time_alone(place: Any, said: bool) -> None:
    report = verify_vjp(backward_of(rnn, clear(place)), rnn, draw_rnn(np.float32), cases=1)
    (mistake,) = report.mistakes
    assert mistake.name == "wrong-range"
    assert ("going backward, 1 is the first" in mistake.explanation) is said


def mix(change: Any) -> Any:
    """A kernel of the RNN whose cotangents or gradients are changed."""
    right = backward_of(rnn)

    def backward(arguments: Any, cotangents: Any) -> Any:
        return change(lambda given: right(arguments, given), cotangents)

    return backward


def swap(array: Any) -> Any:
    """Swap the last two rows of a batch."""
    return array[:, [0, 2, 1]]


MIXED = {
    "cotangents": mix(lambda pull, given: pull((swap(given[0]), given[1]))),
    "gradients": mix(lambda pull, given: (swap(pull(given)[0]), *pull(given)[1:])),
}


@pytest.mark.table(4)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("backward", MIXED.values(), ids=MIXED)
def test_any_two_rows_that_a_kernel_mixes_are_told(backward: Any, dtype: Any) -> None:
    report = verify_vjp(backward, rnn, draw_rnn(dtype), cases=1)
    assert report.mistakes[0].name == "rows-influence-one-another", report
    assert "at other indices of axis 1" in report.mistakes[0].explanation


def test_an_argument_from_before_the_first_case_is_told() -> None:
    right, kept = backward_of(rnn), draw_rnn(np.float32)[0][::-1].copy()
    report = verify_vjp(
        lambda arguments, d: right((kept, *arguments[1:]), d), rnn, draw_rnn(np.float32), cases=1
    )
    (mistake,) = report.mistakes
    assert mistake.name == "depends-on-calls"
    assert "no gradient changes with x" in mistake.explanation


def test_a_slope_that_is_left_out_is_no_argument_that_is_kept() -> None:
    def backward(arguments: Any, d: Any) -> Any:
        return d, d

    given = tuple(np.linspace(0.3, 0.9, 12).reshape(3, 4) for _ in range(2))
    (mistake,) = verify_vjp(backward, lambda x, y: jnp.tanh(x + y), given, cases=1).mistakes
    assert mistake.name == "activation-derivative-missing"


@pytest.mark.rest
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_a_gradient_that_is_zero_in_some_settings_alone_is_no_zero_gradient(dtype: Any) -> None:
    exhibit = GALLERY["a linear recurrence in chunks"]
    backward = exhibit.wrong("the last chunk is left out")

    def judge(*lengths: int) -> list[str]:
        settings = [draw_recurrence(dtype, T) for T in lengths]
        report = verify_vjp(backward, exhibit.forward, settings, cases=1)
        assert not any("evidently" in note for note in report.notes)
        return [f"{mistake.name}: {mistake.explanation}" for mistake in report.mistakes]

    sizes, zeros = judge(32, 1)
    assert sizes.startswith("wrong-at-other-sizes")
    assert zeros.startswith("wrong-at-other-sizes")
    assert "every entry is zero in setting 2, and right in setting 1" in zeros
    assert all(each.startswith("wrong-last-tile") for each in judge(1, 40))
