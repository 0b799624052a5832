"""Entries are compared one by one, and the worst decides."""

import numpy as np
import pytest

from bptt_verifier.tolerance.bounds import RESOLVING
from bptt_verifier.tolerance.comparison import (
    Verdict,
    compare,
    compare_all,
    find_coarsest_dtype,
    find_symbol,
    name_tangents,
    overall,
    verdict_of,
    worst_of,
)

AGREES, DISAGREES, INCONCLUSIVE = Verdict.AGREES, Verdict.DISAGREES, Verdict.INCONCLUSIVE
ONES = np.ones((2, 2))


def test_the_worst_entry_is_shown_with_its_place_and_its_numbers() -> None:
    yours = np.array([[1.0, 1.5], [3.0, 1.0]])
    found = compare("W", yours, ONES, np.array([[0.1, 0.1], [0.5, 0.1]]))
    assert found[:3] == ("W", 5.0, (0, 1))
    assert (found.yours, found.reference, found.allowed) == (1.5, 1.0, 0.1)


def test_an_error_of_all_that_is_allowed_is_none() -> None:
    found = [compare("W", ONES + off, ONES, 2.0**-10 * ONES) for off in (2.0**-10, 2.0**-9)]
    assert [each.error for each in found] == [1.0, 2.0]
    assert [each.verdict for each in found] == [AGREES, DISAGREES]


@pytest.mark.parametrize(("share", "conclusive"), [(1.0, True), (1.01, False)])
def test_a_comparison_shows_mistakes_above_a_sixty_fourth_of_the_largest_entry(
    share: float, conclusive: bool
) -> None:
    assert RESOLVING == 1 / 64
    reference = np.array([-4.0, 0.0])
    allowed = np.array([0.0, share * 4 / 64])
    found = compare("W", reference, reference, allowed)
    assert found.conclusive is conclusive
    assert verdict_of([found]) is (AGREES if conclusive else INCONCLUSIVE)
    assert verdict_of([found], resolving=share / 64) is AGREES


def test_a_distance_that_is_known_otherwise_takes_the_place_of_the_difference() -> None:
    distance = np.array([[0.0, 0.02], [0.01, 0.0]])
    found = compare("W", ONES + 1, ONES, 0.01 * ONES, distance)
    assert (found.error, found.entry) == (2.0, (0, 1))
    assert compare("W", ONES + 1, ONES, 0 * ONES, 0 * ONES).error == 0  # 0 of 0 allowed


def test_an_entry_that_cannot_be_decided_has_no_error() -> None:
    found = compare("W", np.array([5.0, 1.0]), np.ones(2), np.array([np.inf, 0.1]))
    assert (found.error, found.conclusive) == (0.0, False)


def test_zeros_of_which_nothing_may_differ_show_nothing() -> None:
    assert compare("W", 0 * ONES, 0 * ONES, 0 * ONES).verdict is INCONCLUSIVE


def test_results_of_none_are_not_compared() -> None:
    arrays = {"U": ONES, "W": ONES}
    found = compare_all({"U": None, "W": ONES}, arrays, arrays)
    assert [each.name for each in found] == ["W"]
    assert compare_all({"U": None}, arrays, arrays) == []


def test_results_are_compared_together_as_each_is_alone() -> None:
    rng = np.random.default_rng(0)
    shapes = {"loss": (), "b": (3,), "W": (2, 3), "x": (2, 1, 2), "U": (2, 2)}
    true = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    allowed = {name: rng.uniform(size=shape) for name, shape in shapes.items()}
    found = {name: value + rng.normal(size=value.shape) for name, value in true.items()}
    found["W"][1, 2], allowed["x"][0, 0, 1], true["U"][:] = np.nan, np.inf, 0.0
    alone = [compare(name, found[name], true[name], allowed[name]) for name in shapes]
    together = compare_all(found, true, allowed)
    assert [each[:3] for each in together] == [each[:3] for each in alone]
    assert [each[4:] for each in together] == [each[4:] for each in alone]
    W, U = together[2], together[4]
    assert (W.error, W.entry) == (np.inf, (1, 2))
    assert [each.name for each in together if not np.isfinite(each.resolution)] == ["x", "U"]
    assert U.reference == 0.0


def test_one_disagreement_decides_and_one_comparison_that_could_fail_is_enough() -> None:
    right, wrong = (compare("W", ONES + off, ONES, 0.01 * ONES) for off in (0, 1))
    vague = compare("W", ONES, ONES, ONES)
    assert worst_of([right, wrong, vague]) is wrong
    cases = [([right, vague], AGREES), ([vague], INCONCLUSIVE), ([right, wrong], DISAGREES)]
    for comparisons, verdict in [*cases, ([], INCONCLUSIVE)]:
        assert verdict_of(comparisons) is verdict


def test_verdicts_together_agree_only_if_all_do() -> None:
    assert overall([AGREES, AGREES]) is AGREES
    assert overall([AGREES, INCONCLUSIVE]) is overall([]) is INCONCLUSIVE
    assert overall([AGREES, INCONCLUSIVE, DISAGREES]) is DISAGREES


def test_the_coarsest_dtype_is_that_of_the_largest_roundoff() -> None:
    half, single, wide, whole = (np.ones(1, d) for d in (np.float16, np.float32, float, int))
    assert find_coarsest_dtype(wide, single, whole) == np.float32
    assert find_coarsest_dtype(half, wide) == np.float16
    assert find_coarsest_dtype(wide, whole) == np.float64
    # A submission may compute in a coarser format than that of its results.
    assert find_coarsest_dtype(wide, precision=np.float32) == np.float32
    assert find_coarsest_dtype(half, precision=np.float32) == np.float16


@pytest.mark.parametrize(
    ("result", "symbol"),
    [
        ("loss", "L"),
        ("W", "∂L/∂W"),
        ("R{W}", "R{∂L/∂W}"),
        ("R{loss}", "R{L}"),
        ("∂y/∂x", "∂y/∂x"),  # one already
        ("tangent of y", "tangent of y"),
    ],
)
def test_a_result_has_its_symbol(result: str, symbol: str) -> None:
    assert find_symbol(result) == symbol


def test_a_tangent_has_the_name_of_its_result_in_braces() -> None:
    assert name_tangents({"loss": 1.0, "W": None}) == {"R{loss}": 1.0, "R{W}": None}
