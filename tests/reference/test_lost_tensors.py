"""Numbers that float64 cannot hold, in functions of PyTorch that JAX cannot trace."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify_jvp, verify_vjp
from bptt_verifier.reference.lost_numbers import LARGEST, LEAST
from bptt_verifier.reference.lost_tensors import restoring_numbers

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")

SCORES = np.array([0.4, -0.9, -0.4, 0.3, -2.0])


def branch(x: Any) -> Any:
    """Return x, after a decision that JAX cannot trace."""
    return x if x.max().item() < 1e300 else torch.zeros_like(x)


def by_reciprocal(x: Any) -> Any:
    e = torch.exp(branch(x))
    return e * torch.reciprocal(e.sum())


def by_power(x: Any) -> Any:
    e = torch.exp(branch(x))
    return e * e.sum() ** -1


def in_place(x: Any) -> Any:
    e = torch.exp(branch(x))
    return e.clone().mul_(torch.reciprocal(e.sum()))


def pull_back_softmax(x: Any, ct: Any, normaliser: bool = True) -> Any:
    e = np.exp(x - x.max())
    p = e / e.sum()
    return p * (ct - (normaliser * p * ct).sum())


@pytest.mark.parametrize("softmax", [by_reciprocal, by_power, in_place])
@pytest.mark.parametrize("top", [3.0, 300.0, 400.0, 600.0])
def test_a_gradient_that_is_lost_is_no_reference(softmax: Any, top: float) -> None:
    def judge(normaliser: bool) -> Any:
        def backward(arguments: Any, ct: Any) -> Any:
            return (pull_back_softmax(arguments[0], ct, normaliser),)

        return verify_vjp(backward, softmax, (top + SCORES,), cases=1)

    right, wrong = judge(True), judge(False)
    assert wrong.verdict is not Verdict.AGREES, str(wrong)
    assert right.verdict is (Verdict.AGREES if top < 354 else Verdict.INCONCLUSIVE), str(right)
    assert top < 354 or right.notes[-1].startswith("Left out: the arguments given")


def test_nor_is_a_tangent_that_is_lost() -> None:
    def judge(top: float) -> Any:
        return verify_jvp(
            lambda a, v: pull_back_softmax(a[0], v[0]), by_power, (top + SCORES,), cases=1
        )

    assert judge(3.0).verdict is Verdict.AGREES
    assert judge(600.0).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("factor", [1.0, 1.01])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.sin(branch(x)) * torch.exp(x).detach(),
        lambda x: torch.relu(torch.cumsum(branch(x), 0)) ** 2,
        lambda x: torch.prod(torch.sigmoid(branch(x))) * torch.tanh(40 * x),
    ],
    ids=["detach", "a kink", "saturated"],
)
def test_what_differences_do_not_confirm_for_other_reasons_is_judged(
    function: Any, factor: float
) -> None:
    def backward(arguments: Any, ct: Any) -> Any:
        x = torch.tensor(arguments[0], requires_grad=True)
        (gradient,) = torch.autograd.grad(function(x), x, torch.tensor(ct))
        return (factor * gradient.numpy(),)

    report = verify_vjp(backward, function, (SCORES,), cases=1)
    assert report.verdict is (Verdict.AGREES if factor == 1 else Verdict.DISAGREES), str(report)


def restore(function: Any, *operands: Any) -> Any:
    """Compute a function of tensors with restored numbers."""
    given = [torch.tensor(each, dtype=torch.float64) for each in operands]
    with restoring_numbers():
        return function(*given).numpy()


@pytest.mark.parametrize(
    ("function", "operands"),
    [
        (lambda x, y: x * y, ([1e-200], [1e-200])),
        (lambda x: x * 1e-200, ([1e-200],)),
        (lambda x: x.clone().mul_(x), ([1e-200],)),
        (lambda x: x**3, ([1e-200],)),
        (lambda x: x.exp(), ([-800.0],)),
        (lambda x: x.prod(), ([1e-200, 1e-200],)),
        (lambda x, y: x @ y, ([[1e-200, 0.0]], [[1e-200], [0.0]])),
        (lambda x, y: x @ y, ([[1e-200, 1.0]], [[1e-200], [0.0]])),
        (lambda x, y: x @ y, ([[1e-200]], [[1e-110]])),
        (torch and torch.addmm, ([[0.0]], [[1e-200]], [[1e-200]])),
        (lambda g, y: torch.ops.aten.sigmoid_backward(g, y).clone(), ([1e-300], [1e-300])),
    ],
)
def test_a_result_that_vanishes_is_restored(function: Any, operands: Any) -> None:
    restored = restore(function, *operands)
    assert (restored >= LEAST / 2).all()
    assert (restored <= LEAST).all()


@pytest.mark.parametrize(
    ("function", "operands"),
    [
        (lambda x, y: x * y, ([-1e200], [1e200])),
        (lambda x: x.sum(), ([-1e308, -1e308],)),
        (lambda x, y: x @ y, ([[-1e200, 0.0]], [[1e200], [0.0]])),
        (lambda x: 0 - torch.exp(x), ([800.0],)),
    ],
)
def test_so_is_one_that_overflows(function: Any, operands: Any) -> None:
    restored = restore(function, *operands)
    assert (restored <= -LARGEST / 2).all()
    assert (restored >= -LARGEST).all()


@pytest.mark.parametrize(
    ("function", "operands", "expected"),
    [
        (lambda x, y: x * y, ([0.0, np.inf, 2.0], [1e-200, 2.0, 3.0]), [0, np.inf, 6]),
        (lambda x: x.prod(), ([0.0, 1e-200],), 0),
        (lambda x, y: x - y, ([1e-305, 3.0], [1e-305, 3.0]), [0, 0]),
        (lambda x, y: x @ y, ([[1.0, -1.0]], [[1.0], [1.0]]), [[0]]),
        (
            lambda g, y: torch.ops.aten.tanh_backward(g, y).clone(),
            ([2.0, 3.0], [-1.0, 1.0]),
            [0, 0],
        ),
        (lambda x: x.float() * 1e-30 * 1e-30, ([1.0],), [0]),
        (lambda x: x.relu(), ([-1.0],), [0]),
        (lambda x, y: x @ y, ([[np.inf, 1.0]], [[1.0], [1.0]]), [[np.inf]]),
        (lambda x, y: x @ y, ([[0.0, 1.0]], [[1.0], [0.0]]), [[0]]),
        (lambda x, y: x @ y, ([[0.0, 0.0]], [[1.0], [1.0]]), [[0]]),
        # What is not below 2⁻¹⁰⁰⁰ is no loss: a product of two numbers of 2⁻⁵⁰⁰, or a difference.
        (lambda x, y: x * y, ([2.0**-500], [2.0**-500]), [2.0**-1000]),
        (lambda x, y: x @ y, ([[2.0**-500] * 2], [[2.0**-500], [-(2.0**-500)]]), [[0]]),
        (lambda x, y: torch.add(x, y, alpha=2), ([1.0], [3.0]), [7]),
    ],
)
def test_a_zero_or_infinity_that_is_no_loss_stays(
    function: Any, operands: Any, expected: Any
) -> None:
    assert np.array_equal(restore(function, *operands), np.array(expected))


def test_numbers_that_stand_for_others_differ() -> None:
    one, other = restore(lambda x, y: torch.stack([x * y, y * x]), 1e-200, 1e-200)
    assert one != other


def test_pull_backs_of_ordinary_numbers_do_not_change() -> None:
    def function(x: Any) -> Any:
        y = torch.nn.functional.conv1d(x[None], torch.ones(2, 3, 2, dtype=torch.float64))
        z = torch.addmm(x @ x.T, x, x.T).sum() + torch.cumprod(x, 0).sum() + torch.prod(x)
        return y.sum() * z + torch.softmax(x, -1)[0, 0] + torch.log(torch.exp(x).sum())

    def differentiate() -> Any:
        x = torch.tensor(np.random.default_rng(0).normal(size=(3, 4)), requires_grad=True)
        return torch.autograd.grad(function(x), x)[0].numpy()

    with restoring_numbers():
        restored = differentiate()
    assert np.array_equal(restored, differentiate())
