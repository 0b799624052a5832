"""Differences that confirm derivatives, and numbers in the place of those that are lost."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.program.precision import use_float64
from bptt_verifier.reference.lost_numbers import (
    LARGEST,
    LEAST,
    add,
    is_lost,
    list_scales,
    list_unconfirmed,
    list_unconfirmed_products,
    list_unconfirmed_tangents,
    move,
    norm,
    restore_result,
    turn,
)

Outputs = dict[str, Any]


def at_every(function: Callable[[Any], Outputs]) -> Callable[[Any], Outputs]:
    """Compute the outputs at points by name, stacked."""

    def compute(points: Any) -> Outputs:
        found = [function(point) for point in points]
        return {name: np.stack([each[name] for each in found]) for name in found[0]}

    return compute


@at_every
def square(point: Any) -> Outputs:
    """Outputs of which central differences are exact, and one on which nothing depends."""
    return {"y": point["x"] ** 2 / 4, "z": 3 * point["x"], "none": np.zeros(1)}


POINTS = [{"x": np.array([each])} for each in (4.0, 2.0, 1.0)]
COTANGENTS = [{"y": np.array([2.0]), "z": np.array([-3.0]), "none": np.ones(1)}] * 3


def pull_back(errors: Any) -> Any:
    """The gradients of 2 x²/4 − 9 x, x − 9, with relative errors."""
    return {"x": np.stack([(p["x"] - 9) * (1 + e) for p, e in zip(POINTS, errors, strict=True)])}


# An error of e is seen if e > 2⁻¹⁰ (1 + e) + 2⁻⁴⁰ |outputs| / (2⁻²⁰ |g x|): the last term is
# 1e-6 here.
@pytest.mark.parametrize("sign", [1, -1])
def test_differences_confirm_gradients_to_a_part_of_a_thousand(sign: int) -> None:
    near, far = sign * 0.97 * 2.0**-10, sign * 1.03 * 2.0**-10
    for errors, found in (
        ((0, 0, 0), []), ((near, near, near), []), ((0, far, 0), [1]), ((far, 0, far), [0, 2]),
    ):  # fmt: skip
        assert list_unconfirmed(square, POINTS, COTANGENTS, pull_back(errors)) == found


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_every_gradient_is_asked_for(factor: float) -> None:
    point = {"x": np.array([4.0]), "w": np.array([1.0])}
    both = at_every(lambda point: {"y": point["x"] + 2 * point["w"]})
    gradients = {"x": np.array([[1.0]]), "w": np.array([[2 * factor]])}
    found = list_unconfirmed(both, [point], [{"y": np.ones(1)}], gradients)
    assert found == ([] if factor == 1 else [0])


def test_the_outputs_at_all_points_are_asked_for_together() -> None:
    point = {"x": np.array([4.0]), "w": np.array([1.0]), "v": np.array([2.0])}
    asked = list[int]()

    def compute(points: Any) -> Outputs:
        asked.append(len(points))
        return {"y": np.stack([p["x"] + 2 * p["w"] - p["v"] for p in points])}

    gradients = {"x": np.ones((2, 1)), "w": np.full((2, 1), 2.0), "v": np.full((2, 1), -1.0)}
    assert list_unconfirmed(compute, [point] * 2, [{"y": np.ones(1)}] * 2, gradients) == []
    assert asked == [3 * 2 * 2]


# Rounding may change an output K by 2⁻⁴⁰ K, and the step from x is 2⁻²⁰ x: with K = 2²⁰ x, an error
# as large as the gradient is hidden, and no larger one; with two outputs one √2 times as large.
@pytest.mark.parametrize("size", [1.0, 2.0**12])
@pytest.mark.parametrize(("outputs", "hidden"), [(1, 1), (2, 2**0.5)])
def test_errors_that_rounding_of_the_outputs_hides_are_none(
    outputs: int, hidden: float, size: float
) -> None:
    level, names = 2.0**18 * size, "yz"[:outputs]
    near = at_every(lambda point: dict.fromkeys(names, level + point["x"] / (4 * outputs)))
    points, cotangents = [{"x": np.array([size])}], [{n: np.array([4.0]) for n in names}]
    for error, found in ((0.99, []), (1.01, [0])):
        gradient = {"x": np.array([[1 + hidden * error]])}
        assert list_unconfirmed(near, points, cotangents, gradient) == found


def test_a_derivative_of_zero_is_confirmed_where_the_outputs_are_zero() -> None:
    given = at_every(lambda _: {"y": np.zeros(1)}), [{"x": np.ones(1)}], [{"y": np.ones(1)}]
    assert list_unconfirmed(*given, {"x": np.zeros((1, 1))}) == []
    along = *given[:2], [{"x": np.ones(1)}]
    assert list_unconfirmed_tangents(*along, {"tangent of y": np.zeros((1, 1))}) == []
    assert list_unconfirmed_products(*along, {"R{x}": np.zeros((1, 1))}) == []


def test_entries_are_turned_by_signs_and_infinities_stay() -> None:
    turned = turn(np.array([2.0, -3.0, np.inf, np.nan, -np.inf]), np.random.default_rng(0))
    assert np.abs(turned).tolist() == [2, 3, 0, 0, 0]
    signs = turn(np.ones(64, np.float32), np.random.default_rng(0))
    assert set(signs.tolist()) == {1.0, -1.0}
    assert signs.dtype == np.float64


def test_errors_of_entries_do_not_cancel_for_their_signs_are_drawn() -> None:
    point, output = {"x": np.ones(64)}, at_every(lambda point: {"y": point["x"].sum(keepdims=True)})
    wrong = {"x": 1 + np.tile([0.5, -0.5], 32)[None]}
    assert list_unconfirmed(output, [point], [{"y": np.ones(1)}], wrong) == [0]


def test_a_step_changes_no_argument_by_more_than_a_part_of_its_size() -> None:
    x, v = {"a": np.array([3.0, 4.0]), "b": np.ones(4)}, {"a": np.array([0.0, 10.0])}
    zero = {"a": v["a"], "b": np.zeros(4)}
    slow, fast = {"a": v["a"], "b": np.full(4, 0.5)}, {"a": v["a"], "b": np.full(4, 8.0)}
    scales = list_scales(0.25, [x] * 5, [v, zero, slow, fast, {}])
    assert scales == [0.125, 0.125, 0.125, 0.03125, 0.0]


def test_steps_move_the_arrays_that_they_name() -> None:
    point: dict[str, Any] = {"a": np.float32([1.0]), "b": np.ones(2)}
    step = {"a": np.array([2.0**-40])}
    (upper,), (lower,) = (move([point], [step], way) for way in (1, -1))
    assert upper["a"] == 1 + 2.0**-40
    assert lower["a"] == 1 - 2.0**-40
    assert upper["b"] is lower["b"] is point["b"]


# The rounding of the outputs hides x²/4 · 2⁻⁴⁰ / (2⁻²⁰ x²/2) of a tangent here: 5e-7.
def test_differences_confirm_tangents_to_a_part_of_a_thousand() -> None:
    points = [{"x": np.array([2.0])}, {"x": np.array([-1.0])}]
    directions = [{"x": np.array([8.0])}, {"x": np.array([0.25])}]
    curved = at_every(lambda point: {"y": point["x"] ** 2 / 4, "z": -point["x"]})
    y, z = np.array([[8.0], [-0.125]]), np.array([[-8.0], [-0.25]])
    for error in (0.97 * 2.0**-10, 1.03 * 2.0**-10, -0.97 * 2.0**-10, -1.03 * 2.0**-10):
        for n in (0, 1):
            factor = np.ones((2, 1))
            factor[n] += error
            found = [n] if abs(error) > 2.0**-10 else []
            for tangents in ((y * factor, z), (y, z * factor)):
                named = dict(zip(("tangent of y", "tangent of z"), tangents, strict=True))
                assert list_unconfirmed_tangents(curved, points, directions, named) == found


def test_errors_of_tangents_that_rounding_hides_are_none() -> None:
    level = at_every(lambda point: {"y": 2.0**20 + point["x"]})
    given = level, [{"x": np.ones(1)}], [{"x": np.array([0.5])}]
    for error, found in ((0.99, []), (1.01, [0])):
        assert (
            list_unconfirmed_tangents(*given, {"tangent of y": np.array([[0.5 + 0.5 * error]])})
            == found
        )


# ½ x² + 2 w² + x w, whose second differences are exact: H v is (v + u, v + 4 u).
def bend(point: Any, level: float = 0.0) -> Outputs:
    x, w = point["x"], point["w"]
    return {"loss": level + (x**2 / 2 + 2 * w**2 + x * w).sum()}


CURVED = [{"x": np.array([1.0]), "w": np.array([1.0])}, {"x": np.array([2.0]), "w": np.ones(1)}]
ALONG = [{"x": np.array([2.0]), "w": np.array([1.0])}, {"x": np.array([4.0]), "w": -np.ones(1)}]
PRODUCTS = {"R{x}": np.array([[3.0], [3.0]]), "R{w}": np.array([[6.0], [0.0]])}


# The errors of both products add: with v · H v = 12 at each, |(v, u) * H v| is √72 and 12.
# Rounding of the losses hides less than a tenth of 2⁻¹⁰ here.
@pytest.mark.parametrize(("number", "size"), [(0, 72**0.5 / 12), (1, 1.0)])
def test_differences_confirm_products_of_the_hessian(number: int, size: float) -> None:
    given = at_every(bend), CURVED, ALONG
    assert list_unconfirmed_products(*given, PRODUCTS) == []
    for error in (0.9, 1.3, -0.9, -1.3):
        factor = np.ones((2, 1))
        factor[number] += error * 2.0**-10 * size
        wrong = {name: each * factor for name, each in PRODUCTS.items()}
        found = [number] if abs(error) > 1 else []
        assert list_unconfirmed_products(*given, wrong) == found


def test_errors_of_products_that_rounding_hides_are_none() -> None:
    # With a step of 2⁻¹⁴ along (2, 1), the second difference is 12 · 2⁻²⁸.
    level = 12 * 2.0**-28 * 2.0**40
    given = at_every(partial(bend, level=level)), CURVED[:1], ALONG[:1]
    for error, found in ((0.98, []), (1.02, [0])):
        wrong = {name: (1 + error) * each for name, each in PRODUCTS.items()}
        assert list_unconfirmed_products(*given, wrong) == found


def test_norms_and_sums_are_of_all_entries_together() -> None:
    arrays = np.array([[1.0, -2.0]]), np.array([4.0, 2.0])
    assert norm(*arrays) == 5
    assert norm(np.float32([3.0]), -np.float32([4.0])) == 5
    assert add(*arrays, 3) == 8
    assert norm(np.array([1.0, -np.inf])) == np.inf
    assert np.isnan(norm(np.array([1.0, np.nan])))
    assert norm() == norm(np.zeros(0)) == 0


def test_a_gradient_is_lost_from_a_part_of_its_size_that_replaced_numbers_change() -> None:
    gradient = np.array([8.0, 0.0])
    for part, lost in ((1.0, False), (1.01, True), (np.nan, True), (np.inf, True)):
        assert is_lost(gradient, gradient + np.array([0, 8 * part * 2.0**-60])) is lost
    assert not is_lost(np.zeros(2), np.zeros(2))
    assert is_lost(np.zeros(2), np.array([0, 1e-300]))
    assert is_lost(np.array([np.nan]), np.array([np.nan]))


def restore(primitive: Any, *given: Any, mark: int = 1, **params: Any) -> Any:
    """The result of an operation, and the restored one."""
    if primitive is not lax.dot_general_p:  # the others are compiled once for all sizes
        size, given = len(given[0]), tuple(np.resize(each, 5) for each in given)
        return [each[:size] for each in restore_all(primitive, *given, mark=mark, **params)]
    return restore_all(primitive, *given, mark=mark, **params)


def restore_all(primitive: Any, *given: Any, mark: int, **params: Any) -> Any:
    with use_float64():
        operands = [jnp.asarray(each) for each in given]
        result = primitive.bind(*operands, **params)
        equation = SimpleNamespace(primitive=primitive, params=params)
        (found,) = restore_result(equation, operands, [result], jnp.uint64(mark))
        return np.asarray(result), np.asarray(found)


def is_of(size: float, numbers: Any) -> bool:
    """Tell whether numbers lie between half a size and the whole of it."""
    return bool(((np.abs(numbers) >= size / 2) & (np.abs(numbers) <= size)).all())


TINY, HUGE, INF = 1e-200, 1e200, np.inf
DOT = {
    "dimension_numbers": (((0,), (0,)), ((), ())), "precision": None,
    "preferred_element_type": None, "out_sharding": None,
}  # fmt: skip


def test_a_product_beyond_the_range_is_a_number_within_it() -> None:
    x, y = np.array([TINY, HUGE, -HUGE, 2.0]), np.array([TINY, HUGE, HUGE, 3.0])
    _, found = restore(lax.mul_p, x, y)
    assert is_of(LEAST, found[0])
    assert is_of(LARGEST, found[1:3])
    assert (np.abs(found[1:3]) > 1e300).all()
    assert np.sign(found).tolist() == [1, 1, -1, 1]
    assert found[3] == 6


def test_a_product_that_the_range_holds_is_left() -> None:
    small = np.array([LEAST, 0.9 * LEAST])
    result, found = restore(lax.mul_p, small, np.ones(2))
    assert found[0] == LEAST
    assert is_of(LEAST, found[1] - result[1])  # which a library may take for zero


@pytest.mark.parametrize("other", [0.0, INF])
@pytest.mark.parametrize("first", [True, False])
def test_zeros_and_infinities_that_are_given_stay(other: float, first: bool) -> None:
    pair = np.array([other]), np.array([TINY])
    result, found = restore(lax.mul_p, *(pair if first else pair[::-1]))
    assert found == result
    result, found = restore(lax.cumprod_p, np.array([HUGE, other, 5.0]), axis=0, reverse=False)
    np.testing.assert_array_equal(found, result)


def test_the_numbers_of_other_operations_are_others() -> None:
    found = [restore(lax.mul_p, [TINY], [TINY], mark=mark)[1] for mark in (1, 2)]
    assert found[0] != found[1]


def test_numbers_of_narrower_formats_and_of_other_operations_stay() -> None:
    narrow = np.float32([1e-30])
    assert restore(lax.mul_p, narrow, narrow)[1] == 0
    result, found = restore(lax.max_p, [1e-305], [1e-306])
    assert found == result == 1e-305


def test_a_running_product_is_regular_up_to_the_first_zero() -> None:
    x = np.array([TINY, TINY, 1.0, 0.0, 1.0])
    _, found = restore(lax.cumprod_p, x, axis=0, reverse=False)
    assert found[0] == TINY
    assert is_of(LEAST, found[1:3])
    assert not found[3:].any()


def test_a_sum_of_products_has_lost_some_if_they_are_small() -> None:
    assert is_of(LEAST, restore(lax.dot_general_p, [TINY, 0.0], [0.0, TINY], **DOT)[1])
    assert restore(lax.dot_general_p, [1.0, -1.0], [1.0, 1.0], **DOT)[1] == 0  # which cancels
    assert restore(lax.dot_general_p, [0.0, 2, -2], [5.0, 1, 1], **DOT)[1] == 0  # and so does this
    assert is_of(LEAST, restore(lax.dot_general_p, [1e-300, -1e-300], [1e-10, 1e-10], **DOT)[1])
    assert restore(lax.dot_general_p, [LEAST, -LEAST], [1.0, 1.0], **DOT)[1] == 0
    assert is_of(LARGEST, restore(lax.dot_general_p, [HUGE, 1.0], [HUGE, 0.0], **DOT)[1])
    assert restore(lax.dot_general_p, [HUGE, INF], [HUGE, 1.0], **DOT)[1] == INF
    # A product that is lost beside one that is not changes nothing.
    assert restore(lax.dot_general_p, [TINY, 1.0], [TINY, 1.0], **DOT)[1] == 1


def test_a_sum_is_restored_where_it_overflows_alone() -> None:
    most = np.finfo(np.float64).max
    assert is_of(LARGEST, restore(lax.add_p, [-most], [-most])[1])
    assert restore(lax.add_p, [1e-305], [0.0])[1] == 1e-305
    assert restore(lax.add_p, [INF], [1.0])[1] == INF
