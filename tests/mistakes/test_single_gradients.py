"""A limit that clips gradients is a short number, or one that several entries or cases have."""

import numpy as np
import pytest

from bptt_verifier.mistakes.evidence import Evidence, Wanted
from bptt_verifier.mistakes.single_gradients import list_clippings, say_factor


def list_limits(*submitted: list[float]) -> list[str]:
    """List the clippings that are tried for these gradients, one a case."""
    evidence = [
        Evidence(
            None,
            {"W": np.zeros(len(each))},
            {"W": Wanted(np.array(each), np.zeros(len(each)), 0.0, None)},
        )
        for each in submitted
    ]
    return [",".join(found.details) for found in list_clippings("W", evidence, ["W"])]


@pytest.mark.parametrize(
    ("submitted", "limits"),
    [
        (([0.1, 0.731234567], [0.2, -0.3]), []),
        (([0.1, 0.731234567], [0.2, -0.731234567]), ["value"]),
        (([0.1, 0.75], [0.2, -0.3]), ["value"]),
        (([3.0, 4.0], [0.2, -0.3]), ["value", "norm", "norm"]),
        (([0.345678, 0.460904], [0.57613]), ["norm", "norm"]),
    ],
)
def test_a_number_that_one_entry_alone_has_is_no_limit_unless_it_is_short(
    submitted: tuple[list[float], ...], limits: list[str]
) -> None:
    assert list_limits(*submitted) == limits


def test_the_words_after_a_factor_explain_it() -> None:
    assert say_factor("1/3") == "every entry is 1/3 times what it should be"
    said = "every entry is 5 times what it should be; 5 is the number of steps"
    assert say_factor("5, the number of steps,") == said
