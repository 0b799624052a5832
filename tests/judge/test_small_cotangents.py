"""Kernels at cotangents so small that numbers inside underflow: right ones lose them, too."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import verify_vjp
from bptt_verifier.judge.kernel_cases import KernelCase, enlarge_cotangents
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict

LIMITS = {np.float32: 2.0**-126 * 2.0**48, np.float64: 2.0**-1022 * 2.0**106}


SMALL = np.full(1, 2.0**-80, np.float32)


def make_case(x: Any, c: Any, dtype: Any) -> KernelCase:
    arrays = ({name: np.array(each, dtype)} for name, each in (("x", x), ("y", c)))
    return KernelCase(0, 0, *arrays)


@pytest.mark.parametrize("dtype", LIMITS)
def test_cotangents_are_multiplied_by_a_power_of_two_below_a_limit(dtype: Any) -> None:
    limit = LIMITS[dtype]
    for x, c in (([3.0, 0.0], limit), ([2.0**-9], 2.0**9 * limit), ([0.0], limit)):
        assert enlarge_cotangents(make_case(x, [0.0, c], dtype)) is None
        small = make_case(x, [-0.75 * c, 0.001 * c, 0.0], dtype)
        larger = enlarge_cotangents(small)
        assert larger is not None
        assert larger.enlarged == 1 - np.frexp(c)[1]
        assert larger.point is small.point
        np.testing.assert_array_equal(
            larger.cotangents["y"], np.ldexp(small.cotangents["y"], larger.enlarged)
        )
        assert abs(larger.cotangents["y"][0]) == 0.75
        assert larger.cotangents["y"].dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_those_of_zero_or_in_16_bits_are_not(dtype: Any) -> None:
    assert enlarge_cotangents(make_case([1.0], [1e-7], dtype)) is None
    assert enlarge_cotangents(make_case([1.0], [0.0], np.float32)) is None
    assert enlarge_cotangents(KernelCase(0, 0, {"x": np.ones(2)}, {})) is None
    mixed = KernelCase(0, 0, {"x": np.ones(2, np.float32), "h": np.ones(2, dtype)}, {"y": SMALL})
    assert enlarge_cotangents(mixed) is None


def test_the_coarsest_format_and_the_largest_cotangent_count() -> None:
    mixed = KernelCase(0, 0, {"x": np.ones(2)}, {"y": SMALL, "z": SMALL / 2})
    larger = enlarge_cotangents(mixed)
    assert larger is not None
    assert [abs(c[0]) for c in larger.cotangents.values()] == [0.5, 0.25]
    large = mixed._replace(cotangents=mixed.cotangents | {"z": np.ones(1, np.float32)})
    assert enlarge_cotangents(large) is None


@pytest.mark.parametrize(("largest", "power"), [(0.3, 1), (0.6, None), (1.2, None), (0.0, None)])
def test_cotangents_beside_tiny_arguments_are_enlarged_and_never_reduced(
    largest: float, power: int | None
) -> None:
    larger = enlarge_cotangents(make_case([2.0**-80], [0.1 * largest, largest], np.float32))
    assert (larger and larger.enlarged) == power


def multiply(x: Any, W: Any) -> Any:
    return x @ W.T


def saturate(x: Any, W: Any) -> Any:
    return jnp.tanh(1e12 * x @ W.T * 1e-12)


def judge(forward: Callable[..., Any], size: float, wrong: float = 1.0) -> Report:
    """Judge JAX's pull-back, with an error of one entry, at cotangents of this size."""
    rng = np.random.default_rng(0)
    shapes = {"x": (64, 5), "W": (7, 5)}
    x, W = (rng.normal(size=shape).astype(np.float32) for shape in shapes.values())
    compiled = jax.jit(lambda given, ct: jax.vjp(forward, *given)[1](ct))

    def backward(given: Any, ct: Any) -> Any:
        of_x, of_W = map(np.array, compiled(given, ct))
        of_W[2] *= np.float32(wrong)
        return of_x, of_W

    ct = (size * rng.normal(size=(64, 7))).astype(np.float32)
    return verify_vjp(backward, forward, (x, W), cotangents=ct, cases=1)


# XLA flushes numbers below 1.2e-38 to zero.
@pytest.mark.table(2)
@pytest.mark.parametrize(("forward", "size"), [(multiply, 1e-38), (saturate, 1e-30)])
def test_a_right_kernel_that_loses_them_agrees_and_a_wrong_one_does_not(
    forward: Callable[..., Any], size: float
) -> None:
    report = judge(forward, size)
    assert report.verdict is Verdict.AGREES, str(report)
    (note,) = [each for each in report.notes if "underflow" in each]
    assert note.startswith("With the arguments given, numbers inside may underflow.")
    report = judge(forward, size, 1.01)
    assert report.verdict is Verdict.DISAGREES, str(report)
    verdicts = [each.verdict for each in report.parameters.values()]
    assert verdicts == [Verdict.AGREES, Verdict.DISAGREES]


def test_a_kernel_that_loses_nothing_is_compared_at_the_cotangents_given() -> None:
    report = judge(multiply, 1e-25)
    assert report.verdict is Verdict.AGREES, str(report)
    assert not any("underflow" in each for each in report.notes)
