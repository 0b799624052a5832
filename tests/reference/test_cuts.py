"""Code in PyTorch that stops a gradient on purpose is not called wrong for it.

torch is no dependency: where it is not installed, these tests are skipped.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.own_code import read_function
from bptt_verifier.program.torch_losses import follow_values, over_arrays
from bptt_verifier.reference.cuts import differentiate_cut
from bptt_verifier.reference.own_loss import prepare

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")

x = np.random.default_rng(0).normal(size=(4, 3))
W = np.random.default_rng(1).normal(size=(3, 3))


def detached(p: Any) -> Any:
    z = torch.tanh(torch.tensor(x) @ p["W"])
    return (z * (2 * z).detach()).sum()


def read_as_data(p: Any) -> Any:
    z = torch.tanh(torch.tensor(x) @ p["W"])
    return (z * z.data).sum()


def without_gradients(p: Any) -> Any:
    z = torch.tanh(torch.tensor(x) @ p["W"])
    with torch.no_grad():
        target = 2 * z
    return (z * target).sum()


def returned_without(p: Any) -> Any:
    return detached(p).detach().item()


def returned_as_an_array(p: Any) -> Any:
    return float(detached(p).detach().numpy())


def entirely_without(p: Any) -> Any:
    with torch.no_grad():
        return detached(p)


def uncut(p: Any) -> Any:
    return torch.tanh(torch.tensor(x) @ p["W"]).sum().item()


def derive(loss: Callable[..., Any], needs: bool) -> Any:
    """Differentiate a loss whose gradients are derived by hand, at tensors as the user's."""

    def own(p: Any) -> Any:
        return loss(p)

    follow_values(own)
    tree = flatten({"W": torch.tensor(W, requires_grad=needs)})
    return differentiate_cut(over_arrays(own, (tree,)), {"W": W})


@pytest.mark.parametrize("needs", [False, True])
@pytest.mark.parametrize(
    "loss", [detached, read_as_data, without_gradients, returned_without, returned_as_an_array]
)
def test_the_place_and_the_gradient_of_a_cut_are_found(
    loss: Callable[..., Any], needs: bool
) -> None:
    found = derive(loss, needs)
    if loss is without_gradients and not needs:  # of tensors without gradients, nothing is said
        assert found is None
        return
    z = np.tanh(x @ W)
    np.testing.assert_allclose(found[1]["W"], x.T @ (2 * z * (1 - z * z)) * (
        0.5 if loss is read_as_data else 1
    ))  # fmt: skip
    assert "(2 * z).detach()" in [p.expression for p in found[0]] or loss not in (
        detached,
        returned_without,
        returned_as_an_array,
    )


def with_a_product(p: Any) -> Any:
    data = torch.tensor(x)
    with torch.no_grad():
        target = torch.matmul(data, p["W"])
    return (target * torch.tanh(torch.tensor(x) @ p["W"])).sum()


@pytest.mark.parametrize(
    ("loss", "where"),
    [(without_gradients, "2 * z"), (with_a_product, 'torch.matmul(data, p["W"])')],
)
def test_code_without_gradients_is_a_place(loss: Callable[..., Any], where: str) -> None:
    assert [p.expression for p in derive(loss, needs=True)[0]] == [where]
    assert differentiate_cut(loss, {"W": W}) is None  # of what is not known to need gradients


def test_one_entry_of_one_parameter_may_have_a_gradient() -> None:
    def loss(p: Any) -> Any:
        return p["W"][0, 0] * p["W"][0, 0].detach() + 0 * p["b"].sum()

    found: Any = differentiate_cut(loss, {"W": W, "b": np.ones(2)})
    assert found[1]["W"][0, 0] == W[0, 0]
    assert np.count_nonzero(found[1]["W"]) == 1
    assert np.count_nonzero(found[1]["b"]) == 0


def test_constants_that_are_made_without_gradients_are_no_cut() -> None:
    def with_constants(p: Any) -> Any:
        with torch.no_grad():
            target = torch.ones(size=(4, 3), dtype=torch.float64)
        return (target * torch.tanh(torch.tensor(x) @ p["W"])).sum()

    assert derive(with_constants, needs=True) is None


@pytest.mark.parametrize("loss", [entirely_without, uncut])
def test_code_without_autograd_is_not_cut(loss: Callable[..., Any]) -> None:
    assert derive(loss, needs=False) is None


def test_no_verdict_is_given_on_a_loss_that_autograd_differentiates_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(W: Any) -> Any:
        z = torch.tensor(x) @ W
        loss = (z * z.detach()).sum()
        dW = torch.tensor(x).T @ z
        return loss.item(), dW

    monkeypatch.setitem(globals(), "W", torch.tensor(W))
    code = read_function(step, "step", None)
    model = prepare(code.loss, code.params, cases=1)
    assert "torch.autograd stops gradients at `z.detach()`" in (model.refusal or "")
    assert "your gradients may be right for either" in (model.refusal or "")
