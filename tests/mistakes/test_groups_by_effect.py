"""Groups of mistakes by their effects: equal gradients are alike, others that show are not."""

from typing import Any

import numpy as np

from bptt_verifier.mistakes.own_diagnosis import ALIKE, group_by_effect
from bptt_verifier.tolerance.formats import find_unit

EFFECT = np.linspace(0.5, 1, 6).astype(np.float32)


def count_groups(change: Any) -> int:
    made: Any = ["one", "other"]
    effects = EFFECT, (EFFECT + change).astype(np.float32)
    return len(group_by_effect([*zip(made, effects, strict=True)]))


def test_effects_that_differ_by_rounding_are_one() -> None:
    assert 16 * find_unit(np.float32) < ALIKE
    assert count_groups(16 * find_unit(np.float32)) == 1


def test_effects_that_differ_by_what_shows_in_float16_are_two() -> None:
    assert find_unit(np.float16) / 16 > ALIKE
    assert count_groups(np.where(np.arange(6) == 2, find_unit(np.float16) / 16, 0)) == 2
