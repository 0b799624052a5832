"""In a loss in JAX, `float(x)` of what is traced is x, for the time of the call."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.reference.scalar_loss import keep_traced_floats

SPACE = sys.modules[__name__].__dict__


def square(params: Any, xp: Any) -> Any:
    seen = float("2"), isinstance(1.0, float), isinstance(1, float), np.zeros(1, dtype=float).dtype
    assert seen == (2.0, True, False, np.dtype(np.float64))
    assert jnp.dtype(float) == np.float64
    return float(params["w"]) ** 2 * float(3)


def test_a_traced_number_stays_traced() -> None:
    kept = keep_traced_floats(square)
    with pytest.raises(jax.errors.ConcretizationTypeError):
        jax.grad(lambda w: square({"w": w}, None))(2.0)
    assert jax.grad(lambda w: kept({"w": w}, None))(2.0) == 12.0
    assert kept({"w": np.float64(2.0)}, None) == 12.0
    assert "float" not in SPACE


def test_a_traced_array_is_no_number() -> None:
    kept = keep_traced_floats(square)
    with pytest.raises(TypeError):
        jax.grad(lambda w: kept({"w": w}, None))(np.ones(2))
    assert "float" not in SPACE


def test_what_the_user_calls_float_stays_that(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_traced_floats(half)
    assert kept({"w": 4.0}, None) == 4.0
    monkeypatch.setitem(SPACE, "float", lambda x: x / 2)
    assert kept({"w": 4.0}, None) == 2.0
    assert "float" in SPACE


def half(params: Any, xp: Any) -> Any:
    return float(params["w"])
