"""TensorFlow, documentation of GRUBlockCellGrad: the gates' part of the previous state."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_gru

ENTRY = Entry(
    title="The reset gate's weight for both gates, in the unpacked formula",
    source="TensorFlow, Java API documentation, org.tensorflow.op.core.GRUBlockCellGrad",
    claim=(
        "d_h_prev = d_h_prev_component_1 + d_h_prevr ∘ r + d_h ∘ u",
        "d_h_prev_component_1 = d_r_bar * w_r_h_prevᵀ + d_u_bar * w_r_h_prevᵀ",
        "d_c_bar = d_h ∘ (1 − u) ∘ (1 − c ∘ c),  d_u_bar = d_h ∘ (h − c) ∘ u ∘ (1 − u)",
    ),
    convention="Row vectors; u is the share of the old state, and h in the last formula is the "
    "previous state; the reset gate acts before the product. Without biases here.",
    verdict=DISAGREES,
    seen=True,
    rests_on="an excerpt of the page with these formulas; that for d_r_bar was not in it, and is "
    "written here",
    reading=(
        "A slip of one index in the text: the packed form on the same page, d_r_bar_u_bar * w_ruᵀ, "
        "has the weight of each gate and is right. Nothing is said here about the kernel's code."
    ),
    mistake=("wrong-operand",),
    corrected=("d_h_prev_component_1 = d_r_bar * w_r_h_prevᵀ + d_u_bar * w_u_h_prevᵀ",),
    model="gru",
    reset="before",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    Wr, Wz, Wn = np.split(W, 3)  # noqa: RUF059 - the corrected formula has Wz
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
        dh = dh * z + dr @ Wr + dz @ Wr + met * r
    return dU, dW, dy.T @ h[T]
