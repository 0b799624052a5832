"""The R package rnn, vignette on LSTM units: where two errors of the cell meet."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="The two errors of the cell state, multiplied",
    source="R package rnn (bquast/rnn on GitHub), vignettes/LSTM_units.Rmd, back propagation pass",
    claim=(
        "δ3 = δ1 + δ2,  δ5 = δ3 · o_t,  δ6 = δ3 · tanh(c_t),  δ7 = δ5 · tanh′(tanh(c_t))",
        "δ8 = δ7 · δ4",
        "δ9 = δ8 · i_t,  δ10 = δ8 · g_t,  δ11 = δ8 · f_t,  δ12 = δ8 · c_{t−1}",
    ),
    convention=(
        "Row vectors; · is elementwise. δ4 is the error of the cell state from the next step, and "
        "zero where there is none, as the text states. tanh′ is a function of the value of tanh. "
        "δ22 and δ23 differ from this project too: see rnn-vignette-lstm-input-gate and "
        "rnn-vignette-lstm-inputs. The other formulas are as here."
    ),
    verdict=DISAGREES,
    seen=True,
    rests_on="the whole vignette",
    reading=(
        "A slip of the text: the package's code, R/backprop_r.R, adds the two. c_t acts on h_t "
        "and on c_{t+1}, where the figure branches. With the product and δ4 = 0 at the last step, "
        "δ8 is zero at every step, and so are the gradients of the gates i, f and g."
    ),
    mistake=("zero-gradient",),
    corrected=("δ8 = δ7 + δ4",),
    model="lstm",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    h, c, gates = run_lstm(U, W, x)
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[T]
    error2, error4 = dy @ V, np.zeros_like(h[0])
    for t in reversed(range(T)):
        i, f, g, o = gates[t]
        error3, tanh_c = error2, np.tanh(c[t + 1])
        error7 = error3 * o * (1 - tanh_c**2)
        error8 = error7 * error4
        error13 = error3 * tanh_c * o * (1 - o)
        error14 = error8 * i * (1 - g**2)
        error15 = error8 * g * i * (1 - i)
        error16 = error8 * c[t] * f * (1 - f)
        packed = np.concatenate([error15, error16, error14, error13], axis=1)
        dU += packed.T @ x[t]
        dW += packed.T @ h[t]
        error2, error4 = packed @ W, error8 * f
    return dU, dW, dV
