"""Own models whose loss is one of PyTorch: verdicts, and what is handed to the submission.

torch is no dependency: where it is not installed, these tests are skipped.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.torch_losses import rounds_inside
from bptt_verifier.tolerance.comparison import Verdict

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")

x = np.random.default_rng(0).normal(size=(3, 2))


def loss(p: Any) -> Any:
    h = torch.zeros(2, dtype=p["W"].dtype)
    for each in torch.tensor(x, dtype=p["W"].dtype):
        h = torch.tanh(each + p["W"] @ h)
    return (h**2).sum()


def gradients(p: Any, shift: int = 0) -> Any:
    W, inputs = np.asarray(p["W"]), x.astype(np.asarray(p["W"]).dtype)
    hs = [0 * inputs[0]]
    for each in inputs:
        hs.append(np.tanh(each + W @ hs[-1]))
    d, dW = 2 * hs[-1], 0 * W
    for t in (2, 1, 0):
        a = d * (1 - hs[t + 1] ** 2)
        dW, d = dW + np.outer(a, hs[t + shift]), W.T @ a
    return {"W": dW}


def of_tensors(p: Any, **options: Any) -> Any:
    """Return a loss and gradients that are tensors, which need gradients themselves."""
    found = gradients({"W": p["W"].detach().numpy()}, **options)
    return loss(p), {"W": torch.tensor(found["W"], requires_grad=True)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensors_are_handed_over_as_they_were_given(dtype: str) -> None:
    seen = set()

    def noting(p: Any) -> Any:
        seen.add((p["W"].dtype, p["W"].requires_grad, type(p["W"])))
        return of_tensors(p)

    given = torch.nn.Parameter(torch.tensor([[0.3, -0.5], [0.8, 0.1]], dtype=getattr(torch, dtype)))
    report = verify_own_model(noting, loss, {"W": given}, cases=6)
    assert report.verdict is Verdict.AGREES, report
    assert seen == {(getattr(torch, dtype), True, torch.nn.Parameter)}
    assert not any("ill-conditioned" in note for note in report.notes)


def test_a_mistake_is_named_with_the_line_of_the_loss() -> None:
    given = {"W": np.array([[0.3, -0.5], [0.8, 0.1]])}
    report = verify_own_model(lambda p: gradients(p, shift=1), loss, given, cases=6)
    (mistake,) = report.mistakes
    assert mistake.name == "hidden-state-off-by-one"
    assert '`p["W"] @ h`' in mistake.explanation
    line = loss.__code__.co_firstlineno + 3
    assert f"{__file__}:{line}:" in mistake.explanation


def test_a_loss_that_cannot_be_traced_is_differentiated_by_torch_autograd() -> None:
    def inverse(p: Any) -> Any:
        return torch.linalg.inv(p["W"]).sum()

    def right(p: Any) -> Any:
        inside = np.linalg.inv(p["W"]).T
        return {"W": -np.outer(inside.sum(1), inside.sum(0))}

    given = {"W": np.array([[0.3, -0.5], [0.8, 0.1]])}
    report = verify_own_model(right, inverse, given)
    assert report.verdict is Verdict.AGREES, report
    assert "reference is therefore torch.autograd in float64" in report.notes[0]
    report = verify_own_model(lambda p: {"W": right(p)["W"].T}, inverse, given)
    assert [m.name for m in report.mistakes] == ["transposed-gradient"]


def test_a_loss_whose_autograd_is_cut_by_item_has_no_verdict() -> None:
    def written(p: Any) -> Any:
        return (p["W"] * p["W"].sum().item()).sum()

    given = {"W": torch.tensor([0.3, 0.5], dtype=torch.float64)}
    report = verify_own_model(lambda p: p, written, given, cases=4)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "uses detach, item, no_grad or padding_idx" in report.notes[-1]


class Cube:
    """A function of PyTorch with a derivative of its own, wrong if `factor` is not 3."""

    @staticmethod
    def make(factor: float) -> Any:
        def forward(context: Any, a: Any) -> Any:
            context.save_for_backward(a)
            return a**3

        def backward(context: Any, d: Any) -> Any:
            return factor * context.saved_tensors[0] ** 2 * d

        members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        return type("Function", (torch.autograd.Function,), members)


def test_a_function_of_pytorch_is_judged_by_its_own_derivative() -> None:
    given = {"w": torch.tensor([0.3, 0.5], dtype=torch.float64)}

    def by_function(p: Any, factor: float) -> Any:
        w = p["w"].clone().requires_grad_()
        Cube.make(factor).apply(w).sum().backward()
        return {"w": w.grad}

    def written(p: Any) -> Any:
        return (p["w"] ** 3).sum()

    assert verify_own_model(lambda p: by_function(p, 3.0), written, given, cases=4)
    assert not verify_own_model(lambda p: by_function(p, 2.9), written, given, cases=4)

    def wrong(p: Any) -> Any:
        return Cube.make(2.9).apply(p["w"]).sum()

    report = verify_own_model(lambda p: by_function(p, 2.9), wrong, given, cases=4)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "torch.autograd" in report.notes[-1]


def test_a_loss_that_leaves_pytorch_is_differentiated_by_differences() -> None:
    given = {"w": torch.tensor([0.3, 0.5], dtype=torch.float64)}

    def squares(p: Any) -> float:
        return float((p["w"].detach().numpy() ** 2).sum())

    report = verify_own_model(lambda p: {"w": 2 * p["w"]}, squares, given)
    assert report.verdict is Verdict.AGREES, report
    assert "returns float, which autograd cannot follow" in report.notes[0]
    assert "central differences of the loss in float64" in report.notes[0]


def test_none_is_the_gradient_of_a_parameter_without_use() -> None:
    given = {"w": torch.tensor([0.3, 0.5]), "unused": torch.tensor([0.1])}

    def squares(p: Any) -> Any:
        return (p["w"] ** 2).sum()

    assert verify_own_model(lambda p: {"w": 2 * p["w"], "unused": None}, squares, given, cases=4)
    report = verify_own_model(lambda p: {"w": None, "unused": None}, squares, given, cases=4)
    assert [mistake.name for mistake in report.mistakes] == ["zero-gradient"]


@pytest.mark.parametrize("rounds", [True, False])
def test_a_loss_whose_constants_are_float32_is_judged_in_float32(rounds: bool) -> None:
    x = torch.linspace(0.2, 1.5, 7, dtype=torch.float64)

    def levels() -> Any:
        if rounds:
            return (torch.arange(5) + 0.5) / 5
        return (torch.arange(5, dtype=torch.float64) + 0.5) / 5

    def quantiles(p: Any) -> Any:
        return (levels() * torch.sin(x[:, None] * p["w"])).sum()

    def derive(p: Any, factor: float = 1.0) -> Any:
        slope = x[:, None] * torch.cos(x[:, None] * p["w"])
        return {"w": factor * (levels() * slope).sum(0)}

    params = {"w": torch.linspace(0.5, 1.5, 5, dtype=torch.float64)}
    report = verify_own_model(derive, quantiles, params)
    assert report.verdict is Verdict.AGREES, report
    said = "As it stands, your loss rounds to float32 inside, as where it makes constants: all "
    assert any(note.startswith(said) for note in report.notes) is rounds
    off = 1e-3 if rounds else 1e-9
    wrong = verify_own_model(lambda p: derive(p, 1 + off), quantiles, params)
    assert wrong.verdict is Verdict.DISAGREES
    assert [each.name for each in wrong.mistakes] == ["constant-factor"]


@pytest.mark.parametrize(
    ("apart", "rounds"),
    [(0.0, False), (2.0**-43, False), (2.0**-41, True), (2.0**-15, True), (2.0**-13, False)],
)
def test_two_computations_of_a_loss_are_apart_by_the_rounding_of_float32(
    apart: float, rounds: bool
) -> None:
    tree = flatten({"w": torch.ones(2, dtype=torch.float64)})

    def plain(p: Any) -> Any:
        return p["w"].sum() * (1 + apart)

    def wide(p: Any) -> Any:
        return p["w"].sum()

    assert rounds_inside(plain, wide, tree) is rounds
    single = flatten({"w": torch.ones(2, dtype=torch.float32)})  # whose parameters round
    assert not rounds_inside(plain, wide, single)
    assert not rounds_inside(lambda p: 1 / 0, wide, tree)
    assert not rounds_inside(plain, lambda p: 1 / 0, tree)
