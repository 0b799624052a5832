"""Which calls are repeated, with which copies of the arguments, and which changes count."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import repetition
from bptt_verifier.judge.repetition import (
    AFTER_ERROR,
    AGAIN,
    HUGE,
    IN_PLACE,
    LARGE_BLOCKS,
    LAYOUTS,
    ON_OBJECT,
    POISON,
    SMALL_BLOCKS,
    UNWRITTEN,
    HeldArrays,
    comes_of_values,
    copy_all_but_one,
    copy_backwards,
    copy_in_fortran_order,
    copy_with_strides,
    describe_change,
    draw_repetitions,
    find_dependence,
    list_changes,
    list_poisoned,
)
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import make_breach
from bptt_verifier.program.attempt import copies
from bptt_verifier.program.decisions import UntraceableError
from tests.support.stated_cases import state_compared

UNIT = 2.0**-30
ARRAYS = {"W": np.arange(6.0).reshape(2, 3), "y": np.float32([1, 2]), "b": np.array(3.0)}


def test_copies_in_other_layouts_have_the_same_values() -> None:
    fortran, strided = copy_in_fortran_order(ARRAYS), copy_with_strides(ARRAYS)
    reversed_ = copy_backwards(ARRAYS)
    for copied in (fortran, strided, reversed_):
        assert copied.keys() == ARRAYS.keys()
        for name, value in ARRAYS.items():
            assert isinstance(copied[name], np.ndarray)
            np.testing.assert_array_equal(copied[name], value)
            assert copied[name].dtype == value.dtype
            assert not np.shares_memory(copied[name], value)
    assert fortran["W"].strides == (8, 16)
    assert strided["W"].strides == (2 * 6 * 8, 2 * 8)
    base = strided["W"].base
    assert isinstance(base, np.ndarray)
    assert (base.sum(), base.size) == (15 + 18, 24)  # the other entries are 1
    assert (reversed_["W"].strides, reversed_["y"].strides) == ((-3 * 8, -8), (-4,))
    base = reversed_["W"].base
    assert isinstance(base, np.ndarray)
    np.testing.assert_array_equal(base, [5, 4, 3, 2, 1, 0, 1, 1, 1, 1, 1, 1])


def test_memory_that_is_read_on_from_the_first_entry_of_a_reversed_view_is_its_own() -> None:
    for shape in ((), (1,), (5,), (2, 3, 4)):
        (found,) = copy_backwards({"W": np.full(shape, 2.0)}).values()
        base = found.base
        assert isinstance(base, np.ndarray)
        start = found.ctypes.data - base.ctypes.data
        assert start >= 0
        assert start + found.nbytes <= base.nbytes


def test_a_call_that_raises_has_none_in_the_place_of_y_or_of_the_last_argument() -> None:
    for given, missing in [
        (ARRAYS, "y"),
        ({"W": ARRAYS["W"], "V": ARRAYS["W"], "b": ARRAYS["b"]}, "b"),
    ]:
        copied = copy_all_but_one(given)
        assert copied.keys() == given.keys()
        assert [name for name, value in copied.items() if value.dtype == object] == [missing]
        assert copied[missing].item() is None


@pytest.mark.parametrize("byte", POISON)
def test_freed_memory_of_small_arrays_has_the_byte_of_the_poison(byte: int) -> None:
    poisoned = list_poisoned(byte)
    copied = poisoned.copy({"W": np.arange(150.0)})
    np.testing.assert_array_equal(copied["W"], np.arange(150.0))
    fresh = [np.empty(size, np.uint8) for size in (8, 16, 512, 1016) for _ in range(6)]
    assert {int(each) for array in fresh for each in array} == {byte}
    assert poisoned.name == UNWRITTEN
    # The allocator cuts larger arrays from larger blocks.
    assert max(SMALL_BLOCKS) < min(LARGE_BLOCKS) < max(LARGE_BLOCKS)


def right(label: Any = 0) -> Compared:
    found = state_compared({"w": np.ones(2)}, {"w": np.ones(2)}, {"w": np.full(2, 1e-9)})
    return found._replace(case=found.case._replace(label=f"case {label}"))


def wrong(label: Any = 0) -> Compared:
    found = right(label)
    comparisons = [each._replace(error=9.0) for each in found.comparisons]
    return found._replace(comparisons=comparisons)


def draw(compared: list[Compared]) -> tuple[list[Any], list[Any]]:
    """The cases and ways of all repetitions, and those of calls that may raise."""
    asked = list[Any]()

    def ask(case: Any, copy: Any) -> Any:
        asked.append((case.label, copy))

    ways = draw_repetitions(compared, ask)
    return [(int(found.case.label.split()[1]), way) for found, way in ways], asked


@pytest.mark.parametrize(
    ("cases", "chosen", "run"),
    [
        (1, [0], 50), (9, [0, 8], 50), (48, [*range(0, 48, 8)], 50), (50, [*range(0, 50, 9)], 50),
        (100, [*range(0, 100, 17)], 50), (101, [*range(0, 101, 17)], 0),
    ],
)  # fmt: skip
def test_up_to_six_cases_are_repeated_in_every_way_and_in_turn_where_few_were_compared(
    cases: int, chosen: list[int], run: int
) -> None:
    drawn, asked = draw([right(number) for number in range(cases)])
    ways = 2 * len(chosen), len(chosen), run, len(LAYOUTS) * len(chosen), 1
    poisoned, again, in_turn, layouts, after = (
        drawn[sum(ways[:place]) : sum(ways[: place + 1])] for place in range(5)
    )
    assert [number for number, _ in poisoned] == sorted([*chosen, *chosen])
    assert [way.copy.args for _, way in poisoned] == [(0xFF,), (0x7F,)] * len(chosen)
    assert again == [(number, AGAIN) for number in reversed(chosen)]  # in another order
    assert layouts == [(number, way) for number in chosen for way in LAYOUTS]
    assert after == [(0, AFTER_ERROR)]
    assert in_turn == [(chosen[n % len(chosen)], AGAIN) for n in range(run)]
    changed = drawn[sum(ways) :]
    on_object = [(number, ON_OBJECT) for number in chosen]
    assert changed[-len(chosen) :] == on_object
    changed = changed[: -len(chosen)]
    assert [number for number, _ in changed] == [*chosen, chosen[0]]
    assert {way.change for _, way in changed} == {IN_PLACE.change}
    assert [way.ulps for _, way in changed] == [*range(1, len(chosen) + 2)]  # never the same values
    assert asked[0] == ("case 0", copy_all_but_one)
    before = [*chosen, *[chosen[0]] * 2]  # all parameters, and at the first each alone
    assert [label for label, _ in asked[1:]] == [f"case {number}" for number in before]


@pytest.mark.parametrize("answer", [right(), make_breach("raised", "it raised"), None])
def test_two_calls_are_made_at_values_at_which_the_loss_raises(answer: Any) -> None:
    outside = [right().case._replace(label=f"outside {n}") for n in range(3)]
    asked = list[tuple[str, Any]]()

    def ask(case: Any, copy: Any) -> Any:
        if answer is None and case.label.startswith("outside"):
            raise UntraceableError("it waits")
        asked.append((case.label, copy))
        return answer if case.label.startswith("outside") else make_breach("raised", "it raised")

    drawn = draw_repetitions([right()], ask, lambda _: iter(outside))
    ways = [way for _, way in drawn]
    before = 2 * 1 + 1 + 50 + len(LAYOUTS)
    after = (AGAIN if isinstance(answer, Compared) else AFTER_ERROR)._replace(outside=True)
    assert ways[before : before + 3] == [AFTER_ERROR, after, after]
    assert ways[before + 3] not in (AFTER_ERROR, after)
    waited = [] if answer is None else [("outside 0", copies), ("outside 1", copies)]
    assert asked[: 1 + len(waited)] == [("case 0", copy_all_but_one), *waited]


def test_where_something_is_wrong_fewer_cases_are_repeated_and_failing_ones_first() -> None:
    compared = [right(number) for number in range(30)]
    compared[3:8] = [wrong(number) for number in range(3, 8)]
    drawn, _ = draw(compared)
    assert [number for number, _ in drawn[:4]] == [0, 0, 15, 15]
    assert drawn[4:9] == [(number, AGAIN) for number in (3, 4, 5, 15, 0)]
    assert draw([]) == ([], [])


def test_calls_that_take_long_are_not_repeated_for_longer_than_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 0.5, 0.9, 1.0, 1.1, 2.2])
    monkeypatch.setattr(repetition.time, "monotonic", lambda: next(seconds))
    drawn, _ = draw([right()])
    assert [way for _, way in drawn[3:6]] == [AGAIN, AGAIN, LAYOUTS[0]]  # until 0.9 s
    assert len(drawn) == 2 + 1 + 2 + 3 + 1 + 1 + 1


def find_parameters(names: str) -> Compared:
    """A case with these arguments, of which the last has no gradient."""
    given = {name: np.full(2, 4.0, np.float32) for name in names}
    found = state_compared(*({n: np.ones(2) for n in names[:-1]} for _ in range(3)))
    return found._replace(case=found.case._replace(arguments=given))


def test_parameters_change_in_place_together_and_then_each_alone() -> None:
    (_, first), (_, second), (_, third) = list_changes([find_parameters("abx")])
    assert (first, second, third) == ([["a", "b"]], [["a", "b"], ["a"]], [["a", "b"], ["b"]])
    found = [find_parameters("".join(map(chr, range(97, 97 + 30)))), find_parameters("cx")]
    changes = [each for _, each in list_changes(found)]
    assert [len(each) for each in changes] == [1, 1, *[2] * 16]


def test_parameters_change_alone_while_a_second_has_not_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 0.5, 1.0])
    monkeypatch.setattr(repetition.time, "monotonic", lambda: next(seconds))
    assert [changes for _, changes in list_changes([find_parameters("abcx")])] == [
        [["a", "b", "c"]], [["a", "b", "c"], ["a"]],
    ]  # fmt: skip


def test_the_same_arrays_hold_other_values_for_a_while() -> None:
    arrays = find_parameters("abx").case.arguments
    held = HeldArrays(arrays, 0)
    first = held.write(["a"], arrays)
    assert [first[name].tolist() for name in "abx"] == [[3.0, 3.0], [4.0, 4.0], [4.0, 4.0]]
    second = held.write([], arrays)
    assert all(second[name] is first[name] for name in "abx")
    assert all((value == 4).all() and value.dtype == np.float32 for value in second.values())
    assert not any(second[name] is arrays[name] for name in "abx")
    wide = held.write(
        [], {name: value.astype(np.float64) + 2.0**-40 for name, value in arrays.items()}
    )
    assert all((value == 4 + 2.0**-40).all() for value in wide.values())


def test_what_is_held_is_some_ulps_away_in_the_largest_entry() -> None:
    value = np.array([[1.0, -2.0], [0.0, 0.5]])
    held = HeldArrays({"w": value, "zero": np.zeros(2)}, 3)
    found = held.write([], {"w": value, "zero": np.zeros(2)})
    assert np.array_equal(found["w"], [[1.0, -2.0 - 3 * 2.0**-51], [0.0, 0.5]])
    assert not found["zero"].any()
    assert np.array_equal(value, [[1.0, -2.0], [0.0, 0.5]])
    single = {"w": np.ones(1, np.float32), "zero": np.zeros(2)}
    assert held.write(["w"], single)["w"] == np.float32(0.75 * (1 + 3 * 2.0**-23))


def change(value: Any, way: Any = AGAIN, first: Any = (1.0, 1.0)) -> Any:
    """The finding where the first answer changes to this one; 2⁻³⁰ is allowed."""
    before = state_compared({"w": np.array(first)}, {"w": np.ones(2)}, {"w": np.full(2, UNIT)})
    after = before._replace(submitted={"w": np.array(value), "other": np.ones(1)})
    return describe_change(before, after, way)


def test_a_change_counts_beyond_eight_times_the_error_or_what_is_allowed() -> None:
    for times, counts in [(8, False), (8.5, True)]:
        value = (1.0, 1 + times * UNIT)
        assert (change(value) is not None) is counts
        assert (change((1.0, 1.0), first=value) is not None) is counts
        # An answer with an error of its own may change by eight times that.
        found = change((1.0, 1 + 5 * times * UNIT), first=(1.0, 1 + 5 * UNIT))
        assert (found is not None) is counts


def test_arguments_that_are_not_quite_the_same_may_change_more() -> None:
    way = IN_PLACE._replace(ulps=3)
    assert "for values within 3 ulps of all arguments" in change((1.0, 1.5), way).explanation
    for times, counts in [(8 * 7, False), (8 * 7 + 1, True)]:
        assert (change((1.0, 1 + times * UNIT), way) is not None) is counts


@pytest.mark.parametrize(
    ("error", "elsewhere", "ulps", "of_values"),
    [
        (1e-6, 1e-6, 2, True),  # as a minimiser inside moves, in any arrays
        (1e-6, 0.0, 2, False),  # kept of the calls before
        (1e-6, 1e-6, 0, False),  # for the very same values
        (2.0**-10, 2.0**-10, 2, True),
        (1.1 * 2.0**-10, 1.1 * 2.0**-10, 2, False),  # may be that of other values
    ],
)
def test_a_small_change_may_come_of_values_that_are_some_ulps_away(
    error: float, elsewhere: float, ulps: int, of_values: bool
) -> None:
    def state(error: float) -> Compared:
        true = {"w": np.ones(2)}
        found = state_compared({"w": np.ones(2) + error}, true, {"w": np.full(2, UNIT)})
        return found._replace(case=found.case._replace(arguments=true))

    def ask(case: Any, copy: Any) -> Compared:
        given.append(copy(case.arguments)["w"])
        return state(elsewhere)

    first, again, given = state(0.0), state(error), list[Any]()
    way = IN_PLACE._replace(ulps=ulps)
    assert describe_change(first, again, way) is not None
    assert comes_of_values(first, again, way, ask) is of_values
    for moved in given:
        assert moved.max() == 1 + 2 * 2.0**-52
    breach = make_breach("raised", "it raised", {})
    assert not comes_of_values(first, breach, way, ask)
    assert not comes_of_values(first, again, way, lambda case, copy: breach)


@pytest.mark.parametrize("ulps", [0, 1])
def test_nothing_is_asked_for_other_values_where_the_change_is_of_equal_ones(ulps: int) -> None:
    assert AGAIN.ulps == 0
    first = change_of({"w": [1.0, 1.0]})
    again = change_of({"w": [1.0, 1.0 + 1e-6]})
    assert comes_of_values(first, again, IN_PLACE._replace(ulps=ulps), lambda c, m: again) is (
        ulps > 0
    )


@pytest.mark.parametrize(("units", "of_values"), [(230, True), (250, False)])
def test_other_values_have_the_same_result_to_rounding(units: int, of_values: bool) -> None:
    """Eight times the error of the first result, of 30 units, without a margin for other values."""
    first, again = change_of({"w": [1.0, 1.0]}), change_of({"w": [1.0, 1.0 + 30 * UNIT]})
    fresh = change_of({"w": [1.0, 1.0 + units * UNIT]})
    way = IN_PLACE._replace(ulps=1)
    assert comes_of_values(first, again, way, lambda case, copy: fresh) is of_values


@pytest.mark.parametrize(
    ("again", "of_values"),
    [
        ({"w": [5e-4, 5e-4], "b": [1.0]}, False),  # relative to its own gradient
        ({"w": [1e-9 + 1e-15, 1e-9], "b": [1.0]}, True),
        ({"w": [1e-9, 1e-9], "b": [1.5]}, False),  # all are small
    ],
)
def test_each_gradient_changes_by_little_of_its_largest_entry(
    again: dict[str, Any], of_values: bool
) -> None:
    first, moved = change_of({"w": [1e-9, 1e-9], "b": [1.0]}), change_of(again)
    way = IN_PLACE._replace(ulps=1)
    assert comes_of_values(first, moved, way, lambda case, copy: moved) is of_values


def change_of(submitted: dict[str, Any]) -> Compared:
    arrays = {name: np.array(value) for name, value in submitted.items()}
    true = {name: np.ones_like(value) for name, value in arrays.items()}
    found = state_compared(arrays, true, {n: np.full_like(v, UNIT) for n, v in arrays.items()})
    return found._replace(case=found.case._replace(arguments={"w": np.ones(2)}))


def test_a_change_is_told_with_both_numbers_of_its_worst_entry() -> None:
    found = change((1.0, 1.5))
    assert found.name == "depends-on-calls"
    assert found.explanation == (
        "your function changes the gradient for w from one call to another, for the same values of "
        "all arguments. At first, entry [1] was 1, and then 1.5. With a case."
    )
    assert found.details == {"gradients": ["w"], "entry": [1]}
    ones = {"loss": np.array(1.0)}
    first = state_compared(ones, ones, {"loss": np.array(1e-9)})
    scalar = describe_change(first, first._replace(submitted={"loss": np.array(2.0)}), LAYOUTS[0])
    assert scalar is not None
    assert "changes the loss for arguments in Fortran order" in scalar.explanation
    assert "At first, it was 1, and then 2." in scalar.explanation


def test_only_what_the_poison_makes_huge_comes_from_memory() -> None:
    poisoned = list_poisoned(0x7F)
    assert change((1.0, 0.99 * HUGE), poisoned) is None
    found = change((1.0, -HUGE), poisoned)
    assert found.name == UNWRITTEN
    assert "a buffer, as of np.empty, is not written everywhere" in found.explanation


def test_a_breach_at_a_second_call_is_a_change_and_in_poisoned_memory_only_if_not_finite() -> None:
    for name in ("not-finite", "raised"):
        breach = make_breach(name, "W has NaN", entry=[0])
        for way in (AGAIN, list_poisoned(0xFF)):
            found = describe_change(right(), breach, way)
            if way is AGAIN or name == "not-finite":
                assert found is not None
                assert "changes its result" in found.explanation
                assert "Called again, W has NaN. With case 0." in found.explanation
                assert found.details == {"entry": [0]}
            else:
                assert found is None


def test_what_raises_in_another_layout_alone_is_a_note() -> None:
    def ask(case: Any, copy: Any) -> Any:
        if copy is copy_in_fortran_order:
            return make_breach("raised", "it raised TypeError")
        return right()

    found, notes = find_dependence([right()], ask)
    assert found is None
    said = "It was not compared for arguments in Fortran order: it raised TypeError."
    assert notes == (said,)
    found, notes = find_dependence(
        [right()], lambda case, copy: make_breach("not-finite", "W has NaN")
    )
    assert found is not None
    assert notes == ()
    found, _ = find_dependence(
        [right()], lambda case, copy: make_breach("raised", "it raised TypeError")
    )
    assert found is not None
    assert found.name == "depends-on-calls"


@pytest.mark.parametrize(
    ("wrong", "blamed"),
    [
        ("layout", "for arguments in Fortran order"),
        ("once", "from one call to another"),
        ("from then on", "from one call to another"),
    ],
)
def test_a_layout_is_blamed_if_it_is_wrong_once_more_and_no_other_is(
    wrong: str, blamed: str
) -> None:
    asked = list[bool]()

    def ask(case: Any, copy: Any) -> Any:
        in_order = copy is copy_in_fortran_order
        asked.append(in_order)
        first = asked.count(True) == 1
        fails = {"layout": in_order, "once": in_order and first, "from then on": any(asked)}[wrong]
        return right()._replace(submitted={"w": np.full(2, 1.0 + fails)})

    found, _ = find_dependence([right()], ask)
    assert found is not None
    assert found.name == ("depends-on-memory-layout" if wrong == "layout" else "depends-on-calls")
    assert f"changes the gradient for w {blamed}, for the same values" in found.explanation
    assert "At first, entry [0] was 1, and then 2." in found.explanation


def test_what_refuses_to_go_on_after_values_outside_of_the_loss_is_a_note() -> None:
    asked = list[str]()

    def ask(case: Any, copy: Any) -> Any:
        asked.append(case.label)
        if "outside" in asked:
            return make_breach("raised", "it raised ValueError: restart.")
        return right()

    outside = right().case._replace(label="outside")
    found, notes = find_dependence([right()], ask, None, lambda _: iter([outside] * 2))
    assert found is None
    start = "After a call at values at which the loss raises an exception, "
    assert notes == (start + "it raised ValueError: restart.",)
    assert asked[asked.index("outside") :] == ["outside", "case 0"]  # and no more


def test_an_object_is_asked_at_later_calls_where_there_is_one() -> None:
    asked = list[str]()

    def answer(kind: str) -> Any:
        def ask(case: Any, copy: Any) -> Any:
            asked.append(kind)
            return right() if kind == "new" else wrong()._replace(submitted={"w": np.zeros(2)})

        return ask

    assert find_dependence([right()], answer("new")) == (None, ())
    assert {*asked} == {"new"}
    count = len(asked)
    found, _ = find_dependence([right()], answer("new"), answer("kept"))
    assert found is not None
    assert "at a later call on the same object" in found.explanation
    assert asked[count:] == ["new"] * count + ["kept"]


def right_with(number: int, **values: Any) -> Compared:
    found = state_compared(values, values, {name: np.full(3, 1e-9) for name in values})
    return found._replace(case=found.case._replace(label=f"case {number}"))


def test_cases_with_zeros_in_other_gradients_are_repeated_in_poisoned_memory() -> None:
    ones, zeros, some, more = np.ones(3), np.zeros(3), np.array([0.0, 1, 2]), np.array([0.0, 0, 1])
    patterns = [(u, w) for u in (ones, zeros, some) for w in (ones, zeros, more)]
    cases = [right_with(n, u=u, w=w) for n, (u, w) in enumerate([*patterns, *patterns])]
    cases += [right_with(18, u=more, w=some)]  # zeros in parts of both, as in case 17
    drawn, _ = draw([*cases, *[right_with(n, u=ones, w=ones) for n in range(19, 30)]])
    poisoned = [number for number, way in drawn if way.name == UNWRITTEN]
    # After the usual cases, the last of each pattern but that without any zeros.
    assert sorted(poisoned[2 * 4 :]) == sorted([*range(10, 17), 18] * 2)


def test_twelve_cases_with_zeros_are_poisoned_at_most() -> None:
    cases = [
        right_with(n, **{f"w{k}": np.full(3, float(k != n)) for k in range(20)}) for n in range(20)
    ]
    drawn, _ = draw(cases)
    assert sum(way.name == UNWRITTEN for _, way in drawn) == 2 * (3 + 12)
