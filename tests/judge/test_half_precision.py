"""Results in half precision are held to their own rounding, at all sizes and extreme values."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import half_precision
from bptt_verifier.judge.half_precision import (
    Limits,
    allow_one_rounding,
    are_rounded_once,
    choose_extreme,
    decide_by_scatter,
    doubt_format,
    find_new_difference,
    find_rounding,
    has_few_terms,
    has_pulses,
    hold_to_one_rounding,
    is_far_from_underflow,
    is_rounded_once,
    measure_excess,
)
from bptt_verifier.judge.path import judge
from bptt_verifier.judge.subject import Compared
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.reference.case import Case, Truth
from bptt_verifier.tolerance.comparison import Verdict, compare
from bptt_verifier.tolerance.scatter import FAR, IN_HALF
from tests.support.squares import Squares, case_at
from tests.support.stated_cases import (
    state_case,
    state_compared,
    state_subject,
    subject_with_neighbours,
)

UNIT, LEAST = 2.0**-11, 2.0**-24
FINE = 2.0**-24


def half(error: Any, value: float = 1.0, fine: float = FINE, allowed: float = 1.0) -> Compared:
    """A result in float16 with this error, where float32 allows `fine`."""
    error = np.asarray(error)
    true, limits = {"w": np.full(error.shape, value)}, {"w": np.full(error.shape, allowed)}
    found = state_compared({"w": true["w"] + error}, true, limits, np.float16)
    by_single = Truth(true, {"w": np.full(error.shape, fine)})

    def truth(dtype: Any, names: Any) -> Truth:
        assert dtype is np.float32
        assert names == ["w"]
        return by_single

    return found._replace(case=found.case._replace(truth=truth))


# What one rounding makes.


def test_one_rounding_errs_by_half_a_unit_of_the_largest_result_that_float32_may_have() -> None:
    fine, rounding = allow_one_rounding(half([0.0, 0.0], value=3.0, fine=0.5))["w"]
    assert fine.tolist() == [0.5, 0.5]
    assert rounding.tolist() == [UNIT * 3.5 + LEAST] * 2
    assert allow_one_rounding(half([0.0], value=-3.0))["w"][1] > 0


def test_nothing_is_held_to_it_in_other_formats_or_without_a_reference() -> None:
    assert allow_one_rounding(half([0.0])._replace(dtypes={"w": np.dtype(np.float32)})) == {}
    found = half([0.0])
    assert allow_one_rounding(found._replace(case=found.case._replace(truth=None))) == {}


def limits_of(*pairs: tuple[float, float]) -> Limits:
    fine, rounding = np.array(pairs).T
    return fine, rounding


@pytest.mark.parametrize(
    ("errors", "limits", "shown"),
    [
        ([1.25, -1.25], [(0.25, 1.0), (0.25, 1.0)], True),
        ([1.0, -1.26], [(0.25, 1.0), (0.25, 1.0)], False),
        ([9.0, 1.5], [(0.51, 1.0), (0.5, 1.0)], True),  # float32 itself allows too much at one
        ([9.0], [(0.51, 1.0)], None),
    ],
)
def test_a_result_is_rounded_once_if_no_error_that_can_show_it_is_larger(
    errors: list[float], limits: list[tuple[float, float]], shown: bool | None
) -> None:
    assert is_rounded_once(half(errors), "w", limits_of(*limits)) is shown


@pytest.mark.parametrize(
    ("once", "other", "unclear", "rounded"),
    [
        (8, 8, 0, True), (8, 0, 0, True), (7, 0, 30, None), (4, 3, 0, None), (8, 9, 0, False),
        (0, 8, 9, False), (9, 8, 30, True), (0, 0, 30, None),
    ],
)  # fmt: skip
def test_half_of_the_cases_show_it_of_eight_at_least(
    once: int, other: int, unclear: int, rounded: bool | None
) -> None:
    found = [half([0.0])] * once + [half([1.0])] * other + [half([0.0], fine=1.0)] * unclear
    limits = [allow_one_rounding(each) for each in found]
    assert are_rounded_once("w", [*found, half([1.0])], [*limits, {}]) is rounded


@pytest.mark.parametrize(
    ("of_v", "of_b", "of_loss", "names"),
    [
        (0.0, 0.0, 0.0, ["w", "v", "b", "loss"]), (0.1, 0.0, 0.0, ["loss"]),
        (0.0, None, 0.1, ["w", "v"]), (0.1, None, 0.1, []),
    ],
)  # fmt: skip
def test_all_gradients_are_rounded_once_or_none_is_and_the_loss_by_itself(
    of_v: float, of_b: float | None, of_loss: float, names: list[str]
) -> None:
    errors = {"w": 0.0, "v": of_v, "b": of_b or 0.0, "loss": of_loss}
    true = {name: np.ones(1) for name in errors}
    found = state_compared(
        {n: 1 + np.array([e]) for n, e in errors.items()}, true, true, np.float16
    )
    fine = {name: np.full(1, 1.0 if name == "b" and of_b is None else FINE) for name in errors}
    found = found._replace(case=state_case(true, fine))
    assert [*found.gradients] == ["w", "v", "b"]
    assert list(find_rounding([found] * 8).once) == names


# What is held to it.


class Weighed:
    """The cases and names whose scatter is asked for; by it, what errs by 1/2 is wrong."""

    def __init__(self) -> None:
        self.asked = list[Any]()
        self.mean: float | None = None  # of the errors at the neighbours; that at the case if None
        self.limit = 0.2
        self.followed = 1.0  # times the error, at entries that follow the true ones

    def weigh(
        self,
        attempt: Any,
        subject: Any,
        found: Compared,
        names: Any,
        entries: int,
        decisive: bool,
        of_half: float = IN_HALF,
    ) -> Compared:
        assert (attempt, subject, decisive) == ("attempt", "subject", True)
        self.asked.append((found, names, entries, of_half))
        errors = found.submitted["w"] - found.values["w"]
        mean = np.abs(errors if self.mean is None else np.full_like(errors, self.mean))
        limit = np.full_like(errors, self.limit)
        again = compare("w", found.submitted["w"], found.values["w"], limit, mean)
        return found._replace(comparisons=[again], allowed={"w": limit})

    def measure(self, attempt: Any, subject: Any, found: Compared, names: Any) -> dict[str, float]:
        assert (attempt, subject) == ("attempt", "subject")
        return dict.fromkeys(names, self.followed * found.comparisons[0].error)


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch) -> Weighed:
    weighed = Weighed()
    monkeypatch.setattr(half_precision, "measure_excess", weighed.measure)
    monkeypatch.setattr(half_precision, "weigh", weighed.weigh)
    return weighed


def hold_and_doubt(found: list[Compared], extreme: Any = ()) -> tuple[list[Compared], list[str]]:
    attempt: Any = "attempt"
    subject: Any = "subject"
    held, rounding = hold_to_one_rounding(found)
    return decide_by_scatter(attempt, subject, held, rounding, [each.case for each in extreme])


def hold(found: list[Compared], extreme: Any = ()) -> list[Compared]:
    held, doubts = hold_and_doubt(found, extreme)
    assert not doubts
    return held


def test_all_cases_are_held_to_eight_roundings_where_most_show_one(weighed: Weighed) -> None:
    limit = FINE + 8 * (UNIT * (1 + FINE) + LEAST)
    near = half([limit])
    found = hold([half([0.0])] * 9 + [near, half([0.0], allowed=2.0**-20)])
    assert not weighed.asked
    assert [float(each.allowed["w"][0]) for each in found] == [limit] * 10 + [2.0**-20]
    assert found[9].comparisons[0].error == 1


def test_beyond_eight_roundings_the_scatter_decides(weighed: Weighed) -> None:
    small, large, other = half([0.01]), half([0.5]), half([-0.5])
    found = hold([half([0.0])] * 9 + [small, large, other])
    assert [each[:2] for each in weighed.asked] == [(small, ["w"]), (large, ["w"])]
    assert {each[2:] for each in weighed.asked} == {(12, FAR)}
    assert [each.fails for each in found] == [False] * 10 + [True, False]  # one case is enough


def test_one_entry_beyond_them_is_enough(weighed: Weighed) -> None:
    found = [half([0.0, 0.0])] * 9 + [half([0.0, 0.5])]
    assert hold(found)[9].fails
    assert [each.allowed["w"].tolist() for each, *_ in weighed.asked] == [
        [1.0, 1.0]
    ]  # not held to less


def test_what_is_wrong_already_is_not_asked_for(weighed: Weighed) -> None:
    found = [half([0.0])] * 9 + [half([0.7]), half([2.0])]
    assert [each.fails for each in hold(found, found)] == [False] * 10 + [True]
    assert not weighed.asked


def test_of_what_is_rounded_inside_the_scatter_decides_at_extreme_cases(
    weighed: Weighed,
) -> None:
    extreme, within = half([0.7]), half([0.0])
    found = [half([0.1]) for _ in range(9)] + [extreme, within]
    assert [each.fails for each in hold(found, [extreme, within])] == [False] * 9 + [True, False]
    assert [(each, distance) for each, *_, distance in weighed.asked] == [(extreme, IN_HALF)]
    weighed.asked.clear()
    hold(found, [within])
    assert [each for each, *_ in weighed.asked] == [within]


@pytest.mark.parametrize(
    ("largest", "infinite", "far"),
    [(24 * 2.0**-15, False, True), (23.9 * 2.0**-15, False, False), (1.0, True, False)],
)
def test_a_result_of_a_cell_is_far_from_what_all_its_terms_may_lose(
    largest: float, infinite: bool, far: bool
) -> None:
    problem = with_values(
        np.random.default_rng(0), Sizes(T=2, B=3, D=5, H=4, O=7), cell="rnn", option="tanh"
    )
    found = half([0.0, np.inf if infinite else 0.0], value=largest)
    found.values["w"][1] = 0.0
    found = found._replace(case=found.case._replace(point=problem))
    assert is_far_from_underflow("w", found) is far


def test_tiny_results_are_not_asked_for(weighed: Weighed) -> None:
    tiny = half([0.0], value=2.0**-5)
    found = [half([0.1]) for _ in range(9)] + [tiny]
    hold(found, [tiny])
    assert not weighed.asked
    hold([*found, large := half([0.0], value=2.0**-4)], [large])
    assert [each for each, *_ in weighed.asked] == [large]


def test_extreme_cases_are_those_of_scaled_values_and_in_float64_those_behind_the_others() -> None:
    wide, single = ({"w": np.ones(2, dtype)} for dtype in (np.float64, np.float32))
    kinds = ("plain", wide), ("plain", single), ("scaled", wide), ("scaled", single)
    compared = [half([0.0])._replace(case=Case(*kind, i, None)) for i, kind in enumerate(kinds)]
    subject: Any = SimpleNamespace(is_extreme=lambda case: case.label == "scaled")
    chosen = [choose_extreme(subject, compared, number) for number in (0, 1, 4)]
    assert [[case.point for case in each] for each in chosen] == [[0, 2], [2], [2, 3]]


def test_what_is_rounded_inside_and_errs_at_the_case_alone_is_open(weighed: Weighed) -> None:
    weighed.mean, weighed.limit = 0.1, 0.1
    for error, said in ((0.1 * 17**0.5, 0), (0.1001 * 17**0.5, 1)):
        extreme = [half([0.0, error]), half([0.0, 0.0])]
        found, doubts = hold_and_doubt([half([0.1, 0.1]) for _ in range(9)] + extreme, extreme)
        assert not any(each.fails for each in found)
        assert len(doubts) == said
    assert "explains with a case, and at these they are within it" in doubts[0]
    weighed.mean = 0.3  # a mistake, of which that is not said
    found, doubts = hold_and_doubt([half([0.1]) for _ in range(9)] + [half([0.9])], extreme)
    assert not doubts


def test_an_error_at_the_case_that_no_neighbour_has_is_a_mistake(weighed: Weighed) -> None:
    weighed.mean, weighed.limit = 0.0, 0.1
    for error, wrong in ((0.1 * 17**0.5, False), (0.1001 * 17**0.5, True)):
        found = hold([half([0.0, 0.0])] * 9 + [half([0.0, error])])[9]
        assert found.fails is wrong
        if wrong:
            limit = FINE + 8 * (UNIT * (1 + FINE) + LEAST)
            assert found.allowed["w"].tolist() == [limit, limit]
            assert found.comparisons[0].error == pytest.approx(error / limit)
    (*_, tight) = hold([half([0.0])] * 9 + [half([0.5], allowed=2.0**-12)])
    assert tight.allowed["w"].tolist() == [2.0**-12]  # it failed before, and was not asked for


@pytest.mark.parametrize("sided", [True, False])
def test_what_is_rounded_inside_is_no_mistake_if_it_is_beyond_by_little_and_to_one_side(
    weighed: Weighed, sided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_precision, "errs_to_one_side", lambda name, compared: sided)
    weighed.limit = 0.125
    extreme = [half([error]) for error in (0.125, 0.25, 0.375)]
    found, doubts = hold_and_doubt([half([0.1]) for _ in range(9)] + extreme, extreme)
    if not sided:
        assert [each.fails for each in found] == [False] * 10 + [True, False]  # one is enough
        assert not doubts
        return
    assert [each.fails for each in found] == [False] * 11 + [True]
    assert [each.allowed["w"].tolist() for each in found[9:]] == [[0.125], [1.0], [0.125]]
    assert len(doubts) == 1
    assert doubts[0].startswith("In half precision, errors of w are beyond what their scatter")
    assert "with a case, by less than 3 times" in doubts[0]


def test_entries_that_do_not_follow_the_true_ones_are_no_mistake(weighed: Weighed) -> None:
    weighed.followed = 0.0
    lost = half([0.9])
    found = hold([half([0.1]) for _ in range(9)] + [lost], [lost])
    assert [each.fails for each in found] == [False] * 10
    assert found[9].allowed["w"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("kept", "moved", "times"),
    [(0.04, 1.0, 4.0), (0.04, 0.6, 4.0), (0.04, 0.4, 0.0), (-0.01, 1.0, 1.0)],
)
def test_errors_count_at_entries_that_move_as_the_true_ones_do(
    kept: float, moved: float, times: float
) -> None:
    def attempt(case: Case) -> Compared:
        k, distance = case.point
        assert distance == IN_HALF
        true = np.array([1.0, 1.0]) + (-1) ** k * np.array([0.1, 0.0])
        yours = true + kept - (1 - moved) * (true - 1)
        return state_compared({"w": yours}, {"w": true}, {"w": [0.01, 0.01]}, np.float16)

    found = state_compared({"w": [1.0, 1.0]}, {"w": [1.0, 1.0]}, {"w": [0.01, 0.01]}, np.float16)
    measured = measure_excess(attempt, subject_with_neighbours(), found, ["w"])
    assert measured == {"w": pytest.approx(times)}
    assert measure_excess(attempt, subject_with_neighbours(), found, []) == {}


@pytest.mark.parametrize(
    ("name", "sizes", "inside", "few"),
    [
        ("loss", (1, 64, 8), False, True), ("loss", (1, 57, 9), False, False),
        ("loss", (600, 1, 1), True, True), ("w", (64, 8, 1), True, True),
        ("w", (57, 9, 1), True, False), ("w", (57, 9, 1), False, True),
    ],
)  # fmt: skip
def test_sums_of_more_than_512_terms_are_not_asked_for(
    name: str, sizes: tuple[int, int, int], inside: bool, few: bool
) -> None:
    T, B, O = sizes
    rng = np.random.default_rng(0)
    problem = with_values(rng, Sizes(T=T, B=B, D=1, H=1, O=O), cell="rnn", option="tanh")
    found = half([0.0])
    assert has_few_terms(name, found, inside=inside)
    found = found._replace(case=found.case._replace(point=problem))
    assert has_few_terms(name, found, inside=inside) is few


def test_a_sum_of_many_terms_that_is_rounded_inside_decides_nothing(weighed: Weighed) -> None:
    rng = np.random.default_rng(0)
    problem = with_values(rng, Sizes(T=57, B=9, D=1, H=1, O=1), cell="rnn", option="tanh")
    large = half([0.9])
    large = large._replace(case=large.case._replace(point=problem))
    assert not hold([half([0.1]) for _ in range(9)] + [large], [large])[9].fails
    assert not weighed.asked
    assert hold([half([0.0])] * 9 + [large], [large])[9].fails


@pytest.mark.parametrize(("zeros", "pulses"), [(6, False), (7, True), (11, True), (12, False)])
def test_pulses_are_a_few_inputs_beside_zeros(zeros: int, pulses: bool, weighed: Weighed) -> None:
    rng = np.random.default_rng(0)
    problem = with_values(rng, Sizes(T=2, B=2, D=3, H=1, O=1), cell="rnn", option="tanh")
    problem.x.reshape(-1)[:zeros] = 0
    found = half([0.9])
    assert not has_pulses(found)
    found = found._replace(case=found.case._replace(point=problem))
    assert has_pulses(found) is pulses
    assert hold([half([0.1]) for _ in range(9)] + [found], [found])[9].fails is not pulses


# The loss and the prediction.


def test_a_loss_that_its_own_rounding_shows_to_be_wrong_is_another_one() -> None:
    true, limits = {"w": np.ones(2), "loss": 1.0}, {"w": np.ones(2), "loss": 1.0}
    right = state_compared({"w": [1.0, 1.0], "loss": 1.5}, true, limits)
    wrong = state_compared({"w": [1.0, 1.0], "loss": 1.5}, true, limits | {"loss": 0.1})
    subject = state_subject(state_case(true, limits))
    found = find_new_difference(subject, [right, right], [right, wrong])
    assert found is not None
    assert found.name == "forward-differs"
    assert find_new_difference(subject, [wrong, right], [wrong, right]) is None


def in_half(case: Case) -> Case:
    """The case, with a bound of 1/16 in float16."""
    assert case.truth is not None
    known = case.truth

    def truth(dtype: Any, names: Any) -> Truth:
        found = known(dtype, names)
        if dtype != np.float16:
            return found
        return found._replace(
            allowed={n: np.full(v.shape, 0.0625) for n, v in found.values.items()}
        )

    return case._replace(truth=truth)


@pytest.mark.parametrize("wrong_at", [11, 12])
def test_a_loss_in_half_precision_that_is_wrong_at_one_case_disagrees(wrong_at: int) -> None:
    def gradients(w: Any) -> Any:
        wrong = 1.03 if w[0] == 1 + wrong_at / 64 else 1.0
        return {"w": w, "loss": np.float16(w[0] * w[1] * wrong)}

    cases = [in_half(case_at(1 + k / 64)) for k in range(12)]
    report = judge(gradients, Squares(cases), "")
    expected = Verdict.DISAGREES if wrong_at < 12 else Verdict.AGREES
    assert report.verdict is expected, str(report)
    assert [each.name for each in report.mistakes] == ["forward-differs"] * (wrong_at < 12)
    assert report.parameters["loss"].verdict is expected


# A format that errors alone tell.


@pytest.mark.parametrize(
    ("halves", "of_all", "said"),
    [(0, 1, True), (1, 1, False), (1, 2, False), (1, 3, True), (2, 4, False)],
)
def test_half_of_the_gradients_have_the_digits_of_the_format_that_errors_tell(
    halves: int, of_all: int, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = list[Any]()
    monkeypatch.setattr(half_precision, "are_parameters_rounded", lambda *given: rounded)
    exact = np.random.default_rng(0).normal(size=8)
    submitted = {
        f"w{k}": exact.astype(np.float16).astype(float) if k < halves else exact
        for k in range(of_all)
    }
    found = state_compared(submitted, submitted, dict.fromkeys(submitted, np.ones(8)))
    submission: Any = None
    of_all_cases = submission, submission, [found, found], np.float16
    doubts = [*doubt_format(*of_all_cases)]
    assert len(doubts) == said
    assert all("your results do not have its digits" in each for each in doubts)
    rounded.append("parameters")
    assert not [*doubt_format(*of_all_cases)]
