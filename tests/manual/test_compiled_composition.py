"""The compiled derivation composes with JAX's transformations as any JAX function does."""

from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier.judge.builtin import AUTODIFF, compare_tangents
from bptt_verifier.problems.draws import draw_direction, with_values
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.tolerance.comparison import Verdict
from jax_reference import rnn as autodiff_rnn
from manual_bptt import jitted
from tests.support.compiled import COMPILED, plain_problem


def same_bits(left: Any, right: Any) -> bool:
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


@pytest.mark.parametrize("T", [2, 6])
def test_loss_under_grad_and_jit_is_value_and_grad(T: int) -> None:
    _, params, x, y, *_ = plain_problem(T)
    direct = jitted.value_and_grad(params, x, y)
    assert same_bits(direct, jax.jit(jitted.value_and_grad)(params, x, y))
    assert same_bits(direct, jax.jit(jax.value_and_grad(jitted.loss))(params, x, y))


def test_a_factor_in_front_of_the_loss_is_one_in_front_of_its_gradient() -> None:
    _, params, x, y, *_ = plain_problem()
    once = jax.grad(jitted.loss)(params, x, y)
    eightfold = jax.grad(lambda p: 8 * jitted.loss(p, x, y))(params)
    assert same_bits(eightfold, jax.tree.map(lambda g: 8 * g, once))


@pytest.mark.parametrize("T", [2, 6])
def test_vmap_over_models_gives_each_model_s_gradient(T: int) -> None:
    problem = plain_problem(T, np.float64)
    params, x, y = problem.params, problem.x, problem.y
    scales = np.array([0.5, 1.0, 2.0])
    models = jax.tree.map(lambda w: scales.reshape(-1, *[1] * w.ndim) * w, params)
    with jax.enable_x64(True):
        together = jax.vmap(jax.grad(jitted.loss), (0, None, None))(models, x, y)
    for number in range(len(scales)):
        one = problem._replace(params=jax.tree.map(lambda w, n=number: np.asarray(w[n]), models))
        found = {name: np.asarray(getattr(together, name)[number]) for name in "UWV"}
        for compared in AUTODIFF.within_bound(one)(found):
            assert compared.verdict is Verdict.AGREES, str(compared)


@pytest.mark.parametrize("T", [2, 6])
def test_an_optimiser_of_two_lines_trains_in_one_compiled_loop(T: int) -> None:
    _, params, x, y, *_ = plain_problem(T)

    def step(params: Any, _: None) -> tuple[Any, Any]:
        value, gradient = jax.value_and_grad(jitted.loss)(params, x, y)
        return jax.tree.map(lambda w, g: w - np.float32(0.1) * g, params, gradient), value

    _, losses = jax.jit(lambda p: jax.lax.scan(step, p, length=500))(params)
    assert losses[-1] < losses[0] / 100


def test_the_gradient_can_be_differentiated_again() -> None:
    _, params, x, y, *_ = plain_problem(dtype=np.float64)

    def curvature(loss: Any) -> Any:
        def along(direction: Any) -> Any:
            return jax.grad(lambda p: loss(p, x, y).V.sum())(direction)

        return along(params)

    with jax.enable_x64(True):
        by_hand = curvature(jax.grad(jitted.loss))
        by_autodiff = curvature(lambda p, x, y: autodiff_rnn.value_and_grad(p, x, y)[1])
    for name in ("U", "W", "V"):
        np.testing.assert_allclose(
            getattr(by_hand, name), getattr(by_autodiff, name), rtol=0, atol=2.0**-40
        )


@pytest.mark.parametrize("T", [2, 6])
def test_forward_mode_is_the_jvp_that_is_derived_by_hand(T: int) -> None:
    problem = plain_problem(T, np.float64)
    direction = draw_direction(0, 0, problem)
    params, x, y = problem.params, problem.x, problem.y
    moved = type(params)(*(getattr(direction, name) for name in params._fields))
    h0 = np.zeros_like(direction.h0)

    def at(p: Any, x: Any, h0: Any) -> Any:
        return jitted.loss(p, x, y, h0, checkpoint_every=None if T == 2 else 2)

    with jax.enable_x64(True):
        value, tangent = jax.jit(lambda *of: jax.jvp(at, of, (moved, direction.x, direction.h0)))(
            params, x, h0
        )
        assert value == pytest.approx(float(jitted.loss(params, x, y)), rel=1e-14)
    (compared,) = compare_tangents(problem, direction)({"loss": np.asarray(tangent)})
    assert compared.verdict is Verdict.AGREES, str(compared)


def test_the_derivative_of_the_compiled_gradient_is_the_hvp_that_is_derived_by_hand() -> None:
    problem = plain_problem(6, np.float64)
    direction = draw_direction(0, 0, problem)._replace(x=None, h0=None)
    params, x, y = problem.params, problem.x, problem.y
    moved = type(params)(*(getattr(direction, name) for name in params._fields))
    with jax.enable_x64(True):
        gradient = jax.grad(lambda p: jitted.loss(p, x, y))
        found = jax.jvp(gradient, (params,), (moved,))[1]
    results = {name: np.asarray(getattr(found, name)) for name in "UWV"}
    for compared in compare_tangents(problem, direction)(results):
        assert compared.verdict is Verdict.AGREES, str(compared)


@pytest.mark.parametrize(
    "cell", ["rnn", *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("lstm", "gru"))]
)
def test_the_hessian_of_the_compiled_loss_is_symmetric_and_its_rows_are_derivatives(
    cell: str,
) -> None:
    problem = with_values(
        np.random.default_rng(3), Sizes(6, 2, 1, 2, 2), cell=cell, dtype=np.float64,
        loss="softmax_cross_entropy", classes=True,
    )  # fmt: skip
    params, x, y = problem.params, problem.x, problem.y

    def of_V(V: Any) -> Any:
        return COMPILED[cell].loss(params._replace(V=V), x, y, loss=problem.loss)

    with jax.enable_x64(True):
        hessian = np.asarray(jax.hessian(of_V)(params.V)).reshape(4, 4)
        forward = np.asarray(jax.jacfwd(jax.jacfwd(of_V))(params.V)).reshape(4, 4)
    # Sums of some ten products of numbers below 1, each rounded to 2⁻⁵³.
    np.testing.assert_allclose(hessian, hessian.T, rtol=0, atol=2.0**-46)
    np.testing.assert_allclose(hessian, forward, rtol=0, atol=2.0**-46)
    rows = np.linalg.eigvalsh(hessian)
    assert rows.min() > -(2.0**-46)  # softmax cross-entropy is convex in V
    assert rows.max() > 2.0**-10


def test_what_does_not_move_has_no_gradient_in_the_compiled_program() -> None:
    _, params, x, y, *_ = plain_problem(6)

    def program(function: Any) -> Any:
        compiled = jax.jit(function).lower(params, x, y).compile()
        counted: Any = compiled.memory_analysis()
        return str(compiled.as_text()).count(" dot("), counted.temp_size_in_bytes

    assert program(jax.value_and_grad(jitted.loss)) == program(jitted.value_and_grad)
    of_inputs = program(jax.value_and_grad(jitted.loss, argnums=(0, 1)))
    assert of_inputs[0] > program(jitted.value_and_grad)[0]
