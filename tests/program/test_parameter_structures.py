"""The argument that holds the parameters is found by its name, its kind, or what is returned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.parameter_structures import find_like_results, find_structure
from tests.support.own_files import list_wrong, read_own

W, b = np.ones((2, 3)), np.ones(3)


@pytest.mark.parametrize(
    ("arguments", "chosen", "found"),
    [
        ({"x": [W], "params": [W]}, [], "params"),
        ({"net": {"W": W}, "theta": [W]}, [], "theta"),  # the usual name before another kind
        ({"net": {"W": W}, "values": [W]}, [], "net"),
        ({"values": [W]}, [], ""),
        ({"values": [W]}, ["values"], "values"),
        ({"values": W}, ["values"], ""),
        ({"layers": [{"W": W}]}, [], "layers"),
        ({"rows": [{"W": W}]}, [], ""),
        ({"layers": [W]}, [], ""),
        ({"layers": [{"W": W}, b]}, [], ""),
        ({"params": []}, [], ""),
    ],
)
def test_a_structure_is_found_by_its_name_or_its_kind(
    arguments: dict[str, Any], chosen: list[str], found: str
) -> None:
    assert find_structure(arguments, chosen) == found


@pytest.mark.parametrize(
    ("arguments", "result", "found"),
    [
        ({"values": [W, b]}, (0.5, [W, b]), ("values",)),
        ({"values": (W, b)}, (0.5, (W, b)), ("values",)),
        ({"values": [W, b]}, {"loss": 0.5, "slopes": [W, b]}, ("values",)),
        ({"values": [W, b]}, (0.5, [b, W]), ()),  # in another order
        ({"values": [W, b]}, (0.5, W, b), ()),
        ({"values": [W, b], "other": [W, b]}, (0.5, [W, b]), ()),
        ({"x": [W, b]}, (0.5, [W, b]), ()),  # data
        ({"values": [W, [b]]}, (0.5, [W, [b]]), ()),
        ({"values": []}, (0.5, []), ()),
        ({"values": [W, b], "y": W}, (0.5, [W], [W, b]), ("values",)),
        ({"weights": [W], "biases": [b, W]}, (0.5, [b, W], [W]), ("biases", "weights")),
        ({"weights": [W], "biases": [b, b]}, (0.5, [b, b], [W]), ()),  # in either order
        ({"weights": [W], "biases": [b, b]}, (0.5, [b, b], [b]), ("biases",)),
        ({"left": [W], "right": [W]}, (0.5, [W], [W]), ()),
        ({"weights": [W], "biases": [b]}, (0.5, [b], [b], [W]), ()),  # a list of them is none
    ],
)
def test_a_list_is_found_by_a_returned_list_of_its_shapes(
    arguments: dict[str, Any], result: Any, found: tuple[str, ...]
) -> None:
    assert find_like_results(arguments, result) == found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({}, ("weights", "carry")),
        ({(1,): "nabla_w", (2,): "dcarry"}, ("weights", "carry")),
        ({(1,): "dweights", (2,): "new_carry"}, ()),  # the states of the last step
    ],
)
def test_lists_that_are_named_otherwise_are_no_gradients(
    names: dict[Any, str], found: tuple[str, ...]
) -> None:
    arguments = {"weights": [W, b], "carry": [b, W]}
    assert find_like_results(arguments, (0.5, [W, b], [b, W]), names) == found


LISTED = """
import numpy as np


def cost(arrays):
    W, V = arrays
    h = np.tanh(x @ W)
    e = h @ V - y
    return 0.5 * np.sum(e * e), [x.T @ (e @ V.T * (1 - h**2)), h.T @ e]


rng = np.random.default_rng(0)
x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
cost([rng.normal(size=(3, 4)), rng.normal(size=(4, 2))])
"""
BESIDE = LISTED.replace("return 0.5 * np.sum(e * e)", "return (0.5 * np.sum(e * e), {'h': h})")


@pytest.mark.parametrize("text", [LISTED, BESIDE])
def test_a_list_by_any_name_is_judged_as_a_structure(tmp_path: Path, text: str) -> None:
    found = read_own(tmp_path, text, name="cost")
    assert {*flatten(found.params).leaves} == {"arrays[0]", "arrays[1]"}
    assert not list_wrong(found)
    assert list_wrong(read_own(tmp_path, text.replace("h**2", "h"), name="cost")) == {"arrays[0]"}


def test_what_is_returned_in_a_tuple_with_the_loss_is_said_not_to_be_compared(
    tmp_path: Path,
) -> None:
    assert "returned, and not compared: aux" in read_own(tmp_path, BESIDE, name="cost").said
