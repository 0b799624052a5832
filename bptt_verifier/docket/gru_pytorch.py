"""The GRU with the reset gate after the product."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import run_gru

ENTRY = Entry(
    title="GRU, reset after the product",
    source="PyTorch, documentation of torch.nn.GRUCell, the four formulas; called wrong in "
    "pytorch/pytorch, issue 20129",
    claim=(
        "n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn)),  h′ = (1 − z) ⊙ n + z ⊙ h",
        "δ_r = δ_n ⊙ (W_hn h) ⊙ r (1 − r),  (∂L/∂h)_n = W_hnᵀ (r ⊙ δ_n)",
    ),
    convention="The reset gate multiplies the product W_hn h, not the state. Without biases here; "
    "the second line is written here from the first.",
    verdict=AGREES,
    seen=True,
    rests_on="the documentation's page, and the issue",
    reading="With the reset gate before the product, as in gru-cho-2014, δ_r and the way back "
    "to h are others, and U_n, W_n mean another function.",
    model="gru",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    Wr, Wz, Wn = np.split(W, 3)
    h, steps = run_gru(U, W, x, "after")
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dh = np.zeros_like(U), np.zeros_like(W), dy @ V
    for t in reversed(range(T)):
        r, z, n = steps[t]
        dn, dz = dh * (1 - z) * (1 - n**2), dh * (h[t] - n) * z * (1 - z)
        dr = dn * (h[t] @ Wn.T) * r * (1 - r)
        dU += np.concatenate([dr, dz, dn], axis=1).T @ x[t]
        dW += np.concatenate([dr.T @ h[t], dz.T @ h[t], (r * dn).T @ h[t]])
        dh = dh * z + dr @ Wr + dz @ Wz + (r * dn) @ Wn
    return dU, dW, dy.T @ h[T]
