"""CS231n, assignment 3: a step of the RNN."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="rnn_step_backward",
    source="CS231n, Stanford, assignment 3, rnn_layers.py, rnn_step_backward and rnn_backward",
    claim=(
        "dtanh = dnext_h ⊙ (1 − next_h²)",
        "dx = dtanh Wxᵀ,  dprev_h = dtanh Whᵀ",
        "dWx = xᵀ dtanh,  dWh = prev_hᵀ dtanh,  db = Σ dtanh",
        "dnext_h of step t is dh_t + dprev_h of step t + 1",
    ),
    convention="Rows are sequences: next_h = tanh(x Wx + prev_h Wh + b). next_h is the value, so "
    "that 1 − next_h² is the slope.",
    verdict=AGREES,
    seen=False,
    rests_on="ten public solutions that have these lines alike; the course prints none",
    reading="Readers ask for 1 + next_h²: that is the derivative of tan, see tan-for-tanh. A "
    "reader of the last line asks whether it truncates: it does not.",
    model="rnn",
    bias=True,
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    Wx, Wh, V = params.U.T, params.W.T, params.V
    T, B, _ = x.shape
    h = [np.zeros((B, len(Wh)), x.dtype)]
    for t in range(T):
        h.append(np.tanh(x[t] @ Wx + h[t] @ Wh + params.b))
    scores = 2 * (h[T] @ V.T + params.c - y) / y.size
    dWx, dWh, db = np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(params.b)
    dnext_h = scores @ V
    for t in reversed(range(T)):
        dtanh = dnext_h * (1 - h[t + 1] ** 2)
        dWx += x[t].T @ dtanh
        dWh += h[t].T @ dtanh
        db += dtanh.sum(axis=0)
        dnext_h = dtanh @ Wh.T
    return {"U": dWx.T, "W": dWh.T, "V": scores.T @ h[T], "b": db, "c": scores.sum(axis=0)}
