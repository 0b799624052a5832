"""Which activations composed of exponentials saturate, and how large their slopes are."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier import verify_own_model
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.saturation import find_saturating, measure_underflow
from bptt_verifier.program.trace import Program, trace
from bptt_verifier.reference.own_loss import prepare

Activation = Callable[[Any, Any], Any]


def sigmoid(a: Any, xp: Any) -> Any:
    return 1 / (1 + xp.exp(-a))


def softplus(a: Any, xp: Any) -> Any:
    return xp.log1p(xp.exp(a))


def add_itself(a: Any, xp: Any) -> Any:
    return softplus(a, xp) + a


def find(activation: Activation, *more: Activation) -> tuple[Program, list[tuple[str, float]]]:
    """The operations that end saturating activations, with the largest slope of each."""

    def loss(p: Any, xp: Any) -> Any:
        weights = np.array([1.0, 3.0])
        return sum(xp.sum(weights * each(p["a"], xp)) for each in (activation, *more))

    with use_float64():
        program = trace(loss, {"a": np.ones(2)})
    found = find_saturating(program).items()
    return program, [(program.operations[k].name, each.error / 16) for k, each in found]


SATURATING: dict[str, tuple[Activation, float]] = {
    "sigmoid": (sigmoid, 0.25),
    "steep": (lambda a, xp: sigmoid(1000 * a, xp), 250.0),
    "flat": (lambda a, xp: sigmoid(a / 32, xp), 0.25 / 32),
    "flatter": (lambda a, xp: sigmoid(a / 10_000, xp), 0.25e-4),
    "scaled": (lambda a, xp: -3 * sigmoid(2 * a, xp), 1.5),
    "power": (lambda a, xp: (1 + xp.exp(-a)) ** -1, 0.25),
    "weights": (lambda a, xp: np.array([-3.0, 1.0]) / (1 + xp.exp(-a)), 0.75),
    "base two": (lambda a, xp: 2 / (xp.exp2(-a) + 1) - 1, 0.5 * np.log(2)),
    "softplus": (softplus, 1.0),
    "falling softplus": (lambda a, xp: softplus(-a, xp), 1.0),
    "elu": (lambda a, xp: xp.where(a > 0, a, xp.expm1(a)), 1.0),
    "bell": (lambda a, xp: xp.expm1(-a * a), np.sqrt(2 / np.e)),
}
OTHERS: dict[str, Activation] = {
    "a weight of each": lambda a, xp: (1 + xp.exp(-a)) / np.array([3.0, 1.0]),
    "curved to the right": lambda a, xp: xp.exp(a) + 1,
    "curved to the left": lambda a, xp: xp.exp(-a) + 1,
    "linear": lambda a, xp: xp.log1p(xp.expm1(a)),
    "constant": lambda a, xp: xp.exp(0 * a) + 1,
    "no sum": lambda a, xp: xp.exp(-a * a),
    "no exponential": lambda a, xp: xp.tanh(a) + 1,
    "finite at one point to the right": lambda a, xp: xp.log(5e-4 - xp.expm1(a)),
    "finite nowhere": lambda a, xp: xp.log(-1 - xp.exp(a)),
    "softmax": lambda a, xp: xp.exp(a) / (1 + xp.sum(xp.exp(a))),
    "other in each entry": lambda a, xp: 1 / (1 + np.array([1.0, 2.0]) * xp.exp(-a)),
    "complex": lambda a, xp: xp.real(sigmoid(1j * a, xp)),
}


@pytest.mark.parametrize("name", SATURATING)
def test_an_activation_that_is_linear_far_out_has_the_error_of_its_largest_slope(
    name: str,
) -> None:
    activation, slope = SATURATING[name]
    ((_, measured),) = find(activation)[1]
    # The slopes are measured at points that double.
    assert 0.8 * slope < measured < 1.001 * slope


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions_have_no_error_of_their_own(name: str) -> None:
    assert find(OTHERS[name])[1] == []


def test_a_function_of_two_variables_is_one_of_the_number_that_joins_them() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(sigmoid(p["a"] * p["b"], xp))

    with use_float64():
        program = trace(loss, {"a": np.ones(2), "b": np.ones(2)})
    (found,) = find_saturating(program).values()
    (product,) = [each for each in program.operations if each.name == "mul"]
    assert (found.start,) == product.outputs


def test_the_end_of_an_activation_is_found_and_not_its_parts() -> None:
    def tanh(a: Any, xp: Any) -> Any:
        return 2 * sigmoid(2 * a, xp) - 1

    program, found = find(tanh)
    assert [name for name, _ in found] == ["sub"]
    (only,) = find_saturating(program).values()
    assert only.start == program.leaves["a"]


def test_a_part_that_something_else_reads_is_an_activation_itself() -> None:
    def loss(p: Any, xp: Any) -> Any:
        z = sigmoid(p["a"], xp)
        return xp.sum(xp.log(z) * np.array([1.0, 0.0])) + xp.sum(z @ np.ones((2, 2)))

    with use_float64():
        program = trace(loss, {"a": np.ones(2)})
        ends = find_saturating(program)
    assert [program.operations[number].name for number in ends] == ["div", "log"]
    assert {each.start for each in ends.values()} == {program.leaves["a"]}


@pytest.mark.parametrize(
    ("whole", "ends"),
    [
        (lambda z, a, xp: xp.log(z), ["div", "log"]),
        (lambda z, a, xp: xp.log(1 - z), ["sub", "log"]),
        (lambda z, a, xp: a * z, ["div", "mul"]),
        (lambda z, a, xp: 2 * z - 1, ["sub"]),
        (lambda z, a, xp: z - 0.5 + a, ["add"]),
    ],
    ids=["logarithm", "of the complement", "product", "scaled", "sum"],
)
def test_a_bounded_part_of_which_the_whole_is_no_linear_function_is_one_too(
    whole: Callable[..., Any], ends: list[str]
) -> None:
    found = find(lambda a, xp: whole(sigmoid(a, xp), a, xp))[1]
    assert [name for name, _ in found] == ends


def test_a_logistic_function_has_the_error_of_its_largest_slope() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(jax.nn.sigmoid(p["a"]))

    with use_float64():
        program = trace(loss, {"a": np.ones(2)})
        (found,) = find_saturating(program).values()
    assert (found.start, found.error) == (program.leaves["a"], 4.0)


@pytest.mark.parametrize(
    ("activations", "slopes"),
    [
        ([sigmoid, lambda a, xp: sigmoid(2 * a, xp)], [0.25, 0.5]),
        ([lambda a, xp: sigmoid(2 * a, xp), lambda a, xp: sigmoid(3 * a, xp)], [0.5, 0.75]),
        ([lambda a, xp, n=n: (1 + xp.exp(-a)) ** -n for n in (1, 2)], [0.25, 8 / 27]),
        ([lambda a, xp: softplus(-a, xp) + a, lambda a, xp: add_itself(-a, xp)], [1.0, 2.0]),
    ],
    ids=["inner factor", "inner factors", "powers", "which operand"],
)
def test_activations_of_one_program_have_errors_of_their_own(
    activations: list[Activation], slopes: list[float]
) -> None:
    _, found = find(*activations)
    np.testing.assert_allclose([slope for _, slope in found], slopes, rtol=0.1)


def test_an_activation_of_more_operations_than_any_in_use_is_none() -> None:
    def repeated(times: int) -> Activation:
        def activation(a: Any, xp: Any) -> Any:
            for _ in range(times):
                a = 1.5 * a
            return sigmoid(a, xp)

        return activation

    assert [name for name, _ in find(repeated(4))[1]] == ["div"]
    assert find(repeated(40))[1][0][0] == "div"  # of a variable in between


UNBOUNDED = {"softplus", "falling softplus", "elu"}


@pytest.mark.parametrize("name", SATURATING)
def test_an_activation_that_is_constant_far_out_has_a_bound(name: str) -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(SATURATING[name][0](p["a"], xp) * np.array([1.0, 3.0]))

    with use_float64():
        program = trace(loss, {"a": np.ones(2)})
    (found,) = find_saturating(program).values()
    bound = 0.0 if name in UNBOUNDED else 3.0 if name in {"scaled", "weights"} else 1.0
    assert found.bound == pytest.approx(bound)


@pytest.mark.parametrize(("unit", "smallest"), [(2.0**-24, 2.0**-126), (2.0**-53, 2.0**-1022)])
def test_what_underflows_far_out_is_at_most_the_cotangent(unit: float, smallest: float) -> None:
    equal = -np.log(smallest)  # where all of a cotangent of 1 is lost
    a = equal + np.array([-9.0, -1.0, 0.0, 9.0])
    found = unit * measure_underflow(np.ones(4), a, np.array([unit, 2.0**-53]))
    expected = np.minimum(1.0, np.exp(a - equal))
    np.testing.assert_allclose(found, expected, rtol=4 * np.max(a) * 2.0**-53)
    assert measure_underflow(np.ones(1), np.full(1, 5.0), np.array([unit])) == 0.0


def test_an_infinite_exponent_loses_nothing() -> None:
    a = np.array([np.inf, 900.0, np.inf])
    lost = measure_underflow(np.ones(3), a, np.array([2.0**-53]))
    assert list(lost > 0) == [False, True, False]


def test_an_exponent_whose_fourth_root_is_zero_loses_nothing() -> None:
    zero = 4 * 1075 * np.log(2)  # half of the smallest number above zero is 2⁻¹⁰⁷⁵
    a = np.array([zero, zero + 1.0, zero - 1.0, 1e30])
    assert (np.exp(-a / 4) == 0).tolist() == [True, True, False, True]
    lost = measure_underflow(np.ones(4), a, np.array([2.0**-24]))
    assert (lost > 0).tolist() == [False, False, True, False]


@pytest.mark.parametrize("lowest", [-np.inf, -1e30, -1e9])
def test_states_that_a_mask_excludes_leave_the_allowed_errors_small(lowest: float) -> None:
    def loss(params: Any, xp: Any) -> Any:  # the middle of a lattice that no path reaches
        unreached = xp.logaddexp(lowest, lowest) + params["w"][2]
        return xp.logaddexp(params["w"][0] * params["w"][1], unreached)

    model = prepare(loss, {"w": np.array([0.3, -0.2, 0.5])}, cases=4)
    for case in model.cases:
        assert case.truth is not None
        known = case.truth(np.float64, ())
        assert np.max(known.allowed["w"]) < 1e-12 * np.max(np.abs(known.values["w"]))


def by_another_formula(p: Any) -> Any:
    """jax.grad of another formula, which multiplies what has underflowed by e^a."""

    def loss(q: Any) -> Any:
        z = jax.numpy.exp(q["a"]) / (1 + jax.numpy.exp(q["a"]))
        return jax.numpy.sum(z[:1] * q["v"]) + jax.numpy.sum(q["s"] * z[1:] ** 2)

    return jax.grad(loss)({name: jax.numpy.asarray(x, np.float32) for name, x in p.items()})


@pytest.mark.rest
def test_a_formula_that_underflows_in_a_saturated_unit_is_not_called_wrong() -> None:
    def loss(p: Any, xp: Any) -> Any:
        e = xp.exp(-abs(p["a"]))
        z = xp.where(p["a"] > 0, 1 / (1 + e), e / (1 + e))
        return xp.sum(z[:1] * p["v"]) + xp.sum(p["s"] * z[1:] ** 2)

    params = {"a": np.array([50.0, 0.3]), "v": np.array([0.013]), "s": np.array([1e-3])}
    exact = np.exp(-50.0) * 0.013
    assert abs(float(by_another_formula(params)["a"][0]) - exact) > 2.0**-24 * 0.013
    assert verify_own_model(by_another_formula, loss, params).verdict != "disagrees"


@pytest.mark.parametrize(
    ("activation", "rate"),
    [(sigmoid, 1.0), (softplus, 1.0), (lambda a, xp: 2 * sigmoid(2 * a, xp) - 1, 2.0)],
)
def test_the_rate_is_that_of_the_exponential(activation: Activation, rate: float) -> None:
    program, _ = find(activation)
    (found,) = {each.rate for each in find_saturating(program).values()}
    assert found == pytest.approx(rate, rel=0.1)
