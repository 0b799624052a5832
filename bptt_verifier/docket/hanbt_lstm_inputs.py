"""hanbt/learn_dl: the input weights of an LSTM."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="The input weights from the last step alone",
    source="hanbt/learn_dl on GitHub, lstm.py, calc_gradient",
    claim=("∂E/∂W_fx = δ_f,t x_tᵀ of the last step t, and likewise for i, o and c̃",),
    convention="δ_f,t is ∂E/∂net_f of step t, a column. All steps share the weights W_fx.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the whole file, before pull request 63, and issue 30 of 2018, which reports the "
    "missing sum. Other lines of the file are other entries",
    reading="The formula is the gradient if only the last step has an input. The file's comment "
    "speaks of the present input. The recurrent weights' gradients are summed in that function.",
    mistake=("missing-time-sum",),
    corrected=("∂E/∂W_fx = Σ_t δ_f,t x_tᵀ",),
    model="lstm",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    h, c, gates = run_lstm(U, W, x)
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[T]
    dh, dc = dy @ V, np.zeros_like(h[0])
    for t in reversed(range(T)):
        i, f, g, o = gates[t]
        tanh_c = np.tanh(c[t + 1])
        ds = dc + dh * o * (1 - tanh_c**2)
        deltas = ds * g * i * (1 - i), ds * c[t] * f * (1 - f), ds * i * (1 - g**2)
        delta = np.concatenate([*deltas, dh * tanh_c * o * (1 - o)], axis=1)
        if t == T - 1:
            dU = delta.T @ x[t]
        dW += delta.T @ h[t]
        dh, dc = delta @ W, ds * f
    return dU, dW, dV
