"""Slices of one array outside of a loop, and means: mistakes in what layers share."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_parts import list_exchanges
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.diagnosis import diagnose_planted, ones

rng = np.random.default_rng(2)
N, D, H = 4, 3, 2
X, C = rng.normal(size=(N, D)), rng.normal(size=(N, H))
WIDE = rng.normal(size=(N, 5))


def gated(p: Any, xp: Any) -> Any:
    """The gated layer SwiGLU, whose halves are cut out of one product."""
    a = X @ p["W"]
    g = a[:, :H]
    u = a[:, H:]
    return xp.sum(g / (1 + xp.exp(-g)) * u * C)


def gated_back(p: Any) -> Any:
    a = X @ p["W"]
    g, u = a[:, :H], a[:, H:]
    s = 1 / (1 + np.exp(-g))
    dg, du = C * u * s * (1 + g * (1 - s)), C * g * s
    return {"W": X.T @ np.concatenate([dg, du], axis=1)}


def normalise(p: Any, xp: Any) -> Any:
    x = p["x"]
    m = x.mean(-1, keepdims=True)
    v = ((x - m) ** 2).mean(-1, keepdims=True)
    return xp.sum((x - m) / xp.sqrt(v + 0.1) * WIDE)


def normalise_back(p: Any) -> Any:
    x, n = p["x"], WIDE.shape[1]
    m = x.mean(-1, keepdims=True)
    r = 1 / np.sqrt(((x - m) ** 2).mean(-1, keepdims=True) + 0.1)
    y = (x - m) * r
    left = WIDE.sum(-1, keepdims=True) / n + y * (WIDE * y).sum(-1, keepdims=True) / n
    return {"x": r * (WIDE - left)}


def test_halves_in_each_others_place_are_named() -> None:
    model = gated, gated_back, ones(W=(D, 2 * H))
    (found,) = diagnose_planted(model, ("[dg, du]", "[du, dg]"))
    assert found.name == "parts-exchanged"
    assert "the gradients of `a[:, :H]` and `a[:, H:]` are in each other's place" in str(found)


def test_slices_that_share_entries_are_not_exchanged() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(p["W"][:, :2] * p["W"][:, 1:3])

    with use_float64():
        known = structure(trace(loss, ones(W=(2, 4))))
    assert [*list_exchanges(known, known.groups)] == []


@pytest.mark.parametrize("size", ["64", "7.5"])
def test_a_mean_of_another_size_is_quoted_as_it_is_written(size: str) -> None:
    model = normalise, normalise_back, ones(x=(N, 5))
    (found,) = diagnose_planted(model, ("WIDE.shape[1]", size))
    assert found.name == "constant-factor"
    said = "passed back through `x.mean(-1, keepdims=True)` and through"
    assert f"{said} `((x - m) ** 2).mean(-1, keepdims=True)` is divided by {size}" in str(found)
    assert "inside" not in str(found)
    assert "broadcast" not in str(found)
