"""Cases of an own model in which parameters are zero that are not zero as given."""

import numpy as np
import pytest

from bptt_verifier.reference.points import Point
from bptt_verifier.reference.selection import KINK, Examined
from tests.support.selectors import ONE, examined, follow_with, selector

NAMES = "abcdefg"


@pytest.mark.parametrize(
    ("most", "setting", "given", "zeroed"),
    [
        (6, 0, "abc", ["a", "b", "c"]),  # each alone
        (3, 0, NAMES, ["adg", "be", "cf"]),  # or in turns
        (3, 1, NAMES, ["dgc", "ea", "fb"]),
        (1, 0, "abc", ["a"]),  # of several settings, one each
        (1, 2, "abc", ["c"]),
        (1, 3, "abc", ["a"]),
        (2, 1, "abc", ["c", "a"]),
        (0, 0, "abc", []),
        (6, 0, "", []),
    ],
)
def test_parameters_are_zero_in_turns_that_are_not_zero_as_given(
    most: int, setting: int, given: str, zeroed: list[str]
) -> None:
    params = {name: np.array([0.0, 1.0]) * (name in given) for name in NAMES}
    chosen, tried = selector(follow_with(), params=params), list[Point]()
    chosen.setting = chosen.setting._replace(number=setting)

    def examine(point: Point, first: bool = True) -> Examined:
        assert not first
        tried.append(point)
        return examined(ONE)

    def keep(examined: Examined) -> str | None:
        return KINK if tried[-1].number == 24000 and not tried[-1].near else None

    chosen.examine = examine  # type: ignore[method-assign]
    chosen.keep = keep  # type: ignore[method-assign]
    assert len([*chosen.draw_zeroed(most)]) == len(zeroed)
    found = ["".join(point.factors) for point in tried]
    # Where the first draw is no case, one near the parameters given is.
    assert found == zeroed[:1] + zeroed
    assert [point.near for point in tried] == [False, True, *[False] * len(zeroed)][: len(tried)]
    assert {factor for point in tried for factor in point.factors.values()} <= {0.0}
    assert all(point.setting == setting for point in tried)
    numbers = [24000 + 12 * place for place in range(len(zeroed))]
    assert [point.number for point in tried] == numbers[:1] + numbers


def test_no_draw_with_zeros_is_a_case_where_it_cannot_be() -> None:
    chosen = selector(follow_with())

    def examine(point: Point, first: bool = True) -> str:
        return KINK

    chosen.examine = examine  # type: ignore[method-assign]
    assert [*chosen.draw_zeroed(3)] == []
    assert chosen.left_out == {}
