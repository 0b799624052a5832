"""Every report says how many cases could have told, and the largest sizes that were tried."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify, verify_own_model, verify_transpose, verify_vjp
from bptt_verifier.judge.judgement import (
    add_count,
    count_compared,
    find_largest_shapes,
    is_counted,
)
from bptt_verifier.report import Report
from bptt_verifier.report.findings import COUNTED, SHOWN
from bptt_verifier.tolerance.comparison import Comparison, Verdict

PARAMS = {"w": np.ones(3), "A": np.full((2, 3), 0.5)}
FULL = "up to w=(3,) A=(2, 3)"
TANGENTS = np.linspace(0.5, 1.0, 3)


def loss(p: Any) -> Any:
    return np.sum(np.tanh(p["A"] @ p["w"]))


def untraceable(p: Any) -> Any:
    return sum(np.tanh(float(str(float(a @ p["w"])))) for a in np.asarray(p["A"]))


def right(p: Any, factor: float = 1.0) -> Any:
    d = factor * (1 - np.tanh(p["A"] @ p["w"]) ** 2)
    return {"w": d @ p["A"], "A": np.outer(d, p["w"])}


def raising(p: Any) -> Any:
    raise KeyError(1)


def list_counts(report: Report) -> list[str]:
    return [note.removesuffix(COUNTED).strip() for note in report.notes if note.endswith(COUNTED)]


@pytest.mark.parametrize(
    ("gradients", "stated", "verdict", "counts", "tried"),
    [
        (right, loss, Verdict.AGREES, ["24 of 24 cases"], f"24 cases {FULL}"),
        pytest.param(
            lambda p: right(p, 2.0), loss, Verdict.DISAGREES, ["24 of 24 cases"],
            f"24 cases {FULL}", marks=pytest.mark.rest,
        ),
        pytest.param(
            right, untraceable, Verdict.AGREES, ["6 of 6 cases"], f"6 cases {FULL}",
            marks=pytest.mark.rest,
        ),
        (raising, loss, Verdict.DISAGREES, ["0 of 0 cases"], f"0 cases, calls {FULL}"),
        (lambda p: 3, loss, Verdict.DISAGREES, ["0 of 0 cases"], f"0 cases, calls {FULL}"),
        (
            lambda p: (7.0, right(p)), loss, Verdict.DISAGREES, ["0 of 0 cases"],
            f"0 cases, calls {FULL}",
        ),
        (right, raising, Verdict.INCONCLUSIVE, ["0 of 0 cases"], f"0 cases, calls {FULL}"),
    ],
)  # fmt: skip
def test_a_report_on_an_own_model_counts_what_could_tell_and_has_its_shapes(
    gradients: Any, stated: Any, verdict: Verdict, counts: list[str], tried: str
) -> None:
    report = verify_own_model(gradients, stated, PARAMS, timeout=0)
    assert report.verdict is verdict, str(report)
    assert [counted.partition(" of ")[2] for counted in list_counts(report)] == [
        counted.partition(" of ")[2] for counted in counts
    ]
    assert report.tried == tried
    assert report.to_dict()["largest_sizes"] == {"w": (3,), "A": (2, 3)}


def test_a_report_on_settings_has_the_largest_shape_of_each_parameter() -> None:
    larger = {"w": np.ones(2), "A": np.full((5, 2), 0.5)}
    report = verify_own_model(right, loss, [PARAMS, larger], timeout=0)
    assert report.tried == "24 cases up to w=(3,) A=(5, 3)"


@pytest.mark.parametrize(
    ("name", "calls"),
    [("raised", True), pytest.param("unknown", False, marks=pytest.mark.rest)],
)
def test_a_report_on_a_cell_counts_what_could_tell(name: str, calls: bool) -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        if calls:
            raise KeyError(1)
        return {n: 2 + v for n, v in params._asdict().items() if v is not None}

    report = verify(gradients, examples=5, timeout=0)
    assert [each.name for each in report.mistakes] == [name]
    (counted,) = list_counts(report)
    assert (counted == "0 of 0 cases") is calls
    assert counted.endswith(f"of {report.cases} cases")
    assert report.tried.startswith("0 cases, calls up to T=" if calls else f"{report.cases} cases")


def push(arguments: Any, direction: Any) -> Any:
    return (2 * direction[0],)


def pull(arguments: Any, cotangents: Any) -> Any:
    return (2 * cotangents[0],)


def test_a_report_on_a_kernel_counts_what_could_tell_and_has_its_shapes() -> None:
    for report in (
        verify_vjp(lambda a, c: (2 * c,), lambda x: 2 * x, (TANGENTS,)),
        verify_vjp(lambda a, c: (3 * c,), lambda x: 2 * x, (TANGENTS,)),
        verify_transpose(push, pull, (TANGENTS,)),
    ):
        assert list_counts(report) == ["3 of 3 cases"], str(report)
        assert report.tried.startswith("3 cases up to ")
        assert report.tried.endswith("=(3,)")
    for report in (
        verify_vjp(lambda a, c: "no", lambda x: 2 * x, (TANGENTS,)),
        verify_transpose(lambda a, d: (np.full(3, np.nan),), pull, (TANGENTS,)),
    ):
        assert list_counts(report) == ["0 of 0 cases"], str(report)
        assert report.tried.startswith("0 cases, calls up to ")


def test_nothing_that_was_tried_is_said_so() -> None:
    assert Report("mine", Verdict.INCONCLUSIVE).tried == "0 cases, no sizes compared"


@pytest.mark.parametrize(("number", "more"), [(SHOWN, ""), (SHOWN + 2, " and 2 more")])
def test_the_first_line_has_the_sizes_of_some_arrays_alone(number: int, more: str) -> None:
    sizes: Any = {f"p{k}": (k,) for k in range(number)}
    report = Report("mine", Verdict.AGREES, cases=1, largest_sizes=sizes)
    assert report.tried.endswith(f" p{SHOWN - 1}=({SHOWN - 1},){more}")
    assert len(report.to_dict()["largest_sizes"]) == number


def test_the_largest_shape_is_found_axis_by_axis() -> None:
    shapes: Any = [(2, 3), (1, 5)], [(), (4,)], [(4,), (2, 1)], [(2, 3), (5,)]
    largest = [(2, 5), (4,), (4,), (2, 3)]
    for every, expected in zip(shapes, largest, strict=True):
        assert find_largest_shapes({"a": np.ones(s)} for s in every) == {"a": expected}
    assert find_largest_shapes([]) == {}


def test_comparisons_that_could_have_shown_a_mistake_are_counted_by_gradient() -> None:
    every = [
        Comparison(n, 0.0, (), 1.0, 1.0, 0.1, r) for n, r in (("a", 0.5), ("a", 1.0), ("b", 2))
    ]
    assert count_compared(every, 0.5) == {"a": 1, "b": 0}
    shown = [*every, every[-1]._replace(error=1.01)]  # beyond a coarse bound
    assert count_compared(shown, 0.5) == {"a": 1, "b": 1}


def test_a_count_is_known_by_its_last_words() -> None:
    assert is_counted(["Else.", f"In float32, 1 of 2 cases {COUNTED}"])
    assert not is_counted(["Else.", f"{COUNTED} More."])


def test_a_count_stands_last_or_before_the_reason_of_what_is_inconclusive() -> None:
    notes, count = ["first", "reason"], ["count"]
    assert add_count(notes, count, Verdict.DISAGREES) == ("first", "reason", "count")
    assert add_count(notes, count, Verdict.INCONCLUSIVE) == ("first", "count", "reason")
    assert add_count([], count, Verdict.INCONCLUSIVE) == ("count",)
