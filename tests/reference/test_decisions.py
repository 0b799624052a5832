"""Exact values decide by the problems that are small, each gradient for itself."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.proofs import enclosures
from bptt_verifier.reference import exact_values
from bptt_verifier.reference.exact_values import (
    LARGEST_SIZE,
    Computed,
    decide,
    find_largest_deviation,
    is_available,
    run_correct_derivations,
)
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import rnn

DTYPE = np.float32


def drawn(seed: int, T: int = 2) -> Problem:
    return with_values(np.random.default_rng(seed), Sizes(T, 2, 1, 2, 1), option="tanh")


def computed(problem: Problem, factor: float = 1.0, **others: Any) -> Computed:
    """The derived gradients in float64, of which that for W is multiplied."""
    _, found = rnn.value_and_grad(problem.params, problem.x, problem.y)
    return Computed(problem, {"U": found.U, "W": factor * found.W} | others, DTYPE)


def test_the_worst_relative_error_of_each_gradient_is_kept() -> None:
    problems = [drawn(seed) for seed in range(3)]
    factors = [1.0, 1.001, 1.0]
    found = decide(map(computed, problems, factors), ["U", "W"])
    assert {name: decision.verdict for name, decision in found.items()} == {
        "U": Verdict.AGREES, "W": Verdict.AGREES,
    }  # fmt: skip
    assert found["U"].problems == found["W"].problems == 3
    assert found["W"].deviation == pytest.approx(0.001, rel=1e-6)
    assert found["U"].deviation < 1e-12


def test_one_problem_decides_against_and_a_gradient_that_is_not_there_is_undecided() -> None:
    found = decide([computed(drawn(0)), computed(drawn(1), 1.05)], ["W", "V"])
    assert found["W"].verdict is Verdict.DISAGREES
    assert found["W"].deviation == pytest.approx(0.05, rel=1e-6)
    assert (found["V"].verdict, found["V"].problems) == (Verdict.INCONCLUSIVE, 0)


def test_the_first_small_problems_alone_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    exact = exact_values.exact_values

    def noted(problem: Problem, names: tuple[str, ...]) -> Any:
        asked.append(problem.sizes.T)
        if problem.sizes.T == 3:
            raise enclosures.Undecided
        return exact(problem, names)

    monkeypatch.setattr(exact_values, "exact_values", noted)
    limit = LARGEST_SIZE // 4  # T B H = 4 T
    large, largest = drawn(0, limit + 1), drawn(0, limit)
    assert (computed(large).size, computed(largest).size) == (LARGEST_SIZE + 4, LARGEST_SIZE)
    monkeypatch.setattr(exact_values, "LARGEST_SIZE", 4 * 4)
    found = decide((computed(drawn(0, T)) for T in [5, 3, 4, *[2] * 7, 1]), ["W"])
    assert asked == [3, 4, *[2] * 6]  # eight, of which one is undecided
    assert found["W"].problems == 7


def test_the_correct_derivation_that_is_farthest_off_is_the_measure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = drawn(0)
    exact = computed(problem).submitted
    correct = [{"W": factor * exact["W"]} for factor in (1.0, 1.01, 1.0)]
    monkeypatch.setattr(exact_values, "run_correct_derivations", lambda *_: correct)
    found = decide([computed(problem, 1.05)], ["W"])
    assert found["W"].verdict is Verdict.INCONCLUSIVE


def test_values_that_are_no_numbers_are_infinitely_far() -> None:
    assert find_largest_deviation(np.array([1.0, -3.0]), np.array([1.0, 1.0])) == 4.0
    assert find_largest_deviation(np.array([np.nan]), np.ones(1)) == np.inf


def test_the_correct_derivations_of_an_rnn_are_three_in_the_stated_format() -> None:
    found = run_correct_derivations(drawn(0), np.float16)
    assert [each["W"].dtype for each in found] == [np.float16] * 3
    assert is_available()
