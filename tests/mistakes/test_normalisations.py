"""Mistakes in a normalisation are found along any axis, however the loss broadcasts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import diagnose_numbers

SMALL = 1e-3


def over_rows(a: Any, xp: Any) -> tuple[Any, Any]:
    mean = xp.mean(a, axis=0)
    return a - mean, xp.sqrt(xp.mean((a - mean) ** 2, axis=0) + SMALL)


def over_columns(a: Any, xp: Any) -> tuple[Any, Any]:
    mean = xp.mean(a, axis=1, keepdims=True)
    return a - mean, xp.sqrt(xp.mean((a - mean) ** 2, axis=1, keepdims=True) + SMALL)


def over_columns_without_axes_kept(a: Any, xp: Any) -> tuple[Any, Any]:
    mean = xp.mean(a, axis=1)[:, None]
    return a - mean, xp.sqrt(xp.mean((a - mean) ** 2, axis=1) + SMALL)[:, None]


AXES: dict[Any, int] = {over_rows: 0, over_columns: 1, over_columns_without_axes_kept: 1}


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("normalise", AXES, ids=lambda f: f.__name__)
def test_a_missing_standard_deviation_is_named_along_any_axis(
    normalise: Callable[[Any, Any], tuple[Any, Any]], inverted: bool
) -> None:
    def loss(p: Any, xp: Any) -> Any:
        centred, deviation = normalise(2.0 * p["a"], xp)
        normal = centred * (1 / deviation) if inverted else centred / deviation
        return xp.sum(normal**3)

    def gradients(p: Any) -> dict[str, Any]:
        axis = AXES[normalise]
        centred, deviation = normalise(2.0 * p["a"], np)
        n = centred / deviation
        d = 3 * n**2
        d = d - d.mean(axis, keepdims=True) - n * (d * n).mean(axis, keepdims=True)
        return {"a": 2.0 * d}  # not over the deviation

    (mistake,) = diagnose_numbers(loss, {"a": np.ones((4, 3))}, gradients)
    assert mistake.name == "factor-missing"
    assert "standard deviation" in mistake.explanation
