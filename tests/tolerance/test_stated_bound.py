"""The bound is the one that docs/derivation.md, section 9, states, term by term."""

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ACTIVATIONS, LOSSES, Problem, Sizes
from bptt_verifier.tolerance.bounds import (
    Bounds,
    Extent,
    Format,
    bound_results,
    bounds,
    describe_dtype,
    find_format,
    is_coarser,
    slope_at,
)
from manual_bptt import rnn
from tests.support.stated_bound import SLOPE, stated_bound, states_of

# In half precision no term is small: u is 2^-11, and the smallest normal number 2^-14.
HALF = np.float16
SIZES = Sizes(3, 2, 3, 2, 4)


def evaluate(problem: Problem, states: tuple[Any, Any, Any], dtype: Any = HALF) -> dict[str, Any]:
    """The bounds of the module at these states, by name."""
    a, h, prediction = states
    reference: Any = SimpleNamespace(states=SimpleNamespace(a=a, h=h, prediction=prediction))
    found = bounds(
        problem.params, problem.x, problem.y, reference,
        dtype=dtype, loss=problem.loss, **problem.option,
    )  # fmt: skip
    return found._asdict()


def assert_as_stated(
    problem: Problem, states: tuple[Any, Any, Any], dtype: Any = HALF
) -> dict[str, Any]:
    found, stated = evaluate(problem, states, dtype), stated_bound(problem, states, dtype)
    for name in Bounds._fields:
        np.testing.assert_allclose(found[name], stated[name], rtol=1e-12, err_msg=name)
    return found


def drawn(
    seed: int, activation: str, loss: str = "mse", scale: float = 0.25, sizes: Sizes = SIZES
) -> Problem:
    """A problem small enough that nothing overflows in half precision."""
    problem = with_values(
        np.random.default_rng(seed), sizes, option=activation, loss=loss,
        bias=seed % 2 == 0, initial_state=seed % 3 == 0,
    )  # fmt: skip
    return problem.map_arrays(lambda values: scale * values)


@pytest.mark.parametrize(("activation", "loss"), [*product(ACTIVATIONS, LOSSES)])
def test_every_bound_is_that_of_the_equations(activation: str, loss: str) -> None:
    for seed, dtype in [(0, HALF), (1, HALF), (3, np.float32)]:
        problem = drawn(seed, activation, loss)
        found = assert_as_stated(problem, states_of(problem), dtype)
        assert all(np.isfinite(bound).all() for bound in found.values())


def bound_together(problems: list[Problem], dtypes: list[Any]) -> list[dict[str, Any]]:
    """The bounds of a block of problems, the padding of which is cut away again.

    The padding is written here for itself: a `ReferenceBlock` pads with JAX's own states, to one
    size for all blocks, and adds the error of the reference to the bounds.
    """
    sizes = [each.sizes for each in problems]
    T, B, D, H, O = np.max(sizes, axis=0)
    number = len(problems)

    def padded(*shape: int) -> Any:
        return np.zeros((number, *shape))

    U, W, V, b, c = padded(H, D), padded(H, H), padded(O, H), padded(1, H), padded(1, O)
    x, a, h, y = padded(T, B, D), padded(T, B, H), padded(T + 1, B, H), padded(B, O)
    prediction, hidden, shown = padded(B, O), padded(T, B, H), padded(B, O)
    for n, problem in enumerate(problems):
        t, rows, inputs, units, outputs = problem.sizes
        here, of_outputs = np.s_[n, T - t :, :rows, :units], np.s_[n, :rows, :outputs]
        weights = {"b": 0.0, "c": 0.0} | problem.weights
        U[n, :units, :inputs], W[n, :units, :units] = weights["U"], weights["W"]
        V[n, :outputs, :units], b[n, 0, :units] = weights["V"], weights["b"]
        c[n, 0, :outputs], x[n, T - t :, :rows, :inputs] = weights["c"], problem.x
        a[here], h[here], prediction[of_outputs] = states_of(problem)
        y[of_outputs], hidden[here], shown[of_outputs] = problem.y, 1, 1
    columns = np.transpose([find_format(dtype) for dtype in dtypes]).reshape(3, number, 1, 1)
    shapes = np.transpose(sizes).reshape(5, number, 1, 1)
    first = T - shapes[0].ravel(), np.arange(number)
    x, a, h, hidden = (each.swapaxes(0, 1) for each in (x, a, h, hidden))
    states: Any = SimpleNamespace(a=a, h=h, prediction=prediction)
    found = bound_results(
        rnn.Params(U, W, V, b, c), x, y, states, Format(*columns),
        Extent(*(*shapes, hidden, shown, first)),
        problems[0].option["activation"], np.reshape([each.loss for each in problems], (-1, 1, 1)),
    )  # fmt: skip
    return [
        {
            "loss": found.loss[n], "prediction": found.prediction[n, :B, :O],
            "U": found.U[n, :H, :D], "W": found.W[n, :H, :H], "V": found.V[n, :O, :H],
            "b": found.b[n, :H], "c": found.c[n, :O], "x": found.x[-T:, n, :B, :D],
            "h0": found.h0[n, :B, :H], "adjoints": found.adjoints[-T:, n, :B, :H],
        }
        for n, (T, B, D, H, O) in enumerate(sizes)
    ]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_of_problems_that_are_padded_to_one_size_each_has_its_own_bound(activation: str) -> None:
    cases = [
        (Sizes(2, 3, 1, 3, 2), "mse", HALF),
        (Sizes(4, 1, 2, 2, 3), "half_sse", np.float32),
        (Sizes(1, 2, 3, 1, 1), "mse", np.float32),
    ]
    problems = [
        drawn(seed, activation, loss, sizes=sizes) for seed, (sizes, loss, _) in enumerate(cases)
    ]
    dtypes = [dtype for _, _, dtype in cases]
    together = bound_together(problems, dtypes)
    for problem, dtype, found in zip(problems, dtypes, together, strict=True):
        stated = stated_bound(problem, states_of(problem), dtype)
        assert all(np.isfinite(bound).all() for bound in stated.values())
        for name in Bounds._fields:
            np.testing.assert_allclose(found[name], stated[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_slope_is_that_of_the_activation(activation: str) -> None:
    a = np.array([-1.5, 0.0, 0.5])
    h = {"tanh": np.tanh(a), "sigmoid": 1 / (1 + np.exp(-a))}.get(activation, np.maximum(a, 0))
    expected = [SLOPE[activation](*each) for each in zip(a, h, strict=True)]
    np.testing.assert_allclose(slope_at(activation, a, h), expected, rtol=1e-15)


def test_a_relu_is_at_its_kink_within_twice_the_error_of_its_argument() -> None:
    problem = drawn(1, "relu", scale=0.0)
    a, h, prediction = states_of(problem)
    D, H = SIZES.D, SIZES.H
    width = 4 * (D + H) * float(np.finfo(HALF).smallest_normal)  # 2 Δa where x and h_0 are zero
    widths, slopes = [width, -width, 1.01 * width, -1.01 * width], []
    for value in widths:
        a[0, 0, 0] = value
        found = assert_as_stated(problem, (a, h, prediction))
        slopes.append(found["adjoints"][0, 0, 0])
    assert slopes[0] == slopes[1] > slopes[2] > slopes[3]


def test_where_a_product_of_infinity_and_zero_has_no_value_the_bound_is_infinite() -> None:
    problem = with_values(np.random.default_rng(0), Sizes(1, 2**11, 1, 1, 1), option="relu")
    dead = problem._replace(
        params=problem.params._replace(U=np.full((1, 1), -0.5), V=np.full((1, 1), 2.0**-20)),
        x=np.ones_like(problem.x),
        y=np.zeros_like(problem.y),
    )
    found = evaluate(dead, states_of(dead))
    assert np.isfinite(found["adjoints"]).all()
    assert found["U"] == found["V"] == np.inf  # γ_m is infinite, and no unit is active


def test_sums_as_long_as_one_over_the_unit_roundoff_have_no_bound() -> None:
    for m, bounded in [(2**11 - 1, True), (2**11, False)]:
        problem = with_values(np.random.default_rng(0), Sizes(m - 6, 1, 1, 1, 1), option="identity")
        still = problem.map_arrays(lambda values: 0.0 * values)
        found = evaluate(still, states_of(still))
        assert bool(np.isfinite(found["c"]).all()) is bounded


LARGE = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("name", ["U", "V", "y", "x"])
def test_where_one_number_may_overflow_there_is_no_bound(name: str) -> None:
    def at(size: float) -> bool:
        problem = drawn(1, "identity", "half_sse", scale=0.0)
        array = problem.weights[name] if name in "UV" else getattr(problem, name)
        array[(0,) * array.ndim] = size**0.5 if name == "y" else size
        found = assert_as_stated(problem, states_of(problem), np.float32)
        return all(bool(np.isfinite(bound).all()) for bound in found.values())

    assert at(LARGE * 2.0**-10)
    assert not at(LARGE)


def test_one_number_of_V_may_overflow_however_many_outputs_there_are() -> None:
    problem = with_values(np.random.default_rng(0), Sizes(1, 1, 1, 1, 2000), option="identity")
    still = problem.map_arrays(lambda values: 0.0 * values)
    still.params.V[0, 0] = LARGE
    found = assert_as_stated(still, states_of(still), np.float32)
    assert np.isinf(found["V"]).all()


def test_the_limits_of_bfloat16_are_known() -> None:
    form = describe_dtype(bfloat16)
    assert (form.eps, form.smallest_normal) == (2.0**-7, 2.0**-126)
    assert describe_dtype(np.dtype(bfloat16)).nmant == 7
    assert describe_dtype(np.float32).eps == 2.0**-23
    order = [np.float64, np.float32, np.float16, bfloat16]
    assert [[is_coarser(one, other) for other in order] for one in order] == [
        [i > j for j in range(4)] for i in range(4)
    ]
