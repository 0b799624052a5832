"""∂L/∂W and ∂L/∂U as the sum over all hidden states, term by term, with every Jacobian written out.

    ∂L/∂W = Σ_k ∂L/∂ŷ · ∂ŷ/∂h_T · ∂h_T/∂h_k · ∂⁺h_k/∂W

∂⁺h_k/∂W is the direct path: how W changes h_k while h_{k-1} stays fixed. ∂h_T/∂h_k carries that
change through the later states. Slow and literal: this is the formula on the blackboard.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from manual_bptt import activations, inputs, losses
from manual_bptt.activations import Activation, Array
from manual_bptt.inputs import arguments
from manual_bptt.rnn import Params, Trace, forward


class Terms(NamedTuple):
    """The T terms of each sum, the k-th at index k-1, added over the batch."""

    U: Shaped[Array, "T H D"]
    W: Shaped[Array, "T H H"]
    b: Shaped[Array, "T H"]


def terms(
    params: Params,
    x: Shaped[Array, "T B D"],
    output_gradient: Shaped[Array, "B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
) -> Terms:
    """Every term of (J5), given ∂L/∂ŷ. Subscripts: i and j for states, p and q for weights.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    weights, x, _, h0, *_ = arguments(params, x, h0=h0)
    dy = inputs.output_gradient(output_gradient, weights[2], x)
    _, trace = forward(params, x, h0, activation=activation)
    return terms_along(Params(*weights), trace, dy)


def terms_along(params: Params, trace: Trace, dy: Shaped[Array, "B O"]) -> Terms:
    """`terms` without its checks."""
    U, W, V, _, _ = params
    x, a, h, activation, *_ = trace
    phi = activations.find(activation)
    T, B, D = x.shape
    H = len(W)
    one = np.eye(H, dtype=U.dtype)

    terms = Terms(*(np.empty((T, *size), U.dtype) for size in ((H, D), (H, H), (H,))))
    dy_dhT = V
    dhT_dhk = np.broadcast_to(one, (B, H, H))
    for k in range(T, 0, -1):
        slope = phi.derivative(a[k - 1], h[k])
        dhk_dW = np.einsum("bj,jp,bq->bjpq", slope, one, h[k - 1])  # (J1)  ∂⁺h_k/∂W, direct
        dhk_dU = np.einsum("bj,jp,bq->bjpq", slope, one, x[k - 1])  # (J2)  ∂⁺h_k/∂U, direct
        dhk_db = np.einsum("bj,jp->bjp", slope, one)  # (J3)  ∂⁺h_k/∂b, direct

        dL_dhk = np.einsum("bo,oi,bij->bj", dy, dy_dhT, dhT_dhk)
        terms.W[k - 1] = np.einsum("bj,bjpq->pq", dL_dhk, dhk_dW)  # (J5)  term k
        terms.U[k - 1] = np.einsum("bj,bjpq->pq", dL_dhk, dhk_dU)
        terms.b[k - 1] = np.einsum("bj,bjp->p", dL_dhk, dhk_db)

        dhk_dprevious = np.einsum("bi,ij->bij", slope, W)
        dhT_dhk = np.einsum("bij,bjk->bik", dhT_dhk, dhk_dprevious)  # (J4)  one factor more
    return terms


def value_and_grad(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
) -> tuple[Any, Params]:
    """The loss and its gradients with respect to the parameters, as sums over all hidden states.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    weights, x, y, h0, *_ = arguments(params, x, y, h0, loss=loss)
    _, _, _, b, c = weights
    measure = losses.find(loss)
    prediction, trace = forward(params, x, h0, activation=activation)
    dy = measure.gradient(prediction, y)
    recurrent = terms_along(Params(*weights), trace, dy)
    return measure.value(prediction, y), Params(
        U=recurrent.U.sum(axis=0),
        W=recurrent.W.sum(axis=0),
        V=np.einsum("bo,bh->oh", dy, trace.h[-1]),  # (B6)
        b=None if b is None else recurrent.b.sum(axis=0),
        c=None if c is None else dy.sum(axis=0),  # (B8)
    )
