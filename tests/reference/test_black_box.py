"""A loss that cannot be traced: what differences say of it, and at which points."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference import black_box
from bptt_verifier.reference.black_box import (
    CASES,
    BlackBox,
    Chosen,
    choose_black_box,
    describe_differences,
    doubt_few_cases,
    find_zeros,
)
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.points import Point
from tests.support.stated_cases import state_case

W = np.linspace(0.5, 2.0, 100)
C = np.linspace(1.0, 3.0, 100)


def quadratic(p: Any) -> Any:
    return np.sum(C * p["w"] ** 2) / 2


def known(case: Case, dtype: Any = np.float64) -> Any:
    assert case.truth is not None
    return case.truth(dtype, ())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_allowed_error_is_that_of_differences_and_of_rounding_in_value_and_arguments(
    dtype: Any,
) -> None:
    """16 times the uncertainty, and 16 u times the largest entry and the condition: section 10."""
    box = BlackBox(quadratic, np.float64)
    case = box.make_case({"w": W}, Point(1), seed=3)
    true, u = C * W, float(np.finfo(dtype).eps) / 2
    values, allowed = known(case, dtype)
    assert np.all(np.abs(values["w"] - true) <= allowed["w"])
    rounding = (allowed["w"] - box.differentiate({"w": W}).errors["w"]) / (16 * u)
    # The gradient changes by r of itself where its parameter does, |r| ≤ 1 the larger of two.
    change = (rounding - true.max()) / true
    if dtype == np.float32:  # which the error of the differences disturbs less
        assert (change > -0.01).all()
        assert (change < 1.01).all()
        assert np.mean(change) == pytest.approx(2 / 3, abs=0.1)
    else:
        assert (change > -1).all()
    # For the loss, the sum of the sizes of its parts.
    size = quadratic({"w": W}) + np.sum(true * W)
    assert values["loss"] == pytest.approx(quadratic({"w": W}))
    assert allowed["loss"] == pytest.approx(16 * 16 * u * size)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_another_library_s_gradient_is_taken_in_float64_with_its_rounding_error(dtype: Any) -> None:
    """16 units of float64 of the largest entry of each gradient: section 10."""
    asked = list[Any]()

    def gradient(p: Any) -> Any:
        asked.extend(value.dtype for value in p.values())
        return 7.0, {"w": C * p["w"], "b": np.zeros(2)}

    box = BlackBox(quadratic, np.float64, gradient)
    found = box.differentiate({"w": W.astype(dtype), "b": np.ones(2)})
    assert asked == [np.float64] * 2
    assert found.loss == 7.0
    assert np.array_equal(found.values["w"], C * W.astype(dtype))
    expected = np.full(100, 16 * 2.0**-53 * found.values["w"].max())
    np.testing.assert_allclose(found.errors["w"], expected, rtol=1e-12)
    assert found.errors["b"].tolist() == [0.0, 0.0]


def test_a_gradient_takes_the_time_of_the_differences_of_one_number_whatever_the_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(quadratic)
    monkeypatch.setattr(black_box, "time", clock)
    of_one = BlackBox(lambda p: clock({"w": W}), np.float64).estimate_time({"w": np.ones(1)})
    by_autodiff = BlackBox(clock, np.float64, lambda p: (0.0, {}))
    assert by_autodiff.estimate_time({"w": W}) == of_one


def test_a_parameter_called_loss_has_its_gradient_under_that_name() -> None:
    case = BlackBox(lambda p: 3 * p["loss"][0], np.float64).make_case(
        {"loss": np.ones(1)}, Point(0), seed=0
    )
    values, allowed = known(case)
    assert values["loss"] == pytest.approx([3.0])
    assert allowed["loss"].shape == (1,)


class Clock:
    """A loss that takes one second, and the clock that shows it."""

    def __init__(self, loss: Callable[[Any], Any], seconds: float = 1.0) -> None:
        self.loss, self.seconds, self.now = loss, seconds, 0.0

    def perf_counter(self) -> float:
        return self.now

    def __call__(self, p: Any) -> Any:
        self.now += self.seconds
        return self.loss(p)


def test_the_time_of_a_case_is_estimated_by_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(quadratic)
    monkeypatch.setattr(black_box, "time", clock)
    box = BlackBox(clock, np.float64)
    estimated = box.estimate_time({"w": W})
    assert clock.now == 1.0
    known(box.make_case({"w": W}, Point(0), seed=0))
    assert estimated == pytest.approx(clock.now - 1, rel=0.05)
    assert estimated < clock.now - 1  # which has the calls that show the noise, too


def choose(loss: Any, settings: Any, number: int) -> tuple[list[str], Chosen, list[Any]]:
    told = list[Any]()
    box, chosen = choose_black_box(loss, settings, 0, number, lambda *said: told.append(said))
    assert box.loss is loss
    return [case.label for case in chosen.cases], chosen, told


def one(p: Any) -> Any:
    return p["w"][0] ** 2 + 0 * p["b"][0]


ONE = {"w": np.array([0.75]), "b": np.zeros(1)}


def test_the_cases_are_the_parameters_given_and_draws_in_float64_anywhere_and_near() -> None:
    labels, chosen, told = choose(one, [ONE], 5)
    near = " near the parameters given"
    assert labels == ["case 0", "case 1", f"case 1{near}", "case 3", f"case 3{near}"]
    assert {case.arguments["w"].dtype.name for case in chosen.cases} == {"float64"}
    assert told == [(number, 5) for number in range(1, 6)]
    assert chosen.left_out == 0
    assert chosen.zeros == {"b"}


def test_settings_share_the_cases_evenly_and_have_one_each_at_least() -> None:
    labels, *_ = choose(one, [ONE, ONE], 5)
    assert ["setting 2" in label for label in labels] == [False] * 3 + [True] * 2
    assert len(choose(one, [ONE] * 3, 1)[0]) == 3


@pytest.mark.parametrize("by_autograd", [False, True])
def test_a_loss_that_has_a_gradient_is_asked_in_float64_alone(by_autograd: bool) -> None:
    seen = set[Any]()

    def noted(p: Any) -> Any:
        seen.add(p["w"].dtype)
        return one(p)

    gradient = lambda p: (float(one(p)), {"w": 2 * p["w"], "b": np.zeros(1)})  # noqa: E731
    box, chosen = choose_black_box(
        noted, [ONE], 0, 3, lambda *said: None, gradient if by_autograd else None
    )
    finest = np.dtype(np.longdouble)  # in which differences lose least
    assert seen == ({np.dtype(np.float64)} if by_autograd else {np.dtype(np.float64), finest})
    assert np.dtype(box.dtype) == (np.float64 if by_autograd else finest)
    assert len(chosen.cases) == 3


def test_the_number_of_cases_is_limited_by_the_time_of_the_slowest_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = {"w": np.full(100, 0.75), "b": np.zeros(1)}
    for settings, allows in [([ONE], CASES), ([ONE, wide], 2)]:
        clock = Clock(one, seconds=1 / 300)  # which makes ten seconds for a case of the wide one
        monkeypatch.setattr(black_box, "time", clock)
        assert len(choose(clock, settings, 100)[0]) == allows


def test_draws_at_which_differences_say_little_are_left_out() -> None:
    def rough_elsewhere(p: Any) -> Any:
        away = abs(p["w"][0] - 0.75) > 0.012
        return np.round(one(p), 1) if away else one(p)

    labels, chosen, _ = choose(rough_elsewhere, [ONE], 2)
    # Three draws for each case wanted, without those in float32: 1, 3 and 4, anywhere and near.
    assert labels == ["case 0"]
    assert chosen.left_out == 6


def test_a_loss_that_says_nothing_anywhere_has_no_cases_and_no_zeros() -> None:
    labels, chosen, _ = choose(lambda p: 0 * one(p), [ONE], 2)
    assert labels == []
    assert chosen.zeros == frozenset()


def test_a_gradient_is_zero_if_all_its_entries_are() -> None:
    values = {"a": np.zeros(2), "b": np.array([0.0, 1.0]), "c": np.ones(2)}
    case = state_case(values, values, values)
    assert find_zeros(case) == {"a"}


@pytest.mark.parametrize(("left_out", "raising"), [(0, 0), (3, 0), (1, 2), (0, 1)])
def test_what_was_left_out_and_is_zero_is_said(left_out: int, raising: int) -> None:
    box = BlackBox(one, np.float64)
    chosen = Chosen((), left_out, frozenset({"b"}), (Point(1),) * raising)
    first, *others = describe_differences(box, chosen, "It is text.")
    assert first.startswith("It is text. The reference is therefore central differences")
    assert " in float64, " in first
    said = [
        f"{count} {'draw was' if count == 1 else 'draws were'} left out, because {why} there."
        for count, why in (
            (left_out, "the reference is not accurate"),
            (raising, "the loss raises an exception"),
        )
        if count
    ]
    zero = "∂L/∂b is zero in all cases, and yours must be, too."
    assert others == [*said, zero]


def test_the_smallest_errors_that_could_have_been_seen_are_said_of_gradients_not_zero() -> None:
    cases = [
        state_case({"w": [value], "b": [0.0]}, {"w": [1e-6], "b": [1e-6]}, ONE)
        for value in (1e-3, 1.0, 1e-7)
    ]
    _, seen = describe_differences(BlackBox(one, np.float64), Chosen((*cases,), 0, frozenset()), "")
    assert seen == "The smallest relative errors that could have been seen: 1e-06 of ∂L/∂w."


@pytest.mark.parametrize(
    ("number", "asked", "said"),
    [(0, 24, "Only 0 cases"), (1, 24, "Only 1 case "), (2, 24, "Only 2 cases"), (3, 24, None),
     (1, 1, None), (1, 2, "Only 1 case ")],
)  # fmt: skip
def test_gradients_agree_by_three_cases_at_least(number: int, asked: int, said: str | None) -> None:
    chosen = Chosen((state_case(ONE, ONE, ONE),) * number, 0, frozenset())
    doubt = doubt_few_cases(chosen, asked)
    assert (doubt is None) is (said is None)
    assert doubt is None or doubt.startswith(f"{said}")


def test_the_condition_of_a_gradient_is_its_own_derivative() -> None:
    """The gradient 3 w² changes by 6 w² r where w changes by r of itself."""
    box, u = BlackBox(lambda p: np.sum(p["w"] ** 3), np.float64), 2.0**-24
    allowed = known(box.make_case({"w": W}, Point(1), seed=3), np.float32)[1]["w"]
    rounding = (allowed - box.differentiate({"w": W}).errors["w"]) / (16 * u)
    change = (rounding - (3 * W**2).max()) / (6 * W**2)
    assert np.mean(change) == pytest.approx(2 / 3, abs=0.1)


def test_every_draw_at_which_the_loss_raises_is_counted_once() -> None:
    raised = list[float]()

    def bounded(params: Any) -> float:
        if params["w"][0] <= 1:
            raised.append(params["w"][0])
            raise ValueError("not there")
        return float(np.sum(params["w"] ** 3))

    given = {"w": np.array([1.2, 2.0])}
    _, chosen = choose_black_box(bounded, [given], 0, 6, lambda done, total: None)
    assert len(chosen.raising) == len(raised) > 0
    assert chosen.left_out == 0
    assert len(chosen.cases) > 1
