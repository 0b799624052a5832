"""Overflow at values that no case has is said, and decides nothing."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Report, verify_own_model
from bptt_verifier.judge import far_values
from bptt_verifier.judge.far_values import describe_overflow
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.submission import Submission, make_breach
from bptt_verifier.reference.own_loss import prepare

rng = np.random.default_rng(0)
X, LABELS, ROWS = rng.normal(size=(6, 3)), np.array([0, 1, 1, 0, 1, 0]), np.arange(6)
GIVEN = {"W": rng.normal(size=(3, 2))}


def shifted(p: dict[str, Any], xp: Any) -> Any:
    """Cross-entropy by a softmax that is finite at all logits."""
    z = X @ p["W"]
    z = z - xp.max(z, axis=1)[:, None]
    return xp.mean(xp.log(xp.sum(xp.exp(z), axis=1)) - z[ROWS, LABELS])


def plain(p: dict[str, Any], xp: Any) -> Any:
    """The same, which overflows beyond 709."""
    z = X @ p["W"]
    return xp.mean(xp.log(xp.sum(xp.exp(z), axis=1)) - z[ROWS, LABELS])


def deciding(p: dict[str, Any]) -> Any:
    """The same as the first, with a decision on values."""
    return shifted(p, np) if p["W"][0, 0] > -1e9 else 0 * p["W"][0, 0]


def overflowing(p: dict[str, Any]) -> dict[str, Any]:
    q = np.exp(X @ p["W"])
    q /= q.sum(1, keepdims=True)
    q[ROWS, LABELS] -= 1
    return {"W": X.T @ q / 6}


def stable(p: dict[str, Any]) -> dict[str, Any]:
    z = X @ p["W"]
    q = np.exp(z - z.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    q[ROWS, LABELS] -= 1
    return {"W": X.T @ q / 6}


def guarded(p: dict[str, Any]) -> dict[str, Any]:
    if np.abs(p["W"]).max() > 1e3:
        raise ValueError("weights: expected at most 1e3")
    return overflowing(p)


def in_steps(p: dict[str, Any]) -> dict[str, Any]:
    """The same, after as many steps as the weights are large: seconds at 2⁸ times the values."""
    end = time.monotonic() + 0.001 * np.abs(p["W"]).max() ** 1.5
    while time.monotonic() < end:
        pass
    return stable(p)


def list_said(report: Report) -> list[str]:
    assert report.verdict.value == "agrees"
    return [note for note in report.notes if "a number inside overflows" in note]


def test_a_softmax_that_overflows_where_the_loss_does_not_is_said() -> None:
    report = verify_own_model(overflowing, shifted, GIVEN)
    assert list_said(report) == [
        "At 4096 times the values of case 0, your numbers for W are not finite, and autodiff's "
        "are: a number inside overflows. The verdict does not depend on it."
    ]


def test_parameters_of_zeros_leave_it_to_a_drawn_case() -> None:
    report = verify_own_model(overflowing, shifted, {"W": np.zeros((3, 2))})
    assert [note for note in list_said(report) if "the values of case 1," in note]


def test_values_are_scaled_up_in_four_steps() -> None:
    model = prepare(shifted, GIVEN, cases=1)
    subject = OwnSubject(model)
    far = dict(subject.draw_far_cases(model.cases[0]))
    assert [*far] == [16, 256, 4096, 65536]
    assert all(np.array_equal(far[f].arguments["W"], f * GIVEN["W"]) for f in far)


def test_some_zeros_are_no_reason_for_a_drawn_case() -> None:
    given = {"W": GIVEN["W"] * [[0, 1], [1, 1], [1, 1]], "b": np.zeros(2)}

    def loss(p: dict[str, Any], xp: Any) -> Any:
        return shifted(p, xp) + xp.sum(p["b"] ** 2)

    report = verify_own_model(lambda p: overflowing(p) | {"b": 2 * p["b"]}, loss, given)
    assert [note for note in list_said(report) if "case 0, your numbers for W are" in note]


def test_one_entry_that_overflows_is_said() -> None:
    def loss(p: dict[str, Any], xp: Any) -> Any:
        return xp.sum(xp.logaddexp(0.0, p["w"]))

    def gradients(p: dict[str, Any]) -> dict[str, Any]:
        return {"w": np.exp(p["w"]) / (1 + np.exp(p["w"]))}

    assert list_said(verify_own_model(gradients, loss, {"w": np.array([1.0, -1.0])}))


@pytest.mark.parametrize(
    ("gradients", "loss"),
    [
        (stable, shifted),
        (overflowing, plain),
        (overflowing, deciding),
        (guarded, shifted),
    ],
    ids=["finite", "the loss overflows, too", "several paths", "it raises there"],
)
def test_nothing_is_said(gradients: Callable[..., Any], loss: Callable[..., Any]) -> None:
    assert not list_said(verify_own_model(gradients, loss, GIVEN))


REFUSED = make_breach("raised", "your function raised ValueError")


@pytest.mark.parametrize(
    ("seconds", "answers", "asked"),
    [
        ([0.125, 0.625, 2.625, 10.625], {}, [1, 2, 4, 8]),  # four times the last, and 1/8 more
        ([0.125, 0.75], {}, [1, 2]),
        ([0.125, 0.625, 2.75, 0.0], {}, [1, 2, 4]),
        ([9.0, 0.0, 0.125, 0.75], {}, [1, 2, 4, 8]),  # the first may take any time
        ([0.0] * 4, {2: REFUSED}, [1, 2]),
        ([0.0] * 4, {4: {"w": np.array([1.0, np.nan])}}, [1, 2, 4]),
        ([0.0] * 4, {1: {"w": np.array([np.inf])}}, [1]),
    ],
)
def test_no_larger_values_are_asked_for_after_a_refusal_or_a_long_call(
    seconds: list[float], answers: dict[int, Any], asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(factor: int) -> Any:
        return SimpleNamespace(arguments={"w": np.array([factor, 0])}, single=False, label="case 0")

    clock, called = [0.0], list[int]()

    def answer(submission: Any, subject: Any, case: Any) -> Any:
        called.append(case.arguments["w"][0])
        clock[0] += seconds[len(called) - 1]
        return answers.get(called[-1], {"w": np.ones(1)})

    monkeypatch.setattr(far_values, "ask_at", answer)
    monkeypatch.setattr(far_values, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    found: Any = SimpleNamespace(case=make(1), gradients=["w"])
    subject: Any = SimpleNamespace(draw_far_cases=lambda case: ((f, make(f)) for f in (2, 4, 8)))
    said = [*describe_overflow(Submission(len), subject, [found])]
    assert called == asked
    last = answers.get(asked[-1])
    assert bool(said) is isinstance(last, dict)
    assert all(f"At {asked[-1]} times the values of case 0" in each for each in said)


@pytest.mark.rest
def test_calls_that_take_longer_and_longer_end_the_search() -> None:
    asked = list[float]()

    def gradients(p: dict[str, Any]) -> dict[str, Any]:
        asked.append(np.abs(p["W"]).max() / np.abs(GIVEN["W"]).max())
        return in_steps(p)

    start = time.monotonic()
    assert not list_said(verify_own_model(gradients, shifted, GIVEN, cases=2))
    assert max(asked) < 2**12
    assert time.monotonic() - start < 20
