"""The report of an own model says which mistakes no case could have shown."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.tolerance.comparison import compare_all

PARAMS = {"W": np.ones(2), "b": np.ones(1)}


def subject(params: Any = (PARAMS,)) -> OwnSubject:
    model: Any = SimpleNamespace(
        params=params, notes=(), refusal=None, doubt=None, zeros=frozenset(), loss_raised=False,
        narrow=False,
    )  # fmt: skip
    return OwnSubject(model)


def answer_large(value: float, allowed: float = 0.0) -> Any:
    """What was found at a case with -`value` as the largest entry of W, and a larger loss."""
    values = {"W": np.array([0.0, -value]), "b": np.array([0.125]), "loss": np.array(1e9)}
    limits = {name: np.zeros_like(each) for name, each in values.items()}
    limits["W"] += allowed
    return SimpleNamespace(
        gradients=("W", "b"), values=values, comparisons=compare_all(values, values, limits)
    )


@pytest.mark.parametrize(
    ("cases", "largest"),
    [
        ([(0.5, 0.0), (3.25, 0.0), (1.0, 0.0)], "3.2 in ∂L/∂W and 0.12 in ∂L/∂b"),
        ([(5000.0, 0.0), (10.0, 0.0)], "5e+03 in ∂L/∂W and 0.12 in ∂L/∂b"),
        ([(0.0, 0.0)], "0.12 in ∂L/∂b"),
        # Where rounding may move the largest entry by more than 2⁻⁶ of it, no clip is seen.
        ([(8.0, 2.0**-3), (6.0, 0.0)], "8 in ∂L/∂W and 0.12 in ∂L/∂b"),
        ([(8.0, 2.0**-2), (6.0, 0.0)], "6 in ∂L/∂W and 0.12 in ∂L/∂b"),
        ([(8.0, np.inf)], "0.12 in ∂L/∂b"),
    ],
)
def test_the_largest_entry_of_each_gradient_says_from_which_limit_on_clipping_shows(
    cases: list[tuple[float, float]], largest: str
) -> None:
    _, said = subject().describe_unseen([answer_large(*each) for each in cases])
    assert f" are at most {largest}: a clip of a gradient to a larger limit would not" in said
    assert [*subject().describe_unseen([])] == []


@pytest.mark.parametrize(("settings", "said"), [(1, True), (2, False)])
def test_shapes_of_one_setting_are_said_to_be_the_only_ones(settings: int, said: bool) -> None:
    notes = [*subject(params=(PARAMS,) * settings).describe_unseen([answer_large(0.0)])]
    only = "No other shapes were tried: a list of settings as params tries them."
    assert (only in notes) is said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (3, "2 in ∂L/∂p2, 1 in ∂L/∂p1 and 0.5 in ∂L/∂p0"),
        (
            6,
            "16 in ∂L/∂p5, 8 in ∂L/∂p4, 4 in ∂L/∂p3, 2 in ∂L/∂p2, 1 in ∂L/∂p1 and 0.5 in ∂L/∂p0",
        ),
        (7, "32 in ∂L/∂p6 down to 0.5 in ∂L/∂p0"),
    ],
)
def test_of_many_gradients_the_largest_and_the_smallest_entry_are_said(
    number: int, said: str
) -> None:
    values = {f"p{k}": np.array([2.0 ** (k - 1)]) for k in range(number)}
    limits = {name: np.zeros(1) for name in values}
    comparisons = compare_all(values, values, limits)
    found: Any = SimpleNamespace(gradients=[*values], values=values, comparisons=comparisons)
    _, note = subject().describe_unseen([found])
    assert note.startswith(f"The entries compared are at most {said}: a clip ")
