"""deeplearning.ai, Sequence Models: the numbers that an exercise on an LSTM expected."""

from typing import Any

import numpy as np

from bptt_verifier.docket.deeplearning_ai_lstm import H, T, da, loss, params, run
from bptt_verifier.docket.entry import DISAGREES, Entry

__all__ = ["ENTRY", "gradients", "held_loss", "loss", "params"]

ENTRY = Entry(
    title="lstm_backward without what comes from the next step",
    source="deeplearning.ai, Sequence Models, week 1, Building a recurrent neural network, "
    "version 3, expected output of lstm_backward, section 3.3",
    claim=(
        "gradients of step t = lstm_cell_backward(da_t, 0, step t), for each t; summed over t",
        "so that, for the seed of the notebook, dx[1][2] = (−0.00173313, 0.08287442, …), "
        "da0[2][3] = −0.0959115, dWf[3][1] = −0.0698199, dWi[1][2] = 0.1023718",
    ),
    convention="As in deeplearning-ai-lstm. The numbers are the claim; the notebook has no formula "
    "for the sequence. These are reproduced to all digits if da_prev and dc_prev stay zero and the "
    "gates are those of deeplearning-ai-lstm.",
    verdict=DISAGREES,
    mistake=("recurrent-path-dropped",),
    seen=True,
    rests_on="the expected output in a stored copy of the notebook, and three solutions that "
    "reproduce it, of which one remarks that da_prevt and dc_prevt are not passed on",
    reading="As the sum of the gradients of single steps, each with the state before it as a "
    "constant, the numbers are right. With both passed on, dbf[4] is −0.15745657 and dbo[4] is "
    "−0.17958196, which solutions of version 3b have.",
    corrected=("gradients of step t = lstm_cell_backward(da_t + da_prev, dc_prev, step t)",),
    exactly="the gradient of the loss in which the state before each step is a constant",
)


def held_loss(p: Any, held: Any) -> Any:
    a, _, _ = run(p, held=run(held)[:2])
    return sum(np.sum(da[t] * a[t + 1]) for t in range(T))


def gradients(p: Any) -> Any:
    _, c, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    da_prev, dc_next = np.zeros(H), np.zeros(H)
    for t in reversed(range(T)):
        met, f, u, candidate, o = steps[t]
        da_next = da[t] + da_prev
        cell = dc_next + o * (1 - np.tanh(c[t + 1]) ** 2) * da_next
        of = {
            "f": cell * c[t] * f * (1 - f), "u": cell * candidate * u * (1 - u),
            "c": cell * u * (1 - candidate**2), "o": da_next * np.tanh(c[t + 1]) * o * (1 - o),
        }  # fmt: skip
        for gate, delta in of.items():
            found["W" + gate] += np.outer(delta, met)
            found["b" + gate] += delta
        da_prev, dc_next = np.zeros(H), np.zeros(H)
    return found
