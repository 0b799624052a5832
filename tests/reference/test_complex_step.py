"""Complex steps of the independent forward passes give the gradients of every cell."""

import numpy as np
import pytest

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import CELLS, LOSSES, OPTIONS, Sizes
from bptt_verifier.reference.complex_step import collect_point, differentiate, sigmoid


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("cell", "option"), [(cell, option) for cell in CELLS for option in OPTIONS[cell]]
)
def test_every_gradient_of_every_cell_is_the_derived_one(cell: str, option: str, loss: str) -> None:
    problem = with_values(
        np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), cell=cell, option=option, loss=loss,
        bias=True, initial_state=True,
    )  # fmt: skip
    _, derived = CELLS[cell].gradients(
        problem.params, problem.x, problem.y, **problem.first, **problem.options
    )
    found = differentiate(problem)
    assert found.keys() == derived._asdict().keys()
    for name, value in found.items():  # rounding errors are some units of 2⁻⁵³
        np.testing.assert_allclose(value, getattr(derived, name), rtol=0, atol=2.0**-46)


def test_absent_biases_and_states_count_as_zeros_in_float64() -> None:
    problem = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), dtype=np.float32)
    point = collect_point(problem)
    assert {name for name, value in point.items() if not value.any()} == {
        "b",
        "c",
        "h0",
        "adjoints",
    }
    assert {value.dtype for value in point.values()} == {np.dtype(np.float64)}


def test_at_its_kink_a_relu_has_the_slope_zero() -> None:
    problem = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), option="relu")
    still = problem._replace(x=np.zeros_like(problem.x))
    assert not differentiate(still)["adjoints"].any()


def test_a_sigmoid_of_a_large_number_does_not_overflow() -> None:
    np.testing.assert_array_equal(sigmoid(np.array([-1e4 + 1e-60j, 1e4 + 1e-60j])), [0, 1])
