"""The exponents up to which every formula of a loss is within float32."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace
from bptt_verifier.reference.overflows import (
    EXPONENT,
    MASKED,
    find_largest_exponent,
    find_largest_unmasked,
    find_overflowing,
)


def find(loss: Any, **params: Any) -> float:
    """The largest exponent of a loss at these parameters."""
    given = {name: np.asarray(value, float) for name, value in params.items()}
    with use_float64():
        program = trace(lambda p, xp: loss(p), given)
        return find_largest_exponent(program, forward(program, given))


LOSSES: dict[str, tuple[Any, float]] = {
    "exp": (lambda p: jnp.exp(p["w"]).sum(), 90.0),
    "tanh": (lambda p: jnp.tanh(-p["w"]).sum(), 90.0),
    "cosh": (lambda p: jnp.log(jnp.cosh(p["w"])).sum(), 90.0),
    "softmax": (lambda p: jax.nn.log_softmax(p["w"])[0], 90.0),  # of e^{z - m}, m = 90
    "two": (lambda p: jnp.logaddexp(p["w"], p["w"] - 1).sum(), 90.0),  # of e^{-1}
    "relu": (lambda p: jnp.maximum(p["w"], 0).sum() + jnp.exp(p["w"] / 90).sum(), 1.0),
    "no exponent": (lambda p: (p["w"] ** 2).max(), 0.0),
    "mask": (lambda p: jnp.exp(p["w"] + 2 * MASKED).sum(), 0.0),
    "large maximum": (lambda p: jnp.exp(p["w"] - jnp.max(100 * p["w"])).sum(), 9000.0),
    "maximum of masks": (
        lambda p: jnp.exp(p["w"] / 90).sum() + jnp.max(p["w"] + 2 * MASKED),
        1.0,
    ),
    "infinite mask": (lambda p: jnp.exp(p["w"] - jnp.inf).sum(), 0.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_an_exponent_is_an_operand_of_exponentials_or_a_maximum_beside_them(name: str) -> None:
    loss, exponent = LOSSES[name]
    assert find(loss, w=[3.0, 90.0]) == pytest.approx(exponent)


def test_an_operand_is_a_mask_up_to_a_thousand_below_zero() -> None:
    above = np.nextafter(MASKED, 0.0)
    assert find_largest_unmasked(np.array([MASKED, -3.0])) == 3.0
    assert find_largest_unmasked(np.array([above, -3.0])) == -above


def loop(x: Any) -> Any:
    return jax.lax.scan(lambda h, _: (h * h, None), x, None, length=2)[0]


FUNCTIONS: dict[str, tuple[Any, bool, bool]] = {
    "exponential": (jnp.exp, True, False),
    "written with exponentials": (jnp.tanh, True, False),
    "square": (lambda x: jax.lax.square(x) + 1, False, True),
    "power": (lambda x: jax.lax.integer_pow(x, 2), False, True),
    "product": (lambda x: x * x, False, True),
    "other power": (lambda x: jax.lax.integer_pow(x, 3), False, False),
    "other product": (lambda x: x * jnp.sin(x), False, False),
    "one branch": (lambda x: jax.lax.cond(x > 0, jnp.exp, jnp.sin, x), True, False),
    "loop": (loop, False, True),
    "sum": (lambda x: x + 1, False, False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_format_is_left_by_exponentials_and_squares_wherever_there_are_some(name: str) -> None:
    function, exponential, squared = FUNCTIONS[name]
    largest = 65504.0
    found = find_overflowing(jax.make_jaxpr(function)(1.0).jaxpr, largest)
    assert found.exponent == (pytest.approx(np.log(largest)) if exponential else np.inf)
    assert found.root == (pytest.approx(largest**0.5) if squared else np.inf)
    assert found.largest == largest
    assert np.isnan(found.beyond)
    assert found.unit == found.elementary == 0.0  # nothing is rounded beside


def test_up_to_the_limit_formulas_lose_nothing_in_float32_and_beyond_they_do() -> None:
    def slope_of_plain_softmax(a: float) -> float:
        z = jnp.full(2**11, a, jnp.float32)
        return float(jax.grad(lambda p: jnp.log(jnp.exp(z[0] + p) / jnp.exp(z + p).sum()))(0.0))

    def slope_of_log_cosh(a: float) -> float:
        return float(jax.grad(lambda p: jnp.log(jnp.cosh(p)) / 36)(jnp.float32(a)))

    found = [slope_of_plain_softmax(a) for a in (1.0, EXPONENT)]
    assert found == pytest.approx([0.0, 0.0], abs=1e-6)
    assert slope_of_plain_softmax(1.05 * EXPONENT) == pytest.approx(1.0)
    assert slope_of_log_cosh(EXPONENT) == pytest.approx(1 / 36)
    assert slope_of_log_cosh(88.0) == 0.0
