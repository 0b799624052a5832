"""Functions, classes and objects of a file, read by the names that they are given."""

from types import SimpleNamespace
from typing import Any

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
