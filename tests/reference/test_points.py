"""The points at which an own model is compared: in what range values are drawn."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference.points import Point, draw_parameters

GIVEN = {"W": np.array([[0.5, -2.0], [3.0, -0.25]]), "b": np.zeros(3)}


def draw(params: Any = GIVEN, **options: Any) -> Any:
    return [draw_parameters(params, seed=0, case=case, **options) for case in range(1, 40)]


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


def test_a_point_writes_the_options_that_draw_it() -> None:
    for point in (Point(3), Point(6, near=True), Point(9, factors={"W": 8.0})):
        space: dict[str, Any] = {"draw": draw_parameters, "params": GIVEN}
        again = eval(f"draw(params, seed=5, {point.write_options()})", space)
        drawn = draw_parameters(
            GIVEN, seed=5, case=point.number, near=point.near, factors=point.factors
        )
        assert np.array_equal(again["W"], drawn["W"])


def test_a_label_names_what_is_unusual_about_a_point() -> None:
    assert Point(2).label == "case 2"
    assert Point(2, near=True).label == "case 2 near the parameters given"
    assert Point(12, factors={"V": 64.0}).label == "case 12 with V scaled by 64"
    all_halved = Point(4, factors={"U": 0.5, "V": 0.5}, setting=1)
    assert all_halved.label == "case 4 of setting 2 with all values scaled by 0.5"
