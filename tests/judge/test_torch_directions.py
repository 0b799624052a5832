"""Forward mode and Hessian-vector products of functions of PyTorch. Skipped where it is missing."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify_hvp, verify_jvp, verify_transpose, verify_vjp

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = [
    pytest.mark.skipif(torch is None, reason="torch is not installed"),
    # torch.func.jvp imports what PyTorch itself has deprecated.
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
]


def rnn(x: Any, W: Any) -> Any:
    h, states = torch.zeros(3, dtype=x.dtype), []
    for each in x:
        h = torch.tanh(each + W @ h)
        states.append(h)
    return torch.stack(states), h


def loss(x: Any, W: Any) -> Any:
    return (rnn(x, W)[1] ** 2).sum()


def draw() -> Any:
    torch.manual_seed(0)
    return torch.randn(3, 3), torch.randn(3, 3) / 2


def test_forward_mode_of_a_function_of_torch_is_judged() -> None:
    def jvp(arguments: Any, direction: Any) -> Any:
        return torch.func.jvp(rnn, tuple(arguments), tuple(direction))[1]

    assert verify_jvp(jvp, rnn, draw(), cases=1).verdict is Verdict.AGREES
    wrong = verify_jvp(lambda a, d: jvp(a, (d[0], 1.01 * d[1])), rnn, draw(), cases=1)
    assert "where W moves" in wrong.mistakes[0].explanation


def test_hessian_vector_products_of_a_loss_of_torch_are_judged() -> None:
    def hvp(arguments: Any, direction: Any, factor: float = 1.0) -> Any:
        gradient = torch.func.grad(loss, argnums=(0, 1))
        dx, dW = torch.func.jvp(gradient, tuple(arguments), tuple(direction))[1]
        return dx, factor * dW

    assert verify_hvp(hvp, loss, draw(), cases=1).verdict is Verdict.AGREES
    wrong = verify_hvp(lambda a, d: hvp(a, d, 1.001), loss, draw(), cases=1)
    assert wrong.parameters["R{W}"].verdict is Verdict.DISAGREES


def test_the_two_modes_of_torch_are_transposes() -> None:
    def jvp(arguments: Any, direction: Any) -> Any:
        return torch.func.jvp(rnn, tuple(arguments), tuple(direction))[1]

    def vjp(arguments: Any, cotangents: Any) -> Any:
        return torch.func.vjp(rnn, *arguments)[1](tuple(cotangents))

    report = verify_transpose(jvp, vjp, draw(), cases=1)
    assert report.verdict is Verdict.AGREES, report


def call_by_another_name(x: Any) -> Any:
    return rnn(x, x)[0]


def test_a_function_that_calls_torch_by_another_name_takes_arrays() -> None:
    x = draw()[0].double()

    def backward(arguments: Any, cotangents: Any, factor: float = 1.0) -> Any:
        x = torch.tensor(arguments[0], requires_grad=True)
        gradient = torch.autograd.grad(rnn(x, x)[0], x, torch.tensor(cotangents))
        return (factor * gradient[0].numpy(),)

    given = (x.numpy(),)
    report = verify_vjp(backward, call_by_another_name, given, cases=1)
    assert report.verdict is Verdict.AGREES, str(report)
    wrong = verify_vjp(lambda a, c: backward(a, c, 1.01), call_by_another_name, given, cases=1)
    assert wrong.verdict is Verdict.DISAGREES


def test_what_is_wrong_in_a_function_is_said_of_numpy_where_that_is_meant() -> None:
    with pytest.raises(ValueError, match="which raised ValueError: matmul: Input operand 1"):
        verify_vjp(lambda a, c: (c,), lambda x: np.tanh(x) @ np.ones(7), (np.ones((3, 4)),))
