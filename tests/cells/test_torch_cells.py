"""Cells as stated functions against torch.nn. Skipped where torch is not installed."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify_vjp
from bptt_verifier.cells import gru, lstm, rnn

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")
STATED: dict[str, Any] = {"RNN": rnn, "LSTM": lstm, "GRU": gru}
SHAPES: list[dict[str, Any]] = [
    {"num_layers": 1, "bidirectional": False, "bias": False},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
]


def flatten(found: Any) -> list[Any]:
    return [each for part in found for each in (part if isinstance(part, tuple) else (part,))]


@pytest.mark.parametrize("options", SHAPES, ids=["one layer", "two layers, both directions"])
@pytest.mark.parametrize("name", STATED)
def test_the_outputs_are_those_of_torch(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = getattr(torch.nn, name)(3, 4, dtype=torch.float64, **options)
    weights, number = dict(module.named_parameters()), 4 if options["bidirectional"] else 1
    x, states = torch.randn(2, 5, 3).double(), torch.randn(2, number, 2, 4).double()
    x = x if module.batch_first else x.swapaxes(0, 1)
    first = tuple(states) if name == "LSTM" else states[0]
    known = flatten(module(x, first))
    given = tuple(states) if name == "LSTM" else (states[0],)
    batch_first = {"batch_first": module.batch_first}
    found = flatten(STATED[name].forward(weights, x, *given, **batch_first))
    arrays = {n: w.detach().numpy() for n, w in weights.items()}
    in_numpy = flatten(
        STATED[name].forward(arrays, x.numpy(), *(s.numpy() for s in given), **batch_first)
    )
    for each, other, plain in zip(known, found, in_numpy, strict=True):
        # Some tens of operations on numbers below 1, each rounded to 2⁻⁵³.
        assert (each - other).abs().max() <= 2.0**-46
        assert np.abs(each.detach().numpy() - plain).max() <= 2.0**-46


def test_packed_sequences_of_unequal_length_are_those_of_torch() -> None:
    torch.manual_seed(1)
    module = torch.nn.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    x, lengths = torch.randn(5, 3, 3).double(), torch.tensor([5, 2, 3])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, last = module(packed)
    output, _ = torch.nn.utils.rnn.pad_packed_sequence(output)
    found = lstm.forward(dict(module.named_parameters()), x, lengths=lengths)
    for each, other in zip(flatten((output, last)), flatten(found), strict=True):
        assert (each - other).abs().max() <= 2.0**-46


def test_a_layer_of_torch_is_judged_by_the_stated_cell() -> None:
    torch.manual_seed(2)
    module = torch.nn.LSTM(2, 3, bidirectional=True)
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def wrong_by(factor: float) -> Any:
        def backward(arguments: Any, cotangents: Any) -> Any:
            weights, x = arguments
            weights = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
            x = x.clone().requires_grad_()
            outputs = torch.func.functional_call(module, weights, (x,))
            at = [x, *weights.values()]
            dx, *found = torch.autograd.grad(flatten(outputs), at, flatten(cotangents))
            by_name = dict(zip(weights, found, strict=True))
            return by_name | {"weight_hh_l0": factor * by_name["weight_hh_l0"]}, dx

        return backward

    arguments = weights, torch.randn(4, 2, 2)
    assert verify_vjp(wrong_by(1.0), lstm.forward, arguments, cases=1)
    report = verify_vjp(wrong_by(1.001), lstm.forward, arguments, cases=1)
    wrong = [n for n, each in report.parameters.items() if str(each.verdict) == "disagrees"]
    assert wrong == ["weights.weight_hh_l0"]
