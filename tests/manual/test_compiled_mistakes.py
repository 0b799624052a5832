"""Mistakes planted in copies of the compiled derivations are caught."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bptt_verifier.problems.draws import with_values
from tests.support.compiled import COMPILED, GATED, SHAPES, assert_cell_agrees, assert_rnn_agrees
from tests.support.planting import Mistake, planted

MISTAKES = [
    Mistake("slope of the state before", "jitted/rnn.py", "step_of(t + 1, trace.before)", "step_of(t, trace.before)", "jitted"),
    Mistake("the last state's slope missing", "jitted/rnn.py", "jnp.where(t == n - 1, trace.reached, step", "jnp.where(t == n - 1, 0 * trace.reached, step", "jitted"),
    Mistake("W where Wᵀ belongs", "jitted/rnn.py", "return (delta @ W, adjoints)", "return (delta @ W.T, adjoints)", "jitted"),
    Mistake("one step's adjoints written over another's", "jitted/rnn.py", "(0, t * B))", "(0, jnp.maximum(t, 1) * B))", "jitted"),
    Mistake("states one place too late", "jitted/rnn.py", "with_step(t + 1, before, h)", "with_step(t, before, h)", "jitted"),
    Mistake("W where Wᵀ belongs, few steps", "jitted/rnn.py", "adjoints[0] @ W", "adjoints[0] @ W.T", "jitted"),
    Mistake("state after the step, few steps", "jitted/rnn.py", "zip(adjoints, trace.before, strict=True)", "zip(adjoints, [*trace.before[1:], trace.reached], strict=True)", "jitted"),
    Mistake("segments swept back in order", "jitted/rnn.py", "        reverse=True,\n    )\n    dx", "    )\n    dx", "jitted"),
    Mistake("one segment's sum only", "jitted/rnn.py", "W + more.W", "more.W", "jitted"),
    Mistake("factor 2 forgotten", "jitted/losses.py", "lambda r: 2 / r.size * r,", "lambda r: r / r.size,", "jitted"),
    Mistake("σ′ without h", "jitted/rnn.py", "h * (1 - h)", "1 - h", "jitted"),
    Mistake("∂L/∂c of the first sequence only", "jitted/step.py", "rows(dy).sum(axis=0)", "dy[0]", "jitted"),
    Mistake("b forgotten", "jitted/rnn.py", "return phi(a_t if b is None else a_t + b)  # (F2)", "return phi(a_t)  # (F2)", "jitted"),
    Mistake("tanh′ of the cell missing", "jitted/lstm.py", "o * (1 - tanh_c * tanh_c)", "o", "jitted.lstm"),
    Mistake("the cell's own way back cut", "jitted/lstm.py", "at_work(passes, dc_t * f, 0)", "at_work(passes, 0 * dc_t, 0)", "jitted.lstm"),
    Mistake("forget gate met the cell after the step", "jitted/lstm.py", "c * (f * (1 - f))", "c_t * (f * (1 - f))", "jitted.lstm"),
    Mistake("∂L/∂c of the next step lost", "jitted/lstm.py", "dc_t = dc + dh * of_cell", "dc_t = dh * of_cell", "jitted.lstm"),
    Mistake("b forgotten, LSTM", "jitted/lstm.py", "a_t = a_t if b is None else a_t + b", "a_t = a_t", "jitted.lstm"),
    Mistake("gates written over with the cell's", "jitted/lstm.py", "with_step(t, factors, delta)", "with_step(t, factors, 0 * delta)", "jitted.lstm"),
    Mistake("r missing in δ′", "jitted/gru.py", "at_work(works, through, 0) if after else r", "at_work(works, of_n, 0) if after else r", "jitted.gru"),
    Mistake("∂L/∂b_n from δ_n where r came after", "jitted/gru.py", "b_n=delta_met.sum(axis=0)", "b_n=delta_n.sum(axis=0)", "jitted.gru"),
    Mistake("∂L/∂W_n from h where r came before", "jitted/gru.py", "met = before if after else rows(trace.r) * before", "met = before", "jitted.gru"),
    Mistake("path past the candidate dropped", "jitted/gru.py", "before = dh * z + delta_rz @ W_rz + through", "before = delta_rz @ W_rz + through", "jitted.gru"),
    Mistake("δ_r without h", "jitted/gru.py", "else h * (1 - r)", "else 1 - r", "jitted.gru"),
    Mistake("b_n forgotten", "jitted/gru.py", "met = of_n if b_n is None else of_n + b_n", "met = of_n", "jitted.gru"),
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


@pytest.mark.table(5)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_planted_mistake_is_caught(mistake: Mistake, tmp_path: Path) -> None:
    assert not survives(planted(mistake, tmp_path))


@pytest.mark.table(3)
@pytest.mark.parametrize("suspect", ["jitted", "jitted.lstm", "jitted.gru"])
def test_without_a_mistake_nothing_is_caught(suspect: str, tmp_path: Path) -> None:
    mistake = next(m for m in MISTAKES if m.suspect == suspect)
    assert survives(planted(mistake._replace(written=mistake.right), tmp_path))
