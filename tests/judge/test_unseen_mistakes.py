"""The report of an own model says which mistakes no case could have shown."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify_own_model
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.path import judge
from bptt_verifier.program.taken_sides import TakenSides
from bptt_verifier.tolerance.comparison import Verdict, compare_all
from tests.support.squares import Squares, case_at, fail, right

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


X = np.linspace(-1.0, 1.0, 3)


def branching_loss(p: Any) -> Any:
    r = X @ p["w"]
    return 3 * r if r > 1e7 else r**2


def branching_gradients(p: Any, limit: Any = None) -> Any:
    r = X @ p["w"]
    g = 3 * X if r > 1e7 else 2 * r * X
    if limit is not None:
        g = np.clip(g, -limit, limit)
    if np.abs(g).max() > 1e12:
        raise ValueError("too large")
    if np.abs(g).max() > 1e11:
        g = 0 * g
    return {"w": g}


def black_box(p: Any) -> Any:
    r = float(str(float(X @ p["w"])))
    return 3 * r if r > 1e9 else r**2


def list_untaken(loss: Any, gradients: Any) -> dict[str, list[str]]:
    report = verify_own_model(gradients, loss, {"w": np.ones(3)}, timeout=0)
    assert report.cases, str(report)
    begins = "No case takes these branches of "
    said = [each.removeprefix(begins) for each in report.notes if each.startswith(begins)]
    parts = (each.removesuffix(".").partition(": ") for each in said)
    return {what: re.sub(r" \(.*?:\d+\)", "", listed).split("; ") for what, _, listed in parts}


def test_branches_of_python_that_no_case_takes_are_listed() -> None:
    taken = "the condition is true"
    assert list_untaken(branching_loss, branching_gradients) == {
        "the loss": [f"`r > 1e7`: {taken}"],
        "your gradients": [f"`r > 1e7`: {taken}", f"`np.abs(g).max() > 1e11`: {taken}"],
    }


@pytest.mark.rest
def test_branches_of_a_loss_without_a_trace_are_listed() -> None:
    untaken = list_untaken(black_box, lambda p: {"w": 2 * (X @ p["w"]) * X})
    assert untaken == {"the loss": ["`r > 1e9`: the condition is true"]}


@pytest.mark.parametrize(
    ("doubts", "last", "first"),
    [({}, "untaken", "a note"), ({1: "in doubt"}, "in doubt", "untaken")],
)
def test_branches_stand_last_or_first_where_the_reason_is_last(
    doubts: Any, last: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TakenSides, "describe", lambda self, what: ["untaken"])
    subject = Squares([case_at(1.0), case_at(2.0)])
    subject.doubts = doubts
    report = judge(right, subject, "mine")
    assert report.verdict is (Verdict.INCONCLUSIVE if doubts else Verdict.AGREES)
    assert (report.notes[0], report.notes[-1]) == (first, last)


def test_no_branches_are_said_where_nothing_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TakenSides, "describe", lambda self, what: ["untaken"])
    report = judge(fail, Squares(contract=[case_at(1.0)]), "mine")
    assert (report.cases, "untaken" in report.notes) == (0, False)
