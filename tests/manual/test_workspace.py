"""The workspace gives the gradients of the readable functions, in few bytes."""

import copy
import tracemalloc
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_verifier.judge.builtin import AUTODIFF, make_derivation
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ALL_LOSSES, CELLS, OPTIONS, Sizes
from bptt_verifier.strategies import cell_problems, integer_problems, problems
from manual_bptt import activations, gru, lstm, rnn
from manual_bptt.activations import Activation
from manual_bptt.in_place.rnn import ELEMENTWISE
from manual_bptt.rnn import Params
from manual_bptt.workspace import Workspace
from tests.support.agreement import same
from tests.support.workspaces import assert_agrees, found_in, plain_problem, workspace_of

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
CHECKPOINTS = st.none() | st.integers(1, 13)
FEWER = settings(max_examples=max(4, settings().max_examples // 3))  # for each of three cells


@pytest.mark.table(2)
@DTYPES
@given(data=st.data(), checkpoint_every=CHECKPOINTS)
def test_every_gradient_agrees_with_autodiff(
    dtype: type, data: st.DataObject, checkpoint_every: int | None
) -> None:
    problem = data.draw(problems(dtype))
    assert_agrees(workspace_of(problem, checkpoint_every), problem, AUTODIFF.within_bound(problem))


@pytest.mark.table(6)
@DTYPES
@pytest.mark.parametrize("cell", CELLS)
@FEWER
@given(data=st.data(), checkpoint_every=CHECKPOINTS)
def test_so_does_every_gradient_of_every_cell_and_loss(
    cell: str, dtype: type, data: st.DataObject, checkpoint_every: int | None
) -> None:
    plain = cell_problems(cell, dtype, outputs=("last",), ragged=st.just(False), truncated=False)
    problem = data.draw(plain)
    comparer = AUTODIFF.within_measured_error(problem)
    assert_agrees(workspace_of(problem, checkpoint_every), problem, comparer)


@DTYPES
@given(data=st.data(), checkpoint_every=CHECKPOINTS)
def test_on_small_integers_not_one_bit_differs_from_the_readable_functions(
    dtype: type, data: st.DataObject, checkpoint_every: int | None
) -> None:
    problem = data.draw(integer_problems(dtype))
    readable = make_derivation(rnn)(problem)
    for name, value in found_in(workspace_of(problem, checkpoint_every), problem).items():
        assert np.array_equal(value, readable[name]), name


@pytest.mark.parametrize("cell", CELLS)
@FEWER
@given(seed=st.integers(0, 99), checkpoint_every=st.integers(12, 99))
def test_a_checkpoint_further_apart_than_the_sequence_is_long_changes_not_one_bit(
    cell: str, seed: int, checkpoint_every: int
) -> None:
    problem = plain_problem(cell, seed, Sizes(4, 3, 2, 4, 2), bias=True)
    plain = found_in(workspace_of(problem), problem)
    assert same(plain, found_in(workspace_of(problem, checkpoint_every), problem))


@pytest.mark.parametrize("checkpoint_every", [None, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("initial_state", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_second_use_bears_no_trace_of_the_first(
    cell: str, initial_state: bool, seed: int, checkpoint_every: int | None
) -> None:
    sizes = Sizes(5, 2, 3, 4, 2)
    first = plain_problem(cell, seed, sizes, bias=bool(seed), initial_state=not initial_state)
    second = plain_problem(cell, seed + 2, sizes, bias=bool(seed), initial_state=initial_state)
    second = second._replace(option=first.option)
    fresh = found_in(workspace_of(second, checkpoint_every), second)
    used = workspace_of(first, checkpoint_every)
    found_in(used, first)
    assert same(fresh, found_in(used, second))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_several_steps_in_a_cache_at_once_give_the_bits_of_one(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = plain_problem(cell, 1, Sizes(7, 2, 3, 4, 2), bias=True, initial_state=True)
    whole = found_in(workspace_of(problem), problem)
    for several in (1, 3):
        monkeypatch.setattr("manual_bptt.in_place.sums.BLOCK", several * 2 * 4 * 8)
        assert same(whole, found_in(workspace_of(problem), problem))


def test_the_gradients_are_the_workspace_s_own_arrays() -> None:
    problem = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 4, 2))
    workspace = workspace_of(problem)
    _, first = workspace.value_and_grad(problem.params, problem.x, problem.y)
    _, second = workspace.value_and_grad(problem.params, problem.x, problem.y)
    assert first.W is second.W


@pytest.mark.parametrize("checkpoint_every", [None, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_moves_the_parameters_in_place_against_the_gradient(
    cell: str, bias: bool, checkpoint_every: int | None
) -> None:
    problem = plain_problem(cell, 0, Sizes(3, 2, 3, 4, 2), bias=bias, initial_state=True)
    rate = 0.125
    found = found_in(workspace_of(problem, checkpoint_every), problem)
    moved = copy.deepcopy(problem.params)
    arrays = list(moved)
    value = workspace_of(problem, checkpoint_every).step(
        moved, problem.x, problem.y, rate, **problem.first
    )
    assert value == found["loss"]
    for array, after, before, name in zip(
        arrays, moved, problem.params, moved._fields, strict=True
    ):
        assert array is after
        if before is not None:
            assert np.array_equal(after, before - rate * found[name]), name


@pytest.mark.parametrize("cell", CELLS)
def test_steps_learn(cell: str) -> None:
    problem = plain_problem(cell, 0, Sizes(5, 4, 3, 16, 2), dtype=np.float32, bias=True)
    params, workspace = copy.deepcopy(problem.params), workspace_of(problem)
    losses = [workspace.step(params, problem.x, problem.y, 0.1) for _ in range(400)]
    assert losses[-1] < losses[0] / 100
    assert losses[0].dtype == np.float32


@DTYPES
def test_the_sigmoid_in_place_is_the_readable_one_to_the_bit(dtype: type) -> None:
    a = (30 * np.random.default_rng(0).normal(size=(99, 9))).astype(dtype)
    a[0] = 0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 200, -200
    readable, h = activations.logistic(a), np.empty_like(a)
    ELEMENTWISE["sigmoid"].function(a, h)
    assert np.array_equal(h, readable, equal_nan=True)


@pytest.mark.table(4)
@DTYPES
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_that_are_shut_have_gradients_with_all_their_digits(cell: str, dtype: type) -> None:
    problem = plain_problem(cell, 0, Sizes(3, 2, 2, 4, 2), bias=True, initial_state=True)
    params = problem.params._replace(b=problem.params.b - 15)
    wide = problem._replace(params=params)
    narrow = wide.map_arrays(lambda values: values.astype(dtype))
    comparer = AUTODIFF.within_measured_error(narrow)
    assert_agrees(workspace_of(narrow), narrow, comparer)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("far", [1e3, -1e3])
def test_gates_far_beyond_the_largest_exponent_give_no_warning(cell: str, far: float) -> None:
    problem = plain_problem(cell, 0, Sizes(3, 2, 2, 4, 2), dtype=np.float32, bias=True)
    problem.params.b[...] = far
    found = found_in(workspace_of(problem), problem)
    assert all(np.isfinite(value).all() for value in found.values() if value is not None)


# Memory.


ARRAYS = {"rnn": 2.2, "lstm": 8.2, "gru": 7.2}  # most arrays (T, B, H) of a step


@pytest.mark.parametrize(
    ("cell", "sizes"),
    [
        *((cell, sizes) for cell in CELLS for sizes in
          (Sizes(100, 32, 64, 128, 10), Sizes(50, 1, 16, 32, 3), Sizes(28, 128, 28, 128, 10))),
        ("rnn", Sizes(2, 3, 4, 16, 3)),
        ("rnn", Sizes(1, 1, 2, 16, 3)),
    ],
    ids=str,
)  # fmt: skip
def test_one_step_takes_few_arrays_of_all_states(cell: str, sizes: Sizes) -> None:
    T, B, D, H, O = sizes
    for option in OPTIONS[cell][:2]:
        problem = with_values(
            np.random.default_rng(0), sizes, cell=cell, option=option, dtype=np.float32
        )
        workspace = workspace_of(problem)
        gates = len(problem.params.W) // H
        assert workspace.nbytes / (4 * T * B * H) <= ARRAYS[cell]
        assert workspace.gradient_nbytes == 4 * (gates * H * (D + H) + O * H)


@pytest.mark.table(5)
@pytest.mark.parametrize(("cell", "option"), [(c, o) for c in CELLS for o in OPTIONS[c]])
@pytest.mark.parametrize("initial_state", [False, True])
@pytest.mark.parametrize("checkpoint_every", [None, 2, 1])
def test_no_memory_is_taken_that_is_not_told(
    cell: str, option: str, initial_state: bool, checkpoint_every: int | None
) -> None:
    sizes = Sizes(T=5, B=256, D=2, H=256, O=2)
    problem = with_values(
        np.random.default_rng(0), sizes, cell=cell, dtype=np.float32,
        option=option, bias=True, initial_state=initial_state,
    )  # fmt: skip
    tracemalloc.start()
    try:
        workspace = workspace_of(problem, checkpoint_every)
        made, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        workspace.value_and_grad(problem.params, problem.x, problem.y, **problem.first)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    state = 4 * sizes.B * sizes.H
    told = workspace.nbytes + workspace.gradient_nbytes
    assert told <= made <= told + state / 4
    assert most <= made + state / 4  # of which NumPy buffers an eighth while it adds b


@pytest.mark.parametrize("T", [400, 10_000])
def test_with_checkpoints_the_memory_grows_as_the_root_of_the_steps(T: int) -> None:
    B, H, k = 2, 3, int(np.sqrt(T / 2))
    problem = with_values(np.random.default_rng(0), Sizes(T, B, 2, H, 2))
    states = workspace_of(problem, k).nbytes / (8 * B * H)
    assert 2 * np.sqrt(2 * T) <= states <= 2 * np.sqrt(2 * T) + 16


# What is refused.


@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        ({"x": np.ones((3, 2, 5))}, ValueError, "x: expected shape (3, 2, 2) of this workspace, found (3, 2, 5)"),
        ({"x": np.ones((3, 2, 2), np.float32)}, TypeError, "x: expected dtype float64 of this workspace, found float32"),
        ({"x": [[[1.0]]]}, TypeError, "x: expected an array, found list"),
        ({"y": np.ones(2)}, ValueError, "y: expected shape (2, 2) of this workspace, found (2,)"),
        ({"h0": np.ones((2, 4))}, ValueError, "h0: expected shape (2, 3) of this workspace, found (2, 4)"),
        ({"W": np.ones((3, 4))}, ValueError, "W: expected shape (3, 3) of this workspace, found (3, 4)"),
        ({"b": np.ones(3)}, TypeError, "b: expected None, found ndarray"),
        ({"V": None}, TypeError, "V: expected an array, found NoneType"),
        ({"params": (1, 2)}, TypeError, "params: expected Params(U, W, V[, b, c]), found tuple"),
        ({"c0": np.ones((2, 3))}, TypeError, "c0: expected None, found ndarray"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_workspace_is_refused_in_one_sentence(
    change: dict[str, Any], exception: type[Exception], message: str
) -> None:
    _, params, x, y, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2))
    given = {"params": params, "x": x, "y": y, "h0": None, "c0": None}
    (name,) = change
    if name in Params._fields:
        change = {"params": params._replace(**change)}
    with pytest.raises(exception) as caught:
        Workspace(params, x).value_and_grad(**(given | change))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "exception", "message"),
    [
        ({"activation": "swish"}, ValueError, "activation: expected one of tanh, sigmoid, relu, identity, found 'swish'"),
        ({"activation": Activation(np.sin, np.cos)}, TypeError, "activation: expected a name, found Activation"),
        ({"loss": "mean"}, ValueError, f"loss: expected one of {', '.join(ALL_LOSSES)}, found 'mean'"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every: expected at least 1, found 0"),
        ({"checkpoint_every": 1.5}, TypeError, "checkpoint_every: expected an integer, found float"),
        ({"x": np.ones((3, 2, 9))}, ValueError, "x: expected shape (T, B, D) with D = 2, found (3, 2, 9)"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused_in_one_sentence(
    options: dict[str, Any], exception: type[Exception], message: str
) -> None:
    _, params, x, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2))
    with pytest.raises(exception) as caught:
        Workspace(params, **({"x": x} | options))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("lstm", {"activation": "relu"}, "activation: expected one of tanh, found 'relu'"),
        ("lstm", {"reset": "before"}, "reset: expected one of after, found 'before'"),
        ("gru", {"reset": "never"}, "reset: expected one of after, before, found 'never'"),
        ("gru", {"activation": "relu"}, "activation: expected one of tanh, found 'relu'"),
    ],
)
def test_options_of_another_cell_are_refused(
    cell: str, options: dict[str, Any], message: str
) -> None:
    _, params, x, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), cell=cell)
    with pytest.raises(ValueError, match=f"^{message}$"):
        Workspace(params, x, **options)


@pytest.mark.parametrize(
    ("cell", "change", "message"),
    [
        (
            "lstm",
            {"c0": np.ones((2, 4))},
            "c0: expected shape (2, 3) of this workspace, found (2, 4)",
        ),
        ("gru", {"c0": np.ones((2, 3))}, "c0: expected None, found ndarray"),
        ("gru", {"params": (1, 2)}, "params: expected Params(U, W, V[, b, c][, b_n]), found tuple"),
    ],
)
def test_what_does_not_fit_the_workspace_of_a_gated_cell_is_refused(
    cell: str, change: dict[str, Any], message: str
) -> None:
    _, params, x, y, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), cell=cell)
    with pytest.raises((TypeError, ValueError)) as caught:
        Workspace(params, x).value_and_grad(**({"params": params, "x": x, "y": y} | change))
    assert str(caught.value) == message


def test_exact_numbers_are_refused() -> None:
    _, params, x, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2))
    exact = Params(*(None if w is None else w.astype(object) for w in params))
    with pytest.raises(TypeError, match="U: expected a floating dtype, found object"):
        Workspace(exact, x.astype(object))


@pytest.mark.parametrize(
    ("rate", "frozen", "exception", "message"),
    [
        ("0.1", None, TypeError, "learning_rate: expected a number, found str"),
        (True, None, TypeError, "learning_rate: expected a number, found bool"),
    ]
    + [
        (0.1, name, ValueError, f"{name}: expected an array to write to, found it read-only")
        for name in Params._fields
    ],
)
def test_a_step_that_cannot_be_done_is_refused_and_moves_nothing(
    rate: Any, frozen: str | None, exception: type[Exception], message: str
) -> None:
    _, params, x, y, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), bias=True)
    if frozen is not None:
        getattr(params, frozen).flags.writeable = False
    before = copy.deepcopy(params)
    with pytest.raises(exception) as caught:
        Workspace(params, x).step(params, x, y, rate)
    assert str(caught.value) == message
    assert same(params, before)


def test_a_cross_entropy_s_targets_are_looked_at_each_time() -> None:
    _, params, x, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2))
    workspace = Workspace(params, x, loss="softmax_cross_entropy")
    workspace.value_and_grad(params, x, np.array([0, 1]))
    with pytest.raises(ValueError, match="y: expected classes from 0 to O - 1 = 1, found 2"):
        workspace.value_and_grad(params, x, np.array([0, 2]))


@pytest.mark.parametrize("learning_rate", [np.nan, np.inf, 10**400, 1e300])
def test_a_learning_rate_that_is_no_number_of_the_dtype_is_refused(learning_rate: float) -> None:
    one = np.ones((1, 1), np.float32)
    params = rnn.Params(one.copy(), one.copy(), one.copy())
    work = Workspace(params, one[None])
    with pytest.raises(ValueError, match="learning_rate: expected a finite number in float32"):
        work.step(params, one[None], one, learning_rate)
    assert all((weight == 1).all() for weight in params[:3])


def test_its_own_gradients_are_no_parameters() -> None:
    one = np.ones((1, 1))
    work = Workspace(rnn.Params(one, one, one), one[None])
    _, gradient = work.value_and_grad(rnn.Params(one, one, one), one[None], one)
    with pytest.raises(ValueError, match="U: expected an array of yours"):
        work.step(gradient, one[None], one, 0.1)


@pytest.mark.parametrize("module", [rnn, lstm, gru], ids=lambda m: m.__name__)
def test_a_wider_dtype_is_computed_in_that_dtype(module: ModuleType) -> None:
    rng = np.random.default_rng(0)
    params = module.init(rng, 2, 4, 2, dtype=np.longdouble)
    x, y = (rng.normal(size=s).astype(np.longdouble) for s in ((3, 3, 2), (3, 2)))
    _, found = Workspace(params, x).value_and_grad(params, x, y)
    _, expected = module.value_and_grad(params, x, y)
    rounding = 4 * 3 * (2 + 4 + 8) * np.finfo(np.longdouble).eps
    for name in ("U", "W", "V"):
        yours, known = getattr(found, name), getattr(expected, name)
        assert np.abs(yours - known).max() <= rounding * np.abs(known).max()
