"""Numbers that float64 cannot hold, in pull-backs of functions whose gradients are known."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_hvp, verify_jvp, verify_vjp
from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.zero_cotangents import divide_by_divisors, keep_zeros
from bptt_verifier.reference import lost_numbers, pullbacks
from bptt_verifier.reference.lost_numbers import is_lost, restore_numbers
from bptt_verifier.reference.pullbacks import prepare_pullback
from bptt_verifier.reference.pushforwards import prepare_curvature

Function = Callable[[Any], Any]
SCORES = np.array([0.4, -0.9, -0.4, 0.3, -2.0])
TOPS = [300.0, 360.0, 400.0, 600.0]


def softmax(x: Any) -> Any:
    """The softmax as it is written on paper, with exponentials that are not shifted."""
    e = jnp.exp(x)
    return e / e.sum()


def pull_back_softmax(x: Any, ct: Any, normaliser: bool = True) -> Any:
    e = np.exp(x - x.max())
    p = e / e.sum()
    return p * (ct - (normaliser * p * ct).sum())


def logistic(x: Any) -> Any:
    return 1 / (1 + jnp.exp(-x))


@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_softmax_of_large_exponentials_is_judged(top: float, dtype: Any) -> None:
    x = (top + SCORES).astype(dtype)

    def backward(arguments: Any, ct: Any, normaliser: bool = True) -> Any:
        x, ct = (np.asarray(each, np.float64) for each in (arguments[0], ct))
        return (pull_back_softmax(x, ct, normaliser).astype(dtype),)

    assert verify_vjp(backward, softmax, (x,), cases=1).verdict is Verdict.AGREES
    wrong = verify_vjp(lambda a, ct: backward(a, ct, False), softmax, (x,), cases=1)
    assert wrong.verdict is not Verdict.AGREES


def test_so_is_a_quotient_by_a_large_number() -> None:
    def backward(arguments: Any, ct: Any, sign: float = -1.0) -> Any:
        x, s = arguments
        return ct / s, sign * (ct / s) * (x / s)

    given = SCORES * 1e155, (3 + SCORES) * 1e155
    assert verify_vjp(backward, lambda x, s: x / s, given).verdict is Verdict.AGREES
    wrong = verify_vjp(lambda a, ct: backward(a, ct, 1.0), lambda x, s: x / s, given)
    assert wrong.verdict is Verdict.DISAGREES


@pytest.mark.table(2)
@pytest.mark.parametrize("top", [-400.0, -600.0])
def test_a_case_whose_cotangents_vanish_inside_decides_nothing(top: float) -> None:
    def backward(arguments: Any, ct: Any) -> Any:
        s = 1 / (1 + np.exp(-arguments[0]))
        return (ct * s * (1 - s),)

    right = verify_vjp(backward, logistic, (top + SCORES,), cases=1)
    assert right.verdict is Verdict.INCONCLUSIVE
    assert "too small or large for float64" in str(right)
    zeros = verify_vjp(lambda a, _: (0 * a[0],), logistic, (top + SCORES,), cases=1)
    assert zeros.verdict is Verdict.INCONCLUSIVE


@pytest.mark.rest
def test_tangents_and_hessians_of_large_exponentials_are_judged() -> None:
    x = 400 + SCORES

    def push(arguments: Any, tangents: Any) -> Any:
        e = np.exp(arguments[0] - arguments[0].max())
        p = e / e.sum()
        return p * (tangents[0] - (p * tangents[0]).sum())

    assert verify_jvp(push, softmax, (x,), cases=1).verdict is Verdict.AGREES
    wrong = verify_jvp(lambda a, v: 2 * push(a, v), softmax, (x,), cases=1)
    assert wrong.verdict is not Verdict.AGREES

    def loss(x: Any) -> Any:
        return (softmax(x) * SCORES).sum()

    def multiply(arguments: Any, direction: Any, factor: float = 1.0) -> Any:
        with use_float64():
            gradient = jax.grad(lambda x: (jax.nn.softmax(x) * SCORES).sum())
            return (factor * jax.jvp(gradient, (arguments[0],), (direction[0],))[1],)

    assert verify_hvp(multiply, loss, (x,), cases=1).verdict is Verdict.AGREES
    wrong = verify_hvp(lambda a, v: multiply(a, v, 2.0), loss, (x,), cases=1)
    assert wrong.verdict is not Verdict.AGREES


@pytest.mark.parametrize("care", [keep_zeros, divide_by_divisors])
def test_a_quotient_is_differentiated_without_the_square_of_its_divisor(care: Any) -> None:
    with use_float64():
        x, y = jnp.array([3.0, -1.0]) * 1e200, jnp.array([2.0, 5.0]) * 1e200
        _, pull = jax.vjp(care(lambda x, y: x / y), x, y)
        of_x, of_y = pull(jnp.ones(2))
        np.testing.assert_allclose(of_x, 1 / y, rtol=1e-15)
        np.testing.assert_allclose(of_y, -(x / y) / y, rtol=1e-15)
        _, plain = jax.vjp(lambda x, y: x / y, x, y)
        assert not plain(jnp.ones(2))[1].any()  # autodiff's own rule
    with use_float64():
        _, tangent = jax.jvp(divide_by_divisors(lambda x: (1 / x) / 1e160), (y,), (y,))
        np.testing.assert_allclose(tangent, -(1 / y) / 1e160, rtol=1e-15)


def test_the_second_derivative_of_a_quotient_is_that_by_hand() -> None:
    def slope(x: Any, y: Any) -> Any:
        return jax.grad(divide_by_divisors(lambda x, y: x / y), 1)(x, y)

    with use_float64():
        given = jnp.asarray(3e300), jnp.asarray(2e100)
        slopes = [jax.jvp(slope, given, along)[1] for along in ((0.0, 1.0), (1.0, 0.0))]
    np.testing.assert_allclose(slopes, [0.75, -0.25e-200], rtol=1e-14)  # 2 x / y³ and −1 / y²


# Functions of numbers near 1, and whether their gradients are made of numbers that are lost.
LOST: dict[str, tuple[Function, bool]] = {
    "a product in between": (lambda a: a * 1e-200 * (a * 1e-200) * 1e300, True),
    "products in a sum": (lambda a: jnp.dot(a * 1e-200, a * 1e-200) * 1e300, True),
    "a square": (lambda a: jnp.square(a * 1e-170) * 1e300, True),
    "a running product": (lambda a: jnp.cumprod(a * 1e-120)[-1:] * 1e300, True),
    "an exponential": (lambda a: jnp.exp(-800 * a) * jnp.exp(700 * a), True),
    "an overflow": (lambda a: a / (1 + (a * 1e200) ** 2) * 1e300, True),
    "in a loop": (
        lambda a: jax.lax.scan(lambda h, _: (h * 1e-200, None), a, None, 2)[0] * 1e300, True,
    ),
    "nothing": (lambda a: jnp.exp(a) * 1e100 / a, False),
    "an exponential beside others": (lambda a: jnp.exp(-800 * a) + a, False),
    "zeros": (lambda a: jnp.maximum(0 * a, 0) + a, False),
    "an infinity that is given": (lambda a: jnp.exp(jnp.where(a > 2, a, -jnp.inf)) + a, False),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_what_float64_cannot_hold_is_found_where_a_result_is_made_of_it(name: str) -> None:
    function, lost = LOST[name]
    with use_float64():
        a = jnp.asarray(1 + np.array([0.1, 0.2, 0.3]))
        result, restored = function(a), restore_numbers(function)(a)
        assert is_lost(np.asarray(result), np.asarray(restored)) is lost


def test_a_gradient_that_differences_confirm_asks_for_no_other(monkeypatch: Any) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(pullbacks.JaxPullback, "compute_carefully", fail)
    x = np.random.default_rng(0).normal(size=(3, 4))
    right = verify_vjp(lambda a, ct: (ct * np.cos(a[0]),), jnp.sin, (x,))
    assert right.verdict is Verdict.AGREES


def test_a_straight_through_gradient_that_differences_cannot_confirm_is_kept() -> None:
    def rounded(x: Any) -> Any:
        return x + jax.lax.stop_gradient(jnp.round(x) - x)

    x = np.random.default_rng(0).normal(size=(3, 4))
    assert verify_vjp(lambda _, ct: (ct,), rounded, (x,)).verdict is Verdict.AGREES
    assert verify_vjp(lambda _, ct: (1.01 * ct,), rounded, (x,)).verdict is Verdict.DISAGREES


def test_a_kink_is_left_out_after_quotients_have_asked_for_care() -> None:
    def forward(w: Any, s: Any) -> Any:
        return 1e155 * jnp.sqrt(w) * jnp.sqrt(w) / s

    given = np.array([0.0, 1.0, 2.0]), np.array([3e155, 2e155, 1e155])
    pullback = prepare_pullback(forward, read_arguments(given))
    w, s = pullback.arguments.leaves
    points = [{w: given[0], s: given[1]}, {w: given[0] + 1, s: given[1]}]
    at = points, [{"output": np.ones(3)}] * 2
    confirmed = pullback.confirm(*at, pullback.pull_back(*at)).gradients
    assert pullback.is_careful
    again = pullback.pull_back(*at).gradients
    for found in (confirmed, again):
        assert np.isnan(found[w][0]).any()
        exact = -(1e155 * points[1][w] / given[1]) / given[1]
        np.testing.assert_allclose(found[s][1], exact, rtol=1e-14)  # some ten roundings


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_products_of_the_hessian_are_confirmed_in_every_format(dtype: Any) -> None:
    def loss(a: Any, b: Any) -> Any:
        return (jnp.sin(b) * a**2).sum()

    given = tuple(np.random.default_rng(k).normal(size=3).astype(dtype) for k in range(2))
    curvature = prepare_curvature(loss, read_arguments({"b": given[1], "a": given[0]}))
    points = [dict(curvature.arguments.leaves)] * 2
    directions = [{n: x[::-1].copy() for n, x in points[0].items()}] * 2
    products = curvature.pull_back(points, directions).gradients
    assert curvature.list_unconfirmed(points, directions, products) == []
    doubled = {n: np.stack([g[0], 2 * g[1]]) for n, g in products.items()}
    assert curvature.list_unconfirmed(points, directions, doubled) == [1]


@pytest.mark.parametrize("wrong", [False, True])
def test_differences_confirm_a_gradient_and_no_other(wrong: bool) -> None:
    point = {"x": np.random.default_rng(0).normal(size=4)}
    pullback = prepare_pullback(lambda x: jnp.sin(x) ** 2, read_arguments((point["x"],)))
    (name,) = pullback.arguments.leaves
    points, cotangents = [{name: point["x"]}] * 3, [{"output": np.ones(4)}] * 3
    gradients = pullback.pull_back(points, cotangents).gradients
    gradients[name][1] *= 1.01 if wrong else 1.0
    assert pullback.list_unconfirmed(points, cotangents, gradients) == [1] * wrong


def test_sizes_of_numbers_near_the_end_of_float64_are_finite() -> None:
    assert lost_numbers.norm(np.full(4, 1e200)) == pytest.approx(2e200)
    assert lost_numbers.norm(np.full(4, 1e-200)) == pytest.approx(2e-200)
    assert lost_numbers.norm(np.zeros(2), np.zeros(0)) == 0
