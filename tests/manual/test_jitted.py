"""The compiled derivation gives autodiff's gradients, and composes as any JAX function does."""

import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from bptt_verifier.judge.builtin import AUTODIFF, Comparer
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ALL_LOSSES, CELLS, Problem, Sizes
from bptt_verifier.reference.autodiff import measure_reference
from bptt_verifier.strategies import cell_problems, integer_problems, problems
from bptt_verifier.tolerance.comparison import Verdict, compare
from jax_reference import losses as autodiff_losses
from jax_reference import rnn as autodiff_rnn
from manual_bptt import jitted, rnn
from manual_bptt.jitted import step
from tests.support.agreement import assert_right
from tests.support.planting import Mistake, planted
from tests.support.stated_bound import stated_bound, states_of

COMPILED = {"rnn": jitted.rnn, "lstm": jitted.lstm, "gru": jitted.gru}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
GATED = [("lstm", ""), ("gru", "after"), ("gru", "before")]

# Every new shape compiles anew: few shapes, with and without a loop, and fewer examples.
SHAPES = [Sizes(1, 2, 3, 4, 2), Sizes(3, 1, 2, 2, 1), Sizes(5, 3, 1, 3, 2), Sizes(12, 2, 4, 6, 3)]
LARGE = (128, 3, 128)  # B, D, H, of which the RNN does several steps back at a time
FEWER = settings(max_examples=max(4, settings().max_examples // 10))


def arguments_of(problem: Problem) -> dict[str, Any]:
    return {"params": problem.params, "x": problem.x, "y": problem.y} | problem.first


def assert_agrees(module: ModuleType, problem: Problem, comparer: Comparer, **options: Any) -> None:
    """Assert that the results agree with the reference, in the dtype of the problem."""
    options = {**problem.option, "loss": problem.loss, **options}
    value, gradient = module.value_and_grad(**arguments_of(problem), **options)
    assert type(gradient)._fields == type(problem.params)._fields
    assert_right(comparer, {"loss": value} | gradient._asdict(), problem)


def assert_rnn_agrees(
    module: ModuleType, problem: Problem, checkpoint_every: int | None = None
) -> None:
    """Assert that the RNN agrees within the derived bound."""
    comparer = AUTODIFF.within_bound(problem)
    assert_agrees(module, problem, comparer, checkpoint_every=checkpoint_every)


def assert_cell_agrees(module: ModuleType, problem: Problem) -> None:
    """Assert that a cell agrees within the measured error, its loss alone, too."""
    comparer = AUTODIFF.within_measured_error(problem)
    assert_agrees(module, problem, comparer)
    alone = module.loss(**arguments_of(problem), **problem.option, loss=problem.loss)
    assert_right(comparer, {"loss": alone}, problem)


@DTYPES
@FEWER
@given(data=st.data(), checkpoint_every=st.sampled_from([None, 2, 5]))
def test_every_gradient_of_the_rnn_agrees_with_autodiff(
    dtype: type, data: st.DataObject, checkpoint_every: int | None
) -> None:
    problem = data.draw(problems(dtype, sizes=st.sampled_from(SHAPES)))
    assert_rnn_agrees(jitted.rnn, problem, checkpoint_every)


@DTYPES
@pytest.mark.parametrize("checkpoint_every", [None, 5, 6])
@pytest.mark.parametrize("T", [5, 8, 11])
def test_several_steps_back_at_a_time_give_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, T: int, checkpoint_every: int | None, dtype: type
) -> None:
    monkeypatch.setattr(jitted.rnn, "LARGE", 1)  # seen only by shapes that no other test compiles
    problem = with_values(np.random.default_rng(1), Sizes(T, 3, 3, 5, 1), dtype=dtype)
    assert_rnn_agrees(jitted.rnn, problem, checkpoint_every)


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


# Composition.


def plain_problem(T: int = 6, dtype: Any = np.float32) -> Problem:
    return with_values(np.random.default_rng(6), Sizes(T, 3, 2, 4, 2), dtype=dtype)


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


# Memory.


def temporary_bytes(problem: Problem, **options: Any) -> int:
    """What XLA counts for one training step whose parameters are donated."""

    def step(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
        value, gradient = jitted.value_and_grad(params, x, y, **options)
        return jax.tree.map(lambda w, g: w - np.float32(0.1) * g, params, gradient), value

    compiled = jax.jit(step, donate_argnums=0).lower(problem.params, problem.x, problem.y).compile()
    counted: Any = compiled.memory_analysis()
    return int(counted.temp_size_in_bytes)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "identity"])
@pytest.mark.parametrize("B", [32, 128])
def test_one_step_takes_two_arrays_of_all_states(B: int, activation: str, bias: bool) -> None:
    T, D, H, O = 100, 64, 128, 10
    problem = with_values(
        np.random.default_rng(0), Sizes(T, B, D, H, O), dtype=np.float32, bias=bias
    )
    assert temporary_bytes(problem, activation=activation) <= 2.2 * 4 * T * B * H


def test_with_checkpoints_the_memory_hardly_grows_with_the_steps() -> None:
    B, D, H = 2, 2, 16

    def states(T: int) -> float:
        problem = with_values(np.random.default_rng(0), Sizes(T, B, D, H, 2), dtype=np.float32)
        return temporary_bytes(problem, checkpoint_every=int(np.sqrt(T / 2))) / (4 * B * H)

    assert states(10_000) - states(400) <= 2 * np.sqrt(2) * (100 - 20) + 16


def copied_in_loops(program: str, T: int, B: int) -> list[str]:
    """The instructions of a compiled program that copy what a loop hands on of all T steps."""
    whole = rf"f32\[({T},{B},\d+|\d+,{T * B})\]\S* copy\(%(get-tuple-element|copy)"
    return [line.strip() for line in program.splitlines() if re.search(whole, line)]


@pytest.mark.parametrize(
    ("cell", "option", "sizes"),
    [(*each, (4, 3, 5)) for each in [("rnn", "tanh"), *GATED]] + [("rnn", "tanh", LARGE)],
)
def test_no_step_copies_the_arrays_of_all_steps(
    cell: str, option: str, sizes: tuple[int, int, int]
) -> None:
    T, (B, *_) = 9, sizes
    problem = with_values(
        np.random.default_rng(0), Sizes(T, *sizes, O=2), cell=cell, option=option,
        dtype=np.float32, bias=True,
    )  # fmt: skip
    found = jax.jit(partial(COMPILED[cell].value_and_grad, **problem.option))
    program: Any = found.lower(problem.params, problem.x, problem.y).compile().as_text()
    assert program.count("while(") == 2
    assert not copied_in_loops(program, T, B)


def test_a_step_that_reads_and_writes_the_same_array_is_seen_to_copy_it() -> None:
    W = np.ones((10, 5), np.float32)

    @jax.jit
    def run(given: Any) -> Any:
        def step(carry: Any, t: Any) -> tuple[Any, None]:
            h, whole = carry
            left, right = jnp.split(whole[t], 2, axis=-1)
            both = jnp.concatenate([h * left, h * right], axis=-1)
            return (both @ W + left, whole.at[t].set(both)), None

        return lax.scan(step, (given[0, :, :5], given), jnp.arange(9), reverse=True)[0]

    program: Any = run.lower(np.ones((9, 4, 10), np.float32)).compile().as_text()
    assert copied_in_loops(program, 9, 4)


# What is refused.


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        ({"outputs": "every"}, ValueError, "outputs: expected one of last, found 'every'"),
        ({"lengths": np.ones(2, int)}, ValueError, "lengths: expected None in the compiled step, found ndarray"),
        ({"truncation": 2}, ValueError, "truncation: expected None in the compiled step, found int"),
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


# GPUs, and bfloat16.


@pytest.fixture
def arranged_for_gpus(monkeypatch):
    """Compiles the arrangement for GPUs on this machine."""
    jax.clear_caches()
    monkeypatch.setattr(step, "by_platform", lambda f, model, given: f(model.turn, model, given))
    yield
    jax.clear_caches()


# Some turns of a loop and a rest; or, for the RNN, a rest alone.
@pytest.mark.parametrize(
    ("cell", "option", "T"),
    [
        ("rnn", "tanh", 11),
        ("gru", "before", 63),
        *(
            pytest.param(*each, 63, marks=pytest.mark.slow)
            for each in [("rnn", "tanh"), *GATED[:2]]
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


@pytest.mark.parametrize(("cell", "gpu"), [("rnn", 0), ("lstm", 2), ("gru", 2)])
def test_loops_have_long_turns_on_a_gpu_and_turns_of_one_step_on_a_cpu(cell: str, gpu: int) -> None:
    problem = with_values(
        np.random.default_rng(0), Sizes(50, 3, 4, 5, 2), cell=cell, dtype="float32"
    )

    def function(params: Any, x: Any, y: Any) -> Any:
        return COMPILED[cell].value_and_grad(params, x, y)

    def loops_and_steps(platform: str) -> tuple[int, int]:
        given = problem.params, problem.x, problem.y
        program = str(
            jax.export.export(jax.jit(function), platforms=[platform])(*given).mlir_module()
        )
        return program.count("stablehlo.while"), program.count("call @")

    assert loops_and_steps("cpu")[0] == 2
    loops, steps = loops_and_steps("cuda")
    assert loops == gpu
    assert steps >= 2 * (50 if cell == "rnn" else step.TURN)


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


# Mistakes, planted in a copy.

MISTAKES = [
    Mistake("slope of the state before", "jitted/rnn.py", "at(trace.before, t + 1)", "at(trace.before, t)", "jitted"),
    Mistake("the last state's slope missing", "jitted/rnn.py", "jnp.where(t == n - 1, trace.reached, at", "jnp.where(t == n - 1, 0 * trace.reached, at", "jitted"),
    Mistake("W where Wᵀ belongs", "jitted/rnn.py", "return (delta @ W, adjoints)", "return (delta @ W.T, adjoints)", "jitted"),
    Mistake("one step's adjoints written over another's", "jitted/rnn.py", "(0, t * B))", "(0, jnp.maximum(t, 1) * B))", "jitted"),
    Mistake("states one place too late", "jitted/rnn.py", "put(before, h, t + 1)", "put(before, h, t)", "jitted"),
    Mistake("W where Wᵀ belongs, few steps", "jitted/rnn.py", "adjoints[0] @ W", "adjoints[0] @ W.T", "jitted"),
    Mistake("state after the step, few steps", "jitted/rnn.py", "zip(adjoints, trace.before, strict=True)", "zip(adjoints, [*trace.before[1:], trace.reached], strict=True)", "jitted"),
    Mistake("segments swept back in order", "jitted/rnn.py", "        reverse=True,\n    )\n    dx", "    )\n    dx", "jitted"),
    Mistake("one segment's sum only", "jitted/rnn.py", "W + more.W", "more.W", "jitted"),
    Mistake("factor 2 forgotten", "jitted/losses.py", "lambda r: 2 / r.size * r,", "lambda r: r / r.size,", "jitted"),
    Mistake("σ′ without h", "jitted/rnn.py", "h * (1 - h)", "1 - h", "jitted"),
    Mistake("∂L/∂c of the first sequence only", "jitted/step.py", "dy.sum(axis=0)", "dy[0]", "jitted"),
    Mistake("b forgotten", "jitted/rnn.py", "return phi(a_t if b is None else a_t + b)  #", "return phi(a_t)  #", "jitted"),
    Mistake("tanh′ of the cell missing", "jitted/lstm.py", "dh * o * (1 - tanh_c * tanh_c)", "dh * o", "jitted.lstm"),
    Mistake("the cell's own way back cut", "jitted/lstm.py", "(delta @ W, dc_t * f, c)", "(delta @ W, 0 * dc_t, c)", "jitted.lstm"),
    Mistake("forget gate met the cell after the step", "jitted/lstm.py", "dc_t * c * (f * (1 - f))", "dc_t * c_t * (f * (1 - f))", "jitted.lstm"),
    Mistake("the last cell forgotten", "jitted/lstm.py", "start = dh, jnp.zeros_like(dh), trace.reached", "start = dh, jnp.zeros_like(dh), 0 * dh", "jitted.lstm"),
    Mistake("b forgotten, LSTM", "jitted/lstm.py", "a_t = a_t if b is None else a_t + b", "a_t = a_t", "jitted.lstm"),
    Mistake("r missing in δ′", "jitted/gru.py", "delta_z, r * delta_n]", "delta_z, delta_n]", "jitted.gru"),
    Mistake("∂L/∂b_n from δ_n where r came after", "jitted/gru.py", "delta[:, 2 * H :].sum(axis=0)", "delta_n.sum(axis=0)", "jitted.gru"),
    Mistake("∂L/∂W_n from h where r came before", "jitted/gru.py", "delta_n.T @ rows(trace.met)", "delta_n.T @ before", "jitted.gru"),
    Mistake("path past the candidate dropped", "jitted/gru.py", "return dh * z + delta @ W_rz", "return delta @ W_rz", "jitted.gru"),
    Mistake("δ_r without h", "jitted/gru.py", "delta_met * at.before * (r", "delta_met * (r", "jitted.gru"),
    Mistake("b_n forgotten", "jitted/gru.py", "return product if b_n is None else product + b_n", "return product", "jitted.gru"),
]  # fmt: skip


def survives(module: ModuleType) -> bool:
    """Whether a mistake shows in none of a few problems.

    Of the RNN with a loop, without, and in segments; of the other cells with all that they have.
    """
    rng = np.random.default_rng(8)
    cell = module.__name__.rpartition(".")[2]
    for name, option in GATED:
        if name == cell:
            problem = with_values(
                rng, SHAPES[2], cell=cell, option=option, bias=True, initial_state=True
            )
            try:
                assert_cell_agrees(module, problem)
            except AssertionError:
                return False
    if cell in COMPILED:
        return True
    for activation, sizes, checkpoint_every in (
        ("tanh", SHAPES[3], 5),
        ("sigmoid", SHAPES[1], None),
        ("sigmoid", SHAPES[3], None),
    ):
        problem = with_values(
            rng, sizes._replace(B=2), option=activation, bias=True, initial_state=True
        )
        try:
            assert_rnn_agrees(module, problem, checkpoint_every)
        except AssertionError:
            return False
    return True


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_planted_mistake_is_caught(mistake: Mistake, tmp_path: Path) -> None:
    assert not survives(planted(mistake, tmp_path))


@pytest.mark.parametrize("suspect", ["jitted", "jitted.lstm", "jitted.gru"])
def test_without_a_mistake_nothing_is_caught(suspect: str, tmp_path: Path) -> None:
    mistake = next(m for m in MISTAKES if m.suspect == suspect)
    assert survives(planted(mistake._replace(written=mistake.right), tmp_path))
