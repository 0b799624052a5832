"""Gradients that are rounded to decimals or whole numbers are named; those of formats are not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.judge import conclusion, path
from bptt_verifier.judge.rounded_gradients import SEVERAL, find_rounded, find_step
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.stated_cases import state_compared

rng = np.random.default_rng(5)
X, Y = 10 * rng.normal(size=(20, 3)), 10 * rng.normal(size=20)
PARAMS = {"w": np.array([1.0, -2.0, 3.0])}


def state(yours: Any, true: Any) -> Compared:
    allowed = {"w": np.full(np.shape(true), 1e-12)}
    return state_compared({"w": np.array(yours)}, {"w": np.array(true)}, allowed)


def lose(p: Any) -> Any:
    return np.sum((X @ p["w"] - Y) ** 2) / 40


def into_integers(p: Any) -> Any:
    g = np.zeros(3, int)
    for j in range(3):
        g[j] = (X @ p["w"] - Y) @ X[:, j] / 20
    return {"w": g}


ROUNDED = {
    "whole numbers": lambda p: {"w": X.T @ (X @ p["w"] - Y) // 20},
    "multiples of 0.001": lambda p: {"w": np.round(X.T @ (X @ p["w"] - Y) / 20, 3)},
}


@pytest.mark.rest
@pytest.mark.parametrize("said", ROUNDED)
def test_a_gradient_that_is_rounded_is_named(said: str) -> None:
    for gradients in [ROUNDED[said], into_integers][: 1 + (said == "whole numbers")]:
        report = verify_own_model(gradients, lose, PARAMS)
        assert report.verdict is Verdict.DISAGREES, str(report)
        assert [found.name for found in report.mistakes] == ["rounded-gradient"]
        assert f"all entries of ∂L/∂w are {said}" in report.mistakes[0].explanation


def test_whole_numbers_that_may_be_right_are_not_named_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (path, conclusion):
        monkeypatch.setattr(module, "list_doubts", lambda *given: ["They may be right."])
    report = verify_own_model(ROUNDED["whole numbers"], lose, PARAMS)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.mistakes == ()


@pytest.mark.slow
def test_whole_numbers_that_another_mistake_explains_are_not_named_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = list[Any]()

    def record(compared: Any) -> Any:
        named.append(find_rounded(compared))
        return named[-1]

    monkeypatch.setattr(path, "find_rounded", record)
    own = np.random.default_rng(3)
    counts = np.floor(np.exp(own.uniform(0, 6, size=(30, 16))))
    counts[:, :8] = own.integers(0, 2, size=(30, 8))
    signs, params = own.choice([-1, 1], 30), {"w": 0.5 * own.normal(size=16)}

    def penalise(p: Any) -> Any:
        return np.sum(np.maximum(1 - signs * (counts @ p["w"]), 0)) + 0.02 * np.sum(np.abs(p["w"]))

    def without_penalty(p: Any) -> Any:
        below = signs * (counts @ p["w"]) < 1
        return {"w": -(counts.T @ (signs * below)).astype(float)}

    report = verify_own_model(without_penalty, penalise, params)
    assert report.verdict is Verdict.DISAGREES
    assert [found.name for found in report.mistakes] == ["zero-gradient"]
    assert [each.name for each in named] == ["rounded-gradient"]


@given(st.integers(0, 2**32), st.integers(-2, 6), st.sampled_from(["trunc", "floor", "rint"]))
def test_the_step_is_the_largest_power_of_ten(seed: int, decimals: int, way: str) -> None:
    true = 10.0 ** -max(0, decimals) * np.random.default_rng(seed).uniform(8, 128, 3 * SEVERAL)
    step = 10.0 ** -max(0, decimals)
    rounded = getattr(np, way)(true / step) / round(1 / step)
    assert find_step([state(rounded, true)], "w") == step
    halves = np.array_split(np.arange(true.size), 2)
    assert find_step([state(rounded[part], true[part]) for part in halves], "w") == step
    assert find_rounded([state(true * (1 + 1e-12), true)]) is None


@given(st.integers(0, 2**32), st.floats(-4, 5), st.sampled_from([np.float32, np.float16]))
def test_the_numbers_of_a_format_are_not_rounded(seed: int, size: float, dtype: Any) -> None:
    drawn = np.random.default_rng(seed).normal(size=200)
    with np.errstate(over="ignore", invalid="ignore"):
        true = drawn * 10.0**size
        assert find_step([state(true.astype(dtype).astype(np.float64), true)], "w") is None


@pytest.mark.parametrize(
    ("yours", "true"),
    [
        (np.arange(10.0, 40.0), np.arange(10.0, 40.0)),  # counts are whole
        (np.arange(10.0, 40.0), np.arange(10.0, 40.0) + 1e-9),
        (np.arange(10.0, 40.0), np.arange(10.0, 40.0) * 1.5 + 0.3),  # another mistake
        (np.zeros(40), np.full(40, 0.3)),
        (np.arange(10.0, 10.0 + SEVERAL - 1), np.arange(10.0, 10.0 + SEVERAL - 1) + 0.4),  # few
        (np.full(40, np.nan), np.full(40, 0.3)),
        (np.full(40, 10.0), np.full(40, np.inf)),
        (np.arange(600.0, 640.0), np.arange(600.0, 640.0) + 0.4),  # float16 has no others
    ],
)
def test_what_is_not_the_derivative_rounded_is_not_named(yours: Any, true: Any) -> None:
    assert find_rounded([state(yours, true)]) is None


def test_a_gradient_that_is_not_returned_is_not_rounded() -> None:
    assert find_step([], "w") is None
    assert find_step([state([10.0], [10.3])], "other") is None
