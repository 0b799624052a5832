"""Labels whose counts are added at the wrong entry of a gradient."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_labels import has_whole_rows
from tests.support.chain_derivations import MODELS
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted

PLANTED: dict[str, tuple[str, str, tuple[str, str]]] = {
    "transposed": (
        "sentences", "transposed-gradient",
        ('G["trans"][y[t - 1], y[t]]', 'G["trans"][y[t], y[t - 1]]'),
    ),
    "transposed at once": (
        "single", "transposed-gradient", ("(y[:-1], y[1:])", "(y[1:], y[:-1])"),
    ),
    "transposed in a logarithm": (
        "pairs", "transposed-gradient", ("counts[i, j] +=", "counts[j, i] +="),
    ),
    "the last label": ("sentences", "wrong-operand", ('G["start"][y[0]]', 'G["start"][y[-1]]')),
    "the first label": ("sentences", "wrong-operand", ('G["end"][y[-1]]', 'G["end"][y[0]]')),
    "the second label": ("sentences", "wrong-operand", ('G["start"][y[0]]', 'G["start"][y[1]]')),
    "the last but one": ("sentences", "wrong-operand", ('G["end"][y[-1]]', 'G["end"][y[-2]]')),
    "the last letter": (
        "pairs", "wrong-operand", ("first[LETTERS[0]] +=", "first[LETTERS[-1]] +="),
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_a_label_that_is_counted_at_another_entry_is_named(kind: str, dtype: Any) -> None:
    model, name, change = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], change, dtype=dtype)
    assert found.name == name, found


@pytest.mark.parametrize(
    ("moved", "count", "whole"),
    [([3, 4, 5], 3, True), ([0, 1, 2, 3], 2, True), ([4], 3, False), ([0, 4, 8], 3, False),
     ([5, 3, 4], 3, False), ([0, 1], 3, False)],
)  # fmt: skip
def test_a_row_of_scores_chooses_no_label(moved: list[int], count: int, whole: bool) -> None:
    assert has_whole_rows(np.array(moved), count) == whole
