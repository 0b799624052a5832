"""A mistake at a product is reported with the right gradient in the user's own expressions."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.mistakes.corrections import (
    describe_correction,
    is_split_or_mapped,
    write_correction,
)
from bptt_verifier.mistakes.in_time import DROPPED
from bptt_verifier.program.backward import Change
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.trace import forward, trace
from tests.support.diagnosis import diagnose_numbers

rng = np.random.default_rng(0)
VALUES: dict[str, Any] = {
    "W": rng.normal(size=(3, 3)), "A": rng.normal(size=(2, 3)), "B": rng.normal(size=(3, 4)),
    "u": rng.normal(size=3), "v": rng.normal(size=3), "p": {"W": rng.normal(size=(3, 3))},
}  # fmt: skip


def evaluate(text: str, namespace: Any = np, **others: Any) -> Any:
    return eval(text, {"np": namespace} | jax.tree.map(namespace.asarray, VALUES) | others)


# The product, the texts that it adds for its first and its second operand, and their parameters.
PRODUCTS = [
    ("A @ B", "d @ B.T", "A.T @ d", ("A", "B")),
    ("A @ W.T", "d @ W", "d.T @ A", ("A", "W")),
    ("B.T @ W", "W @ d.T", "B @ d", ("B", "W")),
    ("W.T @ B", "B @ d.T", "W @ d", ("W", "B")),
    ("(A + 1) @ (2 * B)", "d @ (2 * B).T", "(A + 1).T @ d", ("A + 1", "2 * B")),
    ("W @ v", "np.outer(d, v)", "W.T @ d", ("W", "v")),
    ("W.T @ v", "np.outer(v, d)", "W @ d", ("W", "v")),
    ("u @ W", "W @ d", "np.outer(u, d)", ("u", "W")),
    ("u @ W.T", "W.T @ d", "np.outer(d, u)", ("u", "W")),
    ("u @ v", "d * v", "d * u", ("u", "v")),
    ("np.dot(A, W.T)", "np.dot(d, W)", "np.dot(d.T, A)", ("A", "W")),
    ('np.matmul(A, p["W"])', 'np.matmul(d, p["W"].T)', "np.matmul(A.T, d)", ("A", 'p["W"]')),
    ("np.dot(W, v)", "np.outer(d, v)", "np.dot(W.T, d)", ("W", "v")),
    ("A.dot(B)", "d.dot(B.T)", "A.T.dot(d)", ("A", "B")),
    ("A @ W @ B", "d @ B.T", "(A @ W).T @ d", ("A @ W", "B")),
]


@pytest.mark.table(5)
@pytest.mark.parametrize(("product", "first", "second", "whose"), PRODUCTS)
def test_the_right_gradient_of_each_operand_is_written_in_the_layout_of_the_product(
    product: str, first: str, second: str, whose: tuple[str, str]
) -> None:
    d = rng.normal(size=np.shape(evaluate(product)))
    dimensions = np.ndim(evaluate(whose[0])), np.ndim(evaluate(whose[1]))
    for operand, (written, name) in enumerate(zip((first, second), whose, strict=True)):
        assert write_correction(product, operand, dimensions) == (
            "If d is the gradient of this product, it should add "
            f"`{written}` to the gradient of `{name}`."
        )
        of_variable = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "variable", product, count=1)

        def loss(variable: Any, text: str = of_variable) -> Any:
            return jnp.sum(d * evaluate(text, jnp, variable=variable))

        with use_float64():
            true = jax.grad(loss)(jnp.asarray(evaluate(name)))
        # Both round a few products in float64; another operand changes the first digits.
        np.testing.assert_allclose(evaluate(written, d=d), true, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "expression",
    ["W * v", "np.einsum('ij,j->i', W, v)", "np.dot(W, v, out)", "np.dot(*both)", "f(W, v)",
     "np.inner(W, v)", "tools.matmul(W, v)",
     "W @ v + b", "np.tensordot(W, v, 1)", "(W @"],
)  # fmt: skip
def test_nothing_is_written_for_what_is_no_plain_product(expression: str) -> None:
    assert write_correction(expression, 0, (2, 1)) == ""


@pytest.mark.parametrize("dimensions", [(3, 3), (3, 2), (2, 3)])
def test_nothing_is_written_for_products_of_stacks(dimensions: tuple[int, int]) -> None:
    assert write_correction("W @ h", 0, dimensions) == ""


def test_the_gradient_of_the_product_has_a_name_that_the_product_has_not() -> None:
    assert "If delta is the gradient" in write_correction("d @ W", 0, (2, 2))


# Which mistakes are corrected.


def correct(loss: Any, *changes: tuple[int, Change], name: str = "wrong-operand") -> str:
    """Correct changes at the products of a loss, each given by its number."""
    with use_float64():
        program = trace(loss, SQUARE)
        kinds = {"dot_general", "mul"}
        numbers = [k for k, each in enumerate(program.operations) if each.name in kinds]
        made = {(numbers[number], change.operand): change for number, change in changes}
        return describe_correction(program, forward(program, SQUARE), name, made)


SQUARE = {"W": np.array([[1.0, 2.0], [3.0, 4.0]]), "V": np.array([[2.0, 1.0], [0.5, 3.0]])}
WRONG, OTHER = (Change(k, instead=((1 - k, SQUARE["W"][None]),)) for k in (0, 1))
NOTHING = Change(0, after=0.0)


def multiply(one: Any, other: Any) -> Any:
    return one @ other


def both_products(p: Any, xp: Any) -> Any:
    return xp.sum(multiply(p["W"], p["V"])) + xp.sum(multiply(p["V"], p["W"]))


def two_products(p: Any, xp: Any) -> Any:
    return xp.sum(p["W"] @ p["V"]) + xp.sum(p["V"] @ p["W"])


FIRST = (
    "If d is the gradient of this product, it should add `d @ other.T` to the gradient of `one`."
)


def test_a_wrong_operand_and_a_dropped_path_are_corrected() -> None:
    assert correct(both_products, (0, WRONG)) == FIRST
    assert correct(both_products, (0, NOTHING), name=DROPPED) == FIRST
    assert correct(both_products, (0, NOTHING), name="truncated") == ""


def test_one_expression_is_corrected_once_wherever_it_is_called() -> None:
    assert correct(both_products, (0, WRONG), (1, WRONG)) == FIRST
    assert correct(both_products, (0, WRONG), (1, NOTHING)) == FIRST  # at the first step, say


def test_changes_of_two_operands_or_expressions_are_not_corrected() -> None:
    assert correct(both_products, (0, WRONG), (0, OTHER)) == ""
    assert correct(two_products, (0, WRONG), (1, WRONG)) == ""


# A file that names this function is in doubt, and this one must not be.
MAP = f"v{'map'}"

OTHERS: dict[str, tuple[Any, int]] = {
    "elementwise": (lambda p, xp: xp.sum(p["W"] * p["V"]), 0),
    "complex": (lambda p, xp: xp.real(xp.sum((1j * p["W"]) @ (1j * p["V"]))), 2),
    "half complex": (lambda p, xp: xp.real(xp.sum((1j * p["W"]) @ p["V"])), 1),
    "stack of one and vector": (lambda p, xp: xp.sum(p["W"][None] @ p["V"][0]), 0),
    "stack of one": (lambda p, xp: xp.sum(p["W"][None] @ p["V"][None]), 0),
    "stacks": (lambda p, xp: xp.sum(xp.stack([p["W"]] * 2) @ xp.stack([p["V"]] * 2)), 0),
    "mapped": (lambda p, xp: xp.sum(getattr(jax, MAP)(lambda row: p["V"] @ row)(p["W"])), 0),
}


def product_in_two_lines(p: Any, xp: Any) -> Any:
    return xp.sum(p["W"]
                  @ p["V"])  # fmt: skip


def test_a_product_in_two_lines_is_not_corrected() -> None:
    assert correct(product_in_two_lines, (0, WRONG)) == ""


@pytest.mark.parametrize("kind", OTHERS)
def test_products_of_other_kinds_are_not_corrected(kind: str) -> None:
    loss, number = OTHERS[kind]
    assert correct(loss, (number, WRONG)) == ""


def test_an_expression_of_several_lines_or_a_file_that_maps_over_axes_leaves_a_doubt(
    tmp_path: Path,
) -> None:
    plain, mapping = tmp_path / "plain.py", tmp_path / "mapping.py"
    plain.write_text("y = a @ b\nz = 1\n", encoding="utf-8")
    mapping.write_text(f"y = a @ b\nz = jax.{MAP}(f)\n", encoding="utf-8")
    assert not is_split_or_mapped(Place(str(plain), 1, 4, 9))
    assert is_split_or_mapped(Place(str(plain), 1, 4, 0))
    assert is_split_or_mapped(Place(str(mapping), 1, 4, 9))


# The diagnosis.

X, Y = rng.normal(size=(3, 2)), rng.normal(size=(1, 2))


def rows(p: Any, xp: Any) -> Any:
    h = xp.zeros((1, 2))
    for x in X:
        h = xp.tanh(x[None] + h @ p["W"])
    return xp.sum((h - Y) ** 2)


def row_gradients(p: Any) -> dict[str, Any]:
    states = [np.zeros((1, 2))]
    for x in X:
        states.append(np.tanh(x[None] + states[-1] @ p["W"]))
    dW, dh = np.zeros((2, 2)), 2 * (states[-1] - Y)
    for before, after in reversed([*pairwise(states)]):
        da = dh * (1 - after**2)
        dW += before.T @ da
        dh = da @ p["W"]  # and not its transpose
    return {"W": dW}


def test_a_diagnosis_gives_the_line_for_row_vectors() -> None:
    (mistake,) = diagnose_numbers(rows, {"W": np.eye(2)}, row_gradients)
    assert mistake.name == "untransposed-recurrent-weight"
    assert '`d @ p["W"].T` to the gradient of `h`' in mistake.explanation


def rows_in_two_lines(p: Any, xp: Any) -> Any:
    h = xp.zeros((1, 2))
    for x in X:
        product = (h @ np.eye(2)
                   @ p["W"])  # fmt: skip
        h = xp.tanh(x[None] + product)
    return xp.sum((h - Y) ** 2)


def test_a_diagnosis_corrects_no_expression_that_it_reads_in_part() -> None:
    (mistake,) = diagnose_numbers(rows_in_two_lines, {"W": np.eye(2)}, row_gradients)
    assert mistake.name.startswith("untransposed")
    assert "the gradient of this product" not in mistake.explanation
