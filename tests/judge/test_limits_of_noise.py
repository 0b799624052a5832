"""Which noise of a kernel no rounding makes, with numbers by hand."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.kernel_cases import KernelCase, Neighbours
from bptt_verifier.judge.kernel_noise import (
    find_excessive_noise,
    find_limit,
    imitate_own_rounding,
    is_visible,
    may_lose_digits,
)
from bptt_verifier.tolerance.projections import Measurement, Noise, Slices

UNIT, VISIBLE = 2.0**-24, 2.0**-11


def measured(noise: float, resolution: float = 1.0) -> Measurement:
    one = np.ones(1)
    whole = Slices(None, one, resolution * one, one, one)
    return Measurement(Noise(noise, UNIT, 0.0, 0.0), (whole,), one, one, one)


def test_noise_is_visible_beyond_that_of_approximate_functions() -> None:
    assert is_visible(measured(1.01 * VISIBLE))
    assert not is_visible(measured(VISIBLE))
    assert not is_visible(measured(1.0, np.inf))


# Rounding that errs by 2⁻²⁰ may show 2⁸ · 8 times as much in steps of a coarser format, and
# 16 · 2⁻⁴⁰ / u where the condition number is squared.
def test_rounding_may_make_so_much_noise_between_the_closest_neighbours() -> None:
    assert find_limit(0.0, UNIT) == VISIBLE
    assert find_limit(2.0**-24, UNIT) == VISIBLE
    assert find_limit(2.0**-20, UNIT) == 2.0**-9
    assert find_limit(2.0**-11, UNIT) == 64
    assert find_limit(2.0**-20, 2.0**-53) == 2.0**17


class Stated:
    """A pull-back of ones whose errors, and whose large numbers, are given."""

    def __init__(self, errors: Any, overflows: Any = None, gradient: float = 2.0) -> None:
        self.errors, self.overflows, self.gradient = errors, overflows or {}, gradient
        self.asked: list[Any] = []

    def imitate_rounding(self, points: Any, cotangents: Any, dtype: Any) -> Any:
        self.asked.append((len(points), len(cotangents), dtype))
        if self.errors is None:
            raise ValueError("not known")
        sizes = {name: np.full((3, 4, 2), each) for name, each in self.errors.items()}
        return SimpleNamespace(gradients=sizes)

    def pull_back(self, points: Any, cotangents: Any) -> Any:
        self.asked.append((len(points), len(cotangents)))
        if self.gradient == np.inf:
            raise ValueError("none")
        return SimpleNamespace(gradients={n: np.full((4, 2), self.gradient) for n in "wx"})

    def find_overflows(self, points: Any, cotangents: Any, largest: float) -> Any:
        self.asked.append((len(points), len(cotangents), largest))
        if self.overflows == "unknown":
            raise ValueError("not known")
        found = {n: np.array([[False, bool(self.overflows.get(n))]]) for n in "wx"}
        return SimpleNamespace(gradients=found)


def draw(*dtypes: Any) -> KernelCase:
    point = {n: np.linspace(1, 2, 4).astype(d) for n, d in zip("wx", dtypes, strict=False)}
    return KernelCase(0, 0, point, {"output": np.ones(2)})


CASE = draw(np.float32, np.float32)


def find(
    near: Any, closest: Any, errors: Any = None, case: KernelCase = CASE, **stated: Any
) -> tuple[dict[str, float], Any, list[float]]:
    """The excessive noise, what the pull-back was asked, and the distances of measurements."""
    distances: list[float] = []

    def measure(distance: float) -> Any:
        distances.append(distance)
        return closest and {n: measured(each) for n, each in closest.items()}

    pullback = Stated(errors or {"w": 0.0, "x": 0.0}, **stated)
    calls: Any = SimpleNamespace(pullback=pullback)
    found = find_excessive_noise(calls, case, {n: measured(e) for n, e in near.items()}, measure, 0)
    return found, pullback.asked, distances


def test_noise_that_no_step_function_makes_is_told_in_units_of_its_limit() -> None:
    near = {"w": 0.125, "x": 1e-9}
    found, asked, distances = find(near, {"w": 0.1, "x": 0.5})
    assert found == {"w": pytest.approx(0.1 / VISIBLE)}
    assert distances == [8 * UNIT]
    # Digits of numbers beyond 0.1 / (16 u) = 1.05e5 may be lost: of 2¹⁶, which is a power of two.
    assert asked == [(4, 4, np.float32), (4, 4), (1, 1, 2.0**16)]


def test_noise_that_is_smaller_between_close_neighbours_is_a_step_function() -> None:
    assert find({"w": 0.125}, {"w": 0.0625})[0] == {}
    assert find({"w": 0.125}, {"w": 0.0626})[0]
    assert find({"w": 1.5 * VISIBLE}, {"w": VISIBLE})[0] == {}
    assert find({"w": 1.5 * VISIBLE}, {"w": 1.01 * VISIBLE})[0]


def test_noise_is_asked_for_where_it_is_visible_and_no_argument_has_16_bits() -> None:
    for near, case in (({"w": VISIBLE}, CASE), ({"w": 0.1}, draw(jnp.bfloat16, np.float32))):
        assert find(near, {"w": 0.1}, case=case) == ({}, [], [])
    assert find({"w": 0.1}, None) == ({}, [], [8 * UNIT])


def test_the_coarsest_argument_gives_the_distance() -> None:
    for dtypes, unit in (((np.float64, np.float32), UNIT), ((np.float64,) * 2, 2.0**-53)):
        assert find({"w": 0.1}, {"w": 0.1}, case=draw(*dtypes))[2] == [8 * unit]


def test_noise_that_rounding_may_make_is_none() -> None:
    # Errors of 2⁻¹⁹ of a gradient of 2 are 2⁻²⁰, which allows for 2⁻⁹.
    for errors, noise, found in ((2.0**-19, 2.0**-9, 0), (2.0**-19, 1.01 * 2.0**-9, 1.01)):
        excess, _, _ = find({"w": noise}, {"w": noise}, {"w": errors, "x": 0.0})
        assert excess.get("w", 0) == pytest.approx(found)


def test_gradients_of_which_large_numbers_may_lose_digits_are_left() -> None:
    near = {"w": 0.5, "x": 0.25}
    assert find(near, near)[0].keys() == {"w", "x"}
    found, asked, _ = find(near, near, overflows={"w": True})
    assert found.keys() == {"x"}
    assert asked[-1] == (1, 1, 2.0**18)  # of the smaller noise
    assert find(near, near, overflows="unknown")[0] == {}


def test_nothing_is_known_of_a_gradient_whose_errors_are_not() -> None:
    assert find({"w": 0.5, "x": 0.5}, {"w": 0.5, "x": 0.5}, {"w": np.nan, "x": 0.0})[0].keys() == {
        "x"
    }
    assert find({"w": 0.5}, {"w": 0.5}, gradient=np.inf)[0] == {}


def test_rounding_is_imitated_in_the_coarsest_format_relative_to_gradients() -> None:
    def imitate(stated: Stated, case: KernelCase = CASE) -> Any:
        around = Neighbours([case.point] * 16, [case.cotangents] * 16)
        return imitate_own_rounding(stated, around, case)  # type: ignore[arg-type]

    stated = Stated({"w": 3.0, "x": [1.0, np.inf]})
    assert imitate(stated, draw(np.float64, np.float32)) == {"w": 1.5}
    assert stated.asked == [(4, 4, np.float32), (4, 4)]
    assert imitate(Stated({"w": 3.0, "x": 1.0}, gradient=0.5)) == {"w": 6, "x": 2}
    for nothing in (
        Stated({"w": 1.0, "x": 1.0}, gradient=0.0),
        Stated(None),
        Stated({}, gradient=np.inf),
    ):
        assert imitate(nothing) == {}


def test_digits_may_be_lost_where_a_number_is_large_or_operations_are_unknown() -> None:
    around: Any = Neighbours([CASE.point] * 16, [CASE.cotangents] * 16)
    stated: Any = Stated({}, {"w": True})
    assert may_lose_digits(stated, around, "w", 8.0)
    assert not may_lose_digits(stated, around, "x", 8.0)
    assert stated.asked == [(1, 1, 8.0)] * 2
    assert may_lose_digits(Stated({}, "unknown"), around, "x", 8.0)  # type: ignore[arg-type]
