"""One gradient rounded to float16, and returned in float64, is judged as if returned in float16."""

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from bptt_verifier.judge import path
from bptt_verifier.judge.comparisons import compare_at
from bptt_verifier.judge.neighbours import (
    find_format,
    find_formats_inside,
    has_format,
    have_one_spacing,
    is_rounded_to,
    list_rounded,
)
from bptt_verifier.judge.path import SubjectJudgement
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Submission
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.reference.case import Truth
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from bptt_verifier.tolerance.formats import find_unit
from tests.support.stated_cases import (
    state_case,
    state_compared,
    state_subject,
    subject_with_neighbours,
)

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
    assert is_rounded_to(found, "w") is rounded


def test_a_gradient_may_be_rounded_to_bfloat16() -> None:
    values, width = {"w": np.array([1 + 2.0**-7 + 2.0**-9, 3.0])}, {"w": np.full(2, 2.0**-7)}
    found = state_compared({"w": [1 + 2.0**-7, 3.0]}, values, {"w": np.full(2, 2.0**-50)})
    found = found._replace(case=state_case(values, width))
    assert is_rounded_to(found, "w", bfloat16)
    assert not is_rounded_to(found, "w")  # float16 has 10 digits, of which these fill 7
    finer = found._replace(submitted={"w": np.array([1 + 2.0**-7, 3 + 2.0**-8])})
    assert not is_rounded_to(finer, "w", bfloat16)


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
        ([1.0] * 16 + [-(2.0**-23)] * 4, False),  # there are none between this, 2⁻²⁴ and 0
        ([2.0**-20] * 10, True),  # of which four digits lack, where numbers are 2⁻²⁴ apart
        ([2.0**-20] * 9, False),
        ([0.0, 0.0], False),
        ([], False),
    ],
)
def test_multiples_of_one_number_are_not_rounded_to_half_precision(
    values: Any, spaced: bool
) -> None:
    half = np.array(values, np.float64).astype(np.float16).astype(np.float64)
    assert have_one_spacing(half, np.float16) is spaced


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_numbers_that_are_computed_in_a_coarser_format_are_those_of_it(dtype: Any) -> None:
    coarse = DRAWN.astype(dtype)
    assert find_format(coarse.astype(float)) is dtype
    assert has_format(coarse.astype(float))
    assert not has_format(np.rint(64 * coarse).astype(float))
    assert not has_format(DRAWN)
    assert find_format(DRAWN) is np.float64


def test_whole_numbers_in_the_place_of_others_are_judged_in_the_format_returned() -> None:
    counts = np.tile([1.0, 3.0, 5.0, 200.0, 1001.0], 4)
    values, width = {"w": counts + 2.0**-7}, {"w": np.full(20, 2.0)}
    found = state_compared({"w": counts}, values, {"w": np.full(20, 2.0**-50)})
    assert not is_rounded_to(found._replace(case=state_case(values, width)), "w")


NEAR = HALF + 2.0**-12  # rounds to it
VALUES = {"w": np.array([NEAR, HALF])}


def allow(dtype: Any, names: Any) -> Truth:
    return Truth(VALUES, {"w": np.full(2, float(np.finfo(dtype).eps))})


CASE = state_case(VALUES, VALUES, VALUES)._replace(truth=allow)
CASE_IN_ALL = state_case(VALUES, VALUES, VALUES)


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


def test_numbers_of_bfloat16_are_compared_in_it_and_stay_what_they_are() -> None:
    def brief(w: Any) -> Any:
        return {"w": np.array([1 + 2.0**-7, 2.0])}

    given: Any = {"rounded": ["w"]}
    found = compare_at(Submission(brief), state_subject(CASE_IN_ALL), CASE_IN_ALL, **given)
    assert isinstance(found, Compared)
    assert found.submitted["w"].dtype == np.float64
    assert found.dtypes["w"] == bfloat16


@pytest.mark.parametrize(
    ("inside", "returned", "judged"),
    [
        ({"w": np.float16}, "f8", np.float16), ({"w": bfloat16}, "f8", bfloat16),
        ({"w": bfloat16}, "f2", bfloat16), ({"w": np.float16}, "f2", np.float16),
        ({"v": np.float16}, "f8", np.float64),
    ],
)  # fmt: skip
def test_what_is_computed_inside_in_a_coarser_format_is_compared_in_that(
    inside: Any, returned: str, judged: Any
) -> None:
    def derive(w: Any) -> Any:
        return {"w": w.astype(returned)}

    found = compare_at(Submission(derive), state_subject(CASE_IN_ALL), CASE_IN_ALL, inside=inside)
    assert isinstance(found, Compared)
    assert found.dtypes["w"] == judged


def test_results_of_both_formats_of_half_precision_are_listed() -> None:
    true = {n: np.array([1 + 2.0**-7 + 2.0**-12, 3.0]) for n in ("brief", "half", "loss", "fine")}
    yours = {"brief": [1 + 2.0**-7, 3.0], "half": [1 + 2.0**-7 + 2.0**-10, 3.0]}
    yours |= {"loss": [1 + 2.0**-7, 3.0], "fine": [1 + 2.0**-7 + 2.0**-13, 3.0]}
    found = state_compared(yours, true, dict.fromkeys(true, np.full(2, 2.0**-50)))
    found = found._replace(case=state_case(true, dict.fromkeys(true, np.full(2, 2.0**-7))))
    assert list_rounded(found) == {"brief", "half", "loss"}
    right = state_compared(yours, yours, dict.fromkeys(true, np.full(2, 2.0**-50)))
    assert list_rounded(right._replace(case=found.case)) == set()  # within its bounds


@pytest.mark.parametrize(
    ("error", "jumps", "excused", "expected"),
    [
        (2.0**-10, True, True, np.float16), (2.0**-10, False, True, None),
        (2.0**-10, True, False, None), (2.0**-21, True, True, None),  # as in float32
        (2.0**-8, True, True, bfloat16), (2.0**-5, True, True, None),
    ],
)  # fmt: skip
def test_one_gradient_may_be_computed_in_half_precision_where_its_errors_jump(
    error: float, jumps: bool, excused: bool, expected: Any
) -> None:
    """Each format allows four of its units; at neighbours, errors are anew or what they were."""
    true = {"w": np.array([1.0, 1.5])}

    def truth(dtype: Any, names: Any) -> Truth:
        return Truth(true, {"w": np.full(2, 4 * find_unit(dtype))})

    def state(size: float, limit: float) -> Compared:
        found = state_compared({"w": true["w"] + size}, true, {"w": np.full(2, limit)})
        return found._replace(case=found.case._replace(truth=truth))

    def attempt(case: Any) -> Compared:
        number, distance = case.point
        moved = {"w": true["w"] * (1 + number * distance)}
        size = error * (-1) ** number if jumps else error
        return state_compared({"w": moved["w"] + size}, moved, {"w": np.full(2, 1.0)})

    before, after = state(error, 2.0**-40), state(error, 1.0 if excused else 2.0**-40)
    found = find_formats_inside(attempt, subject_with_neighbours(), before, after)
    assert found == ({} if expected is None else {"w": expected})


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
    monkeypatch.setattr(path, "moves_smoothly", lambda *given: False)
    judgement, found = begin()
    assert not judgement.learn_precision(found).fails
    assert judgement.precision is np.float16
    assert judgement.rounded == set()


def test_a_wrong_gradient_of_half_precision_is_not_learnt() -> None:
    judgement, _ = begin()
    wrong = state_compared({"w": [1.25, HALF]}, VALUES, {"w": np.full(2, 1e-16)})
    assert judgement.learn_precision(wrong._replace(case=CASE)).fails
    assert judgement.rounded == set()


COUNTS = np.random.default_rng(0).poisson(2000.0, size=(40, 3))
STEPS = np.arange(40.0) - 19.5


def judge_counts() -> Report:
    """Judge a Poisson regression whose derivative by the prediction is cut off to integers."""

    def predict(p: Any) -> Any:
        return p["rate"] + np.outer(STEPS, p["trend"])

    def loss(p: Any) -> Any:
        return np.sum(np.exp(predict(p)) - COUNTS * predict(p))

    def gradients(p: Any) -> Any:
        d = np.zeros_like(COUNTS)
        d[:] = np.exp(predict(p)) - COUNTS
        return {"rate": d.sum(axis=0), "trend": STEPS @ d}

    rate = np.log(np.array([1900.0, 2100.0, 2050.0]))
    return verify_own_model(gradients, loss, {"rate": rate, "trend": np.array([1e-3, -2e-3, 5e-4])})


ROWS = np.random.default_rng(1).normal(size=(30, 6))
LABELS = np.arange(30) % 2


def judge_labels(assign: Any) -> Report:
    """Judge a logistic regression whose derivative by the prediction is assigned so."""

    def loss(p: Any) -> Any:
        a = ROWS @ p["w"]
        return np.sum(np.log1p(np.exp(a)) - LABELS * a)

    def gradients(p: Any) -> Any:
        return {"w": assign(1 / (1 + np.exp(-ROWS @ p["w"])) - LABELS)}

    return verify_own_model(gradients, loss, {"w": np.linspace(-1, 1, 6)})


def multiply_in_float16(d: Any) -> Any:
    rows, d = (each.astype(np.float16).astype(np.float32) for each in (ROWS, d))
    return (rows.T @ d).astype(np.float64)


ASSIGNED = {
    "integers": (judge_counts, Verdict.INCONCLUSIVE),
    "decimals": (lambda: judge_labels(lambda d: ROWS.T @ np.round(d, 3)), Verdict.INCONCLUSIVE),
    "float16": (lambda: judge_labels(multiply_in_float16), Verdict.AGREES),
    "float64": (lambda: judge_labels(lambda d: ROWS.T @ d), Verdict.AGREES),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNED)
def test_errors_alone_do_not_say_that_half_precision_is_meant(name: str) -> None:
    judge, verdict = ASSIGNED[name]
    report = judge()
    assert report.verdict is verdict, str(report)
    begin = "Your errors are as large as those of half precision, but your results do not have it"
    doubted = [note for note in report.notes if note.startswith(begin)]
    assert bool(doubted) == (verdict is Verdict.INCONCLUSIVE)
