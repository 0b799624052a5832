"""The bound on tangents is the one that docs/derivation.md, section 18, states, term by term."""

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import ACTIVATIONS, LOSSES, Problem, Sizes
from bptt_verifier.tolerance.bounds import Bounds, bound_forward, find_extent, find_format
from bptt_verifier.tolerance.tangent_bounds import bound_tangents
from tests.support.stated_bound import states_of
from tests.support.stated_tangent_bound import stated_tangent_bound

# In half precision no term is small: u is 2^-11, and the smallest normal number 2^-14.
HALF = np.float16
SIZES = Sizes(2, 2, 3, 2, 3)
PARTS = "U W V b c x h0".split()


def draw(activation: str, loss: str, sizes: Sizes = SIZES) -> tuple[Problem, Any]:
    """A small problem, and a direction."""
    rng = np.random.default_rng(0)
    problem = with_values(rng, sizes, option=activation, loss=loss, bias=True, initial_state=True)
    T, B, D, H, O = sizes
    shapes = (H, D), (H, H), (O, H), (H,), (O,), (T, B, D), (B, H)
    moved = (0.25 * rng.normal(size=shape) for shape in shapes)
    direction = SimpleNamespace(**dict(zip(PARTS, moved, strict=True)))
    return problem.map_arrays(lambda values: 0.25 * values), direction


def find_bounds(problem: Problem, direction: Any, dtype: Any = HALF) -> tuple[Any, Any, float]:
    """The bounds of the module, those that are stated, and the largest number inside."""
    a, h, prediction = states_of(problem)
    states: Any = SimpleNamespace(a=a, h=h, prediction=prediction)
    option, given = problem.option, (problem.params, problem.x, problem.y)
    extent = find_extent(problem.params, problem.x)
    forward = bound_forward(
        *given, states, find_format(dtype), extent, option["activation"], problem.loss
    )
    reference: Any = SimpleNamespace(states=states)
    found = bound_tangents(
        problem.params, direction, *given[1:], reference, dtype=dtype, loss=problem.loss, **option
    )
    stated, largest = stated_tangent_bound(problem, direction, forward, dtype)
    return found._asdict(), stated, largest * (1 + np.abs(problem.x).max() + forward.h.max())


@pytest.mark.parametrize(("activation", "loss"), [*product(ACTIVATIONS, LOSSES)])
@pytest.mark.parametrize("dtype", [HALF, np.float32])
def test_every_bound_is_that_of_the_equations(activation: str, loss: str, dtype: Any) -> None:
    found, stated, _ = find_bounds(*draw(activation, loss), dtype)
    for name in Bounds._fields:
        assert np.isfinite(found[name]).all()
        np.testing.assert_allclose(found[name], stated[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("absent", PARTS)
def test_an_absent_part_of_a_direction_is_zero(absent: str) -> None:
    problem, direction = draw("tanh", "mse")
    setattr(direction, absent, None)
    found, stated, _ = find_bounds(problem, direction)
    for name in Bounds._fields:
        np.testing.assert_allclose(found[name], stated[name], rtol=1e-12, err_msg=name)


def test_bounds_are_infinite_where_something_may_overflow() -> None:
    problem, direction = draw("tanh", "mse")

    def scale(factor: float) -> Any:
        return SimpleNamespace(**{name: factor * getattr(direction, name) for name in PARTS})

    _, _, largest = find_bounds(problem, scale(1000.0))
    limit = 1000 * float(np.finfo(HALF).max) / largest
    for part, finite in ((0.999, True), (1.001, False)):
        found, _, _ = find_bounds(problem, scale(part * limit))
        assert all(np.isfinite(each).all() == finite for each in found.values())
        assert finite or all(np.isinf(each).all() for each in found.values())


def test_sums_of_too_many_terms_have_no_bound() -> None:
    """2045 sequences of zeros: from 2048 roundings on, u times their number is 1."""
    problem, direction = draw("tanh", "mse", Sizes(1, 2045, 1, 1, 1))
    for name in PARTS:
        setattr(direction, name, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        found, _, _ = find_bounds(problem, direction)
    for name in ("loss", "c", "b", "U", "W", "V"):
        assert np.isposinf(found[name]).all()
    assert np.isfinite(found["h0"]).all()
