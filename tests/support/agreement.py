"""The demands of the suite on one derivation at one problem, right and mistaken ones alike."""

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from bptt_verifier.judge.builtin import AUTODIFF, Comparer, make_derivation
from bptt_verifier.problems.problem import Problem
from bptt_verifier.tolerance.comparison import Verdict


def same(left: Any, right: Any) -> bool:
    """True if two problems, traces or results hold the same bits."""
    if left is None or isinstance(left, str | int):
        return bool(left == right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple):
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    return left.dtype == right.dtype and np.array_equal(
        left, right, equal_nan=left.dtype.kind == "f"
    )


def assert_right(comparer: Comparer, found: dict[str, Any], problem: Problem) -> None:
    """Assert that results by name agree with the reference, in the dtype of the problem."""
    for compared in comparer(found):
        assert found[compared.name].dtype == problem.x.dtype, compared.name
        assert compared.verdict is not Verdict.DISAGREES, str(compared)


def assert_agrees(
    module: ModuleType,
    problem: Problem,
    comparer_of: Callable[[Problem], Comparer] = AUTODIFF.within_bound,
) -> None:
    """Assert that the results of `module` agree with autodiff, within the derived bound or as told.

    They have the right dtype, a second call gives the same bits, and neither the arguments nor the
    trace change.
    """
    before = copy.deepcopy(problem)
    found = make_derivation(module)(problem)
    assert same(problem, before), "the arguments were modified"
    again = make_derivation(module)(problem)
    assert same(tuple(found.values()), tuple(again.values())), "not deterministic"
    assert_right(comparer_of(problem), found, problem)
    if hasattr(module, "backward"):
        prediction, trace = module.forward(
            problem.params, problem.x, **problem.first, **problem.batch
        )
        kept, upstream = copy.deepcopy(trace), np.ones_like(prediction)
        module.backward(problem.params, trace, upstream)
        assert same(trace, kept), "the trace was modified"
        assert (upstream == 1).all(), "the output gradient was modified"


def assert_cell_agrees(module: ModuleType, problem: Problem) -> None:
    """Assert the same of any cell with any options, within the measured error."""
    assert_agrees(module, problem, AUTODIFF.within_measured_error)
