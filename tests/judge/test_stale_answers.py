"""Answers that stay what they were at close values, and values that are others for a while."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.repetition import HeldArrays, find_stale, find_unmoved
from bptt_verifier.report import Mistake
from tests.support.stated_cases import state_case, state_compared, state_overflow


def answer(values: Any, moved: Any, allowed: float = 1e-12) -> tuple[Any, Any]:
    """What is found at a case and at its neighbour: submitted and true values of one gradient."""
    (submitted, true), (again, after) = values, moved
    first = state_compared({"w": submitted}, {"w": true}, {"w": np.full(2, allowed)})
    return first, state_compared({"w": again}, {"w": after}, {"w": np.zeros(2)})


ONE, NEAR = np.ones(2), 1 + np.array([1e-6, 2e-6])


def answer_twice(v: Any, w: Any) -> Any:
    """What is found of two gradients, which are ones at first, where their true ones are near."""
    ones, near, allowed = (dict.fromkeys("vw", each) for each in (ONE, NEAR, np.full(2, 1e-12)))
    first = state_compared(ones, ones, allowed)
    again = state_compared({"v": v, "w": w}, near, allowed)
    return first, again


@pytest.mark.parametrize(
    ("first", "again", "stale"),
    [
        ((ONE, ONE), (NEAR, NEAR), False),
        ((ONE, ONE), (ONE, NEAR), True),
        ((ONE, ONE), (1 + 0.6 * (NEAR - 1), NEAR), False),  # by more than half of what it should
        ((ONE, ONE), (1 + 0.4 * (NEAR - 1), NEAR), True),
        ((ONE, ONE), (ONE, 1 + 1e-3 * (NEAR - 1)), True),
        ((ONE, ONE), (ONE, 1 + 2e-4 * (NEAR - 1)), None),  # within 1024 allowed errors
        ((ONE + 1e-8, ONE), (ONE, NEAR), None),  # within 1024 errors
        ((ONE, ONE), (ONE * np.nan, ONE), None),
        ((ONE, ONE), ([1 + 1e-6, 1.0], [1 + 1e-6, 1.0]), False),  # one entry tells
    ],
)
def test_an_entry_is_stale_that_moves_by_less_than_half(
    first: Any, again: Any, stale: bool | None
) -> None:
    found = find_unmoved(*answer(first, again), "w")
    if not stale:
        assert found is stale
        return
    assert isinstance(found, Mistake)
    assert found.details == {"gradients": ["w"], "entry": [1]}
    assert "entry [1] moves by" in found.explanation


def test_an_entry_tells_that_moves_by_more_than_a_limit_and_is_stale_by_more_than_half() -> None:
    allowed, move = 2.0**-20, np.array([0.0, 2.0**-10])
    assert find_unmoved(*answer((ONE, ONE), (ONE, ONE + move), allowed), "w") is None
    assert find_unmoved(*answer((ONE, ONE), (ONE, ONE + move), allowed / 2), "w")
    assert not find_unmoved(*answer((ONE, ONE), (ONE + move / 2, ONE + move), allowed / 2), "w")


def test_an_entry_tells_only_beyond_what_differences_of_a_loss_leave_open() -> None:
    first, again = answer((ONE, ONE), (ONE, NEAR))
    for open_to, stale in ((1e-10, True), (1e-8, None)):  # of moves by 1e-6 and 2e-6
        left = again._replace(allowed={"w": np.full(2, open_to)})
        found = find_unmoved(first, left, "w")
        assert isinstance(found, Mistake) if stale else found is None


def test_the_entry_of_a_number_has_no_index() -> None:
    numbers = [np.array(1.0), np.array(1.0)], [np.array(1.0), np.array(1.001)]
    (one, true), (again, after) = numbers
    first = state_compared({"w": one}, {"w": true}, {"w": np.array(1e-12)})
    found = find_unmoved(first, state_compared({"w": again}, {"w": after}, {"w": 0 * one}), "w")
    assert isinstance(found, Mistake)
    assert ": it moves by 0, where 0.001 belongs" in found.explanation


@pytest.mark.parametrize(
    ("kinds", "asked", "name"),
    [
        ("ss", 2, "w"),
        ("sss", 3, "w"),
        ("s", 1, None),  # two have to tell
        ("sn", 2, None),
        ("sns", 3, "w"),
        ("sfs", 3, "w"),  # one follows
        ("sffs", 4, "w"),
        ("sff", 3, None),
        ("sfsff", 4, "w"),
        ("ffss", 2, None),  # two follow before any is stale
        ("fnss", 4, "w"),
        ("fsfss", 4, "w"),  # of which four are asked
        ("fsn", 3, None),
        ("sbs", 2, None),
        ("", 0, None),
        ("ssssss", 4, "w"),
        ("dd", 2, "w"),  # one of two gradients is stale, and the other follows
        ("t", 1, None),  # both gradients are stale, at one case
        ("tt", 2, "v"),
    ],
)
def test_two_cases_and_half_of_those_that_can_tell_have_to_be_stale(
    kinds: str, asked: int, name: str | None
) -> None:
    pairs = {
        "s": answer((ONE, ONE), (ONE, NEAR)), "f": answer((ONE, ONE), (NEAR, NEAR)),
        "n": answer((ONE, ONE), (ONE, ONE)), "d": answer_twice(NEAR, ONE),
        "t": answer_twice(ONE, ONE), "b": (answer((ONE, ONE), (ONE, NEAR))[0], None),
    }  # fmt: skip
    compared = [pairs[kind][0]._replace(case=state_case({}, {})._replace(label=f"{k}{kind}"))
                for k, kind in enumerate(kinds)]  # fmt: skip
    calls = list[str]()

    def ask(case: Any, copy: Any) -> Any:
        calls.append(case.label)
        found = pairs[case.label[-1]][1]
        return state_overflow(None, "it") if found is None else found

    def displace(case: Any, number: int, distance: float) -> Any:
        assert (number, distance) == (0, 2.0**-20)
        return case._replace(label=f"near {case.label}")

    found = find_stale(SimpleNamespace(displace=displace), compared, ask)  # type: ignore[arg-type]
    assert (None if found is None else found.details["gradients"][0]) == name
    stale = next((each.case.label for each in compared if each.case.label[-1] in "sdt"), "")
    assert found is None or f"With {stale}." in found.explanation
    labels = [each.case.label for each in compared[: len(calls) // 2]]
    assert calls == [call for label in labels for call in (label, f"near {label}")]
    assert len(calls) == 2 * asked


def test_all_values_are_others_before_they_are_held_again_also_zeros() -> None:
    values = {"w": np.array([0.0, 2.0, -4.0]), "b": np.zeros(2, np.float32)}
    held = HeldArrays(values, 0)
    before = {name: value.tolist() for name, value in held.write(["w", "b"], values).items()}
    assert before == {"w": [0.0625, 1.5, -3.0], "b": [0.0625, 0.0625]}
    one = held.write(["b"], values)
    assert (one["w"].tolist(), one["b"].tolist()) == ([0, 2, -4], [0.0625, 0.0625])
    after = held.write([], values)
    assert after["b"] is one["b"]
    assert after["b"].dtype == np.float32
    assert {name: value.tolist() for name, value in after.items()} == {
        name: value.tolist() for name, value in values.items()
    }
