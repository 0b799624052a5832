"""The gradients of the theorems, computed by Rocq, are those that manual_bptt computes."""

import random
from pathlib import Path

import numpy as np
import pytest

from tests.support.fractions_in_rocq import (
    CELLS,
    draw_input,
    gradients_by_hand,
    gradients_in_rocq,
)
from tests.support.rocq import compile_files, reason_to_skip

pytestmark = [
    pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "Rocq is here"),
    pytest.mark.slow,
]
INPUTS = {"rnn": 200, "lstm": 40, "gru": 40}  # Rocq's fractions are slow, with gates above all


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """A folder with what all cells share, compiled."""
    folder = tmp_path_factory.mktemp("lists")
    compile_files(["pairing", "dual_numbers", "sweep", "lists", "rationals"], folder)
    return folder


@pytest.mark.parametrize("cell", CELLS)
def test_every_gradient_is_the_computed_one_to_the_last_digit(
    cell: str, compiled: Path, monkeypatch
) -> None:
    compile_files([cell, f"{cell}_lists"], compiled)
    rng = random.Random(cell)
    inputs = [draw_input(rng, cell) for _ in range(INPUTS[cell])]
    for given, proved in zip(inputs, gradients_in_rocq(inputs, compiled), strict=True):
        by_hand = gradients_by_hand(given, monkeypatch)
        assert {"U", "W", "V", "h0", "x"} | given.params.keys() | given.states.keys() == set(
            by_hand
        )
        for name, gradient in by_hand.items():
            assert np.array_equal(gradient, proved[name]), (name, given)
