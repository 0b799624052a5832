"""CS231n, assignment 3: a step of the LSTM."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="dnext_c += o · (1 − tanh² c) · dnext_h",
    source="cthorey/CS231 on GitHub, issue 1 (2016), on lstm_step_backward of CS231n, assignment 3",
    claim=(
        "next_h = o · tanh(next_c)",
        "dnext_c += o · (1 − tanh²(next_c)) · dnext_h,  dprev_c = f · dnext_c",
    ),
    convention="Rows are sequences. Before the line dnext_c is the gradient that comes from the "
    "next step, after it the total one. The gates are packed as i, f, o, g in the source.",
    verdict=AGREES,
    seen=True,
    rests_on="the text of the issue, which quotes both lines; the rest of the step is written here",
    reading="A reader asks for = in the place of +=, since next_h depends on next_c alone. That "
    "is the part through next_h; the cell state also acts on the next one: see hanbt-lstm-cell.",
    model="lstm",
    bias=True,
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    Wx, Wh, b, V = params.U.T, params.W.T, params.b, params.V
    T, B, _ = x.shape
    h, c, gates = [np.zeros((B, len(Wh)), x.dtype)], [np.zeros((B, len(Wh)), x.dtype)], []
    for t in range(T):
        ai, af, ag, ao = np.split(x[t] @ Wx + h[t] @ Wh + b, 4, axis=1)
        gates.append((sigmoid(ai), sigmoid(af), sigmoid(ao), np.tanh(ag)))
        i, f, o, g = gates[t]
        c.append(f * c[t] + i * g)
        h.append(o * np.tanh(c[t + 1]))
    scores = 2 * (h[T] @ V.T + params.c - y) / y.size
    dWx, dWh, db = np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)
    dnext_h, dnext_c = scores @ V, np.zeros((B, len(Wh)), x.dtype)
    for t in reversed(range(T)):
        i, f, o, g = gates[t]
        dnext_c = dnext_c + o * (1 - np.tanh(c[t + 1]) ** 2) * dnext_h
        di, df = dnext_c * g * i * (1 - i), dnext_c * c[t] * f * (1 - f)
        dg, do = dnext_c * i * (1 - g**2), dnext_h * np.tanh(c[t + 1]) * o * (1 - o)
        da = np.concatenate([di, df, dg, do], axis=1)
        dWx += x[t].T @ da
        dWh += h[t].T @ da
        db += da.sum(axis=0)
        dnext_h, dnext_c = da @ Wh.T, f * dnext_c
    return {"U": dWx.T, "W": dWh.T, "V": scores.T @ h[T], "b": db, "c": scores.sum(axis=0)}
