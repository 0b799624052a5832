"""What the scatter of errors at neighbouring points tells."""

import numpy as np
import pytest
from scipy import stats

from bptt_verifier.tolerance.scatter import (
    DISTANCE,
    FAR,
    IN_HALF,
    NEAR,
    NEARER,
    NEIGHBOURS,
    displace,
    find_critical_ratio,
    find_normal_ratio,
    measure_scatter,
)


def test_rounding_alone_is_called_a_mistake_as_rarely_as_is_promised() -> None:
    entries, trials, promised = 10, 20_000, 0.02
    errors = np.random.default_rng(1).normal(size=(NEIGHBOURS, trials, entries))
    ratio = np.abs(errors.mean(axis=0)) / errors.std(axis=0, ddof=1)
    alarms = (ratio > find_critical_ratio(NEIGHBOURS, entries, promised)).any(axis=1).mean()
    deviation = (promised / trials) ** 0.5
    assert promised - promised**2 / 2 - 4 * deviation < alarms < promised + 4 * deviation


def test_more_entries_and_fewer_neighbours_need_a_larger_mean() -> None:
    assert find_critical_ratio(16, 10**6) > find_critical_ratio(16, 10**3) > 4
    assert find_critical_ratio(8, 10**3) > 3 * find_critical_ratio(16, 10**3)


def test_of_two_errors_the_ratio_has_the_distribution_of_cauchy() -> None:
    # Student's t of one degree of freedom, whose quantile is a tangent.
    expected = np.tan(np.pi / 2 * (1 - 0.05 / 10)) / 2**0.5
    assert find_critical_ratio(2, 10, false_alarm=0.05) == pytest.approx(expected)


def test_a_normal_error_exceeds_its_ratio_on_either_side_as_rarely_as_is_promised() -> None:
    for entries, promised in [(1, 0.05), (10, 0.05), (10**6, 1e-9)]:
        ratio = find_normal_ratio(entries, promised)
        assert 2 * entries * stats.norm.sf(ratio) == pytest.approx(promised, rel=1e-9)
    assert find_normal_ratio(10) == find_normal_ratio(10, 1e-9)


def test_the_limit_is_that_of_the_derivation() -> None:
    """(N3), with s of each entry and s̄ in units of the bounds: docs/derivation.md, section 10."""
    errors = np.array([[4.0, 1e-3], [0.0, 1e-3], [2.0, 4e-3], [4.0, 1e-3]])
    allowed, spacing, entries = np.array([2.0, 0.5]), np.array([0.25, 0.125]), 50
    s = errors.std(axis=0, ddof=1)
    of_all = np.sqrt(np.mean((s / allowed) ** 2)) * allowed
    assert of_all[1] / 4 > s[1]
    t = stats.t.isf(1e-9 / (2 * entries), df=3)
    expected = t / 2 * np.maximum(s, of_all / 4) + spacing
    for unit in (1.0, 1e-200, 1e200):  # of the bounds: only their ratios count
        found = measure_scatter(list(errors), unit * allowed, spacing, entries)
        np.testing.assert_allclose(found.limit, expected, rtol=1e-9)
        np.testing.assert_allclose(found.mean, errors.mean(axis=0))


def test_an_entry_of_which_any_error_is_allowed_has_the_scatter_that_it_shows() -> None:
    scatter = measure_scatter([np.ones(2)] * 4, np.array([np.inf, 1.0]), np.full(2, 0.5), 2)
    assert scatter.limit.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_an_error_that_stays_exceeds_the_noise_and_one_that_scatters_does_not(
    offset: float,
) -> None:
    errors = np.random.default_rng(2).normal(size=(NEIGHBOURS, 5, 4)) + offset
    scatter = measure_scatter(list(errors), np.ones((5, 4)), np.zeros((5, 4)), 20)
    assert bool(np.all(scatter.mean > scatter.limit)) is (offset > 0)
    assert scatter.mean.shape == scatter.limit.shape == (5, 4)


def test_an_entry_whose_errors_are_alike_by_chance_has_part_of_the_gradients_scatter() -> None:
    errors = np.random.default_rng(3).normal(size=(NEIGHBOURS, 100))
    errors[:, 7] = 1.0  # the same rounding error at every neighbour
    scatter = measure_scatter(list(errors), np.ones(100), np.zeros(100), 100)
    assert scatter.mean[7] == 1.0 < scatter.limit[7]
    smaller = np.where(np.arange(100) == 7, 1e-3, 1.0)  # its rounding errors are
    assert measure_scatter(list(errors), smaller, np.zeros(100), 100).limit[7] < 1.0


def test_a_result_that_stays_the_same_number_may_be_off_by_one_spacing() -> None:
    errors = [np.full(3, 0.5)] * NEIGHBOURS
    assert np.all(measure_scatter(errors, np.ones(3), np.full(3, 0.5), 3).mean <= 0.5)
    assert not np.any(measure_scatter(errors, np.ones(3), np.full(3, 0.5), 3).limit < 0.5)
    assert np.all(measure_scatter(errors, np.ones(3), np.full(3, 0.25), 3).limit < 0.5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_neighbour_is_near_in_the_same_format_and_keeps_zeros(dtype: type) -> None:
    values = np.array([[0.0, 1.0, -3.0], [2.0, 0.0, 5.0]], dtype)
    moved = displace(values, FAR, np.random.default_rng(4))
    assert moved.dtype == dtype
    assert np.array_equal(moved == 0, values == 0)
    distance = FAR + np.finfo(dtype).eps
    assert np.all(np.abs(moved - values) <= distance * np.abs(values))
    assert np.any(moved != values)


def test_neighbours_are_on_both_sides_and_nowhere_further_than_stated() -> None:
    values = np.array([[-2.0], [5.0]]) * np.ones(500)
    ratio = displace(values, 0.5, np.random.default_rng(6)) / values
    assert 0.5 <= ratio.min() < 0.51
    assert 1.49 < ratio.max() <= 1.5
    assert abs(ratio.mean() - 1) < 0.05


def test_neighbours_are_near_and_many_roundings_away() -> None:
    # The nearest are thousands of units of float32 away; those for half precision, 64 of its units,
    # and those for a submission whose format is not known may be taken for it.
    single, half = float(np.finfo(np.float32).eps), float(np.finfo(np.float16).eps)
    assert 1000 * single < DISTANCE
    assert DISTANCE <= FAR / 4 <= IN_HALF / 16
    assert 8 * half < FAR
    assert 64 * half == IN_HALF
    # The nearest of all still draw float32's rounding anew: they are 2⁸ of its units away, and what
    # a mistake changes with the point is a 64th.
    assert NEAR == 2**8 * single / 2 == DISTANCE / 64
    # A mistake that is proportional to the arguments stays: its mean is far above its scatter.
    for distance in (DISTANCE, FAR, IN_HALF):
        rng = np.random.default_rng(7)
        errors = [displace(np.ones(3), distance, rng) for _ in range(NEIGHBOURS)]
        found = measure_scatter(errors, np.ones(3), np.zeros(3), 10**5)
        assert (found.mean > 3 * found.limit).all()


def test_the_nearest_points_are_many_roundings_away_in_float64_and_none_in_float32() -> None:
    assert 2**17 * np.finfo(np.float64).eps / 2 == NEARER
    values = np.linspace(1.0, 2.0, 9)
    for dtype, moves in [(np.float64, True), (np.float32, False)]:
        given = values.astype(dtype)
        moved = displace(given, NEARER, np.random.default_rng(8)) != given
        assert moved.all() == moved.any() == moves


def test_integers_are_not_moved() -> None:
    tokens = np.arange(6)
    moved = displace(tokens, FAR, np.random.default_rng(5))
    assert np.array_equal(moved, tokens)
    assert moved is not tokens


def test_a_constant_error_of_a_gradient_that_is_zero_does_not_scatter() -> None:
    errors = [np.full(3, 1e-9)] * 16
    scatter = measure_scatter(errors, np.full(3, 1e-307), np.full(3, 1e-25), entries=100)
    assert (scatter.mean > 1e10 * scatter.limit).all()


def test_zeros_are_moved_by_a_part_of_a_size_or_not_at_all() -> None:
    values = np.array([0.0, 2.0, 0.0])
    stayed = displace(values, 0.5, np.random.default_rng(0))
    moved = displace(values, 0.5, np.random.default_rng(0), size=4.0)
    assert stayed[0] == stayed[2] == 0
    assert moved[1] == stayed[1] != 2
    assert np.all(moved[[0, 2]] != 0)
    assert np.all(np.abs(moved[[0, 2]]) <= 2)


def test_what_is_alike_at_all_neighbours_does_not_scatter_however_large_it_is() -> None:
    garbage = np.array([-1.25e303, 3e175, 2.0])
    found = measure_scatter([garbage] * 16, np.full(3, 1e-13), np.full(3, 1e-16), 10)
    np.testing.assert_allclose(found.mean, np.abs(garbage))
    assert (found.limit < 1e-12 * found.mean).all()
    moving = [garbage * (1 + 0.5 * (-1) ** k) for k in range(16)]
    found = measure_scatter(moving, np.full(3, 1e-13), np.full(3, 1e-16), 10)
    assert np.isfinite(found.limit).all()
    np.testing.assert_allclose(found.limit[1] / 3e175, found.limit[0] / 1.25e303, rtol=1e-6)


def test_errors_whose_squares_overflow_scatter_as_others_do_and_zeros_do_not() -> None:
    errors = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    allowed, size = np.array([1.0, 1.0]), np.array([1e200, 1.0])
    usual = measure_scatter(list(errors), allowed, np.zeros(2), 10)
    large = measure_scatter(list(errors * size), allowed * size, np.zeros(2), 10)
    assert np.isfinite(usual.limit).all()
    np.testing.assert_allclose(large.limit, usual.limit * size, rtol=1e-15)  # 5 roundoffs
    np.testing.assert_allclose(large.mean, usual.mean * size, rtol=1e-15)
