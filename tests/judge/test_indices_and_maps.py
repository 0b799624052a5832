"""Wrong indices, ends of sequences and maps of errors, in measurements made by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_places import (
    ErrorMap,
    WrongIndices,
    describe_indices,
    divide,
    draw_map,
    find_beyond_length,
    find_edges,
    find_tile,
    is_right_elsewhere,
    list_places,
    list_some,
    list_wrong_indices,
    select_telling,
)
from tests.support.measurements import make_measurement, make_slices


def test_an_index_is_wrong_where_one_entry_or_its_slice_is() -> None:
    entry = [[0, 0, 3], [0, 0, 0]]
    found = make_measurement(entry, make_slices(0, [0, 2]), make_slices(1, [2, 0, 0]))
    assert list_wrong_indices(found, 0).tolist() == [0, 1]
    assert list_wrong_indices(found, 1).tolist() == [0, 2]
    assert list_wrong_indices(make_measurement(entry), 1).tolist() == [2]
    assert list_wrong_indices(make_measurement(np.zeros((2, 3))), 1).tolist() == []


# Of three indices the last is wrong, with an error of 8: the largest elsewhere is to be 1 at most.
@pytest.mark.parametrize(("largest", "right"), [(1.0, True), (1.01, False)])
def test_entries_are_right_elsewhere_if_the_errors_are_an_eighth(
    largest: float, right: bool
) -> None:
    found = make_measurement([[0.0, 0.1], [largest, largest], [9, 9], [8, 8]])
    assert is_right_elsewhere(found, 0, [2, 3]) is right
    assert not is_right_elsewhere(make_measurement([[0.3], [2], [9]]), 0, [1, 2])


@pytest.mark.parametrize(("largest", "right"), [(1.0, True), (1.01, False)])
def test_slices_are_right_elsewhere_if_their_errors_are_an_eighth(
    largest: float, right: bool
) -> None:
    by_axis = make_slices(0, [0, 0, 9, 8], [0.1, largest, 9, 8])
    found = make_measurement([[1.0], [1], [1], [1]], by_axis)
    assert is_right_elsewhere(found, 0, [2, 3]) is right
    assert not is_right_elsewhere(found, 0, [3])  # index 2 has an error of its own


# Wrong slices have mean errors of 64 at least, so that one of 64 / 8² is next to nothing.
@pytest.mark.parametrize(("error", "right"), [(1.0, True), (1.01, False)])
def test_a_slice_whose_error_is_next_to_nothing_is_right_whatever_its_size(
    error: float, right: bool
) -> None:
    by_axis = make_slices(1, [0, 9, 9], [5, 9, 9])
    assert is_right_elsewhere(make_measurement([[error, 64, 640]], by_axis), 1, [1, 2]) is right


def test_slices_of_another_axis_or_without_a_wrong_one_are_not_asked() -> None:
    mean = [[0.5, 9.0]]
    assert is_right_elsewhere(make_measurement(mean, make_slices(0, [9.0])), 1, [1])
    assert is_right_elsewhere(make_measurement(mean, make_slices(1, [0, 0], [9, 9])), 1, [1])
    assert not is_right_elsewhere(make_measurement([[2.0, 9.0]], make_slices(0, [9.0])), 1, [1])


def test_a_place_is_on_an_axis_with_right_indices_and_wrong_ones() -> None:
    found = make_measurement([[0.0, 0, 9], [0, 0, 9]])
    assert [*list_places(found)] == [
        WrongIndices("wrong-index", "at index 2, the last of axis 1", 1, (2,))
    ]


EXACT = np.ones((2, 3, 4))


def at(axis: int, *indices: int) -> WrongIndices:
    return WrongIndices("", "", axis, indices)


def test_places_are_told_where_any_number_at_the_other_indices_is_not_zero() -> None:
    places = [at(0, 0), at(1, 2, 3)]
    exact = EXACT.copy()
    exact[:, 1:, 2:] = 0  # nothing would be seen in other rows at these steps
    assert select_telling(places, exact) == [places[1]]
    exact[1, 2, 3] = 1  # one number is enough, at any neighbour
    assert select_telling(places, exact) == places
    exact[1, 2, 3], exact[:, 0, :2] = 0, 0  # nor at other steps, and one place is kept
    assert select_telling(places, exact) == [places[1]]
    assert select_telling(places[::-1], exact) == [places[0]]
    exact[:, 1, 0] = 1
    assert select_telling(places, exact) == [places[1]]


def test_the_entries_that_are_asked_are_those_at_the_indices_of_all_other_places() -> None:
    exact = np.zeros((2, 3, 4, 2))
    exact[0, 1, 3, 0] = exact[0, 0, 3, 1] = exact[0, 0, 1, 0] = 1
    places = [at(0, 0), at(1, 3), at(2, 0)]
    assert select_telling(places, exact) == places
    for here in ((0, 1, 3, 0), (0, 0, 1, 0), (0, 0, 3, 1)):
        without = exact.copy()
        without[here] = 0
        axis = [
            k for k, (i, right) in enumerate(zip(here[1:], (0, 3, 0), strict=True)) if i != right
        ]
        assert select_telling(places, without) == [p for p in places if [p.axis] != axis]


def test_no_place_is_left_out_of_one() -> None:
    assert select_telling([at(0, 0)], 0 * EXACT) == [at(0, 0)]
    assert select_telling([at(0, 0), at(1, 1)], 0 * EXACT) == [at(1, 1)]


ROWS = {
    "from index 32, a multiple of 32, to the end, the last 8": ([*range(32, 40)], 40),
    "from index 48, a multiple of 16, to the end": ([*range(48, 64)], 64),
    "from index 16, a multiple of 16, to the end, the last 1": ([16], 17),
    "from index 32, a multiple of 32, to the end, the last 16": ([*range(32, 48)], 48),
    "at index 16": ([16], 18 + 16),
    "at 2 of 8 indices (5, 7)": ([5, 7], 8),
    "at indices 3, 5, 7 in steps of 2": ([3, 5, 7], 8),
    "at 3 of 10 indices (3, 5, 7)": ([3, 5, 7], 10),
    "at 3 of 8 indices (3, 5, 6)": ([3, 5, 6], 8),
    "at indices 1, 4, 7 in steps of 3": ([1, 4, 7], 9),
    "at multiples of 16 from 16 on (16, 32)": ([16, 32], 40),
    "at the last index of every tile of 16 (15, 31, 36)": ([15, 31, 36], 37),
    "at the last index of every tile of 16 (15, 19)": ([15, 19], 20),
    "at the last index of every tile of 16 (15, 16)": ([15, 16], 17),
    "at the first 4 indices of every tile of 16 (0, 1, 2, 3, 16, 17, 18, 19)": (
        [0, 1, 2, 3, 16, 17, 18, 19], 20,
    ),
    "at 10 of 21 indices (0, 1, 2, 3, 4, 16, 17, 18, …)": (
        [0, 1, 2, 3, 4, 16, 17, 18, 19, 20], 21,
    ),
    "at indices 14 to 31": ([*range(14, 32)], 40),
    "at indices 16 to 20": ([*range(16, 21)], 40),
    "from index 1 to the end": ([1, 2, 3], 4),
    "at indices 0 to 15, between multiples of 16": ([*range(16)], 40),
    "at indices 16 to 31, between multiples of 16": ([*range(16, 32)], 40),
    "at indices 32 to 47, between multiples of 16": ([*range(32, 48)], 64),
    "at indices 0 to 1": ([0, 1], 3),
}  # fmt: skip


@pytest.mark.parametrize(("said", "indices", "size"), [(s, *r) for s, r in ROWS.items()])
def test_the_words_for_indices_are_these(said: str, indices: Any, size: int) -> None:
    assert describe_indices(indices, size)[1] == said


def test_a_tile_begins_within_an_axis_at_a_multiple_of_its_size() -> None:
    assert [find_tile(i, 200) for i in (0, 1, 15, 16, 32, 48, 64, 128, 192)] == [
        0, 0, 0, 16, 32, 16, 64, 128, 64,
    ]  # fmt: skip
    assert [find_tile(i, 33) for i in (32, 33, 48)] == [32, 0, 0]


def test_of_several_tiles_the_edges_of_the_largest_with_the_fewest_indices_are_named() -> None:
    found = [*find_edges([31, 63], 64)]
    assert [(each.number, each.negative) for each in found] == [(1, -32), (1, -32)]
    assert [each[:2] for each in find_edges([32, 64, 96], 100)] == [(1, -32)]
    assert [each[:2] for each in find_edges([16, 17, 32, 33], 40)] == [(2, -16)]
    assert [each[:2] for each in find_edges([0, 1, 16, 17, 32, 33], 40)] == [(2, -16)]
    assert [each[:2] for each in find_edges([14, 15, 30, 31], 37)] == [(2, -16)]
    assert [each[:2] for each in find_edges([15, 16, 31, 32], 37)] == [(2, -16)]


def test_there_are_no_edges_in_one_tile_nor_in_one_run() -> None:
    assert [*find_edges([0, 15], 16)] == []
    assert [*find_edges([15], 16)] == []
    assert [*find_edges([14, 15], 40)] == []
    assert [*find_edges([19], 20)] == []


def test_eight_indices_are_listed_in_a_sentence() -> None:
    assert list_some([*range(8)]) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert list_some([*range(9)]) == "0, 1, 2, 3, 4, 5, 6, 7, …"


BEYOND = np.arange(4) >= np.array([2, 4, 3])[:, None]  # beyond the lengths of three sequences


def end(wrong: Any, exact: Any = None, **arrays: Any) -> str:
    """Ask beyond the end of which argument a gradient is wrong, with an error of 1 where it is."""
    exact = np.where(BEYOND, 0.0, 1.0)[None] if exact is None else exact
    nearest = SimpleNamespace(
        gradients={"x": make_measurement(2.0 * wrong)}, exact={"x": np.repeat(exact, 2, axis=0)}
    )
    found: Any = SimpleNamespace(nearest=nearest)
    return find_beyond_length(found, arrays or {"n": np.array([2, 4, 3])}, "x")


def test_a_gradient_is_wrong_beyond_the_lengths_if_it_is_so_there_alone() -> None:
    some = BEYOND.copy()
    some[0, 3] = False  # index 3 is beyond the length of sequence 2 as well
    assert end(BEYOND) == end(some) == "n"
    assert end(BEYOND, classes=np.array([0, 1, 2]), n=np.array([2, 4, 3])) == "n"
    for place in ((1, 0), (2, 2)):
        inside = BEYOND.copy()
        inside[place] = True
        assert end(inside) == ""
    assert end(~BEYOND) == ""
    assert end(np.zeros_like(BEYOND)) == ""


def test_not_every_entry_beyond_the_lengths_has_to_be_wrong() -> None:
    wrong = np.zeros((3, 4, 2), bool)
    wrong[0, 2, 0] = wrong[2, 3, 1] = True  # at both units, and at both steps
    exact = np.where(BEYOND, 0.0, 1.0)[None, :, :, None] * np.ones(2)
    assert end(wrong, exact) == "n"


def test_it_is_wrong_at_every_index_at_which_anything_is_beyond_them() -> None:
    for place in (np.s_[0], np.s_[:, 3], np.s_[:, 2:3]):
        some = BEYOND.copy()
        some[place] = False
        assert some.any()
        assert end(some) == ""


def test_an_exact_gradient_that_is_not_zero_there_has_no_end() -> None:
    exact = np.where(BEYOND, 0.0, 1.0)[None]
    exact[0, 2, 3] = 1
    assert end(BEYOND, exact) == ""


def test_a_map_shows_entries_by_their_limits() -> None:
    drawn = draw_map(make_measurement([[0, -4.0], [1, 0]], limit=2.0))
    assert drawn.errors.tolist() == [[0, 2], [0.5, 0]]
    assert (drawn.axes, drawn.blocks) == ((0, 1), (1, 1))
    assert divide(np.array([-3.0, 0, 1]), np.array([2.0, 0, np.inf])).tolist() == [1.5, 0, 0]


def test_an_entry_is_as_wrong_as_the_least_wrong_slice_that_it_is_in() -> None:
    by_axis = make_slices(0, [1, -4], limit=0.5), make_slices(1, [3, 0, 9])
    drawn = draw_map(make_measurement([[0, 5.0, 0], [0, 0, 0]], *by_axis))
    assert drawn.errors.tolist() == [[2, 5, 2], [3, 0, 8]]
    assert draw_map(make_measurement(np.zeros(3), make_slices(0, [3, 0, 9]))).errors.tolist() == [
        [3, 0, 9]
    ]


def test_the_whole_gradient_is_as_wrong_as_it_is_where_no_part_is() -> None:
    for part in (0.25, 1.0):
        found = make_measurement([[part, 0.5]], whole=3.0)
        assert draw_map(found).errors.tolist() == [[3, 3]]
    assert draw_map(make_measurement([[0.25, 0.5]], whole=1.0)).errors.tolist() == [[0.25, 0.5]]
    assert draw_map(make_measurement([[1.5, 0.5]], whole=3.0)).errors.tolist() == [[1.5, 0.5]]


def test_a_map_has_the_two_first_axes_or_those_with_places() -> None:
    mean = np.zeros((2, 3, 4))
    mean[0, 1, 2] = 0.5
    drawn = draw_map(make_measurement(mean))
    assert drawn.axes == (0, 1)
    assert drawn.errors.tolist() == [[0, 0.5, 0], [0, 0, 0]]
    mean[:, :, 2] = 9
    assert draw_map(make_measurement(mean)).axes == (0, 2)
    mean[:, [0, 2]] = 0
    assert draw_map(make_measurement(mean)).axes == (1, 2)


@pytest.mark.parametrize(("size", "block"), [(128, 1), (129, 2), (256, 2), (257, 3)])
def test_a_long_axis_has_128_cells_at_most_each_with_its_largest_error(
    size: int, block: int
) -> None:
    drawn = draw_map(make_measurement([np.arange(float(size))] * 2))
    assert drawn.blocks == (1, block)
    last = [min(k + block, size) - 1 for k in range(0, size, block)]
    assert drawn.errors.tolist() == [last, last]


def test_a_map_is_described_where_a_cell_is_no_entry() -> None:
    zeros = np.zeros((2, 2))
    assert ErrorMap(zeros, (0, 1), (1, 1)).describe(2) == ""
    assert ErrorMap(zeros, (), ()).describe(0) == ""
    said = ErrorMap(zeros, (0, 2), (1, 1)).describe(3)
    assert said.endswith(" axis 0 and axis 2, with the largest error of each cell")
    said = ErrorMap(zeros, (0, 1), (1, 2)).describe(2)
    assert said.endswith(" axis 0 and axis 1 in blocks of 2, with the largest error of each cell")
