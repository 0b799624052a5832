"""TorchedUp: a step of an LSTM's way back, as an exercise states it."""

from typing import Any

import numpy as np

from bptt_verifier.docket.deeplearning_ai_lstm import H, T, da, loss, params, run
from bptt_verifier.docket.entry import AGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="dc = dh · o · tanh′(c_next) + dc_next",
    source="TorchedUp, problem LSTM BPTT, torchedup.dev/problems/lstm-bptt",
    claim=(
        "c_next = f∗c_prev + i∗g,  h_next = o ∗ tanh(c_next)",
        "do = dh ∗ tanh(c_next) ∗ σ′(o_gate),  dc = dh ∗ o ∗ tanh′(c_next) + dc_next",
        "di = dc ∗ g ∗ σ′(i_gate),  df = dc ∗ c_prev ∗ σ′(f_gate),  dg = dc ∗ i ∗ (1 − g²)",
        "dW_ih += outer(dgates, x),  dW_hh += outer(dgates, h_prev),  db = dgates",
        "dx = W_ihᵀ dgates,  dh_prev = W_hhᵀ dgates,  dc_prev = dc ∗ f",
    ),
    convention="Columns; dh and dc_next are total, with what comes from the next step; tanh′ and "
    "σ′ are taken at the arguments. The model and the loss are those of deeplearning-ai-lstm, with "
    "u for i and W for [W_hh, W_ih].",
    verdict=AGREES,
    seen=True,
    rests_on="the text of the page; that the gradients of the steps are summed follows from +=",
    reading="With σ′ taken at the value of the gate it would be wrong.",
)


def gradients(p: Any) -> Any:
    _, c, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    dh_prev, dc_next = np.zeros(H), np.zeros(H)
    for t in reversed(range(T)):
        met, f, i, g, o = steps[t]
        dh = da[t] + dh_prev
        dc = dh * o * (1 - np.tanh(c[t + 1]) ** 2) + dc_next
        gates = {
            "o": dh * np.tanh(c[t + 1]) * o * (1 - o), "u": dc * g * i * (1 - i),
            "f": dc * c[t] * f * (1 - f), "c": dc * i * (1 - g**2),
        }  # fmt: skip
        for gate, delta in gates.items():
            found["W" + gate] += np.outer(delta, met)
            found["b" + gate] += delta
        dh_prev = sum(p["W" + gate][:, :H].T @ delta for gate, delta in gates.items())
        dc_next = dc * f
    return found
