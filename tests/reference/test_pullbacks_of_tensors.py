"""Which of JAX and PyTorch computes what of a pull-back through a function of PyTorch, by fakes."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.arguments import NO_ARRAYS, read_settings
from bptt_verifier.reference import pullbacks
from bptt_verifier.reference.pullbacks import TorchPullback, TracedPullback, require_float64

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


def test_what_jax_traces_is_the_function_of_tensors_in_float64(
    pullback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pullbacks, "trace_tensors", lambda function, point: (function, point))
    traced: Any = TracedPullback(double, pullback.arguments).trace({"x": X})
    function, point = traced
    assert point == {"x": X}
    assert np.array_equal(function({"x": X.astype(np.float64)})["y"], 2 * X)


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


def prepare_after(
    monkeypatch: pytest.MonkeyPatch, structure: Any, *said: str
) -> tuple[Any, list[str]]:
    """Prepare a function of two arguments, of which PyTorch has the second.

    The first kinds of pull-backs raise what is said, and the next has this structure.
    """
    tried: list[str] = []

    def kind(name: str) -> Any:
        def start(forward: Any, arguments: Any) -> Any:
            tried.append(name)
            return Tried()

        return start

    class Tried:
        @property
        def structure(self) -> Any:
            if len(tried) <= len(said):
                raise ValueError(said[len(tried) - 1])
            return structure

    for name in ("JaxPullback", "NumpyPullback", "TorchPullback"):
        monkeypatch.setattr(pullbacks, name, kind(name))
    monkeypatch.setattr(pullbacks, "find_torch", SimpleNamespace)
    monkeypatch.setattr(pullbacks.torch_losses, "names_torch", lambda _: False)
    monkeypatch.setattr(pullbacks, "is_tensor", lambda each: np.size(each) == 1)
    (setting,) = read_settings((X, np.ones(1)), np.multiply)
    return pullbacks.prepare_pullback(np.multiply, setting), tried


def test_one_tensor_among_the_arguments_asks_for_pytorch_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert prepare_after(monkeypatch, np.ones(3))[1] == ["TorchPullback"]
    assert prepare_after(monkeypatch, np.ones(3), "no")[1] == ["TorchPullback", "JaxPullback"]


def test_outputs_that_are_no_floats_of_64_bits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^output is float32 where all arguments are float64"):
        prepare_after(monkeypatch, np.ones(3, np.float32))
    said = "^forward: expected a function that returns arrays of floats, found "
    with pytest.raises(ValueError, match=said + "n of int64, m of bool$"):
        require_float64({"n": np.arange(2), "m": np.ones(1, bool)})
    with pytest.raises(ValueError, match=said + "none$"):
        require_float64({})


def test_what_is_no_array_is_named_whatever_another_library_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=f"^{NO_ARRAYS}, found a text$"):
        prepare_after(monkeypatch, None, "no", f"{NO_ARRAYS}, found a text", "none")
