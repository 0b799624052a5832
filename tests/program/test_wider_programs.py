"""What JAX has traced in float32 computes in float64 what is meant, without rounding."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxpr_as_fun

from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.wider_programs import Mode, Widening

MODE = Mode(x64=False, promotion="standard")
POINT = np.array([0.3, -0.7, 1.1])


def widen(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Trace a function in float32, and make the function in float64."""
    with MODE.hold():
        traced = jax.make_jaxpr(function)(POINT.astype(np.float32))
        run = jaxpr_as_fun(Widening({}, MODE).close(traced))
    return lambda x: run(x)[0]


@jax.custom_vjp
def halve(x: Any) -> Any:
    return jnp.tanh(x)


def pull_half(x: Any, ct: Any) -> tuple[Any]:
    return ((0.5 * ct * (1 - jnp.tanh(x) ** 2)).astype(ct.dtype),)


halve.defvjp(lambda x: (jnp.tanh(x), x), pull_half)


@jax.custom_jvp
def double(x: Any) -> Any:
    return jnp.tanh(x)


@double.defjvp
def push_double(given: Any, tangents: Any) -> Any:
    (x,), (dx,) = given, tangents
    return double(x), 2 * dx * (1 - double(x) ** 2)


# Each with the same in float64.
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "a carry": (
        lambda x: lax.scan(lambda h, t: (jnp.tanh(h + t), h), jnp.zeros((), jnp.float32), x)[0],
        lambda x: np.tanh(np.tanh(np.tanh(x[0]) + x[1]) + x[2]),
    ),
    "a cast": (lambda x: jnp.asarray(x, jnp.float32) * 0.1, lambda x: x * 0.1),
    "a precision": (lambda x: lax.reduce_precision(x, 8, 23), lambda x: x),
    "a product": (
        lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32),
        lambda x: x @ x,
    ),
    "a call": (jax.jit(jnp.sin), np.sin),
    "a checkpoint": (jax.checkpoint(jnp.sin), np.sin),
    "a condition": (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), np.sin),
    "a loop": (lambda x: lax.while_loop(lambda y: y[2] < 3, lambda y: 2 * y, x), lambda x: 4 * x),
    "a sum at places": (lambda x: jnp.zeros(2).at[np.array([0, 1, 0])].add(x)[0], lambda x: 1.4),
    "a rule of cotangents": (halve, np.tanh),
    "a rule of tangents": (double, np.tanh),
    "a complex number": (lambda x: jnp.abs(jnp.exp(1j * x) * x), np.abs),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_are_those_of_float64(name: str) -> None:
    function, expected = FUNCTIONS[name]
    wide = widen(function)
    with use_float64():
        found = wide(POINT)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected(POINT), rtol=1e-14)


@pytest.mark.parametrize(("function", "factor"), [(halve, 0.5), (double, 2.0), (jax.nn.relu, None)])
def test_derivatives_that_a_function_states_are_kept(
    function: Callable[[Any], Any], factor: float | None
) -> None:
    wide = widen(function)
    with use_float64():
        slope = jax.grad(lambda x: jnp.sum(wide(x)))(POINT)
    expected = POINT > 0 if factor is None else factor * (1 - np.tanh(POINT) ** 2)
    np.testing.assert_allclose(slope, expected, rtol=1e-14)


@pytest.mark.parametrize("short", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_what_is_rounded_on_purpose_stays_rounded(short: Any) -> None:
    wide = widen(lambda x: x.astype(short).astype(jnp.float32))
    with use_float64():
        found = wide(POINT)
    np.testing.assert_array_equal(found, POINT.astype(short).astype(np.float64))
    shorter = widen(lambda x: lax.reduce_precision(x, 5, 10))
    with use_float64():
        np.testing.assert_array_equal(shorter(POINT), POINT.astype(np.float16))


def test_random_numbers_are_those_of_float32() -> None:
    def draw(x: Any) -> Any:
        return x + jax.random.uniform(jax.random.key(1), x.shape, jnp.float32)

    wide = widen(draw)
    with MODE.hold():
        drawn = draw(jnp.zeros(3, jnp.float32))
    with use_float64():
        np.testing.assert_allclose(wide(POINT), POINT + np.asarray(drawn), rtol=1e-7)


def test_a_constant_that_jax_has_rounded_is_the_original_again() -> None:
    data = np.random.default_rng(0).normal(size=3)
    with MODE.hold():
        traced = jax.make_jaxpr(lambda x: x * data)(POINT.astype(np.float32))
        (made,) = traced.consts
        wide = Widening({id(made): (made, data)}, MODE).close(traced)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(wide.consts[0], data)


def test_what_is_not_traced_is_refused() -> None:
    def call_back(x: Any) -> Any:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with pytest.raises(TypeError, match="what pure_callback computes is not known"):
        widen(call_back)
