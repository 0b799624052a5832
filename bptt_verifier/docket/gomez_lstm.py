"""A. Gomez: an LSTM's way back, of a numerical example."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="δstate_t with what comes from the next step",
    source="A. Gomez, Backpropogating an LSTM: a numerical example, blog.aidangomez.ca, 17 April "
    "2016, the backward components",
    claim=(
        "δout_t = Δ_t + Δout_t",
        "δstate_t = δout_t ⊙ o_t ⊙ (1 − tanh²(state_t)) + δstate_{t+1} ⊙ f_{t+1}",
        "δa_t = δstate_t ⊙ i_t ⊙ (1 − a_t²),  δi_t = δstate_t ⊙ a_t ⊙ i_t ⊙ (1 − i_t)",
        "δf_t = δstate_t ⊙ state_{t−1} ⊙ f_t ⊙ (1 − f_t)",
        "δo_t = δout_t ⊙ tanh(state_t) ⊙ o_t ⊙ (1 − o_t)",
        "δx_t = Wᵀ δgates_t,  Δout_{t−1} = Uᵀ δgates_t",
        "δW = Σ_t δgates_t ⊗ x_t,  δU = Σ_t δgates_{t+1} ⊗ out_t",
    ),
    convention="Columns, total derivatives; Δ_t comes from above and Δout_t from step t + 1. "
    "state_t = a_t ⊙ i_t + f_t ⊙ state_{t−1}. Without biases here.",
    verdict=AGREES,
    seen=False,
    rests_on="a restatement of the formulas on GitHub that cites the post, but for the last line, "
    "which is as commonly restated; the stored page of the post has its text without formulas",
    reading="None known. The sum over the steps in the last line is over all t, as the outer "
    "products of step t + 1 meet the output of step t.",
    model="lstm",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    out, state, gates = run_lstm(U, W, x)
    dy = 2 * (out[T] @ V.T - y) / y.size
    dU, dW = np.zeros_like(U), np.zeros_like(W)
    dout, carried = dy @ V, np.zeros_like(out[0])
    for t in reversed(range(T)):
        i, f, a, o = gates[t]
        dstate = dout * o * (1 - np.tanh(state[t + 1]) ** 2) + carried
        da, di = dstate * i * (1 - a**2), dstate * a * i * (1 - i)
        df, do = dstate * state[t] * f * (1 - f), dout * np.tanh(state[t + 1]) * o * (1 - o)
        dgates = np.concatenate([di, df, da, do], axis=1)
        dU += dgates.T @ x[t]
        dW += dgates.T @ out[t]
        dout, carried = dgates @ W, dstate * f
    return dU, dW, dy.T @ out[T]
