"""What the report says that would have been seen of a kernel, with numbers by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import kernel_precision
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_precision import (
    describe_kernel_precision,
    describe_resolution,
    format_limit,
    format_share,
    measure_hidden,
    select_testable,
)
from bptt_verifier.tolerance.projections import Measurement, Noise, Slices

EXACT = 2 * np.ones((3, 10))  # of root mean square 2


def measured(
    resolution: float = 0.01, limit: Any = 0.1, of_rounding: float = 0.0, **other: Any
) -> Measurement:
    """Errors of ten entries; the whole gradient has a resolution, and the entries have limits."""
    one = np.ones(1)
    whole = Slices(None, 0 * one, resolution * one, 0 * one, 0 * one)
    limits = limit * np.ones(10)
    noise = Noise(0.0, 2.0**-24, 0.0, of_rounding)
    return Measurement(noise, (whole,), np.zeros(10), limits, limits)._replace(**other)


def find(exact: Any = EXACT, unsure: Any = (), **gradients: Measurement) -> Found:
    case: Any = SimpleNamespace()
    exact = exact if isinstance(exact, dict) else dict.fromkeys(gradients, exact)
    return Found(case, {}, exact, gradients, {}, frozenset(unsure))


WRONG = measured(mean=np.ones(10))


@pytest.fixture(autouse=True)
def formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say for which cases the formats inside are described."""

    def describe(every: Any, found: Any) -> Any:
        yield f"{len(every)} settings, {len(found)} cases"

    monkeypatch.setattr(kernel_precision, "describe_formats", describe)


def describe(*found: Found) -> list[str]:
    return [*describe_kernel_precision([SimpleNamespace()], found)]  # type: ignore[list-item]


def test_a_right_kernel_has_formats_and_a_resolution() -> None:
    formats, seen = describe(find(w=measured()), find(w=measured()))
    assert formats == "1 settings, 2 cases"
    assert seen.startswith("These errors would have been seen")


def test_a_kernel_that_is_wrong_elsewhere_has_a_resolution_alone() -> None:
    noisy = measured(of_rounding=3.0, explained=True)
    (seen,) = describe(find(w=WRONG), find(w=noisy))
    assert seen.startswith("These errors would have been seen")
    assert describe(find(w=WRONG)) == []


def test_gradients_that_are_zero_to_rounding_say_nothing() -> None:
    zero = measured(np.inf)
    assert select_testable({"w": measured(), "b": zero}).keys() == {"w"}
    assert describe(find(b=zero)) == []
    formats, *_ = describe(find(b=zero), find(w=measured(), b=zero))
    assert formats == "1 settings, 1 cases"


def test_the_errors_are_compared_with_those_of_rounding_once() -> None:
    found = [find(w=measured(of_rounding=r), b=measured(of_rounding=0.5 * r)) for r in (1.0, 4.0)]
    *_, said = describe(*found, find(w=measured(of_rounding=0.0)))
    assert "are 1.5 times those of rounding" in said  # the median of 0.5, 1, 2 and 4
    assert "0.5 to 4)" in said
    assert len(describe(find(w=measured()))) == 2  # without errors, nothing is said


def test_parts_that_only_rounding_explains_are_named() -> None:
    explained = measured(explained=True)
    said = describe(find(w=explained, b=measured(), v=explained), find(w=explained, b=measured()))
    assert said[2].startswith("Single parts of the gradients for w, v err by more")
    assert len(said) == 3
    doubted = describe(find(EXACT, ["v", "b"], w=explained, v=explained, b=measured()))
    assert "no such rounding elsewhere in the gradients for v, or" in doubted[3]
    elsewhere = describe(find(w=explained), find(EXACT, ["w"], v=measured()))
    assert len(elsewhere) == 3


def test_the_resolution_is_the_best_of_all_cases_and_that_of_the_worst_gradient() -> None:
    said = describe_resolution([find(w=measured(0.02, 0.1)), find(w=measured(0.01, 0.3))])
    assert "above 1 % (of w); one in any other direction above 5 %" in said
    assert "in nine of ten, above 5 %" in said
    both = describe_resolution([find(w=measured(0.01, 0.4), b=measured(0.03, 0.2))])
    assert "above 3 % (of b; the others are sharper)" in both
    assert "any other direction above 20 %" in both
    assert "nine of ten, above 20 %" in both


def test_nine_of_ten_entries_have_the_resolution_of_single_ones() -> None:
    limit = np.array([0.1] * 9 + [100.0])
    (said,) = [describe_resolution([find(w=measured(0.01, limit))])]
    # The quantile 0.9 of ten is 0.1 of the way from the ninth to the tenth: (0.1 + 9.99) / 2.
    assert "other direction only if it is as large as the gradient" in said
    assert "in nine of ten, only if it is as large" in said
    limit = np.array([0.1] * 9 + [2.1])
    said = describe_resolution([find(w=measured(0.01, limit))])
    assert "in nine of ten, above 15 %" in said  # (0.1 + 0.2) / 2
    assert "other direction above 34 %" in said  # √(0.09 + 4.41) / √10 / 2


def test_gradients_in_which_nothing_would_be_seen_are_named() -> None:
    one = describe_resolution([find(w=measured(1.0), b=measured(0.5))])
    assert "above 50 % (of b);" in one
    assert "No error of the gradient for w as large as" in one
    two = describe_resolution([find(w=measured(1.0), b=measured(2.0))])
    assert two.startswith("No error of the gradients for w, b as large as")
    assert "These errors" not in two
    none = describe_resolution([find(w=measured(np.inf))])
    assert none == "No error would have been seen: the gradients are zero."


def test_entries_of_which_nothing_would_be_seen_are_counted() -> None:
    exact = np.ones((2, 5)) * [0, 1, -1, -1, 1]
    visible = np.array([9, 0.5, 1, 2, 0.9])
    assert measure_hidden(measured(visible=visible), exact) == 0.5  # of four that are not zero
    assert measure_hidden(measured(visible=visible), 0 * exact) == 0
    assert measure_hidden(measured(visible=visible), exact * [[1], [7]]) == 0  # of size 5
    cases = [find(exact, w=measured(visible=visible)), find(exact, w=measured(visible=0 * visible))]
    for found in (cases, cases[::-1]):
        assert "Up to 50 % of the entries" in describe_resolution(found)
    assert "Up to" not in describe_resolution(cases[1:])


def test_a_gradient_of_zeros_has_no_size() -> None:
    said = describe_resolution([find(0 * EXACT, w=measured(0.01, 1e-100))])
    assert "other direction only if it is as large as the gradient" in said


def test_sizes_from_which_errors_are_seen_read_well() -> None:
    assert format_share(1e-4) == "0.01 %"
    assert format_share(0.99e-4) == "9.9e-05"
    assert [format_share(x) for x in (0.123, 0.994, 0.996, 1.0)] == [
        "12 %",
        "99 %",
        "100 %",
        "100 %",
    ]
    assert format_limit(0.5) == "above 50 %"
    assert format_limit(1.0) == "only if it is as large as the gradient"
