"""The hand derivations and autodiff agree."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ACTIVATIONS, LOSSES, Problem, Sizes
from bptt_verifier.reference import complex_step
from bptt_verifier.reference.autodiff import name_arrays, reference
from bptt_verifier.strategies import problems
from bptt_verifier.strategies import sizes as drawn_sizes
from bptt_verifier.tolerance.bounds import Bounds, bounds
from bptt_verifier.tolerance.comparison import Verdict, compare
from jax_reference import padded
from jax_reference import rnn as autodiff
from jax_reference.padded import Capacity
from manual_bptt import jacobian_sum, rnn, rtrl
from tests.support.agreement import assert_agrees

MODULES = pytest.mark.parametrize("module", [rnn, jacobian_sum, rtrl], ids=lambda m: m.__name__)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


def bounds_of(problem: Problem, dtype: type = np.float64) -> Bounds:
    return bounds(
        problem.params, problem.x, problem.y, reference(problem),
        dtype=dtype, loss=problem.loss, **problem.option,
    )  # fmt: skip


@MODULES
@DTYPES
@given(data=st.data())
def test_every_gradient_of_every_derivation_agrees_with_autodiff(
    module: ModuleType, dtype: type, data: st.DataObject
) -> None:
    assert_agrees(module, data.draw(problems(dtype)))


@pytest.mark.table(7)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
@DTYPES
def test_the_unpadded_autodiff_twin_agrees_in_the_same_dtype(
    activation: str, loss: str, dtype: type
) -> None:
    sizes = Sizes(T=5, B=2, D=3, H=4, O=2)
    problem = with_values(
        np.random.default_rng(7), sizes, dtype=dtype, option=activation, loss=loss, bias=True
    )
    params, x, y, named = problem.params, problem.x, problem.y, problem.simple_options
    value, by_hand = rnn.value_and_grad(params, x, y, **named)
    twin_value, by_autodiff = autodiff.value_and_grad(params, x, y, **named)
    allowed = bounds_of(problem, dtype)
    assert type(by_autodiff) is type(params)
    results = {"loss": (value, twin_value)} | {
        name: (getattr(by_hand, name), getattr(by_autodiff, name)) for name in params._fields
    }
    results["adjoints"] = (
        rnn.adjoints(params, x, y, **named),
        autodiff.adjoints(params, x, y, **named),
    )
    results["prediction"] = (
        rnn.predict(params, x, activation=activation),
        autodiff.predict(params, x, activation=activation),
    )
    for name, (ours, twin) in results.items():
        assert twin.dtype == dtype, name
        # Both are in this dtype, so each may be off by its own bound.
        compared = compare(name, ours, np.asarray(twin), 2 * getattr(allowed, name))
        assert compared.verdict is Verdict.AGREES, str(compared)


@given(problem=problems(sizes=drawn_sizes(Capacity(T=5, B=2, D=3, H=3, O=2))))
def test_complex_steps_as_a_third_opinion_agree_with_both(problem: Problem) -> None:
    truth = reference(problem)
    _, by_hand = rnn.gradients(problem.params, problem.x, problem.y, **problem.simple_options)
    third = complex_step.differentiate(problem)
    # A complex product is two real ones and a sum, so complex arithmetic rounds as real arithmetic
    # with four times the unit roundoff would (Higham, lemma 3.5); the bound is linear in it, and
    # a factor 2 covers what is not.
    allowed = bounds_of(problem)
    for name, value in third.items():
        for witness in (by_hand, truth):
            if getattr(witness, name) is not None:
                bound = (1 + 2 * 4) * getattr(allowed, name)
                compared = compare(name, np.asarray(getattr(witness, name)), value, bound)
                assert compared.verdict is not Verdict.DISAGREES, str(compared)


@given(problem=problems())
def test_one_hot_inputs_make_column_t_of_the_gradient_for_U_the_adjoint_of_step_t(
    problem: Problem,
) -> None:
    T, H = len(problem.x), len(problem.params.W)
    U = np.random.default_rng(T).normal(size=(H, T))
    x = np.eye(T)[:, None, :]
    y = problem.y[:1]
    first = {name: state[:1] for name, state in problem.first.items()}
    one = problem._replace(params=problem.params._replace(U=U), x=x, y=y, first=first)
    _, found = rnn.gradients(one.params, one.x, one.y, **one.simple_options)
    assert np.array_equal(found.U.T, found.adjoints[:, 0])


def compilations() -> int:
    return padded._derivatives._cache_size()


def test_the_padded_path_compiles_once_for_all_shapes() -> None:
    rng = np.random.default_rng(0)

    def run(sizes: Sizes) -> None:
        drawn = with_values(rng, sizes)
        padded.derivatives(
            drawn.params, drawn.x, drawn.y, **drawn.simple_options, capacity=Capacity(9, 3, 3, 3, 3)
        )

    run(Sizes(9, 3, 3, 3, 3))
    compiled = compilations()
    for sizes in (Sizes(1, 1, 1, 1, 1), Sizes(4, 2, 3, 1, 2), Sizes(9, 1, 2, 3, 1)):
        run(sizes)
    assert compilations() == compiled


# Every new shape compiles the unpadded path anew: few shapes, fewer examples.
SHAPES = [
    Sizes(1, 1, 1, 1, 1),
    Sizes(1, 2, 3, 4, 2),
    Sizes(2, 1, 1, 3, 1),
    Sizes(4, 3, 2, 1, 2),
    Sizes(7, 1, 4, 4, 3),
    Sizes(12, 4, 6, 6, 4),
]


@settings(max_examples=max(1, settings().max_examples // 5))
@given(problem=problems(sizes=st.sampled_from(SHAPES)))
def test_the_padded_path_equals_the_unpadded_one(problem: Problem) -> None:
    laid = reference(problem)
    plain = autodiff.derivatives(problem.params, problem.x, problem.y, **problem.simple_options)
    found, known, allowed = name_arrays(plain), name_arrays(laid), bounds_of(problem)
    for name in known:
        compared = compare(name, found[name], known[name], 2 * getattr(allowed, name))
        assert compared.verdict is not Verdict.DISAGREES, str(compared)
    assert laid.states.h.shape == plain.states.h.shape
    assert laid.states.a.shape == plain.states.a.shape
    assert {"b", "c"} & known.keys() == ({"b", "c"} if problem.params.b is not None else set())


def test_a_problem_beyond_the_capacity_is_refused() -> None:
    _, params, x, y, *_ = with_values(np.random.default_rng(0), Sizes(3, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="capacity: expected T ≥ 3, found T = 2"):
        padded.derivatives(params, x, y, capacity=Capacity(2, 1, 1, 1, 1))
