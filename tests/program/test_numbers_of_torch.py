"""A number that code takes out of a tensor is a float to the code, and a tensor to the judge.

torch is no dependency: where it is not installed, these tests are skipped.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.torch_losses import FLOAT, use_float64

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")


def test_the_replaced_float_has_the_subclasses_and_instances_of_float() -> None:
    assert issubclass(FLOAT, FLOAT)
    assert issubclass(float, FLOAT)
    assert issubclass(np.float64, FLOAT)
    assert not issubclass(int, FLOAT)
    assert isinstance(1.0, FLOAT)
    assert not isinstance(1, FLOAT)


def test_a_number_taken_out_of_a_tensor_is_a_float_and_keeps_its_gradient() -> None:
    given = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    with use_float64(values=True):
        numbers = [given.item(), FLOAT(given)]
    for number in numbers:
        assert isinstance(number, FLOAT)
        assert number.shape == ()
        assert number.requires_grad
        assert not isinstance(given, FLOAT)


def test_a_number_keeps_its_value_when_code_adds_to_it() -> None:
    given = torch.tensor(0.5, dtype=torch.float64)
    with use_float64(values=True):
        total = given.item()
        total += 1
    assert (float(given), float(total)) == (0.5, 1.5)
