"""Where arithmetic is exact, agreement is exact."""

from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import polynomial

from bptt_verifier.judge.builtin import make_derivation
from bptt_verifier.problems.problem import Array, Problem, Sizes
from bptt_verifier.reference.autodiff import name_arrays, reference
from bptt_verifier.strategies import integer_problems
from jax_reference import rnn as autodiff
from manual_bptt import jacobian_sum, rnn, rtrl

MODULES = pytest.mark.parametrize("module", [rnn, jacobian_sum, rtrl], ids=lambda m: m.__name__)


@MODULES
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@given(data=st.data())
def test_on_small_integers_not_one_bit_differs_from_autodiff(
    module: ModuleType, dtype: type, data: st.DataObject
) -> None:
    problem = data.draw(integer_problems(dtype))
    assert_bits_equal(make_derivation(module)(problem), reference(problem))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@given(data=st.data())
def test_nor_from_the_unpadded_autodiff_twin_in_the_same_dtype(
    dtype: type, data: st.DataObject
) -> None:
    problem = data.draw(integer_problems(dtype, sizes=st.just(Sizes(3, 2, 1, 2, 2))))
    truth = autodiff.derivatives(problem.params, problem.x, problem.y, **problem.simple_options)
    assert truth.adjoints.dtype == dtype
    assert_bits_equal(make_derivation(rnn)(problem), truth)


def assert_bits_equal(found: dict[str, Any], truth: autodiff.Derivatives) -> None:
    """Every number is an integer, and the same one."""
    known = name_arrays(truth)
    for name, value in found.items():
        if value is not None:
            assert np.array_equal(value, known[name]), name


def rational(values: Array) -> Array:
    """The same numbers as exact fractions, in thirds so that no binary float could hold them."""
    return np.vectorize(lambda v: Fraction(int(v), 3), otypes=[object])(values)


def as_fractions(problem: Problem) -> Problem:
    """The problem over the rationals."""
    return problem.map_arrays(rational)


@given(problem=integer_problems().map(as_fractions))
def test_over_the_rationals_all_three_derivations_give_the_same_fractions(problem: Problem) -> None:
    results = [
        module.value_and_grad(problem.params, problem.x, problem.y, **problem.simple_options)
        for module in (rnn, jacobian_sum, rtrl)
    ]
    for value, gradients in results:
        assert value == results[0][0]
        for name, gradient in gradients._asdict().items():
            if gradient is not None:
                assert (gradient == getattr(results[0][1], name)).all(), name
                assert all(isinstance(entry, int | Fraction) for entry in gradient.flat), name


def exact_derivative(values: list[Fraction]) -> Fraction:
    """f′(0) of the polynomial of lowest degree through (−n, f(−n)), …, (n, f(n))."""
    n = len(values) // 2
    points = range(-n, n + 1)
    derivative = Fraction(0)
    for k, value in zip(points, values, strict=True):
        others = [m for m in points if m != k]
        scale = Fraction(1)
        lagrange = np.array([Fraction(1)], dtype=object)
        for m in others:
            scale *= k - m
            lagrange = polynomial.polymul(
                lagrange, np.array([Fraction(-m), Fraction(1)], dtype=object)
            )
        derivative += value * lagrange[1] / scale
    return derivative


@given(
    problem=integer_problems(activations=("identity",)).map(as_fractions),
    loss=st.sampled_from(["mse", "half_sse"]),
    data=st.data(),
)
def test_over_the_rationals_the_gradient_is_the_derivative_of_the_loss_polynomial(
    problem: Problem, loss: str, data: st.DataObject
) -> None:
    # With the identity as activation L is a polynomial of degree at most 2 T + 2 in any one
    # weight. Its values at 2 T + 3 points determine it, and its derivative, with no rounding and
    # no chain rule.
    problem = problem._replace(loss=loss)
    params, x, y, named = problem.params, problem.x, problem.y, problem.simple_options
    name = data.draw(st.sampled_from([n for n in params._fields if getattr(params, n) is not None]))
    weight = getattr(params, name)
    entry = data.draw(st.sampled_from(list(np.ndindex(weight.shape))))

    def loss_moved_by(step: int) -> Fraction:
        moved = weight.copy()
        moved[entry] += step
        value, _ = rnn.value_and_grad(params._replace(**{name: moved}), x, y, **named)
        return Fraction(value)

    reach = len(x) + 1
    exact = exact_derivative([loss_moved_by(step) for step in range(-reach, reach + 1)])
    for module in (rnn, jacobian_sum, rtrl):
        _, gradients = module.value_and_grad(params, x, y, **named)
        assert getattr(gradients, name)[entry] == exact, module.__name__
