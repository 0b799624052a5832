"""Training with the gradient of a published claim, and the curves of its page."""

import re
from functools import partial

import numpy as np
import pytest

from bptt_verifier.commands.docket_training import (
    FILLERS,
    OWN_STEPS,
    STEPS,
    descend,
    describe_training,
    draw_curve,
    draw_descent,
    extend_phrases,
    train_with,
)
from bptt_verifier.judge.published import (
    read_entry,
    take_complex_steps,
)
from manual_bptt import rnn


def test_a_wrong_claim_learns_and_an_exploding_one_does_not() -> None:
    zero_gates, exploding = read_entry("rnn-vignette-lstm"), read_entry("oreilly-tanh-reader")
    claimed = train_with(zero_gates.module.gradients, zero_gates, extend_phrases(0))
    assert len(claimed) == len(STEPS)
    assert claimed == sorted(claimed, reverse=True)
    assert claimed[-1] < 1e-3
    assert "6 words each: not finite with the claim; " in describe_training(exploding)


def test_the_phrases_are_longer_than_a_truncation() -> None:
    truncated = read_entry("truncated-bptt")

    def exact(params, x, y):
        return rnn.value_and_grad(rnn.Params(*params), x, y)[1][:3]

    def train(fillers: int) -> list[list[float]]:
        x = extend_phrases(fillers)
        return [train_with(g, truncated, x) for g in (truncated.module.gradients, exact)]

    claimed, true = train(FILLERS[0])
    assert claimed[:2] != pytest.approx(true[:2])
    claimed, true = train(2)  # as many steps as the truncation keeps
    assert claimed[:2] == pytest.approx(true[:2])


def test_phrases_are_no_longer_than_the_gradient_can_learn() -> None:
    """A sigmoid RNN learns nothing over six words in three hundred steps."""
    line = describe_training(read_entry("rnn-vignette-rnn"))
    assert "colours, 2 words each" in line or "colours, 4 words each" in line


def test_a_bar_is_a_power_of_ten() -> None:
    assert draw_curve([5.0, 0.5, 0.05, 2e-6, 1e-9, 0.0]) == "█▇▆▂▁▁"


def test_right_claims_are_not_trained() -> None:
    assert describe_training(read_entry("cs231n-rnn-step")) == ""
    assert describe_training(read_entry("practical-introduction-state")) == ""


def test_an_own_model_descends_on_its_own_loss() -> None:
    case = read_entry("eprop-approximation")
    true = descend(partial(take_complex_steps, case.module.loss), case, 0.01)
    assert len(true) == OWN_STEPS
    assert true[-1] == min(true)
    assert descend(case.module.gradients, case, 0.01)[-1] > 2 * true[-1]
    line = describe_training(case)
    assert re.search(r"60 steps from 9.9: [▁-█]{15} [\d.]+ with the claim; [▁-█]{14}▁ ", line)


def test_a_bar_of_a_descent_is_a_share_of_the_way_to_the_lowest_loss() -> None:
    losses = [9.0, 9.0, 9.0, 5.0, 9.0, 9.0, 9.0, 3.0, 9.0, 9.0, 9.0, 1.0, 9.0, 9.0, 9.0, 99.0]
    assert draw_descent(losses, 5.0, 1.0) == "█▅▁█"


def test_a_descent_ends_where_the_loss_is_not_finite() -> None:
    case = read_entry("eprop-approximation")
    with np.errstate(all="ignore"):
        losses = descend(lambda p: dict.fromkeys(p, np.inf), case, 0.1)
    assert losses == [case.module.loss(case.module.params)]
