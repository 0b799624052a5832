"""Measured errors of a traced loss: infinite where the measurement does not earn trust."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.program import measured_errors
from bptt_verifier.program.measured_errors import (
    Samples,
    allow,
    gradient_and_noise,
    plan_samples,
)
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.rounding import RoundingErrors
from bptt_verifier.program.shifts import find_shifts, stop_at_shift
from bptt_verifier.program.trace import trace

FLOAT64, FLOAT32, TINY = 2.0**-53, 2.0**-24, float(np.finfo(float).tiny)


def allowed_of(
    loss: Callable[[Any, Any], Any], *, scaled: float = 1.0, **params: Any
) -> dict[str, Any]:
    """The allowed errors in float64, where the reference is jax.grad's, scaled."""
    params = {name: np.array(value) for name, value in params.items()}
    with use_float64():
        program = trace(loss, params)
        truth = jax.grad(lambda p: loss(p, jnp))(params)
        truth = {name: scaled * np.asarray(value) for name, value in truth.items()}
        return gradient_and_noise(program, params, [FLOAT64], truth)[0][1]


def test_nothing_is_allowed_or_refused_where_the_programs_gradient_is_not_jax_grads() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.sin(p["a"]))

    assert (allowed_of(loss, a=[0.5, 1.0])["a"] < 1e-13).all()
    assert np.isinf(allowed_of(loss, scaled=1 + 1e-10, a=[0.5, 1.0])["a"]).all()


def test_a_tie_that_rounding_breaks_is_undecided_and_other_entries_are_not() -> None:
    def loss(p: Any, xp: Any) -> Any:
        tie = p["a"][0] * 3.0 - p["a"][1] * 1.0
        return xp.maximum(tie, 0.0) * 0.01 + xp.sum(xp.sin(p["a"]))

    allowed = allowed_of(loss, a=[0.25, 0.75, 0.5])["a"]
    assert np.isinf(allowed[:2]).all()
    assert allowed[2] < 1e-13


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_weights_divided_by_one_number_have_errors(shape: tuple[int, ...]) -> None:
    """They are the logistic function of that number, times an array that is not of its shape."""

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(np.array([[1.0], [2.0], [3.0]]) / (2.0 + xp.exp(p["a"])))

    allowed = allowed_of(loss, a=np.full(shape, 0.3))["a"]
    assert 0 < np.max(allowed) < 1e-13


@pytest.mark.table(2)
@pytest.mark.parametrize("lowest", [-np.inf, -1e38])
def test_a_mask_and_a_running_maximum_are_decided(lowest: float) -> None:
    def masked(p: Any, xp: Any) -> Any:
        a = xp.where(np.tri(3) > 0, p["a"], lowest)
        e = xp.exp(a - xp.max(a, axis=1, keepdims=True))
        return xp.sum((e / xp.sum(e, axis=1, keepdims=True)) ** 2)

    def running(p: Any, xp: Any) -> Any:
        top, total = lowest, 0.0
        for a in p["a"].ravel():
            new = xp.maximum(top, a)
            total = total * xp.exp(top - new) + xp.exp(a - new)
            top = new
        return 1.0 + top + xp.log(total)

    a = np.random.default_rng(0).normal(size=(3, 3))
    for loss in (masked, running):
        assert (allowed_of(loss, a=a)["a"] < 1e-12).all()


X = np.random.default_rng(0).uniform(1.0, 2.0, (400, 3))
BELOW = 2.0**-127  # half of float32's smallest normal number, and less than that of its products


def multiply_matrices(p: Any, xp: Any) -> Any:
    return xp.sum(X @ p["a"] * (0.5 * BELOW))


def sum_uses_of_one_row(p: Any, xp: Any) -> Any:
    return xp.sum(xp.tanh(X * p["a"]) * BELOW)


def accumulate(p: Any, xp: Any) -> Any:
    return xp.sum(lax.cumsum(X * p["a"])[-1] * BELOW)


def step_through(p: Any, xp: Any) -> Any:
    def step(h: Any, x: Any) -> tuple[Any, None]:
        return xp.tanh(h * 0.5 + xp.sum(x * p["a"])), None

    last, _ = lax.scan(step, 0.0 * p["a"][0], xp.asarray(X[:9]))
    return last * BELOW


def multiply_what_is_lost(p: Any, xp: Any) -> Any:
    return xp.sum(xp.tanh((1e12 * X) @ p["a"] * 1e-12) * (BELOW / 8))


@pytest.mark.parametrize(
    "loss",
    [multiply_matrices, sum_uses_of_one_row, accumulate, step_through, multiply_what_is_lost],
)
def test_what_float32_loses_to_underflow_is_allowed(loss: Callable[[Any, Any], Any]) -> None:
    params = {"a": np.array([0.3, -0.2, 0.1])}
    with use_float64():
        program = trace(loss, params)
        truth = jax.grad(lambda p: loss(p, jnp))(params)
        ((_, allowed),) = gradient_and_noise(program, params, [2.0**-24], truth)
        largest = np.abs(truth["a"]).max()
        # The whole gradient may be flushed to zero, though it is larger than the smallest number.
        assert (np.abs(truth["a"]) <= allowed["a"]).all()
        assert (allowed["a"] < 100 * largest).all()
        larger = gradient_and_noise(
            trace(lambda p, xp: 2.0**60 * loss(p, xp), params), params, [2.0**-24],
            {"a": 2.0**60 * truth["a"]},
        )[0][1]["a"]  # fmt: skip
        assert (larger < 2.0**60 * largest / 1000).all()


def attend(q: Any, h: Any, xp: Any) -> tuple[Any, Any]:
    """Attend to the rows h: the weights softmax(h q), and the sum of the rows by them."""
    scores = h @ q
    e = xp.exp(scores - xp.max(scores))
    weights = e / xp.sum(e)
    return weights, weights @ h


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6])
def test_what_a_softmax_loses_over_rows_that_are_nearly_alike_is_allowed(apart: float) -> None:
    rng = np.random.default_rng(1)
    h = (0.3 + apart * rng.normal(size=(5, 4))).astype(np.float32).astype(float)
    q = rng.normal(size=4).astype(np.float32)

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.sin(attend(p["q"], h, xp)[1]))

    def derive(q: Any, h: Any) -> Any:
        weights, y = attend(q, h, np)
        dw = h @ np.cos(y)
        return (weights * (dw - weights @ dw)) @ h

    with use_float64():
        params = {"q": q.astype(float)}
        program = trace(loss, params)
        truth = jax.grad(lambda p: loss(p, jnp))(params)
        measured = gradient_and_noise(program, params, [FLOAT64, 2.0**-24], truth)
    coarse, fine = (derive(q.astype(d), h.astype(d)) for d in (np.float32, np.float64))
    (_, in_float64), (_, in_float32) = measured
    assert np.all(np.abs(coarse - fine) <= in_float32["q"])
    assert np.all(np.abs(fine - np.asarray(truth["q"])) <= in_float64["q"])
    assert np.all(in_float64["q"] < 2.0**-16 * in_float32["q"])


def test_what_a_maximum_passes_on_is_not_lost_where_it_counts() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum((p["a"] - xp.max(p["a"])) ** 2)

    assert (allowed_of(loss, a=[0.1, 0.9, 0.5])["a"] < 1e-13).all()


def subtract_maximum(a: Any) -> Any:
    return jnp.exp(a - jnp.max(a, axis=0, keepdims=True)[0])


def subtract_running_maximum(a: Any) -> Any:
    return jnp.exp(a[0] - jnp.maximum(a[0], a[1]))


SUBTRACTED: dict[str, tuple[Any, int]] = {
    "a maximum": (subtract_maximum, 1),
    "a running maximum": (subtract_running_maximum, 1),
    "a constant is no exponent": (lambda a: a - jnp.maximum(a, 0.0), 0),
    "subtracted from": (lambda a: jnp.max(a) - a, 0),
    "a divisor": (lambda a: jnp.exp(a) / jnp.max(a), 0),
}


@pytest.mark.parametrize(("function", "number"), SUBTRACTED.values(), ids=SUBTRACTED)
def test_a_shift_is_a_maximum_of_variables_that_is_subtracted(function: Any, number: int) -> None:
    with use_float64():
        program = trace(lambda p, xp: jnp.sum(function(p["a"])), {"a": np.ones((2, 3))})
    assert len(find_shifts(program)) == number


def test_every_second_sample_stops_at_a_shift_what_is_rounding() -> None:
    sizes = 2.0 ** np.array([-10] * 4 + [-13] * 2 + [0] * 2 + [-np.inf])
    draws = np.array([0, 1, 2, 3, 0, 1, 4, 5, 1])  # the last sample is exact
    signs = np.array([1, -1, 1, -1, 1, 1, 1, -1, 0])
    errors = RoundingErrors(sizes, sizes, draws, exact=True)
    ct = np.stack(
        [
            signs * sizes,
            1 + signs,  # the mean is the largest deviation from it
            1 + signs * sizes,
            np.where(sizes == 0, -100.0, 1 + signs * sizes),  # the exact sample does not count
        ],
        axis=1,
    )
    stopped = stop_at_shift(ct, errors)
    second = (draws % 2 == 1) & (sizes > 0)
    np.testing.assert_array_equal(stopped[:, :2], np.where(second[:, None], 0, ct[:, :2]))
    np.testing.assert_array_equal(stopped[:, 2:], ct[:, 2:])


def test_values_in_float32_inside_a_loss_round_as_float32_does() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.sin(p["a"].astype(xp.float32)).astype(xp.float64))

    allowed = allowed_of(loss, a=[0.5, 1.0])["a"]
    assert (allowed > 2.0**-24).all()
    assert (allowed < 1000 * 2.0**-24).all()


@pytest.mark.parametrize("unit", [FLOAT64, 2.0**-24])
def test_the_exact_values_are_one_more_sample(unit: float, monkeypatch: Any) -> None:
    def loss(p: Any, xp: Any) -> Any:
        e = xp.exp(p["a"] - xp.max(p["a"]))
        return xp.sum((e / xp.sum(e)) ** 2) + 1e-3 * xp.sum(xp.tanh(p["a"]) @ p["a"])

    params = {"a": np.random.default_rng(0).normal(size=(3, 3))}
    with use_float64():
        program = trace(loss, params)
        truth = jax.grad(lambda p: loss(p, jnp))(params)
        assert measured_errors.is_float64(program)
        (together,) = gradient_and_noise(program, params, [unit], truth)
        monkeypatch.setattr(measured_errors, "is_float64", lambda program: False)
        (apart,) = gradient_and_noise(program, params, [unit], truth)
    # The sizes of the errors are those of the exact values or of each sample's, which differ by
    # less than 2⁶ units for these operations, and those of the errors by as much of themselves.
    near = 2.0**6 * max(unit, 2.0**-43)
    assert together[0] == pytest.approx(apart[0], rel=near)
    np.testing.assert_allclose(together[1]["a"], apart[1]["a"], rtol=near)


@pytest.mark.parametrize(
    ("operations", "exact"),
    [
        ([("sin", None, "f8"), ("gt", None, "b1")], True),
        ([("sin", None, "f8"), ("convert_element_type", None, "f4")], False),
        ([("split", None, "f8", "f4")], False),
        ([("gather", np.arange(2), "f8")], True),  # it moves numbers
        ([("gather", None, "f8")], False),  # it adds some, and JAX evaluates it
    ],
)
def test_exact_values_are_a_sample_only_in_float64_and_of_rules_in_numpy(
    operations: Any, exact: bool
) -> None:
    made = [
        SimpleNamespace(name=name, moved=moved, dtypes=tuple(map(np.dtype, dtypes)))
        for name, moved, *dtypes in operations
    ]
    program: Any = SimpleNamespace(operations=made)
    assert measured_errors.is_float64(program) is exact


def test_errors_below_those_of_float64_are_amplified_and_two_samples_repeated() -> None:
    """Section 10: u = 2⁻⁴³ for float64, and two samples with the same ξ and an eighth of u."""
    for roundoffs, unit, size, pairs in [
        ([FLOAT64], FLOAT64, 2.0**-43, 2),
        ([FLOAT32], FLOAT32, FLOAT32, 0),
        ([FLOAT32, FLOAT64], FLOAT32, FLOAT32, 2),
        ([FLOAT64, FLOAT32], FLOAT32, FLOAT32, 2),
    ]:
        planned, errors = plan_samples(roundoffs)
        assert planned.size == size
        assert errors.units is not None
        assert errors.sizes is not None
        assert errors.draws is not None
        assert errors.units.tolist() == [unit] * (8 + pairs)
        assert errors.sizes[planned.rows].tolist() == [size] * 8
        assert errors.sizes[planned.smaller].tolist() == [size / 8] * pairs
        assert errors.draws.tolist() == [*range(8), *range(pairs)]


def allow_with(
    value: Any,
    deviations: Any,
    shifts: Any = (0.0, 0.0),
    unit: float = FLOAT64,
    size: float = 0.0,
) -> list[float]:
    """What is allowed where the first sample of eight deviates by `deviations` from the values.

    `shifts` are added to the first entry of the two samples with smaller errors. Where the `size`
    of the errors is given, the samples are those of another unit.
    """
    value = np.array(value, float)
    samples = np.broadcast_to(value, (10, *value.shape)).copy()
    samples[0] += deviations
    samples[8:] = value + (samples[:2] - value) / 8
    samples[8:, 0] += shifts
    planned = Samples(size or max(unit, 2.0**-43), slice(0, 8), slice(8, 10))
    allowed: list[float] = allow(samples, value, planned, unit, alone=not size).tolist()
    return allowed


def test_sixteen_times_the_largest_deviation_and_the_rounding_of_the_value_are_allowed() -> None:
    assert allow_with([4.0, 1.0], [2.0**-20, 0.0]) == [16 * (2.0**-30 + 2.0**-51), 16 * FLOAT64]
    of_single = allow_with([4.0], [2.0**-20], unit=2.0**-24)
    assert of_single == [16 * (2.0**-20 + 2.0**-22)]


def test_a_deviation_beyond_an_eighth_of_the_largest_entry_is_not_scaled_down() -> None:
    for share, scale in [(0.25, 2.0**-10), (0.375, 1.0)]:
        expected = [16 * (share * scale + 2 * FLOAT64), 16 * FLOAT64]
        assert allow_with([2.0, 1.0], [share, 0.0]) == expected


def test_samples_of_another_unit_serve_where_the_response_is_linear_and_in_proportion() -> None:
    def allow_by_single(
        value: Any, deviations: Any, shifts: Any = (0.0, 0.0), unit: float = FLOAT64
    ) -> list[float]:
        return allow_with(value, deviations, shifts, unit, size=FLOAT32)

    expected = [16 * (0.25 * 2.0**-29 + 2 * FLOAT64), 16 * FLOAT64]
    assert allow_by_single([2.0, 1.0], [0.25, 0.0]) == expected
    assert allow_by_single([2.0, 1.0], [0.375, 0.0]) == [np.inf, np.inf]
    assert allow_by_single([2.0, 1.0], [0.25, 0.0], (0.25, 0.0)) == [np.inf, 16 * FLOAT64]
    # For their own unit they need be neither.
    own = allow_by_single([2.0, 1.0], [0.375, 0.0], (0.25, 0.0), unit=FLOAT32)
    assert own == [16 * (0.375 + 2 * FLOAT32), 16 * FLOAT32]


def test_an_entry_out_of_proportion_by_more_than_half_may_have_any_error() -> None:
    one = 2.0**-80 / 8  # the deviation of the smaller sample in proportion
    for share, trusted in [(0.5, True), (-0.5, True), (0.625, False)]:
        for shifts in ((share * one, 0.0), (0.0, share * one)):
            allowed = allow_with([0.0, 0.0], [2.0**-80, 0.0], shifts)
            assert np.isfinite(allowed).tolist() == [trusted, True]


@pytest.mark.parametrize(
    ("value", "rounding"), [(1.0, 2.0**-49), (4.0, 2.0**-47), (0.0, 16 * TINY)]
)
def test_samples_may_round_without_being_out_of_proportion(value: float, rounding: float) -> None:
    """They round in units of the largest entry."""
    for values in ([value], [0.0, value]):
        none = [0.0] * len(values)
        assert np.isfinite(allow_with(values, none, (rounding, 0.0))).all()
        assert np.isinf(allow_with(values, none, (2 * rounding, 0.0)))[0]


def test_no_entry_of_the_programs_gradient_may_differ_by_more_than_twice_what_is_allowed() -> None:
    a = np.array([0.5, 1.0])
    with use_float64():
        program = trace(lambda p, xp: xp.sum(xp.sin(p["a"])), {"a": a})

        def measure(off: Any) -> Any:
            truth = {"a": np.cos(a) + off}
            return gradient_and_noise(program, {"a": a}, [FLOAT64], truth)[0][1]["a"]

        allowed = measure(0.0)
        np.testing.assert_array_equal(measure([1.9 * allowed[0], 0.0]), allowed)
        assert np.isinf(measure([2.1 * allowed[0], 0.0])).all()


def compute_sigmoids(a: Any, xp: Any) -> dict[str, Any]:
    """The logistic function by four formulas of exponentials."""
    e, small = xp.exp(-a), xp.exp(-xp.abs(a))
    return {
        "quotient": 1 / (1 + e),
        "by sign": xp.where(a >= 0, 1 / (1 + small), small / (1 + small)),
        "logarithm": xp.exp(-xp.logaddexp(0.0 * a, -a)),
        "two exponentials": xp.exp(a / 2) / (xp.exp(a / 2) + xp.exp(-a / 2)),
    }


@pytest.mark.parametrize("formula", ["quotient", "by sign", "logarithm", "two exponentials"])
@pytest.mark.parametrize("a", [30.0, -30.0])
def test_the_slope_of_a_saturated_sigmoid_may_round_as_one_computed_from_its_value(
    formula: str, a: float
) -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(3.0 * compute_sigmoids(p["a"], xp)[formula])

    z = 1 / (1 + np.exp(-a))
    by_value, slope = 3 * z * (1 - z), 3 * np.exp(-abs(a))
    allowed = allowed_of(loss, a=[a, 0.5])["a"][0]
    assert abs(by_value - slope) < allowed
    assert 3 * FLOAT64 < allowed < 3 * 2000 * FLOAT64


@pytest.mark.parametrize("formula", ["quotient", "by sign", "logarithm", "two exponentials"])
def test_the_value_of_a_saturated_sigmoid_may_round_as_a_sum_with_one(formula: str) -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(p["w"] * compute_sigmoids(p["a"], xp)[formula])

    a = -40.0
    assert 0.5 + 0.5 * np.tanh(a / 2) == 0
    assert np.exp(a) < allowed_of(loss, a=[a, 0.5], w=[1.0, 1.0])["w"][0] < 100 * FLOAT64


@pytest.mark.parametrize(
    "function",
    [
        lambda a, xp: xp.exp(-a),  # not linear far to the left
        lambda a, xp: xp.exp(-a * a),  # no sum: its slope is known as well as its value
        lambda a, xp: xp.exp(-a) / xp.sum(xp.exp(-a)),  # not a function of each entry alone
    ],
    ids=["exponential", "bell", "softmax"],
)
def test_a_slope_that_is_a_product_with_the_value_is_known_to_its_own_last_places(
    function: Any,
) -> None:
    weights = np.array([1.0, 3.0, 2.0])

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(weights * function(p["a"], xp))

    assert allowed_of(loss, a=[6.0, 0.5, 0.25])["a"][0] < 20 * FLOAT64
