"""The branches of a loss: what they are called, and which are taken at a point."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax

from bptt_verifier.program.branches import (
    find_taken,
    is_comparison,
    is_guard,
    list_branches,
    rounds_off,
)
from bptt_verifier.program.numpy_code import over_jax
from bptt_verifier.program.paths import Paths
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace

CONDITION = ["the condition is false", "the condition is true"]
LARGER = ["the first operand is larger", "the second operand is larger"]


def find(function: Callable[[Any, Any, Any], Any], a: Any, b: Any = 0.5) -> tuple[Any, Any]:
    """The branches of a function of two arrays, and those that are taken at a and b."""
    params = {"a": np.array(a, float), "b": np.array(b, float)}
    with use_float64():
        program = trace(lambda p, xp: xp.sum(function(p["a"], p["b"], xp)), params)
        taken = find_taken(program, forward(program, params))
    return list_branches(program), taken


def name(function: Callable[[Any, Any, Any], Any], a: Any, b: Any = 0.5) -> tuple[Any, Any]:
    """The names of these branches."""
    every, taken = find(function, a, b)
    return [each.side for each in every], {each.side for each in taken}


@pytest.mark.parametrize(
    ("a", "taken"),
    [([1.0, 2.0], CONDITION[1:]), ([-1.0, -2.0], CONDITION[:1]), ([1.0, -1.0], CONDITION)],
)
def test_a_condition_has_two_sides(a: Any, taken: list[str]) -> None:
    assert name(lambda a, b, xp: xp.where(a > 0, a, b), a) == (CONDITION, {*taken})


@pytest.mark.parametrize("a", [0.25, 0.5, 0.75])
def test_a_bound_has_the_values_on_both_of_its_sides(a: float) -> None:
    sides = ["values above 0.5", "values below 0.5"]
    taken = {side for side, on in zip(sides, (a > 0.5, a < 0.5), strict=True) if on}
    for function in (
        lambda a, b, xp: xp.maximum(a, 0.5),
        lambda a, b, xp: xp.maximum(0.5, a),
        lambda a, b, xp: xp.minimum(0.5, a),
    ):
        assert name(function, [a, 0.5]) == (sides, taken)


def test_a_clip_has_the_sides_of_both_bounds() -> None:
    sides, taken = name(lambda a, b, xp: xp.clip(a, -1.0, 2.0), [-1.5, 0.0])
    assert {*sides} == {f"values {way} {at}" for way in ("above", "below") for at in (-1, 2)}
    assert taken == {"values above -1", "values below -1", "values below 2"}


@pytest.mark.parametrize("bound", [0.9999999, 1 - 1e-12, 1e-7, 123456789.0])
def test_a_bound_has_the_digits_that_tell_it(bound: float) -> None:
    sides, _ = name(lambda a, b, xp: xp.minimum(a, bound), [0.5])
    assert {float(side.rsplit(" ", 1)[1]) for side in sides} == {bound}
    assert all(len(side) < 34 for side in sides)


@pytest.mark.parametrize(("a", "larger"), [(1.0, 0), (0.25, 1)])
def test_the_larger_of_two_operands_is_taken(a: float, larger: int) -> None:
    found = name(lambda a, b, xp: xp.maximum(a, b), a)
    assert found == (LARGER, {LARGER[larger]})


@pytest.mark.parametrize(
    ("bound", "sides"),
    [
        (-np.inf, []),
        (1e30, []),  # it stands for infinity
        (-1e38, []),
        (9e29, ["values above 9e+29", "values below 9e+29"]),
        ([-1e30, 0.0], ["values above the constant", "values below the constant"]),
        ([0.0, 0.0], ["values above 0", "values below 0"]),
    ],
)
def test_a_bound_is_named_by_its_value_unless_it_stands_for_infinity(
    bound: Any, sides: list[str]
) -> None:
    constant = np.array(bound)
    assert name(lambda a, b, xp: xp.maximum(a, constant), [1.0, 2.0])[0] == sides


def test_a_choice_that_no_parameter_changes_or_that_is_not_the_users_is_none() -> None:
    mask = np.array([True, False])
    for function in (
        lambda a, b, xp: xp.where(mask, a, b),
        lambda a, b, xp: xp.sinc(a),
        lambda a, b, xp: a * b,
    ):
        assert name(function, [1.0, 2.0]) == ([], set())


@pytest.mark.parametrize(("a", "taken"), [(-1.0, 0), (0.5, 1), (7.0, 2)])
def test_the_branches_of_a_switch_are_numbered(a: float, taken: int) -> None:
    def switch(a: Any, b: Any, xp: Any) -> Any:
        place = xp.where(a > 0, 1, 0) + xp.where(a > 1, 1, 0)
        return lax.switch(place, [lambda x: x, lambda x: 2 * x, lambda x: 3 * x], b)

    every, found = find(switch, a)
    chosen = [each for each in every if each.side.startswith("branch")]
    assert [each.side for each in chosen] == ["branch 0", "branch 1", "branch 2"]
    assert found & {*chosen} == {chosen[taken]}
    assert chosen[0].expression.startswith("lax.switch(place,")


@pytest.mark.parametrize(("a", "taken"), [(-1.0, 0), (1.0, 1)])
def test_a_conditional_has_two_sides(a: float, taken: int) -> None:
    found = name(lambda a, b, xp: lax.cond(a > 0, lambda x: x, lambda x: 2 * x, b), a)
    assert found == (CONDITION, {CONDITION[taken]})


def test_an_expression_in_a_loop_is_one_branch_with_its_place() -> None:
    def loop(a: Any, b: Any, xp: Any) -> Any:
        for _ in range(3):
            b = b + xp.maximum(a, 0.0)
        return b

    every, taken = find(loop, 1.0)
    assert len(every) == 2
    assert {str(each) for each in taken} == {str(every[0])}
    assert str(every[0]).startswith("`xp.maximum(a, 0.0)` (")
    assert "test_branches.py:" in str(every[0])
    assert str(every[0]).endswith("): values above 0")


def softplus(a: Any, xp: Any) -> Any:
    return xp.where(2 * a > 40, a, xp.log1p(xp.exp(a)))


def log_cosh(a: Any, xp: Any) -> Any:
    return xp.where(abs(a) > 12, abs(a) - np.log(2), xp.log(xp.cosh(a)))


def sigmoid(a: Any, xp: Any) -> Any:
    return xp.where(a > 20, 1.0, 1 / (1 + xp.exp(-a)))


def root(a: Any, xp: Any) -> Any:
    return xp.where(a > 1e4, a, xp.sqrt(1 + a * a))


def from_10(a: Any, xp: Any) -> Any:
    return xp.where(a > 10, a, xp.log1p(xp.exp(a)))


def in_three(a: Any, xp: Any) -> Any:
    number = xp.where(a > 20, 2, xp.where(a > 10, 1, 0))
    return lax.select_n(number, xp.exp(a), xp.log1p(xp.exp(a)), a)


def turned(a: Any, xp: Any) -> Any:
    return xp.where(a <= 20, xp.log1p(xp.exp(a)), a)


@pytest.mark.parametrize(
    ("function", "between", "outside"),
    [
        (softplus, [20.5, 25.0, 31.0], [0.5, 18.0, 32.5, 40.0, -30.0]),
        (turned, [20.5, 31.0], [18.0, 40.0]),
        (from_10, [15.5, 31.0], [14.9, 31.48]),  # e^-a / a at both limits
        (in_three, [21.0], [1.0, 15.5, 40.0]),
        (log_cosh, [12.5, -14.0], [11.0, 18.0, -18.0]),
        (sigmoid, [20.5, 30.0], [19.0, 36.0]),
        (root, [2e4], [9e3, 1e9]),
        (lambda a, xp: xp.where(a > 20, a, xp.exp(a)), [], [21.0]),
        (lambda a, xp: xp.where(a > 20, a, a * (1 + 1e-10)), [], [21.0]),  # no other formula
        (lambda a, xp: xp.where(a > 20, xp.log(xp.exp(a) + 1), xp.log1p(xp.exp(a))), [], [21.0]),
        (lambda a, xp: jax.nn.softplus(a), [], [21.0]),
        (lambda a, xp: xp.where(a > 20, a, 1 + xp.log1p(xp.exp(a)) - 1.0), [21.0], []),
        (lambda a, xp: xp.where(a > 20, a, xp.where(a > 1, xp.log1p(xp.exp(a)), 0)), [21.0], []),
    ],
)
def test_a_branch_stands_for_a_formula_that_differs_slightly(
    function: Callable[[Any, Any], Any], between: list[float], outside: list[float]
) -> None:
    for a, found in [*((a, True) for a in between), *((a, False) for a in outside)]:
        params = {"a": np.array([1.0, a]), "b": np.array([1.0, 2.0])}
        with use_float64():
            program = trace(lambda p, xp: xp.sum(function(p["a"], xp) * p["b"]), params)
            assert rounds_off(program, forward(program, params)) is found, a


def test_no_branch_between_functions_of_two_variables_stands_for_another() -> None:
    params = {"a": np.array([1.0, 21.0]), "b": np.array([1.0, 21.0])}
    with use_float64():
        for other, found in (("b", False), ("a", True)):

            def loss(p: Any, xp: Any, other: str = other) -> Any:
                return xp.sum(xp.where(p["a"] > 20, p["a"], xp.log1p(xp.exp(p[other]))))

            program = trace(loss, params)
            assert rounds_off(program, forward(program, params)) is found


# Comparisons that decide which path a loss takes.


def halve_beyond(a: Any, b: Any) -> Any:
    assert b[0] < 9
    if b[0] > 7:
        raise ValueError("too large")
    if b[0] < -7:
        raise ValueError("too small")
    if a[0] > 1:
        return a / 2
    return max(a[0], b[0]) * a


@pytest.mark.parametrize(("a", "side"), [(2.0, "true"), (0.5, "false")])
def test_a_comparison_that_decides_the_path_has_two_sides_of_which_a_path_takes_one(
    a: float, side: str
) -> None:
    params = {"a": np.array([a]), "b": np.array([0.5])}
    with use_float64():
        loss = partial(over_jax, lambda p: np.sum(halve_beyond(p["a"], p["b"])))
        program = Paths(loss).retrace(params)
        taken = find_taken(program, forward(program, params))
    assert [(each.expression, each.side) for each in list_branches(program)] == [
        ("a[0] > 1", each) for each in CONDITION
    ]
    assert {(each.expression, each.side) for each in taken} == {
        ("a[0] > 1", f"the condition is {side}")
    }


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("a > 1", True), ("f(a) <= b[0]", True), ("0 < a < 1", False), ("max(a, b)", False),
     ("not a > 1", False), ("f(a) > (", False)],
)  # fmt: skip
def test_a_comparison_has_two_operands_and_nothing_else(expression: str, expected: bool) -> None:
    assert is_comparison(expression) is expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["    assert a > 1, 'no'\n", "    return a\n"], True),
        (["    if a > 1:\n", "        raise ValueError\n"], True),
        (["    if a > 1: raise ValueError\n", "    return a\n"], True),
        (["    if a > 1: return a\n", "    raise ValueError\n"], False),
        (["    if a > 1:\n", "        return a\n"], False),
        (["    return a if a > 1 else 0\n"], False),
        ([], False),
    ],
)
def test_an_assertion_or_what_stands_before_raise_guards_a_loss(
    lines: list[str], expected: bool
) -> None:
    place: Any = SimpleNamespace(lines=lines, line=1)
    assert is_guard(place) is expected
