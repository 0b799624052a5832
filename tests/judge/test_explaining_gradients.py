"""What explains a whole wrong gradient of a kernel, in numbers made by hand."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import kernel_explanations
from bptt_verifier.judge.kernel_diagnosis import (
    Cases,
    name_gradient,
    separate_cases,
)
from bptt_verifier.judge.kernel_explanations import (
    contradicts,
    describe_changing_factor,
    leaves_rounding,
)
from tests.support.found_gradients import EXACT, FACTORS, ZERO, calls_of, draw, find
from tests.support.measurements import make_measurement, make_slices

# An expected gradient of size 2, with an exact one of size 1: the mistake is of size 1.


@pytest.mark.parametrize("size", [1.0, 8.0])
@pytest.mark.parametrize(
    ("expected", "limit"),
    [(2.0, 1 / 16), (1 + 2.0**-22, 4 * 2.0**-24)],
    ids=["a part of the mistake", "four roundings"],
)
def test_an_explanation_leaves_rounding_or_a_small_part_of_the_mistake(
    expected: float, limit: float, size: float
) -> None:
    one = np.full((1, 8), size)

    def ask(error: float) -> bool:
        submitted = expected * one + error * size
        return leaves_rounding(submitted, expected * one, one, np.float32)

    assert ask(limit) is True
    assert ask(-1.001 * limit) is False
    assert ask(np.nan) is False


def test_what_is_left_at_several_points_is_no_mistake_in_itself() -> None:
    exact = draw(8)
    expected, wrong = 2 * exact, 2 * exact.copy()
    wrong[:, 3] *= 1.02  # two hundredths of one entry are less than a sixteenth of the mistake
    assert leaves_rounding(expected.astype(np.float32), expected, exact, np.float32)
    assert not leaves_rounding(wrong, expected, exact, np.float32)
    assert leaves_rounding(wrong[:1], expected[:1], exact[:1], np.float32)
    alike = np.ones((2, 8))  # of two points, errors that do not scatter
    assert not leaves_rounding(2 * alike + [0.02, *[0] * 7], 2 * alike, alike, np.float32)


def test_ten_times_as_many_parts_as_entries_may_be_wrong_by_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[int]()

    def note(errors: Any, exact: Any, dtype: Any, tests: int) -> Any:
        asked.append(tests)
        return make_measurement([0.0])

    monkeypatch.setattr(kernel_explanations, "measure", note)
    assert leaves_rounding(2 * EXACT, 2 * EXACT, EXACT, np.float32)
    assert asked == [160]


def test_an_expected_gradient_of_zeros_leaves_nothing() -> None:
    zeros, tiny = np.zeros((2, 3)), np.zeros((2, 3))
    tiny[1, 1] = 1e-300
    assert leaves_rounding(zeros, zeros, zeros + 1, np.float32)
    assert not leaves_rounding(tiny, zeros, zeros + 1, np.float32)
    expected = zeros.copy()
    expected[0, 0] = 1
    assert not leaves_rounding(zeros, expected, zeros + 1, np.float32)
    assert leaves_rounding(expected[:1] + 1e-9, expected[:1], zeros[:1], np.float32)


# Factors over cases.


def test_a_factor_has_to_fit_the_other_cases_of_the_settings_in_which_it_is_found() -> None:
    wrong, right = find(2 * EXACT, EXACT), find(EXACT, EXACT)
    half = find(0.5 * EXACT, EXACT)
    named = name_gradient("w", Cases([wrong], [wrong._replace()]), calls_of())
    assert named[0] == "constant-factor"
    for other, factor in ((right, "1"), (half, "0.5")):
        assert contradicts(other, "w", lambda g: 2 * g)
        assert name_gradient("w", Cases([wrong], [other]), calls_of()) == (
            "unknown",
            "every entry is multiplied by a number that is another in each case "
            f"(2, {factor})",
        )  # fmt: skip
    assert not contradicts(ZERO, "w", lambda g: 2 * g)
    blurred = half._replace(gradients={"w": make_measurement(np.zeros((4, 4)), limit=9.0)})
    assert not contradicts(blurred, "w", lambda g: 2 * g)


@pytest.mark.parametrize(("part", "contradicted"), [(1.0, False), (1.01, True)])
@pytest.mark.parametrize(
    ("factor", "most"),
    [(1 + 2.0**-4, 4 * 2.0**-8 * (1 + 2.0**-4)), (2.0, 1 / 16)],
    ids=["four roundings", "a part of the mistake"],
)
def test_one_number_may_be_off_by_roundings_to_the_coarsest_format_or_a_part_of_the_mistake(
    factor: float, most: float, part: float, contradicted: bool
) -> None:
    left = part * most * np.resize([1, -1], 16)
    found = find(factor + left, np.ones(16), dtype=np.float64)
    assert contradicts(found, "w", lambda g: factor * g) is contradicted
    assert contradicts(find(np.zeros(16), np.zeros(16)), "w", lambda g: 2 * g) is False


def test_of_several_entries_their_projection_alone_contradicts() -> None:
    exact = np.ones((16, 2))
    across = exact * [1.5, 0.5]  # half of each entry, and nothing along the exact gradient
    assert contradicts(find(2 * across, exact), "w", lambda g: 2 * g) is False
    assert contradicts(find(2 * across, exact), "w", lambda g: 3 * g)
    some = exact * [1, 0]
    assert contradicts(find(some, some), "w", lambda g: 2 * g)


def test_a_transposition_is_projected_on_the_gradient_as_a_whole() -> None:
    exact = np.array([[1.0, 2, 4], [8, 16, 32], [0.5, 64, 1]]) * draw(1, 1)
    transposed = find(exact.swapaxes(-1, -2), exact)
    assert not contradicts(transposed, "w", lambda g: g.swapaxes(-1, -2))
    assert contradicts(find(exact, exact), "w", lambda g: g.swapaxes(-1, -2))


# Two factors that are known to a quarter each, and an error in the second.
@pytest.mark.parametrize(("error", "changing"), [(0.375, False), (0.5, False), (0.51, True)])
def test_factors_change_that_differ_by_more_than_what_is_known_of_both(
    error: float, changing: bool
) -> None:
    wholes = [make_slices(None, [factor], limit=0.25) for factor in (0.0, error)]
    measured = [make_measurement(0.0)._replace(slices=(whole,)) for whole in wholes]
    cases = [find(np.ones(16), np.ones(16), measured=each) for each in measured]
    said = describe_changing_factor("w", cases, [])
    number = "its one entry is multiplied by a number that is another in each case (1, 1.51)"
    assert said == (number if changing else "")


def test_a_factor_that_is_another_in_each_case_is_said_of_all_entries_alone() -> None:
    cases = [find(factor * EXACT, EXACT) for factor in (2, 3)]
    later = cases[0]._replace(case=cases[0].case._replace(number=1))
    assert describe_changing_factor("w", [later, cases[1]], []).endswith("(3, 2)")
    assert describe_changing_factor("w", [cases[0], cases[0]], []) == ""
    assert describe_changing_factor("w", [cases[0]], []) == ""
    scattered = find(EXACT * FACTORS, EXACT)
    assert describe_changing_factor("w", [cases[0], scattered], []) == ""
    assert describe_changing_factor("w", [cases[0], ZERO], []) == ""


def test_a_factor_of_one_number_has_to_fit_the_neighbours_further_away() -> None:
    exact = 1 + 0.01 * np.linspace(-1, 1, 16)
    moving = exact * (1.5 + np.linspace(-1, 1, 16) / 16)
    near, far = find(1.5 * exact, exact), find(moving, exact)
    assert name_gradient("w", Cases([near]), calls_of())[0] == "constant-factor"
    assert name_gradient("w", Cases([near], (), [near]), calls_of())[0] == "constant-factor"
    assert name_gradient("w", Cases([near], (), [far]), calls_of())[0] == "unknown"
    others = [find(2 * exact, exact, setting=1), find(exact, exact)]
    wrong = far._replace(near=near, gradients={"w": make_measurement(0.0, whole=2.0)})
    found = [wrong, *others]
    assert separate_cases("w", found[:2]) == Cases([near, others[0]], [], [found[0]])
    assert separate_cases("w", found[::2]) == Cases([near], [others[1]], [found[0]])
    both = find(2 * EXACT, EXACT)
    assert separate_cases("w", [both._replace(near=both)]).further == []
