"""A reference that is right is confirmed, one that is wrong is contradicted, by the loss alone."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference import second_opinion
from bptt_verifier.reference.case import Truth
from bptt_verifier.reference.complex_step import STEP
from bptt_verifier.reference.second_opinion import (
    SECONDS,
    SHORT,
    WIDE,
    compare_derivatives,
    contradict_entries,
    contradict_signs,
    difference_centrally,
    differentiate_complex,
)

POINT = {"W": np.array([[0.5, -1.0], [1.5, 2.0]]), "b": np.array([0.25, -0.75, 1.0])}


def cubic(point: Any) -> Any:
    return sum((value * value * value).sum() for value in point.values())


def in_reals_only(point: Any) -> Any:
    """The same, but it refuses complex numbers."""
    complex_ = any(np.iscomplexobj(value) for value in point.values())
    return None if complex_ else cubic(point)


def truth(**errors: Any) -> Truth:
    """The gradient of the cubic loss, with errors added to some parameters."""
    values = {name: 3 * value**2 + errors.get(name, 0.0) for name, value in POINT.items()}
    return Truth(values, {name: np.full(value.shape, 1e-14) for name, value in POINT.items()})


def counted(loss: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], list[Any]]:
    """The loss, and the list of the points at which it is called."""
    calls: list[Any] = []

    def noted(point: Any) -> Any:
        calls.append(point)
        return loss(point)

    return noted, calls


LOSSES = pytest.mark.parametrize("loss", [cubic, in_reals_only])
AT = np.zeros((2, 2))
AT[1, 0] = 1.0


@LOSSES
@pytest.mark.parametrize("check", [contradict_entries, contradict_signs])
def test_a_right_reference_is_not_contradicted(check: Any, loss: Any) -> None:
    assert all(check(loss, POINT, truth(), seed) is None for seed in range(3))


def test_a_wrong_entry_is_contradicted_with_its_place_and_both_numbers() -> None:
    found = contradict_entries(cubic, POINT, truth(W=0.5 * AT), 0)
    assert found is not None
    said, _, doubt = found.partition(" for ∂L/∂W[1, 0], and central differences of the loss ")
    assert said == "jax.grad says 7.25"
    assert doubt.startswith("say 6.75 ± ")
    assert doubt.endswith(": the reference itself is in doubt.")


@LOSSES
def test_along_random_signs_the_wrong_parameter_is_named(loss: Any) -> None:
    found = contradict_signs(loss, POINT, truth(b=np.array([0.0, 0.5, 0.0])), 1)
    assert found is not None
    assert " along random signs in b, and central differences" in found


def test_up_to_twelve_entries_of_each_parameter_are_checked_each_by_one_complex_step() -> None:
    point = {"many": np.linspace(-1, 1, 30), "few": np.ones((2, 1))}
    slopes = {name: 3 * value**2 for name, value in point.items()}
    known = Truth(slopes, {name: np.full(value.shape, 1e-14) for name, value in point.items()})
    loss, calls = counted(cubic)
    assert contradict_entries(loss, point, known, 0) is None
    moved = {
        (name, int(np.flatnonzero(value.imag)[0]))
        for called in calls
        for name, value in called.items()
        if value.imag.any()
    }
    assert len(moved) == len(calls) == 12 + 2


def test_where_differences_are_needed_one_entry_of_each_parameter_is_checked() -> None:
    loss, calls = counted(in_reals_only)
    assert contradict_entries(loss, POINT, truth(), 0) is None
    assert len(calls) == 2 * (1 + 4)  # a complex step, and two differences
    other, second = counted(in_reals_only)
    contradict_entries(other, POINT, truth(), 3)
    assert any((a["W"] != b["W"]).any() for a, b in zip(calls, second, strict=True))


def test_a_complex_step_is_the_derivative_and_its_error_is_that_of_the_entries_it_sums() -> None:
    along = {"W": np.array([[1.0, -1.0], [0.0, 0.0]])}
    assert differentiate_complex(cubic, POINT, along) == 0.75 - 3.0
    for error, agrees in [(1.9e-14, True), (4e-14, False)]:
        found = compare_derivatives(cubic, POINT, truth(W=error * AT.T), {"W": AT.T + AT})
        assert found.by_complex_steps is agrees


@pytest.mark.parametrize("value", [None, np.nan, complex(0, np.inf)])
def test_a_loss_without_a_finite_value_has_no_complex_step(value: Any) -> None:
    assert differentiate_complex(lambda point: value, POINT, {"W": AT}) is None


def test_numbers_that_underflow_may_be_lost() -> None:
    smallest = float(np.finfo(np.float64).smallest_normal)
    exact = Truth({"w": np.array([smallest])}, {"w": np.zeros(1)})
    one = {"w": np.ones(1)}
    found = compare_derivatives(lambda point: 0 * point["w"].sum(), one, exact, one)
    assert found.by_complex_steps
    assert found.contradiction is None


def test_signs_are_of_both_kinds_and_of_size_one() -> None:
    loss, calls = counted(cubic)
    contradict_signs(loss, POINT, truth(), 0)
    signs = np.concatenate([value.imag.ravel() / STEP for value in calls[0].values()])
    assert set(signs) == {-1.0, 1.0}


def test_differences_within_what_is_allowed_contradict_nothing() -> None:
    flat = Truth({"w": np.array([0.25])}, {"w": np.array([0.25])})
    one = {"w": np.ones(1)}
    for error, agrees in [(0.0, True), (0.01, False)]:
        known = Truth({"w": flat.values["w"] + error}, flat.allowed)
        found = compare_derivatives(
            lambda point: None if np.iscomplexobj(point["w"]) else np.longdouble(0), one, known, one
        )
        assert (found.contradiction is None) is agrees


def test_where_longdouble_is_refused_differences_are_taken_in_float64() -> None:
    def in_float64_only(point: Any) -> Any:
        return cubic(point) if point["W"].dtype == np.float64 else None

    found, uncertain = difference_centrally(in_float64_only, POINT, {"W": AT}, WIDE)
    assert abs(found - 6.75) <= uncertain < 1e-6
    assert contradict_entries(in_float64_only, POINT, truth(), 0) is None
    assert contradict_entries(in_float64_only, POINT, truth(W=0.5 * AT), 0) is not None


def test_a_loss_without_values_contradicts_nothing() -> None:
    assert contradict_entries(lambda point: None, POINT, truth(), 0) is None


@pytest.mark.parametrize("dtype", [np.float64, np.longdouble])
def test_the_uncertainty_of_a_difference_has_the_rounding_of_the_loss(dtype: type) -> None:
    one = {"w": np.ones(1)}
    found = difference_centrally(lambda point: dtype(point["w"].sum()), one, one, WIDE)
    assert found == (1.0, 64 * float(np.finfo(dtype).eps) * 2 * 2.0**13)


@pytest.mark.parametrize(
    ("value", "dtype"), [(3, float), (np.int8(3), np.float16), (np.float32(3), np.float32)]
)
def test_the_differences_of_a_loss_may_be_those_of_integers(value: Any, dtype: type) -> None:
    one = {"w": np.ones(1)}
    found = difference_centrally(lambda point: value, one, one, WIDE)
    assert found == (0.0, 64 * float(np.finfo(dtype).eps) * 6 * 2.0**13)


@pytest.mark.parametrize("dtype", [np.float64, np.longdouble])
def test_a_difference_is_extrapolated_and_states_its_uncertainty(dtype: type) -> None:
    point, along = {"w": np.array([1.0])}, {"w": np.array([1.0])}
    h, eps = 2.0**-13, float(np.finfo(dtype).eps)

    def quartic(p: Any) -> Any:
        return dtype((p["w"] ** 4).sum())

    found, uncertain = difference_centrally(quartic, point, along, WIDE)
    # (L(1+h) − L(1−h)) / 2h = 4 + 4 h², of which the extrapolation leaves 4.
    assert found == pytest.approx(4.0, abs=1e-11)
    expected = 4 * (4 * h**2 - h**2) + 64 * eps * (2 + 12 * h**2) * 2.0**13
    assert uncertain == pytest.approx(expected, rel=1e-6, abs=1e-11)


def test_a_difference_has_its_own_uncertainty_added_to_what_is_allowed() -> None:
    _, uncertain = difference_centrally(in_reals_only, POINT, {"W": AT}, WIDE)
    for error, agrees in [(0.9 * uncertain, True), (2 * uncertain, False)]:
        found = compare_derivatives(in_reals_only, POINT, truth(W=error * AT), {"W": AT})
        assert (found.contradiction is None) is agrees
        assert not found.by_complex_steps


def test_a_complex_step_is_a_power_of_two_whose_square_is_lost() -> None:
    assert np.frexp(STEP)[0] == 0.5
    assert 0 < STEP**2 < 2.0**-53 * float(np.finfo(np.float32).smallest_normal)


@pytest.mark.parametrize("check", [contradict_entries, contradict_signs])
def test_the_noise_of_a_loss_contradicts_nothing(check: Any) -> None:
    wrong = truth(W=0.5 * np.ones((2, 2)), b=0.5 * np.ones(3))
    assert check(in_reals_only, POINT, wrong, 0, noise=1.0) is None
    assert check(in_reals_only, POINT, wrong, 0, noise=1e-12) is not None


@pytest.mark.parametrize("steps", [WIDE, SHORT])
def test_the_extrapolation_leaves_nothing_of_a_cubic(steps: tuple[float, float]) -> None:
    def steep(p: Any) -> Any:
        return (p["w"] + 2.0**40 * p["w"] ** 3).sum()

    found, _ = difference_centrally(steep, {"w": np.zeros(1)}, {"w": np.ones(1)}, steps)
    assert found == 1.0


@pytest.mark.parametrize(("seconds", "entries"), [(0.0, 12), (SECONDS, 2), (2 * SECONDS, 1)])
def test_time_limits_the_entries_of_a_parameter_beyond_the_first(
    seconds: float, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    def slow(point: Any) -> Any:
        clock.now += seconds
        return cubic(point)

    clock, point = Clock(), {"w": np.ones(20)}
    monkeypatch.setattr(second_opinion, "time", clock)
    loss, calls = counted(slow)
    known = Truth({"w": np.full(20, 3.0)}, {"w": np.full(20, 1e-14)})
    assert contradict_entries(loss, point, known, 0) is None
    assert len(calls) == entries


def test_an_entry_of_which_any_error_is_allowed_is_not_contradicted_and_hides_no_other() -> None:
    wrong = truth(W=0.5 * AT)
    vague = wrong._replace(allowed=wrong.allowed | {"W": np.where(AT.T, np.inf, 1e-14)})
    undecided = compare_derivatives(cubic, POINT, vague, {"W": AT.T})
    assert undecided.contradiction is None
    assert not undecided.by_complex_steps
    assert compare_derivatives(cubic, POINT, vague, {"W": AT}).contradiction is not None


@pytest.mark.parametrize("size", [0.25, 4.0])
def test_what_is_allowed_grows_with_the_direction(size: float) -> None:
    for error, contradicted in [(0.2, False), (0.3, True)]:
        known = truth(W=error * AT)
        known = known._replace(allowed=known.allowed | {"W": np.full((2, 2), 0.25)})
        found = compare_derivatives(cubic, POINT, known, {"W": -size * AT})
        assert (found.contradiction is not None) is contradicted


def test_a_loss_that_logs_a_real_number_prints_no_traceback_at_complex_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger, raising = logging.Logger("training"), logging.raiseExceptions
    logger.addHandler(logging.StreamHandler())

    def loss(point: Any) -> Any:
        logger.info("%d lines", "no number" if np.iscomplexobj(point["W"]) else 1)
        return cubic(point)

    assert differentiate_complex(loss, POINT, {"W": AT}) is not None
    assert "Traceback" not in capsys.readouterr().err
    assert logging.raiseExceptions is raising
