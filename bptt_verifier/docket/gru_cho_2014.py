"""The GRU with z as the share of the old state, reset before the product."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import run_gru

ENTRY = Entry(
    title="GRU, z is the share of the old state, reset before the product",
    source="K. Cho et al., Learning phrase representations using RNN encoder-decoder for "
    "statistical machine translation, arXiv:1406.1078, equations (7) and (8)",
    claim=(
        "h_t = z_t h_{t−1} + (1 − z_t) h̃_t,  h̃_t = tanh(W x_t + U (r_t ⊙ h_{t−1}))",
        "∂h_t/∂z_t = h_{t−1} − h̃_t,  δ_r = (Uᵀ δ_h̃) ⊙ h_{t−1} ⊙ r (1 − r)",
    ),
    convention="z_t is the share of the old state. Columns in the formulas, rows in the code, in "
    "this project's letters.",
    verdict=AGREES,
    seen=False,
    rests_on="pytorch/pytorch, issues 20129 and 60645, which compare the update with the paper's, "
    "and notes on the paper that restate its equations; the paper was not seen, and the "
    "derivatives are written here",
    reading="See gru-chung-2014 for the other convention of z and gru-pytorch for the other place "
    "of the reset gate.",
    model="gru",
    reset="before",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    Wr, Wz, Wn = np.split(W, 3)
    h, steps = run_gru(U, W, x, "before")
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dh = np.zeros_like(U), np.zeros_like(W), dy @ V
    for t in reversed(range(T)):
        r, z, n = steps[t]
        dn, dz = dh * (1 - z) * (1 - n**2), dh * (h[t] - n) * z * (1 - z)
        met = dn @ Wn
        dr = met * h[t] * r * (1 - r)
        dU += np.concatenate([dr, dz, dn], axis=1).T @ x[t]
        dW += np.concatenate([dr.T @ h[t], dz.T @ h[t], dn.T @ (r * h[t])])
        dh = dh * z + dr @ Wr + dz @ Wz + met * r
    return dU, dW, dy.T @ h[T]
