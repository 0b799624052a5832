"""The comparison with enclosures counts the whole interval, and leaves out what is undecided."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import certified
from bptt_verifier.judge.certified import (
    COMPILED,
    COMPILED_CELL_DERIVATIONS,
    SMALL,
    compare_exactly_within_bound,
    compare_exactly_within_measured_error,
    compare_with_enclosure,
    make_comparer,
    run_compiled_rnn,
)
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.proofs.enclosures import Undecided
from bptt_verifier.reference.autodiff import derive_bound, name_arrays, reference
from manual_bptt import rnn

SIZES = Sizes(2, 1, 1, 2, 1)


def test_the_farther_end_of_an_interval_counts() -> None:
    ends = np.array([1.0, 1.25]), np.array([1.0, 1.75])
    exact: Any = SimpleNamespace(
        nearest=np.array([1.0, 1.5]),
        farthest=lambda found: np.maximum(*(np.abs(found - end) for end in ends)),
    )
    found = compare_with_enclosure("b", np.array([1.0, 1.5]), exact, np.full(2, 0.125))
    assert (found.error, found.entry, found.reference) == (2.0, (1,), 1.5)


def test_results_that_are_there_are_compared_and_nothing_is_where_a_kink_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = with_values(np.random.default_rng(0), SIZES, option="relu", loss="half_sse")
    value, found = rnn.value_and_grad(
        problem.params, problem.x, problem.y, **problem.simple_options
    )
    results = {"loss": value} | found._asdict()
    allowed = {name: np.full(np.shape(result), 1e-12) for name, result in results.items()}
    compared = make_comparer(problem, allowed)(results)
    assert [each.name for each in compared] == ["loss", "U", "W", "V"]
    assert all(each.error < 1 for each in compared)

    def undecided(*_: Any, **__: Any) -> Any:
        raise Undecided

    monkeypatch.setattr(certified, "certify", undecided)
    assert make_comparer(problem, allowed)(results) == []


def test_exact_values_have_no_error_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = with_values(np.random.default_rng(0), SIZES, option="tanh")
    _, found = rnn.value_and_grad(problem.params, problem.x, problem.y)
    (compared,) = compare_exactly_within_bound(problem)({"W": found.W})
    both = name_arrays(derive_bound(problem, reference(problem)))["W"]  # two errors in float64
    # Equal but for the rounding of the bound itself, some hundred operations.
    np.testing.assert_allclose(2 * compared.allowed, both[compared.entry], rtol=1e-12)
    assert compared.error <= 1
    # The measured error is that of the derivation, too.
    measured = derive_bound(problem, reference(problem))
    monkeypatch.setattr(certified, "measure_reference", lambda problem: (None, measured))
    (compared,) = compare_exactly_within_measured_error(problem)({"W": found.W})
    assert compared.allowed == both[compared.entry]


@pytest.mark.parametrize("letter", COMPILED)
def test_the_compiled_rnn_runs_at_three_sizes_alone(letter: str) -> None:
    sizes = Sizes(T=2, B=2, D=3, H=3, O=1)._replace(**{letter: 1})
    assert run_compiled_rnn(with_values(np.random.default_rng(0), sizes)) == {}
    assert all(COMPILED[name] <= getattr(SMALL, name) for name in COMPILED)


@pytest.mark.parametrize(
    "options", [{"ragged": True}, {"truncation": 1}, {"outputs": "every"}], ids=str
)
@pytest.mark.parametrize("name", COMPILED_CELL_DERIVATIONS)
def test_a_compiled_cell_has_no_results_with_options_that_it_lacks(
    name: str, options: dict[str, Any]
) -> None:
    cell = name.partition(",")[0].lower()
    problem = with_values(np.random.default_rng(0), SIZES, cell=cell, **options)
    assert COMPILED_CELL_DERIVATIONS[name](problem) == {}
