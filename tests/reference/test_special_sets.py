"""Parameters are in a special set where they satisfy its equation, and not by a simple choice."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference.special_sets import find_set, find_sets

rng = np.random.default_rng(3)
FREE = rng.normal(size=(3, 3))
TALL, WIDE = np.linalg.qr(rng.normal(size=(5, 3)))[0], np.linalg.qr(rng.normal(size=(4, 2)))[0].T
SHARES = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
ROWS = np.array([[0.6, 0.8], [-0.8, 0.6], [0.28, 0.96]])

# fmt: off
IN_SETS: dict[str, list[Any]] = {
    "symmetric": [
        FREE + FREE.T, np.array([[1.0, 0.3], [0.3, 1.0]]), np.stack([FREE + FREE.T, FREE @ FREE.T]),
        (FREE + FREE.T).astype(np.float32), 1e-30 * (FREE + FREE.T), (FREE + FREE.T)[None, None],
        0.5 ** np.abs(np.subtract.outer(range(3), range(3))),
    ],
    "antisymmetric": [FREE - FREE.T, np.array([[0.0, 2.0], [-2.0, 0.0]])],
    "orthonormal": [
        TALL, WIDE, TALL.astype(np.float32), np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    ],
    "of rows of length 1": [ROWS, ROWS[None]],
    "of columns of length 1": [ROWS.T, ROWS[:1].T],
    "of positive rows whose sums are 1": [SHARES],
    "of positive columns whose sums are 1": [SHARES.T],
    "a vector of length 1": [ROWS[0], np.full(4, 0.5)],
    "a vector of positive numbers whose sum is 1": [SHARES[0], np.full(3, 1 / 3)],
}
# fmt: on


@pytest.mark.parametrize("said", IN_SETS)
def test_a_set_is_found_and_its_nearest_array(said: str) -> None:
    for value in IN_SETS[said]:
        found = find_set(value)
        assert found is not None, value
        assert found.said == said
        assert found.project(value).dtype == value.dtype
        np.testing.assert_allclose(found.project(value), value, rtol=1e-5)
        moved = value * (1 + 0.3 * rng.normal(size=value.shape))
        inside = found.project(moved)
        assert found.has(inside)
        assert not found.has(moved)
        assert np.max(np.abs(inside - moved)) <= 2 * np.max(np.abs(moved - value))


OUTSIDE: dict[str, Any] = {
    "free": FREE,
    "almost symmetric": FREE + FREE.T + 1e-12 * FREE,
    "of three numbers": 0.5 * np.eye(4, k=1) + 0.5 * np.eye(4, k=-1) + np.eye(4),
    "zeros": np.zeros((3, 3)),
    "the identity": np.eye(3),
    "a diagonal": np.diag([1.0, 2.0, 3.0]),
    "ones": np.ones((3, 3)),
    "one number": np.full((2, 2), 0.1),
    "one number beside ones": np.eye(3) + 0.5,
    "a permutation": np.eye(3)[[2, 0, 1]],
    "some rows of the identity": np.eye(4)[:2],
    "one entry": np.ones(1),
    "a number": np.array(1.0),
    "one of several": np.array([0.0, 1.0, 0.0]),
    "a negative share": np.array([-0.5, 1.5]),
    "integers": np.array([[1, 2], [2, 3]]),
    "none": np.zeros((0, 3)),
    "not finite": np.array([[np.nan, 1.0], [1.0, 2.0]]),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_free_and_simple_values_are_in_no_set(name: str) -> None:
    assert find_set(OUTSIDE[name]) is None


@pytest.mark.parametrize(("ulps", "inside"), [(60, True), (64, False), (-60, True), (-64, False)])
def test_an_array_may_miss_a_set_by_its_rounding(ulps: int, inside: bool) -> None:
    value = np.array([[1.0, 0.25], [0.25 + 2 * ulps * np.finfo(float).eps, 0.5]])
    assert (find_set(value) is not None) is inside


def test_the_sets_of_parameters_have_their_names() -> None:
    found = find_sets({"S": FREE + FREE.T, "W": FREE, "q": ROWS[0]})
    assert {name: each.said for name, each in found.items()} == {
        "S": "symmetric",
        "q": "a vector of length 1",
    }
