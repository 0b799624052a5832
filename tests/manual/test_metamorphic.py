"""What must be true of the gradients whatever their values."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.problems.problem import Problem
from bptt_verifier.reference.autodiff import reference
from bptt_verifier.strategies import problems, sizes
from bptt_verifier.tolerance.bounds import bounds
from jax_reference.padded import Capacity
from manual_bptt import rnn


def gradients(problem: Problem) -> Any:
    return rnn.gradients(problem.params, problem.x, problem.y, **problem.simple_options)[1]


def sequence(problem: Problem, i: int) -> Problem:
    """The problem of sequence i of the batch alone."""
    first = {name: state[[i]] for name, state in problem.first.items()}
    return problem._replace(x=problem.x[:, [i]], y=problem.y[[i]], first=first)


def assert_within_bound(problem: Problem, name: str, left: np.ndarray, right: np.ndarray) -> None:
    """Two results for the gradient `name` of `problem`, each of which may be off by its bound."""
    bound = bounds(
        problem.params, problem.x, problem.y, reference(problem),
        dtype=np.float64, loss=problem.loss, **problem.option,
    )  # fmt: skip
    assert (np.abs(left - right) <= 2 * getattr(bound, name)).all(), name


@given(problem=problems(losses=("half_sse",)))
def test_gradients_add_over_the_batch(problem: Problem) -> None:
    whole = gradients(problem)
    parts = [gradients(sequence(problem, i)) for i in range(len(problem.y))]
    for name in ("U", "W", "V"):
        assert_within_bound(
            problem, name, getattr(whole, name), sum(getattr(part, name) for part in parts)
        )
    for i, part in enumerate(parts):
        alone = sequence(problem, i)
        assert_within_bound(alone, "adjoints", whole.adjoints[:, [i]], part.adjoints)


@given(problem=problems(sizes=sizes(Capacity(T=1, B=4, D=6, H=6, O=4))))
def test_one_step_from_a_zero_state_gives_W_no_gradient(problem: Problem) -> None:
    assert not gradients(problem._replace(first={})).W.any()


@given(problem=problems(), data=st.data())
def test_permuting_the_hidden_units_permutes_the_gradients(
    problem: Problem, data: st.DataObject
) -> None:
    U, W, V, b, c = problem.params
    order = np.array(data.draw(st.permutations(range(len(W)))))
    permuted = problem._replace(
        params=rnn.Params(
            U[order], W[np.ix_(order, order)], V[:, order], None if b is None else b[order], c
        ),
        first={name: state[:, order] for name, state in problem.first.items()},
    )
    plain, found = gradients(problem), gradients(permuted)
    assert_within_bound(permuted, "U", found.U, plain.U[order])
    assert_within_bound(permuted, "W", found.W, plain.W[np.ix_(order, order)])
    assert_within_bound(permuted, "V", found.V, plain.V[:, order])
    assert_within_bound(permuted, "adjoints", found.adjoints, plain.adjoints[:, :, order])


@given(problem=problems())
def test_with_W_zero_only_the_last_step_contributes_to_U(problem: Problem) -> None:
    params = problem.params._replace(W=np.zeros_like(problem.params.W))
    found = gradients(problem._replace(params=params))
    assert not found.adjoints[:-1].any()
    last = np.einsum("bh,bd->hd", found.adjoints[-1], problem.x[-1])
    assert_within_bound(problem._replace(params=params), "U", found.U, last)


@given(problem=problems(), exponent=st.integers(-20, 20))
def test_scaling_the_output_gradient_by_a_power_of_two_scales_every_gradient_exactly(
    problem: Problem, exponent: int
) -> None:
    params = problem.params
    _, trace = rnn.forward(params, problem.x, **problem.first, **problem.option)
    upstream = np.random.default_rng(0).normal(size=problem.y.shape)
    plain = rnn.backward(params, trace, upstream)
    scaled = rnn.backward(params, trace, upstream * 2.0**exponent)
    for name, gradient in plain._asdict().items():
        if gradient is not None:
            assert np.array_equal(gradient * 2.0**exponent, getattr(scaled, name)), name


@given(problem=problems())
def test_a_prediction_that_is_exact_has_no_gradient(problem: Problem) -> None:
    y = rnn.predict(problem.params, problem.x, **problem.first, **problem.option)
    for name, gradient in gradients(problem._replace(y=y))._asdict().items():
        assert gradient is None or not gradient.any(), name
