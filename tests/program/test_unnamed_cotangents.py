"""Cotangents with names that do not tell of which output they are: found by shape, and proven."""

from pathlib import Path

import pytest

from bptt_verifier.program.unnamed_cotangents import has_name_of_gradient
from tests.support.own_files import list_wrong, read_own

LAYER = """
import numpy as np


def rnn_forward(x, h0, U, W):
    h = [h0]
    for x_t in x:
        h.append(np.tanh(x_t @ U + h[-1] @ W))
    return np.stack(h[1:]).mean(axis=0), h[-1], (x, h, U, W)


def rnn_backward(dHout_mean, dh_seq_last, cache):
    x, h, U, W = cache
    dU, dW = np.zeros_like(U), np.zeros_like(W)
    back = dh_seq_last
    for t in reversed(range(len(x))):
        da = (back + dHout_mean / len(x)) * (1 - h[t + 1] ** 2)
        dU += x[t].T @ da
        dW += h[t].T @ da
        back = da @ W.T
    return dU, dW


rng = np.random.default_rng(0)
x, h0 = rng.normal(size=(3, 2, 4)), np.zeros((2, 5))
U, W = rng.normal(size=(4, 5)), rng.normal(size=(5, 5))
mean, last, cache = rnn_forward(x, h0, U, W)
rnn_backward(rng.normal(size=mean.shape), rng.normal(size=last.shape), cache)
"""
NET = """
import numpy as np


class Net:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.U, self.V = rng.normal(size=(4, 6)), rng.normal(size=(6, 3))

    def forward(self, x):
        self.x, self.h = x, np.tanh(x @ self.U)
        out = self.h @ self.V
        return out

    def backward(self, dHout_mean):
        self.dV = self.h.T @ dHout_mean
        self.dU = self.x.T @ (dHout_mean @ self.V.T * (1 - self.h**2))


net = Net()
x = np.random.default_rng(1).normal(size=(5, 4))
out = net.forward(x)
net.backward(out - 1)
"""
NAMES = "incoming dHout_mean Hout_bar".split()


@pytest.mark.parametrize(("name", "called"), [*((n, True) for n in NAMES), ("gHout_top", False)])
def test_argument_of_any_name_is_the_cotangent_of_the_output_of_its_shape(
    tmp_path: Path, name: str, called: bool
) -> None:
    text = NET.replace("dHout_mean", name)
    if not called:
        text = text.replace("net.backward(out - 1)\n", "")
    found = read_own(tmp_path, text)
    assert f"{name} is taken for the gradient of out" in found.said
    assert not list_wrong(found)


def test_two_cotangents_of_one_shape_are_in_the_order_of_the_outputs(tmp_path: Path) -> None:
    found = read_own(tmp_path, LAYER)
    assert "dHout_mean is taken for the gradient of what it returns at 0" in found.said
    assert not list_wrong(found)


def test_two_cotangents_in_another_order_are_told_by_their_numbers(tmp_path: Path) -> None:
    text = LAYER.replace("(dHout_mean, dh_seq_last, cache)", "(dh_seq_last, dHout_mean, cache)")
    found = read_own(tmp_path, text)
    assert "dHout_mean is taken for the gradient of what it returns at 0" in found.said
    assert not list_wrong(found)


def test_wrong_code_with_names_of_gradients_is_judged(tmp_path: Path) -> None:
    found = read_own(tmp_path, LAYER.replace("dHout_mean / len(x)", "dHout_mean"))
    assert list_wrong(found) == {"U", "W"}


def test_wrong_code_with_another_name_is_judged_where_one_gradient_proves_it(
    tmp_path: Path,
) -> None:
    text = NET.replace("dHout_mean", "incoming").replace("(1 - self.h**2)", "(1 - self.h)")
    assert list_wrong(read_own(tmp_path, text)) == {"U"}


@pytest.mark.parametrize(
    ("name", "output", "given"),
    [
        ("delta_out", "np.tanh(self.h @ self.V)", "(out - 1) * (1 - out**2)"),
        ("delta_out", "np.maximum(self.h @ self.V, 0)", "(out - 1) * (out > 0)"),
        ("dlogits", "1 / (1 + np.exp(-(self.h @ self.V)))", "out - 1"),
    ],
)
def test_gradient_of_a_pre_activation_is_refused_with_the_names_that_are_understood(
    tmp_path: Path, name: str, output: str, given: str
) -> None:
    text = NET.replace("dHout_mean", name).replace("out = self.h @ self.V", f"out = {output}")
    with pytest.raises(ValueError, match="names that say so: dout for the gradient of out"):
        read_own(tmp_path, text.replace("net.backward(out - 1)", f"net.backward({given})"))


def test_error_that_backward_scales_is_no_cotangent(tmp_path: Path) -> None:
    text = NET.replace(
        "(self, dHout_mean):", "(self, gap):\n        dHout_mean = 2 * gap / gap.size"
    )
    with pytest.raises(ValueError, match="outputs have the gradients gap, use names"):
        read_own(tmp_path, text)


def test_target_is_no_cotangent(tmp_path: Path) -> None:
    text = NET.replace("(self, dHout_mean):", "(self, wish):\n        dHout_mean = self.out - wish")
    text = text.replace("        return out", "        self.out = out\n        return out")
    with pytest.raises(ValueError, match="use names"):
        read_own(tmp_path, text)


def test_names_of_gradients() -> None:
    names = "dHout_mean dh_seq_last gHout grad_of_top out_bar incoming gap depth gain".split()
    assert [*filter(has_name_of_gradient, names)] == names[:5]
