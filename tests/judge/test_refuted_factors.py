"""A constant factor is named unless another case would have shown it and lacks it."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify
from bptt_verifier.judge.conclusion import refute_factors
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import rnn
from tests.support.stated_cases import FACTOR, state_compared

ONES = {"a": np.ones(1), "b": np.ones(1)}


@pytest.mark.parametrize(
    ("right", "allowed", "refuted"),
    [(1.0, 0.001, True), (1.0, 0.009, True), (1.0, 0.011, False), (1.02, 0.001, False)],
)
def test_a_factor_is_refuted_by_cases_that_would_show_half_of_it(
    right: float, allowed: float, refuted: bool
) -> None:
    def at(value: float, allowed: float) -> Any:
        found = {"a": np.full(1, value), "b": np.ones(1)}
        return state_compared(
            found, {n: np.ones(1) for n in "ab"}, {n: np.full(1, allowed) for n in "ab"}
        )

    cases = [at(1.02, 0.001), at(right, allowed)]
    factor = FACTOR._replace(details=FACTOR.details | {"value": 1.02})
    cases[1] = cases[1]._replace(
        comparisons=[c._replace(resolution=allowed) for c in cases[1].comparisons]
    )
    (found,) = refute_factors([factor], cases)
    assert (found.name == "unknown") is refuted
    (of_other,) = refute_factors(
        [factor._replace(details=factor.details | {"gradients": ["c"]})], cases
    )
    assert of_other.name == "constant-factor"


def test_a_factor_is_refuted_by_a_case_that_lacks_it_in_all_of_its_gradients() -> None:
    def at(a: float, b: float, allowed: float = 0.001) -> Any:
        found = {"a": np.full(1, a), "b": np.full(1, b)}
        return state_compared(found, ONES, dict.fromkeys("ab", np.full(1, allowed)))

    change = 2.0**-6
    of_both = FACTOR._replace(
        details={"gradients": ["a", "b"], "factor": "1.016", "value": 1 + change}
    )
    wrong, right = at(1 + change, 1 + change), at(1.0, 1.0)
    (found,) = refute_factors([of_both], [wrong, right])
    assert " with a case, and right in 1 other: no known" in found.explanation
    for other in (at(1.0, 1 + change), at(1.0, 1.0, change / 2)):  # at half of it, none is seen
        (found,) = refute_factors([of_both], [wrong, other])
        assert found.name == "constant-factor"


@pytest.mark.parametrize(
    ("factor", "sizes", "refuted"),
    [
        ("B O", Sizes(T=1, B=1, D=1, H=1, O=1), False),
        ("B O", Sizes(T=1, B=1, D=1, H=1, O=2), True),
        ("T", Sizes(T=1, B=3, D=1, H=1, O=2), False),
        ("6", Sizes(T=1, B=1, D=1, H=1, O=1), True),
    ],
)
def test_a_factor_of_sizes_is_not_refuted_where_it_is_one(
    factor: str, sizes: Sizes, refuted: bool
) -> None:
    """As in a sum where the mean belongs, of one number."""
    cases = [
        state_compared({"a": np.full(1, found)}, ONES, {"a": np.full(1, 1e-9)})
        for found in (6.0, 1.0)
    ]
    problem = with_values(np.random.default_rng(0), sizes, option="tanh")
    cases[1] = cases[1]._replace(case=cases[1].case._replace(point=problem))
    stated = FACTOR._replace(details={"gradients": ["a"], "factor": factor, "value": 6.0})
    (found,) = refute_factors([stated], cases)
    assert (found.name == "unknown") is refuted


@pytest.mark.parametrize(("shape", "refuted"), [((1,), True), ((2,), False), ((), False)])
def test_a_factor_is_refuted_by_cases_of_the_shapes_that_have_it(
    shape: tuple[int, ...], refuted: bool
) -> None:
    """A size that it may be is another one with parameters of other shapes."""
    wrong, right = (
        state_compared({"a": np.full(1, found)}, ONES, {"a": np.full(1, 1e-9)})
        for found in (6.0, 1.0)
    )
    cases = [
        each._replace(case=each.case._replace(arguments={"a": np.ones(size)}))
        for each, size in ((wrong, 1), (right, shape))
    ]
    stated = FACTOR._replace(details=FACTOR.details | {"factor": "6, a size,", "value": 6.0})
    (found,) = refute_factors([stated], cases)
    assert (found.name == "unknown") is refuted


def test_a_factor_is_not_refuted_where_nothing_fails() -> None:
    right = state_compared({"a": np.ones(1)}, ONES, {"a": np.full(1, 1e-9)})
    assert refute_factors([FACTOR], [right]) == (FACTOR,)


def test_a_factor_in_single_steps_alone_is_refuted_by_all_cases() -> None:
    """Where it is one of some values that no other case has."""

    def gradients(params: Any, x: Any, y: Any) -> Any:
        found = rnn.value_and_grad(rnn.Params(*params), x, y)[1]
        return {"U": found.U * (1 + (np.abs(y).max() > 1.49)), "W": found.W, "V": found.V}

    report = verify(gradients, examples=1)
    assert report.verdict is Verdict.DISAGREES
    (mistake,) = report.mistakes
    assert mistake.name == "unknown"
    assert "every entry is 2 times what it should be with " in mistake.explanation


def test_a_factor_without_words_is_refuted_too() -> None:
    wrong, right = (
        state_compared({"a": np.full(1, found)}, ONES, {"a": np.full(1, 1e-9)})
        for found in (1.5, 1.0)
    )
    (found,) = refute_factors(
        [FACTOR._replace(details={"gradients": ["a"], "value": 1.5})], [wrong, right]
    )
    assert (found.name, found.details) == ("unknown", {"gradients": ["a"]})
