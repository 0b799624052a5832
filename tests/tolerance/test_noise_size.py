"""The added errors have the size that docs/derivation.md, section 10, states, and no other."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.tolerance.noise import add_noise, measure_error, uniform

UNIT = 2.0**-20
A = np.linspace(0.5, 1.5, 12).reshape(3, 4)
B = np.linspace(-1.0, 0.9, 8).reshape(4, 2)
SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
TWO = np.stack([B.T[:, :3], 9 * A[:2, :3]])  # matrices


def convolve(x: Any) -> Any:
    return lax.conv_general_dilated(x[None, None], jnp.ones((1, 1, 3)), (1,), [(2, 2)])


def add_at_places(x: Any) -> Any:
    return jnp.full(3, 2.0).at[jnp.array([1, 2, 1, 1])].add(x)


def solve(x: Any) -> Any:
    return lax.linalg.triangular_solve(jnp.stack([jnp.eye(2), jnp.eye(2)]), x, left_side=True)


def factorise(x: Any) -> Any:
    return lax.linalg.lu(x)[0]


def find_reflections(x: Any) -> Any:
    return jnp.linalg.qr(x, mode="raw")[0].mT


def find_eigenvalues(x: Any) -> Any:
    return lax.linalg.eigh(x, symmetrize_input=False)[1]


def largest_errors(function: Callable[..., Any], *arguments: Any) -> Any:
    """The largest of 200 errors added to each entry of a result, in units of the roundoff."""
    with jax.enable_x64(True):
        salts = jnp.arange(200, dtype=jnp.uint64)
        noisy = jax.vmap(lambda salt: add_noise(function)(salt, UNIT, *arguments))(salts)
        return np.max(np.abs(np.asarray(noisy) - np.asarray(function(*arguments))), axis=0) / UNIT


LARGE = 1000 * TWO.transpose(0, 2, 1)  # more rows than columns


def state_packed(function: Callable[..., Any], matrices: Any) -> Any:
    """16 times the largest entry of the triangle of each matrix, above or below the diagonal."""
    with jax.enable_x64(True):
        sizes = np.abs(np.asarray(function(matrices)))
    return np.stack(
        [
            16 * np.where(np.tri(3, 2, -1) > 0, np.tril(each, -1).max(), np.triu(each).max())
            for each in sizes
        ]
    )


@pytest.mark.table(5)
@pytest.mark.parametrize(
    ("function", "arguments", "stated"),
    [
        (jnp.sum, (A,), 12**0.5 * A.sum()),
        (jnp.sum, (A * SIGNS,), 12**0.5 * A.sum()),
        (partial(jnp.sum, axis=0), (A,), 3**0.5 * A.sum(axis=0)),
        (partial(jnp.sum, axis=0), (-A,), 3**0.5 * A.sum(axis=0)),
        (jnp.matmul, (A.T, -A), 3**0.5 * A.T @ A),
        (jnp.matmul, (A[:, :1], A[:1]), A[:, :1] @ A[:1]),
        (partial(jnp.sum, axis=0), (A[:1],), A[0]),
        (jnp.multiply, (A, -A), A * A),
        (jnp.tanh, (-A,), 16 * np.tanh(A)),
        (jax.nn.sigmoid, (A,), 16 / (1 + np.exp(-A))),
        (jax.nn.sigmoid, (A - 9,), np.ones_like(A)),  # of ½ + ½ tanh(a/2): units of the constant
        (convolve, (SIGNS[:1] * A[0],), 3**0.5 * np.convolve(A[0], np.ones(3))[None, None]),
        (add_at_places, (A[0],), np.sqrt([1, 4, 2]) * [2, 2 + A[0, [0, 2, 3]].sum(), 2 + A[0, 1]]),
        (partial(jnp.cumprod, axis=1), (A,), 16 * np.cumprod(A, axis=1)),
        (jnp.cumprod, (np.linspace(0.9, 1.1, 20),), 20 * np.cumprod(np.linspace(0.9, 1.1, 20))),
        (lambda x: jnp.fft.fft(x).real, (A,), 16 * A.sum(axis=1)[:, None] * np.ones((3, 4))),
        (solve, (TWO,), 16 * abs(TWO).max((1, 2))[:, None, None] * np.ones((2, 2, 3))),
        (find_eigenvalues, (np.diag([1.0, 2.0, 4.0]),), np.full(3, 16.0 * 4)),
        (factorise, (LARGE,), state_packed(factorise, LARGE)),
        (find_reflections, (LARGE,), state_packed(find_reflections, LARGE)),
        (jnp.linalg.cholesky, (np.ones((0, 0)),), np.ones((0, 0))),
    ],
    ids="sum signs sums negative product one-product one-sum multiply tanh sigmoid tail convolution"
    " additions long-product short-product fourier factorisations eigenvalues triangles"
    " reflections nothing".split(),
)
def test_an_error_is_as_large_as_stated(
    function: Callable[..., Any], arguments: tuple[Any, ...], stated: Any
) -> None:
    found = largest_errors(function, *arguments)
    assert (found <= 1.001 * stated).all()
    assert (found >= 0.9 * stated).all()


@pytest.mark.parametrize("scale", [1.0, 1e9])
def test_solutions_err_alike_whatever_the_scale_of_both_sides(scale: float) -> None:
    matrix = np.eye(3) * [4.0, 3.0, 5.0] + 0.5
    found = largest_errors(jnp.linalg.solve, scale * matrix, scale * A)
    assert (found <= 64 * np.abs(np.linalg.solve(matrix, A)).max()).all()


def test_equal_operations_have_errors_of_their_own() -> None:
    def repeated(x: Any) -> Any:
        return jnp.stack([x * 1.1 for _ in range(150)])

    def in_both_branches(x: Any) -> Any:
        return lax.switch(0, [lambda x: x * 1.1], x), lax.switch(0, [lambda x: x * 1.1], x)

    with jax.enable_x64(True):
        for function, number in [(repeated, 150), (in_both_branches, 2)]:
            noisy = add_noise(function)(jnp.uint64(1), UNIT, jnp.float64(1.0))
            assert len(set(np.asarray(noisy).tolist())) == number


def test_the_random_numbers_are_those_of_splitmix64() -> None:
    # Its first number from seed 0, and from seed 1234567 (Steele, Lea & Flood 2014; Vigna's code).
    golden = 0x9E3779B97F4A7C15
    for seed, expected in [(0, 0xE220A8397B1DCDAF), (1234567, 6457827717110365317)]:
        with jax.enable_x64(True):
            found = uniform(jnp.float64(0.0), jnp.uint64((seed + golden) ^ golden))
        signed = expected - (expected >> 63 << 64)
        assert float(found) == signed / 2.0**63


@pytest.mark.parametrize("roundoff", [2.0**-24, 2.0**-53])
def test_the_allowed_error_is_sixteen_times_the_largest_of_eight_deviations(
    roundoff: float,
) -> None:
    size = max(roundoff, 2.0**-43)
    with jax.enable_x64(True):
        # Each of the eight is the furthest of some of so many entries.
        x = np.linspace(0.5, 1.5, 100)
        allowed = np.asarray(measure_error(jnp.tanh, roundoff, x)[1])
        noisy = [add_noise(jnp.tanh)(jnp.uint64(salt), size, x) for salt in range(1, 9)]
        furthest = np.max(np.abs(np.array(noisy) - np.asarray(jnp.tanh(x))), axis=0)
    np.testing.assert_allclose(allowed, 16 * furthest * roundoff / size, rtol=1e-6)


def test_a_deviation_beyond_an_eighth_of_the_result_is_not_divided() -> None:
    # x + 1 rounds in units of 1: the deviation is at most 2⁻⁴³, whatever the size of x.
    def cancelling(x: Any) -> Any:
        return ((x + 1.0) - 1.0) * kept

    kept = np.array([1.0, 0.0, 1.0])  # the largest deviation and the largest result decide
    divided = set()
    for times in (6.5, 7.0, 7.75, 8.0, 8.25, 16.0):
        x = np.full(3, times * 2.0**-43)
        with jax.enable_x64(True):
            allowed = np.max(np.asarray(measure_error(cancelling, 2.0**-53, x)[1]))
            noisy = [add_noise(cancelling)(jnp.uint64(n), 2.0**-43, x) for n in range(1, 9)]
        deviation = np.max(np.abs(np.array(noisy) - x * kept))
        linear = deviation <= times * 2.0**-43 / 8
        assert allowed == pytest.approx(16 * deviation * (2.0**-10 if linear else 1), rel=1e-3)
        divided.add((bool(linear), bool(deviation <= times * 2.0**-43 / 9)))
    assert divided == {(True, True), (True, False), (False, False)}


def recur(x: Any) -> Any:
    """A loop with operands that are constant, carried and sliced, run backwards."""

    def step(carry: Any, x_t: Any) -> Any:
        h, total = carry
        h = jnp.tanh(h @ B[:2] + B[2] * x_t)
        return (h, total + h), h * 1.5

    return lax.scan(step, (x[0], 2 * x[1]), x, reverse=True)


@pytest.mark.parametrize(
    "function",
    [
        recur,
        lambda x: lax.switch(1, [jnp.tanh, lambda x: x * x], x),
        jax.checkpoint(lambda x: jax.nn.relu(x - 0.75)),
    ],
    ids=["loop", "choice", "calls"],
)
def test_with_errors_of_no_size_the_result_is_the_function_s_own(function: Any) -> None:
    x = A.reshape(6, 2)
    with jax.enable_x64(True):
        found, own = add_noise(function)(jnp.uint64(1), 0.0, x), function(x)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-14)
