"""What every subject has, and what was compared at a case, without a model."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.subject import Compared, Subject, find_dtype
from bptt_verifier.reference.case import Case
from bptt_verifier.tolerance.comparison import Verdict

AGREES, DISAGREES, INCONCLUSIVE = Verdict.AGREES, Verdict.DISAGREES, Verdict.INCONCLUSIVE


def case_of(**arguments: Any) -> Case:
    found: Any = SimpleNamespace(arguments=arguments)
    return found


def compared(*verdicts: Verdict, arguments: Any = None, **submitted: Any) -> Compared:
    """What was compared, with these verdicts on single results."""
    comparisons: Any = [SimpleNamespace(verdict=each) for each in verdicts]
    true = {name: value + 1 for name, value in submitted.items()}
    allowed = {name: value + 2 for name, value in submitted.items()}
    return Compared(case_of(**(arguments or {})), submitted, {}, true, allowed, comparisons)


@pytest.mark.parametrize(
    ("verdicts", "fails", "agrees"),
    [
        ((AGREES, AGREES), False, True),
        ((AGREES, INCONCLUSIVE), False, False),
        ((AGREES, DISAGREES), True, False),
        ((INCONCLUSIVE, INCONCLUSIVE), False, False),
    ],
)
def test_one_wrong_gradient_fails_and_all_of_them_agree(
    verdicts: Any, fails: bool, agrees: bool
) -> None:
    found = compared(*verdicts)
    assert found.fails is fails
    assert found.agrees is agrees


def test_results_of_the_forward_pass_are_gradients_where_a_parameter_is_called_so() -> None:
    assert compared(loss=1, prediction=2, W=3).gradients == ["W"]
    assert compared(loss=1, prediction=2, arguments={"loss": 0}).gradients == ["loss"]


def test_a_witness_has_the_gradients_of_some_names() -> None:
    found = compared(DISAGREES, W=1, U=5).witness("here", ["U"])
    assert tuple(found) == ("here", {"U": 5}, {"U": 6}, {"U": 7}, True)
    assert not compared(AGREES, W=1).witness("here", "W")[-1]


def test_a_subject_has_no_further_cases_notes_or_words_by_itself() -> None:
    plain: Any = type("Plain", (Subject,), {})
    plain.__abstractmethods__ = frozenset()
    subject = plain()
    case = case_of()
    assert (subject.notes, subject.refusal, subject.doubt, subject.zeros) == ((), None, None, set())
    assert subject.raised is subject.has_vanishing_steps is False
    assert subject.is_extreme(case) is subject.draws_zeros(case) is False
    for none in (
        subject.scale_values(case, [2.0]), subject.draw_probes(), subject.draw_extreme_cases(),
        subject.describe_unseen([]), subject.describe_failing([]), subject.chart_steps([]),
    ):  # fmt: skip
        assert none == ()
    assert subject.find_largest_sizes([]) == {}
    assert subject.widen(case) is subject.contradict(0, case) is None
    assert subject.name_model_of_loss(case, 1.0) == subject.write_case(compared()) == ""
    assert subject.find_iterated(case) == frozenset()
    assert [*subject.find_limits(case)] == []
    assert subject.differentiate_traced(case) == {}
    assert subject.doubt_far([]) == []
    assert subject.follow_loss(None, case, {}) is None
    assert subject.describe_iteration(case) == subject.describe_guard(case) == ""
    assert subject.differentiate_unguarded(case) == []
    computed = subject.choose_for_exact_values([])
    assert isinstance(computed, Iterator)
    assert [*computed] == []


def test_a_result_is_judged_in_the_coarser_dtype_of_it_and_of_its_argument() -> None:
    double, single, half = (np.ones(2, each) for each in (np.float64, np.float32, np.float16))

    def find(name: str, submitted: Any, precision: Any = None, **arguments: Any) -> Any:
        return find_dtype(name, submitted, case_of(**arguments), precision)

    assert find("W", {"W": double, "U": half}, W=single, U=half) == np.float32
    assert find("W", {"W": single}, W=double) == np.float32
    assert find("prediction", {"prediction": double}, W=double, U=single) == np.float32
    assert find("prediction", {"prediction": double, "W": half}, W=double) == np.float64
    assert find("loss", {"loss": double, "U": half}, W=single) == np.float16
    assert find("loss", {"loss": double}, W=single) == np.float32
    assert find("loss", {"loss": double, "U": half}, loss=single, W=half) == np.float32
    for name in ("loss", "W"):
        assert find(name, {name: double}, np.dtype(np.float16), W=single) == np.float16


def test_a_loss_is_as_coarse_as_all_gradients_and_not_as_a_rounded_prediction() -> None:
    double, half, zero = np.ones(2), np.ones(2, np.float16), np.zeros(2)
    case = case_of(W=double, U=double)
    formats: list[tuple[dict[str, Any], Any]] = [
        ({"W": half, "U": half}, np.float16),
        ({"W": half, "U": zero}, np.float16),  # zeros have no digits
        ({"W": half, "U": double}, np.float64),
        ({"W": half, "U": np.array([0.0, 1.0])}, np.float64),  # other entries have some
        ({"W": zero, "U": zero}, np.float64),
        ({"W": double, "U": double, "prediction": half}, np.float64),
        ({"prediction": half}, np.float64),
    ]
    for others, expected in formats:
        assert find_dtype("loss", {"loss": double, **others}, case) == expected
        assert find_dtype("loss", {"loss": half, **others}, case) == np.float16
