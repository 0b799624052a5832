"""Push-forwards and Hessian-vector products of small functions, by hand, in all libraries."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program.arguments import read_settings
from bptt_verifier.reference.pushforwards import (
    JaxCurvature,
    JaxPushforward,
    NumpyCurvature,
    NumpyPushforward,
    prepare_curvature,
    prepare_pushforward,
    stack_by_name,
)

torch: Any = import_module("torch") if find_spec("torch") else None
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")

X, S = np.array([0.5, 1.5]), np.array([2.0])
POINTS = [{"x": X, "s": S}, {"x": 2 * X, "s": 3 * S}]
ALONG = [{"x": np.array([1.0, -1]), "s": np.array([0.5])}, {"x": np.array([0.0, 2]), "s": -S}]


def scale(x: Any, s: Any) -> Any:
    """Two outputs of floats and one of integers."""
    return {"y": x * x * s, "z": s + 1, "n": jnp.arange(2)}


def sum_cubes(x: Any, s: Any) -> Any:
    return (x * x * x * s).sum()


def with_branch(x: Any, s: Any) -> Any:
    """The sum of cubes, as JAX cannot trace it."""
    return sum_cubes(x, s) if float(np.sum(x)) > -100 else 0.0 * s[0]


def push(point: Any, along: Any) -> Any:
    """The tangents of x² s and of s + 1."""
    x, s, dx, ds = point["x"], point["s"], along["x"], along["s"]
    return {"tangent of y": 2 * x * dx * s + x * x * ds, "tangent of z": ds}


def bend(point: Any, along: Any) -> Any:
    """The tangents R{·} of 3 x² s and of Σ x³, the gradients of Σ x³ s."""
    x, s, dx, ds = point["x"], point["s"], along["x"], along["s"]
    of_s = (3 * x * x * dx).sum(keepdims=True)
    return {"R{x}": 6 * x * dx * s + 3 * x * x * ds, "R{s}": of_s}


def prepare(function: Any, prepared: Any = None) -> Any:
    (setting,) = read_settings((X, S), function)
    return (prepared or prepare_pushforward)(function, setting)


def check(pulled: Any, expected: Any) -> None:
    """Check the tangents at both points."""
    assert pulled.gradients.keys() == expected(POINTS[0], ALONG[0]).keys()
    for k, each in enumerate(zip(POINTS, ALONG, strict=True)):
        for name, tangent in expected(*each).items():
            np.testing.assert_allclose(pulled.gradients[name][k], tangent, atol=1e-14)


def test_directions_are_pushed_forward_at_each_point() -> None:
    pushed = prepare(scale)
    assert type(pushed) is JaxPushforward
    assert [*pushed.outputs] == ["x", "s"]
    assert [*pushed.computed] == ["y", "z"]
    assert {n: v.shape for n, v in pushed.results.items()} == {
        "tangent of y": (2,), "tangent of z": (1,),
    }  # fmt: skip
    pulled = pushed.pull_back(POINTS, ALONG)
    check(pulled, push)
    np.testing.assert_allclose(pulled.outputs["y"], [2 * X**2, 6 * 4 * X**2])
    assert pushed.list_unconfirmed(POINTS, ALONG, pulled.gradients) == []
    wrong = pulled.gradients | {"tangent of z": pulled.gradients["tangent of z"] * [[1], [1.1]]}
    assert pushed.list_unconfirmed(POINTS, ALONG, wrong) == [1]


def test_no_divisor_is_squared_with_care() -> None:
    pushed = prepare(lambda x, s: x / s)
    points = [{"x": np.array([3.0, 4]) * 1e200, "s": np.array([2e200])}] * 2
    along = [{"x": np.zeros(2), "s": np.array([1.0])}] * 2
    careful = pushed.compute_carefully(points, along).gradients["tangent of output"]
    np.testing.assert_allclose(careful, [[-0.75e-200, -1e-200]] * 2)


def test_products_with_the_hessian_are_the_tangents_of_the_gradient() -> None:
    curved = prepare(sum_cubes, prepare_curvature)
    assert type(curved) is JaxCurvature
    assert [*curved.results] == ["R{x}", "R{s}"]
    pulled = curved.pull_back(POINTS, ALONG)
    check(pulled, bend)
    np.testing.assert_allclose(pulled.outputs["output"], [(X**3).sum() * 2, (X**3).sum() * 48])
    assert curved.list_unconfirmed(POINTS, ALONG, pulled.gradients) == []
    wrong = {name: 1.1 * value for name, value in pulled.gradients.items()}
    assert curved.list_unconfirmed(POINTS, ALONG, wrong) == [0, 1]


def test_functions_of_plain_numpy_are_traced() -> None:
    pushed, curved = prepare(with_branch), prepare(with_branch, prepare_curvature)
    assert (type(pushed), type(curved)) == (NumpyPushforward, NumpyCurvature)
    check(curved.pull_back(POINTS, ALONG), bend)
    tangents = pushed.pull_back(POINTS, ALONG).gradients["tangent of output"]
    expected = [
        (3 * p["x"] ** 2 * p["s"] * v["x"] + p["x"] ** 3 * v["s"]).sum()
        for p, v in zip(POINTS, ALONG, strict=True)
    ]
    np.testing.assert_allclose(tangents, expected)


def test_a_hessian_is_that_of_one_number() -> None:
    with pytest.raises(
        ValueError, match=r"^loss: expected a function that returns one number, found"
    ):
        prepare(scale, prepare_curvature)
    with pytest.raises(ValueError, match=r"found {'output': \(2,\)}$"):
        prepare(lambda x, s: x * s, prepare_curvature)
    one = prepare(lambda x, s: sum_cubes(x, s).reshape(1, 1), prepare_curvature)
    check(one.pull_back(POINTS, ALONG), bend)


def test_arrays_are_stacked_by_name() -> None:
    assert stack_by_name([{"a": X}])["a"].shape == (1, 2)
    stacked = stack_by_name([{"a": X, "b": S}, {"a": 2 * X, "b": S}])
    assert {n: v.tolist() for n, v in stacked.items()} == {
        "a": [[0.5, 1.5], [1, 3]],
        "b": [[2], [2]],
    }


# torch is no dependency.


def of_torch(x: Any, s: Any) -> Any:
    """Outputs of which one depends on nothing, and one on s alone."""
    return {"y": x * x * s, "z": s + 1, "c": torch.ones(2), "n": torch.arange(2)}


def loss_of_torch(x: Any, s: Any) -> Any:
    return (x * x * x * s).sum() * torch.ones(())


@needs_torch
def test_functions_of_torch_have_the_same_tangents() -> None:
    pushed = prepare(of_torch)
    for each in (pushed, pushed.traced):
        pulled = each.pull_back(POINTS, ALONG)
        constant = pulled.gradients.pop("tangent of c")
        assert constant.shape == (2, 2)
        assert not constant.any()
        check(pulled, push)
        assert pulled.outputs.keys() == {"y", "z", "c"}
        np.testing.assert_allclose(pulled.outputs["y"][0], 2 * X**2)


@needs_torch
def test_losses_of_torch_have_the_same_products() -> None:
    curved = prepare(loss_of_torch, prepare_curvature)
    pulled = curved.pull_back(POINTS, ALONG)
    check(pulled, bend)
    check(curved.traced.pull_back(POINTS, ALONG), bend)
    linear = prepare(lambda x, s: (torch.ones(()) * s).sum(), prepare_curvature)
    for name, product in linear.pull_back(POINTS, ALONG).gradients.items():
        assert not product.any(), name
