"""The points at which an own model is compared: in what range values are drawn."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.leaves import Leaves
from bptt_verifier.reference.points import Point, choose_deviation, draw_parameters, read_point

GIVEN = {"W": np.array([[0.5, -2.0], [3.0, -0.25]]), "b": np.zeros(3)}


def draw(params: Any = GIVEN, **options: Any) -> Any:
    return [draw_parameters(params, seed=0, case=case, **options) for case in range(1, 40)]


def test_case_0_is_the_parameters_given_themselves() -> None:
    given = {"W": np.array([1.0, 2.0], np.float32), "b": np.array(3.0)}
    first = draw_parameters(given, seed=0, case=0)
    assert {name: value.dtype for name, value in first.items()} == {"W": "f4", "b": "f8"}
    assert all(np.array_equal(first[name], given[name]) for name in given)
    first["W"] += 1
    assert given["W"][0] == 1.0
    assert not np.array_equal(draw_parameters(given, seed=0, case=0, digits=1)["W"], given["W"])


def test_every_third_case_is_in_float32_unless_its_digits_are_few() -> None:
    assert [values["b"].dtype == np.float32 for values in draw()[:6]] == [False, True, False] * 2
    assert {values["b"].dtype.name for values in draw(digits=1)} == {"float64"}


@pytest.mark.parametrize("shape", [(40,), (1, 1), (2, 2, 10)])
def test_draws_have_the_stated_deviation_and_are_away_from_zero(shape: Any) -> None:
    """0.6 min(1, 1.5/√n), n = √Π nᵢ; every fourth draw is twice as large: section 10."""
    width = np.prod(shape) ** 0.5 if len(shape) > 1 else 1.0
    deviation = 0.6 * min(1.0, 1.5 / width**0.5)
    assert choose_deviation(shape) == pytest.approx(deviation)
    cases = enumerate(draw({"W": np.ones(shape)}), 1)
    values = [drawn["W"] / (2 if case % 4 == 3 else 1) / deviation for case, drawn in cases]
    size = np.abs(values)
    # A normal number z moved away from zero by a sixth: E (|z| + 1/6)² = 1 + √(2/π)/3 + 1/36.
    expected = 1 + np.sqrt(2 / np.pi) / 3 + 1 / 36
    assert np.mean(size**2) == pytest.approx(expected, rel=4 * np.sqrt(2 / size.size))
    assert size.min() > 1 / 6 - 1e-6
    if size.size > 1000:
        assert size.min() < 1 / 6 + 0.01


@pytest.mark.rest
@pytest.mark.parametrize("width", [32, 128])
def test_a_wide_recurrent_weight_is_drawn_so_that_states_neither_vanish_nor_explode(
    width: int,
) -> None:
    for case, values in enumerate(draw({"W": np.zeros((width, width))}), 1):
        radius = np.max(np.abs(np.linalg.eigvals(values["W"])))
        assert 0.8 < radius / (2 if case % 4 == 3 else 1) < 1.6


def test_values_near_the_parameters_given_keep_their_signs() -> None:
    for values in draw(near=True):
        ratio = values["W"] / GIVEN["W"]
        assert (ratio > 0.05).all()
        assert (ratio < 1.95).all()
        assert not np.array_equal(values["W"], GIVEN["W"])


def test_values_near_the_parameters_given_are_three_tenths_away() -> None:
    """p (1 + 0.3 z), with |z| ≤ 3, and 0.3 z of the others' size for a zero: section 10."""
    given = {"W": np.array([3.0, -4.0, 0.0] * 400)}
    near = draw_parameters(given, seed=0, case=1, near=True)["W"].reshape(400, 3)
    z = np.random.default_rng([0, 1]).normal(size=(400, 3)).clip(-3, 3)
    size = np.sqrt((3**2 + 4**2) / 3)
    expected = [3.0, -4.0, 0.0] + 0.3 * z * [3.0, -4.0, size]
    np.testing.assert_allclose(near, expected)


def test_values_near_zeros_are_not_zero() -> None:
    given = {"W": np.array([0.0, 100.0])}
    assert all((values["b"] != 0).all() for values in draw(near=True))
    assert all(0 < abs(values["W"][0]) < 300 for values in draw(given, near=True))


def test_factors_multiply_the_values_by_name() -> None:
    plain, scaled = draw()[2], draw(factors={"W": 64.0})[2]
    assert np.array_equal(scaled["W"], 64 * plain["W"])
    assert np.array_equal(scaled["b"], plain["b"])


def test_values_of_one_digit_are_never_zero() -> None:
    for values in draw(digits=1):
        assert (values["W"] != 0).all()
        assert np.array_equal(np.round(values["W"], 1), values["W"])


def test_a_value_that_rounds_to_zero_is_one_in_the_last_digit_of_its_sign() -> None:
    given = {"W": np.ones((20, 20))}
    exact = np.round(draw_parameters(given, seed=0, case=1)["W"], 12)
    rounded = draw_parameters(given, seed=0, case=1, digits=0)["W"]
    small = np.abs(exact) < 0.5
    assert 0 < small.sum() < small.size
    assert np.array_equal(rounded[small], np.sign(exact[small]))
    assert np.array_equal(rounded[~small], np.round(exact[~small]))
    tenths = draw_parameters(given, seed=0, case=1, factors={"W": 0.01}, digits=1)["W"]
    assert np.array_equal(tenths, 0.1 * np.sign(exact))


POINTS = [
    Point(3), Point(6, near=True), Point(9, factors={"W": 8.0}), Point(2, setting=1, digits=2),
    Point(4, True, {"layers[0].W": 1e-3, "b": 0.5}, 2, 1),
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS, ids=Point.write)
def test_a_point_is_read_as_it_is_written(point: Point) -> None:
    assert read_point(point.write()) == point


def test_a_setting_is_written_unless_it_is_the_first() -> None:
    assert Point(3).write() == "3"
    assert Point(3, setting=1).write() == "3,setting=2"


@pytest.mark.parametrize(
    "text", ["", "W", "-1", "1.5", "3,digits=", "3,digits=0", "3,setting=0", "3,W"]
)
def test_a_text_that_names_no_case_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a name such as 7,digits=1 of a report"):
        read_point(text)


def test_a_label_names_what_is_unusual_about_a_point() -> None:
    assert Point(2).label == "case 2"
    assert Point(2, near=True).label == "case 2 near the parameters given"
    assert Point(12, factors={"V": 64.0}).label == "case 12 with V scaled by 64"
    all_halved = Point(4, factors={"U": 0.5, "V": 0.5}, setting=1)
    assert all_halved.label == "case 4 of setting 2 with all values scaled by 0.5"


@pytest.mark.parametrize("name", ["a,b", "setting=2", "100%", "%2C", "a*b", "σ", "near", "x[0].W"])
def test_the_name_of_a_factor_may_hold_the_characters_of_a_point(name: str) -> None:
    point = Point(3, factors={name: 2.0, "W": 0.5})
    assert read_point(point.write()) == point


@pytest.mark.parametrize("text", ["1,W*nan", "1,W*inf", "1,W*1e999", "1,digits=400"])
def test_numbers_that_give_no_finite_point_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a name such as"):
        read_point(text)


@pytest.mark.parametrize("text", ["0,W*2.0", "0,near"])
def test_what_would_change_nothing_at_case_0_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected no factors of case 0, the parameters given"):
        read_point(text)
    assert read_point(f"{text},digits=1").digits == 1


def test_leaves_are_drawn_as_the_arrays_of_a_dict_are() -> None:
    given = {"W": np.ones((2, 3)), "b": np.ones(2)}
    plain, leaves = (draw_parameters(each, seed=1, case=4) for each in (given, Leaves(given)))
    for name in given:
        assert np.array_equal(plain[name], leaves[name])
