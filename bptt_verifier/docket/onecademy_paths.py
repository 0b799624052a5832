"""1Cademy: the gradient of a recurrent weight as a sum over the steps at which it acts."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="∂J/∂W = Σ_k ∂J/∂ŷ · ∂ŷ/∂h_t · Π_j ∂h_j/∂h_{j−1} · ∂h_k/∂W",
    source="1Cademy, RNN backpropagation formulas, 1cademy.com/node/rnn-backpropagation-formulas",
    claim=(
        "h(t) = g₁(W h(t−1) ⊕ U x(t) + b_h),  ŷ(t) = g₂(V h(t) + b_y)",
        "∂J(t)/∂V = ∂J(t)/∂ŷ(t) · ∂ŷ(t)/∂V",
        "∂J(t)/∂W = Σ_{k=1}^{t} ∂J(t)/∂ŷ(t) · ∂ŷ(t)/∂h(t) · (Π_{j=k+1}^{t} ∂h(j)/∂h(j−1)) · "
        "∂h(k)/∂W,  and likewise for U",
    ),
    convention="∂h(k)/∂W is direct, which the text does not say, and the factors of larger j stand "
    "to the left. Here ⊕ is a sum, g₁ is tanh, g₂ the identity, J(t) the squared error at the last "
    "step; the text writes t = 3.",
    verdict=AGREES,
    seen=True,
    rests_on="the text of the page",
    reading="With the total derivative in the place of ∂h(k)/∂W every path would be counted "
    "several times: see d2l-total for what that gives.",
    model="rnn",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T, B, _ = x.shape
    h = [np.zeros((B, len(W)), x.dtype)]
    for t in range(T):
        h.append(np.tanh(x[t] @ U.T + h[t] @ W.T))
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW = np.zeros_like(U), np.zeros_like(W)
    for b in range(B):
        for k in range(1, T + 1):
            row = dy[b] @ V
            for j in range(T, k, -1):
                row = row @ ((1 - h[j][b] ** 2)[:, None] * W)  # ∂h(j)/∂h(j−1)
            row = row * (1 - h[k][b] ** 2)
            dU += np.outer(row, x[k - 1, b])
            dW += np.outer(row, h[k - 1][b])
    return dU, dW, dy.T @ h[T]
