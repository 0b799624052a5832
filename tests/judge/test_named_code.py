"""Functions, classes and objects of a file, read by the names that they are given."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import named_code
from bptt_verifier.judge.named_code import find_object, find_static, read_named
from bptt_verifier.program.source_file import RecordedCall


class Net:
    """An object of the user's."""


def test_the_object_of_a_class_is_that_of_the_call_or_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(named_code, "find_methods", lambda found: ("forward", "backward"))
    monkeypatch.setattr(named_code, "read_class", lambda found, *others: found)
    first, second = Net(), Net()
    called: Any = SimpleNamespace(calls={"backward": RecordedCall(second, {})})
    space = {"Net": Net, "a": first, "b": second}
    found: list[Any] = [read_named(space, "Net", called, ())]
    uncalled: Any = SimpleNamespace(calls={"backward": RecordedCall(None, {})})
    found.append(read_named({"Net": Net, "a": first, "again": first}, "Net", uncalled, ()))
    assert found == [second, first]
    with pytest.raises(ValueError, match="expected one object of it in the file, found several"):
        read_named(space, "Net", uncalled, ())
    assert find_object(Net, {"a": first}) is first
    assert isinstance(find_object(Net, {}), Net)


def test_what_is_no_function_and_no_class_is_said() -> None:
    nothing: Any = SimpleNamespace(calls={})
    with pytest.raises(ValueError, match="x: expected a function or class, found int"):
        read_named({"x": 3}, "x", nothing, ())
    net = type("Net", (), {"step": lambda self: 0, "_own": 0})()
    with pytest.raises(ValueError, match="found the methods step; name one, such as FILE:n"):
        read_named({"n": net}, "n", nothing, ())
    for name in ("f", "max,x"):
        with pytest.raises(ValueError, match=f"{name}: expected it to be defined before its first"):
            read_named({"x": 3, "max": max}, name, nothing, ())


class Model:
    """A class of the user's with public methods and one of its own."""

    def step(self) -> None: ...

    def _own(self) -> None: ...


@pytest.mark.parametrize("name", ["Model.fit", "model.fit"])
def test_a_method_that_is_not_there_is_said_with_those_that_are(name: str) -> None:
    nothing: Any = SimpleNamespace(calls={})
    said = f"^{name}: expected a method fit of {name.partition('.')[0]}, found step$"
    with pytest.raises(ValueError, match=said):
        read_named({"Model": Model, "model": Model()}, name, nothing, ())


def test_a_class_needs_no_object_only_if_all_its_methods_need_none() -> None:
    class Mixed:
        @staticmethod
        def forward(x: Any) -> Any: ...

        def backward(self, d: Any) -> Any: ...

    class Static(Mixed):
        @staticmethod
        def backward(d: Any) -> Any: ...  # type: ignore[override]

    assert find_static(Mixed, []) == []
    assert find_static(Mixed, ["forward"]) == ["forward"]
    assert find_static(Static, []) == ["forward", "backward"]


class Lists:
    """A class of the user's with a list of numbers for a parameter."""

    def __init__(self) -> None:
        self.W = [[1.0, 2.0]]

    def backward(self, d: float) -> Any:
        self.dW = [[d * each for each in row] for row in self.W]
        return self.dW


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_lists_of_an_object_are_arrays_where_it_is_called_or_of_a_class_of_the_file(
    called: bool, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(found: Any, *others: Any) -> Any:
        if isinstance(found.W, list):
            raise ValueError("a list is no array")
        return found

    monkeypatch.setattr(named_code, "find_methods", lambda found: ("forward", "backward"))
    monkeypatch.setattr(named_code, "read_class", read)
    net = Lists()
    calls = {"f": RecordedCall(None, {}), "backward": RecordedCall(net if called else None, {})}
    recorder: Any = SimpleNamespace(calls=calls)
    space = {"__name__": __name__ if own else "other", "Lists": Lists, "net": net, "one": Net()}
    if called or own:
        found: Any = read_named(space, "Lists", recorder, ())
        assert np.array_equal(found.W, [[1, 2]])
        assert type(found.W) is np.ndarray
    else:
        with pytest.raises(ValueError, match="a list is no array"):
            read_named(space, "Lists", recorder, ())
    assert net.W == [[1.0, 2.0]]
