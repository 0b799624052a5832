"""The compiled step takes lengths, outputs at every step and truncation, and has the bare layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.builtin import AUTODIFF
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ALL_LOSSES, CELLS, Problem, Sizes
from manual_bptt import losses
from manual_bptt.jitted.losses import measure_of
from manual_bptt.sequences import steps_that_count
from tests.support.agreement import assert_right
from tests.support.compiled import COMPILED, GATED, arguments_of

EACH = [("rnn", "tanh"), *GATED]
SIZES = Sizes(T=5, B=3, D=2, H=4, O=3)
# The least of a few sequences is shorter than the window, and one is longer.
RAGGED = {"ragged": True, "truncation": 2}
EVERY = {"ragged": True, "outputs": "every"}


def problem_of(cell: str, option: str, seed: int = 3, **values: Any) -> Problem:
    return with_values(
        np.random.default_rng(seed), SIZES, cell=cell, option=option, bias=True,
        initial_state=True, **values,
    )  # fmt: skip


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "option"), EACH)
@pytest.mark.parametrize(
    "values",
    [
        RAGGED,
        EVERY,
        pytest.param({"outputs": "every"}, marks=pytest.mark.slow),
        pytest.param({"truncation": 2}, marks=pytest.mark.slow),
        pytest.param({"ragged": True}, marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_every_gradient_is_that_of_the_readable_twin(
    cell: str, option: str, values: dict[str, Any]
) -> None:
    problem = problem_of(cell, option, **values)
    given = {**arguments_of(problem), **problem.options}
    value, gradient = COMPILED[cell].value_and_grad(**given)
    known, right = CELLS[cell].value_and_grad(**given)
    assert abs(float(value) - known) <= 2.0**-48 * abs(known)
    for name, array in right._asdict().items():
        if array is not None:  # sums of 15 products of some hundred operations
            off = np.abs(np.asarray(getattr(gradient, name)) - array).max()
            assert off <= 2.0**-42 * np.abs(array).max(), name


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "option"), EACH)
@pytest.mark.parametrize("values", [RAGGED, EVERY], ids="-".join)
def test_every_gradient_agrees_with_autodiff(
    cell: str, option: str, values: dict[str, Any]
) -> None:
    problem = problem_of(cell, option, **values)
    found, gradient = COMPILED[cell].value_and_grad(**arguments_of(problem), **problem.options)
    comparer = AUTODIFF.within_measured_error(problem)
    assert_right(comparer, {"loss": found} | gradient._asdict(), problem)


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "option"), EACH)
@pytest.mark.parametrize("values", [RAGGED, EVERY], ids="-".join)
def test_the_loss_alone_is_the_same_and_has_the_same_gradient(
    cell: str, option: str, values: dict[str, Any]
) -> None:
    problem = problem_of(cell, option, **values)
    given = arguments_of(problem)
    found, gradient = COMPILED[cell].value_and_grad(**given, **problem.options)
    with jax.enable_x64(True):
        alone, differentiated = jax.value_and_grad(
            lambda params: COMPILED[cell].loss(**(given | {"params": params}), **problem.options)
        )(problem.params)
    # Other programs, so other fused operations and other roundings: as above.
    assert abs(float(alone) - float(found)) <= 2.0**-48 * abs(float(found))
    for left, right in zip(gradient, differentiated, strict=True):
        if left is not None:
            off = np.abs(np.asarray(left) - np.asarray(right)).max()
            assert off <= 2.0**-42 * np.abs(np.asarray(right)).max()


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_the_loss_of_a_padded_batch_is_that_of_the_rows_that_count(loss: str) -> None:
    problem = problem_of("rnn", "tanh", loss=loss, **EVERY)
    counted = steps_that_count(problem.lengths, SIZES.T)
    rng = np.random.default_rng(4)
    prediction = rng.normal(size=(SIZES.T, SIZES.B, SIZES.O))
    value, gradient = losses.value_and_gradient(loss, prediction, problem.y, counted)
    with jax.enable_x64(True):
        measure = measure_of(
            loss, jnp.asarray(problem.y), jnp.asarray(prediction), jnp.asarray(problem.lengths)
        )
        found = measure.value(prediction), measure.gradient(jnp.asarray(prediction))
    # Sums of 45 terms of size 1, each of some ten operations.
    np.testing.assert_allclose(found[0], value, rtol=0, atol=2.0**-44)
    np.testing.assert_allclose(found[1], gradient, rtol=0, atol=2.0**-44)


def test_a_window_as_long_as_the_sequence_is_compiled_as_none() -> None:
    problem = problem_of("gru", "after")
    given = arguments_of(problem)

    def program(window: int | None) -> str:
        def gradient(params: Any) -> Any:
            given_ = given | {"params": params}
            return COMPILED["gru"].value_and_grad(**given_, truncation=window)

        with jax.enable_x64(True):
            return str(jax.jit(gradient).lower(problem.params).as_text())

    whole, *others = [program(window) for window in (None, SIZES.T, SIZES.T + 9, SIZES.T - 1)]
    assert [other == whole for other in others] == [True, True, False]


# The bare layer.


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "option"), EACH)
@pytest.mark.parametrize("ragged", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_bare_layer_gives_all_states_and_takes_a_gradient_into_each(
    cell: str, option: str, ragged: bool
) -> None:
    problem = problem_of(cell, option, ragged=ragged)
    module: Any = CELLS[cell]
    entering = np.random.default_rng(5).normal(size=(SIZES.T, SIZES.B, SIZES.H))
    if problem.lengths is not None:
        entering[np.arange(1, SIZES.T + 1)[:, None] > problem.lengths] = 0
    _, trace = module.forward(
        problem.params, problem.x, **problem.first, **problem.option, lengths=problem.lengths
    )
    known = module.backward_through_time(problem.params, trace, entering)

    def weighted(given: dict[str, Any]) -> Any:
        states = COMPILED[cell].layer(**given, **problem.option, lengths=problem.lengths)
        return (states * entering).sum(), states

    given = {"params": problem.params, "x": problem.x, **problem.first}
    with jax.enable_x64(True):
        found, states = jax.grad(weighted, has_aux=True)(given)
    # Some 5 · 4 roundings of numbers of size 1, in another order.
    np.testing.assert_allclose(states, trace.h[1:], rtol=0, atol=2.0**-46)
    for name in ("x", *problem.first):
        np.testing.assert_allclose(found[name], getattr(known, name), rtol=0, atol=2.0**-44)
    for name, value in found["params"]._asdict().items():
        right = getattr(known, name)
        wanted = np.zeros_like(problem.weights[name]) if name in ("V", "c") else right
        np.testing.assert_allclose(value, wanted, rtol=0, atol=2.0**-44)


# What is refused.


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        ({"lengths": np.array([1, 2, 9])}, ValueError, "lengths: expected values from 1 to T = 5, found 9 at (2,)"),
        ({"lengths": np.ones(2, int)}, ValueError, "lengths: expected shape (B,) = (3,), found (2,)"),
        ({"lengths": np.ones(3)}, TypeError, "lengths: expected an integer dtype, found float64"),
        ({"truncation": 0}, ValueError, "truncation: expected at least 1, found 0"),
        ({"truncation": 2, "outputs": "every"}, ValueError, "truncation: expected None with outputs='every', found 2"),
        ({"outputs": "every"}, ValueError, "y: expected shape (T, B, O) = (5, 3, 3), found (3, 3)"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused_in_one_sentence(
    cell: str, change: dict[str, Any], exception: type[Exception], message: str
) -> None:
    problem = problem_of(cell, {"rnn": "tanh", "gru": "after"}.get(cell, ""))
    for function in (COMPILED[cell].value_and_grad, COMPILED[cell].loss):
        with pytest.raises(exception) as caught:
            function(**(arguments_of(problem) | change))
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "change", [{"outputs": "every"}, {"truncation": 2}, {"lengths": np.array([1, 2, 3])}]
)
def test_checkpoints_are_for_whole_sequences(change: dict[str, Any]) -> None:
    problem = problem_of("rnn", "tanh")
    with pytest.raises(ValueError, match=r"^checkpoint_every: expected None with outputs='every'"):
        COMPILED["rnn"].value_and_grad(**arguments_of(problem), **change, checkpoint_every=2)


def test_a_layer_that_does_not_fit_is_refused_in_one_sentence() -> None:
    problem = problem_of("lstm", "")
    with pytest.raises(ValueError, match=r"^c0: expected shape \(B, H\) = \(3, 4\), found"):
        COMPILED["lstm"].layer(problem.params, problem.x, c0=np.ones((3, 9)))
