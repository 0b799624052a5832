"""Questions about memory, layouts and arguments, to kernels whose answers are written down."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import kernel_memory
from bptt_verifier.judge.kernel_answers import Question
from bptt_verifier.judge.kernel_memory import (
    copy_one,
    find_change,
    find_dependence_on_calls,
    find_dependence_on_layout,
    find_kept_argument,
    find_unread_argument,
    find_unwritten,
    is_unwritten,
)
from bptt_verifier.judge.repetition import HUGE, POISON
from tests.support.answering_kernels import (
    ONES,
    UNIT,
    Respond,
    answer_in_order,
    changed,
    one,
    prepare,
)

TWO = ONES | {"b": np.ones(1)}

# Freed memory.


class Memory:
    """Freed memory that holds what the last poisoned copy left there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = 0.0
        monkeypatch.setattr(kernel_memory, "copy_and_poison", self.copy_and_poison)

    def copy_and_poison(self, byte: int, arrays: Any) -> Any:
        self.held = {POISON[0]: np.nan, POISON[1]: 1e38}.get(byte, 1e-38)
        return {name: np.array(value) for name, value in arrays.items()}


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    return Memory(monkeypatch)


def test_numbers_that_freed_memory_held_are_not_written(memory: Memory) -> None:
    def respond(number: int, *_: Any) -> Any:
        return TWO | {"w": np.r_[np.ones(9), memory.held]}

    found = find_unwritten(prepare(respond, TWO))
    assert found is not None
    assert (found.name, found.details) == ("unwritten-output", {"gradients": ["w"]})
    assert found.explanation.startswith("the gradient for w changes with what freed memory holds")


@pytest.mark.parametrize("byte", [0, 1])
def test_either_of_nan_and_huge_numbers_is_enough(memory: Memory, byte: int) -> None:
    def respond(number: int, *_: Any) -> Any:
        return {"w": np.r_[np.ones(9), memory.held if number == byte + 1 else 1]}

    assert find_unwritten(prepare(respond)) is not None


@pytest.mark.parametrize(("value", "found"), [(0.99 * HUGE, False), (HUGE, True), (-HUGE, True)])
def test_other_changes_are_none_of_memory(memory: Memory, value: float, found: bool) -> None:
    question = prepare(answer_in_order(changed(value, 1)))
    assert (find_unwritten(question) is not None) == found


def test_right_answers_and_none_are_written(memory: Memory) -> None:
    assert find_unwritten(prepare(answer_in_order(ONES))) is None
    assert find_unwritten(prepare(answer_in_order(None))) is None
    huge = {"w": np.full(10, 1e38)}
    assert find_unwritten(prepare(answer_in_order(huge), huge)) is None


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ((one(1, 1e38), one(1, 1e-38)), True),
        ((one(1, -1e38), one(1, 1e-38)), True),
        ((one(1, np.nan), one(1, 1e-38)), True),
        ((one(1, HUGE), one(1, 1)), True),
        ((one(1, 0.99 * HUGE), one(1, 1)), False),
        ((one(1, np.nan), one(1, np.nan)), False),
        ((one(1, 1e38), one(1, np.inf)), False),
        ((None, one(1, 1)), False),
        ((one(1, 1e38), None), False),
        ((one(1, 1), one(1, 1)), False),
        ((one(1, 1e38) | {"b": np.ones(2)}, one(1, 1) | {"b": np.ones(2)}), True),
    ],
)
def test_an_answer_with_huge_numbers_where_small_ones_are_held_is_unwritten(
    memory: Memory, answers: Any, found: bool
) -> None:
    question = prepare(answer_in_order(*answers))
    assert is_unwritten(question.calls, question.case) is found


def test_huge_numbers_are_held_first_and_then_small_ones(memory: Memory) -> None:
    held = []

    def respond(*_: Any) -> Any:
        held.append(memory.held)
        return ONES

    question = prepare(respond)
    assert is_unwritten(question.calls, question.case) is False
    assert held == [1e38, 1e-38]
    copied = copy_one(lambda arrays: {n: v + 1 for n, v in arrays.items()}, np.ones(2))
    assert copied.tolist() == [2, 2]


# A call with other numbers in between: the third of four.


def test_what_changes_after_a_call_with_other_numbers_depends_on_calls() -> None:
    def keep(number: int, point: Any, cotangents: Any) -> Any:
        kept.append((point["x"][0], cotangents["y"][0]))
        return changed(1.0, 1) if (2, 4) in kept else ONES

    kept: list[Any] = []
    found = find_dependence_on_calls(prepare(keep))
    assert found is not None
    assert (found.name, found.details) == ("depends-on-calls", {"gradients": ["w"]})
    assert found.explanation == "the gradient for w changes after a call with other numbers."
    assert kept == [(1, 3), (1, 3), (2, 4), (1, 3)]


@pytest.mark.parametrize(
    ("same", "units", "found"),
    [
        (ONES, 65, True),
        (ONES, 64, False),
        (changed(UNIT), 65, False),
        (one(*[np.nan] * 10), 65, False),
    ],
)
def test_small_changes_count_where_equal_calls_give_equal_numbers(
    same: Any, units: int, found: bool
) -> None:
    after = changed(units * UNIT)
    question = prepare(answer_in_order(ONES, same, ONES, after))
    assert (find_dependence_on_calls(question) is not None) == found


def test_every_gradient_is_asked() -> None:
    after = TWO | {"b": np.array([1 + 65 * UNIT])}
    found = find_dependence_on_calls(prepare(answer_in_order(TWO, TWO, TWO, after), TWO))
    assert found is not None
    assert found.details == {"gradients": ["b"]}
    changing = answer_in_order(TWO, after, TWO, after)
    assert find_dependence_on_calls(prepare(changing, TWO)) is None


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_a_missing_answer_shows_no_dependence(missing: int) -> None:
    answers = [None if k == missing else changed(1.0, int(k > 2)) for k in range(1, 5)]
    assert find_dependence_on_calls(prepare(answer_in_order(*answers))) is None


# Layouts.


def is_strided(value: Any) -> bool:
    return bool(value.strides[0] != value.itemsize)


def test_strided_arguments_or_cotangents_that_change_an_answer_are_named() -> None:
    for names, said in (("x", "arguments that"), ("y", "cotangents that"), ("v", "arguments that")):

        def respond(number: int, point: Any, cotangents: Any, name: str = names) -> Any:
            return changed(1.0 * is_strided((point | cotangents)[name]))

        found = find_dependence_on_layout(prepare(respond))
        assert found is not None
        assert (found.name, found.details) == ("depends-on-memory-layout", {"gradients": ["w"]})
        assert found.explanation == f"the gradient for w changes for {said} are strided views."


def test_an_answer_that_changes_where_both_are_strided_names_both() -> None:
    def respond(number: int, point: Any, cotangents: Any) -> Any:
        return changed(1.0 * (is_strided(point["x"]) and is_strided(cotangents["y"])))

    found = find_dependence_on_layout(prepare(respond))
    assert found is not None
    assert "changes for arguments and cotangents that are strided" in found.explanation


@pytest.mark.parametrize(
    ("name", "said"), [("x", "arguments that"), ("y", "cotangents that"), ("v", "arguments that")]
)
def test_reversed_views_that_change_an_answer_are_named(name: str, said: str) -> None:
    def respond(number: int, point: Any, cotangents: Any) -> Any:
        return changed(1.0 * ((point | cotangents)[name].strides[0] < 0))

    found = find_dependence_on_layout(prepare(respond))
    assert found is not None
    assert (found.name, found.details) == ("depends-on-memory-layout", {"gradients": ["w"]})
    assert found.explanation == f"the gradient for w changes for {said} are reversed views."


def test_fortran_order_is_asked_first_and_right_answers_depend_on_no_layout() -> None:
    def respond(number: int, point: Any, cotangents: Any) -> Any:
        return changed(1.0 * (not point["x"].flags.c_contiguous))

    question = prepare(respond)
    point = question.case.point | {"x": np.ones((2, 3), np.float32)}
    case = question.case._replace(point=point)
    found = find_dependence_on_layout(question._replace(case=case))
    assert found is not None
    assert "changes for arguments in Fortran order." in found.explanation
    assert find_dependence_on_layout(prepare(answer_in_order(ONES))) is None
    assert find_dependence_on_layout(prepare(answer_in_order(None))) is None


def test_a_change_of_layout_may_round_otherwise() -> None:
    question = prepare(answer_in_order(changed(0.0019)), wrong="w")
    assert find_change(question, np.array, np.array) == ""
    assert find_change(prepare(answer_in_order(changed(0.0021))), np.array, np.array) == "w"


# Arguments that are not read.


def multiply(number: int, point: Any, cotangents: Any) -> Any:
    """The gradients of x v summed, times the first cotangent."""
    x, v, c = point["x"], point["v"], cotangents["y"][0]
    return {"x": c * v.sum() * np.ones(4), "v": c * x.sum() * np.ones(3)}


def ask_about(respond: Respond, answer: Any = None, exact: Any = None, **known: Any) -> Question:
    exact = exact or (lambda point, c: multiply(0, point, c))
    question = prepare(respond, ONES, exact=exact)
    given = question.case.point, question.case.cotangents
    answer = respond(0, *given) if answer is None else answer
    allowed = {n: np.full(v.shape, 1e-3) for n, v in answer.items()}
    sets = {n: frozenset(v) for n, v in known.items()}
    return question._replace(answer=answer, tolerance=allowed, **sets)  # type: ignore[arg-type]


def hold(*names: str) -> Respond:
    """A kernel that takes some arguments as ones."""
    return lambda number, point, c: multiply(
        number, point | {n: np.ones_like(point[n]) for n in names}, c
    )


@pytest.mark.parametrize("name", ["x", "v"])
def test_an_argument_that_changes_no_number_is_kept(name: str) -> None:
    found = find_unread_argument(ask_about(hold(name)))
    assert found is not None
    assert (found.name, found.details) == ("depends-on-calls", {"arguments": [name]})
    assert found.explanation.startswith(f"no gradient changes with {name}: it is kept from an")


def test_a_wrong_kernel_may_have_left_out_a_factor() -> None:
    assert find_unread_argument(ask_about(hold("x"), wrong="x")) is None
    assert find_kept_argument(ask_about(hold("x"), wrong="x")) is not None


def test_arguments_that_are_read_or_on_which_nothing_depends_are_not_kept() -> None:
    assert find_kept_argument(ask_about(multiply)) is None
    of_v = lambda point, c: hold("x")(0, point, c)  # noqa: E731
    found = find_kept_argument(ask_about(hold("x", "v"), exact=of_v))
    assert found is not None
    assert found.details == {"arguments": ["v"]}


def test_answers_of_zeros_or_none_and_unknown_gradients_tell_nothing() -> None:
    zeros = {"x": np.zeros(4), "v": np.zeros(3)}
    assert find_kept_argument(ask_about(lambda *_: zeros)) is None
    some = zeros | {"v": np.array([0.0, 0, 1])}
    assert find_kept_argument(ask_about(lambda *_: some)) is not None
    assert find_kept_argument(ask_about(lambda *_: None, answer=some)) is None

    def endless(point: Any, c: Any) -> Any:
        found = multiply(0, point, c)
        return found | {"v": np.r_[np.inf, found["v"][1:]]} if point["x"][0] == 2 else found

    found = find_kept_argument(ask_about(hold("x", "v"), exact=endless))
    assert found is not None
    assert found.details == {"arguments": ["v"]}


def test_nan_is_as_constant_as_a_number() -> None:
    some = {"x": np.array([1, 1, 1, np.nan]), "v": np.ones(3)}
    assert find_kept_argument(ask_about(lambda *_: some)) is not None
