"""The cotangent of a factor that many products share, against that of one product after another."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from bptt_verifier.problems.problem import Array
from bptt_verifier.program import backward as backward_pass
from bptt_verifier.program.backward import Change, backward, is_scale, sweep_back
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.repeated_factors import Product, find_repeated_factors, sum_products
from bptt_verifier.program.trace import Program, forward, trace

rng = np.random.default_rng(0)
W, B, x = rng.normal(size=(3, 3)), rng.normal(size=(2, 3, 3)), rng.normal(size=(4, 3))
X, z = rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 3)) + 1j * rng.normal(size=(4, 3))
STEPS = len(x)


@pytest.fixture(autouse=True)
def small_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward_pass, "LARGE", 1)


def on_the_left(p: Any, xp: Any) -> Any:
    h = x[0]
    for t in range(STEPS):
        h = xp.tanh(p["W"] @ h + x[t])
    return xp.sum(h**2)


def on_the_right(p: Any, xp: Any) -> Any:
    h = X[0]
    for t in range(STEPS):
        h = xp.tanh(h @ p["W"] + X[t])
    return xp.sum(h**2)


def on_both_sides(p: Any, xp: Any) -> Any:
    h = X[0]
    for t in range(STEPS):
        h = xp.tanh(p["W"] @ h.T + h @ p["W"] @ p["W"] if t > STEPS else h @ p["W"] @ p["W"])
        h = xp.tanh((p["W"] @ h.T).T)
    return xp.sum(h**2)


def transposed_first(p: Any, xp: Any) -> Any:
    h, turned = x[0], p["W"].T
    for t in range(STEPS):
        h = xp.tanh(turned @ h + x[t])
    return xp.sum(h**2)


def with_a_penalty(p: Any, xp: Any) -> Any:
    return on_the_left(p, xp) + 0.1 * xp.sum(p["W"] ** 2)


def complex_inside(p: Any, xp: Any) -> Any:
    h = z[0]
    for t in range(STEPS):
        h = p["W"] @ h * z[t]
    return xp.sum(xp.abs(h) ** 2)


def complex_factor(p: Any, xp: Any) -> Any:
    h, turned = x[0], p["W"] * (1 + 0.5j)
    for _ in range(STEPS):
        h = turned @ h
    return xp.sum(xp.abs(h) ** 2)


def with_several_matrices(p: Any, xp: Any) -> Any:
    h = B
    for t in range(STEPS):
        h = xp.tanh(xp.einsum("bij,bjk->bik", p["B"], h) + x[t])
    return xp.sum(h**2)


LOSSES: list[tuple[Callable[..., Any], str, Array]] = [
    (on_the_left, "W", W), (on_the_right, "W", W), (on_both_sides, "W", W),
    (transposed_first, "W", W), (with_a_penalty, "W", W), (complex_inside, "W", W),
    (complex_factor, "W", W), (with_several_matrices, "B", B),
]  # fmt: skip
every_loss = pytest.mark.parametrize(
    ("loss", "name", "value"), LOSSES, ids=[each.__name__ for each, _, _ in LOSSES]
)


def trace_at(loss: Callable[..., Any], name: str, value: Array) -> tuple[Program, list[Any]]:
    with use_float64():
        program = trace(loss, {name: value})
        return program, forward(program, {name: value})


def pass_ones(shape: tuple[int, ...], arriving: Any) -> Array:
    return np.ones((len(arriving[0]), *shape))


def change_products(program: Program, values: list[Any]) -> list[dict[tuple[int, int], Change]]:
    """Changes of every form, of each factor of each product; the last row has all scales."""
    rows: list[dict[tuple[int, int], Change]] = [{}]
    products = [k for k, each in enumerate(program.operations) if each.name == "dot_general"]
    for number in products:
        equation = program.operations[number]
        for one, slot in enumerate(equation.inputs):
            other = values[equation.inputs[1 - one]]
            shape = values[slot].shape[1:]
            result = values[equation.outputs[0]]
            forms = [
                Change(one, after=0.0), Change(one, after=-2.0), Change(one, before=0.5),
                Change(one, after=rng.normal(size=shape)), Change(one, after=0.5 + 2j),
                Change(one, instead=((1 - one, other + 1.0),)),
                Change(one, instead=((1 - one, other + 1j),), after=0.5),
                Change(one, instead=((one, values[slot]), (1 - one, 2.0 * other))),
                Change(one, before=2.0, instead=((1 - one, other - 1.0),)),
                Change(one, after=rng.normal(size=shape), instead=((1 - one, other - 1.0),)),
                Change(one, arriving=result[0]), Change(one, before=2.0, arriving_at=slot),
                Change(one, also=(slot,)), Change(one, after=0.0, send=((slot, 3.0),)),
                Change(one, through=partial(pass_ones, shape)),
            ]  # fmt: skip
            if result.shape != values[slot].shape:
                forms = [each for each in forms if each.arriving_at is None]
            rows += [{(number, one): each} for each in forms]
    rows.append({(number, one): Change(one, after=0.5) for number in products for one in (0, 1)})
    return rows


@every_loss
@pytest.mark.parametrize("how", ["left as they are", "changed"])
def test_a_repeated_factor_has_the_cotangent_of_one_product_after_another(
    loss: Callable[..., Any],
    name: str,
    value: Array,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, values = trace_at(loss, name, value)
    rows = change_products(program, values) if how == "changed" else [{}]
    assert find_repeated_factors(program)
    summed = list[int]()

    def count(products: Any) -> Array:
        summed.append(len(products))
        return sum_products(products)

    monkeypatch.setattr(backward_pass, "sum_products", count)
    found = sweep_back(program, values, rows)
    assert max(summed) >= (STEPS if how != "changed" else 1)
    monkeypatch.setattr(backward_pass, "find_repeated_factors", lambda program: frozenset())
    expected = sweep_back(program, values, rows)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape
            size = np.max(np.abs(other), axis=tuple(range(1, other.ndim)), keepdims=True)
            assert (np.abs(one - other) <= 1e-13 * size).all()


def test_an_infinite_factor_is_left_out_of_a_row_that_replaces_it() -> None:
    """A zero in the sum of all products would be NaN times an infinity."""

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(p["W"] @ given[0] + p["W"] @ given[1])

    given = np.array([[np.inf, 1.0, 1.0], [1.0, 2.0, 3.0]])
    program, values = trace_at(loss, "W", W)
    first = next(k for k, each in enumerate(program.operations) if each.name == "dot_general")
    instead = Change(0, instead=((1, np.ones((1, 3))),))
    found = backward(program, values, [{(first, 0): instead}, {}])["W"]
    np.testing.assert_array_equal(found[0], np.broadcast_to(given[1] + 1.0, (3, 3)))
    assert np.isinf(found[1][:, 0]).all()


def test_a_factor_of_another_shape_makes_no_sense() -> None:
    program, values = trace_at(on_the_left, "W", W)
    first = next(k for k, each in enumerate(program.operations) if each.name == "dot_general")
    for shape in ((1, 7), (1, 1)):
        instead = {(first, 0): Change(0, instead=((1, np.ones(shape)),))}
        with pytest.raises(ValueError, match="reshape"):
            backward(program, values, [instead, {}])


def test_a_gradient_keeps_the_cotangents_that_a_change_reads() -> None:
    """Others are dropped once they have been passed back; ∂L/∂h_T is read at the last product."""
    program, values = trace_at(on_the_left, "W", W)
    numbers = [k for k, each in enumerate(program.operations) if each.name == "dot_general"]
    last = program.operations[max(k for k, e in enumerate(program.operations) if e.name == "tanh")]
    change = {(numbers[0], 0): Change(0, arriving_at=last.outputs[0])}
    found = backward(program, values, [change])["W"]
    whole = sweep_back(program, values, [change])
    assert whole[last.outputs[0]] is not None
    np.testing.assert_array_equal(found, whole[program.leaves["W"]])
    kept = sweep_back(program, values, [{}], kept=frozenset(program.leaves.values()))
    assert [slot for slot, ct in enumerate(kept) if ct is not None] == [*program.leaves.values()]


def test_a_number_alone_scales_what_is_passed_back() -> None:
    assert is_scale(Change(0, after=0.5))
    for change in (
        Change(0), Change(0, after=1j), Change(0, after=np.ones(2)), Change(0, 2.0, 0.5),
        Change(0, after=0.5, slope=1.0), Change(0, after=0.5, arriving=1.0),
        Change(0, after=0.5, arriving_at=3), Change(0, after=0.5, through=lambda cts: cts[0]),
        Change(0, after=0.5, also=(1,)), Change(0, after=0.5, send=((1, 1.0),)),
        Change(0, after=0.5, instead=((1, np.ones(2)),)),
    ):  # fmt: skip
        assert not is_scale(change)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("loss", [on_the_left, on_the_right])
def test_each_row_has_a_factor_of_its_own(loss: Any, rows: int) -> None:
    """As samples of rounding errors have; what is passed back is that of each row alone."""
    program, values = trace_at(loss, "W", W)
    factor = program.leaves["W"]
    products = list[Product]()
    for each in program.operations:
        if each.name == "dot_general":
            given = [rng.normal(size=(rows, *values[slot].shape[1:])) for slot in each.inputs]
            arriving = rng.normal(size=(rows, *each.shapes[0]))
            products.append(Product(each, given, each.inputs.index(factor), arriving))
    assert len(products) == STEPS
    found = sum_products(products)
    for row in range(rows):
        alone = [
            each._replace(given=[v[[row]] for v in each.given], arriving=each.arriving[[row]])
            for each in products
        ]
        np.testing.assert_allclose(found[[row]], sum_products(alone), rtol=1e-12)
