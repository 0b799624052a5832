"""Mistakes told from rounding by projections of the errors on the exact gradient."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.tolerance.formats import round_once
from bptt_verifier.tolerance.projections import explain_errors, is_scaled, measure

TESTS = 1000


def neighbours(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Exact gradients at 16 neighbours of one point."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * (1 + 0.05 * rng.uniform(-1, 1, (16, *shape)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32])
def test_results_that_are_rounded_once_are_right(dtype: Any) -> None:
    exact = neighbours((6, 5))
    found = measure(round_once(exact, dtype) - exact, exact, dtype, TESTS)
    assert not found.wrong
    assert found.noise.of_rounding == pytest.approx(1)


def test_one_per_cent_on_one_slice_in_bfloat16_is_wrong_there_alone() -> None:
    exact = neighbours((4, 30))
    wrong = exact.copy()
    wrong[:, 2] *= 1.01
    found = measure(round_once(wrong, jnp.bfloat16) - exact, exact, jnp.bfloat16, TESTS)
    _, rows, columns = found.slices
    assert np.flatnonzero(rows.wrong).tolist() == [2]
    assert not columns.wrong.any()
    assert rows.factor[2] == pytest.approx(0.01, rel=0.2)


def test_a_rounded_constant_is_no_mistake() -> None:
    exact = neighbours((4, 30))
    scaled = exact * (1 + 2.0**-8)  # as far as bfloat16 may round a factor
    assert not measure(round_once(scaled, jnp.bfloat16) - exact, exact, jnp.bfloat16, TESTS).wrong


def test_noise_beyond_the_dtype_allows_for_factors_that_are_truncated() -> None:
    exact = neighbours((4, 30))
    rng = np.random.default_rng(1)
    truncated = exact * (1 - 2.0**-10 * rng.uniform(0, 1, exact.shape))
    found = measure(truncated - exact, exact, np.float32, TESTS)
    assert not found.wrong
    assert found.noise.relative > 16 * found.noise.unit


def test_a_missing_slice_of_vanishing_size_is_wrong() -> None:
    exact = neighbours((4, 30)) * (10.0 ** -np.arange(0, 4))[:, None]
    lost = exact.copy()
    lost[:, 3] = 0
    found = measure(round_once(lost, np.float32) - exact, exact, np.float32, TESTS)
    assert np.flatnonzero(found.slices[1].wrong).tolist() == [3]


def test_one_wrong_entry_is_wrong() -> None:
    exact = neighbours((4, 30))
    wrong = exact.copy()
    wrong[:, 1, 7] += 0.1 * np.abs(exact).max()
    found = measure(round_once(wrong, jnp.bfloat16) - exact, exact, jnp.bfloat16, TESTS)
    assert np.argwhere(found.wrong_entries).tolist() == [[1, 7]]


def test_a_number_where_the_gradient_is_zero_is_wrong() -> None:
    exact = neighbours((3, 5))
    exact[:, 2] = 0
    wrong = exact.copy()
    wrong[:, 2, 0] = 0.2
    assert np.argwhere(measure(wrong - exact, exact, np.float64, TESTS).wrong_entries).tolist() == [
        [2, 0]
    ]


def test_what_is_lost_beside_larger_terms_is_rounding() -> None:
    exact = neighbours((4, 5)) * np.array([1, 1, 1, 1e-4])[:, None]
    kept = round_once(exact, np.float16)
    kept[:, 3] = 0
    assert not measure(kept - exact, exact, np.float16, TESTS).wrong
    exact[:, 3] *= 100
    assert measure(kept - exact, exact, np.float16, TESTS).wrong


def imitate(sizes: Any) -> Any:
    """Errors of these sizes at 4 neighbours, alike at all of them, in 8 samples."""
    drawn = np.random.default_rng(1).normal(size=(8, 1, *np.shape(sizes)))
    return drawn * sizes * np.ones((1, 4, *[1] * np.ndim(sizes)))


def lose_digits() -> tuple[Any, Any]:
    """1 − h by a kernel that rounds h, and one row of it near 0, which it loses."""
    exact = 0.3 * neighbours((4, 30))
    exact[:, 3] = 0.02
    lost = 1 - round_once(1 - exact, jnp.bfloat16)
    lost[:, 3] = 0
    return lost - exact, exact


def test_what_cancels_alike_at_all_neighbours_is_no_mistake_where_operations_explain_it() -> None:
    (errors, exact), sizes = lose_digits(), np.full((4, 30), 2.0**-7)
    assert measure(errors, exact, jnp.bfloat16, TESTS).wrong
    explained = measure(errors, exact, jnp.bfloat16, TESTS, imitated=imitate(sizes))
    assert not explained.wrong
    assert explained.resolution < 0.06
    assert measure(errors, exact, jnp.bfloat16, TESTS, imitated=imitate(sizes / 64)).wrong
    errors[:, 1] += 0.3 * exact[:, 1]
    assert measure(errors, exact, jnp.bfloat16, TESTS, imitated=imitate(sizes)).wrong


@pytest.mark.parametrize("roundings", [1, 2])
def test_one_per_cent_is_a_mistake_if_the_results_alone_are_rounded(roundings: int) -> None:
    exact = neighbours((4, 30))
    wrong = exact if roundings == 1 else round_once(exact, jnp.bfloat16)
    errors = round_once(1.01 * wrong, jnp.bfloat16) - exact
    sizes = 2.0**-8 * np.abs(exact[0])
    sizes[0, :15] *= 100  # which may hide these entries, but does not here
    found = measure(errors, exact, jnp.bfloat16, TESTS, imitated=imitate(sizes))
    assert found.wrong
    assert found.resolution < 0.01


@pytest.mark.parametrize("scatter", [0, 0.05, 0.1, 0.2, 0.3])
def test_a_gradient_that_may_be_lost_entirely_is_not_wrong_and_its_resolution_says_so(
    scatter: float,
) -> None:
    exact = 1e-3 * (1 + np.abs(neighbours((10, 30))))
    exact *= 1 + scatter * np.random.default_rng(0).normal(size=exact.shape)
    imitated = imitate(np.full((10, 30), 1e-2))
    found = measure(-exact, exact, jnp.bfloat16, TESTS, imitated=imitated)
    assert not found.wrong
    assert found.resolution > 1 > measure(-exact, exact, jnp.bfloat16, TESTS).resolution
    errors = round_once(1.01 * exact, jnp.bfloat16) - exact
    assert measure(errors, exact, jnp.bfloat16, TESTS, imitated=imitated).wrong


def test_a_share_that_is_known_takes_the_place_of_the_one_that_fits() -> None:
    exact = 1 + 0.05 * neighbours((4, 30))
    errors = 0.1 * np.random.default_rng(1).normal(size=exact.shape)
    given = errors, exact, imitate(np.full((4, 30), 0.01)), 7.0, jnp.bfloat16
    half, whole, fitted = (explain_errors(*given, known).alike for known in (0.5, 1.0, None))
    np.testing.assert_allclose(2 * half, whole)
    np.testing.assert_allclose(fitted, whole)


def test_small_entries_may_be_lost_beside_terms_that_cancel_in_another_formula() -> None:
    exact = 0.05 * neighbours((4, 30))
    lost = round_once(exact, jnp.bfloat16)
    lost[:, 2] = 0
    exact[:, 2] *= 0.01 / np.abs(exact[:, 2]).max()
    errors = np.where(np.arange(4)[:, None] == 2, -exact, lost - exact)
    assert measure(errors, exact, jnp.bfloat16, TESTS, terms=0.1).wrong
    assert not measure(errors, exact, jnp.bfloat16, TESTS, terms=2.0).wrong


@pytest.mark.parametrize("shape", [(4, 30), (30,)])
def test_an_error_of_one_entry_is_seen_from_the_size_that_is_stated(shape: Any) -> None:
    exact = neighbours(shape) * np.geomspace(1e-3, 1, 30)
    rounded = round_once(exact, jnp.bfloat16) - exact
    found = measure(rounded, exact, jnp.bfloat16, TESTS)
    assert (found.visible <= found.limit).all()
    assert (found.visible < found.limit).any()  # in a slice with it
    for column in (0, 15, 29):
        entry = (*[1] * (len(shape) - 1), column)
        for times, seen in ((0.7, False), (1.4, True)):
            errors = rounded.copy()
            errors[(slice(None), *entry)] += times * found.visible[entry]
            assert measure(errors, exact, jnp.bfloat16, TESTS).wrong == seen


@pytest.mark.parametrize(("factor", "scaled"), [(1.01, True), (-1, True), (0, False)])
def test_a_multiple_of_the_gradient_has_lost_no_digits(factor: float, scaled: bool) -> None:
    exact = neighbours((4, 30))
    errors = round_once(factor * exact, jnp.bfloat16) - exact
    assert is_scaled(errors, exact, jnp.bfloat16) == scaled
    errors[0, 0, 0] += 0.1
    assert not is_scaled(errors, exact, jnp.bfloat16)


@pytest.mark.parametrize("factor", [0.0, 1.001, 1.03])
@pytest.mark.parametrize("number", [1, 3, 8])
def test_a_mistake_on_few_entries_does_not_widen_their_bounds(number: int, factor: float) -> None:
    exact = neighbours((9, 9))
    wrong = exact.copy()
    wrong[:, np.arange(number), 3] *= factor
    found = measure(round_once(wrong, np.float32) - exact, exact, np.float32, TESTS)
    assert np.argwhere(found.wrong_entries).tolist() == [[k, 3] for k in range(number)]


def test_noise_of_most_entries_is_that_of_a_coarser_format() -> None:
    exact = neighbours((9, 9))
    rng = np.random.default_rng(1)
    truncated = exact * (1 - 2.0**-10 * rng.uniform(0, 1, exact.shape))
    for columns in (slice(None), slice(4, None)):  # all of the entries, and five ninths
        submitted = round_once(exact, np.float32)
        submitted[..., columns] = truncated[..., columns]
        assert not measure(submitted - exact, exact, np.float32, TESTS).wrong
