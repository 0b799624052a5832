"""Sentences name operands, results and activations as the source of a loss writes them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.mistakes.expressions import (
    Written,
    name_activation,
    name_operand,
    name_result,
    read_expression,
)
from bptt_verifier.mistakes.in_operations import find_longest, list_tiers
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import Structure, structure
from bptt_verifier.program.trace import trace
from tests.support.own_models import sigmoid


@pytest.mark.parametrize(
    ("expression", "name", "operands"),
    [
        ("x @ W", "dot_general", ("x", "W")),
        ('np.dot(p["W"], h[t - 1])', "dot_general", ('p["W"]', "h[t - 1]")),
        ("h.dot(W.T)", "dot_general", ("h", "W.T")),
        ("r * (h @ U)", "mul", ("r", "h @ U")),
        ("1 - z", "sub", ("1", "z")),
        ("-q", "neg", ("q",)),
        ("np.concatenate([x, r * h], axis=1)", "concatenate", ("x", "r * h")),
        ("np.tanh(a + b)", "tanh", ("a + b",)),
        ("np.stack(hs, axis=1)", "stack", ("hs[0]", "hs[1]")),
        ("a[:, :H]", "", ("a",)),
        ("e.sum(axis=1)", "reduce_sum", ("e",)),
        ("np.where(m[t], new, h)", "select_n", ("m[t]", "h", "new")),
    ],
)
def test_an_expression_is_read(expression: str, name: str, operands: tuple[str, ...]) -> None:
    found = read_expression(expression)
    assert found is not None
    assert found.name == name
    assert found.operands[: len(operands)] == operands


@pytest.mark.parametrize(
    "expression",
    ["x @", "f(x)", "np.einsum('ij,j', W, h)", "np.concatenate(parts + more)", "[*x] + y"],
)
def test_other_expressions_are_not_read(expression: str) -> None:
    found = read_expression(expression)
    assert found is None or found == Written("add", ("[*x]", "y"))


X, LABELS = np.ones((3, 2, 2)), np.array([0, 1])


def loss(p, xp):  # type: ignore[no-untyped-def]
    h, total = xp.zeros((2, 2)), 0.0
    for t in range(3):
        a = X[t] @ p["W"] + h @ p["U"] + p["b"]
        gate = sigmoid(h @ p["V"], xp)
        h = xp.where(X[t] > 0, xp.tanh(a) * gate, h)
        out = xp.einsum("bh,ho->bo", h, p["O"])
        total = total + xp.sum((out - X[t]) ** 2)
    return 0.5 * total


@pytest.fixture(scope="module")
def known() -> Structure:
    shapes = {"W": (2, 2), "U": (2, 2), "b": (2,), "V": (2, 2), "O": (2, 2)}
    with use_float64():
        return structure(trace(loss, {name: np.ones(shape) for name, shape in shapes.items()}))


def names_of(known: Structure, expression: str, operation: str) -> set[tuple[str, ...]]:
    return {
        tuple(name_operand(known, number, k) for k in range(len(each.inputs)))
        for number, each in enumerate(known.program.operations)
        if each.name == operation and each.where and each.where[0].expression == expression
    }


def test_operands_have_the_words_of_the_source(known: Structure) -> None:
    assert names_of(known, 'h @ p["U"]', "dot_general") == {("`h`", '`p["U"]`')}
    assert names_of(known, "xp.tanh(a) * gate", "mul") == {("`xp.tanh(a)`", "`gate`")}
    kept = ("`X[t] > 0`", "`h`", "`xp.tanh(a) * gate`")
    assert names_of(known, "xp.where(X[t] > 0, xp.tanh(a) * gate, h)", "select_n") == {kept}
    assert names_of(known, "0.5 * total", "mul") == {("`0.5`", "`total`")}


def test_an_operand_without_words_has_the_name_of_its_parameter(known: Structure) -> None:
    ((*names,),) = names_of(known, 'xp.einsum("bh,ho->bo", h, p["O"])', "dot_general")
    assert "`O`" in names
    assert {"`xp.where(X[t] > 0, xp.tanh(a) * gate, h)`"} | {"`O`"} == {*names}


def test_activations_have_their_names_and_the_variables_of_their_results(known: Structure) -> None:
    found = {
        (name_activation(known, each[0]), name_result(known, each[0]))
        for each in find_longest(known)
    }
    assert ("sigmoid", "gate") in found
    assert ("tanh", "y") in found  # it is a factor of what is assigned


def test_no_sentence_counts_operands_where_the_source_names_them(known: Structure) -> None:
    said = {each.alteration for tier in list_tiers(known) for each in tier}
    assert len(said) > 300
    assert [each for each in said if "operand" in each] == []
    assert said > {
        "no gradient is passed on to `h`",
        'the gradient of `p["U"]` is computed with the value of `h` in the next iteration',
        'the backward pass multiplies by `p["U"]`, where its transpose belongs',
        "your gradient uses 1 − gate where the derivative of sigmoid is gate (1 − gate)",
        "your gradient uses 1 − y where the derivative of tanh is 1 − y², of its result y",
        "the gradient passed on to `xp.tanh(a)` is not multiplied by `gate`",
    }


def test_a_product_of_which_one_part_alone_passes_back_is_said_to_do_so() -> None:
    def in_parts(p: Any, xp: Any) -> Any:
        h = xp.tanh(p["b"])
        a = p["W"] @ h
        return xp.sum(xp.exp(a[:2]) * xp.sin(a[2:]))

    with use_float64():
        split = structure(trace(in_parts, {"W": np.ones((4, 3)), "b": np.ones(3)}))
    said = {each.alteration for tier in list_tiers(split) for each in tier}
    for part in ("a[:2]", "a[2:]"):
        assert f"the gradient passed on to `h` comes from `{part}` alone" in said
        assert f"no gradient is passed on to `h` from `{part}`" in said


def name_all(loss: Any, *operations: str) -> list[str]:
    with use_float64():
        known = structure(trace(loss, {"W": np.ones((2, 2)), "b": np.ones(2)}))
    (number,) = [n for n, each in enumerate(known.program.operations) if each.name in operations]
    return [
        name_operand(known, number, k) for k in range(len(known.program.operations[number].inputs))
    ]


@pytest.mark.parametrize("length", [2, 9])
def test_operands_of_the_same_words_are_told_by_their_places(length: int) -> None:
    def stacked(p: Any, xp: Any) -> Any:
        h, states = p["b"], []
        for _ in range(length):
            h = xp.tanh(p["W"] @ h)
            states.append(h)
        return xp.sum(xp.array([*states]) ** 2)

    places = ["first", "second", "third", "fourth", "fifth", "sixth", "7th", "8th", "last"]
    places = [*places[: length - 1], "last"]
    word = '`xp.tanh(p["W"] @ h)`'
    assert name_all(stacked, "stack", "concatenate") == [
        f"{word} in the {p} of its {length} places" for p in places
    ]


def test_so_are_the_factors_of_an_outer_product_that_are_laid_out_anew() -> None:
    def outer(p: Any, xp: Any) -> Any:
        h = xp.tanh(p["W"] @ p["b"])
        return xp.sum(xp.outer(h, h))

    word = '`xp.tanh(p["W"] @ p["b"])`'
    assert name_all(outer, "mul") == [
        f"{word} in the {p} of its 2 places" for p in ("first", "last")
    ]


def test_a_difference_inside_of_another_says_on_which_side_it_is() -> None:
    """A function of a library has both in one line of the user's."""

    def deviate(p: Any, xp: Any) -> Any:
        return xp.sum(jnp.var(p["b"]) - jax.nn.log_softmax(p["W"])[0])

    with use_float64():
        known = structure(trace(deviate, {"W": np.ones((2, 2)), "b": np.ones(2)}))
    named = {
        name_operand(known, number, k)
        for number, each in enumerate(known.program.operations)
        if each.name == "sub"
        for k in range(2)
    }
    assert "the difference inside it from which more is subtracted" in named
    assert "the logarithm inside it that is subtracted" in named


def test_operands_of_other_words_or_of_one_value_need_no_place() -> None:
    def other(p: Any, xp: Any) -> Any:
        return xp.sum(xp.array([xp.exp(p["b"]), xp.sin(p["b"])]))

    def square(p: Any, xp: Any) -> Any:
        h = xp.tanh(p["W"] @ p["b"])
        return xp.sum(h * h)

    assert name_all(other, "stack", "concatenate") == ['`xp.exp(p["b"])`', '`xp.sin(p["b"])`']
    assert name_all(square, "mul") == ["`h`", "`h`"]
