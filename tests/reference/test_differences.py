"""Differences of a loss give its gradient, within the error that they state."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference.differences import (
    differentiate,
    extrapolate,
    find_dtype,
    is_rough,
    is_rounded,
    measure_noise,
)

POINT = {"W": np.array([[0.5, -1.0], [1.5, 0.25]]), "b": np.array([0.75, -0.5])}


def smooth(p: Any) -> Any:
    return np.sum(np.tanh(p["W"] @ p["b"]) ** 2) + p["b"][0] ** 5


def slopes(p: Any) -> dict[str, Any]:
    h = np.tanh(p["W"] @ p["b"])
    da = 2 * h * (1 - h**2)
    return {"W": np.outer(da, p["b"]), "b": p["W"].T @ da + [5 * p["b"][0] ** 4, 0]}


def in_a_buffer(p: Any) -> Any:
    h = np.zeros(2)  # float64, whatever the parameters are
    h[:] = np.tanh(p["W"] @ p["b"])
    return np.sum(h**2) + p["b"][0] ** 5


def in_float32(p: Any) -> Any:
    return np.float32(smooth(p))


@pytest.mark.parametrize("dtype", [np.longdouble, np.float64])
def test_the_error_of_a_difference_is_within_what_it_states(dtype: Any) -> None:
    found, true = differentiate(smooth, POINT, dtype), slopes(POINT)
    for name, value in true.items():
        assert (np.abs(found.values[name] - value) <= found.errors[name] + 1e-15).all()
        assert np.max(found.errors[name]) < 1e-10
    assert found.loss == pytest.approx(float(smooth(POINT)), abs=1e-15)


def test_a_coarse_loss_has_large_errors() -> None:
    found, true = differentiate(in_float32, POINT, np.float64), slopes(POINT)
    for name, value in true.items():
        assert (np.abs(found.values[name] - value) <= found.errors[name]).all()
        assert np.min(found.errors[name]) > 1e-7


def test_an_entry_that_the_loss_ignores_has_no_slope() -> None:
    found = differentiate(lambda p: p["b"][0] ** 2, POINT, np.float64)
    assert not found.values["W"].any()
    assert found.values["b"][1] == 0


def test_longdouble_is_taken_where_the_loss_carries_it() -> None:
    carried = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps
    assert find_dtype(smooth, POINT) == (np.longdouble if carried else np.float64)
    assert find_dtype(in_a_buffer, POINT) == np.float64
    assert find_dtype(in_float32, POINT) == np.float64


def test_a_loss_of_any_size_carries_longdouble() -> None:
    carried = find_dtype(smooth, POINT)
    for size in (2.0**40, 2.0**-40, 0.0):

        def scaled(p: Any, size: float = size) -> Any:
            return size * smooth(p)

        assert find_dtype(scaled, POINT) == carried


def test_a_loss_that_takes_no_longdouble_is_differentiated_in_float64() -> None:
    def refusing(p: Any) -> Any:
        if p["W"].dtype != np.float64:
            raise TypeError("float64 only")
        return smooth(p)

    assert find_dtype(refusing, POINT) == np.float64


def test_the_noise_of_a_loss_is_measured() -> None:
    _, noise = measure_noise(in_float32, POINT, np.float64)
    assert noise >= 2.0**-28
    value, noise = measure_noise(lambda p: np.round(smooth(p), 6), POINT, np.float64)
    assert value == np.round(smooth(POINT), 6)
    assert noise < 1e-5


def test_the_noise_is_the_root_mean_square_of_fifth_differences_over_three_distances() -> None:
    """(N6), at ten points spaced by 2⁻³⁶, 2⁻²⁴ and 2⁻¹² of the parameters."""
    distances = 2.0**-36, 2.0**-24, 2.0**-12
    point = {"w": np.array([1.0, -4.0] * 4)}
    random = np.random.default_rng(1).normal(size=(3, 9))
    for row in range(3):
        places = list[Any]()

        def loss(p: Any, row: int = row, places: Any = places) -> float:
            places.append(p["w"] / point["w"] - 1)
            number = len(places) - 2  # after the point itself
            return random[row, number % 9] if number // 9 == row else 0.0

        value, noise = measure_noise(loss, point, np.float64)
        differences = np.diff([0.0, *random[row]], 5)
        assert (value, len(places)) == (0.0, 28)
        assert noise == pytest.approx(np.sqrt(np.sum(differences**2) / 5 / 252))
        steps = np.abs(places[1:]).reshape(3, 9, 8)
        stated = np.outer(distances, range(1, 10))[:, :, None] * np.ones(8)
        np.testing.assert_allclose(steps, stated, rtol=2e-5)


@pytest.mark.parametrize("dtype", [np.longdouble, np.float64])
def test_a_loss_is_no_more_precise_than_its_last_digit(dtype: Any) -> None:
    for size in (2.0**20, -(2.0**-20)):

        def constant(p: Any, size: float = size) -> float:
            return size

        _, noise = measure_noise(constant, POINT, dtype)
        assert noise == np.finfo(dtype).eps * abs(size)


def test_steps_halve_from_a_thirty_second_of_the_parameter() -> None:
    given = {"w": np.array([3.0, -4.0, 0.0]), "b": np.zeros(2)}
    moved: dict[tuple[str, int], list[float]] = {}

    def loss(p: Any) -> float:
        for name, value in given.items():
            changed = np.flatnonzero(p[name] - value)
            if len(changed) == 1:  # not one of the points that show the noise
                step = float(p[name][changed[0]] - value[changed[0]])
                moved.setdefault((name, int(changed[0])), []).append(step)
        return 0.0

    differentiate(loss, given, np.float64)
    size = np.sqrt(25 / 3)  # of a zero, that of the whole parameter
    for name, sizes in (("w", [3.0, 4.0, size]), ("b", [1.0, 1.0])):
        for entry, own in enumerate(sizes):
            steps = max(own, size if name == "w" else 1.0) / 32 * 0.5 ** np.arange(5)
            expected = [sign * step for step in steps for sign in (1, -1)]
            np.testing.assert_allclose(moved[name, entry], expected, rtol=1e-12)


def sine(x: float) -> float:
    return float(np.sin(1 + x))


@pytest.mark.parametrize("noise", [0.0, 1e-13, 1e-6])
@pytest.mark.parametrize(
    "at", [sine, lambda x: 3 * x, lambda x: abs(x - 0.1)], ids=["smooth", "linear", "kink"]
)
def test_the_least_uncertain_extrapolation_is_taken(at: Any, noise: float) -> None:
    """(N5): each value is uncertain by its distance from the two that it comes from, plus ν/h."""
    steps = [0.5**k for k in range(5)]
    table = [[(at(h) - at(-h)) / (2 * h) for h in steps]]
    found = []
    for j in range(1, 5):
        before = dict(enumerate(table[-1], j - 1))
        table.append([])
        for k in range(j, 5):
            value = before[k] + (before[k] - before[k - 1]) / (4**j - 1)
            table[-1].append(value)
            apart = max(abs(value - before[k]), abs(value - before[k - 1]))
            found.append((apart + noise / steps[k], value))
    error, value = min(found)
    assert extrapolate(at, 1.0, noise) == pytest.approx((value, 16 * error), rel=1e-9, abs=1e-15)


def take_root(p: Any, tolerance: float) -> Any:
    z, before = 1.0, 0.0
    while abs(z - before) > tolerance:
        before, z = z, np.cos(z) * np.tanh(p["W"]).sum() / 2
    return z + p["b"][0] ** 2


ROUGH: dict[str, tuple[Any, bool]] = {
    "smooth": (smooth, False),
    "of another size than its changes": (lambda p: 1e9 + smooth(p), False),
    "in float32": (lambda p: np.float64(np.float32(smooth(p))), True),
    "ended by a tolerance": (lambda p: take_root(p, 1e-5), True),
    "ended by a small tolerance": (lambda p: take_root(p, 1e-9), True),
    "ended by rounding": (lambda p: take_root(p, 1e-15), False),
    "with a kink": (lambda p: np.abs(p["W"][0, 0] - 0.5), True),
    "with a jump beyond its rounding": (lambda p: 1 + 5e-13 * (p["b"][0] > 0.75), True),
    "with rounding where it is not zero": (lambda p: 1e3 * (p["b"][0] - 0.75), False),
    "constant": (lambda p: 2.0, False),
    "zero": (lambda p: 0.0, False),
}


@pytest.mark.parametrize("kind", ROUGH)
def test_a_loss_is_rough_that_a_tolerance_ends(kind: str) -> None:
    loss, rough = ROUGH[kind]
    assert is_rough(loss, POINT) is rough


def test_a_smooth_loss_is_asked_on_two_lines_of_each_spacing() -> None:
    asked, rng = list[float](), np.random.default_rng(2)

    def square(p: Any) -> Any:
        asked.append(p["w"][0])
        return p["w"][0] ** 2

    assert is_rough(square, {"w": np.array([2.0])}) is False
    along = [rng.uniform(-1.0, 1.0, 1)[0] for _ in range(4)]
    steps = [spacing * np.arange(-32, 33) for spacing in (2.0**-6, 2.0**-9) * 2]
    expected = [2 * (1 + s * a) for each, a in zip(steps, along, strict=True) for s in each]
    np.testing.assert_array_equal(asked, expected)


def test_a_loss_is_asked_on_one_line_whether_it_is_rounded() -> None:
    asked = list[float]()

    def count(p: Any) -> Any:
        asked.append(p["w"][0])
        return float(len(asked))

    assert is_rounded(count, {"w": np.array([2.0])})
    along = np.random.default_rng(1).uniform(-1.0, 1.0, 1)[0]
    steps = 2.0**-5 * np.arange(-5, 6)
    expected = [2 * (1 + s * along) for s in [*steps, *steps + 2.0**-12]]
    np.testing.assert_array_equal(asked, expected)


@pytest.mark.parametrize(
    ("step", "rounded"), [(0.02, True), (0.005, True), (2.0**-19, False), (1.0, False)]
)
def test_a_loss_is_rounded_that_takes_steps(step: float, rounded: bool) -> None:
    # Steps of 1 are wider than the line is long.
    def loss(p: Any) -> Any:
        value = p["w"][0] + np.pi
        return value - value % step

    assert is_rounded(loss, {"w": np.array([2.0])}) is rounded


def test_zeros_move_as_ones_where_a_loss_is_asked_for_its_steps() -> None:
    zeros = {"w": np.zeros(3)}

    def loss(p: Any) -> Any:
        return float(np.round(np.sum((p["w"] + np.linspace(1, 2, 3)) ** 3), 2))

    def smooth_loss(p: Any) -> Any:
        return float(np.sum((p["w"] + np.linspace(1, 2, 3)) ** 3))

    assert is_rounded(loss, zeros)
    assert is_rough(loss, zeros)
    assert not is_rounded(smooth_loss, zeros)
    assert not is_rough(smooth_loss, zeros)
    coarse, fine = (measure_noise(each, zeros, np.float64)[1] for each in (loss, smooth_loss))
    assert coarse > 1e6 * fine


@pytest.mark.parametrize(("flat", "levels"), [(8, 3), (7, 3), (8, 2)])
def test_steps_are_flat_nearly_everywhere_and_of_several_heights(flat: int, levels: int) -> None:
    here = np.pi + np.minimum(np.arange(11), levels - 1.0)
    answers = iter([*here, *here + 0.1 * (np.arange(11) >= flat)])
    rounded = flat >= 8 and levels >= 3
    assert is_rounded(lambda p: next(answers), {"w": np.array([2.0])}) is rounded


@pytest.mark.parametrize("limit", [0.9, 1.0, 1.1])
def test_a_hinge_takes_no_steps(limit: float) -> None:
    assert not is_rounded(lambda p: max(0.0, limit - p["w"][0] ** 3), {"w": np.array([1.0])})


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("digits", [0, 4, 5, 8, 9])
def test_a_loss_is_rounded_that_has_few_decimals(scale: float, digits: int) -> None:
    def rounded(p: Any) -> Any:
        return np.round(scale * (1 + 5 * smooth(p)), digits)

    few = digits <= 8 and digits + np.log10(scale) <= 12
    assert is_rounded(rounded, POINT) is bool(few)
    assert not is_rounded(lambda p: scale * smooth(p), POINT)


def test_a_loss_that_is_constant_or_not_finite_is_not_rounded() -> None:
    assert is_rounded(lambda p: 0.5, POINT) is False
    assert is_rounded(lambda p: np.round(p["b"][0]) + np.inf, POINT) is False
    beyond = iter([np.inf])
    assert is_rounded(lambda p: next(beyond, np.round(10 * p["b"][0], 1)), POINT) is False
    once = iter([0.123456789123456])
    assert not is_rounded(lambda p: next(once, np.round(10 * p["b"][0])), POINT)
