"""Words on a gradient that autograd stops, and which functions stop one, without PyTorch."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference import cuts
from bptt_verifier.reference.case import Case, Truth
from bptt_verifier.reference.cuts import describe_cut, in_function_of_autograd, is_cut


def find(name: str) -> Any:
    return SimpleNamespace(expression=f"{name}.detach()", at_column=f"line {name}")


def describe(
    monkeypatch: pytest.MonkeyPatch, *slopes: Any, allowed: float = 1.0, places: str = "z"
) -> str | None:
    """Describe cuts, where autograd gives these slopes for w, of which 5 is the true one."""
    left = list(slopes)

    def differentiate_cut(loss: Any, point: Any) -> Any:
        assert loss == "a loss"
        assert point["w"].dtype == np.float64
        slope = left.pop(0)
        return None if slope is None else ([*map(find, places)], {"w": np.array(slope)})

    def truth(dtype: Any, names: Any) -> Truth:
        assert (dtype, names) == (np.float64, ())
        return Truth({"w": np.array([5.0, 5.0])}, {"w": np.full(2, allowed)})

    monkeypatch.setattr(cuts, "differentiate_cut", differentiate_cut)
    arguments = {"w": np.ones(2, np.float32)}
    given = [Case(f"case {k}", arguments, None, truth) for k in range(len(slopes))]
    loss: Any = "a loss"
    found = describe_cut(loss, given, "`step`")
    assert not left or found
    return found


def test_a_cut_is_described_at_the_first_case_that_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for right in ([5.0, 5.0], [4.0, 6.0], None):
        assert describe(monkeypatch, right) is None
    for wrong in ([5.0, 6.5], [3.5, 5.0], [np.nan, 5.0]):
        said = describe(monkeypatch, [5.0, 5.0], None, wrong, [5.0, 5.0])
        assert said == (
            "torch.autograd stops gradients at `z.detach()` (line z), and gives another ∂L/∂w than "
            "the values of `step` at case 2: your gradients may be right for either. Compute what "
            "is detached outside of the function, and pass it as data."
        )


def test_three_places_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    said = describe(monkeypatch, [0.0, 0.0], places="abcd") or ""
    listed = "`a.detach()` (line a), `b.detach()` (line b), `c.detach()` (line c), and gives"
    assert listed in said


def test_a_cut_is_detach_or_the_attribute_data() -> None:
    for name in ("detach", "detach_", "data", "clone", "__get__"):
        assert is_cut(SimpleNamespace(__name__=name)) is (name not in ("clone", "__get__"))  # type: ignore[arg-type]
    for name in ("data", "shape"):
        own = SimpleNamespace(__name__="__get__", __self__=SimpleNamespace(__name__=name))
        assert is_cut(own) is (name == "data")  # type: ignore[arg-type]
    assert not is_cut(object())  # type: ignore[arg-type]


def test_code_that_a_function_of_autograd_calls_is_inside_of_it() -> None:
    def ask_within() -> bool:
        return in_function_of_autograd()

    assert in_function_of_autograd() is False
    for file in ("/lib/torch/autograd/function.py", "C:\\torch\\autograd\\function.py"):
        for ask in (in_function_of_autograd, ask_within):
            found: dict[str, Any] = {"ask": ask}
            exec(compile("inside = ask()", file, "exec"), found)
            assert found["inside"] is True
