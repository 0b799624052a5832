"""Rounding imitated in a stated function's pull-back: the errors that a format makes in it."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program.arguments import read_settings
from bptt_verifier.reference import pullbacks
from bptt_verifier.reference.pullbacks import prepare_pullback
from bptt_verifier.reference.stated_pullbacks import StatedPullback

BFLOAT16 = jnp.bfloat16
torch: Any = import_module("torch") if find_spec("torch") else None


def imitate(forward: Any, x: Any, d: Any = None, reference: Any = None) -> Any:
    """Errors of the gradient in bfloat16 at two points, for ones as cotangents."""
    (setting,) = read_settings((x,), forward)
    pullback = prepare_pullback(forward, setting)
    if reference is not None:
        pullback = StatedPullback(reference, pullback)
    points = [{"x": x}, {"x": x * 1.01}]
    (name,) = pullback.outputs
    given = [{name: np.ones(x.shape) if d is None else d}] * 2
    return pullback.imitate_rounding(points, given, BFLOAT16)


def test_the_errors_of_a_sample_are_alike_at_all_points_and_those_of_samples_differ() -> None:
    found = imitate(lambda x: x * x, np.linspace(1, 2, 5)).gradients["x"]
    assert found.shape == (8, 2, 5)
    unit = 2.0**-8
    assert np.all(np.abs(found) <= 4.1 * 2 * unit)
    assert np.abs(found[:, 0] - found[:, 1]).max() < 0.02 * np.abs(found).max()
    assert np.abs(found[0] - found[1]).max() > 0.1 * unit


def test_the_errors_of_a_difference_are_those_of_its_terms() -> None:
    x = np.array([0.5, 9.0])
    exact, found = 1 - np.tanh(x) ** 2, imitate(np.tanh, x).gradients["x"]
    relative = np.abs(found).max(axis=(0, 1)) / exact
    assert relative[0] < 0.03
    assert relative[1] > 1e4


def test_a_stated_gradient_has_the_errors_of_the_true_one() -> None:
    found = imitate(np.sin, np.ones(3), reference=lambda x, d: (d,)).gradients["x"]
    assert np.abs(found).max() > 0


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_a_function_of_torch_has_the_errors_of_that_of_jax() -> None:
    x = np.array([0.5, 9.0])
    of_torch = imitate(lambda x: 1 - torch.tanh(x) ** 2, x).gradients["x"]
    of_jax = imitate(lambda x: 1 - jnp.tanh(x) ** 2, x).gradients["x"]
    ratio = np.sqrt(np.mean(of_torch**2, axis=(0, 1)) / np.mean(of_jax**2, axis=(0, 1)))
    assert np.abs(np.log(ratio)).max() < np.log(5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [BFLOAT16, np.float16], ids=["bfloat16", "float16"])
def test_operations_without_a_loop_err_alike_whether_they_are_compiled_or_not(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(x: Any) -> Any:
        return np.tanh(x @ x.T) ** -2 + np.exp(x).sum()

    def imitate_all(most: int) -> Any:
        monkeypatch.setattr(pullbacks, "UNROLLED", most)
        (setting,) = read_settings((x,), forward)
        pullback = prepare_pullback(forward, setting)
        assert isinstance(pullback, pullbacks.JaxPullback)
        found = pullback.imitate_rounding([{"x": x}], [{"output": np.ones((3, 3))}], dtype)
        assert pullback.is_unrolled is (most == 0)
        return found.gradients["x"]

    x = np.linspace(0.2, 1.0, 6).reshape(3, 2)
    np.testing.assert_allclose(imitate_all(0), imitate_all(1000), rtol=1e-8)


def test_a_loop_is_compiled_however_many_operations_stand_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forward(x: Any) -> Any:
        return jax.lax.scan(lambda h, each: (h * each, h), x[0], x)[1]

    monkeypatch.setattr(pullbacks, "UNROLLED", 0)
    (setting,) = read_settings((np.linspace(0.2, 1.0, 6),), forward)
    pullback = prepare_pullback(forward, setting)
    assert pullback.structure.shape == (6,)
    assert not getattr(pullback, "is_unrolled", True)
