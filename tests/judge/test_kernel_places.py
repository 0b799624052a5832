"""Places of a kernel's wrong numbers: indices along an axis, tiles, lengths, and the map."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_places import describe_indices, draw_map, list_places
from bptt_verifier.tolerance.formats import round_once
from bptt_verifier.tolerance.projections import Measurement, measure

INDICES = {
    "one": ([2], 5, "wrong-index", "at index 2"),
    "the first": ([0], 5, "wrong-index", "at index 0, the first"),
    "the last": ([4], 5, "wrong-index", "at index 4, the last"),
    "early steps": ([0, 1, 2], 5, "wrong-range", "2 is the first"),
    "late steps": ([3, 4], 5, "wrong-range", "from index 3 to the end"),
    "in the middle": ([1, 2], 5, "wrong-range", "at indices 1 to 2"),
    "anywhere": ([1, 3], 5, "wrong-indices", "at 2 of 5 indices (1, 3)"),
    "what is left of a tile": ([*range(32, 40)], 40, "wrong-last-tile", "32, a multiple of 32"),
    "the last tile": ([*range(48, 64)], 64, "wrong-last-tile", "48, a multiple of 16"),
    "edges of tiles": ([16, 32, 48], 60, "wrong-tile-edge", "at multiples of 16"),
    "half of a sequence": ([*range(32, 128)], 128, "wrong-range", "from index 32"),
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
    assert drawn.shape == (5, 6)
    assert np.argwhere(drawn > 1).tolist() == [[1, 2]]
    assert draw_map(measured_with(lambda g: g.__imul__(1.001))).min() > 1
    assert draw_map(measured_with(lambda g: g.__imul__(2), (4,))).shape == (1, 4)


def test_no_place_is_given_where_an_error_would_not_be_seen_at_the_other_indices() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(4, 50)) * (1 + 0.001 * rng.uniform(-1, 1, (16, 4, 50)))
    noise = np.array([1e-3, 1, 1e-3, 1])[:, None] * rng.normal(size=exact.shape)
    found = measure(-0.2 * exact + noise, exact, np.float32, 1000)
    assert found.slices[1].wrong.tolist() == [True, False, True, False]
    assert [*list_places(found)] == []
