"""Rounding inside a kernel is told from factors, which a mistake makes."""

from math import comb
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.tolerance.formats import round_once
from bptt_verifier.tolerance.rounding_inside import (
    EXCUSED,
    find_chance,
    find_critical_count,
    find_share_inside,
)
from bptt_verifier.tolerance.scatter import IN_HALF

TESTS, ENTRIES = 1000, 400
SIZES = np.geomspace(2.0**-8, 1, ENTRIES)


def imitate(entries: int) -> Any:
    """Errors of 2⁻¹⁰ at 4 neighbours, alike at all of them, in 8 samples."""
    return np.ones((1, 4, 1)) * np.random.default_rng(1).normal(0, 2.0**-10, (8, 1, entries))


def draw(sizes: Any = SIZES) -> Any:
    """Exact numbers of these sizes at 16 neighbours."""
    return sizes * (1 + 0.06 * np.random.default_rng(0).uniform(-1, 1, (16, len(sizes))))


def cancel(exact: Any) -> Any:
    """Compute numbers as 1 − h with h rounded to bfloat16."""
    return 1 - round_once(1 - exact, jnp.bfloat16)


def find_share(submitted: Any, exact: Any) -> float:
    """Find the share of imitated errors in numbers that are rounded to bfloat16."""
    errors = round_once(submitted, jnp.bfloat16) - exact
    given = errors, exact, imitate(exact.shape[1]), TESTS, jnp.bfloat16
    return find_share_inside(*given, IN_HALF)


def test_a_kernel_that_rounds_inside_shows_a_share() -> None:
    exact = draw()
    assert find_share(cancel(exact), exact) > 0.5
    assert find_share(exact, exact) == 0
    assert find_share(round_once(exact, jnp.bfloat16), exact) == 0


@pytest.mark.parametrize("factor", [0, -1, 1.2, 2])
@pytest.mark.parametrize("start", [0, 50, 150])
def test_factors_show_nothing(factor: float, start: int) -> None:
    exact = draw()
    wrong = np.where(np.arange(ENTRIES) < start + 100, factor, 1.0)
    assert find_share(wrong * exact, exact) == 0


def test_a_threshold_between_the_neighbours_of_every_entry_shows_nothing() -> None:
    """One factor does not explain these entries, and two do."""
    exact = draw()
    assert find_share(np.where(exact > SIZES, 1.5, 1.0) * exact, exact) == 0


def test_as_many_entries_as_lie_on_two_thresholds_by_chance_show_nothing() -> None:
    exact = draw()
    thrice = np.where(exact > 1.03 * SIZES, 1.5, np.where(exact < 0.97 * SIZES, 0.5, 1.0)) * exact
    share, few = find_chance(IN_HALF), np.random.default_rng(0).random(ENTRIES)
    assert find_share(thrice, exact) > 0.5
    assert find_share(np.where(few < share, thrice, exact), exact) == 0


def test_entries_without_cancellation_leave_others_that_show_it() -> None:
    exact = draw(np.full(40, 0.03))
    half = np.where(np.arange(40) % 2, cancel(exact), exact)
    assert find_share(half, exact) > 0
    assert find_share(half[:, :3], exact[:, :3]) == 0


@pytest.mark.parametrize("number", [3, 4, 16, 100, 1000])
def test_the_critical_count_is_the_smallest_that_does_not_happen_by_chance(number: int) -> None:
    chance = find_chance(IN_HALF)
    needed = find_critical_count(number, chance)
    assert needed == {3: 4, 4: 4, 16: 6, 100: 12, 1000: 42}[number]
    terms = [comb(number, k) * chance**k * (1 - chance) ** (number - k) for k in range(number + 1)]
    assert sum(terms[needed:]) <= EXCUSED < sum(terms[needed - 1 :])


def test_four_entries_of_four_decide_at_any_level_near_the_one_chosen() -> None:
    chance = find_chance(IN_HALF)
    least, most = chance**4, chance**3
    assert 5 * least < EXCUSED < most / 5
    for level in (1.001 * least, EXCUSED, 0.999 * most):
        assert find_critical_count(4, chance, level) == 4
        assert find_critical_count(3, chance, level) == 4
    assert find_critical_count(4, chance, 0.999 * least) == 5
    assert find_critical_count(3, chance, 1.001 * most) == 3
