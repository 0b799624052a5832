"""The compiled derivation gives autodiff's gradients, with respect to every argument."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_verifier.judge.builtin import AUTODIFF
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ALL_LOSSES, CELLS, Problem, Sizes
from bptt_verifier.reference.autodiff import measure_reference
from bptt_verifier.strategies import cell_problems, integer_problems, problems
from bptt_verifier.tolerance.comparison import Verdict, compare
from jax_reference import losses as autodiff_losses
from jax_reference import rnn as autodiff_rnn
from manual_bptt import jitted, rnn
from manual_bptt.jitted import step
from tests.support.compiled import (
    COMPILED,
    GATED,
    SHAPES,
    arguments_of,
    assert_agrees,
    assert_cell_agrees,
    assert_rnn_agrees,
)
from tests.support.stated_bound import stated_bound, states_of

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
FEWER = settings(max_examples=max(4, settings().max_examples // 10))


@DTYPES
@FEWER
@given(data=st.data(), checkpoint_every=st.sampled_from([None, 2, 5]))
def test_every_gradient_of_the_rnn_agrees_with_autodiff(
    dtype: type, data: st.DataObject, checkpoint_every: int | None
) -> None:
    problem = data.draw(problems(dtype, sizes=st.sampled_from(SHAPES)))
    assert_rnn_agrees(jitted.rnn, problem, checkpoint_every)


@pytest.mark.table(3)
@DTYPES
@pytest.mark.parametrize("checkpoint_every", [None, 5, 6])
@pytest.mark.parametrize("T", [5, 8, 11])
def test_several_steps_back_at_a_time_give_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, T: int, checkpoint_every: int | None, dtype: type
) -> None:
    monkeypatch.setattr(jitted.rnn, "LARGE", 1)  # seen only by shapes that no other test compiles
    problem = with_values(np.random.default_rng(1), Sizes(T, 3, 3, 5, 1), dtype=dtype)
    assert_rnn_agrees(jitted.rnn, problem, checkpoint_every)


@pytest.mark.table(6)
@pytest.mark.parametrize("cell", CELLS)
@DTYPES
@FEWER
@given(data=st.data())
def test_every_gradient_of_every_cell_and_loss_agrees_with_autodiff(
    cell: str, dtype: type, data: st.DataObject
) -> None:
    plain = cell_problems(
        cell, dtype, sizes=st.just(SHAPES[2]), outputs=("last",), ragged=st.just(False),
        truncated=False,
    )  # fmt: skip
    assert_cell_agrees(COMPILED[cell], data.draw(plain))


@pytest.mark.table(2)
@DTYPES
@FEWER
@given(data=st.data(), checkpoint_every=st.sampled_from([None, 1, 2]))
def test_on_small_integers_not_one_bit_differs_from_autodiff(
    dtype: type, data: st.DataObject, checkpoint_every: int | None
) -> None:
    problem = data.draw(integer_problems(dtype, sizes=st.just(Sizes(3, 2, 1, 2, 2))))
    params, x, y, named = problem.params, problem.x, problem.y, problem.simple_options
    value, gradient = jitted.value_and_grad(
        params, x, y, **named, checkpoint_every=checkpoint_every
    )
    truth = autodiff_rnn.derivatives(params, x, y, **named)
    assert value == truth.loss
    for name, found in gradient._asdict().items():
        if found is not None:
            assert np.array_equal(found, getattr(truth, name)), name


def test_half_precision_is_computed_in_half_precision() -> None:
    problem = with_values(np.random.default_rng(2), Sizes(2, 2, 2, 3, 2), dtype=np.float16)
    value, found = jitted.value_and_grad(problem.params, problem.x, problem.y)
    wide = problem.map_arrays(lambda values: values.astype(np.float64))
    _, truth = rnn.value_and_grad(wide.params, wide.x, wide.y)
    allowed = stated_bound(wide, states_of(wide), np.float16)
    assert value.dtype == np.float16
    for name in "UWV":
        assert getattr(found, name).dtype == np.float16
        difference = np.abs(np.asarray(getattr(found, name), np.float64) - getattr(truth, name))
        assert 0 < difference.max() < np.abs(getattr(truth, name)).max() / 64
        assert (difference <= allowed[name]).all()


# Every argument may be differentiated.


def differentiate(module: ModuleType, problem: Problem, names: tuple[str, ...]) -> dict[str, Any]:
    """The gradients that `jax.grad` finds with respect to the named arguments."""
    given_ = arguments_of(problem)

    def loss_of(chosen: dict[str, Any]) -> Any:
        return module.loss(**(given_ | chosen), **problem.option, loss=problem.loss)

    with jax.enable_x64(True):
        found: dict[str, Any] = jax.grad(loss_of)({name: given_[name] for name in names})
    return found


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("cell", "option", "loss"),
    [("rnn", "tanh", loss) for loss in ALL_LOSSES] + [(*gated, "mse") for gated in GATED],
)
def test_jax_grad_finds_every_gradient_of_every_loss(cell: str, option: str, loss: str) -> None:
    problem = with_values(
        np.random.default_rng(3), Sizes(5, 3, 2, 4, 2), cell=cell, option=option, loss=loss,
        bias=True, initial_state=True,
    )  # fmt: skip
    found = differentiate(COMPILED[cell], problem, ("params", "x", *problem.first))
    by_name = {**found.pop("params")._asdict(), **found}
    for compared in AUTODIFF.within_measured_error(problem)(by_name):
        assert compared.verdict is Verdict.AGREES, str(compared)


@pytest.mark.table(3)
@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_the_gradient_of_the_targets_is_that_of_the_loss_alone(loss: str) -> None:
    problem = with_values(
        np.random.default_rng(4), Sizes(3, 3, 2, 4, 3), loss=loss, bias=True, initial_state=True
    )
    found = differentiate(jitted.rnn, problem, ("y",))["y"]
    with jax.enable_x64(True):
        prediction = autodiff_rnn.predict(problem.params, problem.x, **problem.first)
        measure, valid = autodiff_losses.find(loss), jnp.ones(prediction.shape, bool)
        truth = jax.grad(lambda y: measure(prediction, y, valid))(jnp.asarray(problem.y))
    # ŷ is within a few roundings of autodiff's, the losses are smooth, and N is 9.
    np.testing.assert_allclose(found, truth, rtol=0, atol=2.0**-46)


def test_classes_have_no_gradient_and_those_of_the_weights_are_right() -> None:
    problem = with_values(
        np.random.default_rng(5), Sizes(5, 3, 2, 4, 3), loss="softmax_cross_entropy", classes=True,
        bias=True, initial_state=True,
    )  # fmt: skip
    truth, bound = measure_reference(problem)
    found = differentiate(jitted.rnn, problem, ("params",))["params"]
    assert compare("W", found.W, truth.W, bound.W).verdict is Verdict.AGREES


# The arrangement for GPUs, and bfloat16.


@pytest.fixture
def arranged_for_gpus(monkeypatch):
    """Compiles the arrangement for GPUs on this machine."""
    jax.clear_caches()
    monkeypatch.setattr(step, "by_platform", lambda f, model, given: f(model.turn, model, given))
    yield
    jax.clear_caches()


# Some turns of a loop and a rest; or, for the RNN, a rest alone.
@pytest.mark.rest
@pytest.mark.parametrize(
    ("cell", "option", "T"),
    [
        ("rnn", "tanh", 11),
        *(
            pytest.param(*each, 63, marks=pytest.mark.slow)
            for each in [("rnn", "tanh"), ("gru", "before"), *GATED[:2]]
        ),
    ],
)
def test_the_arrangement_for_gpus_gives_autodiffs_gradients(
    cell: str, option: str, T: int, arranged_for_gpus
) -> None:
    rng = np.random.default_rng(T)
    problem = with_values(rng, Sizes(T, 3, 4, 5, 2), cell=cell, bias=True, dtype=np.float64)
    names = {"rnn": "activation", "gru": "reset"}
    problem = problem._replace(option={names[cell]: option} if option else {})
    assert_cell_agrees(COMPILED[cell], problem)
    if cell == "rnn":
        comparer = AUTODIFF.within_measured_error(problem)
        assert_agrees(jitted.rnn, problem, comparer, checkpoint_every=7)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_stays_bfloat16_and_does_not_mix(cell: str) -> None:
    problem = with_values(
        np.random.default_rng(0), Sizes(6, 3, 4, 5, 2), cell=cell, dtype="float32"
    )
    brief = problem.map_arrays(lambda values: values.astype(jnp.bfloat16))
    value, gradient = COMPILED[cell].value_and_grad(brief.params, brief.x, brief.y)
    _, right = COMPILED[cell].value_and_grad(problem.params, problem.x, problem.y)
    assert value.dtype == gradient.W.dtype == jnp.bfloat16
    off = np.abs(np.asarray(gradient.W, np.float32) - right.W).max()
    assert 0 < off < 0.1 * np.abs(right.W).max()
    with pytest.raises(TypeError, match=r"^x: expected dtype bfloat16 as in U, found float32$"):
        COMPILED[cell].value_and_grad(brief.params, problem.x, brief.y)
