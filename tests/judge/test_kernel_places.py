"""Places of a kernel's wrong numbers: indices along an axis, tiles, lengths, and the map."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_places import (
    WrongIndices,
    describe_indices,
    draw_map,
    list_places,
    select_telling,
)
from bptt_verifier.tolerance.formats import round_once
from bptt_verifier.tolerance.projections import Measurement, measure

INDICES = {
    "one": ([2], 5, "wrong-index", "at index 2"),
    "the first": ([0], 5, "wrong-index", "at index 0, the first"),
    "the last": ([4], 5, "wrong-index", "at index 4, the last"),
    "early steps": ([0, 1, 2], 5, "wrong-range", "at indices 0 to 2"),
    "late steps": ([3, 4], 5, "wrong-range", "from index 3 to the end"),
    "in the middle": ([1, 2], 5, "wrong-range", "at indices 1 to 2"),
    "anywhere": ([1, 3], 5, "wrong-indices", "at 2 of 5 indices (1, 3)"),
    "what is left of a tile": ([*range(32, 40)], 40, "wrong-last-tile", "32, a multiple of 32"),
    "the last tile": ([*range(48, 64)], 64, "wrong-last-tile", "48, a multiple of 16"),
    "edges of tiles": ([16, 32, 48], 60, "wrong-tile-edge", "at multiples of 16"),
    "half of a sequence": (
        [*range(32, 128)],
        128,
        "wrong-range",
        "from index 32, a multiple of 32",
    ),
    "one edge": ([16], 20, "wrong-tile-edge", "at multiples of 16 from 16 on"),
    "first of all tiles": ([0, 16, 32], 37, "wrong-tile-edge", "at the first index of every tile"),
    "first of larger tiles": ([0, 32, 64], 70, "wrong-tile-edge", "index of every tile of 32"),
    "two of each tile": ([16, 17, 32, 33], 40, "wrong-tile-edge", "of 16 but the first"),
    "last of each tile": ([15, 31], 37, "wrong-tile-edge", "at the last index of every tile of 16"),
    "last of all tiles": ([15, 31, 36], 37, "wrong-tile-edge", "at the last index of every tile"),
    "last three": (
        [13, 14, 15, 29, 30, 31],
        37,
        "wrong-tile-edge",
        "at the last 3 indices of every",
    ),
    "a halo": ([15, 16, 31, 32], 37, "wrong-tile-edge", "on both sides of every multiple of 16"),
    "one halo": ([31, 32], 37, "wrong-tile-edge", "on both sides of every multiple of 32"),
    "the end of one tile": ([12, 13, 14, 15], 17, "wrong-range", "at indices 12 to 15"),
    "the start of one tile": ([16, 17], 20, "wrong-range", "at indices 16 to 17"),
    "same place in tiles": ([3, 19], 37, "wrong-indices", "at 2 of 37 indices (3, 19)"),
    "a tile": ([*range(16, 32)], 53, "wrong-range", "16 to 31, between multiples of 16"),
    "two tiles": ([*range(32, 96)], 130, "wrong-range", "32 to 95, between multiples of 32"),
    "the first tile": ([*range(32)], 53, "wrong-range", "0 to 31, between multiples of 32"),
    "no whole tile": ([*range(17, 32)], 53, "wrong-range", "at indices 17 to 31"),
    "every second": ([1, 3, 5, 7], 8, "wrong-indices", "at indices 1, 3, 5, 7 in steps of 2"),
}


@pytest.mark.parametrize(("indices", "size", "name", "said"), INDICES.values(), ids=INDICES)
def test_wrong_indices_are_described_by_their_pattern(
    indices: Any, size: int, name: str, said: str
) -> None:
    found, words = describe_indices(indices, size)
    assert found == name
    assert said in words


def measured_with(change: Any, shape: tuple[int, ...] = (5, 6, 7)) -> Measurement:
    """Errors in float32 of a gradient that is changed somewhere."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=shape) * (1 + 0.001 * rng.uniform(-1, 1, (16, *shape)))
    wrong = exact.copy()
    change(wrong)
    return measure(round_once(wrong, np.float32) - exact, exact, np.float32, 1000)


def test_an_axis_is_named_where_not_all_of_its_indices_are_wrong() -> None:
    def lose_early_steps(g: Any) -> None:
        g[:, :2, 3:] *= 0.5

    first, second = list_places(measured_with(lose_early_steps))
    assert (first.axis, first.indices) == (0, (0, 1))
    assert (second.axis, second.indices) == (1, (3, 4, 5))


def test_a_right_gradient_has_no_places() -> None:
    assert [*list_places(measured_with(lambda g: None))] == []


def test_the_map_shows_errors_beyond_rounding_where_they_are() -> None:
    def halve(g: Any) -> None:
        g[:, 1, 2] *= 0.5

    drawn = draw_map(measured_with(halve))
    assert drawn.errors.shape == (5, 6)
    assert np.argwhere(drawn.errors > 1).tolist() == [[1, 2]]
    assert draw_map(measured_with(lambda g: g.__imul__(1.001))).errors.min() > 1
    row = draw_map(measured_with(lambda g: g.__imul__(2), (4,)))
    assert row.errors.shape == (1, 4)
    assert row.describe(1) == ""


def test_the_map_is_along_the_axes_on_which_the_errors_are_at_some_indices_alone() -> None:
    def halve(g: Any) -> None:
        g[:, :, :, 3] *= 0.5

    drawn = draw_map(measured_with(halve))
    assert (drawn.axes, drawn.errors.shape) == ((0, 2), (5, 7))
    assert set(np.argwhere(drawn.errors > 1)[:, 1]) == {3}
    assert "along axis 0 and axis 2" in drawn.describe(3)


def test_a_long_axis_is_drawn_in_blocks_with_the_largest_error_of_each() -> None:
    def halve(g: Any) -> None:
        g[:, 257:] *= 0.5

    drawn = draw_map(measured_with(halve, (300, 2)))
    assert drawn.errors.shape == (100, 2)
    assert np.flatnonzero((drawn.errors > 1).any(axis=1)).tolist() == [*range(85, 100)]
    assert "axis 0 in blocks of 3 and axis 1" in drawn.describe(2)


def test_an_axis_is_not_named_where_the_gradient_is_zero_at_its_other_indices() -> None:
    exact = np.ones((2, 3, 8))
    exact[:, 1:, 4:] = 0  # only the sequence 0 is longer than 4
    chunk, row = (WrongIndices("", "", axis, indices) for axis, indices in ((1, (4, 5)), (0, (0,))))
    early = chunk._replace(indices=(0, 1))
    assert select_telling([row, chunk], exact) == [chunk]
    assert select_telling([row, early], exact) == [row, early]
    assert select_telling([row], exact) == [row]


def test_a_step_at_which_there_is_next_to_no_gradient_hides_no_place() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(6, 4)) * (1 + 0.001 * rng.uniform(-1, 1, (16, 6, 4)))
    exact[:, 0] *= 1e-20
    wrong = np.array([1, -0.5, -0.5, 0, 0, 0])[:, None] * exact
    (place,) = list_places(measure(wrong, exact, np.float32, 1000))
    assert (place.axis, place.indices) == (0, (1, 2))


def test_no_place_is_given_where_an_error_would_not_be_seen_at_the_other_indices() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(4, 50)) * (1 + 0.001 * rng.uniform(-1, 1, (16, 4, 50)))
    noise = np.array([1e-3, 1, 1e-3, 1])[:, None] * rng.normal(size=exact.shape)
    found = measure(-0.2 * exact + noise, exact, np.float32, 1000)
    assert found.slices[1].wrong.tolist() == [True, False, True, False]
    assert [*list_places(found)] == []
