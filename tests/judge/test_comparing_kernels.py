"""Comparisons of a kernel with exact values, each step by itself, with numbers by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import kernel_comparisons
from bptt_verifier.judge.kernel_cases import KernelCase, Neighbours
from bptt_verifier.judge.kernel_comparisons import (
    HIDING,
    IMITATED,
    Found,
    ShownRounding,
    ask_each,
    check_outputs,
    compare_kernel,
    find_largest_terms,
    find_result_dtype,
    imitate_rounding,
    is_mistake,
    leave_out,
    may_be_rounding,
    scale,
    settle_doubts,
)
from bptt_verifier.reference.point_arrays import Pulled
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.projections import APPROXIMATE
from bptt_verifier.tolerance.scatter import DISTANCE, IN_HALF
from tests.support.measurements import make_measurement, make_slices

CASE = KernelCase(0, 0, {"w": np.ones(4)}, {"y": np.ones(2)})
RIGHT, WRONG = make_measurement([0.0] * 4), make_measurement([0.0, 0, 0, 9])


def find(
    exact: Any = None,
    case: Any = CASE,
    outputs: Any = None,
    submitted: Any = None,
    **gradients: Any,
) -> Found:
    """What was found at a case with these measured errors of gradients, whose size is 2."""
    names = [*gradients, *(outputs or {})]
    true = {name: 2 * np.ones((3, 4)) for name in names} if exact is None else exact
    return Found(case, submitted or {}, true, gradients, outputs or {})


# Errors that no rounding makes, of a gradient of size 2.


@pytest.mark.parametrize(
    ("resolution", "relative", "limit"),
    [
        (0.1, 0.0, 0.2),
        (0.0, 0.0, 4 * APPROXIMATE),
        (0.0, 0.01, 64 * 0.01 * 2),
        (0.1, 1e-4, 0.2),
    ],
)
def test_an_entry_is_a_mistake_beyond_the_resolution_and_64_times_the_noise(
    resolution: float, relative: float, limit: float
) -> None:
    def ask(error: float, allowed: float = 1e-6) -> bool:
        errors = make_measurement([0, 0, error, 0], limit=allowed, relative=relative)
        return is_mistake(find(w=errors), "w", resolution)

    assert ask(-1.001 * limit)
    assert not ask(limit)
    assert not ask(100 * limit, allowed=np.inf)  # entries that are not wrong
    assert is_mistake(find(outputs={"y": make_measurement([5.0] * 4)}), "y", resolution)


def test_a_limit_that_is_reached_is_not_exceeded() -> None:
    def ask(relative: float, resolution: float) -> bool:
        errors = make_measurement([0.0] * 4, whole=0.5, limit=1e-9, relative=relative)
        slices = (make_slices(None, [0.5], limit=1e-9),)
        return is_mistake(find(w=errors._replace(slices=slices)), "w", resolution)

    assert ask(0.0, 0.49)
    assert ask(2.0**-7 - 1e-9, 0.0)
    assert ask(0.0, 0.5) is False
    assert ask(2.0**-7, 0.0) is False  # 64 · 2⁻⁷ = 0.5
    assert find(w=RIGHT).keeps_zeros is False


SIZES = np.array([1.0, 2, 4, 8])  # of the columns of a gradient


@pytest.mark.parametrize(
    ("resolution", "relative", "limit"),
    [(0.5, 0.0, 0.5), (0.0, 0.0, 2 * APPROXIMATE), (0.0, 0.01, 0.64), (0.5, 0.001, 0.5)],
)
def test_a_slice_is_a_mistake_by_its_part_of_the_gradient_and_its_own_noise(
    resolution: float, relative: float, limit: float
) -> None:
    exact = {"w": np.ones((3, 2, 1)) * SIZES}
    size = float(np.sqrt((SIZES**2).mean()))

    def ask(axis: Any, factor: Any, allowed: float = 1e-9) -> bool:
        every = make_slices(axis, factor, limit=allowed)
        errors = make_measurement(np.zeros((2, 4)), every, relative=relative)
        return is_mistake(find(exact, w=errors), "w", resolution)

    for axis, factors, own in (
        (None, [1.0], size), (0, [0, 1], size), (1, [0, 1, 0, 0], 2.0), (1, [0, 0, 0, -1], 8.0),
    ):  # fmt: skip
        least = max(limit * size / own, 64 * relative) if limit != 64 * relative else limit
        assert ask(axis, 1.001 * least * np.array(factors))
        assert not ask(axis, 0.999 * least * np.array(factors))
        assert not ask(axis, 1e3 * np.array(factors), allowed=np.inf)


# Outputs.


def test_an_output_that_differs_is_told_by_its_largest_error() -> None:
    exact = {"y": np.ones((2, 2, 2)), "z": np.ones((2, 1))}
    submitted = {name: value.astype(np.float32) for name, value in exact.items()}
    submitted["y"][1, 0, 1], submitted["y"][0, 1, 1], submitted["y"][0, 0, 0] = -2, 3, np.nan
    wrong = make_measurement(np.full((2, 2), 9.0))
    outputs = {"x": RIGHT, "y": wrong, "z": make_measurement([9.0])}
    found = check_outputs(find(exact, outputs=outputs, submitted=submitted))
    assert isinstance(found, Mistake)
    assert found.name == "forward-differs"
    assert found.details == {"outputs": ["y", "z"], "yours": -2, "stated": 1}
    assert found.explanation == (
        "your forward pass differs: your y is -2 at entry [0, 1], and that of the stated function "
        "is 1, with the arguments given. The gradients are not compared."
    )
    right = find(exact, outputs={"x": RIGHT}, submitted=submitted)
    assert check_outputs(right) is right


def test_an_output_without_axes_has_no_entry() -> None:
    one = find(
        {"y": np.ones(2)}, outputs={"y": make_measurement(9.0)}, submitted={"y": np.r_[1, 5]}
    )
    found = check_outputs(one)
    assert isinstance(found, Mistake)
    assert "your y is 5, and that of" in found.explanation


# Near the point, and further away.


class Measured:
    """Measurements near the point and further away that are given, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.near: Any = find(w=RIGHT)
        self.far: Any = find(w=RIGHT)
        self.noisy: dict[str, float] = {}
        self.asked = list[Any]()
        monkeypatch.setattr(kernel_comparisons, "measure_at", self.measure_at)
        monkeypatch.setattr(kernel_comparisons, "find_excessive_noise", self.find_noise)

    def measure_at(self, calls: Any, case: Any, distance: float, *given: Any, **named: Any) -> Any:
        self.asked.append((distance, given[2:], named))
        return self.far if distance == IN_HALF and len(self.asked) > 1 else self.near

    def find_noise(self, calls: Any, case: Any, near: Any, measure: Any, seed: int) -> Any:
        self.measured = measure(0.25)
        self.asked.pop()
        return self.noisy


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    return Measured(monkeypatch)


def compare(case: KernelCase = CASE) -> Any:
    calls: Any = None
    return compare_kernel(calls, case, 100, 0, ("w",))


def test_what_is_right_near_the_point_is_asked_no_further(measured: Measured) -> None:
    measured.noisy = {"w": 2.0}
    found = compare()
    assert found.gradients is measured.near.gradients
    assert found.noisy == {"w": 2.0}
    assert found.nearest is found
    assert measured.asked == [(DISTANCE, (), {"doubtful": ("w",)})]
    assert measured.measured is measured.near.gradients


def test_a_finding_in_the_place_of_a_measurement_is_returned(measured: Measured) -> None:
    finding = Mistake("raised", "It was raised.", {})
    measured.near, measured.far = find(w=WRONG), finding
    assert compare() is finding
    measured.near = finding
    assert compare() is finding


def test_noise_cannot_be_measured_where_there_is_a_finding(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list[Any]()

    def find_noise(calls: Any, case: Any, near: Any, measure: Any, seed: int) -> Any:
        measured.near = Mistake("raised", "It was raised.", {})
        found.append(measure(0.25))
        return {}

    monkeypatch.setattr(kernel_comparisons, "find_excessive_noise", find_noise)
    compare()
    assert found == [None]


def test_in_16_bits_the_neighbours_are_the_furthest_ones(measured: Measured) -> None:
    measured.near = find(w=WRONG)
    half = KernelCase(0, 0, {"w": np.ones(4, np.float16)}, {})
    assert compare(half).gradients == {"w": WRONG}
    assert len(measured.asked) == 1


def test_what_is_wrong_at_both_distances_is_wrong(measured: Measured) -> None:
    measured.near, measured.far, measured.noisy = find(w=WRONG), find(w=WRONG), {"w": 3.0}
    found = compare()
    assert found.wrong == ["w"]
    assert found.unsure == frozenset()
    assert found.near.gradients == {"w": WRONG}
    assert found.noisy == found.near.noisy == {"w": 3.0}
    assert measured.asked[1] == (IN_HALF, (measured.near,), {})


def test_what_is_wrong_near_the_point_alone_is_unsure_if_it_is_no_rounding(
    measured: Measured,
) -> None:
    small = make_measurement([0, 0, 0, 1e-3], limit=1e-9)
    measured.near = find(w=small, v=WRONG, b=WRONG)
    measured.far = find(w=RIGHT, v=RIGHT, b=WRONG)._replace(unsure=frozenset("u"))
    found = compare()
    assert found.unsure == {"v", "u"}  # w errs by less than the resolution far away, which is 1
    assert found.wrong == ["b"]


def test_an_output_that_differs_near_or_far_ends_the_comparison(measured: Measured) -> None:
    exact, submitted = {"y": np.ones(2), "w": np.ones((2, 4))}, {"y": np.zeros(2)}
    differs = find(exact, outputs={"y": make_measurement(9.0)}, submitted=submitted, w=RIGHT)
    measured.near = find(exact, w=WRONG)
    measured.far = differs
    assert compare().name == "forward-differs"
    measured.near, measured.far = differs, differs._replace(outputs={"y": make_measurement(0.0)})
    assert compare().wrong == []


# Larger cotangents.

TINY = CASE._replace(cotangents={"y": np.full(2, 2.0**-1000)})


@pytest.mark.parametrize(
    ("case", "first", "again", "enlarged"),
    [
        (CASE, "wrong", "right", None), (TINY, "right", "wrong", None),
        (TINY, "finding", "right", None), (TINY, "wrong", "right", True),
        (TINY, "unsure", "right", True), (TINY, "wrong", "finding", False),
    ],
)  # fmt: skip
def test_a_kernel_that_does_not_agree_at_tiny_cotangents_is_asked_at_larger_ones(
    monkeypatch: pytest.MonkeyPatch, case: KernelCase, first: str, again: str, enlarged: bool | None
) -> None:
    asked = list[Any]()
    answers = {
        "right": find(w=RIGHT), "wrong": find(w=WRONG),
        "unsure": find(w=RIGHT)._replace(unsure=frozenset("w")),
        "finding": Mistake("raised", "It was raised.", {}),
    }  # fmt: skip

    def compare_around(calls: Any, case: KernelCase, *given: Any) -> Any:
        asked.append((case.enlarged, *given))
        return answers[again if case.enlarged else first]

    monkeypatch.setattr(kernel_comparisons, "compare_around", compare_around)
    assert compare(case) is answers[again if enlarged else first]
    given = 100, 0, ("w",)
    assert asked == [(0, *given)] if enlarged is None else [(0, *given), (999, *given)]


# Rounding.


def test_errors_of_a_gradient_may_be_rounding_of_the_outputs() -> None:
    # The argument is 2 and the cotangents times the outputs are of size 5 and 10: errors of
    # 2¹² units of float32 times 10 may be rounding, over an argument of size 2.
    points = [{"w": np.full(2, 2.0)}, {"w": np.full(2, 2.0)}]
    cotangents = [{"y": np.array([1.0, 1]), "z": np.array([2.0])}] * 2
    near = Neighbours(points, cotangents)
    exact = Pulled(
        {"y": np.array([[3.0, 4], [6, 8]]), "z": np.zeros((2, 1))}, {"w": np.ones((2, 2))}
    )
    limit = 2.0**12 * 2.0**-24 * 10 / 2

    def ask(error: float, name: str = "w", dtype: Any = np.float32) -> bool:
        errors = np.array([[1.0, 0], [0, 0]]) * error
        return may_be_rounding(name, errors, dtype, near, exact)

    assert ask(limit)
    assert not ask(1.001 * limit)
    assert not ask(limit, dtype=np.float64)
    assert ask(1e9, "y")
    assert ask(np.nan)


def test_the_largest_terms_are_those_where_the_slopes_are_largest() -> None:
    asked = list[Any]()

    def ask(
        smaller: float, smallest: float, name: str = "w", exact: float = -2.0, first: float = 1.0
    ) -> float:
        def pull_back(points: Any, cotangents: Any) -> Any:
            asked.append(([p["w"].tolist() for p in points], [p["v"] for p in points], cotangents))
            grown = np.array([[smaller, 0], [0, -smallest]])
            return SimpleNamespace(gradients={"w": grown})

        pullback: Any = SimpleNamespace(pull_back=pull_back)
        near = Neighbours([{"w": np.array([64.0, 128], np.float32), "v": 7}, {}], ["c", "d"])  # type: ignore[list-item, dict-item]
        return find_largest_terms(name, np.array([[first, exact]]), near, pullback)

    assert ask(5.0, 6.0) == 4 * 6
    assert asked == [([[2, 4], [1, 2]], [7, 7], ["c", "c"])]
    assert ask(5.0, 7.5) == 4 * 2  # it grows on and on
    assert ask(5.0, 7.49) == 4 * 7.49
    assert ask(1.0, 1.0) == 4 * 2
    assert ask(5.0, 6.0, "y") == 4 * 2
    assert ask(5.0, 6.0, "y", 0.5) == 4
    assert ask(0.5, 0.625, exact=0.25, first=0.25) == 2.5


def test_a_function_that_fails_at_small_arguments_has_the_terms_that_are_known() -> None:
    pullback: Any = SimpleNamespace(pull_back=lambda *_: 1 / 0)
    near = Neighbours([{"w": np.ones(2)}], [{}])
    assert find_largest_terms("w", np.array([[3.0]]), near, pullback) == 12
    assert find_largest_terms("w", np.zeros((1, 0)), near, pullback) == 0


def test_rounding_is_imitated_in_the_coarsest_dtype_at_the_first_neighbours() -> None:
    asked = list[Any]()

    def imitate(points: Any, cotangents: Any, dtype: Any) -> Any:
        asked.append((points, cotangents, dtype))
        return Pulled({"y": np.array([np.nan, np.inf, 2])}, {"w": np.array([-np.inf, 1])})

    pullback: Any = SimpleNamespace(imitate_rounding=imitate)
    near: Any = Neighbours([*range(6)], [*range(10, 16)])  # type: ignore[arg-type]
    dtypes = {"w": np.float64, "y": np.float16, "v": np.float32}
    found = imitate_rounding(pullback, near, dtypes)
    assert asked == [([*range(IMITATED)], [10, 11, 12, 13], np.float16)]
    assert found["w"].tolist() == [HIDING, 1]  # an overflow hides what it may
    assert found["y"].tolist() == [HIDING, HIDING, 2]
    assert 1e100 < HIDING < np.finfo(np.float64).max / 1e6
    failing: Any = SimpleNamespace(imitate_rounding=lambda *_: 1 / 0)
    assert imitate_rounding(failing, near, dtypes) == {}


def test_doubts_are_settled_by_the_shares_of_all_cases_together() -> None:
    asked = list[Any]()

    def doubt(shares: Any, right: bool = True, distance: float = DISTANCE) -> ShownRounding:
        def measure(share: float) -> Any:
            asked.append(share)
            return RIGHT if right else WRONG

        return ShownRounding(np.array(shares), distance, measure)

    def settle(*doubts: ShownRounding) -> Any:
        cases = [
            find(w=RIGHT, v=WRONG)._replace(unsure=frozenset("wvy"), doubts={"w": each, "y": each})
            for each in doubts
        ]
        return settle_doubts(cases)

    (none,) = settle(doubt([]))
    assert none.unsure == set("wvy")
    assert none.gradients == {"w": RIGHT, "v": WRONG}
    first, second = settle(doubt([]), doubt([0.75] * 30))
    for each in (first, second):
        assert each.unsure == set("vy")
        assert each.gradients == {"w": RIGHT._replace(explained=True), "v": WRONG}
    assert asked == [0.75, 0.75]
    wrong, _ = settle(doubt([], right=False), doubt([0.75] * 30))
    assert wrong.unsure == set("wvy")
    assert wrong.gradients["w"] is RIGHT
    nothing = find(w=RIGHT)._replace(doubts={"w": doubt([0.5] * 30)})
    assert settle_doubts([nothing]) == [nothing]


# Arrays.


def test_answers_are_stacked_or_the_first_finding_is_returned() -> None:
    near = Neighbours(
        [{"w": np.array([k])} for k in (1, 2)], [{"y": np.array([k])} for k in (3, 4)]
    )
    found = ask_each(near, lambda point, c: {"w": point["w"] + c["y"], "v": c["y"]})
    assert {name: value.tolist() for name, value in found.items()} == {  # type: ignore[union-attr]
        "w": [[4], [6]], "v": [[3], [4]],
    }  # fmt: skip
    single: Any = ask_each(Neighbours([{}], [{}]), lambda point, c: {"w": np.ones(2)})
    assert single["w"].shape == (1, 2)
    finding = Mistake("raised", "It was raised.", {})
    assert ask_each(near, lambda point, c: finding if c["y"] == 4 else {"w": point["w"]}) is finding


def test_entries_are_left_out_at_all_neighbours() -> None:
    y = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    out = np.array([[True, False, False], [False, False, True]])
    found = leave_out({"y": y, "w": y}, {"y": out})
    assert found["y"].tolist() == [[0, 2, 0], [0, 5, 0]]
    assert found["y"].dtype == np.float32
    assert found["w"] is y
    scaled = scale({"c": np.array([1, 2], np.float16)}, 3.0)["c"]
    assert scaled.tolist() == [3, 6]
    assert scaled.dtype == np.float64


def test_a_result_has_the_coarser_dtype_of_it_and_its_argument() -> None:
    half, single = np.ones(1, np.float16), np.ones(1, np.float32)
    case = KernelCase(0, 0, {"w": single, "v": half}, {})
    assert find_result_dtype("w", half, case) == np.float16
    assert find_result_dtype("v", single, case) == np.float16
    assert find_result_dtype("y", single, case) == np.float32
