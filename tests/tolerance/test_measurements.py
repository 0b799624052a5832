"""What is measured of errors at neighbours, with numbers by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.tolerance.bounds import ELEMENTARY
from bptt_verifier.tolerance.projections import (
    Explained,
    Measurement,
    Noise,
    Slices,
    allow_bias,
    allow_loss,
    explain_errors,
    find_common_size,
    find_kept,
    find_precise,
    find_visible,
    is_scaled,
    limit_noise,
    measure,
    measure_noise,
    measure_slices,
    remove_factor,
    root_mean_square,
    scatter_alone,
    scatter_around,
)
from bptt_verifier.tolerance.scatter import find_critical_ratio

HALF, SINGLE = 2.0**-8, 2.0**-24
TINY = 2.0**-126  # the smallest normal number of float32 and bfloat16
NOTHING = Noise(0.0, SINGLE, 0.0, 0.0)


def slices(axis: int | None, factor: Any, limit: Any, noise: Any = 0.0) -> Slices:
    factor, limit, noise = (np.atleast_1d(np.float64(each)) for each in (factor, limit, noise))
    return Slices(axis, factor, limit, np.abs(factor), noise)


def test_what_exceeds_its_limit_is_wrong() -> None:
    whole, rows = slices(None, 0.1, 0.2), slices(0, [0.5, -0.5, 0.4], [0.5, 0.4, 0.5])
    assert rows.wrong.tolist() == [False, True, False]
    right = Measurement(NOTHING, (whole,), np.array([1.0, -1.0]), np.array([1.0, 2.0]), whole.limit)
    assert not right.wrong_entries.any()
    assert not right.wrong
    assert right._replace(mean=np.array([-1.1, 0])).wrong_entries.tolist() == [True, False]
    assert right._replace(mean=np.array([-1.1, 0])).wrong
    assert right._replace(slices=(whole, rows)).wrong
    assert not right.explained
    assert right.resolution == 0.2
    assert right.excess == 1
    assert right._replace(slices=(whole, rows)).excess == pytest.approx(1.25)
    assert right._replace(mean=np.zeros(2), limit=np.zeros(2)).excess == 0.5


# Entries of ones have a projection of their error ÷ the sum of the squares.
def test_an_error_of_an_entry_shows_in_it_or_in_a_slice() -> None:
    exact, limit = np.ones((2, 2, 3)), np.array([[0.1, 1, 9], [9, 9, 9]])
    none = slices(None, 0, np.inf)
    assert find_visible(exact, limit, [none]).tolist() == limit.tolist()
    assert find_visible(exact, limit, [slices(None, 0, 0.5)]).tolist() == [[0.1, 1, 3], [3, 3, 3]]
    rows, columns = slices(0, [0, 0], [1, 2]), slices(1, [0] * 3, [1, 2, 3])
    assert find_visible(exact, limit, [none, rows]).tolist() == [[0.1, 1, 3], [6, 6, 6]]
    assert find_visible(exact, limit, [columns]).tolist() == [[0.1, 1, 6], [2, 4, 6]]
    assert find_visible(2 * exact, limit, [columns]).tolist() == [[0.1, 1, 9], [4, 8, 9]]
    zero = exact * [0, 1, 1]
    assert find_visible(zero, limit, [columns]).tolist() == [[0.1, 1, 6], [9, 4, 6]]


def test_errors_that_are_alike_are_allowed_by_the_format_and_by_the_noise() -> None:
    found = allow_bias(np.array([0, 1, 3, 100]) * HALF, jnp.bfloat16)
    assert (found / HALF).tolist() == [1, 1, 3, 100]
    found = allow_bias(np.array([0, 15, 16, 17]) * SINGLE, np.float32)
    assert (found / SINGLE).tolist() == [ELEMENTARY, ELEMENTARY, 16, 8 * 17]


def test_noise_is_a_few_times_that_near_the_point_at_most() -> None:
    assert limit_noise(1.0, 2.0**-4) == 2.0**-2
    assert limit_noise(1.0, 2.0**-14) == 2.0**-11
    assert limit_noise(1e-9, 1.0) == 1e-9


def test_scatter_is_what_a_factor_and_the_mean_leave() -> None:
    exact, errors = np.array([[1.0], [3.0]]), np.array([[2.0], [6.0]])
    assert scatter_around(errors, 2.0, exact).tolist() == [[0], [0]]
    np.testing.assert_allclose(scatter_around(errors, 0.0, exact), [[-(8**0.5)], [8**0.5]])
    np.testing.assert_allclose(scatter_around(errors, 1.0, exact), [[-(2**0.5)], [2**0.5]])


def test_the_scatter_of_an_entry_is_without_its_mean_or_its_factor() -> None:
    exact = np.array([[1.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
    errors = np.array([[2.0, 5.0, -1.0], [6.0, 5.0, 1.0]])
    np.testing.assert_allclose(scatter_alone(errors, exact), [0, 0, 2**0.5])
    errors = np.array([[-1.0, 0, 0], [1.0, 0, 0]])  # the factor of the first is 2/10
    left = np.array([-1.2, 0.4])
    np.testing.assert_allclose(scatter_alone(errors, exact)[0], 2**0.5 * left.std())


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_entries_are_precise_if_most_scatter_as_in_the_format(dtype: Any) -> None:
    unit = 16 / 2**0.5 * SINGLE  # ± this scatters by 16 units
    signs, few = np.array([[1.0], [-1.0]]), dtype == np.float32
    exact = np.ones((2, 5)) * [1, 2, 4, 1, 0]
    errors = signs * unit * [0.99, 1.98, 3.96, 1.01, 0]
    expected = [few, few, few, False, False]
    assert find_precise(errors, exact, dtype).tolist() == expected
    errors[:, 1] *= 1.02
    assert not find_precise(errors, exact, dtype).any()  # two of four
    assert find_precise(errors[:, 1:3], exact[:, 1:3], dtype).tolist() == [False, False]
    assert find_precise(errors[:, [0, 2, 3]], exact[:, [0, 2, 3]], dtype).tolist() == [
        few,
        few,
        False,
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_entries_are_kept_if_they_follow_the_exact_ones(dtype: Any) -> None:
    unit, signs = 16 / 2**0.5 * SINGLE, np.array([[1.0], [-1.0]])
    exact = np.ones((2, 7)) * [1, 1, 2, 0, 1, 1, 1]
    errors = signs * unit * [0.99, 1.01, 1.98, 0, 0, 0, 0] + [0, 0, 0, 0, -1, -0.5, -0.51]
    expected = [True, False, True, False, False, True, False]
    if dtype == np.float16:
        expected = [False] * 7
    assert find_kept(errors, exact, dtype).tolist() == expected
    for size in (1.0, 2.0**-10):
        moving = size * np.array([[1.0], [3.0]])
        assert find_kept(0.5 * moving, moving, dtype).tolist() == [dtype == np.float32]


def test_entries_that_are_small_beside_a_number_may_be_lost_whole() -> None:
    exact = np.array([[3.0, 1, 0, 7], [4.0, 7, 0, 1]])  # √12.5 = 3.54, and √25 = 5
    assert allow_loss(exact, 4.0).tolist() == [4, 0, 4, 0]
    assert allow_loss(exact, 5.0).tolist() == [5, 0, 5, 0]
    assert allow_loss(exact, 5.1).tolist() == [5.1] * 4


def test_sizes_over_samples_are_of_means_over_neighbours() -> None:
    samples = np.array([[[1.0], [5.0]], [[-4.0], [-4.0]]])
    np.testing.assert_allclose(find_common_size(samples), [12.5**0.5])
    assert root_mean_square(np.array([3.0, -4.0])) == 12.5**0.5
    assert root_mean_square(np.zeros(0)) == 0


def test_the_factor_that_fits_best_is_removed() -> None:
    factor, left = remove_factor(np.array([3.0, 1.0]), np.array([1.0, 1.0]))
    assert factor == 2
    assert left.tolist() == [1, -1]
    assert remove_factor(np.ones(2), np.zeros(2))[0] == 0


# Of (1, 1) and an error of (e, −e), the factor is 0, and two roundings are 2 u.
@pytest.mark.parametrize("size", [1.0, 1e-300])
def test_a_multiple_has_two_roundings_of_its_own_size(size: float) -> None:
    exact, signs = np.array([[size, size]]), np.array([[1.0, -1.0]])
    for times in (1.0, 2.0, 0.5, -3.0):
        most = 2 * (SINGLE * size * abs(times) + TINY)
        for part in (0.99, 1.01):
            errors = (times - 1) * exact + part * most * signs
            if size == 1.0 or times == 1.0:
                assert is_scaled(errors, exact, np.float32) == (part < 1)
    assert is_scaled(2 * SINGLE * np.array([[1.0, -1.0]]), np.ones((1, 2)), np.float32)
    assert not is_scaled(-0.51 * exact, exact, np.float64)
    assert is_scaled(np.zeros((1, 2)), np.zeros((1, 2)), np.float64) is False
    assert is_scaled(np.zeros((1, 2)), np.array([[0.0, 1.0]]), np.float64) is True


def scatter(mean: float, size: float) -> Any:
    """Factors of this mean at four neighbours, whose standard deviation is 2/√3 of a size."""
    return mean + size * np.array([1.0, -1.0, 1.0, -1.0])[:, None, None]


EXACT = np.tile([[1.0, 2.0, 2.0], [4.0, 4.0, 2.0]], (4, 1, 1))  # of sizes √9, √36 and √45
RATIO, SIZE = 3.0, 2.0**-10
DEVIATION = SIZE * 2 / 3**0.5


def project(errors: Any, exact: Any = EXACT, dtype: Any = np.float64, **other: Any) -> list[Slices]:
    nothing = Explained(np.zeros((1, 1, *exact.shape[1:])), np.zeros(exact.shape[1:]))
    given = {"doubt": np.zeros_like(exact), "near": None, "explained": nothing} | other
    return [*measure_slices(errors, exact, dtype, ratio=RATIO, **given)]


def test_slices_have_a_factor_and_a_limit_of_the_scatter_and_what_is_alike() -> None:
    found = project(scatter(0.25, SIZE) * EXACT)
    assert [each.axis for each in found] == [None, 0, 1]
    assert [each.factor.size for each in found] == [1, 2, 3]
    for each in found:
        np.testing.assert_allclose(each.factor, 0.25)
        np.testing.assert_allclose(each.error, 0.25)
        np.testing.assert_allclose(each.noise, DEVIATION)
        np.testing.assert_allclose(each.limit, (RATIO + 8) * DEVIATION)
    (near, *_) = project(
        scatter(0.25, SIZE) * EXACT,
        near=Measurement(NOTHING, (slices(None, 0, 0, 0.0), *found[1:]), EXACT, EXACT, EXACT),
    )
    np.testing.assert_allclose(near.limit, RATIO * DEVIATION + 8 * 2.0**-11)


def test_slices_that_happen_to_scatter_little_have_a_part_of_the_others() -> None:
    exact = np.ones((4, 4, 1)) * [[1.0], [1.0], [1.0], [0.0]]
    errors = scatter(0.0, SIZE) * [[1.0], [1.0], [0.0], [0.0]]
    _, rows, _ = project(errors, exact)
    expected = [(RATIO + 8) * DEVIATION] * 2 + [RATIO * DEVIATION / 4 + ELEMENTARY * 2.0**-53]
    expected += [np.inf]  # of zeros, which are no slice among the others
    np.testing.assert_allclose(rows.limit, expected)
    np.testing.assert_allclose(rows.noise, [DEVIATION, DEVIATION, 0, 0])


def test_errors_across_the_gradient_have_a_size_and_no_factor() -> None:
    across = np.tile([[2.0, 0, -1], [1.0, -1, 0]], (4, 1, 1))
    whole, rows, columns = project(0.1 * across)
    np.testing.assert_allclose(whole.factor, 0, atol=1e-15)
    np.testing.assert_allclose(whole.error, 0.1 * (7 / 45) ** 0.5)
    np.testing.assert_allclose(rows.error, [0.1 * (5 / 9) ** 0.5, 0.1 * (2 / 36) ** 0.5])
    np.testing.assert_allclose(columns.factor, [0.6 / 17, -0.4 / 20, -0.2 / 8])


def test_slices_of_zeros_or_of_zeros_to_rounding_are_not_projected_on() -> None:
    exact, errors = EXACT.copy(), 0.1 * EXACT
    exact[:, 0] = 0
    _, rows, _ = project(errors, exact)
    assert rows.limit[0] == np.inf
    assert rows.factor[0] == rows.error[0] == rows.noise[0] == 0
    np.testing.assert_allclose(rows.factor[1], 0.1)
    # The root mean squares of the rows are √3 and √12, and that of the whole √7.5.
    for doubt, unknown in ((1.7, [0, 0, 0]), (1.8, [0, 1, 0]), (2.8, [1, 1, 0]), (3.5, [1, 1, 1])):
        uncertain = np.zeros_like(EXACT)
        uncertain[1] = doubt  # at one of the neighbours
        whole, rows, _ = project(errors, doubt=uncertain)
        limits = [*whole.limit, *rows.limit]
        assert [each == np.inf for each in limits] == unknown


# An entry of a times the error that is alike, 16 u, may be lost if a < 2, and is not rounded anew
# at neighbours if a < 32: it errs by itself or by 16 u, which is 1 or 1 / a of itself.
@pytest.mark.parametrize(
    ("times", "part"), [(0.5, 1), (1.5, 1 / 1.5), (2, 1 / 2), (3, 1 / 3), (31, 1 / 31), (32, 0)]
)
def test_entries_beside_much_larger_ones_may_be_lost(times: float, part: float) -> None:
    least = ELEMENTARY * SINGLE
    exact = np.tile([[1.0, times * least]], (4, 1, 1))
    whole, _, columns = project(np.zeros_like(exact), exact, np.float32)
    expected = [least, least + part]
    np.testing.assert_allclose(columns.limit, expected, rtol=1e-12)
    np.testing.assert_allclose(whole.limit, least + part * (times * least) ** 2, rtol=1e-12)


def test_several_entries_that_are_not_rounded_anew_err_by_the_root_of_their_squares() -> None:
    least = ELEMENTARY * SINGLE
    for times, part in ((1.5, 1 / 1.5), (2.0, 2**0.5 / 4), (3.0, 2**0.5 / 6)):
        exact = np.tile([[1.0, 0, 0], [0, times * least, times * least]], (4, 1, 1))
        _, rows, _ = project(np.zeros_like(exact), exact, np.float32)
        np.testing.assert_allclose(rows.limit, [least, least + part], rtol=1e-9)


def test_what_operations_explain_is_allowed() -> None:
    alike = np.array([3.0, -4.0])[:, None, None, None] * EXACT[:2] * 1e-3
    for each in project(0 * EXACT, explained=Explained(alike, np.zeros((2, 3)))):
        np.testing.assert_allclose(each.limit, 12.5**0.5 * 1e-3)
    lost = np.array([[0.5, 0, 0], [0, 0, 0]])
    errors = np.zeros_like(EXACT)
    errors[:, 0, 0] = [-0.25, 0.75, -0.25, 0.75]  # of which 0.25 and 0.5 are explained
    one, other = (
        project(errors, explained=Explained(np.zeros((1, 1, 2, 3)), each))
        for each in (lost, 0 * lost)
    )
    for power, with_loss, without in zip((45, 9, 17), one, other, strict=True):
        np.testing.assert_allclose((with_loss.limit - without.limit)[0], 0.375 / power)


def test_a_slice_below_the_smallest_numbers_has_a_limit_of_them() -> None:
    exact = 2.0**-120 * np.array([2.0, 1, 2, 2])[:, None, None] * np.ones((4, 1, 4))
    whole = project(np.zeros_like(exact), exact, np.float32)[0]
    np.testing.assert_allclose(whole.limit, ELEMENTARY * SINGLE + 2.0**-6)


def test_noise_is_relative_and_its_bias_that_of_precise_entries() -> None:
    exact, none = np.ones((4, 1, 3)) * [3, 3, 3.0], np.zeros((1, 3), bool)
    errors = scatter(0.5, SIZE) * exact * [1, 1, 2.0**-3]
    own = DEVIATION * ((2 + 2.0**-6) / 3) ** 0.5
    found = measure_noise(errors, exact, np.float32, None, none)
    assert found.unit == SINGLE
    assert found.relative == pytest.approx(own)
    assert found.bias == pytest.approx(8 * own)
    assert found.of_rounding == 0
    precise = np.array([[False, False, True]])
    found = measure_noise(errors, exact, np.float32, None, precise)
    assert found.relative == pytest.approx(own)
    assert found.bias == pytest.approx(8 * DEVIATION / 8)
    near = Measurement(NOTHING._replace(relative=0.0), (), exact, exact, exact)
    found = measure_noise(errors, exact, np.float32, near, none)
    assert found.bias == pytest.approx(8 * 2.0**-11)
    moving = exact * np.array([1.0, 2, 3, 4])[:, None, None]
    for size in (1.0, 2.0**-10):
        found = measure_noise(0.5 * size * moving, size * moving, np.float32, None, none)
        assert found.relative == pytest.approx(0, abs=1e-15)
    zero = measure_noise(errors, 0 * exact, np.float32, None, none)
    assert zero.relative == 0
    third = np.full((4, 1, 3), 1 / 3)
    rounded = third.astype(np.float32) - third
    assert measure_noise(-2.0 * rounded, third, np.float32, None, none).of_rounding == 2


def test_entries_have_a_mean_and_a_limit() -> None:
    exact = np.ones((4, 1, 3)) * [3, 1, 1]
    errors = scatter(0.5, SIZE) * [1, 1, 0]
    found = measure(errors, exact, np.float64, 10)
    ratio = find_critical_ratio(4, 10)
    pooled = DEVIATION * (2 / 3) ** 0.5 / 4
    bias = 2 * 3 * 8 * found.noise.relative
    assert found.noise.relative == pytest.approx(DEVIATION * (2 / 3 * 3 / 11) ** 0.5, rel=0.1)
    np.testing.assert_allclose(found.mean, [[0.5, 0.5, 0]])
    np.testing.assert_allclose(found.limit - bias, ratio * np.array([[DEVIATION] * 2 + [pooled]]))
    doubt = measure(errors, exact, np.float64, 10, uncertainty=np.array([0, 0, 1e-3]))
    np.testing.assert_allclose(doubt.limit - found.limit, 16e-3 / 3**0.5)
    tiny = measure(0 * errors, 0 * exact, np.float32, 10)
    np.testing.assert_allclose(tiny.limit, TINY)


def test_entries_that_happen_to_scatter_little_have_a_part_of_what_precise_ones_do() -> None:
    exact = np.ones((4, 1, 4))
    errors = scatter(0.0, SINGLE) * [1, 1, 0, 2.0**10]  # of which the last is not precise
    found = measure(errors, exact, np.float32, 10)
    pooled = SINGLE * 2 / 3**0.5 * (2 / 3) ** 0.5 / 4
    expected = find_critical_ratio(4, 10) * pooled + 2 * ELEMENTARY * SINGLE
    np.testing.assert_allclose(found.limit[0, 2], expected, rtol=1e-12)


def test_entries_may_be_lost_beside_terms_of_a_formula() -> None:
    exact = np.ones((4, 1, 3)) * [1, 1, 1e-5]
    found, lost = (measure(0 * exact, exact, np.float32, 10, terms=t) for t in (None, 8.0))
    least = 2 * 8 * ELEMENTARY * SINGLE
    np.testing.assert_allclose(found.limit, 2 * ELEMENTARY * SINGLE)
    np.testing.assert_allclose(lost.limit, [[2 * ELEMENTARY * SINGLE] * 2 + [least]])


def explain(
    errors: Any, exact: Any, sizes: Any, known: float | None = None, dtype: Any = jnp.bfloat16
) -> Any:
    """Explain errors by 4 times imitated ones of these sizes, with signs by the sample."""
    imitated = np.array([1.0, -1.0])[:, None, None] * np.ones((2, 2, len(sizes))) * sizes
    return explain_errors(errors, exact, imitated, 4.0, dtype, known)


def test_legible_entries_have_a_share_and_others_may_be_lost() -> None:
    exact, sizes = np.ones((4, 3)), np.array([0.1, 0.24, 0.26])
    errors = 0.05 * np.array([1.0, -1, 1, -1])[:, None] * [1, -1, 0.0] + [0, 0, -1.0]
    found = explain(errors, exact, sizes, known=0.5)
    # A share is at least the part of the entry that 4 times its imitated error is: 0.4, 0.96.
    np.testing.assert_allclose(found.alike[0, 0], [4 * 0.5 * 0.1, 4 * 0.96 * 0.24, 0])
    np.testing.assert_allclose(found.lost, [0, 0, 1.04])
    np.testing.assert_allclose(found.alike[1], -found.alike[0])
    double = explain(2 * errors, 2 * exact, 2 * sizes, known=0.5)
    np.testing.assert_allclose(double.alike, 2 * found.alike)
    none = explain(errors, exact, sizes, known=0.0)
    assert not none.alike.any()
    np.testing.assert_allclose(none.lost, found.lost)


def test_the_share_that_fits_is_the_ratio_of_what_factors_leave() -> None:
    exact, sizes = np.ones((2, 2)), np.array([0.02, 0.04])
    # A factor of 0.03 leaves ∓0.01 of the imitated errors, and one of 0 leaves all of these.
    errors = np.array([[0.005, -0.005], [0.005, -0.005]])
    wide = explain(3 * errors, exact, sizes)
    half = explain(errors * 1.7, exact, sizes)
    np.testing.assert_allclose(wide.alike[0, 0], [4 * 0.02, 4 * 0.04])
    np.testing.assert_allclose(half.alike[0, 0], [4 * 0.85 * 0.02, 4 * 0.85 * 0.04])


def test_results_that_are_rounded_twice_have_no_share() -> None:
    exact, sizes = np.ones((2, 2)), np.array([0.02, 0.04])
    for part, share in ((0.99, False), (1.01, True)):
        errors = 2 * part * (HALF + TINY) * np.array([[1.0, -1.0], [1.0, -1.0]])
        assert explain(errors, exact, sizes).alike.any() == share
    errors = 2 * HALF * np.array([[1.0, -1.0], [1.0, -1.0]])
    assert not explain(errors, exact, sizes).alike.any()


def test_one_entry_that_is_not_precise_gives_a_share_to_all() -> None:
    exact, errors = np.ones((2, 2)), np.array([[0, 0.1], [0, -0.1]])
    found = explain(errors, exact, np.array([0.02, 0.04]))
    np.testing.assert_allclose(found.alike[0, 0], [0.08, 0.16])
    factors = explain(errors, exact, np.array([0.02, 0.02]))  # of which a factor leaves nothing
    np.testing.assert_allclose(factors.alike[0, 0], [0.08, 0.08])
    assert not explain(errors, exact, np.zeros(2)).alike.any()  # where rounding makes no errors


def test_zeros_without_errors_are_explained_by_none() -> None:
    exact, errors = np.ones((2, 3)) * [1, 1, 0], np.array([[0.1, -0.1, 0]] * 2)
    found = explain(errors, exact, np.array([0.1, 0.1, 0]), known=0.5)
    np.testing.assert_allclose(found.alike[0, 0], [0.2, 0.2, 0])
    assert not found.lost.any()


def test_a_gradient_that_is_lost_as_a_whole_is_not_precise() -> None:
    exact, sizes = np.ones((2, 2)), np.array([0.3, 0.4])
    for factor, lost in ((-1.0, True), (-0.51, True), (-0.5, False), (0.1, False)):
        found = explain(factor * exact, exact, sizes)
        assert found.lost.tolist() == ([1.2, 1.6] if lost else [0, 0])
        assert not found.alike.any()


def test_precise_entries_follow_the_factor_of_the_legible_ones_at_all_neighbours() -> None:
    exact, sizes, signs = np.ones((2, 3)), np.array([0.02, 0.04, 0.3]), np.array([1.0, -1.0, 0])
    rounded = explain(exact * [0, 0, -1.0], exact, sizes)
    assert not rounded.alike.any()
    np.testing.assert_allclose(rounded.lost, [0, 0, 1.2])
    for part, share in ((0.99, False), (1.01, True)):  # two roundings of 1.5
        errors = 0.5 * exact + 3 * HALF * part * signs
        assert explain(errors, exact, sizes).alike.any() == share
    errors[0] = 0.5  # at the other neighbour, it is more
    assert explain(errors, exact, sizes).alike.any()
    scaled = explain(-0.6 * exact, exact, sizes)
    assert not scaled.alike.any()
    assert not scaled.lost.any()


def test_results_that_are_smaller_than_the_smallest_number_are_precise() -> None:
    exact, sizes = np.full((2, 2), TINY / 4), np.array([0.02, 0.04]) * TINY / 4
    for part, share in ((0.99, False), (1.01, True)):
        errors = 2 * part * TINY * (1 + HALF / 4) * np.array([[1.0, -1.0], [1.0, -1.0]])
        assert explain(errors, exact, sizes).alike.any() == share


def test_an_entry_with_a_factor_of_its_own_has_lost_no_digits_beyond_16_bits() -> None:
    exact, sizes = np.ones((2, 2)), np.array([0.02, 0.3])
    for dtype, lost in ((np.float32, 0.0), (jnp.bfloat16, 1.2)):
        found = explain(exact * [0, 0.25], exact, sizes, dtype=dtype)
        np.testing.assert_allclose(found.lost, [0, lost])
