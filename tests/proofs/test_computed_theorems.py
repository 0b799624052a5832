"""What the theorems define, computed by Rocq, is what manual_bptt computes, on fractions."""

import random
from pathlib import Path

import numpy as np
import pytest

from bptt_verifier.proofs.theorems import files_in_order
from manual_bptt.losses import LOSSES
from tests.support.fractions_in_rocq import (
    CELLS,
    draw_input,
    gradients_by_hand,
    gradients_in_rocq,
    other_ways_by_hand,
    other_ways_in_rocq,
)
from tests.support.losses_in_rocq import draw_loss_input, losses_by_hand, losses_in_rocq
from tests.support.rocq import compile_files, reason_to_skip

pytestmark = [
    pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "Rocq is here"),
    pytest.mark.slow,
]
INPUTS = 200


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """A folder with all files, compiled."""
    folder = tmp_path_factory.mktemp("lists")
    compile_files(files_in_order(), folder)
    return folder


@pytest.mark.parametrize("cell", CELLS)
def test_every_gradient_is_the_computed_one_to_the_last_digit(
    cell: str, compiled: Path, monkeypatch
) -> None:
    rng = random.Random(cell)
    inputs = [draw_input(rng, cell) for _ in range(INPUTS)]
    for given, proved in zip(inputs, gradients_in_rocq(inputs, compiled), strict=True):
        by_hand = gradients_by_hand(given, monkeypatch)
        assert {"U", "W", "V", "h0", "x"} | given.params.keys() | given.states.keys() == set(
            by_hand
        )
        for name, gradient in by_hand.items():
            assert np.array_equal(gradient, proved[name]), (name, given)


def test_the_other_two_derivations_are_the_computed_ones_to_the_last_digit(
    compiled: Path,
) -> None:
    rng = random.Random("other ways")
    drawn = (draw_input(rng, "rnn") for _ in range(10 * INPUTS))
    inputs = [given for given in drawn if not given.every][:INPUTS]
    for given, proved in zip(inputs, other_ways_in_rocq(inputs, compiled), strict=True):
        for way, by_hand in other_ways_by_hand(given).items():
            for name, gradient in by_hand.items():
                assert np.array_equal(gradient, proved[way][name]), (way, name, given)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_the_computed_one_to_the_last_digit(
    loss: str, compiled: Path, monkeypatch
) -> None:
    rng = random.Random(loss)
    inputs = [draw_loss_input(rng, loss) for _ in range(INPUTS)]
    for given, (value, gradient) in zip(inputs, losses_in_rocq(inputs, compiled), strict=True):
        value_by_hand, by_hand = losses_by_hand(given, monkeypatch)
        assert value == value_by_hand, given
        assert np.array_equal(gradient, by_hand), given
