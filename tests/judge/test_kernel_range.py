"""Verdicts on gradients whose squares leave the range of float64."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_hvp, verify_jvp, verify_vjp
from bptt_verifier.report import Report

rng = np.random.default_rng(0)
ARGUMENTS = rng.normal(size=(6, 5)), 0.4 * rng.normal(size=(5, 5))
FAR = [1e-250, 1e-170, 1e170, 1e250]


def judge(size: float, change: Any) -> Report:
    """Judge gradients of tanh(x W), times a size, that are changed."""

    def backward(arguments: Any, cotangents: Any) -> Any:
        x, W = arguments
        da = size * cotangents * (1 - np.tanh(x @ W) ** 2)
        return change(da @ W.T, x.T @ da)

    return verify_vjp(backward, lambda x, W: size * jnp.tanh(x @ W), ARGUMENTS)


def change_entry(dx: Any, dW: Any) -> Any:
    dW[1, 2] *= 1.5
    return dx, dW


@pytest.mark.table(4)
@pytest.mark.parametrize("size", FAR)
def test_gradients_are_judged_and_named_at_any_size(size: float) -> None:
    report = judge(size, lambda dx, dW: (dx, dW))
    assert report.verdict is Verdict.AGREES, str(report)
    assert max(each.resolution for each in report.parameters.values()) < 1e-13
    (mistake,) = judge(size, lambda dx, dW: (1.0001 * dx, dW)).mistakes
    assert (mistake.name, mistake.details["gradients"]) == ("constant-factor", ["x"])
    (mistake,) = judge(size, change_entry).mistakes
    assert (mistake.name, mistake.details["gradients"]) == ("wrong-index", ["W"])
    (mistake,) = judge(size, lambda dx, dW: (0 * dx, dW)).mistakes
    assert mistake.name == "zero-gradient"


@pytest.mark.parametrize("size", FAR)
@pytest.mark.parametrize("factor", [1, 1.0001])
def test_tangents_and_products_are_judged_at_any_size(size: float, factor: float) -> None:
    x = (np.array([0.3, -0.7, 1.1]),)
    expected = Verdict.AGREES if factor == 1 else Verdict.DISAGREES
    jvp = verify_jvp(
        lambda a, v: size * factor * np.cos(a[0]) * v[0], lambda x: size * jnp.sin(x), x
    )
    assert jvp.verdict is expected, str(jvp)
    hvp = verify_hvp(
        lambda a, v: (-size * factor * np.sin(a[0]) * v[0],), lambda x: size * jnp.sin(x).sum(), x
    )
    assert hvp.verdict is expected, str(hvp)
