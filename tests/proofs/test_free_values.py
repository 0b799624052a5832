"""Numbers on which the values of tanh, exp, log and sqrt are free: what they know, and what not."""

from fractions import Fraction

import numpy as np
import pytest

from bptt_verifier.proofs.free_values import (
    LARGEST,
    FreeNumber,
    FreeValues,
    Tangent,
    draw_array,
    move_along,
    read_array,
)


@pytest.fixture
def values() -> FreeValues:
    return FreeValues(0)


def test_a_function_has_one_value_at_one_argument(values: FreeValues) -> None:
    a, b = values.draw_number(), values.draw_number()
    assert (a + b).tanh() == (b + a).tanh()
    assert a.tanh() != b.tanh()
    assert a.tanh() != a.exp()


def test_tanh_is_odd_and_exp_of_the_negative_is_the_reciprocal(values: FreeValues) -> None:
    a = values.draw_number()
    assert (-a).tanh() == -a.tanh()
    assert (-a).exp() * a.exp() == 1
    assert (a - a).tanh() == 0
    assert (a - a).exp() == 1


def test_no_other_relation_is_known(values: FreeValues) -> None:
    a = values.draw_number()
    assert (2 * a).exp() != a.exp() ** 2


def test_numpy_calls_the_functions_entry_by_entry(values: FreeValues) -> None:
    a = draw_array(values, (2, 3))
    assert np.tanh(a)[1, 2] == a[1, 2].tanh()
    assert (1 / (1 + np.exp(-a)))[0, 0] == 1 / (1 + 1 / a[0, 0].exp())


def test_a_number_meets_an_array_entry_by_entry(values: FreeValues) -> None:
    a, array = values.draw_number(), draw_array(values, (2,))
    moved = Tangent(a, a)
    for number in (a, moved):
        for found in (number * array, number + array, number - array, number / array):
            assert found.shape == (2,)
    assert (a / array)[1] == a / array[1]
    assert (moved / array)[1].slope == a / array[1]


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.int64, int, bool])
def test_numbers_of_other_kinds_are_read_without_rounding(values: FreeValues, kind) -> None:
    number = kind(5.1)
    expected = Fraction(number.item() if isinstance(number, np.generic) else number)
    a = values.draw_number()
    assert (a * number).value == a.value * expected
    assert (number - a).value == expected - a.value


def test_floats_are_multiplied_without_rounding(values: FreeValues) -> None:
    exact = read_array(values, np.array([0.1]))
    assert (exact * 0.1)[0].value == Fraction(0.1) ** 2


RULES = {
    "tanh": (lambda a: a.tanh(), lambda a: 1 - a.tanh() ** 2),
    "exp": (lambda a: a.exp(), lambda a: a.exp()),
    "log": (lambda a: a.log(), lambda a: 1 / a),
    "sqrt": (lambda a: a.sqrt(), lambda a: 1 / (2 * a.sqrt())),
    "quotient of a number": (lambda a: 5 / a - 2, lambda a: -5 / a**2),
    "quotient by a number": (lambda a: (3 - a) / 7, lambda a: 0 * a - Fraction(1, 7)),
    "power": (lambda a: a**3 * a, lambda a: 4 * a**3),
    "product": (lambda a: (-a).exp() * a, lambda a: (1 - a) / a.exp()),
    "quotient": (lambda a: a / (a + 1), lambda a: 1 / (a + 1) ** 2),
}


@pytest.mark.parametrize("name", RULES)
def test_derivatives_follow_the_rules(values: FreeValues, name: str) -> None:
    function, slope = RULES[name]
    a, along = values.draw_number(), values.draw_number()
    found = function(Tangent(a, along))
    assert found.value == function(a)
    assert found.slope == slope(a) * along


def test_a_constant_has_no_derivative(values: FreeValues) -> None:
    a, b = values.draw_number(), values.draw_number()
    moved = move_along({"w": draw_array(values, (1,))}, {"w": draw_array(values, (1,))})["w"][0]
    assert (b * moved).slope == b * moved.slope
    assert (moved - a + a).slope == moved.slope


def test_degrees_are_those_of_numerator_and_denominator(values: FreeValues) -> None:
    a, b = values.draw_number(), values.draw_number()
    ratio = a**2 / (b * a) + 1 / b
    assert (ratio.top, ratio.bottom) == (3, 3)
    assert (a.exp() / (1 + a.exp())).top == 1


def test_powers_are_exact_and_have_the_degrees_of_products(values: FreeValues) -> None:
    a = values.draw_number() * values.draw_number() + 1
    assert a**2.0 == a * a
    assert a**0.5 == a.sqrt()
    inverse = (a * a).reciprocal()
    assert a**-2 == inverse
    assert ((a**-2).top, (a**-2).bottom) == (inverse.top, inverse.bottom)
    assert (Tangent(a, a) ** 2.0).slope == 2 * a * a
    assert (Tangent(a, a) ** 0.5).slope == a / (2 * a.sqrt())
    for power in (Tangent(a, a), a):
        with pytest.raises(TypeError, match=r"expected a whole number or 0\.5, found 1\.5"):
            power**1.5


def test_every_argument_adds_to_the_chance_of_a_collision(values: FreeValues) -> None:
    a = values.draw_number()
    a.tanh()
    assert values.collisions == 2
    a.tanh()
    assert values.collisions == 2
    (a**3).exp()
    assert values.collisions == 2 * 2 * (1 + 3)


def test_work_that_takes_too_long_ends(values: FreeValues) -> None:
    def square_forever(number: FreeNumber) -> None:
        while True:
            number = number * number

    with pytest.raises(OverflowError, match="smaller sizes"):
        square_forever(1 / values.draw_number())
    with pytest.raises(OverflowError, match="smaller sizes"):
        FreeValues(0).draw_number() ** 10**9


@pytest.mark.parametrize("scale", [1, 2**61])
def test_numbers_are_drawn_from_both_sides_and_never_zero(scale: int) -> None:
    values = FreeValues(0, scale)
    drawn = [values.draw() for _ in range(200)]
    assert len(set(drawn)) == 200
    assert 0 < min(map(abs, drawn)) <= max(map(abs, drawn)) <= Fraction(LARGEST, scale)
    assert min(drawn) < 0 < max(drawn)


def test_numbers_are_ordered_by_their_values(values: FreeValues) -> None:
    a = values.draw_number()
    assert a - 1 < a <= a + 0
    assert np.clip(draw_array(values, (3,)), -5, 5).tolist() == [
        min(max(x, -5), 5) for x in draw_array(FreeValues(0), (4,))[1:]
    ]
    assert abs(-abs(a)) == abs(a)
    assert abs(values.read(0.5)) == 0.5
