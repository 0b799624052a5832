"""Verdicts on forward mode and on Hessian-vector products, in the precision they run in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import (
    DerivationError,
    Verdict,
    assert_hvp_verified,
    assert_jvp_verified,
    verify_hvp,
    verify_jvp,
    verify_transpose,
)
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Sizes
from jax_reference.rnn import value_and_grad
from manual_bptt import tangents
from manual_bptt.rnn import Params
from tests.support.kernels import backward_of, draw_rnn, rnn, rnn_in_numpy, within

SMALL = {"T": 2, "B": 2, "D": 2, "H": 3}


def loss(x: Any, U: Any, W: Any) -> Any:
    return (rnn(x, U, W)[1] ** 2).sum()


def along(function: Any, change: Callable[[Any], Any] = lambda found: found) -> Any:
    """The push-forward of a function by JAX, and what `change` makes of its tangents."""
    compiled = jax.jit(lambda at, direction: jax.jvp(function, at, direction)[1])

    def moved(arguments: Any, direction: Any) -> Any:
        with jax.enable_x64(arguments[0].dtype == np.float64):
            found = compiled(tuple(arguments), tuple(direction))
            return change([np.array(each) for each in found])

    return moved


hessian_along = along(jax.grad(loss, argnums=(0, 1, 2)))
PRECISIONS = [np.float64, np.float32, jnp.bfloat16]


@pytest.mark.parametrize("dtype", PRECISIONS[::2], ids=lambda d: np.dtype(d).name)
def test_right_forward_mode_agrees_in_its_precision(dtype: Any) -> None:
    inner = np.float64 if dtype is np.float64 else np.float32
    report = verify_jvp(along(within(rnn, inner)), rnn, draw_rnn(dtype, **SMALL), cases=1)
    assert report.verdict is Verdict.AGREES, report
    assert [*report.parameters] == ["tangent of outputs[0]", "tangent of outputs[1]"]


def test_one_per_cent_of_a_tangent_is_told_from_rounding_in_bfloat16() -> None:
    def one_per_cent(found: list[Any]) -> list[Any]:
        return [found[0], (found[1].astype(np.float32) * 1.01).astype(jnp.bfloat16)]

    jvp = along(within(rnn, np.float32), one_per_cent)
    report = verify_jvp(jvp, rnn_in_numpy, draw_rnn(jnp.bfloat16), cases=1)
    verdicts = [str(each.verdict) for each in report.parameters.values()]
    assert verdicts == ["agrees", "disagrees"], report
    assert "tangent of outputs[1]" in str(report)


def test_the_arguments_whose_direction_goes_wrong_are_named() -> None:
    right = along(rnn)

    def without_W(arguments: Any, direction: Any) -> Any:
        x, U, W = direction
        return right(arguments, (x, U, np.zeros_like(W)))

    with pytest.raises(DerivationError, match="where W moves"):
        assert_jvp_verified(without_W, rnn, draw_rnn(np.float64, **SMALL), cases=1)


@pytest.mark.rest
def test_what_is_wrong_with_a_result_is_named_or_placed() -> None:
    doubled = along(rnn, lambda found: [found[0], 2 * found[1]])
    report = verify_jvp(doubled, rnn, draw_rnn(np.float64, **SMALL), cases=1)
    (mistake,) = report.mistakes
    assert mistake.name == "constant-factor"
    assert mistake.explanation.startswith("in tangent of outputs[1], every entry is 2 times")

    def forget_the_last_step(found: list[Any]) -> list[Any]:
        found[0][-1] = 0
        return found

    report = verify_jvp(along(rnn, forget_the_last_step), rnn, draw_rnn(np.float64, **SMALL))
    assert "at index 1, the last of axis 0" in report.mistakes[0].explanation


def test_an_output_that_does_not_move_is_right_if_its_tangent_is_zero() -> None:
    def with_a_constant(x: Any, U: Any, W: Any) -> Any:
        return rnn(x, U, W)[1], jnp.ones_like(x[0])

    report = verify_jvp(along(with_a_constant), with_a_constant, draw_rnn(np.float64, **SMALL))
    assert report.verdict is Verdict.AGREES
    assert "Zero, to rounding, in all cases: tangent of outputs[1]" in str(report)


def test_what_is_not_linear_in_the_direction_has_a_name() -> None:
    right = along(rnn)

    def squared(arguments: Any, direction: Any) -> Any:
        return [each * np.abs(each) for each in right(arguments, direction)]

    report = verify_jvp(squared, rnn, draw_rnn(np.float64, **SMALL), cases=1)
    assert [mistake.name for mistake in report.mistakes] == ["not-linear-in-direction"]


def test_a_function_that_counts_its_calls_has_a_name() -> None:
    calls, right = [0], along(rnn)

    def counting(arguments: Any, direction: Any) -> Any:
        calls[0] += 1
        return [each * (1.0 if calls[0] <= 18 else 1.1) for each in right(arguments, direction)]

    report = verify_jvp(counting, rnn, draw_rnn(np.float64, **SMALL), cases=1)
    assert report.verdict is Verdict.DISAGREES
    assert report.mistakes[0].name in {"depends-on-calls", "not-deterministic"}
    assert "the tangent of outputs" in report.mistakes[0].explanation


BREACHES = {
    "too few": ("wrong-shape", lambda a, d: rnn(*a)[0]),
    "NaN": ("not-finite", lambda a, d: [each * np.nan for each in rnn(*a)]),
    "modified": ("inputs-modified", lambda a, d: d[1].fill(0) or rnn(*a)),
}


@pytest.mark.parametrize(("name", "jvp"), BREACHES.values(), ids=BREACHES)
def test_a_breach_of_the_contract_has_a_name(name: str, jvp: Any) -> None:
    report = verify_jvp(jvp, rnn_in_numpy, draw_rnn(np.float32, **SMALL), cases=1)
    assert [mistake.name for mistake in report.mistakes] == [name]
    assert "gradient" not in report.mistakes[0].explanation


@pytest.mark.parametrize("dtype", PRECISIONS[1:2], ids=lambda d: np.dtype(d).name)
def test_a_right_hessian_vector_product_agrees(dtype: Any) -> None:
    report = verify_hvp(hessian_along, loss, draw_rnn(dtype, **SMALL), cases=1)
    assert report.verdict is Verdict.AGREES, report
    assert [*report.parameters] == ["R{x}", "R{U}", "R{W}"]


@pytest.mark.rest
def test_the_product_without_the_second_derivative_of_the_loss_disagrees() -> None:
    @jax.jit
    def compiled(arguments: Any, direction: Any) -> Any:  # Gauss and Newton's, 2 Jᵀ J d
        tangent = jax.jvp(lambda *at: rnn(*at)[1], arguments, direction)[1]
        return jax.vjp(lambda *at: rnn(*at)[1], *arguments)[1](2 * tangent)

    def linear_along(arguments: Any, direction: Any) -> Any:
        with jax.enable_x64(True):
            return compiled(arguments, direction)

    arguments = tuple(map(np.asarray, draw_rnn(np.float64, **SMALL)))
    with pytest.raises(DerivationError, match=r"R\{∂L/∂W\}"):
        assert_hvp_verified(linear_along, loss, arguments, cases=1)


def test_the_tangents_by_hand_agree_where_integers_are_data_and_arguments_a_mapping() -> None:
    problem = with_values(
        np.random.default_rng(0), Sizes(3, 2, 2, 2, 3), loss="softmax_cross_entropy", classes=True
    )
    params, x, y = problem.params, problem.x, problem.y

    def stated(params: Any, x: Any, y: Any) -> Any:
        return value_and_grad(Params(**params), x, y, loss=problem.loss)[0]

    def by_hand(arguments: Any, direction: Any) -> Any:
        at, along = Params(**arguments["params"]), Params(**direction["params"])
        assert direction["y"].dtype == np.int64
        d = tangents.Direction(**along._asdict() | {"x": direction["x"]})
        given = at, d, arguments["x"], arguments["y"]
        found = tangents.hvp(*given, loss=problem.loss)
        return {"params": {n: getattr(found, n) for n in "UVW"}, "x": found.x, "y": None}

    weights = {name: value for name, value in params._asdict().items() if value is not None}
    report = verify_hvp(by_hand, stated, {"params": weights, "x": x, "y": y}, cases=1)
    assert report.verdict is Verdict.AGREES, report


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    arguments = draw_rnn(np.float64, **SMALL)
    with pytest.raises(ValueError, match=r"^loss: expected a function that returns one number"):
        verify_hvp(hessian_along, rnn, arguments)
    with pytest.raises(ValueError, match=r"^direction: expected the structure and shapes of the"):
        verify_jvp(along(rnn), rnn, arguments, direction=(1.0, 2.0))
    assert verify_jvp(along(rnn), rnn, arguments, direction=arguments, cases=1)


FORMATS = [
    (np.float64, np.float64), (np.float32, np.float32), (jnp.bfloat16, np.float32),
    (np.float16, np.float32), (jnp.bfloat16, jnp.bfloat16), (np.float16, np.float16),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "inner"), FORMATS, ids=str)
def test_no_right_case_is_called_wrong(dtype: Any, inner: Any) -> None:
    arguments, gradient = draw_rnn(dtype), jax.grad(loss, argnums=(0, 1, 2))
    for seed in range(2):
        again: Any = {"cases": 40, "seed": seed}
        assert verify_jvp(along(within(rnn, inner)), rnn, arguments, **again)
        assert verify_hvp(along(within(gradient, inner)), loss, arguments, **again)
        jvp, vjp = along(within(rnn, inner), tuple), backward_of(within(rnn, inner))
        assert verify_transpose(jvp, vjp, arguments, **again)


def test_cases_that_are_left_out_are_stated_and_a_wrong_one_is_shown() -> None:
    def jvp(arguments: Any, direction: Any, factor: float = 1.0) -> Any:
        x, dx = (each[0].astype(np.float32) for each in (arguments, direction))
        with np.errstate(over="ignore"):
            return (factor * 3 * dx * x**2).astype(np.float16)

    small = np.array([1, 2, 3], np.float16)
    settings = [(60 * small,), (small,)]
    report = verify_jvp(jvp, lambda x: x**3, settings, cases=1)
    assert report.verdict is Verdict.AGREES, report
    assert "Left out: the arguments given." in str(report)
    wrong = verify_jvp(lambda a, d: jvp(a, d, 1.5), lambda x: x**3, settings, cases=1)
    assert wrong.counterexample is not None
    assert wrong.counterexample.reproduce.startswith("verify_jvp(jvp, forward, arguments, seed=0")


def penalised(W: Any, X: Any) -> Any:
    return (jnp.tanh(X @ W) ** 3).sum() + 0.05 * (W**2).sum()


@pytest.mark.rest
@pytest.mark.parametrize(
    ("by", "said", "dtype"),
    [
        (-0.1, "the product lacks 0.1 times the direction", np.float64),
        (0.2, "has too much by 0.2 times", np.float32),
    ],
)
def test_a_penalty_that_a_product_lacks_is_named(by: float, said: str, dtype: Any) -> None:
    rng = np.random.default_rng(8)
    arguments = rng.normal(size=(4, 3)).astype(dtype), rng.normal(size=(6, 4)).astype(dtype)
    right = along(jax.grad(penalised, argnums=(0, 1)))

    def hvp(given: Any, direction: Any) -> Any:
        of_W, of_X = right(given, direction)
        return (of_W + dtype(by) * np.asarray(direction[0])).astype(dtype), of_X

    (mistake,) = verify_hvp(hvp, penalised, arguments).mistakes
    assert mistake.name == "weight-decay"
    assert said in mistake.explanation


@pytest.mark.rest
def test_another_error_along_the_direction_is_no_penalty() -> None:
    """A multiple that differs by entry, or by case, is none of a sum of squares."""
    rng = np.random.default_rng(8)
    arguments = rng.normal(size=(4, 3)), rng.normal(size=(6, 4))
    right = along(jax.grad(penalised, argnums=(0, 1)))
    for change in (lambda W, d: W**2 * d, lambda W, d: W[0, 0] * d):

        def hvp(given: Any, direction: Any, change: Any = change) -> Any:
            of_W, of_X = right(given, direction)
            return of_W + change(given[0], np.asarray(direction[0])), of_X

        report = verify_hvp(hvp, penalised, arguments)
        assert report.verdict is Verdict.DISAGREES
        assert "weight-decay" not in {each.name for each in report.mistakes}
