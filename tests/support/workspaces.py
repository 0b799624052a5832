"""Workspaces of problems, and the demand to agree, for the tests of the workspace."""

import copy
from typing import Any

import numpy as np

from bptt_verifier.judge.builtin import Comparer
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import OPTIONS, Problem, Sizes
from manual_bptt.workspace import Workspace
from tests.support.agreement import assert_right, same


def workspace_of(
    problem: Problem, checkpoint_every: int | None = None, kind: type[Workspace[Any]] = Workspace
) -> Workspace[Any]:
    return kind(
        problem.params, problem.x, **problem.option, loss=problem.loss,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip


def found_in(workspace: Workspace[Any], problem: Problem) -> dict[str, Any]:
    """A copy of the loss and the gradients, by name."""
    value, gradient = workspace.value_and_grad(
        problem.params, problem.x, problem.y, **problem.first
    )
    return copy.deepcopy({"loss": value} | gradient._asdict())


def assert_agrees(workspace: Workspace[Any], problem: Problem, comparer: Comparer) -> None:
    """Assert that the results agree with autodiff, in the dtype; no argument is changed."""
    before = copy.deepcopy(problem)
    found = found_in(workspace, problem)
    assert same(problem, before), "the arguments were modified"
    assert_right(comparer, found, problem)


def plain_problem(cell: str, seed: int, sizes: Sizes, **values: Any) -> Problem:
    """A problem of the cell; of the GRU with either place of the reset gate, by turns."""
    option = OPTIONS[cell][seed % len(OPTIONS[cell])]
    return with_values(np.random.default_rng(seed), sizes, cell=cell, option=option, **values)
