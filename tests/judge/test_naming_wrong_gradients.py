"""What is wrong with a kernel's gradients, in measurements and numbers made by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import kernel_diagnosis
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_diagnosis import (
    Cases,
    describe_first,
    describe_misplaced_zeros,
    describe_noise,
    describe_settings,
    describe_share,
    diagnose_kernel,
    find_common_places,
    find_wrong_sizes,
    find_zero_indices,
    group_by_shape,
    name_gradient,
    tells_apart,
)
from bptt_verifier.judge.kernel_explanations import (
    explains,
    list_explanations,
)
from bptt_verifier.judge.kernel_places import WrongIndices
from tests.support.found_gradients import EXACT, FACTORS, ZERO, calls_of, draw, find
from tests.support.measurements import make_measurement

# Names for one whole gradient.


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (np.zeros_like, "zero-gradient", "every entry is zero"),
        (np.negative, "sign-flipped", "the sign is wrong"),
        (lambda g: 0.7 * g, "constant-factor", "every entry is 0.7 times what it should be"),
        (lambda g: -2 * g, "constant-factor", "every entry is -2 times what it should be"),
        (lambda g: g.swapaxes(1, 2), "transposed-gradient", "it is transposed"),
    ],
)
def test_a_whole_gradient_has_a_name(change: Any, kind: str, said: str) -> None:
    assert name_gradient("w", Cases([find(change(EXACT), EXACT)]), calls_of()) == (kind, said)


def test_gates_that_are_transposed_one_by_one_have_a_name() -> None:
    exact = draw(12, 4)
    gates = exact.reshape(16, 3, 4, 4).swapaxes(2, 3).reshape(16, 12, 4)
    said = "each of its 3 square parts is transposed"
    found = name_gradient("w", Cases([find(gates, exact)]), calls_of())
    assert found == ("transposed-gradient", said)


def test_explanations_are_those_that_a_gradient_can_have() -> None:
    def list_kinds(exact: Any, factor: float = 0.5) -> list[str]:
        return [kind for kind, *_ in list_explanations("w", [find(factor * exact, exact)])]

    every = ["zero-gradient", "sign-flipped", "constant-factor", "transposed-gradient"]
    assert list_kinds(EXACT) == every
    assert list_kinds(EXACT, 0.0) == [each for each in every if each != "constant-factor"]
    assert list_kinds(draw(4, 5)) == every[:3]
    assert list_kinds(draw(16)) == every[:3]  # of 16 neighbours, but no matrix
    assert list_kinds(draw(2, 4, 4)) == every
    (_, _, change) = [*list_explanations("w", [find(EXACT, EXACT)])][3]
    three = draw(2, 3, 3)
    np.testing.assert_array_equal(change(three), three.transpose(0, 1, 3, 2))


def test_an_explanation_holds_in_every_case() -> None:
    cases = [find(0.7 * EXACT, EXACT), find(0.9 * EXACT, EXACT)]
    kind, _ = name_gradient("w", Cases(cases), calls_of())
    assert kind != "constant-factor"
    assert name_gradient("w", Cases(cases[:1] * 2), calls_of())[0] == "constant-factor"
    assert explains(cases[0], "w", lambda g: 0.7 * g)
    assert not explains(cases[0], "w", lambda g: 0.71 * g)


# Noise, lengths, places and zeros.


def change_entries(exact: Any, place: Any, by: float = 2.0) -> Any:
    found = exact.copy()
    found[(slice(None), *(place if isinstance(place, tuple) else (place,)))] *= by
    return found


def test_noise_is_named_before_places() -> None:
    wrong = change_entries(EXACT, np.s_[1])
    cases = [find(wrong, EXACT), find(wrong, EXACT, noisy={"w": 3.0})]
    assert name_gradient("w", Cases(cases), calls_of())[0] == "noise-beyond-rounding"
    assert name_gradient("w", Cases(cases[:1]), calls_of())[0] == "wrong-index"
    other = [find(wrong, EXACT, noisy={"v": 3.0})]
    assert name_gradient("w", Cases(other), calls_of())[0] == "wrong-index"


def test_the_largest_noise_of_noisy_gradients_is_described() -> None:
    def case(relative: float, *noisy: str) -> Any:
        measured = make_measurement([0.0], relative=relative)
        return SimpleNamespace(gradients={"w": measured}, noisy=dict.fromkeys(noisy, 2.0))

    said = describe_noise([case(0.5), case(0.25, "w"), case(0.125, "w")])
    assert said.startswith("errors scatter by up to 0.25 of its size (root mean square), and as")


def test_entries_beyond_a_length_are_named_if_they_are_so_in_every_case() -> None:
    beyond = np.arange(4) >= np.array([2, 4, 3])[:, None]
    exact = np.where(beyond, 0, draw(3, 4))
    wrong = find(exact + beyond, exact)
    every = calls_of(data={"n": np.array([2, 4, 3])})
    assert name_gradient("w", Cases([wrong, wrong]), every) == (
        "wrong-beyond-length", "entries beyond n alone are wrong",
    )  # fmt: skip
    elsewhere = find(exact + 1, exact)
    assert name_gradient("w", Cases([wrong, elsewhere]), every)[0] != "wrong-beyond-length"
    assert name_gradient("w", Cases([elsewhere]), every)[0] != "wrong-beyond-length"
    leaves = calls_of()
    leaves[0].arguments.leaves = {"n": np.array([2, 4, 3])}
    assert name_gradient("w", Cases([wrong]), leaves)[0] == "wrong-beyond-length"


def test_places_are_those_that_are_wrong_in_every_case() -> None:
    one, two = (find(change_entries(EXACT, place), EXACT) for place in (np.s_[1], np.s_[1, 1:]))
    (place,) = find_common_places("w", [one, two])
    assert (place.axis, place.indices) == (0, (1,))
    assert len(find_common_places("w", [two, two])) == 2
    assert find_common_places("w", [one, find(change_entries(EXACT, np.s_[2]), EXACT)]) == []


def test_places_of_the_largest_shape_are_named_with_their_share() -> None:
    large = draw(40, 3)
    cases = [
        find(change_entries(EXACT, np.s_[1]), EXACT),
        find(change_entries(large, np.s_[32:], 3.0), large),
    ]
    kind, said = name_gradient("w", Cases(cases), calls_of())
    assert kind == "wrong-last-tile"
    assert said == (
        "entries are wrong from index 32, a multiple of 32, to the end, the last 8 of axis 0, by 2 "
        "of their size"
    )
    groups = group_by_shape("w", [*cases, cases[0]])
    assert groups == [[cases[1]], [cases[0], cases[0]]]


def test_the_kind_of_several_places_is_that_of_a_tile_or_one_index() -> None:
    exact = draw(40, 5)
    kind, said = name_gradient(
        "w", Cases([find(change_entries(exact, np.s_[32:, 1:3]), exact)]), calls_of()
    )
    assert kind == "wrong-last-tile"
    assert "of axis 0 and at indices 1 to 2 of axis 1" in said
    exact = draw(5, 5)
    kind, _ = name_gradient(
        "w", Cases([find(change_entries(exact, np.s_[1:3, 4]), exact)]), calls_of()
    )
    assert kind == "wrong-index"
    kind, _ = name_gradient(
        "w", Cases([find(change_entries(exact, np.s_[1:3, 2:4]), exact)]), calls_of()
    )
    assert kind == "wrong-range"


def test_zeros_are_named_where_others_are_wrong_as_well() -> None:
    wrong = EXACT * FACTORS
    wrong[:, :, 1] = 0
    assert name_gradient("w", Cases([find(wrong, EXACT)]), calls_of()) == (
        "unknown", "entries are zero at index 1 of axis 1, and others are wrong as well",
    )  # fmt: skip
    exact = draw(40, 4)
    wrong = exact * np.linspace(1.5, 3, 160).reshape(40, 4)
    wrong[:, 32:] = 0
    kind, said = name_gradient("w", Cases([find(wrong, exact)]), calls_of())
    assert kind == "wrong-last-tile"
    assert said.endswith("the last 8 of axis 0, and others are wrong as well")


SCATTERED = np.eye(4, dtype=bool)  # entries at no indices of an axis alone


def test_zeros_that_alone_are_wrong_are_counted() -> None:
    full, holed = EXACT, np.where(SCATTERED, 0, EXACT)
    missing, wrong = find(full, holed), find(holed, full)
    assert name_gradient("w", Cases([missing, missing]), calls_of()) == (
        "unknown", "4 of 16 entries are not zero and should be, and the others are right",
    )  # fmt: skip
    assert name_gradient("w", Cases([wrong]), calls_of()) == (
        "unknown", "4 of 16 entries are zero and should not be, and the others are right",
    )  # fmt: skip
    assert describe_misplaced_zeros("w", [missing, wrong]) == ""
    assert describe_misplaced_zeros("w", [missing, find(full, 0 * full)]) == ""
    assert describe_misplaced_zeros("w", [find(full, 0 * full)]) == ""
    others = find(np.where(SCATTERED, EXACT, EXACT * 1.1), holed)
    assert describe_misplaced_zeros("w", [others]) == ""
    assert describe_misplaced_zeros("w", [find(np.where(SCATTERED, 0, EXACT * 1.1), full)]) == ""
    assert describe_misplaced_zeros("w", [find(EXACT * FACTORS, full)]) == ""


def test_zeros_that_are_right_are_not_counted() -> None:
    corner = np.arange(16).reshape(4, 4) == 0
    few, many = (np.where(holes, 0, EXACT) for holes in (corner, SCATTERED))
    said = describe_misplaced_zeros("w", [find(few, many)])
    assert said.startswith("3 of 16 entries are not zero and should be")
    said = describe_misplaced_zeros("w", [find(many, few)])
    assert said.startswith("3 of 16 entries are zero and should not be")


def test_a_zero_is_counted_that_is_wrong_at_some_neighbours() -> None:
    holed = np.where(SCATTERED, 0, EXACT)
    holed[0, 0, 0] = EXACT[0, 0, 0]
    said = describe_misplaced_zeros("w", [find(EXACT, holed)])
    assert said.startswith("4 of 16 entries are not zero and should be")
    said = describe_misplaced_zeros("w", [find(holed, EXACT)])
    assert said.startswith("4 of 16 entries are zero and should not be")


def test_one_entry_has_no_place() -> None:
    near = find(1.5 * draw(), draw())
    far = find(-draw(), draw())
    assert name_gradient("w", Cases([near], (), [far]), calls_of()) == (
        "unknown", "its one entry is wrong, by 0.5 of its size",
    )  # fmt: skip


def test_what_is_wrong_everywhere_has_no_place() -> None:
    wrong = EXACT * FACTORS
    kind, said = name_gradient("w", Cases([find(wrong, EXACT)]), calls_of())
    assert kind == "unknown"
    assert said.startswith("entries are wrong at no place that stands out, by ")


# Words.


def place(axis: int, *indices: int, name: str = "wrong-range") -> WrongIndices:
    return WrongIndices(name, "", axis, indices)


def test_the_first_step_of_early_ones_is_said_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()

    def is_time(pullback: Any, case: Any, name: str, axis: int) -> bool:
        asked.append((pullback, case, name, axis))
        return axis == 0

    monkeypatch.setattr(kernel_diagnosis, "is_time_axis", is_time)
    found, pullback = find(EXACT, EXACT), SimpleNamespace()
    given: Any = found, pullback
    assert describe_first(place(0, 0, 1, 2), "w", *given) == " (going backward, 2 is the first)"
    assert asked == [(pullback, found.case, "w", 0)]
    assert describe_first(place(1, 0, 1), "w", *given) == ""
    assert describe_first(place(0, 1, 2), "w", *given) == ""
    assert describe_first(place(0, 0, 1, name="wrong-indices"), "w", *given) == ""
    monkeypatch.setattr(kernel_diagnosis, "find_common_places", lambda *_: [place(0, 0, 1)])
    _, said = name_gradient("w", Cases([find(change_entries(EXACT, np.s_[:2]), EXACT)]), calls_of())
    assert "(going backward, 1 is the first)" in said


RIGHT, WRONG = find(EXACT, EXACT), find(2 * EXACT, EXACT)


def settings_of(*cases: Found) -> list[Found]:
    """Cases in settings of their own, in order."""
    return [c._replace(case=c.case._replace(setting=k)) for k, c in enumerate(cases)]


def test_settings_in_which_a_gradient_is_wrong_are_told_from_right_ones() -> None:
    assert describe_settings("w", settings_of(RIGHT, WRONG)) == "setting 2, and right in setting 1"
    found = settings_of(WRONG, RIGHT, WRONG, RIGHT)
    assert describe_settings("w", found) == "settings 1, 3, and right in settings 2, 4"
    assert describe_settings("w", settings_of(WRONG, WRONG)) == ""
    assert describe_settings("w", settings_of(WRONG, ZERO)) == ""
    both = [*settings_of(WRONG), *settings_of(RIGHT)]
    assert describe_settings("w", both) == ""


def test_zeros_are_at_some_indices_of_an_axis_where_they_should_not_be() -> None:
    def ask(zeros: Any, exact: Any = EXACT) -> Any:
        submitted = EXACT.copy()
        submitted[zeros] = 0
        return find_zero_indices(find(submitted, exact), "w")

    assert ask(np.s_[:, 1:3]) == WrongIndices(
        "wrong-range", "at indices 1 to 2 of axis 0", 0, (1, 2)
    )
    assert ask(np.s_[:, :, 3]).indices == (3,)
    assert ask(np.s_[:, :, 3]).axis == 1
    assert ask(np.s_[:1, 1]) is None  # at one neighbour
    assert ask(np.s_[:, 1, 1]) is None
    assert ask(np.s_[:]) is None
    exact = EXACT.copy()
    exact[:, 1] = 0
    assert ask(np.s_[:, 1], exact) is None
    exact[:, 1, 2] = 1
    assert ask(np.s_[:, 1], exact).indices == (1,)


def test_the_share_of_an_error_is_that_where_all_places_meet() -> None:
    exact = 2 * np.ones((2, 3, 4))
    submitted = exact.copy()
    submitted[:, 1, 2] = 3
    submitted[:, 0] = 100
    found = [find(submitted, exact), WRONG]
    assert describe_share("w", found, [place(0, 1), place(1, 2, 3)]) == ", by 0.35 of their size"
    assert describe_share("w", found, [place(0, 1), place(1, 2)]) == ", by 0.5 of their size"
    assert describe_share("w", found, [place(0, 2)]) == ", by 0 of their size"
    assert describe_share("w", [WRONG], []) == ", by 1 of their size"


def test_zeros_and_what_should_be_zero_are_said_to_be_so() -> None:
    exact = np.ones((2, 3))
    zeros, ones = find(0 * exact, exact), find(exact, 0 * exact)
    assert describe_share("w", [zeros], [place(0, 1)]) == ": they are zero"
    assert describe_share("w", [zeros], []) == ""
    one = find(exact * np.array([0, 1, 1]), exact)
    assert describe_share("w", [one], []) == ", by 0.58 of their size"
    assert describe_share("w", [ones], []) == ": they should be zero"


# Sizes.


def test_a_tile_tells_settings_apart_if_it_divides_right_sizes_and_no_wrong_one() -> None:
    assert tells_apart([32, 40, 64], 32, {0, 2}, {1})
    assert not tells_apart([32, 40, 48], 32, {0, 2}, {1})
    assert not tells_apart([32, 40, 64], 8, {0, 2}, {1})
    assert not tells_apart([32, 40, 64], 32, {0}, {1, 2})
    assert not tells_apart([32, 40, 64], 32, set(), {1, 2})


def ask_sizes(shapes: Any, *cases: Found) -> Any:
    return find_wrong_sizes(calls_of(*({"x": s} for s in shapes)), settings_of(*cases))


def test_the_axis_whose_size_tells_is_named() -> None:
    found = ask_sizes([(3, 64), (5, 40), (7, 32)], RIGHT, WRONG, RIGHT)
    assert found.name == "wrong-at-other-sizes"
    assert found.details == {"argument": "x", "axis": 1, "tile": 32}
    assert found.explanation == (
        "the gradients are right where the size of axis 1 of x is a multiple of 32 (64, 32), and "
        "wrong where it is not (40)."
    )
    assert ask_sizes([(3, 8), (3, 12)], RIGHT, WRONG).details["tile"] == 8
    assert ask_sizes([(256,), (192,)], RIGHT, WRONG).details["tile"] == 128


def test_no_size_is_named_where_none_or_several_tell() -> None:
    assert ask_sizes([(3, 4), (3, 6)], RIGHT, WRONG) is None  # 4 is no tile
    assert ask_sizes([(16, 32), (17, 33)], RIGHT, WRONG) is None
    assert ask_sizes([(32, 32), (33, 33)], RIGHT, WRONG).details["axis"] == 0  # axes that are equal
    assert ask_sizes([(32,), (33,)], RIGHT, RIGHT) is None
    assert ask_sizes([(32,), (33,)], WRONG, WRONG) is None
    other = calls_of({"x": (32,)}, {"z": (33,), "y": (32,)})
    assert find_wrong_sizes(other, settings_of(RIGHT, WRONG)) is None


# Everything together.


def test_gradients_with_the_same_mistake_are_named_together() -> None:
    both = find(2 * EXACT, EXACT)
    measured = both.gradients["w"]
    names = "wvb"
    found = both._replace(
        gradients=dict.fromkeys(names, measured),
        submitted=dict.fromkeys(names, both.submitted["w"]) | {"b": -both.exact["w"]},
        exact=dict.fromkeys(names, both.exact["w"]),
    )
    first, second = diagnose_kernel(calls_of(), [found])
    assert (first.name, first.details) == ("constant-factor", {"gradients": ["w", "v"]})
    said = "in the gradients for w, v, every entry is 2 times what it should be."
    assert first.explanation == said
    assert (second.name, second.details) == ("sign-flipped", {"gradients": ["b"]})
    assert second.explanation == "in the gradient for b, the sign is wrong."
    assert diagnose_kernel(calls_of(), [RIGHT]) == ()


def test_a_name_for_a_whole_gradient_is_that_of_the_settings_in_which_it_is_wrong() -> None:
    every = calls_of({"x": (32,)}, {"x": (33,)})
    sizes, named = diagnose_kernel(every, settings_of(RIGHT, WRONG))
    assert sizes.name == named.name == "wrong-at-other-sizes"
    assert named.explanation == (
        "in the gradient for w, every entry is 2 times what it should be in setting 2, and right "
        "in setting 1."
    )
    place_alone = find(change_entries(EXACT, np.s_[1]), EXACT)
    _, named = diagnose_kernel(every, settings_of(RIGHT, place_alone))
    assert named.name == "wrong-index"


def test_places_are_those_nearest_to_the_point() -> None:
    far = find(EXACT * FACTORS, EXACT)
    near = find(change_entries(EXACT, np.s_[1]), EXACT)
    (named,) = diagnose_kernel(calls_of(), [far._replace(near=near), RIGHT])
    assert named.name == "wrong-index"
