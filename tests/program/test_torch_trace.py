"""Losses of PyTorch, traced by JAX: the value and the gradient are those of torch.autograd.

torch is no dependency: where it is not installed, these tests are skipped.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier.program.backward import backward
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.torch_losses import differentiate, over_arrays, takes_tensors
from bptt_verifier.program.torch_tensors import to_array
from bptt_verifier.program.torch_trace import over_jax
from bptt_verifier.program.trace import forward, trace
from tests.support.torch_losses import make_losses

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")
LOSSES = make_losses(torch) if torch else {}
# Rounding of two programs of some hundred operations, relative to the largest entry.
ALLOWED = 1e-12


def differentiate_trace(loss: Any, point: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    with use_float64():
        program = trace(lambda p, _: over_jax(loss, point)(p), point)
        values = forward(program, point)
        found = {name: slope[0] for name, slope in backward(program, values).items()}
    return float(values[program.result][0]), found


@pytest.mark.parametrize("name", LOSSES)
def test_the_trace_has_the_value_and_gradient_of_torch_autograd(name: str) -> None:
    written, shapes = LOSSES[name]
    rng = np.random.default_rng(0)
    point = {key: rng.normal(size=shape) for key, shape in shapes.items()}
    loss = over_arrays(written, [flatten(point)])
    value, slopes = differentiate(loss, point)
    assert value == float(loss(point))
    traced, found = differentiate_trace(loss, point)
    assert traced == pytest.approx(value, rel=ALLOWED)
    for key, slope in slopes.items():
        assert np.abs(found[key] - slope).max() <= ALLOWED * np.abs(slope).max(), key


def over(written: Any) -> Any:
    return over_arrays(written, [flatten({"w": np.ones(3)})])


def test_no_gradient_passes_through_what_is_detached() -> None:
    def written(p: Any) -> Any:
        with torch.no_grad():
            alone = 2 * p["w"]
        return (p["w"] * p["w"].detach() + p["w"] * alone).sum()

    point = {"w": np.array([1.0, 2.0, 4.0])}
    found = differentiate_trace(over(written), point)[1]["w"]
    assert np.array_equal(found, 3 * point["w"])
    assert np.array_equal(found, differentiate(over(written), point)[1]["w"])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (lambda p: p["w"] * p["w"].norm().item(), "to float"),
        (lambda p: torch.linalg.inv(p["w"].diag()), "has no rule"),
        (lambda p: p["w"].view(torch.int64).double().sum(), "does not trace view"),
        (lambda p: p["w"], "no scalar"),
    ],
)
def test_what_cannot_be_traced_is_said(written: Any, said: str) -> None:
    with use_float64(), pytest.raises(UntraceableError, match=said):
        over_jax(over(written), {"w": np.ones(3)})({"w": jax.numpy.ones(3)})


def test_settings_of_pytorch_are_what_they_were() -> None:
    before = torch.get_default_dtype(), torch.from_numpy

    def written(p: Any) -> Any:
        assert torch.get_default_dtype() == torch.float64
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        over(written)({"w": np.ones(3)})
    assert (torch.get_default_dtype(), torch.from_numpy) == before
    assert torch.nn.Linear(2, 2)(torch.ones(2)).dtype == torch.float32


def test_a_loss_takes_tensors_if_they_are_given_or_it_fails_on_arrays() -> None:
    arrays, tensors = flatten({"w": np.ones(3)}), flatten({"w": torch.ones(3)})
    assert takes_tensors(lambda p: torch.tanh(p["w"]).sum(), [arrays])
    assert takes_tensors(lambda p: torch.tensor(p["w"], requires_grad=True).sum(), [arrays])
    assert takes_tensors(lambda p: torch.from_numpy(p["w"]).sum(), [arrays])
    assert takes_tensors(lambda p: (p["w"] ** 2).sum(), [tensors])
    assert not takes_tensors(lambda p: (p["w"] ** 2).sum(), [arrays])
    assert not takes_tensors(lambda p: np.tanh(p["w"]).sum(), [arrays])
    for numbers in (0.5, np.float64(0.5)):  # for which nothing else stands
        assert not takes_tensors(lambda p: p[0] ** 2, [flatten([numbers, np.ones(2)])])
    with pytest.raises(ValueError, match="leave out the second argument"):
        takes_tensors(lambda p, xp: xp.sum(p["w"]), [tensors])


def test_modules_and_tensors_are_nested_parameters() -> None:
    net = torch.nn.Sequential(torch.nn.RNN(2, 3), torch.nn.Linear(3, 1, bias=False))
    tree = flatten({"net": net, "w": torch.ones(2, dtype=torch.float64), "n": torch.tensor([1])})
    assert [*tree.leaves][:2] == ["net['0'].weight_ih_l0", "net['0'].weight_hh_l0"]
    assert (tree.data, tree.leaves.one_precision) == (("n",), True)
    other = tree.rebuild({name: value + 1 for name, value in tree.leaves.items()})
    made = tree.find_leaves(other)
    assert all(np.array_equal(to_array(v), tree.leaves[n] + 1) for n, v in made.items())
    assert other["net"][0]._flat_weights[0] is other["net"][0].weight_ih_l0
    assert [p.requires_grad for p in other["net"].parameters()] == [True] * 5
    assert not other["w"].requires_grad
    assert np.array_equal(net[0].weight_ih_l0.detach(), tree.leaves["net['0'].weight_ih_l0"])
    with pytest.raises(ValueError, match="found bfloat16"):
        flatten({"w": torch.ones(2, dtype=torch.bfloat16)})
