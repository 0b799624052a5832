"""microsoft/ai-edu: the gradient of an LSTM's cell state."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="∂loss/∂c_t through h_t alone",
    source="microsoft/ai-edu on GitHub, neural networks step by step, step 9, section 20.1 on the "
    "LSTM, equations (18) to (21)",
    claim=(
        "δ_c,t = ∂loss/∂c_t = ∂loss/∂h_t · ∂h_t/∂tanh(c_t) · ∂tanh(c_t)/∂c_t",
        "δ_c,t = δ_t ∘ o_t ∘ (1 − tanh²(c_t))",
        "δ_zc̃,t = δ_c,t ∘ i_t ∘ (1 − c̃_t²),  δ_zi,t = δ_c,t ∘ c̃_t ∘ i_t ∘ (1 − i_t)",
        "δ_zf,t = δ_c,t ∘ c_{t−1} ∘ f_t ∘ (1 − f_t)",
    ),
    convention="Row vectors; δ_t = ∂loss/∂h_t is total, with what comes from step t + 1 through "
    "the gates, equation (37).",
    verdict=DISAGREES,
    seen=True,
    rests_on="two stored versions of the section's source; pull request 618 of 2021, "
    "Fix a calculation error in BPTT, names equations (15) and (16) in its description",
    reading="As the part of ∂loss/∂c_t that goes through h_t the formula is right. At the last "
    "step it is the whole. See hanbt-lstm-cell for the same in another text.",
    mistake=("recurrent-path-dropped",),
    corrected=("δ_c,t = δ_t ∘ o_t ∘ (1 − tanh²(c_t)) + δ_c,t+1 ∘ f_{t+1}",),
    exactly="the gradient of the loss in which c_{t−1} is a constant in c_t = f ⊙ c_{t−1} + i ⊙ g",
    model="lstm",
)


def held_loss(params: Any, held: Any, x: Any, y: Any) -> Any:
    _, c, _ = run_lstm(held[0], held[1], x)
    h, _, _ = run_lstm(params[0], params[1], x, held_c=c)
    return np.mean((h[-1] @ params[2].T - y) ** 2)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    h, c, gates = run_lstm(U, W, x)
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[T]
    dh = dy @ V
    for t in reversed(range(T)):
        i, f, g, o = gates[t]
        tanh_c = np.tanh(c[t + 1])
        ds = dh * o * (1 - tanh_c**2)
        deltas = ds * g * i * (1 - i), ds * c[t] * f * (1 - f), ds * i * (1 - g**2)
        delta = np.concatenate([*deltas, dh * tanh_c * o * (1 - o)], axis=1)
        dU += delta.T @ x[t]
        dW += delta.T @ h[t]
        dh = delta @ W
    return dU, dW, dV
