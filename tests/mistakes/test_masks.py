"""A constant of a mask and its scale: what is forgotten of it, and a square's slope without x."""

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import diagnose_numbers

X = np.random.default_rng(0).normal(size=(3, 2))
DROP = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]]) / 0.75
PARAMS = {"U": np.ones((2, 4)), "v": np.ones(4)}


def loss(p: Any, xp: Any) -> Any:
    a = X @ p["U"]
    h = xp.tanh(a) * DROP + a
    return xp.sum((h @ p["v"] - 1.0) ** 2)


def make_gradients(factor: Any, slope: Any) -> Any:
    def gradients(p: Any) -> dict[str, Any]:
        a = X @ p["U"]
        h = np.tanh(a) * DROP + a
        dz = slope(h @ p["v"] - 1.0)
        da = np.outer(dz, p["v"]) * (factor * (1 - np.tanh(a) ** 2) + 1)
        return {"U": X.T @ da, "v": h.T @ dz}

    return gradients


def twice(x: Any) -> Any:
    return 2 * x


@pytest.mark.parametrize(
    ("factor", "slope", "name", "said"),
    [
        (DROP, twice, "", ""),
        (DROP > 0, twice, "factor-missing", "lacks the scale 1.33333 of the mask in `DROP`"),
        (1 / 0.75, twice, "factor-missing", "by 1.33333 even where the mask in `DROP` is zero"),
        (1.0, twice, "factor-missing", "is not multiplied by `DROP`"),
        (DROP / np.sqrt(2), twice, "constant-factor", "is multiplied by 0.707107, where"),
        (DROP, lambda x: 2 + 0 * x, "activation-derivative-incomplete", "uses 2 where"),
    ],
    ids=["right", "scale", "mask", "both", "factor", "square"],
)
def test_what_is_missing_is_said(factor: Any, slope: Any, name: str, said: str) -> None:
    found = diagnose_numbers(loss, PARAMS, make_gradients(factor, slope))
    assert [mistake.name for mistake in found] == [name] * bool(name)
    assert not found or said in found[0].explanation
