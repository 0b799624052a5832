"""Differences of a loss give its gradient, within the error that they state."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference.differences import differentiate, find_dtype, measure_noise

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
