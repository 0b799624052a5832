"""What the suite demands of a derivation on one problem, the real ones and the mistaken ones."""

import copy
from types import ModuleType
from typing import Any

import numpy as np

from bptt_verifier.judge.builtin import (
    allowed,
    compare_all,
    derivation_of,
    reference,
    reference_and_allowed,
    variant_derivation_of,
)
from bptt_verifier.problems.problem import Problem, Variant
from bptt_verifier.tolerance.comparison import Verdict


def same(left: Any, right: Any) -> bool:
    """Whether two problems, traces or results hold the same bits."""
    if left is None or isinstance(left, str | int):
        return bool(left == right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple):
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    return left.dtype == right.dtype and np.array_equal(
        left, right, equal_nan=left.dtype.kind == "f"
    )


def assert_agrees(module: ModuleType, problem: Problem) -> None:
    """`module`'s results are within the bound of autodiff's and of the right dtype.

    Asking twice gives the same bits, and neither arguments nor trace are touched.
    """
    before = copy.deepcopy(problem)
    found = derivation_of(module)(problem)
    assert same(problem, before), "the arguments were modified"
    again = derivation_of(module)(problem)
    assert same(tuple(found.values()), tuple(again.values())), "not deterministic"
    truth = reference(problem)
    for comparison in compare_all(found, truth, allowed(problem, truth)):
        assert found[comparison.name].dtype == problem.x.dtype, comparison.name
        assert comparison.verdict is not Verdict.DISAGREES, str(comparison)
    if hasattr(module, "backward"):
        _, trace = module.forward(
            problem.params, problem.x, problem.h0, activation=problem.activation
        )
        kept, upstream = copy.deepcopy(trace), np.ones_like(problem.y)
        module.backward(problem.params, trace, upstream)
        assert same(trace, kept), "the trace was modified"
        assert (upstream == 1).all(), "the output gradient was modified"


def assert_variant_agrees(module: ModuleType, variant: Variant) -> None:
    """The same of any cell with any options, within the measured error."""
    before = copy.deepcopy(variant)
    found = variant_derivation_of(module)(variant)
    assert same(variant, before), "the arguments were modified"
    again = variant_derivation_of(module)(variant)
    assert same(tuple(found.values()), tuple(again.values())), "not deterministic"
    for comparison in compare_all(found, *reference_and_allowed(variant)):
        assert found[comparison.name].dtype == variant.x.dtype, comparison.name
        assert comparison.verdict is not Verdict.DISAGREES, str(comparison)
    prediction, trace = module.forward(variant.params, variant.x, **variant.first, **variant.batch)
    kept, upstream = copy.deepcopy(trace), np.ones_like(prediction)
    module.backward(variant.params, trace, upstream)
    assert same(trace, kept), "the trace was modified"
    assert (upstream == 1).all(), "the output gradient was modified"
