"""The backward pass of a small program: with changes, with errors, and with complex numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from jax import lax

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, backward, own, sweep_back
from bptt_verifier.program.operations import find_block
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.rounding import RoundingErrors
from bptt_verifier.program.trace import Program, forward, trace

W, x = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]]), np.array([2.0, -1.0, 4.0])
c, other, f = np.array([0.5, -3.0]), np.array([7.0, 2.0]), np.array([3.0, 0.25])
a = np.array([0.5, -2.0])
z = (1 + 2j) * a


class Traced(NamedTuple):
    """A program with its values at a point."""

    program: Program
    values: list[Any]

    def number(self, name: str) -> int:
        """The number of the last operation of this name."""
        operations = self.program.operations
        return max(k for k, each in enumerate(operations) if each.name == name)

    def change(self, name: str, *changes: Change) -> dict[str, Array]:
        """The gradients with each of these changes of one operation, and at last without any."""
        number = self.number(name)
        rows = [{(number, change.operand): change} for change in changes]
        return backward(self.program, self.values, [*rows, {}])


def traced(loss: Callable[..., Any], **params: Array) -> Traced:
    with use_float64():
        program = trace(loss, params)
        return Traced(program, list(forward(program, params)))


@pytest.fixture(scope="module")
def linear() -> Traced:
    """L = c · W x, with ∂L/∂W = c xᵀ and ∂L/∂x = Wᵀ c."""
    return traced(lambda p, xp: xp.sum(c * (p["W"] @ p["x"])), W=W, x=x)


@pytest.fixture(scope="module")
def squared() -> Traced:
    """L = Σ Re z² with z = (1 + 2i) a."""
    return traced(lambda p, xp: xp.sum(xp.real((p["a"] * (1 + 2j)) ** 2 * 1.0)), a=a)


def test_a_change_alters_one_factor_of_what_an_operation_passes_back(linear: Traced) -> None:
    after, instead = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 3.0])
    found = linear.change(
        "dot_general",
        Change(0, before=f),
        Change(0, after=after),
        Change(0, instead=((1, instead[None]),)),
        Change(0, instead=((1, 2 * instead[None]),)),
        Change(0, arriving=other),
        Change(0, arriving=c, before=f, after=after, instead=((1, instead[None]),)),
        Change(0, through=lambda arriving: np.multiply.outer(arriving[0][0], instead)),
        Change(0, through=lambda arriving: np.multiply.outer(2 * arriving[0][0], instead)),
        Change(1, after=0.0),
    )
    expected = [
        np.outer(f * c, x), after * np.outer(c, x), np.outer(c, instead),
        np.outer(c, 2 * instead), np.outer(other, x), after * np.outer(f * c, instead),
        np.outer(c, instead), np.outer(2 * c, instead), np.outer(c, x), np.outer(c, x),
    ]  # fmt: skip
    np.testing.assert_allclose(found["W"], expected)
    # The other operand has its own cotangent in every row.
    np.testing.assert_allclose(found["x"], [*[W.T @ c] * 8, 0 * x, W.T @ c])
    assert {value.dtype for value in found.values()} == {np.dtype(float)}


def test_a_slope_takes_the_place_of_an_operations_own() -> None:
    tanh = traced(lambda p, xp: xp.sum(c * xp.tanh(p["a"])), a=a)
    found = tanh.change("tanh", Change(0, slope=f), Change(0, slope=2.0))
    np.testing.assert_allclose(found["a"], [c * f, 2 * c, c * (1 - np.tanh(a) ** 2)])


def test_only_the_real_part_of_a_change_reaches_a_real_operand(linear: Traced) -> None:
    found = linear.change("dot_general", Change(0, after=0.5 + 2j))
    np.testing.assert_allclose(found["W"], [0.5 * np.outer(c, x), np.outer(c, x)])


def test_what_a_sum_passes_back_can_be_changed_in_one_row() -> None:
    total = traced(lambda p, xp: xp.sum(p["a"]), a=a)
    assert total.change("reduce_sum", Change(0, after=f))["a"].tolist() == [f.tolist(), [1.0, 1.0]]


def test_no_change_gives_a_condition_a_derivative() -> None:
    chosen = traced(lambda p, xp: xp.sum(xp.where(p["a"] > 0, 3.0 * p["a"], p["a"])), a=a)
    found = chosen.change("select_n", Change(0, after=2.0), Change(1, after=2.0))
    np.testing.assert_array_equal(found["a"], [[3.0, 1.0], [3.0, 2.0], [3.0, 1.0]])


def test_a_cotangent_is_added_to_other_slots_of_its_shape_alone(linear: Traced) -> None:
    slots = linear.program.leaves
    found = linear.change(
        "dot_general",
        Change(0, also=(slots["W"], slots["x"])),
        Change(1, also=(slots["W"],)),  # of another shape
        Change(0, after=0.0, send=((slots["x"], 2.0),)),  # of the shape of W x
    )
    np.testing.assert_allclose(found["W"], np.outer(c, x) * np.array([2, 1, 0, 1])[:, None, None])
    np.testing.assert_allclose(found["x"], [W.T @ c] * 4)


def test_what_arrives_is_sent_to_other_slots_times_a_factor() -> None:
    tanh = traced(lambda p, xp: xp.sum(c * xp.tanh(p["a"])), a=a)
    slot = tanh.program.leaves["a"]
    found = tanh.change(
        "tanh", Change(0, send=((slot, f),)), Change(0, after=0.0, send=((slot, 2 + 1j),))
    )
    slope = 1 - np.tanh(a) ** 2
    np.testing.assert_allclose(found["a"], [c * slope + c * f, 2 * c, c * slope])
    assert found["a"].dtype == float


def test_complex_cotangents_keep_both_parts_through_changes(squared: Traced) -> None:
    number = squared.number("integer_pow")
    (slot,) = squared.program.operations[number].inputs
    found = squared.change(
        "integer_pow",
        Change(0, after=1j),
        Change(0, before=1j),
        Change(0, also=(slot,)),
        Change(0, after=0.0, send=((slot, 1j),)),
    )
    factors = [2j * z, 2j * z, 4 * z, 1j * np.ones(2), 2 * z]  # ∂L/∂z, as JAX has it
    np.testing.assert_allclose(found["a"], [((1 + 2j) * each).real for each in factors])
    assert found["a"].dtype == float


def test_a_sum_of_cotangents_has_the_precision_of_its_finest_term() -> None:
    def loss(p: Any, xp: Any) -> Any:
        single = p["a"].astype(xp.float32)
        fine = xp.sum(single.astype(xp.float64) / 3)
        # JAX differentiates these in float32.
        return fine + sum(xp.sum(lax.cumsum(single)).astype(xp.float64) for _ in range(2))

    mixed = traced(loss, a=a)
    last = float(backward(mixed.program, mixed.values)["a"][0, 1])
    assert abs(last - (2 + 1 / 3)) < 1e-15


def test_a_cotangent_that_has_been_passed_on_stays_as_it_is() -> None:
    def loss(p: Any, xp: Any) -> Any:
        single = p["a"].astype(xp.float32)
        return xp.sum(single * single)

    rounded = traced(loss, a=a)
    (own,) = rounded.program.operations[0].outputs
    found = rounded.change("convert_element_type", Change(0, also=(own,)))
    np.testing.assert_array_equal(found["a"], [2 * a, 2 * a])


def test_an_operation_that_the_loss_does_not_need_passes_nothing_back() -> None:
    def loss(p: Any, xp: Any) -> Any:
        xp.split(p["a"], 2)
        return xp.sum(p["a"] ** 2)

    unused = traced(loss, a=a)
    assert "split" in {each.name for each in unused.program.operations}
    np.testing.assert_array_equal(backward(unused.program, unused.values)["a"], [2 * a])


def round_in_units(size: float) -> RoundingErrors:
    sizes = np.full(4, size)
    return RoundingErrors(sizes, sizes, np.arange(4), np.random.default_rng(0))


def test_a_sum_of_cotangents_rounds() -> None:
    doubled = traced(lambda p, xp: xp.sum(p["a"] + p["a"]), a=a)
    found = backward(doubled.program, doubled.values, errors=round_in_units(2.0**-20))["a"]
    assert found.shape == (4, 2)
    assert (np.abs(found - 2) <= 2.0**-19).all()
    assert (found != 2).all()


def spread(found: Array, exact: Any, size: float) -> float:
    """The root mean square of the errors of gradients, in units of a uniform error's."""
    return float(np.sqrt(3 * np.mean((found - exact) ** 2)) / size)


def test_a_sum_of_many_cotangents_has_the_errors_of_all_its_partial_sums() -> None:
    """(N1): the errors of 2, 3, …, 9 terms of one size are independent, so that their squares add.

    The root mean square of 4 · 500 errors is within 10 % of their standard deviation, which is
    more than four times as far as it is by chance.
    """
    size, a = 2.0**-20, np.ones(500)

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(sum((p["a"] for _ in range(8)), p["a"]))

    many = traced(loss, a=a)
    found = backward(many.program, many.values, errors=round_in_units(size))["a"]
    expected = np.sqrt(sum(n**2 for n in range(2, 10)))
    assert abs(spread(found, 9.0, size) / expected - 1) < 0.1


@pytest.mark.parametrize("laid_out", ["as it is", "transposed", "reshaped", "sliced"])
def test_products_round_alike_whatever_moves_their_factor(laid_out: str) -> None:
    """(N1): a cotangent that sums n products rounds by √n of their sizes, and each partial sum."""
    rng, size = np.random.default_rng(0), 2.0**-20
    xs, given = rng.normal(size=(3, 2, 20)), rng.normal(size=(20, 30))
    parameter = {"transposed": given.T, "reshaped": given.reshape(30, 20)}.get(laid_out, given)

    def loss(p: Any, xp: Any) -> Any:
        moved: Any = {
            "as it is": lambda W: W,
            "transposed": lambda W: W.T,
            "reshaped": lambda W: W.reshape(20, 30),
            "sliced": lambda W: W[:20],
        }[laid_out]
        return sum(xp.sum(x_t @ moved(p["W"])) for x_t in xs)

    model = traced(loss, W=parameter)
    found = backward(model.program, model.values, errors=round_in_units(size))["W"]
    found = found.swapaxes(1, 2) if laid_out == "transposed" else found.reshape(4, 20, 30)
    terms, sums = xs.sum(axis=1), np.cumsum(xs.sum(axis=1)[::-1], axis=0)[1:]
    squares = (2 * np.abs(xs).sum(axis=1) ** 2).sum(axis=0) + (sums**2).sum(axis=0)
    exact = np.broadcast_to(terms.sum(axis=0)[:, None], (20, 30))
    assert abs(spread(found, exact, size) / np.sqrt(np.mean(squares)) - 1) < 0.15


def test_an_infinite_cotangent_has_no_error_and_leaves_those_of_others() -> None:
    found = backward(
        *traced(lambda p, xp: xp.sum(p["a"] * np.array([np.inf, 1.0]) + p["a"]), a=a),
        errors=round_in_units(2.0**-20),
    )["a"]
    assert np.isposinf(found[:, 0]).all()
    assert (found[:, 1] != 2).all()


def test_what_a_sweep_writes_into_is_not_what_arrives() -> None:
    """A change of one operand leaves the other's cotangent, and that of the result, as they are."""
    transposed = traced(lambda p, xp: xp.sum(c * (p["W"].T.T @ p["x"])), W=W, x=x)
    number = transposed.number("transpose")
    change = {(number, 0): Change(0, after=5.0)}
    cotangents = sweep_back(transposed.program, transposed.values, [change])
    (result,) = transposed.program.operations[number].outputs
    np.testing.assert_array_equal(cotangents[result][0], np.outer(c, x))
    np.testing.assert_array_equal(cotangents[transposed.program.leaves["W"]][0], 5 * np.outer(c, x))


def test_a_cotangent_that_a_product_reads_has_its_errors_there() -> None:
    """Of 2 a + 3 a through x², where 5 a is read: the sum rounds before the slope multiplies it."""
    size, a = 2.0**-20, np.full(500, 0.5)

    def loss(p: Any, xp: Any) -> Any:
        b = xp.sin(p["a"])
        return xp.sum(b + b + b)

    model = traced(loss, a=a)
    found = backward(model.program, model.values, errors=round_in_units(size))["a"]
    # Sums of 2 and 3 ones, and the error of 2 units in the product with the slope.
    expected = np.cos(0.5) * np.sqrt(2**2 + 3**2 + (2 * 3) ** 2)
    assert abs(spread(found, 3 * np.cos(0.5), size) / expected - 1) < 0.1


def test_one_product_has_one_error_and_those_of_several_steps_have_them_together() -> None:
    """One error never exceeds its size; of errors drawn together (N7), 9 % exceed the sum's."""
    size, x_1 = 2.0**-20, np.ones((1, 30))
    for steps in (1, 2):
        model = traced(
            lambda p, xp, n=steps: sum(xp.sum(x_1 @ p["W"]) for _ in range(n)),
            W=np.ones((30, 30)),
        )
        found = backward(model.program, model.values, errors=round_in_units(size))["W"]
        magnitude = (steps + 4 * (steps - 1)) ** 0.5
        beyond = np.mean(np.abs(found - steps) > magnitude * size)
        assert (beyond > 0.05) == (steps > 1)
        assert (beyond == 0) == (steps == 1)


def test_an_array_is_copied_before_it_is_written_into_unless_nothing_else_refers_to_it() -> None:
    ct, fixed, other = np.ones((2, 3)), np.ones((2, 3)), np.zeros((2, 3))
    fixed.flags.writeable = False
    assert own(ct, float, [None, other]) is ct
    for given, dtype, arriving in [
        (ct.T, float, [ct]), (ct.T, float, [None, ct, other]),
        (ct, complex, [other]), (fixed, float, [other]),
    ]:  # fmt: skip
        copied = own(given, dtype, arriving)
        assert not np.may_share_memory(copied, given)
        assert copied.dtype == dtype
        np.testing.assert_array_equal(copied, given)


def test_the_slope_of_a_saturated_unit_rounds_in_units_of_the_largest_slope() -> None:
    """(N1): 16 max |z′| |∂L/∂z| u, beside errors relative to a slope of e⁻⁴⁰"""
    size, ct = 2.0**-20, np.full(64, 8.0)
    unit = traced(lambda p, xp: xp.sum(ct * (1 / (1 + xp.exp(-p["a"])))), a=np.full(64, 25.0))
    found = backward(unit.program, unit.values, errors=round_in_units(size))["a"]
    largest = np.abs(found).max() / (size * 16 * 0.25 * 8)
    assert 0.9 < largest < 1.1


def test_a_slot_without_a_cotangent_has_none_and_a_leaf_zeros() -> None:
    flat = traced(lambda p, xp: xp.sum(p["a"]), a=a, b=np.ones(3))
    cotangents = sweep_back(flat.program, flat.values)
    assert cotangents[flat.program.leaves["b"]].tolist() == [[0.0, 0.0, 0.0]]


def test_what_arrives_at_another_slot_of_the_same_sweep_can_be_passed_back() -> None:
    """With h = tanh(W x), the product gets ∂L/∂h for ∂L/∂a, also where ∂L/∂h is altered."""
    model = traced(lambda p, xp: xp.sum(c * xp.tanh(p["W"] @ p["x"])), W=W, x=x)
    names = [each.name for each in model.program.operations]
    product, tanh = names.index("dot_general"), names.index("tanh")
    factor = names.index("mul", tanh)
    (result,) = model.program.operations[tanh].outputs
    operand = [*model.program.operations[factor].inputs].index(result)
    without = {(product, 0): Change(0, before=-1.0, arriving_at=result)}
    altered = {(factor, operand): Change(operand, after=3.0)}
    found = backward(model.program, model.values, [without, without | altered])["W"]
    np.testing.assert_allclose(found, [-np.outer(c, x), -3 * np.outer(c, x)])


NUMBERS = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("taken", "ends"),
    [
        (NUMBERS, ((0, 2), (0, 3), (0, 4))),
        (NUMBERS[:, 1:, 2:], ((0, 2), (1, 3), (2, 4))),
        (NUMBERS[1, 2, :1], ((1, 2), (2, 3), (0, 1))),
    ],
    ids=["all", "slice", "entry"],
)
def test_a_block_is_found_where_entries_are_taken_in_order(taken: Any, ends: Any) -> None:
    expected = (slice(None), *(slice(*each) for each in ends))
    assert find_block(taken.ravel(), NUMBERS.shape) == expected


@pytest.mark.parametrize(
    "taken",
    [NUMBERS[:, ::2], NUMBERS[::-1], NUMBERS.transpose(1, 0, 2), NUMBERS[[0, 0, 1]], NUMBERS[:0]],
    ids=["strides", "reversed", "transposed", "copies", "none"],
)
def test_no_block_is_found_where_entries_are_left_out_or_in_another_order(taken: Any) -> None:
    assert find_block(taken.ravel(), NUMBERS.shape) is None


def test_a_number_is_a_block_and_its_copies_are_none() -> None:
    assert find_block(np.zeros(1, int), ()) == (slice(None),)
    assert find_block(np.zeros(3, int), ()) is None
