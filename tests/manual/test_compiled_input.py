"""The compiled derivation refuses what does not fit, in one sentence."""

import re
from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ALL_LOSSES, CELLS, Sizes
from manual_bptt import jitted
from tests.support.compiled import COMPILED, arguments_of, plain_problem


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        ({"outputs": "each"}, ValueError, "outputs: expected one of last, every, found 'each'"),
        ({"loss": "mean"}, ValueError, f"loss: expected one of {', '.join(ALL_LOSSES)}, found 'mean'"),
        ({"x": np.ones((3, 2))}, ValueError, "x: expected shape (T, B, D) with D = 2, found (3, 2)"),
        ({"y": np.ones(2)}, ValueError, "y: expected shape (B, O) = (2, 2), found (2,)"),
        ({"x": np.ones((3, 2, 2), np.float32)}, TypeError, "x: expected dtype float64 as in U, found float32"),
        ({"h0": np.ones((2, 9))}, ValueError, "h0: expected shape (B, H) = (2, 3), found (2, 9)"),
        ({"params": ()}, TypeError, "params: expected Params(U, W, V[, b, c]), found tuple without U"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(
    cell: str, change: dict[str, Any], exception: type[Exception], message: str
) -> None:
    problem = with_values(
        np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), cell=cell, bias=True, initial_state=True
    )
    for function in (COMPILED[cell].value_and_grad, COMPILED[cell].loss):
        with pytest.raises(exception) as caught:
            function(**(arguments_of(problem) | change))
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        ({"activation": "swish"}, ValueError, "activation: expected one of tanh, sigmoid, relu, identity, found 'swish'"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every: expected at least 1, found 0"),
        ({"checkpoint_every": True}, TypeError, "checkpoint_every: expected an integer, found bool"),
    ],
)  # fmt: skip
def test_options_of_the_rnn_that_do_not_fit_are_refused(
    change: dict[str, Any], exception: type[Exception], message: str
) -> None:
    _, params, x, y, *_ = plain_problem()
    with pytest.raises(exception) as caught:
        jitted.value_and_grad(params, x, y, **change)
    assert str(caught.value) == message


def test_float64_that_jax_made_narrow_is_refused_with_what_to_do() -> None:
    problem = plain_problem(dtype=np.float64)

    def gradient() -> Any:
        return jax.grad(jitted.loss)(problem.params, problem.x, problem.y)

    wanted = "to differentiate float64, JAX needs jax.enable_x64(True)"
    with pytest.raises(TypeError, match=re.escape(f"as in U, found float64; {wanted}")):
        gradient()
    with jax.enable_x64(True):
        assert gradient().U.dtype == np.float64
    mixed = problem._replace(x=problem.x.astype(np.float32))
    with pytest.raises(TypeError, match=r"x: expected dtype float64 as in U, found float32$"):
        jitted.value_and_grad(mixed.params, mixed.x, mixed.y)


def test_classes_that_do_not_exist_are_refused() -> None:
    _, params, x, *_ = plain_problem()
    with pytest.raises(ValueError, match="y: expected classes from 0 to O - 1 = 1, found 2"):
        jitted.value_and_grad(params, x, np.array([0, 1, 2]), loss="softmax_cross_entropy")


def test_a_longdouble_which_jax_would_shorten_is_refused() -> None:
    _, params, x, y, *_ = plain_problem(dtype=np.longdouble)
    with pytest.raises(
        TypeError, match="U: expected bfloat16, float16, float32 or float64, found float"
    ):
        jitted.value_and_grad(params, x, y)
