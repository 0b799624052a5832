"""The gradient of a loss by JAX is the same compiled and interpreted, and is evaluated again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from bptt_verifier.program import jax_gradients
from bptt_verifier.program.decisions import CURRENT
from bptt_verifier.program.jax_gradients import compile_gradient, count_operations
from bptt_verifier.program.numpy_code import over_jax
from bptt_verifier.program.paths import Paths
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.zero_cotangents import keep_zeros

Params = dict[str, Any]


def repeat_maximum(a: Any) -> Any:
    """The maximum, inside a loop."""
    return jax.lax.fori_loop(0, 2, lambda _, total: total + jnp.max(a), 0.0)


@pytest.mark.parametrize(("part", "runs"), [(jnp.sum, 1), (jnp.max, 2), (repeat_maximum, 2)])
def test_a_gradient_that_is_not_finite_is_evaluated_again_for_a_maximum_alone(
    part: Callable[[Any], Any], runs: int
) -> None:
    count = 0

    def loss(p: Params) -> Any:
        nonlocal count
        count += 1
        return jnp.sum(jnp.sqrt(p["a"])) + part(p["a"])

    with use_float64():
        _, slopes, _ = compile_gradient(loss)({"a": np.array([0.0, 1.0])})
    assert not np.isfinite(slopes["a"]).all()
    assert count == runs


def test_what_is_evaluated_again_serves_where_one_gradient_of_several_is_not_finite() -> None:
    calls, forgotten = list[Params](), list[int]()

    def loss(p: Params) -> Any:
        """A maximum whose operand is another one where it is not compiled."""
        calls.append(p)
        total = p["a"] if len(calls) > 1 else jnp.sqrt(p["a"])
        return jnp.max(total) + jnp.sum(p["b"])

    point = {"a": np.zeros(1), "b": np.ones(2)}
    with use_float64():
        gradient = compile_gradient(loss, forget=lambda: forgotten.append(len(calls)))
        assert not np.isfinite(np.asarray(gradient(point, again=False)[1]["a"])).any()
        value, slopes, _ = gradient(point)
    assert forgotten == [0, 1]
    assert (float(value), float(slopes["a"][0])) == (2, 1)
    np.testing.assert_array_equal(slopes["b"], 1)


def test_what_is_interpreted_is_not_evaluated_again() -> None:
    calls = list[Params]()

    def loss(p: Params) -> Any:
        calls.append(p)
        return jnp.max(jnp.sqrt(p["a"]))

    with use_float64():
        _, slopes, _ = compile_gradient(loss, interpreted=True)({"a": np.zeros(1)})
    assert not np.isfinite(slopes["a"]).any()
    assert len(calls) == 1


def test_a_loss_that_raises_as_it_is_evaluated_again_keeps_its_first_values() -> None:
    def loss(p: Params) -> Any:
        calls.append(p)
        if len(calls) > 1:
            raise ZeroDivisionError
        return jnp.sum(jnp.sqrt(p["a"])) + jnp.max(p["a"])

    calls: list[Params] = []
    with use_float64():
        value, slopes, decided = compile_gradient(loss)({"a": np.array([0.0, 1.0])})
    assert (float(value), len(calls), decided) == (2.0, 2, [])
    assert slopes["a"].shape == (2,)


def test_operations_are_counted_inside_calls_and_loops_as_well() -> None:
    def step(h: Any, x_t: Any) -> Any:
        return jnp.tanh(h) * x_t, None

    def loss(h: Any, x: Any) -> Any:
        return 2.0 * jax.lax.scan(step, jax.jit(jnp.sin)(h), x)[0]

    counted = count_operations(jax.make_jaxpr(loss)(np.ones(()), np.ones(3)).jaxpr)
    assert counted == len("jit sin scan tanh mul mul".split())


def test_the_kernels_of_long_traces_are_compiled_without_copies_of_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JAX refuses an option that it does not know; the right one leaves the numbers alone."""

    def loss(p: Params) -> Any:
        a = p["a"]
        for _ in range(20):
            a = jnp.tanh(a) * 1.5
        return jnp.sum(a)

    def compute() -> Any:
        with use_float64():
            return compile_gradient(loss)({"a": np.array([0.5, 1.0])})[1]["a"]

    fused = compute()
    monkeypatch.setattr(jax_gradients, "LONG", 50)
    np.testing.assert_allclose(compute(), fused, rtol=1e-13)
    monkeypatch.setattr(jax_gradients, "UNFUSED", {"xla_no_such_option": True})
    with pytest.raises(Exception, match="xla_no_such_option"):
        compute()
    monkeypatch.setattr(jax_gradients, "LONG", 10_000)
    np.testing.assert_array_equal(compute(), fused)


def solve(p: Params, tolerance: float = 1e-3) -> Any:
    """A loss of an iteration that ends by a tolerance, after a number of steps of its own."""
    z = 0 * p["b"]
    while True:
        new = np.tanh(p["W"] @ z + p["b"])
        if np.max(np.abs(new - z)) < tolerance:
            return np.sum(new**2)
        z = new


POINTS = [
    {"W": scale * np.array([[0.5, 0.2], [-0.3, 0.4]]), "b": np.array([0.3, -0.7])}
    for scale in (0.1, 1.0, 1.7, 1.0, 0.1, 1.6)
]


def scalar_at(point: Any) -> Any:
    return over_jax(solve, point)


def test_an_interpreted_gradient_is_the_compiled_one_without_a_compilation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with use_float64():
        scalar = scalar_at(POINTS[1])
        value, slopes, decided = compile_gradient(scalar)(POINTS[1])
        monkeypatch.setattr(jax.stages.Traced, "lower", None)
        for transform in (lambda function: function, keep_zeros):
            found = compile_gradient(scalar, transform, interpreted=True)(POINTS[1])
            assert_allclose(found[0], value, rtol=1e-15)
            for name, slope in slopes.items():
                assert_allclose(found[1][name], slope, rtol=1e-14, atol=1e-16)
            assert [*map(bool, found[2])] == [*map(bool, decided)]


def test_an_interpreted_gradient_with_a_loop_is_the_compiled_one() -> None:
    def loss(p: Params) -> Any:
        states = jax.lax.scan(lambda h, x: (jnp.tanh(h + x), h), jnp.zeros(()), p["a"])[1]
        return jnp.sum(jax.lax.cond(p["a"][0] > 0, jnp.sin, jnp.cos, states) ** 2)

    point = {"a": np.array([0.4, -0.3, 0.8])}
    with use_float64():
        _, compiled, _ = compile_gradient(loss)(point)
        _, interpreted, _ = compile_gradient(loss, interpreted=True)(point)
    assert_allclose(interpreted["a"], compiled["a"], rtol=1e-14)


def test_only_the_first_path_of_long_ones_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each point gets the gradient of its own path, as if every path were compiled."""
    counts = list[int]()
    original = jax_gradients.interpret

    def interpret(traced: Any) -> Any:
        run = original(traced)
        counts.append(0)

        def counted(values: Any, number: int = len(counts) - 1) -> Any:
            counts[number] += 1
            return run(values)

        return counted

    monkeypatch.setattr(jax_gradients, "interpret", interpret)
    with use_float64():
        expected = [Paths(scalar_at).follow(point) for point in POINTS]
        assert not counts
        monkeypatch.setattr("bptt_verifier.program.paths.LONG", 5)
        monkeypatch.setattr("bptt_verifier.program.paths.LONGEST", 50)
        paths = Paths(scalar_at)
        found = [paths.follow(point) for point in POINTS]
    assert [path.interpreted for path in paths.known] == [False, True, True, True]
    # One evaluation of a point, on its own path alone: others are left where decisions differ.
    assert counts == [2, 1, 1]
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        assert one.path.program.outcomes == other.path.program.outcomes
        for name, slope in other.slopes.items():
            assert_allclose(one.slopes[name], slope, rtol=1e-13, atol=1e-15)


def test_a_first_path_that_is_too_long_is_interpreted_but_no_loop_of_jax(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def scan(p: Params) -> Any:
        return jax.lax.scan(lambda h, x: (jnp.tanh(h + x), None), jnp.zeros(()), p["b"])[0]

    monkeypatch.setattr("bptt_verifier.program.paths.LONGEST", 3)
    with use_float64():
        assert Paths(scalar_at).trace(POINTS[0]).interpreted
        assert not Paths(lambda point: scan).trace(POINTS[0]).interpreted


def test_no_more_paths_are_traced_than_have_so_many_operations() -> None:
    with use_float64():
        first = len(Paths(scalar_at).trace(POINTS[0]).program.operations)
        paths = Paths(scalar_at, operations=first)
        found = [paths.follow(point) for point in POINTS]
        assert len(paths.known) == 2  # of which the first has no more than so many
        assert [each is None for each in found] == [False, False, True, False, False, True]
        assert paths.follow(POINTS[2], limited=False) is not None


def test_decisions_are_noted_while_a_gradient_is_traced_alone() -> None:
    with use_float64():
        compile_gradient(scalar_at(POINTS[0]), interpreted=True)(POINTS[0])
    with pytest.raises(LookupError):
        CURRENT.get()
