"""Real-time recurrent learning."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="Real-time recurrent learning",
    source="R. J. Williams & D. Zipser, A learning algorithm for continually running fully "
    "recurrent neural networks, Neural Computation 1(2), 1989, equations (10) to (15)",
    claim=(
        "p^k_ij(t+1) = f′_k(s_k(t)) [ Σ_l w_kl p^l_ij(t) + δ_ik z_j(t) ],  p^k_ij(0) = 0",
        "Δw_ij = α Σ_t Σ_k e_k(t) p^k_ij(t)",
    ),
    convention=(
        "p^k_ij is the total derivative ∂y_k/∂w_ij, δ_ik is 1 where i = k; z holds the states and "
        "the inputs. Here the error e is there at the last step only."
    ),
    verdict=AGREES,
    seen=False,
    rests_on="notes on the paper that restate its equations by number, and two other restatements; "
    "the paper itself was not seen",
    reading=(
        "The sum is the gradient for weights that are constant. If they are updated at every step, "
        "as the online algorithm does, it is an approximation, as the authors state."
    ),
    model="rnn",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T, B, D = x.shape
    H = len(W)
    h, w = np.zeros((B, H), x.dtype), np.concatenate([U, W], axis=1)
    p = np.zeros((B, H, H, D + H), x.dtype)
    for t in range(T):
        z = np.concatenate([x[t], h], axis=1)
        h = np.tanh(z @ w.T)
        s = np.einsum("kl,blij->bkij", W, p)
        s += np.einsum("ik,bj->bkij", np.eye(H, dtype=x.dtype), z)
        p = (1 - h**2)[:, :, None, None] * s
    dy = 2 * (h @ V.T - y) / y.size
    dw = np.einsum("bk,bkij->ij", dy @ V, p)
    return dw[:, :D], dw[:, D:], dy.T @ h
