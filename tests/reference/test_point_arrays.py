"""Arrays of a stated function at several points, and gradients stated in autodiff's place."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.program.precision import use_float64
from bptt_verifier.reference.point_arrays import (
    Pulled,
    name_outputs,
    rebuild_outputs,
    select_floating,
    select_traced,
    stack,
    to_jax,
    widen,
)
from bptt_verifier.reference.stated_pullbacks import StatedPullback

THREE: dict[str, Any] = {"a": np.float32([1, 2]), "n": np.array([3])}


def test_outputs_are_named_apart_from_gradients_of_the_same_name() -> None:
    outputs = {"h": np.ones(1), "y": np.ones(2)}
    assert list(name_outputs(outputs, {"h"})) == ["output h", "y"]
    pulled = Pulled(outputs, {"h": np.zeros(3)})
    assert {name: each.size for name, each in pulled.named.items()} == {
        "h": 3, "output h": 1, "y": 2,
    }  # fmt: skip
    assert pulled.kept == ()


def test_arrays_are_widened_and_stacked_over_points() -> None:
    wide = widen(THREE)
    assert [each.dtype for each in wide.values()] == [np.float64] * 2
    assert wide["a"].tolist() == [1, 2]
    with use_float64():
        stacked = stack([{"a": THREE["a"]}, {"a": 2 * THREE["a"]}])
        assert stacked["a"].dtype == np.float64
        assert stacked["a"].tolist() == [[1, 2], [2, 4]]
        assert stack([{"a": THREE["a"]}])["a"].tolist() == [[1, 2]]
        kept = to_jax(THREE)
    assert isinstance(kept["a"], jnp.ndarray)
    assert kept["a"].dtype == np.float32


def test_outputs_of_integers_are_data() -> None:
    result = THREE["a"], THREE["n"]
    for select in (select_floating, select_traced):
        (found,) = select(result).values()
        assert found.tolist() == [1, 2]
    assert isinstance(select_floating(jnp.ones(2)).popitem()[1], np.ndarray)


def test_the_structure_of_outputs_is_made_again_with_zeros_for_data() -> None:
    (name,) = select_floating(THREE)
    made = rebuild_outputs(THREE, {name: np.array([5.0, 6.0])})
    assert made["a"].tolist() == [5, 6]
    assert made["n"].tolist() == [0]
    assert made["n"].dtype == THREE["n"].dtype


class Answering:
    """The pull-back of a function, whose every answer says which question it is to."""

    forward, structure = None, np.ones(2)

    def __init__(self) -> None:
        self.arguments = read_arguments((jnp.ones(2),), ["x"])

    def answer(self, points: Any, cotangents: Any, *_: Any) -> Pulled:
        return Pulled({"output": np.stack([2 * p["x"] for p in points])}, {})

    def __getattr__(self, name: str) -> Any:
        return self.answer if name == "pull_back" else lambda *asked: (name, *asked)


def test_a_stated_gradient_takes_the_place_of_autodiffs_alone() -> None:
    true: Any = Answering()

    def stated(arguments: Any, cotangent: Any) -> Any:
        assert isinstance(arguments[0], np.ndarray)  # as no argument given is
        assert arguments[0].dtype == cotangent.dtype == np.float64
        return (3 * arguments[0] * cotangent,)

    pullback = StatedPullback(stated, true)
    (name,) = true.arguments.leaves
    points = [{name: np.float32([1, 2])}, {name: np.float32([3, 4])}]
    cotangents = [{"output": np.float32([1, 10])}, {"output": np.float32([5, 7])}]
    pulled = pullback.pull_back(points, cotangents)
    assert pulled.gradients[name].tolist() == [[3, 60], [45, 84]]
    assert pulled.gradients[name].dtype == np.float64
    assert pulled.outputs["output"].tolist() == [[2, 4], [6, 8]]
    assert pullback.pull_back(points[:1], cotangents[:1]).gradients[name].tolist() == [[3, 60]]
    assert pullback.structure is true.structure
    assert pullback.list_unconfirmed(points, cotangents, pulled.gradients) == []
    for question, *further in (
        ("compute_carefully",), ("compute_outputs",), ("restore_numbers",),
        ("imitate_rounding", np.float16), ("find_overflows", 2.0),
    ):  # fmt: skip
        asked = points, cotangents, *further
        assert getattr(pullback, question)(*asked) == (question, *asked)
