"""A function of PyTorch at many points, in one call or in several. Skipped where it is missing."""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bptt_verifier.cells import gru
from bptt_verifier.program import torch_points
from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.program.torch_points import compute_at_points, pull_back_at_points
from bptt_verifier.reference.point_arrays import widen
from bptt_verifier.reference.pullbacks import prepare_pullback

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")

POINTS = [{"x": np.array([k, -2.0, 1.0]), "w": np.array([0.5, 1.0 + k, 2.0])} for k in range(5)]
COTANGENTS = [{"y": np.array([1.0, k, -1.0]), "s": np.array(0.5 - k)} for k in range(5)]
Counted = Callable[[Any], Any]


class Counting:
    """A function that counts its calls, and notes how many entries an argument had in each."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, tensors: Any) -> Any:
        self.calls += 1
        return self.function(tensors)


def multiply(tensors: Any) -> Any:
    y = torch.tanh(tensors["x"] * tensors["w"])
    return {"y": y, "s": y.sum() ** 2, "count": torch.arange(2)}


def expect(multiplied: Any = multiply) -> Iterator[tuple[Any, Any]]:
    """List the outputs at each point, and the gradients, by autograd at one after the other."""
    for point, given in zip(POINTS, COTANGENTS, strict=True):
        tensors = {n: torch.tensor(x, requires_grad=True) for n, x in point.items()}
        outputs = multiplied(tensors)
        (outputs["y"] @ torch.tensor(given["y"]) + outputs["s"] * float(given["s"])).backward()
        yield outputs, {n: x.grad for n, x in tensors.items()}


def require_right(function: Any, size: int = 5) -> None:
    outputs, gradients = pull_back_at_points(function, POINTS[:size], COTANGENTS[:size])
    alone = compute_at_points(function, POINTS[:size])
    assert gradients.keys() == {"x", "w"}
    assert outputs.keys() == alone.keys() == {"y", "s"}
    for k, (values, slopes) in zip(range(size), expect(), strict=False):
        for name in outputs:
            for found in (outputs, alone):
                np.testing.assert_allclose(found[name][k], values[name].detach(), rtol=1e-12)
        for name in gradients:
            np.testing.assert_allclose(gradients[name][k], slopes[name], rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_many_points_take_as_many_calls_as_one(size: int) -> None:
    counting = Counting(multiply)
    require_right(counting, size)
    assert counting.calls == 2 * min(2, size)  # of several points, one is run by itself as well


def test_the_entries_of_one_call_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_points, "ENTRIES", 18)  # of which a point has six
    counting = Counting(multiply)
    require_right(counting)
    assert counting.calls == 2 * (2 + 2)  # the last two by themselves
    monkeypatch.setattr(torch_points, "ENTRIES", 5)
    counting = Counting(multiply)
    require_right(counting)
    assert counting.calls == 2 * 5


def branch(tensors: Any) -> Any:
    """Decide by a number, for which vmap has no rule."""
    assert tensors["w"].sum().item() > 0
    return multiply(tensors)


def write(tensors: Any) -> Any:
    """Write into an array that is the same at all points."""
    product = torch.zeros(3, dtype=torch.float64)
    product += tensors["x"] * tensors["w"]
    return multiply({"x": product, "w": torch.ones(3, dtype=torch.float64)})


def look_at_all_points(tensors: Any) -> Any:
    """Give another number where more than one point is in memory."""
    every = (
        torch.func.debug_unwrap(tensors["x"])
        if torch._C._functorch.is_batchedtensor(tensors["x"])
        else tensors["x"]
    )
    return multiply({"x": tensors["x"] * (1.0 + (every.ndim > 1)), "w": tensors["w"]})


@pytest.mark.parametrize("function", [branch, write, look_at_all_points])
def test_what_allows_no_common_call_is_run_at_one_point_after_the_other(function: Any) -> None:
    require_right(Counting(function))


def test_numbers_that_are_no_tensors_and_arguments_that_are_not_used() -> None:
    def constant(tensors: Any) -> Any:
        return {"y": 2.0 * tensors["x"].detach() + tensors["w"], "s": 1.5}

    outputs, gradients = pull_back_at_points(constant, POINTS, COTANGENTS)
    assert outputs["s"].tolist() == [1.5] * 5
    assert not gradients["x"].any()
    assert gradients["w"].tolist() == [each["y"].tolist() for each in COTANGENTS]


@pytest.mark.parametrize("points", [16, 18])
def test_a_recurrence_of_two_layers_runs_in_one_call_with_parameters_as_they_are(
    points: int,
) -> None:
    torch.manual_seed(0)
    net = torch.nn.GRU(2, 2, num_layers=2, bidirectional=True)
    calls = 0

    def forward(weights: Any, x: Any) -> Any:
        nonlocal calls
        calls += 1
        return gru.forward(weights, x, lengths=torch.tensor([3, 2]))

    given = dict(net.named_parameters()), torch.randn(3, 2, 2)
    pullback = prepare_pullback(forward, read_arguments(given))
    there = [widen(pullback.arguments.leaves)] * points
    cotangents = [{n: np.ones(x.shape) for n, x in pullback.outputs.items()}] * points
    pulled, calls = pullback.pull_back(there, cotangents), 0
    assert pullback.list_unconfirmed(there, cotangents, pulled.gradients) == []
    assert calls <= 4  # of 17 arguments at two steps from each point
