"""Both witnesses train alike, stop when they should, and lose nothing when they are stopped."""

import copy
import inspect
import re
import sys
from collections.abc import Callable
from math import inf, nan
from types import FrameType, ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem
from jax_reference import training as autodiff
from manual_bptt import rnn
from manual_bptt import training as manual
from manual_bptt.losses import LOSSES
from manual_bptt.rnn import Params
from tests.support.agreement import same
from tests.support.training import RATE, SIZES, STEPS, WITNESSES, descend, gated

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = st.sampled_from([np.float32, np.float64])


def small(seed: int = 0, dtype: Any = np.float64) -> Problem:
    """A problem that both witnesses train in milliseconds."""
    return with_values(
        np.random.default_rng(seed), SIZES, dtype=dtype, bias=True, initial_state=True
    )


# What a run is.


@WITNESSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_a_run_has_a_loss_for_every_number_of_updates(witness: ModuleType, dtype: type) -> None:
    problem = small(dtype=dtype)
    untouched = copy.deepcopy(problem)
    run = descend(witness, problem)
    assert run.stopped == "limit"
    assert run.losses.shape == (21,)
    assert run.losses[20] < run.losses[0]
    for k in (0, 1, 20):
        part = descend(witness, problem, steps=k)
        assert same(part.losses, run.losses[: k + 1])
        assert (
            descend(witness, problem._replace(params=part.params), steps=0).losses
            == part.losses[-1]
        )
    assert {a.dtype for a in (*run.params, run.losses)} == {np.dtype(dtype)}
    assert type(run.params) is Params
    assert same(problem, untouched)
    assert not jax.config.jax_enable_x64


@WITNESSES
def test_a_bias_that_is_absent_stays_absent(witness: ModuleType) -> None:
    problem = small()
    problem = problem._replace(params=problem.params._replace(b=None, c=None), first={})
    run = descend(witness, problem, steps=3)
    assert run.params.b is run.params.c is None
    zeros = problem._replace(first={"h0": np.zeros((SIZES.B, SIZES.H))})
    assert same(run, descend(witness, zeros, steps=3))


def test_one_update_is_the_gradient_times_the_learning_rate() -> None:
    problem = small()
    params = problem.params
    _, gradient = rnn.value_and_grad(params, problem.x, problem.y, **problem.simple_options)
    run = descend(manual, problem, steps=1)
    pairs: Any = zip(params, gradient, strict=True)
    assert same(run.params, Params(*(weight - RATE * slope for weight, slope in pairs)))


@WITNESSES
@given(seed=st.integers(0, 100), part=st.floats(0, 1), steps=st.integers(0, 20))
def test_training_stops_at_the_first_loss_that_meets_the_target_or_at_the_limit(
    witness: ModuleType, seed: int, part: float, steps: int
) -> None:
    problem = small(seed)
    free = descend(witness, problem, steps=20).losses
    target = float(free.min() + part * (free.max() - free.min()))
    met = [k for k in range(steps + 1) if free[k] <= target]
    run = descend(witness, problem, steps=steps, target=target)
    assert run.stopped == ("target" if met else "limit")
    assert same(run.losses, free[: (met[0] if met else steps) + 1])


@WITNESSES
def test_a_target_of_zero_is_met_by_a_loss_of_zero(witness: ModuleType) -> None:
    problem = small()
    exact = problem._replace(params=problem.params._replace(V=np.zeros((2, 4)), c=problem.y[0]))
    exact = exact._replace(y=np.stack([problem.y[0]] * 2))
    assert descend(witness, exact, target=0).stopped == "target"
    assert descend(witness, problem, target=0).stopped == "limit"


def test_manual_progress_is_every_step_and_compiled_progress_every_call() -> None:
    for witness in (manual, autodiff):
        told: list[tuple[int, float]] = []
        run = descend(witness, small(), progress=lambda *step: told.append(step))  # noqa: B023
        assert told[-1] == (20, run.losses[-1])
        assert all(loss == run.losses[step] for step, loss in told)
        if witness is manual:
            assert [step for step, _ in told] == list(range(1, 21))


@WITNESSES
@pytest.mark.parametrize("model", ["lstm", "gru"])
def test_a_cell_with_gates_resumes_bit_for_bit_and_is_interrupted_like_the_rnn(
    witness: ModuleType, model: str
) -> None:
    def progress(step: int, loss: float) -> None:
        if step >= 7:
            raise KeyboardInterrupt

    problem = gated(model)
    at_once = problem.descend(witness)
    with pytest.raises(witness.Interrupted) as caught:
        problem.descend(witness, progress=progress)
    first = caught.value.run
    rest = problem._replace(params=first.params).descend(
        witness, steps=STEPS + 1 - len(first.losses)
    )
    assert same(rest.params, at_once.params)
    assert same(np.append(first.losses, rest.losses[1:]), at_once.losses)
    zeros = tuple(np.zeros_like(state) for state in problem.first)
    absent = problem._replace(first=()).descend(witness, steps=3)
    assert same(absent, problem._replace(first=zeros).descend(witness, steps=3))


@WITNESSES
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "activation: expected None with model='gru', found 'relu'"),
        ({"activation": abs}, "activation: expected None with model='gru', found "),
        ({"c0": np.zeros((2, 4))}, "c0: expected None with model='gru', found ndarray"),
        ({"model": "lstm"}, "U: expected shape (4H, D) with 4H = 16"),
    ],
)
def test_what_a_cell_does_not_have_is_refused(
    witness: ModuleType, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        gated("gru").descend(witness, **options)


# What ends training early loses nothing.


@WITNESSES
@given(dtype=DTYPES, seed=st.integers(0, 100), steps=st.integers(0, 20), part=st.floats(0, 1))
def test_resumed_training_is_the_same_bit_for_bit(
    witness: ModuleType, dtype: type, seed: int, steps: int, part: float
) -> None:
    problem = small(seed, dtype)
    at_once = descend(witness, problem, steps=steps)
    first = descend(witness, problem, steps=int(part * steps))
    rest = descend(witness, problem._replace(params=first.params), steps=steps - int(part * steps))
    assert same(rest.params, at_once.params)
    assert same(np.append(first.losses, rest.losses[1:]), at_once.losses)


def test_compiled_calls_may_be_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, steps = small(), 2 * autodiff.CHUNK + 300
    monkeypatch.setattr(autodiff, "PATIENCE", inf)
    at_once = descend(autodiff, problem, steps=steps)
    first = descend(autodiff, problem, steps=1234)
    rest = descend(autodiff, problem._replace(params=first.params), steps=steps - 1234)
    assert same(rest.params, at_once.params)
    assert same(np.append(first.losses, rest.losses[1:]), at_once.losses)
    monkeypatch.setattr(autodiff, "PATIENCE", 0)
    step_by_step = descend(autodiff, problem, steps=50)
    assert same(step_by_step.losses, at_once.losses[:51])


@WITNESSES
@given(dtype=DTYPES, seed=st.integers(0, 100), power=st.floats(0.2, 0.9))
def test_a_loss_that_is_not_finite_stops_training_at_the_last_one_that_is(
    witness: ModuleType, dtype: type, seed: int, power: float
) -> None:
    problem = small(seed, dtype)._replace(option={"activation": "identity"})
    rate = float(np.finfo(dtype).max) ** power
    with pytest.raises(witness.Diverged) as caught:
        descend(witness, problem, learning_rate=rate, steps=40)
    run, step = caught.value.run, len(caught.value.run.losses)
    message = str(caught.value)
    assert message.startswith("learning_rate: expected a finite loss, found ")
    assert message.endswith(f" at step {step} with learning rate {rate}")
    assert run.stopped == "diverged"
    assert np.isfinite(run.losses).all()
    assert all(np.isfinite(weight).all() for weight in run.params if weight is not None)
    before = descend(witness, problem, learning_rate=rate, steps=step - 1)
    assert same(run, before._replace(stopped="diverged"))


@WITNESSES
def test_a_parameter_that_overflows_stops_training_though_the_loss_is_finite(
    witness: ModuleType,
) -> None:
    one, none = np.ones((1, 1)), np.zeros((1, 1))
    start = Params(U=1e-200 * one, W=none, V=one)
    problem = Problem("rnn", start, 1e200 * one[None], none, {}, {"activation": "tanh"}, "mse")
    # ∂L/∂U is about 1e200, and U overflows. Then h = tanh(±∞) = ±1 and L = V² is about 1e300.
    with pytest.raises(witness.Diverged, match="found a parameter that is not finite") as caught:
        descend(witness, problem, learning_rate=1e150)
    assert str(caught.value).endswith(" at step 1 with learning rate 1e+150")
    assert same(caught.value.run.params, start)
    assert len(caught.value.run.losses) == 1


@WITNESSES
def test_a_start_whose_loss_is_not_finite_is_not_blamed_on_the_learning_rate(
    witness: ModuleType,
) -> None:
    problem = small()
    far = problem._replace(params=problem.params._replace(c=np.full(2, 1e200)))
    with pytest.raises(witness.Diverged, match=r"^params: .* found inf at step 0") as caught:
        descend(witness, far)
    assert same(caught.value.run.params, far.params)
    assert caught.value.run.losses.tolist() == [inf]


@WITNESSES
@pytest.mark.parametrize("after", [1, 7, 8])
def test_ctrl_c_keeps_what_was_done(witness: ModuleType, after: int) -> None:
    def progress(step: int, loss: float) -> None:
        if step >= after:
            raise KeyboardInterrupt

    problem = small()
    with pytest.raises(KeyboardInterrupt) as caught:
        descend(witness, problem, progress=progress)
    assert isinstance(caught.value, witness.Interrupted)
    run = caught.value.run
    step = len(run.losses) - 1
    assert str(caught.value) == f"training: interrupted after step {step}"
    assert step >= after if witness is autodiff else step == after
    assert same(run, descend(witness, problem, steps=step)._replace(stopped="interrupted"))


def interrupted_at_line(count: int, call: Callable[[], Any]) -> Any:
    """What `call` raises or returns if Ctrl-C comes just before the given line of `descend`."""
    left = count

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_name != "descend":
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    # A Ctrl-C between the last line of a `with` block and its exit leaves JAX as the block had it.
    with jax.enable_x64(False):
        sys.settrace(trace)
        try:
            return call()
        except KeyboardInterrupt as interrupted:
            return interrupted
        finally:
            sys.settrace(before)


@WITNESSES
def test_ctrl_c_at_any_line_leaves_losses_and_parameters_that_belong_together(
    witness: ModuleType,
) -> None:
    problem = small()
    parts = [descend(witness, problem, steps=k)._replace(stopped="interrupted") for k in range(6)]
    kept = set()
    for count in range(1000):
        told: list[int] = []
        found = interrupted_at_line(
            count,
            lambda: descend(
                witness,
                problem,
                steps=5,
                progress=lambda step, _: told.append(step),  # noqa: B023
            ),
        )
        if isinstance(found, witness.Interrupted):
            assert same(found.run, parts[len(found.run.losses) - 1])
            kept.add(len(found.run.losses) - 1)
            assert max(told, default=0) <= max(kept)
        elif isinstance(found, KeyboardInterrupt):
            assert not told, "Ctrl-C was passed on without the run"
        else:
            break
    assert same(found.params, parts[5].params)
    assert kept == set(range(6)) if witness is manual else kept >= {0, 5}


# One compilation, few calls.


def test_a_shape_is_compiled_once_whatever_the_rate_target_and_steps() -> None:
    traced = []

    def phi(a: Any) -> Any:
        traced.append(a)
        return jax.numpy.tanh(a)

    option: Any = {"activation": phi}
    problem = small()._replace(option=option)
    descend(autodiff, problem, steps=3)
    first = len(traced)
    assert first > 0
    descend(autodiff, problem, steps=700, target=1e-3, learning_rate=0.01)
    descend(autodiff, small(1)._replace(option=option))
    assert len(traced) == first


def test_many_steps_are_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, compiled = [], autodiff._steps

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return compiled(*arguments)

    monkeypatch.setattr(autodiff, "PATIENCE", inf)
    monkeypatch.setattr(autodiff, "_steps", counted)
    descend(autodiff, small(), steps=5 * autodiff.CHUNK)
    assert len(calls) <= 5 + np.log2(autodiff.CHUNK) + 1


# Arguments.


@WITNESSES
@pytest.mark.parametrize(
    ("options", "exception", "message"),
    [
        *(
            (
                {"learning_rate": rate},
                ValueError,
                f"a finite number above 0 in float64, found {rate}",
            )
            for rate in (0, -0.1, inf, nan)
        ),
        *(
            ({"target": target}, ValueError, f"None or a finite number from 0 on, found {target}")
            for target in (-1e-9, inf, nan)
        ),
        ({"learning_rate": "0.1"}, TypeError, "a number, found str"),
        ({"learning_rate": True}, TypeError, "a number, found bool"),
        ({"learning_rate": None}, TypeError, "a number, found NoneType"),
        ({"target": "0"}, TypeError, "a number, found str"),
        ({"steps": -1}, ValueError, "at least 0, found -1"),
        ({"steps": 1.0}, TypeError, "an integer, found float"),
        ({"steps": True}, TypeError, "an integer, found bool"),
        ({"loss": "no such"}, ValueError, f"one of {', '.join(LOSSES)}, found 'no such'"),
        ({"model": "cnn"}, ValueError, "one of rnn, lstm, gru, found 'cnn'"),
        ({"model": None}, TypeError, "a name, found NoneType"),
        ({"c0": np.zeros((2, 4))}, ValueError, "None with model='rnn', found ndarray"),
    ],
)
def test_wrong_settings_get_one_sentence(
    witness: ModuleType, options: dict[str, Any], exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception) as caught:
        descend(witness, small(), **options)
    (name,) = options
    assert str(caught.value) == f"{name}: expected {message}"


@WITNESSES
def test_a_rate_that_its_dtype_rounds_to_zero_is_refused(witness: ModuleType) -> None:
    with pytest.raises(ValueError, match="above 0 in float32, found 1e-60"):
        descend(witness, small(dtype=np.float32), learning_rate=1e-60)
    with pytest.raises(ValueError, match=r"above 0 in float32, found 1e\+60"):
        descend(witness, small(dtype=np.float32), learning_rate=1e60)


@WITNESSES
def test_wrong_arrays_are_refused_before_anything_is_done(witness: ModuleType) -> None:
    problem = small()
    with pytest.raises(ValueError, match=r"y: expected shape \(B, O\) = \(2, 2\)"):
        descend(witness, problem._replace(y=problem.y[:1]))
    with pytest.raises(TypeError, match="x: expected dtype float64 as in U, found float32"):
        descend(witness, problem._replace(x=problem.x.astype(np.float32)))


def test_the_twins_have_the_same_signature_and_the_same_fields() -> None:
    ours, its = (
        [(p.name, p.kind, None if p.name == "progress" else p.default)
         for p in inspect.signature(w.descend).parameters.values()]
        for w in (manual, autodiff)
    )  # fmt: skip
    assert ours == its
    assert manual.Run._fields == autodiff.Run._fields
