"""Answers of a kernel to equal questions: what is left in memory, scatters or grows."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.kernel_answers import Question
from bptt_verifier.judge.kernel_memory import (
    CALLS,
    FIRST_CALLS,
    describe_indeterminacy,
    find_growth,
    find_indeterminacy,
    find_noise,
    find_rare_noise,
    find_stale_entries,
    is_changed,
)
from tests.support.answering_kernels import ONES, UNIT, answer_in_order, changed, one, prepare

# Entries that an earlier call left in memory: the first call is at the other case.


def test_entries_that_hold_what_the_last_answer_had_there_are_not_written() -> None:
    question = prepare(answer_in_order(changed(5.0), changed(5.0, 2)))
    found = find_stale_entries(question)
    assert found is not None
    assert found.explanation.startswith(
        "2 of 10 entries of the gradient for w hold what an earlier"
    )
    assert (found.name, found.details) == ("unwritten-output", {"gradients": ["w"]})


@pytest.mark.parametrize(
    ("elsewhere", "again"),
    [
        (changed(5.0), changed(5.0)),  # all entries: it may be kept on purpose
        (changed(5.0), changed(6.0, 2)),
        (changed(5.0), ONES),
        (changed(5.0), None),
        (None, changed(5.0, 2)),
        (one(6.0), changed(5.0, 2)),
    ],
    ids=["all", "other numbers", "none", "no answer again", "no answer elsewhere", "fewer"],
)
def test_other_answers_hold_nothing_of_an_earlier_call(elsewhere: Any, again: Any) -> None:
    assert find_stale_entries(prepare(answer_in_order(elsewhere, again))) is None


@pytest.mark.parametrize(("units", "found"), [(64, False), (65, True)])
def test_a_change_of_64_units_is_one_of_sums_in_another_order(units: int, found: bool) -> None:
    by = units * UNIT
    question = prepare(answer_in_order(changed(-by), changed(-by, 3)))
    assert (find_stale_entries(question) is not None) == found


@pytest.mark.parametrize(
    ("dtype", "count", "found"),
    [(np.float32, 1, True), (np.float16, 2, False), (np.float16, 3, True), (jnp.bfloat16, 3, True)],
)
def test_24_equal_bits_are_no_chance(dtype: Any, count: int, found: bool) -> None:
    question = prepare(answer_in_order(changed(500.0), changed(500.0, count)), dtype=dtype)
    assert (find_stale_entries(question) is not None) == found


def test_bits_are_counted_in_the_coarsest_argument() -> None:
    again = answer_in_order(changed(500.0), changed(500.0, 2))
    assert find_stale_entries(prepare(again, of_x=np.float16)) is None


def test_entries_of_nan_are_asked_about_elsewhere_and_any_earlier_answer_counts() -> None:
    again = changed(5.0, 2)
    again["w"][4] = np.nan
    kept = {"u": np.zeros(1), "b": np.full(2, 6.0), "w": ONES["w"]}
    question = prepare(answer_in_order(ONES, again))
    question.elsewhere.extend([one(1.0), kept])
    assert find_stale_entries(question) is not None


def test_two_gradients_are_asked_one_after_the_other() -> None:
    both = {"u": np.ones(3), "w": np.ones(10)}
    again = {"u": 1 + UNIT * np.ones(3), "w": changed(5.0, 2)["w"]}
    question = prepare(answer_in_order({"u": 9 * np.ones(3)} | changed(5.0), again), both)
    found = find_stale_entries(question)
    assert found is not None
    assert found.details == {"gradients": ["w"]}
    again["u"] = 2 + np.arange(3.0)  # all entries
    found = find_stale_entries(prepare(answer_in_order(both | changed(5.0), again), both))
    assert found is not None


# Changes from call to call.


def find_limit(question: Question, before: Any = ONES) -> float:
    """Find by bisection how far all entries of w may be from those before without being noise."""
    low, high = 2.0**-30, 2.0**10
    for _ in range(60):
        middle = (low * high) ** 0.5
        noisy = find_noise(question, before, before | {"w": before["w"] + middle})
        low, high = (low, middle) if noisy else (middle, high)
    return high


TWO, THREE = ONES | {"b": np.ones(1)}, ONES | {"b": np.ones(1), "c": np.ones(1)}


@pytest.mark.parametrize(
    ("limit", "before", "known"),
    [
        (2.0**-6, ONES, {}),
        (2.0**-6, ONES, {"precise": "w"}),
        (2.0**-11, ONES, {"noisy": "w"}),
        (2.0**-8, TWO, {"precise": "b"}),
        (2.0**-8, TWO, {"noisy": "b"}),
        (2.0**-6, TWO, {"precise": "w"}),
        (2.0**-6, THREE, {"precise": "b"}),
        (2.0**-8, THREE, {"precise": "b", "noisy": "c"}),
        (2.0**-6, TWO, {"precise": "b", "dtype": np.float16}),
        (16 * 2.0**-8, ONES, {"dtype": jnp.bfloat16}),
        (2.0**-6, TWO, {"precise": "b", "of_x": np.float16}),
        (2 * 0.25, ONES, {"errors": 0.25}),
        (2.0**10, ONES, {"errors": None}),
        (64 * UNIT * 2.0**16, ONES, {"answer": {"w": 2.0**16 * np.ones(10)}}),
    ],
)
def test_noise_is_beyond_what_sums_in_another_order_make(
    limit: float, before: Any, known: Any
) -> None:
    question = prepare(answer_in_order(ONES), **{"answer": before} | known)
    # Bisection is exact to rounding: 2⁻⁵³ of the 1 it is added to is 2⁻⁴² of the least limit.
    np.testing.assert_allclose(find_limit(question, before), limit, rtol=2.0**-40)


@pytest.mark.parametrize(("count", "found"), [(9, "w"), (8, "")])
def test_the_noise_of_the_own_format_is_in_nearly_all_entries(count: int, found: str) -> None:
    question = prepare(answer_in_order(ONES), TWO, precise="b")
    by = 2.0**-7  # of root mean square √0.8 · 2⁻⁷ > 2⁻⁸
    assert find_noise(question, TWO, TWO | changed(by, count)) == found
    assert find_noise(question, TWO, TWO | changed(-by, count)) == found


def test_entries_of_zero_need_not_change_and_small_changes_do_not_count() -> None:
    sparse = TWO | one(*[1.0] * 5, *[0.0] * 5)
    question = prepare(answer_in_order(ONES), TWO, precise="b")
    moved = sparse | {"w": sparse["w"] * (1 + 2.0**-7)}
    assert find_noise(question, sparse, moved) == "w"
    least = np.where(np.arange(10) < 8, 2.0**-7, 2.0**-12)
    assert find_noise(question, TWO, TWO | {"w": 1 + least}) == ""
    assert find_noise(question, TWO, TWO | {"w": 1 + least * 1.01}) == "w"


def test_a_limit_that_is_reached_is_not_exceeded() -> None:
    assert find_noise(prepare(answer_in_order(ONES)), ONES, changed(2.0**-6)) == ""
    assert find_noise(prepare(answer_in_order(ONES), errors=0.25), ONES, changed(0.5)) == ""


def test_one_entry_that_is_not_zero_is_all_there_are() -> None:
    single = TWO | one(1, *[0.0] * 9)
    moved = single | one(1 + 2.0**-7, *[0.0] * 9)
    question = prepare(answer_in_order(ONES), TWO | one(*[1e-9] * 10), precise="b")
    assert find_noise(question, single, moved) == "w"


def test_the_gradient_that_changes_is_named() -> None:
    question = prepare(answer_in_order(ONES), THREE)
    assert find_noise(question, THREE, THREE | {"b": 2 * np.ones(1)}) == "b"
    zeros = {"w": np.zeros(10), "b": np.zeros(1)}
    assert find_noise(prepare(answer_in_order(ONES), zeros), zeros, zeros) == ""


def test_any_number_that_differs_is_a_change_and_nan_is_equal_to_itself() -> None:
    assert not is_changed(THREE, {n: v.copy() for n, v in THREE.items()})
    assert is_changed(THREE, THREE | {"c": np.zeros(1)})
    assert is_changed(THREE, THREE | {"w": np.r_[np.ones(9), 2]})
    assert not is_changed(one(np.nan), one(np.nan))


@pytest.mark.parametrize(
    ("begins", "undecided", "calls"),
    [(False, False, FIRST_CALLS), (True, False, CALLS), (False, True, CALLS)],
)
def test_a_kernel_that_changes_or_is_undecided_is_called_40_times(
    begins: bool, undecided: bool, calls: int
) -> None:
    for last, found in ((calls, "w"), (calls + 1, "")):
        question = prepare(answer_in_order(*[ONES] * (last - 1), changed(1.0)), undecided=undecided)
        assert find_rare_noise(question, ONES, changed=begins) == found
        kernel: Any = question.calls
        assert kernel.count == (CALLS if found else calls)


def test_the_first_change_lets_the_calls_go_on_and_the_largest_is_judged() -> None:
    small = changed(UNIT)
    steps = [ONES] * 9 + [small] + [ONES] * 20 + [changed(1.0), ONES, small]
    question = prepare(answer_in_order(*steps))
    assert find_rare_noise(question, ONES, changed=False) == "w"
    question = prepare(answer_in_order(ONES, changed(-0.5), ONES))
    assert find_rare_noise(question, ONES, changed=False) == "w"
    question = prepare(answer_in_order(*[ONES] * 5, None, changed(1.0)))
    assert find_rare_noise(question, ONES, changed=False) == ""


def test_each_gradient_is_judged_where_it_changes_most() -> None:
    first, second = TWO | changed(1.0), TWO | {"b": np.array([1 + 2.0**-7])}
    question = prepare(answer_in_order(second, first, TWO), TWO)
    assert find_rare_noise(question, TWO, changed=False) == "w"


# Gradients that grow.


def grow(number: int, *_: Any) -> Any:
    return {"w": np.ones(10) * number}


def test_what_each_call_adds_to_is_growing() -> None:
    found = find_indeterminacy(prepare(grow))
    assert found is not None
    assert (found.name, found.details) == ("depends-on-calls", {"gradients": ["w"]})
    assert found.explanation.startswith("the gradient for w grows with every call with the same")
    assert (
        find_growth(prepare(lambda number, *_: {"w": np.ones(10) * (number + 2)}), grow(1), grow(2))
        == "w"
    )


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([3, 4, 5, 6], "w"),
        ([3, 4, 5, 6.5], "w"),  # each is within a step of 1.1 of the line
        ([3, 5, 5, 6], "w"),
        ([3, 5.1, 5, 6], ""),  # the fourth is to be 4, and at most 5
        ([3, 4.9, 5, 6], "w"),
        ([3, 4, 5, 1], ""),  # back where it was
        ([2, 2, 2, 2], ""),
        ([2, 2.9, 3.4, 6], ""),  # the fifth is to be 5, and at least 4
        ([0.0, -1, -2, 6], ""),
        ([None, 4, 5, 6], ""),
        ([3, 4, 5, None], ""),
    ],
)
def test_growth_is_within_a_step_of_a_line(values: Any, found: str) -> None:
    answers = [None if v is None else {"w": np.full(10, float(v))} for v in values]
    question = prepare(answer_in_order(*answers))
    assert find_growth(question, grow(1), grow(2)) == found
    down = [None if each is None else {"w": -each["w"]} for each in answers]
    before, again = ({"w": -grow(k)["w"]} for k in (1, 2))
    assert find_growth(prepare(answer_in_order(*down)), before, again) == found


def test_one_gradient_may_grow_beside_another() -> None:
    both = lambda number, *_: TWO | {"w": ONES["w"] * number}  # noqa: E731
    question = prepare(lambda number, *_: both(number + 2), TWO)
    assert find_growth(question, both(1), both(2)) == "w"


def test_equal_answers_do_not_grow_and_are_not_asked_for_more() -> None:
    question = prepare(grow)
    kernel: Any = question.calls
    assert find_growth(question, TWO, TWO) == ""
    assert kernel.count == 0
    assert find_growth(question, ONES, changed(1.0, 1)) == ""
    assert kernel.count == 4


@pytest.mark.parametrize(
    ("growing", "other", "wrong", "found"),
    [(9, 1, "", "w"), (8, 2, "", ""), (2, 0, "", ""), (2, 0, "w", "w"), (3, 0, "", "w")],
)
def test_nearly_all_entries_that_change_grow_and_three_of_them(
    growing: int, other: int, wrong: str, found: str
) -> None:
    def respond(number: int, *_: Any) -> Any:
        value = np.ones(10)
        value[:growing] = number
        value[growing : growing + other] = [1, 50, -50, 50, -50, 2][number - 1]
        return {"w": value}

    question = prepare(lambda number, *_: respond(number + 2), wrong=wrong)
    assert find_growth(question, respond(1), respond(2)) == found


def test_growth_by_rounding_is_none() -> None:
    tiny = lambda number, *_: {"w": 1 + UNIT * number * np.ones(10)}  # noqa: E731
    assert find_growth(prepare(tiny), tiny(1), tiny(2)) == ""


# Two answers to the same question.


def test_answers_beyond_the_tolerance_or_with_noise_are_not_deterministic() -> None:
    for first, again in ((ONES, changed(0.003)), (ONES, changed(0.003, 1))):
        found = find_indeterminacy(prepare(answer_in_order(ONES, first, again, ONES)))
        assert found is not None
        assert (found.name, found.details) == ("not-deterministic", {"gradients": ["w"]})
        assert found.explanation.startswith("the gradient for w changes when the kernel is called")
    noisy = answer_in_order(ONES, ONES, changed(0.1), ONES)
    assert find_indeterminacy(prepare(noisy, tolerance=1.0)) is not None
    late = answer_in_order(*[ONES] * 9, changed(0.1), ONES)
    assert find_indeterminacy(prepare(late, tolerance=1.0)) is not None
    later = answer_in_order(ONES, ONES, changed(UNIT), *[ONES] * 20, changed(0.1), ONES)
    assert find_indeterminacy(prepare(later, tolerance=1.0)) is not None


def test_the_first_call_and_calls_without_an_answer_say_nothing() -> None:
    assert find_indeterminacy(prepare(answer_in_order(changed(1.0), ONES))) is None
    assert find_indeterminacy(prepare(answer_in_order(ONES, None, ONES))) is None
    assert find_indeterminacy(prepare(answer_in_order(ONES, ONES, None))) is None
    assert find_indeterminacy(prepare(answer_in_order(ONES))) is None


def test_how_two_answers_differ_is_described() -> None:
    def describe(again: Any, answer: Any = ONES, dtype: Any = np.float32) -> str:
        return describe_indeterminacy(prepare(answer_in_order(again), answer, dtype))

    assert describe(ONES) == describe(None) == ""
    assert describe(changed(1.0), {"w": np.zeros(10)}) == ""
    said = describe(TWO | {"w": ONES["w"] + 64 * UNIT, "b": np.array([1 + UNIT])}, TWO)
    assert "that for w changes by 3.8e-06 of its size" in said
    assert said.endswith("Sums in another order may do that.")
    said = describe(TWO | {"w": ONES["w"] + 65 * UNIT, "b": np.array([1 + 128 * UNIT])}, TWO)
    assert "that for b changes by 7.6e-06 of its size" in said
    assert "That is 1.3e+02 roundings to the dtype of the arguments: random" in said
    assert "for w changes by 1 of its size" in describe(one(*[2.0] * 10))
    twos = one(*[2.0] * 10)
    assert "for w changes by 0.5 of its size" in describe(one(*[3.0] * 10), twos)
    coarse = prepare(answer_in_order(changed(64 * 2.0**-11)), of_x=np.float16)
    assert describe_indeterminacy(coarse).endswith("Sums in another order may do that.")
    sparse = one(*[1.0] * 9, 0.0)
    assert "for w changes" in describe(one(*[1.0] * 8, 1.5, 0.0), sparse)
