"""Questions to a kernel, one at a time: of answers in NumPy whose mistakes are known."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_answers import Question
from bptt_verifier.judge.kernel_questions import (
    change_indices,
    find_ignored_cotangent,
    find_lazy_answer,
    find_leak,
    find_mixed_rows,
    find_nonlinearity,
    find_remainder,
    is_finite,
    is_unchanged,
    list_moved,
    list_untried_sizes,
)
from bptt_verifier.report import Mistake
from tests.support.padded_kernels import COTANGENTS, POINTS, READ, Backward, ask, pull_back

EVERY = find_ignored_cotangent, find_nonlinearity, find_mixed_rows, find_leak


@pytest.mark.parametrize("wrong", [(), "xw"])
@pytest.mark.parametrize("question", EVERY)
def test_a_right_kernel_answers_every_question(question: Any, wrong: Any) -> None:
    assert question(ask(wrong=wrong)) is None
    assert find_lazy_answer(ask(wrong=wrong), [question]) == ()


@pytest.mark.parametrize("question", EVERY)
def test_no_question_finds_anything_where_there_is_no_answer(question: Any) -> None:
    def once(point: Any, d: Any) -> Any:
        here = point["x"] is POINTS[0]["x"] and d is COTANGENTS[0]
        return pull_back(point, d) if here else None

    assert question(ask(once)) is None
    assert question(ask(once, wrong="xw")) is None


def ones_for(*names: str) -> Backward:
    return lambda point, d: pull_back(point, d | {n: np.ones_like(d[n]) for n in names})


def test_cotangents_that_change_nothing_are_named() -> None:
    found = find_ignored_cotangent(ask(ones_for("rows", "sums")))
    assert found is not None
    assert found.name == "ignores-cotangents"
    assert "do not depend on the cotangents: no number" in found.explanation
    assert found.details == {"outputs": ["rows", "sums"]}
    found = find_ignored_cotangent(ask(ones_for("sums")))
    assert found is not None
    assert "do not depend on that of sums: no" in found.explanation
    assert found.details == {"outputs": ["sums"]}


def test_an_output_on_which_nothing_depends_has_no_cotangent_to_ignore() -> None:
    assert find_ignored_cotangent(ask(ones_for("sums"), ones_for("sums"))) is None
    for some in ({"x": np.zeros((4, 3))}, {"w": np.array([0, 1, 1])}):
        half = lambda point, d, some=some: ones_for("rows", "sums")(point, d) | some  # noqa: E731
        assert find_ignored_cotangent(ask(half)) is not None
    zeros = lambda point, d: {n: 0 * v for n, v in point.items()}  # noqa: E731
    assert find_ignored_cotangent(ask(zeros)) is None  # an answer of zeros is found elsewhere


def test_a_kernel_in_which_one_gradient_depends_on_cotangents_does_not_ignore_them() -> None:
    def half(point: Any, d: Any) -> Any:
        return pull_back(point, d) | {"w": pull_back(point, d | {"rows": np.ones((4, 3))})["w"]}

    assert find_ignored_cotangent(ask(half)) is None


def test_nan_is_as_constant_as_a_number() -> None:
    def nan(point: Any, d: Any) -> Any:
        return ones_for("rows", "sums")(point, d) | {"w": np.full(3, np.nan)}

    assert find_ignored_cotangent(ask(nan)) is not None


def change_w(change: Callable[[Any, Any], Any]) -> Backward:
    """A kernel whose gradient for w is changed, as a function of it and of the cotangents."""

    def backward(point: Any, d: Any) -> Any:
        found = pull_back(point, d)
        return found | {"w": change(found["w"], d["rows"])}

    return backward


def pair_up(w: Any, d: Any) -> Any:
    """Add what is in proportion to cotangents times any number, and not additive."""
    return w + np.sign(d[0]) * np.sqrt(np.abs(d[0] * d[1]))


LARGE = 1.5 * np.abs(pull_back(POINTS[0], COTANGENTS[0])["w"]).max()
NOT_LINEAR = {
    "zero cotangents give a gradient for w that is not zero": lambda w, d: w + 1e-3,
    "cotangents times 4 do not give 4 times the gradient for w": lambda w, d: w.clip(-LARGE, LARGE),
    "cotangents times 0.25 do not": lambda w, d: w * (np.abs(w).max() > LARGE / 3),
    "cotangents times -1 do not give -1 times": lambda w, d: w + np.abs(d).sum(axis=0),
    "two parts of the cotangents do not add up to the gradient for w": pair_up,
}


@pytest.mark.parametrize("said", NOT_LINEAR)
def test_what_is_not_linear_in_cotangents_is_found(said: str) -> None:
    found = find_nonlinearity(ask(change_w(NOT_LINEAR[said])))
    assert found is not None
    assert found.name == "not-linear-in-cotangents"
    assert said in found.explanation
    assert found.details == {"gradients": ["w"]}


def test_the_parts_of_cotangents_are_no_rounded_numbers() -> None:
    asked: list[Any] = []

    def backward(point: Any, d: Any) -> Any:
        asked.append(d["rows"])
        return pull_back(point, d)

    assert find_nonlinearity(ask(backward)) is None
    first, last = asked[-2:]
    for part in (first, last):
        fraction = np.abs(np.frexp(part)[0])
        assert np.all((part == 0) | (fraction == np.abs(np.frexp(COTANGENTS[0]["rows"])[0])))
        assert np.unique(part / COTANGENTS[0]["rows"]).size > 3
    np.testing.assert_array_equal(first + last, COTANGENTS[0]["rows"])


# Each part is twice the cotangents at most: their sum errs by 2 · 2 tolerances at most.
@pytest.mark.parametrize("wrong", ["", "w"])
@pytest.mark.parametrize(("part", "found"), [(0.99, False), (1.01, True)])
def test_parts_may_err_by_their_size(part: float, found: bool, wrong: str) -> None:
    def err(w: Any, d: Any) -> Any:
        return w + (part * 2e-3 if d.any() and not d.all() else 0)

    question = ask(change_w(err), tolerance=1e-3, wrong=wrong)
    assert (find_nonlinearity(question) is not None) == found


def test_what_overflows_is_not_asked_to_be_linear() -> None:
    most = 1.1 * np.abs(COTANGENTS[0]["rows"]).max()

    def overflow(w: Any, d: Any) -> Any:  # with cotangents 4 times, or twice, as large
        return np.where(np.abs(d).max() > most, np.inf, w)

    assert find_nonlinearity(ask(change_w(overflow))) is None
    assert is_finite({"x": np.ones(2)})
    assert not is_finite({"x": np.ones(2), "w": np.array([1, np.nan])})


@pytest.mark.parametrize("failing", [0.0, 4.0, 0.25, -1.0, 2.0, 0.5])
def test_answers_that_are_missing_hide_no_other(failing: float) -> None:
    """A kernel that fails at one of the questions, and is wrong at all others or at none."""

    def fail(wrong: bool) -> Backward:
        def backward(point: Any, d: Any) -> Any:
            ratio = float(d["rows"][0, 0] / COTANGENTS[0]["rows"][0, 0])
            if ratio == failing:
                return None
            return pull_back(point, d) | ({"w": np.full(3, ratio**2)} if wrong else {})

        return backward

    assert find_nonlinearity(ask(fail(False))) is None
    assert find_nonlinearity(ask(fail(True))) is not None


# With an answer of size 1, an ε of 2⁻¹⁸ may be left, or twice the tolerance, or one unit.
@pytest.mark.parametrize(
    ("tolerance", "answer", "most"),
    [(1.0, 1.0, 2.0**-18), (2.0**-20, 1.0, 2.0**-19), (1.0, 8.0, 2.0**-15), (1.0, 0.0, 0.0)],
)
def test_zero_cotangents_leave_an_epsilon_at_most(
    tolerance: float, answer: float, most: float
) -> None:
    question = ask(tolerance=tolerance)
    question = question._replace(answer={"x": np.ones((4, 3)), "w": np.full(3, answer)})
    for left, name in ((most, ""), (-most, ""), (1.01 * most or 1e-300, "w"), (np.nan, "w")):
        assert (
            find_remainder(question, {"x": np.zeros((4, 3)), "w": np.array([0, left, 0])}) == name
        )


def mix(where: str) -> Backward:
    """A kernel in which what the first row of x, or of a cotangent, is changes other rows."""

    def backward(point: Any, d: Any) -> Any:
        found = pull_back(point, d)
        value = point["x"] if where == "x" else d["rows"]
        return found | {"x": found["x"] + 0.1 * value[0, 0] * READ[:, None]}

    return backward


def test_rows_that_change_with_others_are_found() -> None:
    found = find_mixed_rows(ask(mix("x")))
    assert found is not None
    assert found.name == "rows-influence-one-another"
    assert found.explanation == (
        "the gradient for x at other indices of axis 0 changes with index 0 of x, on which it does "
        "not depend."
    )
    assert found.details == {"gradients": ["x"]}
    # A kernel that is wrong is asked with every second index, and with its cotangents as well.
    found = find_mixed_rows(ask(mix("x"), wrong="x"))
    assert found is not None
    assert "changes with indices 0, 2 of x, on" in found.explanation
    assert find_mixed_rows(ask(mix("rows"))) is None
    found = find_mixed_rows(ask(mix("rows"), wrong="x"))
    assert found is not None
    assert "with indices 0, 2 of the cotangent of rows, on which" in found.explanation


def test_a_row_that_is_wrong_by_itself_influences_no_other() -> None:
    def backward(point: Any, d: Any) -> Any:
        found = pull_back(point, d)
        return found | {"x": found["x"] + 0.1 * point["x"] + 0.1 * d["rows"]}

    for wrong in ((), "x"):
        assert find_mixed_rows(ask(backward, wrong=wrong)) is None


def test_rows_that_the_exact_gradient_mixes_are_not_asked_about() -> None:
    assert find_mixed_rows(ask(mix("x"), mix("x"))) is None
    assert find_mixed_rows(ask(mix("x"), mix("x"), wrong="x")) is None
    assert find_mixed_rows(ask(mix("rows"), mix("rows"), wrong="x")) is None


def test_a_gradient_of_zeros_is_not_asked_which_rows_change_it() -> None:
    exact = lambda point, d: pull_back(point, d) | {"x": np.zeros((4, 3))}  # noqa: E731
    question = ask(mix("x"), exact)
    assert find_mixed_rows(question) is None


def test_indices_are_told_apart_by_bits() -> None:
    assert [each.tolist() for each in list_moved(2, ())] == [[True, False]]
    assert [each.tolist() for each in list_moved(3, ())] == [[True, False, False]]
    assert list_moved(1, ()) == list_moved(0, ()) == list_moved(0, "x") == list_moved(1, "x") == []
    assert [each.tolist() for each in list_moved(5, "x")] == [
        [True, False, True, False, True],
        [True, True, False, False, True],
        [True, True, True, True, False],
    ]
    for size in (2, 4, 7, 8):
        rows = np.array(list_moved(size, "x"))
        assert len({tuple(column) for column in rows.T}) == size
    assert len(list_moved(4, "x")) == 2


def test_numbers_of_another_array_are_taken_at_some_indices() -> None:
    here, there = {"a": np.zeros((2, 3)), "b": np.ones(1)}, {"a": np.ones((2, 3)), "b": np.zeros(1)}
    moved = np.array([True, False, True])
    changed = change_indices(here, there, "a", 1, moved)
    assert changed["a"].tolist() == [[1, 0, 1]] * 2
    assert changed["b"] is here["b"]
    assert change_indices(here, there, "a", 0, moved[:2])["a"].tolist() == [[1, 1, 1], [0, 0, 0]]


def test_exact_numbers_change_if_more_than_rounding_in_float64_does() -> None:
    before = np.array([1e-6, 8.0])
    assert is_unchanged(before + np.array([0.9 * 8e-9, 1.9 * 8e-9]), before)
    assert not is_unchanged(before + np.array([1.1 * 8e-9, 0]), before)
    assert not is_unchanged(before + np.array([0, 2.1 * 8e-9]), before)
    assert is_unchanged(np.zeros(0), np.zeros(0))
    tiny = np.array([1e-6, 2e-6])
    assert not is_unchanged(tiny * [1 + 1e-8, 1], tiny)


def test_a_finding_is_told_with_its_case_and_is_the_first() -> None:
    asked: list[str] = []

    def finding(name: str) -> Any:
        def find(question: Question) -> Mistake | None:
            asked.append(name)
            return Mistake(name, f"It is {name}.", {}) if name else None

        return find

    given = [finding(""), finding("unwritten-output"), finding("other")]
    (found,) = find_lazy_answer(ask(), given)
    assert found == Mistake(
        "unwritten-output", "It is unwritten-output, with the arguments given.", {}
    )
    assert asked == ["", "unwritten-output"]
    assert find_lazy_answer(ask(), [finding("")]) == ()


def test_what_changes_from_call_to_call_is_no_answer_to_a_question() -> None:
    class Growing:
        calls = 0

        def __call__(self, point: Any, d: Any) -> Any:
            self.calls += 1
            return pull_back(point, d) | {"w": np.full(3, float(self.calls))}

    always = lambda name: [lambda question: Mistake(name, "It is.", {})]  # noqa: E731
    (found,) = find_lazy_answer(ask(Growing()), always("not-linear-in-cotangents"))
    assert found.name == "depends-on-calls"
    assert found.explanation == (
        "the gradient for w changes from one call to another, with the arguments given."
    )
    assert found.details == {"gradients": ["w"]}
    (found,) = find_lazy_answer(ask(Growing()), always("not-deterministic"))
    assert found.name == "not-deterministic"
    once = iter([pull_back(POINTS[0], COTANGENTS[0]), None])
    (found,) = find_lazy_answer(ask(lambda *_: next(once)), always("padding-leaks"))
    assert found.name == "padding-leaks"


@pytest.mark.parametrize("name", ["padding-leaks", "depends-on-calls"])
def test_a_finding_that_rounding_every_operation_explains_is_none(name: str) -> None:
    def find(question: Question) -> Mistake | None:
        wide = question.tolerance["w"].max() > 1
        return None if wide else Mistake(name, "It is.", {})

    question = ask()
    errors = {n: np.ones((2, 2, *v.shape)) for n, v in question.answer.items()}
    pullback: Any = question.calls.pullback
    pullback.imitate_rounding = lambda *_: SimpleNamespace(gradients=errors)
    assert len(find_lazy_answer(question, [find])) == (name == "depends-on-calls")


def setting(**shapes: Any) -> Any:
    leaves = {name: np.zeros(shape) for name, shape in shapes.items()}
    return SimpleNamespace(arguments=SimpleNamespace(leaves=leaves))


def test_axes_whose_sizes_are_multiples_of_sixteen_in_all_settings_are_named() -> None:
    def name(*every: Any) -> str:
        return " ".join(list_untried_sizes(every)).partition(" are multiples")[0]

    assert name(setting(x=(16, 7), w=(3, 48))) == "All sizes of axis 0 of x, axis 1 of w"
    assert name(setting(x=(8, 0), w=(17,))) == ""
    assert name(setting(x=(16, 32)), setting(x=(32, 33))) == "All sizes of axis 0 of x"
    assert name(setting(x=(16,)), setting(w=(3,))) == "All sizes of axis 0 of x"
    assert name(setting(x=(3, 16)), setting(x=(3,))) == "All sizes of axis 1 of x"
    assert name(setting(x=(16,)), setting(x=(0,))) == ""
