"""Places in 16 bits: right indices are those whose own errors are a few roundings in all cases."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_diagnosis import Cases, name_gradient
from bptt_verifier.judge.kernel_half_places import (
    IndexErrors,
    hides_place,
    list_half_places,
    list_index_errors,
)
from bptt_verifier.tolerance.projections import Noise, measure
from tests.support.measurements import make_measurement, make_slices

CALLS: Any = [SimpleNamespace(arguments=SimpleNamespace(data={}, leaves={}), pullback=None)]


def find(change: Any, seed: int = 0, dtype: Any = np.float16, shape: Any = (6, 40)) -> Found:
    """What was found at 32 neighbours of a gradient that is changed and then rounded."""
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=shape) * (1 + rng.uniform(-1, 1, (32, *shape)) / 16)
    submitted = change(exact, rng).astype(dtype)
    case = KernelCase(0, seed, {"w": np.ones(2, dtype)}, {"y": np.ones(2)})
    measured = measure(submitted.astype(np.float64) - exact, exact, dtype, 1000)
    return Found(case, {"w": submitted}, {"w": exact}, {"w": measured}, {})


def disturb(rows: Any, size: float = 0.5) -> Any:
    """Add errors that move with the point to some rows, as a missing term of a sum does."""

    def change(exact: Any, rng: Any) -> Any:
        found = exact.copy()
        found[:, rows] += size * rng.normal(size=exact.shape[1:])[rows] * exact[:, rows, ::-1]
        return found

    return change


def test_rows_are_named_though_their_errors_hide_them_in_the_limits_of_all() -> None:
    cases = [find(disturb(slice(1, 3)), seed) for seed in range(3)]
    (place,) = list_half_places("w", cases)
    assert (place.axis, place.indices, place.name) == (0, (1, 2), "wrong-range")
    assert place.said == "at indices 1 to 2 of axis 0"
    kind, said = name_gradient("w", Cases(cases), CALLS)
    assert (kind, said[:43]) == ("wrong-range", "entries are wrong at indices 1 to 2 of axis")
    assert list_half_places("w", [find(disturb(slice(1, 3)), dtype=np.float32)]) == []


def test_a_row_is_wrong_if_it_is_so_in_one_case_and_right_if_it_is_in_all() -> None:
    cases = [find(disturb(slice(k, k + 1)), k) for k in range(3)]
    (place,) = list_half_places("w", cases)
    assert place.indices == (0, 1, 2)
    kind, said = name_gradient("w", Cases(cases), CALLS)
    assert kind == "wrong-range"
    assert said.startswith("entries are wrong at indices 0 to 2 of axis 0, by ")
    every = [find(disturb(slice(3 * k, 3 * k + 3)), k) for k in range(2)]
    assert list_half_places("w", every) == []
    assert not hides_place("w", every)
    assert hides_place("w", every[:1])


@pytest.mark.parametrize(("size", "named"), [(0.5, True), (0.03, True), (0.004, False)])
def test_errors_that_are_near_rounding_give_no_place(size: float, named: bool) -> None:
    cases = [find(disturb(slice(1, 3), size), seed) for seed in range(3)]
    assert bool(list_half_places("w", cases)) is named
    assert hides_place("w", cases)


def test_what_is_wrong_everywhere_is_at_no_place_in_any_format() -> None:
    cases = [find(disturb(slice(None)), seed) for seed in range(3)]
    assert list_half_places("w", cases) == []
    assert not hides_place("w", cases)
    kind, said = name_gradient("w", Cases(cases), CALLS)
    assert kind == "unknown"
    assert said.startswith("entries are wrong at no place that stands out, by ")


def test_of_several_shapes_one_may_hide_a_place() -> None:
    alike = [find(disturb(slice(None)), seed, shape=(5, 40)) for seed in range(2)]
    hiding = [find(disturb(slice(1, 3), 0.002), seed) for seed in range(3)]
    kind, said = name_gradient("w", Cases(alike + hiding), CALLS)
    assert kind == "unknown"
    assert said.startswith("entries are wrong and 16 bits are too few to tell where, by ")


def test_rounding_inside_at_some_rows_is_no_place() -> None:
    """Errors that scatter with the points are no mistake that stays, however large they are."""

    def scatter(exact: Any, rng: Any) -> Any:
        found = exact.copy()
        found[:, 1:3] *= 1 + 0.1 * rng.normal(size=found[:, 1:3].shape)
        return found

    cases = [find(scatter, seed) for seed in range(3)]
    rows, _ = list_index_errors("w", cases)
    assert not rows.wrong.any()
    assert rows.size[1:3].min() > 16
    assert rows.size[3:].max() < 1
    assert list_half_places("w", cases) == []


# Of 32 points, the square of the mean has to exceed a quarter of the variance: 8 / 32.
@pytest.mark.parametrize(
    ("error", "scatter", "wrong"),
    [
        (8.0, 16.0, False), (8.0, 15.99, True), (0.5, 0.99, True), (0.5, 1.0, False),
        (4.0, 0.0, False), (4.01, 0.0, True),
    ],
)  # fmt: skip
def test_an_index_is_wrong_whose_mean_error_stays_and_is_more_than_four_roundings(
    error: float, scatter: float, wrong: bool
) -> None:
    unit = 1.0 if error >= 4 else 2.0**-11
    rows = make_slices(0, [0.0], [error])._replace(noise=np.array([scatter]))
    measured = make_measurement(np.zeros((1, 40)), rows)._replace(noise=Noise(0, unit, 0, 0))
    found = find(lambda g, _: g, shape=(1, 40))._replace(gradients={"w": measured})
    place = next(iter(list_index_errors("w", [found])))
    assert place.wrong.tolist() == [wrong]


@pytest.mark.parametrize(("scatter", "named"), [(8, True), (32, False)])
def test_right_rows_may_round_inside_far_below_the_errors_of_wrong_ones(
    scatter: float, named: bool
) -> None:
    def change(exact: Any, rng: Any) -> Any:
        found = disturb(slice(1, 3))(exact, rng)
        found[:, 5] *= 1 + scatter * 2.0**-11 * rng.normal(size=found[:, 5].shape)
        return found

    places = list_half_places("w", [find(change, seed) for seed in range(2)])
    assert [place.indices for place in places] == [(1, 2)] * named


def test_rows_without_a_gradient_are_neither_right_nor_wrong() -> None:
    def clear(exact: Any, rng: Any) -> Any:
        exact[:, 4:] = 0
        return disturb(slice(1, 3))(exact, rng)

    cases = [find(clear, seed) for seed in range(2)]
    rows, _ = list_index_errors("w", cases)
    assert rows.known.tolist() == [True] * 4 + [False] * 2
    assert not rows.wrong[4:].any()
    assert [place.indices for place in list_half_places("w", cases)] == [(1, 2)]


def test_one_number_has_no_place() -> None:
    cases = [find(lambda g, _: 1.5 * g, shape=())]
    assert [*list_index_errors("w", cases)] == []
    assert not hides_place("w", cases)


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ([1, 1], [16, 40], True),
        ([1, 1], [15.9, 40], False),
        ([1, 3], [24, 40], True),
        ([1, 3], [23.9, 40], False),
        ([1, 16], [128, 300], True),
        ([1, 16.1], [300, 300], False),
    ],
)
def test_wrong_indices_are_sixteen_units_off_and_eight_times_as_much_as_right_ones(
    right: Any, wrong: Any, named: bool
) -> None:
    size = np.array([*right, *wrong], float)
    is_wrong, known = np.array([0, 0, 1, 1], bool), np.ones(4, bool)
    place = IndexErrors(0, is_wrong, size, size, known).find_place()
    assert (place is not None) is named
    assert IndexErrors(0, known, size, size, known).find_place() is None
    assert IndexErrors(0, ~known, size, size, known).find_place() is None


def test_an_index_has_a_gradient_if_it_has_one_in_a_case() -> None:
    def clear(exact: Any, rng: Any) -> Any:
        exact[:, 4:] = 0
        return exact

    (rows, _) = list_index_errors("w", [find(clear), find(lambda g, _: g, 1)])
    assert rows.known.all()


def test_two_formats_are_not_asked_together() -> None:
    cases = [find(disturb(slice(1, 3)), dtype=dtype) for dtype in (np.float16, np.float32)]
    assert list_half_places("w", cases) == []
    assert not hides_place("w", cases)
