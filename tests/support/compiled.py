"""What the tests of the compiled derivations share: problems, and the demand to agree."""

from types import ModuleType
from typing import Any

import numpy as np

from bptt_verifier.judge.builtin import AUTODIFF, Comparer
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem, Sizes
from manual_bptt import jitted
from tests.support.agreement import assert_right

COMPILED = {"rnn": jitted.rnn, "lstm": jitted.lstm, "gru": jitted.gru}
GATED = [("lstm", ""), ("gru", "after"), ("gru", "before")]

# Every new shape compiles anew: few shapes, with and without a loop.
SHAPES = [Sizes(1, 2, 3, 4, 2), Sizes(3, 1, 2, 2, 1), Sizes(5, 3, 1, 3, 2), Sizes(12, 2, 4, 6, 3)]


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


def plain_problem(T: int = 6, dtype: Any = np.float32) -> Problem:
    return with_values(np.random.default_rng(6), Sizes(T, 3, 2, 4, 2), dtype=dtype)
