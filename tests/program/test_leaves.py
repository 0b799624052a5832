"""The leaves of nested parameters: their names, what is data, and how gradients are read."""

import inspect
import re
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from bptt_verifier.program.leaves import flatten, rebuild_before, vars_of

W, V, b = np.ones((2, 3)), np.full((3, 2), 2.0), np.zeros(3, np.float32)


class Layer(NamedTuple):
    W: Any
    b: Any


@dataclass(frozen=True)
class Frozen:
    W: Any
    name: str = "cell"


class Named:
    """An object with slots of one name and a dict of others."""

    __slots__ = ("U", "__dict__", "unset")

    def __init__(self) -> None:
        self.W, self.U = 1.0, 2.0


class Single(Named):
    __slots__ = "single"  # noqa: PLC0205 - as it may be written

    def __init__(self) -> None:
        super().__init__()
        self.single = 3.0


def test_attributes_are_those_in_a_dict_and_in_the_slots_of_all_classes() -> None:
    assert vars_of(Named()) == ["W", "U"]
    assert vars_of(Single()) == ["W", "single", "U"]


@dataclass(slots=True)
class Slotted:
    W: Any


@jax.tree_util.register_pytree_node_class
class Registered:
    __slots__ = ("W", "fixed")

    def __init__(self, W: Any, fixed: str) -> None:
        self.W, self.fixed = W, fixed

    def tree_flatten(self) -> Any:
        return (self.W,), self.fixed

    @classmethod
    def tree_unflatten(cls, fixed: Any, children: Any) -> Any:
        return cls(*children, fixed)  # type: ignore[call-arg]


STRUCTURES = [
    ({"layers": [{"Wx": W}, {"Wx": V}]}, ["layers[0].Wx", "layers[1].Wx"]),
    ({"enc": {"W": W, "b": b}, "V": V}, ["enc.W", "enc.b", "V"]),
    ({"enc": {"the W": W, 3: b}}, ["enc['the W']", "enc[3]"]),
    ([W, V], ["params[0]", "params[1]"]),
    ([Layer(W, b), Layer(V, b)], ["params[0].W", "params[0].b", "params[1].W", "params[1].b"]),
    (Layer(W, (V, b)), ["W", "b[0]", "b[1]"]),
    (Frozen(W), ["W"]),
    ({"cell": Slotted(W), "out": SimpleNamespace(V=V)}, ["cell.W", "out.V"]),
    (OrderedDict(cells=(Registered(W, "a"),)), ["cells[0][0]"]),
    ({"W": W, "tokens": np.array([1, 2]), "act": "tanh"}, ["W"]),
    ({"a b": W, "n": 3}, ["a b"]),
    ({"scale": {"g": 0.5, "s": [0.1, 0.2]}}, ["scale.g", "scale.s"]),
]


@pytest.mark.parametrize(("params", "names"), STRUCTURES)
def test_leaves_are_named_by_their_paths_and_the_structure_is_remade(
    params: Any, names: list[str]
) -> None:
    tree = flatten(params)
    assert [*tree.leaves] == names
    others = {name: value + 1 for name, value in tree.leaves.items()}
    built = tree.rebuild(others)
    assert type(built) is type(params)
    assert flatten(built).data == tree.data
    for name, value in tree.read(built).items():
        of_float = type(value) is float and value == others[name]
        assert value is others[name] or of_float
    for name, value in flatten(params).leaves.items():  # nothing of the caller's has changed
        assert np.array_equal(value, tree.leaves[name])


def test_a_flat_dict_is_handed_on_as_it_is() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return p

    tree = flatten({"W": W, "b": [0.5, 1.0]})
    assert tree.flat
    assert rebuild_before(loss, [tree, tree]) is loss
    assert tree.read((1.0, {"W": W})) == (1.0, {"W": W})


class Config:
    def __init__(self) -> None:
        self.width, self.itself = 3, self


def test_integers_texts_functions_and_objects_without_arrays_are_data() -> None:
    words, config = [["to", "be"], ["or"]], Config()
    given: Any = {
        "W": W, "lengths": [3, 1], "ragged": [[1, 2], [3]], "words": words, "mask": W > 0,
        "act": np.tanh, "none": None, "config": config, "inner": {"W": V, "count": 2},
    }  # fmt: skip
    tree = flatten(given)
    assert [*tree.leaves] == ["W", "inner.W"]
    assert set(tree.data) == {
        "lengths", "ragged", "words", "mask", "act", "none", "config", "inner.count",
    }  # fmt: skip
    built = tree.rebuild(tree.leaves)
    built["words"][0].append("not")
    built["mask"][:] = False
    assert (words, given["mask"].all()) == ([["to", "be"], ["or"]], True)
    assert built["config"].width == 3
    assert "lengths" in tree.notes[0]


NESTED = {"enc": {"W": W, "n": 2}, "layers": [Layer(V, b), Layer(V, b)]}
GRADS: Any = {"enc": {"W": 1}, "layers": [Layer(2, 3), Layer(4, 5)]}
NAMES = ["enc.W", "layers[0].W", "layers[0].b", "layers[1].W", "layers[1].b"]


@pytest.mark.parametrize(
    "result",
    [
        GRADS,
        SimpleNamespace(enc={"W": 1, "n": None}, layers=((2, 3), {"W": 4, "b": 5})),
        (GRADS["enc"], [[2, 3], [4, 5]]),
        dict(zip(NAMES, range(1, 6), strict=True)),
        [1, 2, 3, 4, 5],
    ],
)
def test_gradients_are_read_in_a_structure_by_name_or_in_order(result: Any) -> None:
    tree = flatten(NESTED)
    expected = dict(zip(NAMES, range(1, 6), strict=True))
    assert tree.read(result) == expected
    assert tree.read((0.5, result)) == (0.5, expected)


def test_missing_leaves_are_missing_and_unknown_names_are_kept() -> None:
    tree = flatten(NESTED)
    found = tree.read({"enc": {}, "layers": [Layer(2, None)], "loss": 7, "extra": 8})
    assert found == {"layers[0].W": 2, "layers[0].b": None, "loss": 7, "extra": 8}
    assert tree.read(None) is None
    pair = flatten([W, V])
    assert pair.read((0.5, [W, V])) == (0.5, {"params[0]": W, "params[1]": V})
    assert pair.read((0.5, {"params[1]": V})) == (0.5, {"params[1]": V})
    assert flatten([b[:1], V]).read([0.5, V]) == {"params[0]": 0.5, "params[1]": V}
    stacked = np.ones((2, 2, 3))
    assert [*flatten({"layers": [W, W]}).read({"layers": stacked})] == ["layers[0]", "layers[1]"]


c, G, K, g, k = (np.zeros(size) for size in (2, (2, 3), (3, 2), 3, 2))
OF_LEAVES_ALONE = [
    ({"W": [W, V], "n": 3}, [[G, K]], [G, K]),
    ({"n": 3, "W": [W, V]}, ([G, K],), [G, K]),
    ({"n": np.arange(3), "W": [W, V]}, [None, [G, K]], [G, K]),
    ({"sizes": [3, 2], "layers": [[W], [V]]}, [[G], [K]], [G, K]),
    ({"sizes": [3, 2], "layers": [[W], [V]]}, [[[G], [K]]], [G, K]),
    ({"n": 3, "enc": {"W": W}, "dec": {"V": V}}, [[G], [K]], [G, K]),
    ({"n": 3, "enc": {"W": W}, "dec": {"V": V}}, [{"W": G}, {"V": K}], [G, K]),
    ({"cells": [["tanh", W, b], ["relu", V, b]]}, {"cells": [[G, b], [K, b]]}, [G, b, K, b]),
    ([[3, W], [4, V]], [[G], [K]], [G, K]),
    ((3, (W, "tanh"), Frozen(V)), ((G,), (K,)), [G, K]),
    ((3, {"W": W}, [V, 2]), ({"W": G}, SimpleNamespace(V=K)), [G, K]),
    # The rows of the second array would fit the number of axes.
    ({"cell": {"n": 2, "W": [b, c]}, "out": W}, [[g, k], G], [g, k, G]),
]  # fmt: skip


@pytest.mark.parametrize(("params", "result", "gradients"), OF_LEAVES_ALONE)
def test_gradients_in_the_structure_of_the_leaves_alone_are_read(
    params: Any, result: Any, gradients: list[Any]
) -> None:
    tree = flatten(params)
    for found in (tree.read(result), tree.read((0.5, result))[1]):
        assert [*found] == [*tree.leaves]
        assert all(one is other for one, other in zip(found.values(), gradients, strict=True))


def test_a_list_without_the_numbers_is_read_where_all_shapes_fit() -> None:
    tree = flatten({"W": W, "scale": 0.5, "b": b})
    assert tree.numbers == ("scale",)
    assert tree.read([W, b]) == {"W": W, "b": b}
    assert [*tree.read([W, V])] != ["W", "b"]
    assert [*tree.read([b, b])] != ["W", "b"]
    assert tree.read([W, 0.25, b]) == {"W": W, "scale": 0.25, "b": b}


def test_gradients_of_wrong_shapes_are_read_as_well_and_missing_ones_are_not_made_up() -> None:
    tree = flatten({"W": [W, V], "n": 3})
    found = tree.read([[K, G]])
    assert found["W[0]"].shape == K.shape
    for result in ([[G]], [[G, K, G]]):
        assert not tree.leaves.keys() <= tree.read(result).keys()


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (3, "params: expected a dict of float arrays, which may be nested, found int"),
        (
            [],
            "a dict of float arrays, which may be nested, found an empty list; put the arrays in",
        ),
        ({}, "found an empty dict; put the arrays in it that loss differentiates"),
        ({"n": 3}, "found int64 of shape (); integers are data: convert it to float64"),
        (W, "params: expected a dict of float arrays, which may be nested, found ndarray"),
        ({"n": 3}, "params['n']: expected a float32 or float64 array with entries, found int64"),
        ({"a": [W, W.astype(complex)]}, "params.a[1]: expected a float32 or float64 array"),
        ({"a": {"W": np.zeros((0, 2))}}, "params.a.W: expected a float32 or float64 array"),
        ({"a": W, "o": object()}, "params['o']: expected a float32 or float64 array"),
    ],
)
def test_what_holds_no_float_arrays_is_said_in_one_sentence(params: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        flatten(params)


def test_a_loss_gets_the_structure_whose_leaves_have_the_shapes_given() -> None:
    trees = [flatten({"W": W, "n": 1}), flatten({"W": V, "n": 2})]

    def loss(p: Any, xp: Any) -> Any:
        return p["n"], p["W"], xp

    for tree in trees:
        found = rebuild_before(loss, trees)(tree.leaves, np)
        assert found == (tree.params["n"], tree.leaves["W"], np)
    with pytest.raises(
        ValueError, match="expected settings of different shapes, found two of the same"
    ):
        rebuild_before(loss, [trees[0], flatten({"W": W, "n": 3})])


def test_a_universal_function_whose_signature_was_asked_for_is_data() -> None:
    inspect.signature(np.cosh)  # some versions of NumPy note it in the function
    assert flatten({"W": W, "act": np.cosh}).data == ("act",)
