"""Random programs of NumPy operations give NumPy's numbers over JAX, and their derivatives.

JAX evaluates one operation after the other here, so that nothing is fused.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.program.decisions import note_decisions
from bptt_verifier.program.numpy_code import over_jax, trace_arrays
from bptt_verifier.program.precision import use_float64

DIRECTION = np.random.default_rng(6).normal(size=(3, 2))
ROWS = np.array([2, 0, 2])
MASK = np.array([[True, False], [False, True], [True, True]])


def scale(a, b, k):
    a[...] = b * (k - 1.5)


def assign_row(a, b, k):
    a[k] = b[-1]


def assign_slice(a, b, k):
    a[:k] = b[::-1][:k]


def assign_shifted(a, b, k):
    a[1:] = a[:-1]


def assign_column(a, b, k):
    a[:, k % 2] = 2 * b[:, 1]


def assign_rows(a, b, k):
    a[ROWS] = b


def assign_mask(a, b, k):
    a[MASK] = b[MASK] - k


def assign_where_negative(a, b, k):
    a[b < 0] = k


def shrink_where_large(a, b, k):
    a[a > 1] *= 0.25


def assign_constant(a, b, k):
    a[k:, :1] = k


def add_in_place(a, b, k):
    a += b


def subtract_from_view(a, b, k):
    view = a.T[k % 2]
    view -= b[:, 0]


def multiply_view_of_view(a, b, k):
    a[1:][::-1] *= b[:2]


def add_out(a, b, k):
    np.add(a, b, out=a[:])


def add_where(a, b, k):
    np.multiply(b, b, out=a, where=MASK)


def add_repeatedly(a, b, k):
    np.add.at(a, ROWS, 0.5 * b)


def fill(a, b, k):
    a[k - 1 : k].fill(b[0, 0])


def copy_to(a, b, k):
    np.copyto(a, b.copy().reshape(2, 3).T)


def put_diagonal(a, b, k):
    np.fill_diagonal(a, b[0] + 1)


def through_float32(a, b, k):
    a[:] = b.astype(np.float32) * np.float32(0.1)


def through_integers(a, b, k):
    counts = np.zeros(3, dtype=int)
    counts[:] = b[:, 0] * 10
    a[:, 0] += counts // 2


def into_flat(a, b, k):
    a.ravel()[k::2] = b.flat[k]


def wrong_shape(a, b, k):
    a += b.T


def wrong_cast(a, b, k):
    integers = np.ones((3, 2), dtype=int)
    integers += b


def larger(a, b, k):
    a[:] = np.maximum(a, np.where(b > 0, b, a * a))


def joined(a, b, k):
    a[:] = np.concatenate([b[k:], a[:k]], axis=0)


def branch(a, b, k):
    if a[0, 0] > b[0, 0]:
        a[0] = b[0]
    else:
        a[int(abs(b[1, 1])) % 3] = k


STEPS: list[Callable[[Any, Any, int], None]] = [
    scale, assign_row, assign_slice, assign_shifted, assign_column, assign_rows, assign_mask,
    assign_where_negative, shrink_where_large, assign_constant, add_in_place, subtract_from_view,
    multiply_view_of_view, add_out, add_where, add_repeatedly, fill, copy_to, put_diagonal,
    through_float32, through_integers, into_flat, wrong_shape, wrong_cast, larger, joined, branch,
]  # fmt: skip
X = np.random.default_rng(5).normal(size=(3, 2))
program = st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))


def run(x: Any, steps: Any) -> list[Any]:
    """Run a program on x and two buffers, and a view of one of them."""
    arrays = [x, np.zeros((3, 2)), np.full((3, 2), 0.5)]
    for step, i, j, k in steps:
        try:
            step(arrays[i], arrays[j], k)
        except (ValueError, TypeError, IndexError):
            arrays[j][k] = arrays[j][k] + 1
    return arrays


@pytest.mark.rest
@given(st.lists(program, min_size=1, max_size=6))
def test_a_program_gives_the_numbers_of_numpy(steps: Any) -> None:
    expected = run(X.copy(), steps)
    with use_float64(), note_decisions():
        traced = trace_arrays(lambda p: run(p["x"], steps), {"x": X})
        found = traced({"x": jax.numpy.asarray(X)})
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, np.asarray(other)), [(s.__name__, *n) for s, *n in steps]


ROUGH = (through_float32, through_integers)  # they have no derivative in NumPy
smooth = st.lists(program.filter(lambda step: step[0] not in ROUGH), min_size=1, max_size=4)


@pytest.mark.rest
@given(smooth)
def test_a_program_has_the_derivative_of_its_differences(steps: Any) -> None:
    def total(p: Any) -> Any:
        weights = np.arange(1.0, 7.0).reshape(3, 2) / 10
        return sum((weights * array).sum() for array in run(p["x"], steps))

    with use_float64(), note_decisions():
        found = jax.grad(over_jax(total, {"x": X}))({"x": X})["x"]
    slope = float(np.sum(np.asarray(found) * DIRECTION))
    above, below = (total({"x": X + step * DIRECTION}) for step in (1e-6, -1e-6))
    assert abs((above - below) / 2e-6 - slope) <= 1e-6 * (1 + abs(slope)), steps
