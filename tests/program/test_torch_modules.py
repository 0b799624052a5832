"""Modules of PyTorch as stated functions and as kernels. Skipped where it is missing."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.adapters import from_torch
from bptt_verifier.program.torch_modules import make_function, make_stated

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")


def make_modules() -> Any:
    torch.manual_seed(0)
    return torch.nn.GRU(2, 3), torch.nn.RNN(2, 3), torch.nn.Linear(2, 3)


@pytest.mark.parametrize("which", range(3))
def test_a_module_is_stated_in_float64_and_stays_in_float32(which: int) -> None:
    module = make_modules()[which]
    x = torch.randn(4, 1, 2, dtype=torch.float64)
    output, *_ = make_stated(module, (x,))(x)
    assert output.dtype == torch.float64
    assert {each.dtype for each in module.parameters()} == {torch.float32}
    with pytest.raises((RuntimeError, ValueError), match=r"dtype|Double"):
        make_function(module, (x,))(x)  # as a kernel it is what it is


def test_a_module_of_float64_is_called_as_it_is() -> None:
    module = make_modules()[0].double()
    x = torch.randn(4, 1, 2, dtype=torch.float64)
    assert torch.equal(make_stated(module, (x,))(x)[0], module(x)[0])


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_recurrent_module_states_a_function_of_its_inputs(factor: float) -> None:
    module = make_modules()[0]
    kernel, x = from_torch(module), np.random.default_rng(0).normal(size=(4, 1, 2))

    def backward(arguments: Any, cotangents: Any) -> Any:
        return tuple(factor * g for g in kernel(arguments, cotangents))

    given = (x.astype(np.float32),)
    verdict = Verdict.AGREES if factor == 1 else Verdict.DISAGREES
    assert verify_vjp(backward, module, given, cases=1).verdict is verdict
