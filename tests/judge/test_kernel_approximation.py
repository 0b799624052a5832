"""Approximations on purpose: judged against their own definition, measured against the truth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.judge.kernel_approximation import describe_distance
from tests.support.kernels import draw_rnn, rnn

COMPILED: dict[Any, Any] = {}


def truncate(arguments: Any, cotangents: Any, keep: bool = False) -> Any:
    """The gradient without paths through earlier states, by JAX in the arguments' precision."""

    def cut(x: Any, U: Any, W: Any) -> Any:
        h, states = jnp.zeros((x.shape[1], W.shape[0]), x.dtype), []
        for each in x:
            h = jnp.tanh(each @ U.T + (h if keep else jax.lax.stop_gradient(h)) @ W.T)
            states.append(h)
        return jnp.stack(states), h

    def pull(arguments: Any, cotangents: Any) -> Any:
        return jax.vjp(cut, *arguments)[1](cotangents)

    given = (tuple(map(jnp.asarray, each)) for each in (arguments, cotangents))
    return tuple(
        map(np.asarray, COMPILED.setdefault((keep, arguments[0].dtype), jax.jit(pull))(*given))
    )


@pytest.mark.rest
def test_a_truncated_gradient_is_right_by_its_own_definition_alone() -> None:
    arguments = draw_rnn(np.float32, T=2)
    report = verify_vjp(truncate, rnn, arguments, reference=truncate, cases=1)
    assert report.verdict is Verdict.AGREES, str(report)
    assert "Compared with the true gradient, the stated one has, for U: relative error 0." in str(
        report
    )
    assert "and cosine 0." in str(report)
    true = lambda arguments, d: truncate(arguments, d, keep=True)  # noqa: E731
    assert not verify_vjp(true, rnn, arguments, reference=truncate, cases=1)


def test_a_distance_is_a_relative_error_and_a_cosine() -> None:
    assert describe_distance(4.0, 2.0, 1.0) == "relative error 1 and cosine 1"
    assert describe_distance(1.0, 0.0, 1.0) == "relative error 1.4 and cosine 0"
    assert "true gradient is zero" in describe_distance(1.0, 0.0, 0.0)


def fire(x: Any) -> Any:
    """Spikes: a step function."""
    return jnp.where(x > 0.1, 1.0, 0.0)


def surrogate(arguments: Any, d: Any) -> Any:
    """The slope of a fast sigmoid in the place of that of a step."""
    return (d / (1 + np.abs(arguments[0] - 0.1)) ** 2,)


def test_a_surrogate_is_right_as_stated_and_is_no_influence_of_rows_where_the_truth_is_zero() -> (
    None
):
    given = (np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),)
    report = verify_vjp(surrogate, fire, given, reference=surrogate, cases=1)
    assert report, report
    assert "no measure, since the true gradient is zero" in str(report)
    (mistake,) = verify_vjp(surrogate, fire, given, cases=1).mistakes
    assert mistake.name == "unknown"
    assert "they should be zero" in mistake.explanation
