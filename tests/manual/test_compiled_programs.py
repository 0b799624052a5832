"""Compiled programs hold few arrays of all steps, copy none, and loop as their platform needs."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem, Sizes
from manual_bptt import jitted
from manual_bptt.jitted import step
from tests.support.compiled import COMPILED, GATED

LARGE = (128, 3, 128)  # B, D, H, of which the RNN does several steps back at a time


def temporary_bytes(problem: Problem, **options: Any) -> int:
    """What XLA counts for one training step whose parameters are donated."""

    def step(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
        value, gradient = jitted.value_and_grad(params, x, y, **options)
        return jax.tree.map(lambda w, g: w - np.float32(0.1) * g, params, gradient), value

    compiled = jax.jit(step, donate_argnums=0).lower(problem.params, problem.x, problem.y).compile()
    counted: Any = compiled.memory_analysis()
    return int(counted.temp_size_in_bytes)


@pytest.mark.table(5)
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


# Most arrays (T, B, H) of a step with gates.
ARRAYS = {("lstm", ""): 7.5, ("gru", "after"): 6.5, ("gru", "before"): 7.5}


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "option"), GATED)
@pytest.mark.parametrize("sizes", [Sizes(100, 32, 64, 128, 10), Sizes(50, 16, 32, 64, 8)], ids=str)
def test_one_step_with_gates_takes_few_arrays_of_all_states(
    cell: str, option: str, sizes: Sizes
) -> None:
    problem = with_values(
        np.random.default_rng(0), sizes, cell=cell, option=option, dtype=np.float32, bias=True
    )
    T, B, _, H, _ = sizes
    found = jax.jit(partial(COMPILED[cell].value_and_grad, **problem.option))
    counted: Any = found.lower(problem.params, problem.x, problem.y).compile().memory_analysis()
    assert counted.temp_size_in_bytes <= ARRAYS[cell, option] * 4 * T * B * H


def copied_in_loops(program: str, T: int, B: int) -> list[str]:
    """The instructions of a compiled program that copy what a loop hands on of all T steps."""
    whole = rf"f32\[({T},{B},\d+|\d+,{T * B})\]\S* copy\(%(get-tuple-element|copy)"
    return [line.strip() for line in program.splitlines() if re.search(whole, line)]


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("cell", "option", "sizes"),
    [(*each, (4, 3, 5)) for each in [("rnn", "tanh"), *GATED]]
    + [("rnn", "tanh", LARGE), ("lstm", "", (1, 3, 5)), ("gru", "after", (1, 3, 5))],
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
        # A step is a call, or its product where JAX writes out what it would call.
        steps = program.count("call @") + program.count("stablehlo.dot_general")
        return program.count("stablehlo.while"), steps

    assert loops_and_steps("cpu")[0] == 2
    loops, steps = loops_and_steps("cuda")
    assert loops == gpu
    assert steps >= 2 * (50 if cell == "rnn" else step.TURN)
