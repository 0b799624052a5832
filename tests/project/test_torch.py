"""The three cells equal PyTorch's, forward and backward, in float64.

torch is no dependency: where it is not installed, these tests are skipped. PyTorch has two biases
where one does; the second is zero here, except b_n of the GRU.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from manual_bptt import gru, lstm, rnn

torch: Any = import_module("torch") if find_spec("torch") else None
pytestmark = pytest.mark.skipif(torch is None, reason="torch is not installed")

T, B, D, H, O = 9, 4, 3, 5, 2
CELLS = {
    "RNN": (rnn, ["h0"]),
    "LSTM": (lstm, ["h0", "c0"]),
    "GRU": (gru, ["h0"]),
}
# PyTorch's own rounding and ours, 30 sums in a row: relative to the largest entry.
ALLOWED = 1e-12


def parameters(module: ModuleType, rng: np.random.Generator) -> Any:
    """Random weights and biases of about one."""
    params = module.init(rng, D, H, O, bias=True)
    return params._replace(
        **{
            name: rng.normal(size=value.shape)
            for name, value in params._asdict().items()
            if name in ("b", "c", "b_n")
        }
    )


def torch_layer(name: str, params: Any) -> Any:
    """PyTorch's layer with these weights."""
    layer = getattr(torch.nn, name)(D, H, dtype=torch.float64)
    second = np.zeros_like(params.b)
    if name == "GRU":
        second[2 * H :] = params.b_n
    given = {
        "weight_ih_l0": params.U,
        "weight_hh_l0": params.W,
        "bias_ih_l0": params.b,
        "bias_hh_l0": second,
    }
    layer.load_state_dict({key: torch.tensor(value) for key, value in given.items()})
    return layer


def assert_equal(name: str, ours: Any, other: Any) -> None:
    other = other.detach().numpy()
    assert ours.shape == other.shape, name
    assert np.abs(ours - other).max() <= ALLOWED * np.abs(other).max(), name


@pytest.mark.parametrize("ragged", [False, True], ids=["one length", "lengths"])
@pytest.mark.parametrize("name", CELLS)
def test_forward_and_backward_equal_pytorchs(name: str, ragged: bool) -> None:
    module, states = CELLS[name]
    rng = np.random.default_rng(7)
    params, x = parameters(module, rng), rng.normal(size=(T, B, D))
    first = {state: rng.normal(size=(B, H)) for state in states}
    lengths = np.array([9, 6, 3, 1]) if ragged else np.full(B, T)
    upstream = rng.normal(size=(T, B, H)) * (np.arange(T)[:, None] < lengths)[..., None]

    _, trace = module.forward(params, x, *first.values(), lengths=lengths if ragged else None)
    found = module.backward_through_time(params, trace, upstream)

    layer = torch_layer(name, params)
    inputs = {key: torch.tensor(value, requires_grad=True) for key, value in first.items()}
    x_in = torch.tensor(x, requires_grad=True)
    state = tuple(value[None] for value in inputs.values())
    packed = torch.nn.utils.rnn.pack_padded_sequence(x_in, torch.tensor(lengths))
    h, last = layer(packed, state if name == "LSTM" else state[0])
    h, _ = torch.nn.utils.rnn.pad_packed_sequence(h, total_length=T)
    h.backward(torch.tensor(upstream))

    counted = np.arange(T)[:, None] < lengths
    assert_equal("h", trace.h[1:] * counted[..., None], h)
    assert_equal("h_T", trace.h[-1], last[0][0] if name == "LSTM" else last[0])
    expected = {
        "U": layer.weight_ih_l0, "W": layer.weight_hh_l0, "b": layer.bias_ih_l0, "x": x_in, **inputs
    }  # fmt: skip
    for key, tensor in expected.items():
        assert_equal(key, getattr(found, key), tensor.grad)
    if name == "GRU":
        assert_equal("b_n", found.b_n, layer.bias_hh_l0.grad[2 * H :])


LOSSES = {
    "mse": "mse_loss",
    "mae": "l1_loss",
    "huber": "huber_loss",
    "softmax_cross_entropy": "cross_entropy",
    "binary_cross_entropy": "binary_cross_entropy_with_logits",
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", CELLS)
def test_losses_and_their_gradients_equal_pytorchs(name: str, loss: str) -> None:
    module, states = CELLS[name]
    rng = np.random.default_rng(8)
    params, x = parameters(module, rng), rng.normal(size=(T, B, D))
    first = {state: rng.normal(size=(B, H)) for state in states}
    y = rng.integers(0, O, B) if loss == "softmax_cross_entropy" else rng.uniform(size=(B, O))
    value, found = module.value_and_grad(params, x, y, *first.values(), loss=loss)

    layer = torch_layer(name, params)
    V, c = (torch.tensor(w, requires_grad=True) for w in (params.V, params.c))
    state = tuple(torch.tensor(each)[None] for each in first.values())
    h, _ = layer(torch.tensor(x), state if name == "LSTM" else state[0])
    measured = getattr(torch.nn.functional, LOSSES[loss])(h[-1] @ V.T + c, torch.tensor(y))
    measured.backward()
    assert_equal("loss", np.asarray(value), measured)
    expected = {"U": layer.weight_ih_l0, "W": layer.weight_hh_l0, "V": V, "b": layer.bias_ih_l0}
    for key, tensor in (expected | {"c": c}).items():
        assert_equal(key, getattr(found, key), tensor.grad)
