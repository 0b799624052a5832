"""The colours of figures: everybody tells them apart, and from the paper."""

import pytest

from bptt_verifier.console.figures import COLOURS, DASHES
from tests.support.colour_vision import find_contrast, find_nearest


def test_the_colours_of_curves_are_told_apart_in_every_vision() -> None:
    distance, vision = find_nearest(list(COLOURS))
    assert distance >= 30, vision
    assert all(find_contrast(colour, "#ffffff") >= 3 for colour in COLOURS)
    assert len(set(DASHES)) == len(COLOURS)


@pytest.mark.parametrize(
    ("colours", "vision"),
    [
        (["#d62728", "#2ca02c"], "deuteranopia"),  # Matplotlib's red and green
        (["#009e73", "#0072b2"], "tritanopia"),
    ],
)
def test_colours_that_some_people_confuse_are_noticed(colours: list[str], vision: str) -> None:
    distance, found = find_nearest(colours)
    assert found == vision
    assert distance < 30


def test_the_contrast_of_black_and_white_is_21() -> None:
    assert find_contrast("#000000", "#ffffff") == pytest.approx(21)
