"""Inner products of a forward mode and a pull-back, with numbers by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.tolerance.bounds import ELEMENTARY
from bptt_verifier.tolerance.pairings import Pairing, measure_additivity, pair
from bptt_verifier.tolerance.projections import ONE_SIDED
from bptt_verifier.tolerance.scatter import find_critical_ratio

UNIT = 2.0**-24


def test_a_pairing_is_wrong_if_its_difference_exceeds_what_is_allowed() -> None:
    def differ(difference: float) -> Pairing:
        return Pairing(4.0, 3.0, difference, 0.5, 2.0)

    assert [differ(d).wrong for d in (0.0, 0.5, 0.6, np.nan)] == [False, False, True, True]
    assert differ(0).resolution == 0.25
    assert differ(0)._replace(size=0.5).resolution == 1
    assert differ(0)._replace(size=0.0).resolution == np.inf


def test_additivity_is_measured_in_the_noisiest_output_and_is_limited() -> None:
    y, z, nothing = np.array([3.0, 4.0]), np.float32([0.6, 0.8]), np.zeros(2)
    whole: dict[str, Any] = {"y": y, "z": z, "none": nothing}
    half = {name: each / 2 for name, each in whole.items()}
    assert measure_additivity(whole, half, half) == 0
    for name, change, size in (("y", 5 * 2.0**-6, 2.0**-6), ("z", 2.0**-6, 2.0**-6)):
        left = half | {name: half[name] + np.array([change, 0])}
        assert measure_additivity(whole, left, half) == pytest.approx(size, rel=1e-6)
    assert measure_additivity(whole, half | {"none": np.ones(2)}, half) == 0
    assert measure_additivity(whole, {n: 2 * each for n, each in half.items()}, half) == 2.0**-4


def compare(
    difference: float, noise: float = 0.0, dtype: Any = np.float32, **other: Any
) -> Pairing:
    """⟨J v, w⟩ = 3 − 1 and ⟨v, Jᵀ w⟩ = 2, which is off, alike at four neighbours."""
    jv, w = np.tile([3.0, -0.5], (4, 1)), np.tile([1.0, 2.0], (4, 1))
    jtw, v = np.tile([4.0 + 2 * difference], (4, 1)), np.tile([0.5], (4, 1))
    given = {"jv": jv.astype(dtype), "w": w, "jtw": jtw, "v": v} | other
    return pair((given["jv"], given["w"]), (given["jtw"], given["v"]), noise, 6)


# The absolute products sum to 3 + 1 + 2 = 6, and errors that are alike are ELEMENTARY roundings of
# each; what is below the smallest number is lost 2 · 3 times, times the largest of w and v, 2.
def test_errors_that_are_alike_at_all_neighbours_are_bounded_by_the_products() -> None:
    found = compare(0.25)
    assert (found.forward, found.backward, found.difference) == (2.0, 2.25, 0.25)
    assert found.size == pytest.approx(2.125)
    assert found.wrong
    allowed = compare(0.0).allowed
    assert allowed == pytest.approx(6 * ELEMENTARY * UNIT, rel=1e-12)
    assert compare(-0.25).difference == 0.25


def test_the_coarsest_of_the_formats_counts() -> None:
    for name in ("jtw", "v", "w", "jv"):
        value = {"jtw": [4.0], "v": [0.5], "w": [1.0, 2.0], "jv": [3.0, -0.5]}[name]
        given = {name: np.tile(value, (4, 1)).astype(np.float32)}
        found = compare(0, dtype=np.float64, **given)
        assert found.allowed == pytest.approx(6 * ELEMENTARY * UNIT, rel=1e-12)


def test_noise_of_a_coarser_format_allows_for_several_times_as_much_that_is_alike() -> None:
    assert compare(0, noise=1e-6).allowed == pytest.approx(6e-6 * ONE_SIDED)


# In 16 bits, with noise of two units at most, results alone are rounded: each side by two units.
@pytest.mark.parametrize(("noise", "allowed"), [(0, 4), (2, 4), (2.1, 12.6)])
def test_results_alone_are_rounded_in_16_bits_up_to_a_noise_of_two_units(
    noise: float, allowed: float
) -> None:
    unit = 2.0**-8
    found = compare(0, noise=noise * unit, dtype=jnp.bfloat16).allowed
    assert found == pytest.approx(allowed * unit)


def test_results_alone_allow_for_no_more_than_the_products_do() -> None:
    found = compare(0, noise=0, dtype=jnp.bfloat16, jtw=np.tile([1e3], (4, 1)))
    size = (2 + 500) / 2
    assert found.allowed == pytest.approx(min(504, 2 * size) * 2.0**-8)


def test_numbers_below_the_smallest_are_lost() -> None:
    zero = {"jv": np.zeros((4, 2), np.float32), "jtw": np.zeros((4, 1))}
    tiny = 2.0**-126
    assert compare(0, **zero).allowed == pytest.approx(2 * 3 * tiny * 2, abs=0)
    large = compare(0, **zero, v=np.tile([-8.0], (4, 1)))
    assert large.allowed == pytest.approx(2 * 3 * tiny * 8, abs=0)


def test_differences_that_scatter_allow_for_a_mean_by_students_t() -> None:
    jtw = 4.0 + 2 * np.array([[0.1], [-0.1], [0.1], [-0.1]])
    found = compare(0, jtw=jtw)
    spread = 0.1 * (4 / 3) ** 0.5
    expected = find_critical_ratio(4, 6) * spread
    assert found.allowed == pytest.approx(expected, rel=1e-4)
    assert found.difference == pytest.approx(0, abs=1e-12)
    assert found.size == pytest.approx(2)
    assert found.backward == pytest.approx(2.1)  # at the first neighbour
    turned = compare(0, jv=np.array([[4.0, -0.5], [2.0, -0.5], [4.0, -0.5], [2.0, -0.5]]))
    assert (turned.forward, turned.backward) == (3, 2)


def test_arrays_of_any_shape_are_multiplied_entry_by_entry() -> None:
    flat = compare(0.25)
    jv, w = np.float32([[3.0], [-0.5]]), np.array([[1.0], [2.0]])
    forward = np.tile(jv, (4, 1, 1)), np.tile(w, (4, 1, 1))
    shaped = pair(forward, (np.full(4, 4.5), np.full(4, 0.5)), 0.0, 6)
    assert shaped == flat
