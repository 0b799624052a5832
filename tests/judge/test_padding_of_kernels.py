"""Padding of kernels: what nothing depends on, and gradients that it changes all the same."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_questions import find_leak, find_padding, rearrange_others
from tests.support.padded_kernels import COTANGENTS, POINTS, READ, Backward, ask, pull_back


def leak(number: float) -> Backward:
    """A kernel in which padding of x that is 7, or NaN for 0, adds so many times itself."""

    def backward(point: Any, d: Any) -> Any:
        found, padded = pull_back(point, d), point["x"][3, 0]
        changes = np.isnan(padded) if number == 0 else padded == 7
        return found | {"w": found["w"] + (number * padded if changes else 0)}

    return backward


@pytest.mark.parametrize(("number", "words"), [(0.0, "NaN"), (1.0, "other numbers")])
def test_padding_that_changes_a_gradient_leaks(number: float, words: str) -> None:
    found = find_leak(ask(leak(number)))
    assert found is not None
    assert found.name == "padding-leaks"
    assert found.explanation == (
        f"{words} in the padding of x, on which nothing depends, change the gradient for w."
    )
    assert found.details == {"gradients": ["w"], "argument": "x"}


@pytest.mark.parametrize("zeros", [1, 3])
def test_padding_leaks_into_gradients_that_are_zero_or_have_zeros(zeros: int) -> None:
    def exact(point: Any, d: Any) -> Any:
        found = pull_back(point, d)
        return found | {"w": np.where(np.arange(3) < zeros, 0, found["w"])}

    def backward(point: Any, d: Any) -> Any:
        found = exact(point, d)
        return found | {"w": found["w"] + 0 * point["x"][3]}

    found = find_leak(ask(backward, exact))
    assert found is not None
    assert found.details == {"gradients": ["w"], "argument": "x"}


def test_a_kernel_that_raises_at_nan_is_asked_with_other_numbers() -> None:
    def backward(point: Any, d: Any) -> Any:
        return None if np.isnan(point["x"]).any() else leak(1.0)(point, d)

    found = find_leak(ask(backward))
    assert found is not None
    assert found.explanation.startswith("other numbers in the padding of x")


def test_nan_in_its_own_place_is_no_leak() -> None:
    def backward(point: Any, d: Any) -> Any:
        found = pull_back(point, d)
        return found | {"x": np.where(np.isnan(point["x"]), np.nan, found["x"])}

    assert find_leak(ask(backward)) is None


def test_padding_that_changes_the_exact_gradient_is_none() -> None:
    def exact(point: Any, d: Any) -> Any:  # whose padding counts where it exceeds 5
        found = pull_back(point, d)
        return found | {"w": found["w"] + (0 if np.abs(point["x"][3, 0]) < 5 else point["x"][3, 0])}

    def other_rows(point: Any, d: Any) -> Any:
        found = pull_back(point, d)
        return found | {"x": found["x"] + READ[:, None] * (point["x"][3, 0] == 7)}

    assert find_leak(ask(exact, exact)) is None
    assert find_leak(ask(leak(1.0), exact)) is None
    assert find_leak(ask(leak(0.0), exact)) is None
    assert find_leak(ask(pull_back, other_rows)) is None
    assert find_leak(ask(exact, lambda point, d: {n: 0 * v for n, v in point.items()})) is None


def test_an_entry_that_counts_for_one_number_alone_is_no_padding() -> None:
    def exact(point: Any, d: Any) -> Any:  # whose last row counts below −5
        found = pull_back(point, d)
        return found | {"w": found["w"] + min(point["x"][3, 0] + 5, 0)}

    for number in (0.0, 1.0):
        assert find_leak(ask(leak(number))) is not None
        assert find_leak(ask(leak(number), exact)) is None


def test_nan_that_the_exact_gradient_has_as_well_is_no_leak() -> None:
    def masked(point: Any, d: Any) -> Any:  # where padding is multiplied by zero
        found = pull_back(point, d)
        return found | {"w": found["w"] + 0 * point["x"][3]}

    assert find_leak(ask(masked)) is not None
    assert find_leak(ask(masked, masked)) is None


def test_nan_that_the_stated_function_has_but_for_kept_zeros_is_no_leak() -> None:
    def at_nan(point: Any) -> bool:
        return bool(np.isnan(point["x"]).any())

    assert find_leak(ask(leak(0.0), keeps_zeros=at_nan)) is None
    assert find_leak(ask(leak(1.0), keeps_zeros=at_nan)) is not None
    assert find_leak(ask(leak(0.0), keeps_zeros=lambda point: True)) is not None


def test_rounding_of_a_gradient_that_is_smaller_than_its_tolerance_is_no_leak() -> None:
    size = np.sqrt(np.mean(pull_back(POINTS[0], COTANGENTS[0])["w"] ** 2))
    for part, found in ((0.99, True), (1.01, False)):
        question = ask(leak(10.0))  # of which 70 is added for 7
        limits = question.tolerance | {"w": np.full(3, part * size)}
        assert (find_leak(question._replace(tolerance=limits)) is not None) == found
    # NaN is no rounding, whatever the size of the gradient is.
    question = ask(leak(0.0))
    limits = question.tolerance | {"w": np.full(3, 2 * size)}
    assert find_leak(question._replace(tolerance=limits)) is not None


def test_padding_has_no_gradient_at_both_cases() -> None:
    assert find_padding(ask(), "x").tolist() == [[False] * 3] * 3 + [[True] * 3]
    assert not find_padding(ask(), "w").any()

    def exact(point: Any, d: Any) -> Any:
        found = pull_back(point, d)
        return found | {"w": 0 * found["w"] if point["x"] is POINTS[0]["x"] else found["w"]}

    assert not find_padding(ask(exact=exact), "w").any()


def test_an_entry_is_no_padding_because_a_cotangent_is_zero() -> None:
    question = ask()
    some = {name: value.copy() for name, value in COTANGENTS[0].items()}
    for value in some.values():
        value[0] = 0
    for case, other in ((some, COTANGENTS[1]), (COTANGENTS[0], some)):
        given = question._replace(
            case=question.case._replace(cotangents=case),
            other=question.other._replace(cotangents=other),
        )
        assert find_padding(given, "x").tolist() == [[False] * 3] * 3 + [[True] * 3]


ACTIVE = {
    "relu": lambda x: x > 0,
    "negative part": lambda x: x < 0,
    "clip": lambda x: np.abs(x) < 1,
    "threshold": lambda x: np.abs(x) > 1,
}


@pytest.mark.parametrize("active", ACTIVE.values(), ids=ACTIVE)
def test_entries_behind_an_activation_that_is_flat_there_are_no_padding(active: Any) -> None:
    flat = next(v for v in (0.5, -0.5, 3.0) if not active(v))

    def exact(point: Any, d: Any) -> Any:
        shown = np.where(active(point["x"]), point["x"], 0)
        found = pull_back(point | {"x": shown}, d)
        return found | {"x": np.where(active(point["x"]), found["x"], 0)}

    def backward(point: Any, d: Any) -> Any:  # as by np.maximum, which passes NaN on
        found = exact(point, d)
        return found | {"w": found["w"] + 0 * np.sum(point["x"][:3])}

    x = np.full((4, 3), flat)
    x[:, 0] = 0.9 if active(0.9) else -1.9
    question = ask(backward, exact)
    case, other = (
        each._replace(point=each.point | {"x": x}) for each in (question.case, question.other)
    )
    answer = backward(case.point, COTANGENTS[0])
    question = question._replace(case=case, other=other, answer=answer)
    assert find_padding(question, "x").tolist() == [[False] * 3] * 3 + [[True] * 3]
    assert find_leak(question) is None


def test_entries_that_a_gate_shuts_off_are_no_padding() -> None:
    def exact(point: Any, d: Any) -> Any:  # w[k] counts where x[0, k] is positive
        found = pull_back(point, d)
        return found | {"w": np.where(point["x"][0] > 0, found["w"], 0)}

    def nan_above(point: Any, d: Any) -> Any:  # the gradient where gates are open is no number
        found = exact(point, d)
        return found | {"w": np.where(point["x"][0] > 0, np.nan, 0)}

    x = np.abs(POINTS[0]["x"]) + 1
    x[0] = [2, -3, -4]
    question = ask(exact, exact)
    case, other = (
        each._replace(point=each.point | {"x": x}) for each in (question.case, question.other)
    )
    question = question._replace(case=case, other=other)
    assert not find_padding(question, "w").any()
    shut = case.point | {"x": np.where(x > 0, -x, x)}
    always = question._replace(
        case=case._replace(point=shut, excluding=frozenset("x")), other=other._replace(point=shut)
    )
    assert find_padding(always, "w").all()
    question = ask(exact, nan_above)._replace(case=case, other=other)
    assert find_padding(question, "w").tolist() == [False, True, True]


def test_the_numbers_of_other_arguments_are_put_in_order_with_each_sign() -> None:
    question = ask()
    mask = np.array([0.0, 1, 1, 0])
    case = question.case._replace(point=question.case.point | {"m": mask})
    orders = [*rearrange_others(question._replace(case=case), "w")]
    assert len(orders) == 8
    assert all(each["w"] is case.point["w"] and each["m"] is mask for each in orders)
    for k, each in enumerate(orders):
        sign = 1 if k % 2 == 0 else -1
        np.testing.assert_array_equal(
            np.sort(sign * each["x"].ravel()), np.sort(case.point["x"].ravel())
        )
    assert len({each["x"].tobytes() for each in orders}) == 8
