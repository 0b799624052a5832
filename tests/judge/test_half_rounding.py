"""One gradient rounded to float16, and returned in float64, is judged as if returned in float16."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import path
from bptt_verifier.judge.comparisons import compare_at
from bptt_verifier.judge.neighbours import have_one_spacing, is_rounded_to_half
from bptt_verifier.judge.path import SubjectJudgement
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Submission
from bptt_verifier.reference.case import Truth
from tests.support.stated_cases import state_case, state_compared, state_subject

HALF = 1 + 2.0**-10  # a number of float16


@pytest.mark.parametrize(
    ("submitted", "true", "rounded"),
    [
        ([HALF, HALF], [HALF + 2.0**-12, HALF], True),
        ([HALF, HALF], [HALF, HALF], False),  # nothing is lost
        ([HALF, HALF + 2.0**-12], [HALF + 2.0**-12, HALF], False),  # of a finer format
        ([1.0, 3.0], [1 + 2.0**-12, 3.0], False),  # too short to tell
        ([HALF, 1.25], [HALF + 2.0**-12, 1.0], False),  # wrong in float16, too
    ],
)
def test_a_gradient_is_rounded_to_half_precision_where_the_true_one_rounds_to_it(
    submitted: list[float], true: list[float], rounded: bool
) -> None:
    values, width = {"w": np.array(true)}, {"w": np.full(2, 2.0**-10)}
    found = state_compared({"w": submitted}, values, {"w": np.full(2, 2.0**-50)})
    found = found._replace(case=state_case(values, width))
    assert is_rounded_to_half(found, "w") is rounded


DRAWN = np.random.default_rng(2).normal(size=64)


@pytest.mark.parametrize(
    ("values", "spaced"),
    [
        (DRAWN, False),
        (1000 * DRAWN, False),  # whole numbers, where they are large
        (np.rint(64 * DRAWN), True),
        (np.rint(DRAWN * 2.0**10) / 2.0**10, True),
        ([0.5**-n for n in range(4)] * 4, True),  # of 1 and 2, 4 and 8 ten to seven digits lack
        ([HALF] * 9 + [2.0**-9] * 4 + [0.0], False),  # 9 digits lack in each of four: 36
        ([HALF] * 9 + [-(2.0**-10)] * 4 + [0.0], True),
        ([0.0, 0.0], False),
        ([], False),
    ],
)
def test_multiples_of_one_number_are_not_rounded_to_half_precision(
    values: Any, spaced: bool
) -> None:
    half = np.array(values, np.float64).astype(np.float16).astype(np.float64)
    assert have_one_spacing(half, np.float16) is spaced


def test_whole_numbers_in_the_place_of_others_are_judged_in_the_format_returned() -> None:
    counts = np.tile([1.0, 3.0, 5.0, 200.0, 1001.0], 4)
    values, width = {"w": counts + 2.0**-7}, {"w": np.full(20, 2.0)}
    found = state_compared({"w": counts}, values, {"w": np.full(20, 2.0**-50)})
    assert not is_rounded_to_half(found._replace(case=state_case(values, width)), "w")


NEAR = HALF + 2.0**-12  # rounds to it
VALUES = {"w": np.array([NEAR, HALF])}


def allow(dtype: Any, names: Any) -> Truth:
    return Truth(VALUES, {"w": np.full(2, float(np.finfo(dtype).eps))})


CASE = state_case(VALUES, VALUES, VALUES)._replace(truth=allow)


def rounded(w: Any) -> Any:
    return {"w": w.astype(np.float16).astype(w.dtype)}


@pytest.mark.parametrize(
    ("names", "gradients", "dtype"),
    [
        (["w"], rounded, np.float16),
        (["w"], lambda w: {"w": w}, np.float64),  # no numbers of float16
        (["v"], rounded, np.float64),
    ],
)
def test_numbers_of_half_precision_are_compared_in_it(
    names: list[str], gradients: Any, dtype: Any
) -> None:
    found = compare_at(Submission(gradients), state_subject(CASE), CASE, rounded=names)
    assert isinstance(found, Compared)
    assert found.submitted["w"].dtype == found.dtypes["w"] == dtype
    assert found.submitted["w"].tolist() == gradients(VALUES["w"])["w"].tolist()


def begin() -> tuple[SubjectJudgement, Compared]:
    """A judgement that has compared one case, and what it found there."""
    subject = state_subject(
        CASE, displace=lambda case, i, far: case, precision=None, format_given=None
    )
    judgement = SubjectJudgement(Submission(rounded), subject, "", lambda done, total: None)
    found = judgement.compare_at(CASE)
    assert isinstance(found, Compared)
    assert found.fails
    judgement.compared = [found]
    return judgement, found


def test_rounding_to_half_precision_is_learnt_and_cases_before_are_compared_again() -> None:
    judgement, found = begin()
    again = judgement.learn_precision(found)
    assert judgement.rounded == {"w"}
    assert judgement.confirmed == []
    for each in (again, *judgement.compared):
        assert each.dtypes["w"] == np.float16
        assert not each.fails


def test_no_gradient_is_rounded_alone_where_all_are_computed_in_a_coarser_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(path, "find_precision", lambda before, after: np.float16)
    monkeypatch.setattr(path, "follows_closely", lambda *given: False)
    judgement, found = begin()
    assert not judgement.learn_precision(found).fails
    assert judgement.precision is np.float16
    assert judgement.rounded == set()


def test_a_wrong_gradient_of_half_precision_is_not_learnt() -> None:
    judgement, _ = begin()
    wrong = state_compared({"w": [1.25, HALF]}, VALUES, {"w": np.full(2, 1e-16)})
    assert judgement.learn_precision(wrong._replace(case=CASE)).fails
    assert judgement.rounded == set()
