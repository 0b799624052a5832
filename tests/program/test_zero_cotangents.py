"""Cotangents of zero stay zero where autodiff multiplies them by an infinite slope: (N8)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier import verify_own_model, verify_vjp
from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.program.backward import backward
from bptt_verifier.program.paths import Paths
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace
from bptt_verifier.program.zero_cotangents import keep_zeros, keep_zeros_of
from bptt_verifier.reference import kept_zeros
from bptt_verifier.reference.pullbacks import prepare_pullback
from bptt_verifier.reference.selection import KINK
from bptt_verifier.tolerance.bounds import ELEMENTARY, gamma

Loss = Callable[[Any], Any]
A = np.array([-2.0, 0.0, 0.5, 3.0])
ROOTS = np.array([0.0, 0.0, 0.5 / np.sqrt(0.5), 0.5 / np.sqrt(3.0)])  # slopes of √a where a > 0


def root(a: Any) -> Any:
    return jnp.where(a > 0, jnp.sqrt(a), 0.0)


@jax.custom_jvp
def twice(a: Any) -> Any:
    """A function whose own derivative is twice that of its body."""
    return jnp.sin(a)


twice.defjvp(lambda given, tangents: (twice(*given), 2 * jnp.cos(given[0]) * tangents[0]))


def in_scan(a: Any) -> Any:
    return lax.scan(lambda h, each: (h + root(each), root(each)), 0.0, a, reverse=True)[0]


def in_scan_with_constant(a: Any) -> Any:
    """A scan over three steps, of which the sum of roots is a constant, and weights 0, 1, 2."""
    roots = jnp.sum(root(a)) / 3
    return lax.scan(lambda h, each: (h + roots * each, h), jnp.zeros(()), jnp.arange(3.0))[0]


def in_branch(a: Any) -> Any:
    return lax.cond(jnp.sum(a) > 0, lambda b: jnp.sum(root(b)), jnp.sum, a)


def with_integer_power(a: Any) -> Any:
    kept = jnp.where(a > 0, lax.pow(jnp.abs(a), jnp.full(a.shape, -2)), 0.0)
    return jnp.sum(kept)


# Losses of a, and their gradients by hand at A.
LOSSES: dict[str, tuple[Loss, Any]] = {
    "root": (lambda a: jnp.sum(root(a)), ROOTS),
    "in a call": (lambda a: jnp.sum(jax.jit(root)(a)), ROOTS),
    "in a scan": (in_scan, ROOTS),
    "in a scan with a constant": (in_scan_with_constant, ROOTS),
    "in a branch": (in_branch, ROOTS),
    "logarithm": (
        lambda a: jnp.sum(jnp.where(a > 0, jnp.log(jnp.maximum(a, 0.0)), 0.0)),
        np.array([0.0, 0.0, 2.0, 1 / 3]),
    ),
    "quotient": (
        lambda a: jnp.sum(jnp.where(a > 0, 1 / jnp.maximum(a, 0.0), 0.0)),
        np.array([0.0, 0.0, -4.0, -1 / 9]),
    ),
    "power": (
        lambda a: jnp.sum(jnp.where(a > 0, jnp.maximum(a, 0.0) ** 0.5, 0.0)), ROOTS,
    ),
    "integer power": (with_integer_power, np.array([0.0, 0.0, -16.0, -2 / 27])),
    "logarithms that are added": (
        lambda a: jnp.logaddexp(jnp.logaddexp(-jnp.inf, -jnp.inf + 0 * a[0]), a[2]),
        np.array([0.0, 0.0, 1.0, 0.0]),
    ),
    "own derivative": (
        lambda a: jnp.sum(root(a)) + jnp.sum(twice(a)), ROOTS + 2 * np.cos(A),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_finite_and_that_of_the_part_that_is_used(name: str) -> None:
    loss, expected = LOSSES[name]
    with use_float64():
        assert np.isnan(jax.grad(loss)(A)).any()
        value, found = jax.value_and_grad(keep_zeros(loss))(A)
        assert value == loss(jnp.asarray(A))
        program = keep_zeros_of(trace(lambda p, xp: loss(p["a"]), {"a": A}))
        by_program = backward(program, forward(program, {"a": A}))["a"][-1]
    allowed = gamma(4 * ELEMENTARY, 2.0**-53)  # of four elementary functions in a row
    np.testing.assert_allclose(found, expected, rtol=allowed, atol=0)
    np.testing.assert_allclose(by_program, expected, rtol=allowed, atol=0)


def test_a_gradient_that_is_finite_is_that_of_autodiff_bit_for_bit() -> None:
    def loss(p: Any) -> Any:
        return jnp.sum(jnp.tanh(p["a"]) ** 2)

    with use_float64():
        followed = Paths(lambda point: loss).follow({"a": A})
        expected = jax.grad(loss)({"a": jnp.asarray(A)})
    assert followed is not None
    assert not followed.keeps_zeros
    assert not any(operation.keeps_zeros for operation in followed.path.program.operations)
    np.testing.assert_array_equal(followed.slopes["a"], expected["a"])


def test_a_gradient_that_is_infinite_where_the_cotangent_is_none_stays_so() -> None:
    with use_float64():
        followed = Paths(lambda point: lambda p: jnp.sum(jnp.sqrt(p["a"]))).follow({"a": A * A})
    assert followed is not None
    assert not followed.keeps_zeros
    assert np.isinf(followed.slopes["a"]).any()


X = np.random.default_rng(0).normal(size=(6, 3))
PARAMS = {"w": np.array([0.6, -0.5, 0.9]), "v": np.linspace(-1.0, 1.0, 6)}


def masked(p: Any, xp: Any) -> Any:
    r = xp.maximum(X @ p["w"], 0.0)
    return xp.sum(xp.where(r > 0, xp.log(r), 0.0) * p["v"])


def by_hand(p: Any, sign: float = 1.0) -> Any:
    r = np.maximum(X @ p["w"], 0.0)
    inverse = np.divide(1.0, r, out=np.zeros_like(r), where=r > 0)
    logarithm = np.log(r, out=np.zeros_like(r), where=r > 0)
    return {"w": sign * X.T @ (inverse * p["v"]), "v": logarithm}


NOTE = "In 24 of 24 cases jax.grad is NaN"


@pytest.mark.slow
def test_code_with_a_mask_that_autodiff_cannot_differentiate_is_judged() -> None:
    right = verify_own_model(by_hand, masked, PARAMS)
    assert right.verdict == "agrees"
    assert NOTE in str(right)
    wrong = verify_own_model(lambda p: by_hand(p, -1.0), masked, PARAMS)
    assert [mistake.name for mistake in wrong.mistakes] == ["sign-flipped"]


@pytest.mark.rest
def test_a_gradient_that_multiplies_zero_by_infinity_is_not_finite() -> None:
    def by_autodiff(p: Any) -> Any:
        found = jax.grad(lambda q: masked(q, jnp))({n: jnp.asarray(v) for n, v in p.items()})
        return {name: np.asarray(each) for name, each in found.items()}

    report = verify_own_model(by_autodiff, masked, PARAMS)
    assert [mistake.name for mistake in report.mistakes] == ["not-finite"]
    assert NOTE in str(report)


@pytest.mark.rest
def test_a_point_where_zero_times_infinity_is_a_number_is_no_case() -> None:
    def loss(p: Any, xp: Any) -> Any:  # it is w² wherever w is not zero
        root = xp.sqrt(p["w"] ** 2)
        return xp.sum(root * root)

    report = verify_own_model(lambda p: {"w": 2 * p["w"]}, loss, {"w": np.array([0.0, 1.0])})
    assert report.verdict == "agrees"

    def kinked(p: Any, xp: Any) -> Any:  # it is u, of which (N8) says that the slope is zero
        root = xp.sqrt(p["u"])
        return xp.sum(root * root)

    report = verify_own_model(lambda p: {"u": np.ones(2)}, kinked, {"u": np.array([0.0, 1.0])})
    assert f"The parameters given were left out: {KINK}" in str(report)
    assert report.verdict != "disagrees"


def logarithms_of_positive(x: Any, W: Any) -> Any:
    e = np.maximum(x @ W, 0.0)
    with np.errstate(divide="ignore"):
        return np.where(e > 0, np.log(e), 0.0)


def pull_back_logarithms(arguments: Any, ct: Any) -> Any:
    x, W = arguments
    e = np.maximum(x @ W, 0.0)
    d = np.divide(ct, e, out=np.zeros_like(e), where=e > 0)
    return d @ W.T, x.T @ d


@pytest.mark.table(2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_kernel_with_a_mask_that_autodiff_cannot_differentiate_is_judged(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=(5, 3)).astype(dtype), rng.normal(size=(3, 4)).astype(dtype)
    right = verify_vjp(pull_back_logarithms, logarithms_of_positive, arguments)
    assert right.verdict == "agrees"
    assert "jax.grad of the forward pass is NaN" in str(right)

    def scaled(given: Any, ct: Any) -> Any:
        return tuple(dtype(1.01) * each for each in pull_back_logarithms(given, ct))

    wrong = verify_vjp(scaled, logarithms_of_positive, arguments)
    assert [mistake.name for mistake in wrong.mistakes] == ["constant-factor"]


def test_a_kernel_is_not_judged_where_zero_times_infinity_is_a_number() -> None:
    def forward(w: Any) -> Any:  # it is w, of which (N8) says at 0 that the slope is zero
        with np.errstate(invalid="ignore"):
            return np.sqrt(w) * np.sqrt(w)

    report = verify_vjp(lambda _, ct: (ct,), forward, (np.array([0.0, 1.0, 2.0, 4.0]),))
    assert report.verdict == "agrees"
    assert "Left out: the arguments given" in str(report)


def shifted_softmax(x: Any, b: Any) -> Any:
    return jax.nn.softmax(jnp.where(x > 0, jnp.sqrt(x), 0) + b, -1)


def pull_back_softmax(arguments: Any, ct: Any) -> Any:
    x, b = arguments
    r = np.sqrt(np.where(x > 0, x, 1))
    p = np.asarray(jax.nn.softmax(np.where(x > 0, r, 0) + b, -1))
    ds = p * (ct - (p * ct).sum(-1, keepdims=True))
    return np.where(x > 0, ds / (2 * r), 0).astype(x.dtype), ds.sum(-1, keepdims=True)


def draw_with_negative(dtype: Any) -> Any:
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 2, size=(3, 5)).astype(dtype)
    x[:, 1] *= -1
    return x, rng.normal(size=(3, 1)).astype(dtype)


@pytest.mark.table(2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_gradient_that_is_zero_to_rounding_has_no_kink(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = draw_with_negative(dtype)
    report = verify_vjp(pull_back_softmax, shifted_softmax, arguments)
    assert report.verdict == "agrees", report
    assert "jax.grad of the forward pass is NaN" in str(report)
    monkeypatch.setattr(kept_zeros, "SAFETY", 0)
    report = verify_vjp(pull_back_softmax, shifted_softmax, arguments)
    assert report.verdict == "inconclusive"


def test_a_kink_shows_beside_a_gradient_that_is_far_larger() -> None:
    def forward(w: Any, u: Any) -> Any:
        return jnp.sqrt(w) * jnp.sqrt(w) + 1e16 * u

    given = np.array([0.0, 1.0, 2.0, 4.0]), np.ones(4)
    report = verify_vjp(lambda _, ct: (ct, 1e16 * ct), forward, given)
    assert report.verdict == "agrees", report
    assert "Left out: the arguments given" in str(report)


def divide_exponentials(x: Any, y: Any) -> Any:
    e = jnp.exp(x)
    return e / e.sum() + jnp.where(y > 0, jnp.sqrt(y), 0)


def pull_back_quotient(arguments: Any, ct: Any) -> Any:
    x, y = arguments
    p = np.asarray(jax.nn.softmax(x))
    root = 2 * np.sqrt(np.where(y > 0, y, 1))
    return p * (ct - (p * ct).sum()), np.where(y > 0, ct / root, 0)


X_LARGE, X_SMALL = np.array([720.0, 650.0, 600.0, 1.0, 2.0]), np.arange(5.0)
Y_USED, Y_LEFT_OUT = np.linspace(1, 2, 5), np.array([1.0, -2.0, 3.0, -1.0, 2.0])
SENTENCE = "multiplies a cotangent of zero by an infinite slope"


@pytest.mark.parametrize(
    ("settings", "cases", "kept"),
    [
        pytest.param([(X_LARGE, Y_USED)], 0, False, id="overflows"),
        pytest.param([(X_LARGE, Y_LEFT_OUT)], 0, False, id="overflows-with-mask"),
        pytest.param([(X_SMALL, Y_USED)], 3, False, id="finite"),
        pytest.param([(X_SMALL, Y_LEFT_OUT)], 3, True, id="mask"),
        pytest.param([(X_LARGE, Y_USED), (X_SMALL, Y_LEFT_OUT)], 3, True, id="both"),
        pytest.param([(X_LARGE, Y_LEFT_OUT), (X_SMALL, Y_USED)], 3, False, id="unused"),
    ],
)
def test_zeros_are_kept_where_that_gives_a_number(settings: Any, cases: int, kept: bool) -> None:
    report = verify_vjp(pull_back_quotient, divide_exponentials, settings)
    assert report.cases == cases, report
    assert report.verdict == ("agrees" if cases else "inconclusive"), report
    assert (SENTENCE in str(report)) is kept


def test_a_point_keeps_no_zeros_that_autodiff_can_do_without() -> None:
    def pull(*points: Any) -> Any:
        arguments = read_arguments(points[0])
        prepared = prepare_pullback(divide_exponentials, arguments)
        names = [*arguments.leaves]
        named = [dict(zip(names, each, strict=True)) for each in points]
        cotangents = [{name: np.arange(1.0, 6.0) for name in prepared.outputs}] * len(points)
        return prepared.pull_back(named, cotangents)

    clean, kept = (X_SMALL, Y_USED), (X_SMALL, Y_LEFT_OUT)
    together = pull(clean, kept, (X_LARGE, Y_USED))
    assert together.kept == [1]
    for name, gradient in pull(clean, clean, clean).gradients.items():
        np.testing.assert_array_equal(together.gradients[name][0], gradient[0])
        assert np.isfinite(together.gradients[name][1]).all()
    assert np.isnan(next(iter(together.gradients.values()))[2]).any()


def test_a_point_that_is_not_to_be_the_first_at_which_zeros_are_kept_waits_for_another() -> None:
    def loss(p: Any) -> Any:
        return jnp.sum(jnp.where(p["a"] > 0, jnp.sqrt(p["a"]), 0.0))

    point = {"a": np.array([0.0, -1.0, 1.0])}
    with use_float64():
        paths = Paths(lambda point: loss)
        found = [paths.follow(point, first=first) for first in (False, True, False)]
        assert [bool(each and each.keeps_zeros) for each in found] == [False, True, True]
        slopes = [np.asarray(each.slopes["a"]) for each in found if each]
    assert np.isnan(slopes[0]).any()
    assert all(np.array_equal(each, [0, 0, 0.5]) for each in slopes[1:])
