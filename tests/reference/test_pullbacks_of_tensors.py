"""Which of JAX and PyTorch computes what of a pull-back through a function of PyTorch, by fakes."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.arguments import read_settings
from bptt_verifier.reference import pullbacks
from bptt_verifier.reference.pullbacks import TorchPullback

X = np.array([1.0, 2, 3], np.float32)
STATE = {"float64": False, "restoring": False}


@contextmanager
def switch(name: str) -> Iterator[None]:
    """Switch a state on inside."""
    STATE[name] = True
    try:
        yield
    finally:
        STATE[name] = False


def double(x: Any) -> Any:
    """A function of arrays in the place of tensors, which are made in float64."""
    assert STATE["float64"]
    assert x.dtype == np.float64
    return {"y": 2 * x}


def pull_back_at_points(call: Any, at: Any, back: Any) -> Any:
    """The outputs and gradients of a linear function, with the state in which they were made."""
    outputs = {"y": np.stack([call(each)["y"] for each in at])}
    return outputs, {"x": np.stack([2 * c["y"] for c in back])}, [STATE["restoring"]]


@pytest.fixture
def pullback(monkeypatch: pytest.MonkeyPatch) -> TorchPullback:
    """The pull-back of a function of PyTorch, without PyTorch."""
    torch = SimpleNamespace(make_tensors=dict, use_float64=lambda: switch("float64"))
    monkeypatch.setattr(pullbacks, "torch_losses", torch)
    monkeypatch.setattr(pullbacks, "restoring_numbers", lambda: switch("restoring"))
    monkeypatch.setattr(pullbacks, "pull_back_at_points", pull_back_at_points)
    monkeypatch.setattr(
        pullbacks, "compute_at_points", lambda call, points: [call(each) for each in points]
    )
    (setting,) = read_settings((X,), double)
    return TorchPullback(double, setting)


GIVEN: Any = [{"x": X}, {"x": 3 * X}], [{"y": np.ones(3)}, {"y": np.arange(3.0)}]


def check(pulled: Any, *, restoring: bool = False) -> None:
    """Check what is pulled back at the two points."""
    assert np.array_equal(pulled.outputs["y"], [2 * X, 6 * X])
    assert np.array_equal(pulled.gradients["x"], [[2, 2, 2], [0, 2, 4]])
    assert pulled.kept == [restoring]


def test_tensors_are_in_float64_at_the_arguments_and_at_all_points(pullback: Any) -> None:
    assert np.array_equal(pullback.structure["y"], 2 * X)
    check(pullback.pull_back(*GIVEN))
    found = pullback.compute_outputs(*GIVEN)
    assert np.array_equal([each["y"] for each in found], [2 * X, 6 * X])


def test_jax_computes_what_it_can_trace(pullback: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Traced:
        """What JAX traces; it says what it is asked."""

        def __init__(self, forward: Any, arguments: Any) -> None:
            assert (forward, arguments) == (double, pullback.arguments)

        def __getattr__(self, name: str) -> Any:
            return lambda *given: (name, *given)

    monkeypatch.setattr(pullbacks, "TracedPullback", Traced)
    for name, more in (
        ("compute_carefully", ()),
        ("restore_numbers", ()),
        ("imitate_rounding", (np.float16,)),
        ("find_overflows", (1e300,)),
    ):
        assert getattr(pullback, name)(*GIVEN, *more) == (name, *GIVEN, *more)
    assert pullback.traced is pullback.traced


def test_pytorch_computes_what_jax_cannot_trace(
    pullback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise TypeError("a decision")

    names = "compute_carefully", "restore_numbers", "imitate_rounding"
    traced = SimpleNamespace(**dict.fromkeys(names, fail))
    monkeypatch.setattr(pullbacks, "TracedPullback", lambda *_: traced)
    check(pullback.compute_carefully(*GIVEN))
    check(pullback.restore_numbers(*GIVEN), restoring=True)
    with pytest.raises(TypeError, match=r"^a decision$"):
        pullback.imitate_rounding(*GIVEN, np.float16)
