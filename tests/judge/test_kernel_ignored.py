"""What follows from ignored cotangents is the gradient of zeros, or of ones, in their place."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_cases import KernelCase, draw_neighbours
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_ignored import follows_at, follows_from_ignored
from tests.support.measurements import make_measurement

SEED = 5
X, Y, Z = np.array([1.0, 2.0]), np.array([3.0, -1.0]), np.array([0.5, 4.0])
CASE = KernelCase(0, 0, {"x": X}, {"y": Y, "z": Z})


def pull_back(points: Any, cotangents: Any) -> Any:
    """Pull back through y = x and z = x²."""
    pairs = zip(points, cotangents, strict=True)
    found = [c["y"] + 2 * p["x"] * c["z"] for p, c in pairs]
    return SimpleNamespace(gradients={"x": np.stack(found)})


def raise_error(points: Any, cotangents: Any) -> Any:
    """Raise as a function does that cannot be computed."""
    raise ValueError("no such point")


def find(taken: Any, *, wrong: bool = True, case: KernelCase = CASE) -> Found:
    """What was found of a kernel that takes other cotangents than those of a case."""
    near = draw_neighbours(case, case.distance, SEED)
    exact = pull_back(*near).gradients["x"]
    submitted = pull_back(near.points, [taken(each) for each in near.cotangents]).gradients["x"]
    measured = {"x": make_measurement([0.0], whole=2.0 * wrong)}
    outputs = {"y": make_measurement([0.0], whole=2.0)}
    return Found(case, {"x": submitted}, {"x": exact}, measured, outputs)


def follows(found: Found, outputs: Any, back: Any = pull_back) -> bool:
    """Tell whether what was found follows from the cotangents of outputs that are ignored."""
    calls: Any = SimpleNamespace(pullback=SimpleNamespace(pull_back=back))
    return follows_at(calls, found, outputs, SEED)


def zeros(name: str) -> Any:
    """Take zeros for the cotangents of one output."""
    return lambda each: each | {name: np.zeros(2)}


def ones(each: Any) -> Any:
    """Take ones for all cotangents."""
    return {n: np.ones(2) for n in each}


@pytest.mark.parametrize("name", ["y", "z"])
def test_one_ignored_output_of_several_has_zeros(name: str) -> None:
    found = find(zeros(name))
    assert follows(found, [name])
    assert not follows(found, ["z" if name == "y" else "y"])


def test_a_kernel_that_ignores_all_takes_ones() -> None:
    assert follows(find(ones), ["y", "z"])
    assert not follows(find(zeros("y")), ["y", "z"])
    assert not follows(find(lambda each: {"y": np.ones(2), "z": each["z"]}), ["y"])


def test_it_must_hold_in_every_case_and_only_for_what_is_wrong() -> None:
    calls: Any = SimpleNamespace(pullback=SimpleNamespace(pull_back=pull_back))
    every = [find(zeros("y")), find(zeros("z"))]
    assert not follows_from_ignored([calls], every, ["y"], SEED)
    every[1] = find(zeros("z"), wrong=False)
    assert follows_from_ignored([calls], every, ["y"], SEED)


def test_nothing_follows_where_the_gradient_cannot_be_computed() -> None:
    assert follows(find(zeros("y")), ["y"], raise_error) is False
