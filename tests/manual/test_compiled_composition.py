"""The compiled derivation composes with JAX's transformations as any JAX function does."""

from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier.judge.builtin import AUTODIFF
from bptt_verifier.tolerance.comparison import Verdict
from jax_reference import rnn as autodiff_rnn
from manual_bptt import jitted
from tests.support.compiled import plain_problem


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
