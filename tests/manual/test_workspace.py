"""The workspace gives the gradients of the readable functions, in few bytes."""

import copy
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.judge.builtin import AUTODIFF, Comparer, make_derivation
from bptt_verifier.problems.draws import draw, with_values
from bptt_verifier.problems.problem import ALL_LOSSES, Problem, Sizes
from bptt_verifier.strategies import cell_problems, integer_problems, problems
from manual_bptt import activations, rnn
from manual_bptt.activations import Activation
from manual_bptt.rnn import Params
from manual_bptt.workspace import ELEMENTWISE, Workspace
from tests.support.agreement import assert_right, same
from tests.support.planting import Mistake, planted

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
CHECKPOINTS = st.none() | st.integers(1, 13)


def workspace_of(
    problem: Problem, checkpoint_every: int | None = None, kind: type[Workspace] = Workspace
) -> Workspace:
    return kind(
        problem.params, problem.x, **problem.option, loss=problem.loss,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip


def found_in(workspace: Workspace, problem: Problem) -> dict[str, Any]:
    """A copy of the loss and the gradients, by name."""
    value, gradient = workspace.value_and_grad(problem.params, problem.x, problem.y, problem.h0)
    return copy.deepcopy({"loss": value} | gradient._asdict())


def assert_agrees(workspace: Workspace, problem: Problem, comparer: Comparer) -> None:
    """Assert that the results agree with autodiff, in the dtype; no argument is changed."""
    before = copy.deepcopy(problem)
    found = found_in(workspace, problem)
    assert same(problem, before), "the arguments were modified"
    assert_right(comparer, found, problem)


@DTYPES
@given(data=st.data(), checkpoint_every=CHECKPOINTS)
def test_every_gradient_agrees_with_autodiff(
    dtype: type, data: st.DataObject, checkpoint_every: int | None
) -> None:
    problem = data.draw(problems(dtype))
    assert_agrees(workspace_of(problem, checkpoint_every), problem, AUTODIFF.within_bound(problem))


@DTYPES
@given(data=st.data(), checkpoint_every=CHECKPOINTS)
def test_so_does_every_gradient_of_every_loss(
    dtype: type, data: st.DataObject, checkpoint_every: int | None
) -> None:
    plain = cell_problems("rnn", dtype, outputs=("last",), ragged=st.just(False), truncated=False)
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


@given(problem=problems(), checkpoint_every=st.integers(12, 99))
def test_a_checkpoint_further_apart_than_the_sequence_is_long_changes_not_one_bit(
    problem: Problem, checkpoint_every: int
) -> None:
    plain = found_in(workspace_of(problem), problem)
    assert same(plain, found_in(workspace_of(problem, checkpoint_every), problem))


@given(data=st.data(), checkpoint_every=CHECKPOINTS)
def test_the_second_use_bears_no_trace_of_the_first(
    data: st.DataObject, checkpoint_every: int | None
) -> None:
    first = data.draw(problems())
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    other = with_values(rng, first.sizes, bias=first.params.b is not None, initial_state=True)
    state = data.draw(st.sampled_from([{}, other.first]))
    second = other._replace(option=first.option, loss=first.loss, first=state)
    fresh = found_in(workspace_of(second, checkpoint_every), second)
    used = workspace_of(first, checkpoint_every)
    used.value_and_grad(first.params, first.x, first.y, first.h0)
    assert same(fresh, found_in(used, second))


def test_the_gradients_are_the_workspace_s_own_arrays() -> None:
    problem = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 4, 2))
    workspace = workspace_of(problem)
    _, first = workspace.value_and_grad(problem.params, problem.x, problem.y)
    _, second = workspace.value_and_grad(problem.params, problem.x, problem.y)
    assert first.W is second.W


@given(problem=problems(), checkpoint_every=CHECKPOINTS)
def test_a_step_moves_the_parameters_in_place_against_the_gradient(
    problem: Problem, checkpoint_every: int | None
) -> None:
    rate = 0.125
    found = found_in(workspace_of(problem, checkpoint_every), problem)
    moved = copy.deepcopy(problem.params)
    arrays = list(moved)
    value = workspace_of(problem, checkpoint_every).step(
        moved, problem.x, problem.y, rate, problem.h0
    )
    assert value == found["loss"]
    for array, after, before, name in zip(
        arrays, moved, problem.params, Params._fields, strict=True
    ):
        assert array is after
        if before is not None:
            assert np.array_equal(after, before - rate * found[name]), name


def test_steps_learn() -> None:
    problem = with_values(np.random.default_rng(1), Sizes(5, 4, 3, 8, 2), dtype=np.float32)
    params, workspace = copy.deepcopy(problem.params), workspace_of(problem)
    losses = [workspace.step(params, problem.x, problem.y, 0.1) for _ in range(200)]
    assert losses[-1] < losses[0] / 100
    assert losses[0].dtype == np.float32


@DTYPES
def test_the_sigmoid_in_place_is_the_readable_one_to_the_bit(dtype: type) -> None:
    a = (30 * np.random.default_rng(0).normal(size=(99, 9))).astype(dtype)
    a[0] = 0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 200, -200
    readable, h = activations.logistic(a), np.empty_like(a)
    ELEMENTWISE["sigmoid"].function(a, h)
    assert np.array_equal(h, readable, equal_nan=True)


# Memory.


@pytest.mark.parametrize(
    "sizes", [Sizes(100, 32, 64, 128, 10), Sizes(2, 3, 4, 16, 3), Sizes(1, 1, 2, 16, 3)], ids=str
)
def test_one_step_takes_two_arrays_of_all_states(sizes: Sizes) -> None:
    T, B, D, H, O = sizes
    problem = with_values(np.random.default_rng(0), sizes, dtype=np.float32)
    workspace = workspace_of(problem)
    assert 2 <= workspace.nbytes / (4 * T * B * H) <= 2.2
    assert workspace.gradient_nbytes == 4 * (H * D + H * H + O * H)


@pytest.mark.parametrize("activation", ELEMENTWISE)
@pytest.mark.parametrize("initial_state", [False, True])
@pytest.mark.parametrize("checkpoint_every", [None, 2, 1])
def test_no_memory_is_taken_that_is_not_told(
    activation: str, initial_state: bool, checkpoint_every: int | None
) -> None:
    sizes = Sizes(T=5, B=256, D=2, H=256, O=2)
    problem = with_values(
        np.random.default_rng(0), sizes, dtype=np.float32,
        option=activation, bias=True, initial_state=initial_state,
    )  # fmt: skip
    tracemalloc.start()
    try:
        workspace = workspace_of(problem, checkpoint_every)
        made, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        workspace.value_and_grad(problem.params, problem.x, problem.y, problem.h0)
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
    ],
)  # fmt: skip
def test_what_does_not_fit_the_workspace_is_refused_in_one_sentence(
    change: dict[str, Any], exception: type[Exception], message: str
) -> None:
    _, params, x, y, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2))
    given = {"params": params, "x": x, "y": y, "h0": None}
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


# Mistakes, planted in a copy.

PRODUCT_W = "add_product(rows(after), rows(h), gradient.W, for_W)"
SLOPES = "slope(self._rows[1:n], self._rows[n : 2 * n - 1])"
MISTAKES = [
    Mistake("slope of the state before", "workspace.py", SLOPES, SLOPES.replace("[1:n]", "[: n - 1]"), "workspace"),
    Mistake("slope over the last adjoint", "workspace.py", SLOPES, SLOPES.replace("[1:n]", "[1 : n + 1]").replace(" - 1", ""), "workspace"),
    Mistake("W where Wᵀ belongs, forward", "workspace.py", "np.copyto(self._W_T, params[1].T)", "np.copyto(self._W_T, params[1])", "workspace"),
    Mistake("W after the step where W of the step belongs", "workspace.py", "np.dot(later, W, spare)", "np.dot(later, self._W_T, spare)", "workspace"),
    Mistake("state after the step in ∂L/∂W", "workspace.py", PRODUCT_W, PRODUCT_W.replace("rows(h)", "rows(self._rows[1 + from_zero : n + 1])"), "workspace"),
    Mistake("h_0 taken for zero", "workspace.py", "before = kept[number - 1] if number else h0", "before = kept[number - 1] if number else None", "workspace"),
    Mistake("a product where h_0 belongs in ∂L/∂W", "workspace.py", "self._spare[...] = before", "pass", "workspace"),
    Mistake("the segments' sum keeps the last", "workspace.py", "total += np.dot", "total[...] = np.dot", "workspace"),
    Mistake("nothing passes from segment to segment", "workspace.py", "np.dot(self._rows[len(x_n)], params[1], kept[number - 1])", "kept[number - 1] = 0", "workspace"),
    Mistake("checkpoints one step early", "workspace.py", "kept[number] = h_n", "kept[number] = self._rows[len(x[steps]) - 1]", "workspace"),
    Mistake("bias of the last segment only", "workspace.py", "np.add(gradient.b, found, gradient.b)", "pass", "workspace"),
    Mistake("factor 2 forgotten", "workspace.py", "lambda N: 2 / N", "lambda N: 1 / N", "workspace"),
    Mistake("the last slope added", "workspace.py", "np.multiply(dh, spare, delta_n)", "np.add(dh, spare, delta_n)", "workspace"),
    Mistake("σ of |a|", "workspace.py", "np.greater_equal(a, 0, a)", "a.fill(1)", "workspace"),
]  # fmt: skip


def survives(workspace_class: type[Workspace]) -> bool:
    """Whether no problem of the first twenty shows a mistake, whole or in segments of two."""
    for case in range(20):
        problem = draw(0, case)
        for checkpoint_every in (None, 2):
            workspace = workspace_of(problem, checkpoint_every, workspace_class)
            try:
                assert_agrees(workspace, problem, AUTODIFF.within_bound(problem))
            except AssertionError:
                return False
    return True


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_planted_mistake_is_caught(mistake: Mistake, tmp_path: Path) -> None:
    assert not survives(planted(mistake, tmp_path).Workspace)


def test_without_a_mistake_nothing_is_caught(tmp_path: Path) -> None:
    nothing = MISTAKES[0]._replace(written=MISTAKES[0].right)
    assert survives(planted(nothing, tmp_path).Workspace)


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


def test_a_wider_dtype_is_computed_in_that_dtype() -> None:
    rng = np.random.default_rng(0)
    params = rnn.init(rng, 2, 4, 2, dtype=np.longdouble)
    x, y = (rng.normal(size=s).astype(np.longdouble) for s in ((3, 3, 2), (3, 2)))
    _, found = Workspace(params, x).value_and_grad(params, x, y)
    _, expected = rnn.value_and_grad(params, x, y)
    rounding = 4 * 3 * (2 + 4 + 8) * np.finfo(np.longdouble).eps
    for name in ("U", "W", "V"):
        yours, known = getattr(found, name), getattr(expected, name)
        assert np.abs(yours - known).max() <= rounding * np.abs(known).max()
